"""Out-of-distribution score of each region of a frame.

A frame as a whole may look normal and still contain a second layer, another crystal or
contamination. Regions of a few dozen atoms are therefore compared one by one: the confidence of the
networks, the geometry of the atoms, and their brightness relative to the rest of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.features.candidates.locate import Candidates
from adatom.features.novelty.frame import (
    LARGEST_SIGMA_A,
    OodModel,
    atom_log_odds,
    fit_ood_model,
    neighbour_statistics,
)
from adatom.features.refinement.refine import Refined, RefineOptions, counting_sigma_A

_EDGE_A = 11.0  # edge of a region in units of graphene's pattern, Å: about 46 atoms
_FEW = 12  # a region with fewer sites is not described
# Names of the descriptions; model cards hold them, so they stay.
_NAMES = ("median logit", "coordination", "log bond", "bond spread", "log amplitude", "log level")
# Description, direction, and share of the training regions beyond the limit.
_CHECKS = (
    ("median logit", -1, 0.003),
    ("coordination", -1, 0.003),
    ("log bond", +1, 0.003),
    ("log bond", -1, 0.003),
    ("bond spread", +1, 0.003),
    ("log amplitude", +1, 0.003),
    ("log amplitude", -1, 0.003),
)


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Rectangles that cover a frame, with their descriptions.

    Parameters
    ----------
    boxes
        Left, top, right and bottom of each region, shape (region, 4), Å.
    description
        Input of `OodModel.score`, shape (region, description); NaN for regions with too few sites.
    """

    boxes: FloatArray
    description: FloatArray

    def scaled(self, scale: float) -> Regions:
        """Give the same regions with lengths multiplied by `scale`."""
        return Regions(self.boxes * scale, self.description)

    def out_of_distribution(
        self, model: OodModel
    ) -> list[tuple[float, float, float, float, float]]:
        """Regions whose score exceeds one: left, top, right and bottom, Å, and the score."""
        out = []
        for box, row in zip(self.boxes, self.description, strict=True):
            if np.isfinite(row).all() and (score := model.score(row)) > 1.0:
                left, top, right, bottom = (float(v) for v in box)
                out.append((left, top, right, bottom, score))
        return out


def describe_regions(
    candidates: Candidates,
    refined: Refined,
    extent_xy_A: tuple[float, float],
    material: Material,
    options: RefineOptions,
) -> Regions:
    """Describe every region of a frame; lengths are in units of `Material.scale` Å.

    Parameters
    ----------
    candidates, refined
        Sites of the frame, before and after refinement.
    extent_xy_A
        x and y of the centre of the last pixel.
    material
        Gives bond length and coordination number.
    options
        Options of the refinement.
    """
    edges = [np.linspace(0.0, far, max(round(far / _EDGE_A), 1) + 1) for far in extent_xy_A]
    boxes = np.array(
        [
            (x0, y0, x1, y1)
            for y0, y1 in zip(edges[1][:-1], edges[1][1:], strict=True)
            for x0, x1 in zip(edges[0][:-1], edges[0][1:], strict=True)
        ]
    )
    n = len(candidates.xy)
    empty = np.full((len(boxes), 1 + len(_NAMES)), np.nan)
    if n < _FEW:
        return Regions(boxes, empty)
    at = [
        np.clip(np.searchsorted(e, candidates.xy[:, k], side="right") - 1, 0, len(e) - 2)
        for k, e in enumerate(edges)
    ]
    which = at[1] * (len(edges[0]) - 1) + at[0]
    logit = atom_log_odds(candidates)
    sure = logit > 0.0
    distance, neighbours = np.full(n, np.nan), np.zeros(n)
    if sure.sum() > _FEW:
        distance[sure], neighbours[sure] = neighbour_statistics(candidates.xy[sure], material)
    # Atoms at the border of the frame lack neighbours.
    inner = sure & (candidates.border_A > 1.5 * material.bond_length_A)
    described = np.bincount(which, minlength=len(boxes)) >= _FEW
    described &= np.bincount(which[inner], minlength=len(boxes)) >= _FEW // 2

    def median(values: FloatArray, of: NDArray[np.bool_] | None = None) -> FloatArray:
        mine = np.ones(n, dtype=bool) if of is None else of
        return _medians(values[mine], which[mine], len(boxes))

    typical = max(float(np.median(refined.amplitude)), 1e-12)
    usual = median(distance, inner)
    expected = (neighbours == material.coordination).astype(np.float64)
    with np.errstate(invalid="ignore"):  # regions without sites, which stay NaN
        values = (
            np.log(np.maximum(median(counting_sigma_A(refined, options, LARGEST_SIGMA_A)), 1e-4)),
            median(logit),
            np.bincount(which[inner], expected[inner], len(boxes))
            / np.maximum(np.bincount(which[inner], minlength=len(boxes)), 1),
            np.log(usual / material.bond_length_A),
            1.4826 * median(np.abs(distance - usual[which]), inner),
            np.log(np.maximum(median(refined.amplitude) / typical, 0.05)),
            np.log(np.maximum(median(refined.background) / typical, 0.02)),
        )
    empty[described] = np.stack(values, axis=1)[described]
    return Regions(boxes, empty)


def _medians(values: FloatArray, group: NDArray[np.int64], groups: int) -> FloatArray:
    """Median of the values of each group, shape (group,); NaN for an empty group."""
    ordered = values[np.lexsort((values, group))]
    count = np.bincount(group, minlength=groups)
    first, some = np.cumsum(count) - count, count > 0
    out = np.full(groups, np.nan)
    low, high = first + (count - 1) // 2, first + count // 2
    out[some] = 0.5 * (ordered[low[some]] + ordered[high[some]])
    return out


def fit_ood_model_of_regions(regions: list[Regions]) -> OodModel | None:
    """Fit an `OodModel` on the regions of frames under training conditions.

    Returns
    -------
    The model; None if fewer than three regions hold enough sites, as where atoms are dispersed.
    """
    rows = [r.description for r in regions]
    return fit_ood_model(np.concatenate(rows), _NAMES, _CHECKS) if rows else None
