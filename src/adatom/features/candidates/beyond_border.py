"""Guess atoms just outside the frame, whose tails reach into it and shift atoms at the border."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core import Material
from adatom.core.arrays import FloatArray

_BOND = 1.28  # largest distance of neighbours, bond lengths: below the second shell (1.41 or more)
_SAME_ATOM = 0.6  # a guess nearer than this to an atom is that atom, bond lengths
_OUTSIDE_A = 1.2  # atoms farther outside the frame contribute little to it, Å
_INSIDE_A = 0.3  # guesses up to this far inside the border are kept, Å
_RIM_A = 2.0  # atoms nearer than this to the border may lack neighbours, Å
_ROUNDS = 2  # the second round adds neighbours of the atoms guessed in the first


def atoms_beyond_border(
    xy: FloatArray, border_distance_A: Callable[[FloatArray], FloatArray], material: Material
) -> FloatArray:
    """Guess atoms outside the frame from the neighbours that atoms inside lack.

    Three neighbours are 120° apart; an even number of neighbours form opposite pairs. A wrong
    guess, for instance where the sheet ends at the border, does no harm: refinement gives it an
    amplitude near zero.

    Parameters
    ----------
    xy
        Positions of the atoms, shape (atom, 2), Å.
    border_distance_A
        Distance of positions (point, 2), Å, from the frame's border or from masked pixels, shape
        (point,), Å, negative outside: `Frame.border_distance_A`.
    material
        Gives bond length and coordination number.

    Returns
    -------
    Positions outside the frame or at its border, shape (outside, 2), Å.

    Examples
    --------
    >>> from adatom.core import GRAPHENE, Calibration, Frame
    >>> frame = Frame(np.eye(101), Calibration(0.1))
    >>> d = GRAPHENE.bond_length_A
    >>> xy = np.array([[1.0, 5.0], [1.0 + d / 2, 5.0 + d * 0.866], [1.0 + d / 2, 5.0 - d * 0.866]])
    >>> guessed = atoms_beyond_border(xy, frame.border_distance_A, GRAPHENE)
    >>> bool(np.isclose(guessed, [1.0 - d, 5.0], atol=1e-3).all(axis=1).any())
    True
    """
    known, found = xy, np.zeros((0, 2))
    for _ in range(_ROUNDS):
        if len(known) < material.coordination:
            break
        rim = border_distance_A(known) < _RIM_A
        fresh = _missing(known, np.nonzero(rim)[0], material)
        # The maps may miss atoms slightly inside the border, so guesses there are kept.
        away = border_distance_A(fresh)
        near = (away < _INSIDE_A) & (away > -_OUTSIDE_A)
        fresh = _apart(fresh[near], known, _SAME_ATOM * material.bond_length_A)
        found = np.concatenate([found, fresh])
        known = np.concatenate([known, fresh])
    return found


def _missing(xy: FloatArray, chosen: NDArray[np.int64], material: Material) -> FloatArray:
    """Positions of the missing neighbours of the chosen atoms."""
    near = cKDTree(xy).query_ball_point(xy[chosen], _BOND * material.bond_length_A)
    parts: list[FloatArray] = []
    half = np.array([[-0.5, np.sqrt(0.75)], [-np.sqrt(0.75), -0.5]])  # rotates by 120°
    for i, around in zip(chosen, near, strict=True):
        d = xy[[j for j in around if j != i]] - xy[i]
        if not len(d) or len(d) >= material.coordination:
            continue
        if material.coordination != 3:
            guess = -d
        elif len(d) == 2:
            guess = -d.sum(axis=0, keepdims=True)
            length = max(float(np.linalg.norm(guess)), 1e-9)
            guess = guess * (material.bond_length_A / length)
        else:
            guess = np.concatenate([d @ half, d @ half.T])
        parts.append(xy[i] + guess)
    return np.concatenate(parts) if parts else np.zeros((0, 2))


def _apart(guesses: FloatArray, known: FloatArray, distance: float) -> FloatArray:
    """Drop guesses near a known atom, and average guesses near each other."""
    if not len(guesses):
        return guesses
    guesses = guesses[cKDTree(known).query(guesses)[0] > distance]
    kept: list[FloatArray] = []
    used = np.zeros(len(guesses), dtype=bool)
    tree = cKDTree(guesses) if len(guesses) else None
    for i in range(len(guesses)):
        if used[i] or tree is None:
            continue
        group = [j for j in tree.query_ball_point(guesses[i], distance) if not used[j]]
        used[group] = True
        kept.append(guesses[group].mean(axis=0))
    return np.array(kept).reshape(-1, 2)
