"""How far each part of a frame lies from what the networks were trained on.

A frame may be like any other and yet hold a patch of a second layer, of another crystal or of dirt.
What a few dozen atoms can say is compared region by region: how sure the networks are of them, how
they stand to each other, and how bright they are beside the rest of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.features.candidates.locate import Candidates
from adatom.features.novelty.frame import (
    Novelty,
    atom_logit,
    counts_sigma_A,
    fit_novelty,
    surroundings,
)
from adatom.features.refinement.refine import Refined, RefineOptions

_EDGE_A = 11.0  # by graphene's pattern: some fifty atoms
_FEW = 12  # fewer sites in a region tell nothing
_NAMES = ("median logit", "coordination", "log bond", "bond spread", "log amplitude", "log level")
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
    """Squares that cover a frame.

    Parameters
    ----------
    boxes
        Left, top, right and bottom of each, shape (region, 4), Å.
    description
        What `Novelty` compares, shape (region, description); NaN where too few sites tell nothing.
    """

    boxes: FloatArray
    description: FloatArray

    def times(self, scale: float) -> Regions:
        """Give the same regions in another unit of length."""
        return Regions(self.boxes * scale, self.description)

    def beyond(self, novelty: Novelty) -> list[tuple[float, float, float, float, float]]:
        """Regions that lie beyond training: left, top, right, bottom, Å, and their distance."""
        out = []
        for box, row in zip(self.boxes, self.description, strict=True):
            if np.isfinite(row).all() and (distance := novelty.distance(row)) > 1.0:
                left, top, right, bottom = (float(v) for v in box)
                out.append((left, top, right, bottom, distance))
        return out


def describe_regions(
    candidates: Candidates,
    refined: Refined,
    extent_xy_A: tuple[float, float],
    material: Material,
    options: RefineOptions,
) -> Regions:
    """Describe every region of a frame; lengths are in units of the material's scale.

    Parameters
    ----------
    candidates, refined
        What was found in it.
    extent_xy_A
        Position of the last pixel's centre.
    material
        Gives bond length and coordination.
    options
        With which it was refined.
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
    logit = atom_logit(candidates)
    sure = logit > 0.0
    distance, neighbours = np.full(n, np.nan), np.zeros(n)
    if sure.sum() > _FEW:
        distance[sure], neighbours[sure] = surroundings(candidates.xy[sure], material)
    # Of an atom at the frame's border some neighbours are missing.
    inner = sure & (candidates.border_A > 1.5 * material.bond_length_A)
    described = np.bincount(which, minlength=len(boxes)) >= _FEW
    described &= np.bincount(which[inner], minlength=len(boxes)) >= _FEW // 2

    def median(values: FloatArray, of: NDArray[np.bool_] | None = None) -> FloatArray:
        mine = np.ones(n, dtype=bool) if of is None else of
        return _medians(values[mine], which[mine], len(boxes))

    typical = max(float(np.median(refined.amplitude)), 1e-12)
    usual = median(distance, inner)
    expected = (neighbours == material.coordination).astype(np.float64)
    with np.errstate(invalid="ignore"):  # regions of few sites, which stay NaN
        values = (
            np.log(np.maximum(median(counts_sigma_A(refined, options)), 1e-4)),
            median(logit),
            np.bincount(which[inner], expected[inner], len(boxes))
            / np.maximum(np.bincount(which[inner], minlength=len(boxes)), 1),
            np.log(usual / material.bond_length_A),
            1.4826 * median(np.abs(distance - usual[which]), inner),
            np.log(np.maximum(median(refined.amplitude) / typical, 0.05)),
            np.log(np.maximum(median(refined.level) / typical, 0.02)),
        )
    empty[described] = np.stack(values, axis=1)[described]
    return Regions(boxes, empty)


def _medians(values: FloatArray, group: NDArray[np.int64], groups: int) -> FloatArray:
    """Median of the values of each group, shape (group,); NaN for a group without any."""
    ordered = values[np.lexsort((values, group))]
    count = np.bincount(group, minlength=groups)
    first, some = np.cumsum(count) - count, count > 0
    out = np.full(groups, np.nan)
    low, high = first + (count - 1) // 2, first + count // 2
    out[some] = 0.5 * (ordered[low[some]] + ordered[high[some]])
    return out


def fit_regions(regions: list[Regions]) -> Novelty:
    """Fit on the regions of frames under training conditions."""
    return fit_novelty(np.concatenate([r.description for r in regions]), _NAMES, _CHECKS)
