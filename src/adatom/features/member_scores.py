"""Scores of the members of an ensemble without labels, to find members that show artefacts.

The sharpness of a map does not tell whether its peaks are at the right positions; the crystal does.
The atoms of each member are compared with the material (distances, coordination, angles), with the
other members, and with the frame, which they must reproduce. After Ghosh et al., npj Comput. Mater.
7, 100 (2021), who selected members by eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from adatom.core import Frame, Material, Prediction
from adatom.core.arrays import FloatArray
from adatom.features.candidates.locate import LocateOptions, locate
from adatom.features.refinement.refine import RefineOptions, refine
from adatom.features.scaled_lengths import frame_in_units

_LEAST_PEAK = 0.4  # lowest peak of the map of one member that counts as an atom
_NEAR, FAR = 0.78, 1.28  # range of the distance of neighbours, bond lengths
_ANGLE = np.radians(18.0)  # largest deviation from an ideal angle, rad
_SAME_ATOM = 0.35  # largest distance of one atom in two members, bond lengths
_RIM = 1.5  # distance from the border below which atoms lack neighbours, bond lengths
_FEW = 8  # least number of atoms for a score
# Least difference from the median that counts as an artefact, in the unit of each score: smaller
# differences occur by chance.
_LEAST_DIFFERENCE = {
    "spacing": 0.04,
    "coordination": 0.06,
    "angles": 0.06,
    "density": 0.06,
    "agreement": 0.03,
    "residual": 0.08,
}
_DEVIATIONS = 4.0  # robust standard deviations from the median beyond which a member is dropped


@dataclass(frozen=True, slots=True)
class MemberScore:
    """Scores of one member on frames without labels; NaN where there are too few atoms.

    Parameters
    ----------
    spacing
        Share of its atoms whose nearest neighbour is one bond length away.
    coordination
        Share of its atoms with the coordination number of the material.
    angles
        Share of the angles between neighbours that occur in the perfect crystal.
    density
        Logarithm of its number of atoms relative to the median of the members.
    agreement
        F1 score of its atoms against those of the mean map.
    residual
        Mean squared residual of a frame fitted with its atoms, relative to the median of the
        members.
    """

    spacing: float
    coordination: float
    angles: float
    density: float
    agreement: float
    residual: float


def score_members(
    frames: Sequence[Frame],
    predictions: Sequence[Prediction],
    material: Material,
    *,
    residuals: bool = True,
    locate_options: LocateOptions | None = None,
    refine_options: RefineOptions | None = None,
) -> list[MemberScore]:
    """Score every member of an ensemble on frames without labels.

    Parameters
    ----------
    frames
        The first frames of an experiment.
    predictions
        Maps of all members for each frame.
    material
        Material of the frames.
    residuals
        Also compute the residual, which takes one refinement per member and frame.
    locate_options, refine_options
        Options of finding atoms; the same as for the pseudo-labels.

    Returns
    -------
    One score per member: means over the frames.
    """
    locate_options = locate_options or LocateOptions()
    refine_options = refine_options or RefineOptions()
    parts = []
    for frame, prediction in zip(frames, predictions, strict=True):
        together = _atoms(prediction, locate_options)
        far = np.asarray(frame.calibration.extent_xy(frame.shape))
        own = [
            _atoms(_single_member(prediction, m), locate_options)
            for m in range(len(prediction.probabilities))
        ]
        usual = max(float(np.median([len(xy) for xy in own])), 1.0)
        fits = [
            _mean_squared_residual(frame, xy, material, refine_options) if residuals else np.nan
            for xy in own
        ]
        middle = float(np.nanmedian(fits)) if np.isfinite(fits).any() else np.nan
        same = _SAME_ATOM * material.bond_length_A
        parts.append(
            [
                MemberScore(
                    *_geometry(xy, material, far), float(np.log(max(len(xy), 0.5) / usual)),
                    _agreement(xy, together, same), fit / middle,
                )
                for xy, fit in zip(own, fits, strict=True)
            ]
        )  # fmt: skip
    return mean_scores(parts)


def mean_scores(parts: Sequence[Sequence[MemberScore]]) -> list[MemberScore]:
    """Average the scores of each member over frames; NaN where no frame has a score.

    Parameters
    ----------
    parts
        Scores of all members for each frame.
    """
    table = np.array([[astuple(score) for score in part] for part in parts])
    seen = np.isfinite(table)
    count = np.where(seen.any(axis=0), seen.sum(axis=0), np.nan)
    mean = np.where(seen, table, 0.0).sum(axis=0) / count
    return [MemberScore(*(float(v) for v in row)) for row in mean]


def choose_members(scores: Sequence[MemberScore]) -> tuple[list[int], dict[int, str]]:
    """Choose the members that show no artefacts.

    A member is dropped if one of its scores is worse than the median of the members by more than
    four robust standard deviations (1.4826 times the median absolute deviation), and by more than
    differs by chance. At most half of the members are dropped.

    Parameters
    ----------
    scores
        From `score_members`.

    Returns
    -------
    Indices of the members that are kept; and for each dropped member, the reason.

    Examples
    --------
    >>> good = MemberScore(0.98, 0.95, 0.96, 0.0, 0.97, 1.0)
    >>> bad = MemberScore(0.98, 0.60, 0.96, 0.0, 0.97, 1.0)
    >>> choose_members([good, good, bad, good])
    ([0, 1, 3], {2: "coordination 0.6 where the members' median is 0.95"})
    """
    worst: dict[int, tuple[float, str]] = {}
    for name, floor in _LEAST_DIFFERENCE.items():
        value = np.array([getattr(s, name) for s in scores])
        if not np.isfinite(value).any():
            continue
        middle = float(np.nanmedian(value))
        worse = _worse(name, value, middle)
        spread = 1.4826 * float(np.nanmedian(np.abs(value - middle)))
        limit = max(floor, _DEVIATIONS * spread)
        for m in np.flatnonzero(np.nan_to_num(worse) > limit).tolist():
            reason = f"{name} {value[m]:.3g} where the members' median is {middle:.3g}"
            if m not in worst or worse[m] / limit > worst[m][0]:
                worst[m] = (float(worse[m] / limit), reason)
    ranked = sorted(worst, key=lambda m: -worst[m][0])[: len(scores) // 2]
    return [m for m in range(len(scores)) if m not in ranked], {m: worst[m][1] for m in ranked}


def _worse(name: str, value: FloatArray, middle: float) -> FloatArray:
    if name == "density":  # too many and too few atoms are both wrong
        return np.asarray(np.abs(value - middle))
    return np.asarray(value - middle if name == "residual" else middle - value)


def _single_member(prediction: Prediction, member: int) -> Prediction:
    return replace(prediction, probabilities=prediction.probabilities[member : member + 1])


def _atoms(prediction: Prediction, options: LocateOptions) -> FloatArray:
    found = locate(prediction, options)
    out: FloatArray = found.xy[found.peak > _LEAST_PEAK]
    return out


def _geometry(xy: FloatArray, material: Material, far: FloatArray) -> tuple[float, float, float]:
    """Shares of correct distances, coordination numbers and angles, away from the border."""
    bond = material.bond_length_A
    inner = np.all((xy > _RIM * bond) & (xy < far - _RIM * bond), axis=1)
    if inner.sum() < _FEW:
        return np.nan, np.nan, np.nan
    tree = cKDTree(xy)
    nearest = tree.query(xy[inner], k=2)[0][:, 1] / bond
    if not material.has_lattice:  # not a crystal: only check that no two atoms overlap
        return float(np.mean(nearest > _NEAR)), np.nan, np.nan
    spacing = float(np.mean((nearest > _NEAR) & (nearest < FAR)))
    around = tree.query_ball_point(xy[inner], FAR * bond)
    own = np.flatnonzero(inner)
    count = np.array([len(a) - 1 for a in around])
    right = float(np.mean(np.isin(count, coordinations(material))))
    angles = [
        _angles(xy[i], xy[[j for j in a if j != i]]) for i, a in zip(own, around, strict=True)
    ]
    every = np.concatenate(angles)
    if not len(every):
        return spacing, right, np.nan
    ideal = _ideal_angles(material)
    gap = np.abs(every[:, None] - ideal[None, :]).min(axis=1)
    return spacing, right, float(np.mean(gap < _ANGLE))


def _angles(at: FloatArray, near: FloatArray) -> FloatArray:
    """Angles between successive neighbours around an atom, rad."""
    if len(near) < 2:
        return np.zeros(0)
    d = near - at
    turn = np.sort(np.arctan2(d[:, 1], d[:, 0]))
    out: FloatArray = np.diff(np.concatenate([turn, turn[:1] + 2 * np.pi]))
    return out


def _ideal_angles(material: Material) -> FloatArray:
    found = np.concatenate([_angles(at, near) for at, near in _ideal_neighbours(material)])
    return np.unique(np.round(found, 3)) if len(found) else np.array([np.pi])


def coordinations(material: Material) -> list[int]:
    """Coordination numbers of the sites, in all arrangements of the material.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> coordinations(GRAPHENE)
    [3]
    """
    return sorted({len(near) for _, near in _ideal_neighbours(material)})


def _ideal_neighbours(material: Material) -> list[tuple[FloatArray, FloatArray]]:
    """Each site of each arrangement, and the positions of its neighbours, Å."""
    k = np.arange(-3, 4)
    cells = np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1).reshape(-1, 2)
    out = []
    for crystal in material.arrangements():
        sites = np.asarray(crystal.basis)
        points = np.concatenate([(cells + b) @ crystal.cell() for b in sites])
        tree = cKDTree(points)
        for place in sites @ crystal.cell():
            near = points[tree.query_ball_point(place, FAR * material.bond_length_A)]
            out.append((place, near[np.linalg.norm(near - place, axis=1) > 1e-6]))
    return out


def _agreement(xy: FloatArray, other: FloatArray, distance: float) -> float:
    if not len(xy) or not len(other):
        return float(len(xy) == len(other))
    precision = float(np.mean(cKDTree(other).query(xy)[0] < distance))
    recall = float(np.mean(cKDTree(xy).query(other)[0] < distance))
    return 2 * precision * recall / max(precision + recall, 1e-12)


def _mean_squared_residual(
    frame: Frame, xy: FloatArray, material: Material, options: RefineOptions
) -> float:
    """Mean squared residual of a frame fitted with these atoms, intensity²."""
    if len(xy) < _FEW:
        return float("nan")
    scale = material.scale
    fit = refine(frame_in_units(frame, scale), xy / scale, options)
    noise = fit.optics.noise
    # The noise is fitted to the residuals, so reduced χ² is near one for any atoms: convert it back
    # to intensity².
    usual = max(noise.constant + noise.gain * float(frame.data.mean()), noise.least)
    return fit.reduced_chi2 * usual * noise.correlation
