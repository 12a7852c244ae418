"""Importance weights of the draws of one defect: how well each explains the frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from adatom.core.arrays import BoolArray, FloatArray
from adatom.structures.assemble import match
from adatom.structures.scene import Observed, Scene, SupercellOptions

# Natural logarithm of p(pixels | atoms), from which rows of the frame's table exist, and what each
# is.
Explain = Callable[[BoolArray, NDArray[np.str_]], float]
# Share of the sites that the crystal has empty before the image is seen, and as large a share with
# another species; as in the test of empty sites.
PRIOR_DEFECT = 0.01
EXCLUDED = 1e-3  # a draw whose weight is a smaller share of the best one's is not simulated


def importance_weights(log_weights: Sequence[float] | FloatArray) -> FloatArray:
    """Weights whose sum is one, shape (draw,), from their natural logarithms up to a constant.

    Examples
    --------
    >>> importance_weights([-900.0, -900.0, -950.0]).round(3).tolist()
    [0.5, 0.5, 0.0]
    """
    values = np.asarray(log_weights, dtype=np.float64)
    if not len(values):
        return values
    share = np.exp(values - values.max())
    out: FloatArray = share / share.sum()
    return out


def effective_size(weights: Sequence[float] | FloatArray) -> float:
    """Number of equally weighted draws that say as much: ``1 / sum w²`` of weights of sum one.

    Kong, Liu and Wong, J. Am. Stat. Assoc. 89, 278 (1994).

    Examples
    --------
    >>> effective_size([0.25] * 4), round(effective_size([0.9, 0.1, 0.0, 0.0]), 2)
    (4.0, 1.22)
    """
    w = np.asarray(weights, dtype=np.float64)
    return float(w.sum() ** 2 / np.sum(w**2))


def log_weight(
    scene: Scene,
    drawn: Observed,
    explain: Explain,
    frame_atoms: Observed,
    others: int,
    options: SupercellOptions,
) -> float:
    """Natural logarithm of the weight of one draw, up to a constant of the defect.

    The target is the posterior of the atoms within the defect's radius: p(pixels | which exist,
    what they are) times a prior that has not seen the frame. By that prior a site of the crystal is
    empty with probability 0.01, has another species with 0.01, and an atom beside the sites exists
    with 0.01. The proposal is what was drawn from: ``p_exists`` and ``p_element`` of the table.
    Those have seen the frame, so they are divided out and never stand in for the prior; the frame
    counts once.

    Positions are drawn from the normal approximation of their posterior. The likelihood integrates
    over the same posterior to the same order, so positions cancel: draws with the same atoms have
    the same weight, wherever in their error ellipses they are.

    Parameters
    ----------
    scene
        The defect and its box.
    drawn
        The atoms that exist in the draw.
    explain
        The frame's likelihood.
    frame_atoms
        All atoms of the frame, in the order of the rows that `explain` takes. Beyond the defect's
        radius the most probable ones count.
    others
        Number of other species that an atom may be drawn as.
    options
        Sizes and limits.
    """
    seen = scene.observed
    core = np.linalg.norm(seen.xy - scene.center, axis=1) <= options.defect_radius_A
    rows = np.isin(frame_atoms.number, seen.number[core])  # in the same order
    at = {int(number): k for k, number in enumerate(drawn.number)}
    there = np.array([int(number) in at for number in seen.number[core]], dtype=np.bool_)
    # As wide as the drawn labels: a table of C alone would cut Si to S.
    wide = np.result_type(seen.elements, drawn.elements, frame_atoms.elements)
    labels = seen.elements[core].astype(wide)
    labels[there] = [drawn.elements[at[int(n)]] for n in seen.number[core][there]]
    exists = frame_atoms.p_exists >= options.min_p_exists
    elements = frame_atoms.elements.astype(wide)
    exists[rows], elements[rows] = there, labels
    p, p_element = seen.p_exists[core], seen.p_element[core]
    if others:
        own = labels == seen.elements[core]
        named = np.where(own, p_element, (1.0 - p_element) / others)
    else:
        named = np.ones(len(p))
    proposal = np.where(there, p * named, 1.0 - p)
    settled = _log_prior(scene, seen.xy[core][there], labels[there], others, options)
    return explain(exists, elements) + settled - float(np.log(np.maximum(proposal, 1e-300)).sum())


def _log_prior(
    scene: Scene,
    xy: FloatArray,
    labels: NDArray[np.str_],
    others: int,
    options: SupercellOptions,
) -> float:
    """Logarithm of the prior of atoms at positions (n, 2), cell axes; see `log_weight`."""
    box = scene.box
    site_of, atom_of = match(box, xy, options.match_A)
    near = np.linalg.norm(box.sites - scene.center, axis=1) <= options.defect_radius_A
    near &= scene.trusted & box.visible
    crystal = np.array([stack.label for stack in box.stacks])
    filled = near & (atom_of >= 0)
    same = labels[atom_of[filled]] == crystal[filled]
    defect = float(np.log(PRIOR_DEFECT))
    return (
        defect * int(np.count_nonzero(near & (atom_of < 0)) + np.count_nonzero(site_of < 0))
        + float(np.log1p(-2.0 * PRIOR_DEFECT)) * int(same.sum())
        + (defect - float(np.log(max(others, 1)))) * int((~same).sum())
    )
