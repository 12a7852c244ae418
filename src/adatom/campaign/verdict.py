"""The verdict on a movie: does it show its material? A campaign's headline if it does not."""

from __future__ import annotations

from collections.abc import Mapping

from adatom.analysis.flags import FrameFlags
from adatom.analysis.presence import bonded_atoms, shows_material, unequal_sites
from adatom.core import AtomTable, Lattice, Material, Movie
from adatom.features.find import FindOptions
from adatom.frames.lattice.screening import Screening
from adatom.learning.ensemble import Ensemble

_LOOKED_AT = 3  # most doubtful frames that are looked at part by part, which takes seconds each
# Sure atoms that stand as in the crystal, over the sites that the frame's area has room for: frames
# with fewer are doubtful. In another material the networks may see a few atoms, sure of each, and
# nothing else.
_FEW_OF_AREA = 0.1


def judge(
    movie: Movie,
    material: Material,
    ensemble: Ensemble,
    screening: Screening,
    atoms: AtomTable,
    lattices: Mapping[int, Lattice | None],
    flags: Mapping[int, FrameFlags],
    options: FindOptions | None = None,
) -> str | None:
    """Say why a movie does not show its material.

    Parameters
    ----------
    movie
        Calibrated frames.
    material
        What the user says that they show.
    ensemble
        The networks that found the atoms.
    screening
        Other materials, by lattice and scale.
    atoms, lattices, flags
        Result of the analysis, by number of the frame.
    options
        How atoms are found.

    Returns
    -------
    The reason in one sentence; None if most of the frames show the material.
    """
    assert movie.calibration is not None  # settled when it was opened  # noqa: S101
    start = f"not {material.name}: "
    px = movie.calibration.pixel_size_A
    if screening.excludes(material.name):
        return (
            f"{start}at {px:.4g} Å a pixel, lattice and pattern of the frames say "
            f"{screening.in_words()}"
        )
    doubtful = [i for i in flags if _is_doubtful(movie, material, atoms.of_frame(i), flags[i])]
    if 2 * len(doubtful) >= max(len(flags), 1):
        step = max(len(doubtful) // _LOOKED_AT, 1)
        looked_at = (movie[i] for i in doubtful[::step][:_LOOKED_AT])
        if not any(shows_material(frame, ensemble, material, options) for frame in looked_at):
            return (
                f"{start}hardly an atom is sure in {len(doubtful)} of {len(flags)} frames, as in "
                f"noise, dirt, another material, or at another scale than {px:.4g} Å a pixel "
                f"(by lattice and scale: {screening.in_words()})"
            )
    unequal = [unequal_sites(atoms.of_frame(i), lattice) for i, lattice in lattices.items()]
    bad = sorted(ratio for ratio in unequal if ratio > 1.0)
    if 2 * len(bad) > len(unequal):
        return (
            f"{start}its sites should be equally bright, and every second one is "
            f"{bad[len(bad) // 2]:.2f} times as bright as the others "
            f"(by lattice and scale: {screening.in_words()})"
        )
    return None


def _is_doubtful(movie: Movie, material: Material, atoms: AtomTable, flags: FrameFlags) -> bool:
    """Whether a frame has few sure atoms, of those that it may have or of those it has room for."""
    if flags.has_few_confident_atoms:
        return True
    if not material.has_lattice:
        return False
    assert movie.calibration is not None  # as above  # noqa: S101
    width, height = movie.calibration.extent_xy(movie.shape)
    room = width * height * (1.0 - flags.masked_share) / material.site_area_A2
    return bonded_atoms(atoms, material) < _FEW_OF_AREA * room
