"""Which of the atoms that are followed is which in a new frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

# Hops that no atom makes unseen: beyond them it is taken as gone, and what is there as another one.
_GONE_HOPS = 6.0


def assigned(
    steps: Sequence[Mapping[int, int]], inside: Sequence[bool], seen: Sequence[int]
) -> tuple[list[int | None], float]:
    """Assign the atoms of a frame to those that are followed, with as few hops as possible.

    Parameters
    ----------
    steps
        For each atom that is followed, the hops from its site to each other site.
    inside
        For each of them, whether the frame shows its site.
    seen
        Sites of the atoms in the frame, one each.

    Returns
    -------
    The site of each atom, None where the frame does not show it, and the cost in hops: those that
    were made, and six for each atom that is gone, or is there and was not known.

    Examples
    --------
    >>> steps = [{4: 0, 5: 1, 8: 4}, {4: 4, 5: 3, 8: 0}]
    >>> assigned(steps, [True, True], [8, 5])
    ([5, 8], 1.0)
    >>> assigned(steps, [True, False], [4])
    ([4, None], 0.0)
    """
    count = len(seen)
    cost = np.full((len(steps), count + len(steps)), np.inf)
    for atom, hops in enumerate(steps):
        # Who is seen is not left over: that cost is taken off here and added to all below.
        cost[atom, :count] = [hops.get(site, 2.0 * _GONE_HOPS) - _GONE_HOPS for site in seen]
        cost[atom, count + atom] = _GONE_HOPS if inside[atom] else 0.0
    finite = np.where(np.isfinite(cost), cost, 1e6)
    atoms, columns = linear_sum_assignment(finite)
    out: list[int | None] = [None] * len(steps)
    for atom, column in zip(atoms, columns, strict=True):
        out[atom] = int(seen[column]) if column < count else None
    return out, float(finite[atoms, columns].sum() + _GONE_HOPS * count)
