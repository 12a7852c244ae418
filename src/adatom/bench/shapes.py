"""Rows of `adatom bench defects` on frames of relaxed cells: reconstructions, disorder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.build import graphene

from adatom.analysis.frame import FrameResult, analyse_frame
from adatom.bench.find import Finder
from adatom.bench.relaxed_cells import RelaxedCell, relaxed_cell
from adatom.bench.rows import Row, row
from adatom.core import GRAPHENE, Frame
from adatom.core.arrays import BoolArray, FloatArray
from adatom.errors import EngineMissing
from adatom.features.neighbours import match
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_points
from adatom.frames.simulate.synthesize import image_specimen

SEED = 53_000_000  # far from those of training, calibration and the choice of thresholds
_PIXELS, _PIXEL_A = 256, 0.15  # edge of a frame, pixels; pixel size, Å
_EXTENT_A = (_PIXELS - 1) * _PIXEL_A
_MARGIN_A = 3.0  # Å: atoms this far outside the field reach into it
_INNER_A = 5.0  # Å: defects nearer to the border are not counted
_SAME_A = 1.7  # Å: a defect named this near to the true one is meant to be it
_NEAR_A = 5.0  # Å: atoms this near to a defect are those beside it
_SHIFTED_A = (0.12, 0.45)  # Å: distances from their sites at which atoms are still recognised
_MATCH_A = 0.6  # Å: largest distance of an atom from the true one
_NAMES = {
    "Stone-Wales": ("Stone-Wales",),
    "V1": ("V1",),
    "V1 drawn together": ("V1",),
    "V2": ("V2",),
    "V2 555-777": ("V2-555-777",),
}
DOSES = (0.5, 1.0, 2.0, 5.0, 20.0)  # counts at the peak of a carbon atom, per pixel


@dataclass(frozen=True, slots=True, eq=False)
class ShapeFrame:
    """A frame of a relaxed cell, and what is in it.

    Parameters
    ----------
    frame
        The image, counts.
    xy, sites
        True positions and sites of the atoms, shape (atom, 2), Å.
    centres
        Middles of the defects, shape (defect, 2), Å.
    perfect
        Sites of the perfect sheet, shape (site, 2), Å.
    """

    frame: Frame
    xy: FloatArray
    sites: FloatArray
    centres: FloatArray
    perfect: FloatArray


@dataclass(slots=True, eq=False)
class _Score:
    """Counts over the frames of one defect at one dose."""

    right: int = 0
    defects: int = 0
    false: int = 0
    within: int = 0
    axes: int = 0
    along: float = 0.0
    whole: float = 0.0


def shape_frame(cell: RelaxedCell, dose: float, rng: np.random.Generator) -> ShapeFrame:
    """Image a sheet of equal cells at a random angle.

    Parameters
    ----------
    cell
        The cell.
    dose
        Counts at the peak of a carbon atom, per pixel.
    rng
        Source of the angle, the place and the noise.
    """
    angle = rng.uniform(0.0, 2.0 * np.pi)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, s], [-s, c]])
    step = rng.uniform(0.0, 1.0, 2) @ cell.cell
    reach = int(np.ceil(1.5 * _EXTENT_A / np.linalg.norm(cell.cell, axis=1).min())) + 1
    k = np.arange(-reach, reach + 1)
    steps = np.stack(np.meshgrid(k, k), axis=-1).reshape(-1, 2) @ cell.cell + step

    def everywhere(xy: FloatArray) -> FloatArray:
        return np.asarray((steps[:, None] + xy[None]).reshape(-1, 2) @ turn + _EXTENT_A / 2.0)

    xy, sites = everywhere(cell.xy), everywhere(cell.sites)
    species = np.tile(cell.species, len(steps))
    near = ((xy > -_MARGIN_A) & (xy < _EXTENT_A + _MARGIN_A)).all(axis=1)
    centres = everywhere(cell.centre[None])
    inner = ((centres > _INNER_A) & (centres < _EXTENT_A - _INNER_A)).all(axis=1)
    conditions = Conditions(pixel_size_A=_PIXEL_A, counts=dose)
    specimen = Specimen(xy[near], species[near], np.zeros((0, 2)))
    image = image_specimen(specimen, (_PIXELS, _PIXELS), GRAPHENE, conditions, rng)
    lattice_A = GRAPHENE.lattice_constant_A
    count = round(float(np.linalg.norm(cell.cell[0])) / lattice_A)
    sheet = graphene(size=(count, count, 1), a=lattice_A, vacuum=8.0).positions[:, :2]
    return ShapeFrame(image.frame, xy[near], sites[near], centres[inner], everywhere(sheet))


def reconstruction_rows(finder: Finder, frames: int, seed: int = SEED) -> list[Row]:
    """Name reconstructions whose shape is that of LAMMPS, and find the atoms beside them.

    Parameters
    ----------
    finder
        The networks.
    frames
        Frames for each kind and dose.
    seed
        Of the frames; thresholds were chosen on others.
    """
    rows = []
    for number, (kind, names) in enumerate(_NAMES.items()):
        try:
            cell = relaxed_cell(kind, "lammps", 12)
        except EngineMissing as missing:
            return [row("reconstructions", f"not run: {missing.todo}", "run", met=False)]
        scores = []
        for dose in DOSES:
            score = _Score()
            for i in range(frames):
                rng = np.random.default_rng([seed, number, i, round(1000 * dose)])
                scene = shape_frame(cell, dose, rng)
                _add(score, scene, analyse_frame(scene.frame, finder.ensemble, GRAPHENE), names)
            scores.append(score)
        rows += _rows_of(kind, scores)
    return rows


def _add(score: _Score, scene: ShapeFrame, found: FrameResult, names: tuple[str, ...]) -> None:
    defects = found.defects
    at = defects.xy
    explained = np.zeros(len(defects), dtype=np.bool_)
    for centre in scene.centres:
        near = np.hypot(*(at - centre).T) < _NEAR_A
        explained |= near
        close = np.flatnonzero(np.hypot(*(at - centre).T) < _SAME_A)
        score.defects += 1
        score.right += len(close) == near.sum() == 1 and defects.kinds[close[0]] in names
    inner = ((at > _INNER_A) & (at < _EXTENT_A - _INNER_A)).all(axis=1)
    score.false += int((inner & ~explained).sum())
    near_defect = np.zeros(len(scene.xy), dtype=np.bool_)
    for centre in scene.centres:
        near_defect |= np.hypot(*(scene.xy - centre).T) < _NEAR_A
    _add_atoms(score, scene, found, near_defect)


def _add_atoms(score: _Score, scene: ShapeFrame, found: FrameResult, which: BoolArray) -> None:
    likely = found.atoms.is_likely
    xy, covariance = found.atoms.xy[likely], found.atoms.covariance[likely]
    partner = match(scene.xy, xy, _MATCH_A)
    which = which & (partner >= 0)
    own = partner[which]
    error = xy[own] - scene.xy[which]
    sd = np.sqrt(np.einsum("nii->ni", covariance[own]))
    score.within += int((np.abs(error) < sd).sum())
    score.axes += error.size
    shift = (scene.xy - scene.sites)[which]
    size = np.hypot(*shift.T)
    chosen = (size > _SHIFTED_A[0]) & (size < _SHIFTED_A[1])
    score.along += float(((shift + error)[chosen] * shift[chosen]).sum())
    score.whole += float((shift[chosen] ** 2).sum())


def _rows_of(kind: str, scores: list[_Score]) -> list[Row]:
    right = [s.right / max(s.defects, 1) for s in scores]
    within = [s.within / max(s.axes, 1) for s in scores]
    share = [s.along / s.whole if s.whole else 1.0 for s in scores]
    high = [k for k, dose in enumerate(DOSES) if dose >= 1.0]
    at_2 = DOSES.index(2.0)
    wanted = right[DOSES.index(1.0)] >= 0.9 and min(right[at_2:]) >= 1.0
    doses = " / ".join(f"{d:g}" for d in DOSES)
    return [
        row(f"{kind}: named right of {scores[0].defects}, dose {doses}", _join(right),
            "at least 0.9 at 1, all from 2 up", met=wanted),
        row(f"{kind}: atoms beside it within 1σ", _join(within), "0.60 to 0.76 from dose 1 up",
            met=all(0.60 <= within[k] <= 0.76 for k in high)),
        row(f"{kind}: share of displacements recovered", _join(share),
            "at least 0.9 from dose 1 up", met=all(share[k] >= 0.9 for k in high)),
        row(f"{kind}: other defects named, per frame's worth of true ones",
            _join(s.false / max(s.defects, 1) for s in scores), "reported", met=True),
    ]  # fmt: skip


_DISORDER_A = (0.0, 0.02, 0.05, 0.08, 0.12)
_DISORDER_DOSES = (0.3, 1.0, 5.0, 20.0)


def disorder_rows(finder: Finder, frames: int, seed: int = SEED) -> list[Row]:
    """Coverage of the error bars where atoms are shifted at random from their sites.

    Parameters
    ----------
    finder
        The networks.
    frames
        Frames for each disorder and dose.
    seed
        Of the frames.
    """
    rows = []
    for disorder in _DISORDER_A:
        within, rms = [], []
        for dose in _DISORDER_DOSES:
            score, squares, axes = _Score(), 0.0, 0
            for i in range(frames):
                rng = np.random.default_rng(
                    [seed, 99, i, round(1000 * dose), round(1000 * disorder)]
                )
                scene = _disordered(disorder, dose, rng)
                found = finder(scene.frame).atoms
                likely = found.is_likely
                xy, sd = found.xy[likely], np.sqrt(np.einsum("nii->ni", found.covariance[likely]))
                partner = match(scene.xy, xy, _MATCH_A)
                inner = ((scene.xy > 1.0) & (scene.xy < _EXTENT_A - 1.0)).all(axis=1)
                which = (partner >= 0) & inner
                error = xy[partner[which]] - scene.xy[which]
                score.within += int((np.abs(error) < sd[partner[which]]).sum())
                score.axes += error.size
                squares, axes = squares + float((error**2).sum()), axes + error.size
            within.append(score.within / score.axes)
            rms.append((squares / axes) ** 0.5)
        doses = " / ".join(f"{d:g}" for d in _DISORDER_DOSES)
        rows += [
            row(f"disorder of {disorder:g} Å: within 1σ, dose {doses}", _join(within),
                "0.63 to 0.73", met=all(0.63 <= w <= 0.73 for w in within)),
            row(f"disorder of {disorder:g} Å: RMSE per axis, Å", _join(rms), "reported", met=True),
        ]  # fmt: skip
    return rows


def _disordered(disorder_A: float, dose: float, rng: np.random.Generator) -> ShapeFrame:
    extent = (_EXTENT_A, _EXTENT_A)
    sites = lattice_points(GRAPHENE, extent, _MARGIN_A, rng.uniform(0.0, 2.0 * np.pi))
    sites = sites + rng.uniform(-1.3, 1.3, 2)
    xy = sites + rng.normal(0.0, disorder_A, sites.shape)
    conditions = Conditions(pixel_size_A=_PIXEL_A, counts=dose)
    species = np.zeros(len(xy), dtype=np.int64)
    specimen = Specimen(xy, species, np.zeros((0, 2)))
    image = image_specimen(specimen, (_PIXELS, _PIXELS), GRAPHENE, conditions, rng)
    return ShapeFrame(image.frame, xy, sites, np.zeros((0, 2)), sites)


def _join(values: object, digits: int = 3) -> str:
    return " / ".join(f"{v:.{digits}f}" for v in values)  # type: ignore[attr-defined]
