"""The relaxed positions of a defect with what is not known of them, atom by atom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import ase
import numpy as np

from adatom.core.arrays import FloatArray
from adatom.core.structure import Structure

_FINEST_A = 1e-3  # Å: what a relaxation to 0.05 eV/Å leaves of a bond, whose stiffness is 40 eV/Å²
_UNSURE = 0.5  # share of the shift by the cell that counts as its standard deviation


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """A relaxation of the same atoms, in the same order, that a defect's own is compared with.

    Parameters
    ----------
    atoms
        At the lattice constant of the material, in any cell with the defect in its middle. Atoms
        beyond those of the other one are left out.
    beside
        What it differs from by the cause alone; None for the defect's own relaxation.
    share
        Share of the difference that is added to the positions, a number.
    """

    atoms: ase.Atoms
    beside: ase.Atoms | None = None
    share: float = 1.0


def relaxed_positions(
    lead: Structure,
    draws: Sequence[ase.Atoms],
    weights: Sequence[float],
    *,
    wide: Compared | None = None,
    other: ase.Atoms | None = None,
    radius_A: float = 5.0,
) -> Structure:
    """Give a defect's relaxed positions in a cell without end, with a standard deviation for each.

    The lead stays where it is. All others are laid onto it by the shift and
    turn (and, for a sheet that bulges to the other side, the mirror) that fits the atoms near the
    defect best: where a defect lies to its far surroundings is no part of its structure.

    Parameters
    ----------
    lead
        The relaxed draw that stands for the defect.
    draws
        Relaxed draws of the same atoms in the same order, the lead among them.
    weights
        Of the draws.
    wide
        The same relaxed in a wider cell. By elasticity, the strain by the copies of a defect goes
        with 1 / width² (Liu & Yakobson, Nano Lett. 10, 2178 (2010)): the difference in the plane,
        times `share`, is added, and half of it is its standard deviation.
    other
        Relaxed by a second engine, at the lattice constant of the material: the difference over
        the root of two is the engine's standard deviation.
    radius_A
        Atoms up to here from the middle of the cell are laid onto each other.

    Returns
    -------
    The structure with `sigma_A` as the sum of all parts, and ``atoms.arrays`` ``sigma_draws``,
    ``sigma_cell``, ``sigma_engine`` and ``shift_cell``, each of shape (atom, 3), Å; NaN where a
    part is not known.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> from adatom.structures import pristine_supercell
    >>> one = pristine_supercell(GRAPHENE)
    >>> turned = one.to_ase()
    >>> turned.positions += [0.3, 0.0, 0.0]
    >>> found = relaxed_positions(one, [one.atoms, turned], [0.5, 0.5])
    >>> bool(np.all(found.sigma_A < 2e-3))
    True
    """
    base = _centered(lead.atoms)
    core = np.linalg.norm(base[:, :2], axis=1) <= radius_A
    share = np.asarray(weights, dtype=np.float64)
    share = share / share.sum() if share.sum() > 0 else np.full(len(draws), 1.0 / len(draws))
    apart = np.array([_apart(base, d, lead.atoms, core) for d in draws])
    unknown = np.full(base.shape, np.nan)
    by_draws = unknown  # one draw says nothing of the others
    if len(draws) > 1:
        by_draws = np.sqrt(np.einsum("k,knj->nj", share, _even(apart)))
    shift, by_cell, by_engine = np.zeros(base.shape), unknown, unknown
    if wide is not None:
        beside = base if wide.beside is None else _centered(wide.beside)
        moved = wide.share * _apart(beside, wide.atoms, lead.atoms, core)
        shift[:, :2] = moved[:, :2]  # bending follows no such law: heights stay
        by_cell = _UNSURE * np.sqrt(_even(moved[None])[0])
    if other is not None:
        by_engine = np.sqrt(0.5 * _even(_apart(base, other, lead.atoms, core)[None])[0])
    parts = (by_draws, by_cell, by_engine, np.full(base.shape, _FINEST_A))
    atoms = lead.atoms.copy()
    atoms.positions += shift
    for name, array in (
        ("sigma_draws", by_draws),
        ("sigma_cell", by_cell),
        ("sigma_engine", by_engine),
        ("shift_cell", shift if wide is not None else unknown),
    ):
        atoms.set_array(name, array)
    return replace(lead, atoms=atoms, sigma_A=np.sqrt(np.nansum(np.square(parts), axis=0)))


def _even(apart: FloatArray) -> FloatArray:
    """Squares of differences (draw, atom, 3), in the plane the mean of both directions.

    An atom on a mirror plane of the defect has no difference across it, and no less of an error.
    """
    out = np.square(apart)
    out[..., :2] = out[..., :2].mean(axis=-1, keepdims=True)
    return out


def _centered(atoms: ase.Atoms) -> FloatArray:
    """Positions about the middle of the cell, shape (atom, 3), Å; heights about their mean."""
    cell = atoms.cell.array[:2, :2]
    share = (atoms.positions[:, :2] - 0.5 * cell.sum(axis=0)) @ np.linalg.inv(cell)
    z = atoms.positions[:, 2] - atoms.positions[:, 2].mean()
    out: FloatArray = np.column_stack([(share - np.round(share)) @ cell, z])
    return out


def _apart(base: FloatArray, atoms: ase.Atoms, lead: ase.Atoms, core: FloatArray) -> FloatArray:
    """Differences of atoms from `base`, shape (atom, 3), Å, once laid onto it."""
    cell = lead.cell.array[:2, :2]
    own = _centered(atoms)[: len(base)]
    steps = (base[:, :2] - own[:, :2]) @ np.linalg.inv(cell)
    own[:, :2] += np.round(steps) @ cell  # atoms at the border of the cell
    best: FloatArray | None = None
    for mirror in (1.0, -1.0):
        laid = own * (1.0, 1.0, mirror)
        source, goal = laid[core, :2].mean(axis=0), base[core, :2].mean(axis=0)
        u, _, vt = np.linalg.svd((laid[core, :2] - source).T @ (base[core, :2] - goal))
        turn = u @ np.diag([1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
        laid[:, :2] = (laid[:, :2] - source) @ turn + goal
        laid[:, 2] += np.mean(base[core, 2] - laid[core, 2])
        left = laid - base
        if best is None or np.sum(left[core] ** 2) < np.sum(best[core] ** 2):
            best = left
    assert best is not None  # there are two mirrors  # noqa: S101
    return best
