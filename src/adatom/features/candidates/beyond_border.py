"""Atoms just outside the frame: their tails are in it, and an atom at the border leans on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core import Material
from adatom.core.arrays import FloatArray

_BOND = 1.28  # neighbours lie within this many bond lengths
_FREE = 0.6  # a ghost nearer than this many bond lengths to an atom is that atom
_BEYOND_A = 1.2  # ghosts farther outside hardly show
_INSIDE_A = 0.3
_RIM_A = 2.0  # atoms this near to the border may lack neighbours
_ROUNDS = 2


def ghosts(xy: FloatArray, extent_xy_A: tuple[float, float], material: Material) -> FloatArray:
    """Guess the atoms beyond the border from the neighbours that those inside lack.

    Three neighbours stand at 120°; an even number stand in opposite pairs. A guess outside of a
    sheet that ends at the border does no harm: refinement gives it no amplitude.

    Parameters
    ----------
    xy
        Atoms, shape (atom, 2), Å.
    extent_xy_A
        Centre of the frame's last pixel, x and y, Å.
    material
        Gives bond length and coordination.

    Returns
    -------
    Positions outside the frame or at its very border, shape (ghost, 2), Å.
    """
    far = np.asarray(extent_xy_A)
    known, found = xy, np.zeros((0, 2))
    for _ in range(_ROUNDS):
        if len(known) < material.coordination:
            break
        rim = np.any((known < _RIM_A) | (known > far - _RIM_A), axis=1)
        fresh = _missing(known, np.nonzero(rim)[0], material)
        # The networks' maps may end a little inside: an atom there is nobody's candidate.
        out = np.any((fresh < _INSIDE_A) | (fresh > far - _INSIDE_A), axis=1)
        near = np.all((fresh > -_BEYOND_A) & (fresh < far + _BEYOND_A), axis=1)
        fresh = _apart(fresh[out & near], known, _FREE * material.bond_length_A)
        found = np.concatenate([found, fresh])
        known = np.concatenate([known, fresh])
    return found


def _missing(xy: FloatArray, chosen: NDArray[np.int64], material: Material) -> FloatArray:
    """Places of neighbours that the chosen atoms lack."""
    near = cKDTree(xy).query_ball_point(xy[chosen], _BOND * material.bond_length_A)
    parts: list[FloatArray] = []
    half = np.array([[-0.5, np.sqrt(0.75)], [-np.sqrt(0.75), -0.5]])  # turns by 120°
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
    """Leave out guesses that are near to a known atom, and merge those near to each other."""
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
