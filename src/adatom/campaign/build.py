"""Choose the defects to simulate, and build their supercells or flakes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from adatom.campaign.config import Config
from adatom.campaign.find import MovieResult
from adatom.campaign.steps import Job, Steps
from adatom.core import DefectKind, Frame, Movie, Structure
from adatom.errors import BadInput
from adatom.features.refinement.likelihood import likelihood_near
from adatom.store import file_hash, read_structures, write_structures
from adatom.structures import (
    EXCLUDED,
    NoPeriodicCell,
    build_flake,
    build_supercell,
    effective_size,
    perfect_place,
    sample_structures,
)
from adatom.structures.assemble import structure_name

# A defect at least this far from the border, Å, is seen with its neighbours.
_WHOLE_A = 6.0
# Å: pixels up to this far outside the defect's radius weigh its draws: two widths of a usual probe.
_AROUND_A = 1.0


@dataclass(frozen=True, slots=True)
class ChosenDefect:
    """A defect to simulate: its kind, and the frame that shows it best.

    Parameters
    ----------
    kind
        Kind of the defect; None for perfect crystal.
    frame, defect
        Numbers in the defect table; `defect` is -1 for perfect crystal.
    center_xy_A
        Centre, Å, measured axes.
    weight
        Sum of the kind's probabilities over all frames.
    """

    kind: DefectKind | None
    frame: int
    defect: int
    center_xy_A: tuple[float, float]
    weight: float

    @property
    def name(self) -> str:
        """Name of the kind, ``pristine`` for perfect crystal."""
        return "pristine" if self.kind is None else str(self.kind)


def choose_defects(
    found: MovieResult, extent_xy_A: tuple[float, float], config: Config
) -> list[ChosenDefect]:
    """Choose the most probable kinds of defect, each in the frame that shows it best.

    Kinds are ranked by the sum of their probabilities over the frames. The best frame of a kind has
    a high probability, confident atoms near the defect, a good lattice fit, and the defect far from
    the border. A movie without defects gives the place nearest to its middle with perfect crystal
    around it, as ``pristine``; none where there is no such place.
    """
    best: dict[DefectKind, tuple[float, ChosenDefect]] = {}
    weight: dict[DefectKind, float] = {}
    w, h = extent_xy_A
    defects = found.defects
    for kind, row in zip(defects.kind_values, defects.data.iter_rows(named=True), strict=True):
        lattice = found.lattices.get(row["frame"])
        if lattice is None or row["p"] < config.simulate.minimum_p:
            continue
        x, y = row["x_A"], row["y_A"]
        weight[kind] = weight.get(kind, 0.0) + row["p"]
        whole = min(min(x, y, w - x, h - y) / _WHOLE_A, 1.0)
        sure = _certainty(found, row["frame"], (x, y), config.supercell.defect_radius_A)
        score = row["p"] * sure * max(whole, 0.0) * lattice.matched / (lattice.rms_A + 0.05)
        if kind not in best or score > best[kind][0]:
            best[kind] = (score, ChosenDefect(kind, row["frame"], row["defect"], (x, y), 0.0))
    ranked = sorted(best, key=lambda k: -weight[k])[: config.simulate.max_structures]
    if ranked:
        return [replace(best[k][1], weight=weight[k]) for k in ranked]
    frames = {i: lattice for i, lattice in found.lattices.items() if lattice is not None}
    if not frames:
        return []
    for frame in sorted(frames, key=lambda i: frames[i].rms_A):
        atoms = found.atoms.of_frame(frame)
        place = perfect_place(atoms, frames[frame], extent_xy_A, config.supercell)
        if place is not None:
            return [ChosenDefect(None, frame, -1, place, 0.0)]
    return []


def _certainty(
    found: MovieResult, frame: int, center_xy_A: tuple[float, float], radius_A: float
) -> float:
    """Probability that the table is right about every atom near a defect: existence and element."""
    atoms = found.atoms.of_frame(frame)
    near = np.linalg.norm(atoms.xy - np.asarray(center_xy_A), axis=1) < radius_A
    p = atoms.column("p_exists")[near]
    return float(np.prod(np.maximum(p, 1.0 - p) * atoms.column("p_element")[near]))


def make_structures(
    movie: Movie, found: MovieResult, config: Config, steps: Steps
) -> tuple[list[Structure], list[str], list[str]]:
    """Build the supercells, and sample structures from their uncertainty.

    Returns
    -------
    The most probable structure and the draws of each defect; the ledger key of each structure; and
    in words what is not simulated: defects of which none could be built, and draws that the image
    excludes. These do not stop the others.
    """
    assert movie.calibration is not None  # noqa: S101
    extent = movie.calibration.extent_xy(movie.shape)
    chosen = choose_defects(found, extent, config)
    paths = [
        steps.directory.structures / f"{structure_name(c.name, c.frame, 0, -1)}.extxyz"
        for c in chosen
    ]

    def make(i: int) -> str:
        built = _built_or_why(movie[chosen[i].frame], found, chosen[i], extent, config)
        return write_structures(paths[i], [] if isinstance(built, str) else built)

    jobs = [
        Job(
            "supercells",
            paths[i].stem,
            [c.name, c.frame, c.defect, config.supercell, config.simulate.draws],
            current=partial(_written, paths[i]),
            make=partial(make, i),
            parents=(found.keys[c.frame],),
            seed=config.seed,
        )
        for i, c in enumerate(chosen)
    ]
    keys = steps.run(jobs)
    structures, parents, refused = [], [], []
    for i, (path, key) in enumerate(zip(paths, keys, strict=True)):
        of_defect = read_structures(path)
        likely, excluded = without_excluded(of_defect)
        structures += likely
        parents += [key] * len(likely)
        refused += excluded
        if not of_defect:
            why = _built_or_why(movie[chosen[i].frame], found, chosen[i], extent, config)
            refused.append(f"{chosen[i].name} is not simulated: {why}")
    return structures, parents, refused


def without_excluded(structures: Sequence[Structure]) -> tuple[list[Structure], list[str]]:
    """Leave out the draws of one defect that the image excludes.

    Parameters
    ----------
    structures
        The most probable structure and the draws; those without weights stay.

    Returns
    -------
    The structures to simulate. In words, each draw whose weight is less than 0.001 of the best; and
    the effective number of draws where it is less than half of them. Where these would be more than
    half of the draws, the table and the image contradict each other, as at an atom that moved
    during the scan: all draws are simulated, and that is told.
    """
    weights = [s.weight for s in structures if np.isfinite(s.weight)]
    if not weights:
        return list(structures), []
    best, kept, said = max(weights), [], []
    name, out = structures[0].kind, sum(w < EXCLUDED * max(weights) for w in weights)
    if out > 0.5 * len(weights):
        told = (
            f"by the image {out} of the {len(weights)} draws of {name} are excluded, by the table "
            "they are likely: all are simulated. Look at the frame: an atom may have moved"
        )
        return list(structures), [told]
    for s in structures:
        if s.weight < EXCLUDED * best:  # False where there is no weight
            said.append(
                f"{s.name} ({s.atoms.get_chemical_formula()}) is not simulated: the image excludes "
                f"it, its weight is {s.weight / best:.1g} of the best draw's"
            )
        else:
            kept.append(s)
    size = effective_size(weights)
    if size < 0.5 * len(weights):
        said.append(
            f"the {len(weights)} draws of {name} say as much as {size:.1f}: most explain the frame "
            "badly (effective sample size); ask for more draws"
        )
    return kept, said


def _built_or_why(
    frame: Frame,
    found: MovieResult,
    chosen: ChosenDefect,
    extent_xy_A: tuple[float, float],
    config: Config,
) -> list[Structure] | str:
    """Build the structures of one defect, or say why there are none."""
    try:
        return supercell_and_draws(frame, found, chosen, extent_xy_A, config)
    except BadInput as error:
        return f"expected {error.expected}, got {error.got}"


def supercell_and_draws(
    frame: Frame,
    found: MovieResult,
    chosen: ChosenDefect,
    extent_xy_A: tuple[float, float],
    config: Config,
) -> list[Structure]:
    """Build the most probable structure of a defect, and sample `draws` others.

    They are supercells, whose draws are weighted by how well they explain the frame; or flakes
    where no periodic cell fits, without weights.
    """
    lattice = found.lattices[chosen.frame]
    assert lattice is not None  # choose_defects took only frames with one  # noqa: S101
    common = {
        "center_xy_A": chosen.center_xy_A,
        "kind": chosen.name,
        "frame": chosen.frame,
        "defect": max(chosen.defect, 0),
        "options": config.supercell,
    }
    atoms = found.atoms.of_frame(chosen.frame)
    rng = np.random.default_rng([config.seed, chosen.frame, zlib.crc32(chosen.name.encode())])
    try:
        likeliest = build_supercell(atoms, lattice, extent_xy_A, **common)  # type: ignore[arg-type]
    except NoPeriodicCell:
        drawn = [(-1, None), *((draw, rng) for draw in range(config.simulate.draws))]
        return [
            build_flake(atoms, lattice, extent_xy_A, draw=k, rng=r, **common)  # type: ignore[arg-type]
            for k, r in drawn
        ]
    likelihood = likelihood_near(
        frame,
        atoms,
        chosen.center_xy_A,
        config.supercell.defect_radius_A + _AROUND_A,
        lattice.material,
    )
    draws = sample_structures(
        atoms,
        lattice,
        extent_xy_A,
        count=config.simulate.draws,
        rng=rng,
        explain=None if likelihood is None else likelihood.log_likelihood,
        **common,  # type: ignore[arg-type]
    )
    return [likeliest, *draws]


def _written(path: Path) -> str:
    return file_hash(path) if path.exists() else ""
