"""The atoms of a crystal in three dimensions whose projection is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import gcd

import numpy as np
from ase.symbols import string2symbols
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core.arrays import FloatArray
from adatom.core.crystal import Crystal, Vector
from adatom.errors import BadInput

_SAME_A = 0.05  # Å: two atoms of one kind within it, after a translation, are the same


def in_depth(
    vectors: FloatArray, positions: FloatArray, symbols: list[str], seen: FloatArray
) -> Crystal:
    """Reduce a crystal to the cell of its projection and to its own period, where both repeat it.

    Parameters
    ----------
    vectors
        Lattice vectors as rows, Å, with z along the beam; the third is (0, 0, period).
    positions
        Shape (atom, 3), Å, in the same axes.
    symbols
        Chemical symbols.
    seen
        The smallest cell of the projection, shape (2, 2), Å. Columns may be alike in projection and
        differ in depth: then the crystal keeps the cell of `vectors`.

    Returns
    -------
    The crystal with the atoms of one cell.
    """
    cell = vectors.copy()
    atoms = _Atoms(vectors, positions, symbols)
    most = gcd(*Counter(symbols).values())
    parts = next(n for n in range(most, 0, -1) if most % n == 0 and atoms.repeat(cell[2] / n))
    cell[2] /= parts
    over = [atoms.translation_over(row) for row in seen]
    if over[0] is not None and over[1] is not None:
        cell[:2] = over
    cell[:2, 2] -= cell[2, 2] * np.round(cell[:2, 2] / cell[2, 2])
    inside = np.linalg.solve(cell.T, positions.T).T % 1.0
    keep = np.sort(_Atoms(cell, inside @ cell, symbols).first_of_each())
    first, second = (_vector(row) for row in cell[:2])
    placed = tuple((symbols[i], *_vector(inside[i] @ cell)) for i in keep)
    return Crystal((first, second), float(cell[2, 2]), placed)


def written_out(
    cell: FloatArray,
    at: FloatArray,
    stacks: Sequence[tuple[str, tuple[float, ...] | None]],
    period_A: float | None,
    source: str,
) -> Crystal | None:
    """Put the atoms of a written-out cell at their heights.

    Parameters
    ----------
    cell, at
        Two lattice vectors as rows, Å, and the columns' places in fractions of them.
    stacks
        Label of each column, and the heights of its atoms along the beam, Å. A single atom without
        a height is at 0.
    period_A
        Repeat along the beam, Å; None for a sheet.
    source
        Name of the file, for messages.

    Returns
    -------
    The crystal; None where a column of several atoms has no heights.

    Raises
    ------
    BadInput
        If a column has more or fewer heights than atoms.
    """
    atoms: list[tuple[str, float, float, float]] = []
    for (label, given), (x, y) in zip(stacks, (at @ cell).tolist(), strict=True):
        symbols = string2symbols(label)
        heights = given or ((0.0,) if len(symbols) == 1 else None)
        if heights is None:
            return None
        if len(heights) != len(symbols):
            raise BadInput(
                f"{source}, z_A of {label}", expected=f"{len(symbols)} heights",
                got=str(len(heights)), todo="Give one height for each atom of the column.",
            )  # fmt: skip
        atoms += [(s, x, y, z) for s, z in zip(symbols, heights, strict=True)]
    (a, b), (c, d) = cell.tolist()
    return Crystal(((a, b, 0.0), (c, d, 0.0)), period_A, tuple(atoms))


class _Atoms:
    """The atoms of one cell, to test whether a translation maps the crystal onto itself."""

    def __init__(self, cell: FloatArray, positions: FloatArray, symbols: list[str]) -> None:
        self._cell, self._positions = cell, positions
        self._kind = np.unique(symbols, return_inverse=True)[1]
        self._scale = np.linalg.norm(cell, axis=1)  # times fractions: about Å, as the limit is
        self._tree = cKDTree(self._scaled(positions), boxsize=self._scale)

    def _scaled(self, positions: FloatArray) -> FloatArray:
        out: FloatArray = np.linalg.solve(self._cell.T, positions.T).T % 1.0 * self._scale
        return np.where(out >= self._scale, 0.0, out)  # rounding may reach the end of the box

    def repeat(self, step: FloatArray) -> bool:
        """Tell whether every atom, moved by a step (3,) in Å, meets one of its kind."""
        for some in (slice(0, 4), slice(None)):  # a few first: most steps fail at once
            distance, at = self._tree.query(self._scaled(self._positions[some] + step))
            if not ((distance < _SAME_A) & (self._kind[at] == self._kind[some])).all():
                return False
        return True

    def translation_over(self, row: FloatArray) -> FloatArray | None:
        """Find the translation, shape (3,), Å, that is seen as a given one, shape (2,), Å."""
        alike = self._positions[self._kind == self._kind[0]]
        moves = alike - self._positions[0]
        steps = np.round((moves[:, :2] - row) @ np.linalg.inv(self._cell[:2, :2]))
        moves = moves - steps @ self._cell[:2]
        for move in moves[np.linalg.norm(moves[:, :2] - row, axis=1) < _SAME_A]:
            if self.repeat(move):
                return np.array([*row, move[2]])
        return None

    def first_of_each(self) -> NDArray[np.int64]:
        """Number the atoms that are not on the place of an earlier one, shape (atom,)."""
        # Pairs of all atoms of one place would be as many as the square of their number.
        left = np.ones(len(self._positions), dtype=np.bool_)
        kept = []
        for i, place in enumerate(self._tree.data):
            if left[i]:
                left[self._tree.query_ball_point(place, _SAME_A)] = False
                kept.append(i)
        return np.array(kept, dtype=np.int64)


def _vector(row: FloatArray) -> Vector:
    x, y, z = (round(float(v), 9) + 0.0 for v in row)  # no negative zero
    return x, y, z
