"""Open a movie and settle its material and its scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from adatom.analysis.frame import find_atoms
from adatom.campaign.config import Config, ensemble_of, material_of
from adatom.campaign.recording import with_detector, with_recording
from adatom.campaign.sources import open_movie, settle_scale, some_images
from adatom.core import Calibration, Frame, Material, Movie
from adatom.errors import BadInput, NoMaterial
from adatom.features.novelty.frame import confident_share
from adatom.frames.lattice.candidates import Candidate, compare_candidates
from adatom.frames.lattice.screening import CLEAR, Screening, screen
from adatom.learning.ensemble import Ensemble
from adatom.learning.weights import load_for
from adatom.materials.library import load_material, material_names
from adatom.parallel.progress import Progress

# Odds before a frame is seen; 1 for the others. Of the sheets with this lattice, most are graphene.
_PRIOR = {"graphene": 3.0}
# The material whose networks decide where no lattice can be seen. Those of others are as sure of
# its frames as of their own: see record 24.
_BY_NETWORKS = "graphene"
_SEEN_A = 30.0  # Å: edge of the part of a frame that networks are tried on
_MOST_SCALE_ERROR = 0.12  # scales further off are not tried
_SURE_SHARE = 0.5  # share of the sites of that part with a sure atom, if it shows the material


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """Frames whose material and scale are settled.

    Parameters
    ----------
    movie
        Calibrated frames.
    material
        What they show, as the user says or as the frames do.
    screening
        The materials that fit by lattice and scale.
    notes
        What the user should know of the choice.
    """

    movie: Movie
    material: Material
    screening: Screening
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A movie with everything that is settled before its analysis.

    Parameters
    ----------
    config
        The configuration; it names the material.
    movie, material, screening
        As of `Settled`.
    ensemble
        Networks of the material.
    notes
        What the user should know of frames, material and scale.
    """

    config: Config
    movie: Movie
    material: Material
    ensemble: Ensemble
    screening: Screening
    notes: tuple[str, ...]


def settle(movie: Movie, material: Material | None, *, fit: bool, chosen: bool = False) -> Settled:
    """Settle what the frames show, and their scale.

    Parameters
    ----------
    movie
        Checked frames, with or without a calibration.
    material
        What they show; None to choose it.
    fit
        Take the scale from the material's lattice.
    chosen
        The material was chosen at an earlier opening, and this is said again.

    Raises
    ------
    BadInput
        If the movie has no scale, or it cannot be right.
    NoMaterial
        If no material is named, and none is clearly likely.
    """
    images = some_images(movie)
    screening = None
    if material is None:
        name, screening = choose_material(movie, images)
        material, chosen = load_material(name), True
    movie, notes = settle_scale(movie, material, fit=fit, images=images)
    screening = screening or screening_of(movie, material, images)
    if chosen:
        notes = (chosen_note(material.name, screening), *notes)
    return Settled(movie, material, screening, notes)


def open_input(config: Config, progress: Progress) -> Opened:
    """Open the frames of a configuration, and settle material, networks and scale.

    Raises
    ------
    BadInput
        If a file, the material or the scale cannot be used.
    NoMaterial
        If no material is named, and none is clearly likely.
    """
    material = ensemble = None
    if config.material is not None:  # what is wrong with it is said before frames are read
        material, ensemble = material_of(config), ensemble_of(config)
    movie, left_out = open_movie(config.input, progress, seed=config.seed, material=material)
    fit = config.input.fit_scale
    settled = settle(movie, material, fit=fit, chosen=config.screened)
    if ensemble is None:
        name = settled.material.name
        config = config.model_copy(update={"material": name, "screened": True})
        ensemble = ensemble_of(config)
    movie, assumed = with_recording(settled.movie, config.recording(), settled.material)
    seen = with_detector(settled.material, movie.acquisition)
    told = (*movie.notes, *left_out, *settled.notes, *assumed)
    return Opened(config, movie, seen, ensemble, settled.screening, told)


def choose_material(
    movie: Movie, images: Sequence[NDArray[np.float32]] | None = None
) -> tuple[str, Screening]:
    """Choose the material that a movie shows.

    Lattice and scale decide. Where the field holds too few periods of any lattice, it is graphene
    if the networks of graphene find sure atoms. `images` is the result of `some_images`, where it
    was made before.

    Returns
    -------
    Its name, and how all materials fit.

    Raises
    ------
    BadInput
        If the movie has no scale.
    NoMaterial
        If none is clearly likely; the message has the probabilities.
    """
    if movie.calibration is None:
        raise BadInput(
            movie.source, expected="a pixel size", got="none in the file",
            todo="Give `pixel_size_A`, in Å, or name the `material`: its lattice tells the size.",
        )  # fmt: skip
    screening = screening_of(movie, None, images)
    if screening.clear is not None:
        return screening.clear.name, screening
    if screening.none >= CLEAR and _networks_see(movie, _BY_NETWORKS):
        return _BY_NETWORKS, screening
    names = ", ".join(material_names())
    raise NoMaterial(
        movie.source,
        expected=f"a lattice of one of {names}, at {movie.calibration.pixel_size_A:.4g} Å a pixel",
        got=f"none that is clearly likely: {screening.in_words()}",
        todo="Check `pixel_size_A`, or name the `material`.",
    )


def screening_of(
    movie: Movie,
    material: Material | None,
    images: Sequence[NDArray[np.float32]] | None = None,
) -> Screening:
    """Compare the movie with the library's materials, and with one of the user's own.

    `images` is the result of `some_images`, where it was made before.
    """
    assert movie.calibration is not None  # callers have settled it  # noqa: S101
    others = [m for m in _library() if material is None or m.name != material.name]
    candidates = others if material is None else [material, *others]
    images = some_images(movie) if images is None else images
    return screen(images, movie.calibration.pixel_size_A, candidates, prior=_PRIOR)


def rank_candidates(
    movie: Movie, candidates: Sequence[Material], scale_error: float
) -> tuple[Candidate, ...]:
    """Compare a movie that shows one of several crystals with each of them.

    Parameters
    ----------
    movie
        Checked frames.
    candidates
        Materials, of different names.
    scale_error
        Relative standard deviation of the pixel size.

    Raises
    ------
    BadInput
        If the movie has no scale, there are no candidates with a lattice, two have one name, or the
        error is not between 0 and 0.12.
    """
    if movie.calibration is None:
        raise BadInput(
            movie.source, expected="a pixel size", got="none in the file",
            todo="Give `pixel_size_A`, in Å.",
        )  # fmt: skip
    if not 0.0 < scale_error <= _MOST_SCALE_ERROR:
        raise BadInput(
            "`scale_error`", expected=f"a share above 0, up to {_MOST_SCALE_ERROR:g}",
            got=f"{scale_error:g}",
            todo="Give the usual relative error of your pixel sizes; 0.04 stands for 4 %.",
        )  # fmt: skip
    crystals = [m for m in candidates if m.has_lattice]
    names = [m.name for m in crystals]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not crystals or twice:
        raise BadInput(
            "`candidates`", expected="crystals of different names",
            got=f"{twice[0]} twice" if twice else "none with a lattice",
            todo="Name built-in materials, or give structure files of different names.",
        )  # fmt: skip
    px = movie.calibration.pixel_size_A
    return compare_candidates(some_images(movie), px, crystals, scale_sd=scale_error)


def chosen_note(name: str, screening: Screening) -> str:
    """Say which material was chosen, and why."""
    match = next((m for m in screening.matches if m.name == name), None)
    why = (
        f"by lattice and scale: {screening.in_words()}"
        if match and match is screening.clear
        else "the field is small for its lattice, but its networks find sure atoms"
    )
    return f"no material was named: taken as {name} ({why}); `material` names another"


@cache
def _library() -> tuple[Material, ...]:
    return tuple(load_material(name) for name in material_names())


def _networks_see(movie: Movie, name: str) -> bool:
    material = load_material(name)
    frame = movie[0]
    px = frame.calibration.pixel_size_A
    side = round(_SEEN_A * material.scale / px)
    part = Frame(_middle(frame.data, side), Calibration(px), source=frame.source)
    atoms = find_atoms(part, load_for(material, None), material).atoms
    p = atoms.column("p_exists")
    width, height = part.calibration.extent_xy(part.shape)
    sites = width * height / material.site_area_A2
    sure = float(p.sum()) * confident_share(p)
    return sure >= _SURE_SHARE * sites


def _middle(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    (r, c) = (max((n - side) // 2, 0) for n in image.shape)
    return image[r : r + side, c : c + side].copy()
