"""Which members of an ensemble see a material, and which see artefacts: scores without labels.

Image statistics cannot tell a sharp map of the wrong places from one of the right ones; a crystal
can. Each member's own atoms are held against the material (distances, coordination, angles), the
other members, and the frame itself, which its atoms must explain. After Ghosh et al.,
npj Comput. Mater. 7, 100 (2021), where a person looked.
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

_SURE = 0.4  # lowest peak of a member's map that counts as its atom
_NEAR, FAR = 0.78, 1.28  # a neighbour's distance, in bond lengths
_ANGLE = np.radians(18.0)
_SAME = 0.35  # bond lengths: two members mean one atom
_RIM = 1.5  # bond lengths from the border: atoms lack neighbours there
_FEW = 8
# Least difference from the others that can be an artefact: below it members differ by chance.
_FLOOR = {
    "spacing": 0.04,
    "coordination": 0.06,
    "angles": 0.06,
    "density": 0.06,
    "agreement": 0.03,
    "residual": 0.08,
}
_DEVIATIONS = 4.0


@dataclass(frozen=True, slots=True)
class MemberScore:
    """How one member does on frames without labels; NaN where nothing can be said.

    Parameters
    ----------
    spacing
        Share of its atoms whose nearest neighbour is a bond length away.
    coordination
        Share with the material's number of neighbours.
    angles
        Share of the angles between neighbours that the perfect crystal has.
    density
        Logarithm of the number of its atoms over the other members' median.
    agreement
        F1 of its atoms against those of all members together.
    residual
        Mean squared residual of the frame re-imaged from its atoms, over the members' median.
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
    """Score every member on frames without labels.

    Parameters
    ----------
    frames
        The first frames of an experiment.
    predictions
        Every member's maps of each.
    material
        What they show.
    residuals
        Also re-image each member's atoms, which takes a refinement a member and frame.
    locate_options, refine_options
        How atoms are found; as for the frames whose labels the scores decide on.

    Returns
    -------
    One score a member: means over the frames.
    """
    locate_options = locate_options or LocateOptions()
    refine_options = refine_options or RefineOptions()
    parts = []
    for frame, prediction in zip(frames, predictions, strict=True):
        together = _atoms(prediction, locate_options)
        far = np.asarray(frame.calibration.extent_xy(frame.shape))
        own = [
            _atoms(_only(prediction, m), locate_options)
            for m in range(len(prediction.probabilities))
        ]
        usual = max(float(np.median([len(xy) for xy in own])), 1.0)
        fits = [_misfit(frame, xy, material, refine_options) if residuals else np.nan for xy in own]
        middle = float(np.nanmedian(fits)) if np.isfinite(fits).any() else np.nan
        same = _SAME * material.bond_length_A
        parts.append(
            [
                MemberScore(
                    *_order(xy, material, far), float(np.log(max(len(xy), 0.5) / usual)),
                    _agreement(xy, together, same), fit / middle,
                )
                for xy, fit in zip(own, fits, strict=True)
            ]
        )  # fmt: skip
    return mean_scores(parts)


def mean_scores(parts: Sequence[Sequence[MemberScore]]) -> list[MemberScore]:
    """Mean over frames of each member's scores; NaN where no frame has one.

    Parameters
    ----------
    parts
        Scores of all members, by frame.
    """
    table = np.array([[astuple(score) for score in part] for part in parts])
    seen = np.isfinite(table)
    count = np.where(seen.any(axis=0), seen.sum(axis=0), np.nan)
    mean = np.where(seen, table, 0.0).sum(axis=0) / count
    return [MemberScore(*(float(v) for v in row)) for row in mean]


def choose_members(scores: Sequence[MemberScore]) -> tuple[list[int], dict[int, str]]:
    """Keep the members that are free of artefacts.

    A member is dropped where one of its scores is worse than the members' median by more than four
    robust standard deviations, and by more than chance could make; at most half of them are.

    Parameters
    ----------
    scores
        From `score_members`.

    Returns
    -------
    Members that are kept; and of each other one, why it was dropped.
    """
    worst: dict[int, tuple[float, str]] = {}
    for name, floor in _FLOOR.items():
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
    if name == "density":  # too many and too few are both wrong
        return np.asarray(np.abs(value - middle))
    return np.asarray(value - middle if name == "residual" else middle - value)


def _only(prediction: Prediction, member: int) -> Prediction:
    return replace(prediction, probabilities=prediction.probabilities[member : member + 1])


def _atoms(prediction: Prediction, options: LocateOptions) -> FloatArray:
    found = locate(prediction, options)
    out: FloatArray = found.xy[found.peak > _SURE]
    return out


def _order(xy: FloatArray, material: Material, far: FloatArray) -> tuple[float, float, float]:
    """Shares of right distances, right coordination and right angles, away from the border."""
    bond = material.bond_length_A
    inner = np.all((xy > _RIM * bond) & (xy < far - _RIM * bond), axis=1)
    if inner.sum() < _FEW:
        return np.nan, np.nan, np.nan
    tree = cKDTree(xy)
    nearest = tree.query(xy[inner], k=2)[0][:, 1] / bond
    if not material.has_lattice:  # no crystal: but no two atoms lie in one place
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
    """Angles between neighbouring neighbours, rad."""
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
    """Numbers of neighbours that a site may have, in any arrangement of the material."""
    return sorted({len(near) for _, near in _ideal_neighbours(material)})


def _ideal_neighbours(material: Material) -> list[tuple[FloatArray, FloatArray]]:
    """Every site of every arrangement, and the sites around it."""
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


def _misfit(frame: Frame, xy: FloatArray, material: Material, options: RefineOptions) -> float:
    """Mean squared residual of the frame that these atoms make, intensity²."""
    if len(xy) < _FEW:
        return float("nan")
    scale = material.scale
    fit = refine(frame_in_units(frame, scale), xy / scale, options)
    noise = fit.optics.noise
    # The noise is learned with the atoms, and takes for noise what they leave: undo that.
    usual = max(noise.constant + noise.gain * float(frame.data.mean()), noise.least)
    return fit.reduced_chi2 * usual * noise.correlation
