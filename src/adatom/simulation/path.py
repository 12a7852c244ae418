"""The way between two states of a sheet: which atom becomes which, and the first guess of a band.

A straight line between the states squeezes atoms that turn about each other: in a Stone-Wales
rotation of 90 degrees the bond of 1.42 Å would be 1.0 Å long half way. Bonds that turn are turned.
"""

from __future__ import annotations

import ase
import numpy as np
from ase.data import covalent_radii
from ase.geometry import find_mic
from ase.mep.neb import idpp_interpolate
from scipy.optimize import linear_sum_assignment

from adatom.core.arrays import FloatArray
from adatom.errors import BadInput

_SAME_CELL_A = 1e-3  # Å: vectors of cells that differ by less are the same
_STEP_A = 2.6  # Å: in one step an atom moves at most by about a second-neighbour distance
_FARTHEST_A = 4.0  # Å: an atom that moves farther was matched to a wrong one
_BOND = 1.25  # bonds are up to this factor longer than the sum of the covalent radii
_MOVES_A = 0.5  # Å: atoms that move by more take part in the step
_TURNS = np.radians(45.0)  # a bond that turns by more is turned, not stretched through
_SQUEEZED = 0.75  # shortest distance over the sum of covalent radii that a guess may have
_SHAKE_A = 0.03  # Å: noise in z of the inner images; without it, symmetry keeps a flat band flat


def matched(initial: ase.Atoms, final: ase.Atoms) -> ase.Atoms:
    """Bring the atoms of a final state into the order of the initial one, nearest images.

    The given order is kept where every atom has its element and moves by at most 2.6 Å. Otherwise
    atoms are assigned so that the sum of their squared ways is least (Kuhn, Nav. Res. Logist. Q.
    2, 83 (1955)).

    Parameters
    ----------
    initial, final
        Periodic, positions in Å, in the same cell.

    Returns
    -------
    The final state: in the initial order, without a shift of the whole sheet, and each atom at the
    periodic image nearest to its place in the initial state.

    Raises
    ------
    BadInput
        If formulas or cells differ, or an atom moves by more than 4 Å.

    Examples
    --------
    >>> from ase.build import graphene
    >>> sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    >>> other = sheet[::-1]
    >>> bool(np.allclose(matched(sheet, other).positions, sheet.positions))
    True
    """
    _check_alike(initial, final)
    cell, pbc = initial.cell, initial.pbc
    order = np.arange(len(initial))
    if (initial.numbers != final.numbers).any() or _longest(initial, final) > _STEP_A:
        order = _assigned(initial, final)
    out: ase.Atoms = initial.copy()
    way, _ = find_mic(final.positions[order] - initial.positions, cell, pbc)
    way -= np.median(way, axis=0)  # most atoms stay: the shift of the whole sheet
    way, far = find_mic(way, cell, pbc)
    if far.max() > _FARTHEST_A:
        raise BadInput(
            "states of a barrier",
            expected=f"states one step apart, in which no atom moves by more than {_FARTHEST_A} Å",
            got=f"atom {int(far.argmax())} ({initial.symbols[int(far.argmax())]}) moves by "
            f"{far.max():.1f} Å",
            todo="Give two neighbouring states, in one place of one cell.",
        )
    out.positions = initial.positions + way
    return out


def first_guess(
    initial: ase.Atoms, final: ase.Atoms, images: int, rng: np.random.Generator
) -> list[ase.Atoms]:
    """Make the first band between two states: bonds that turn are turned about their middle.

    Parameters
    ----------
    initial, final
        As of `matched`; the ends of the band, which stay as they are.
    images
        Number of geometries with both ends.
    rng
        Of the noise in z, 0.03 Å, that frees a band from the plane of the sheet.

    Returns
    -------
    The band. Where atoms are still squeezed, its distances are interpolated in the place of its
    coordinates (IDPP: Smidstrup et al., J. Chem. Phys. 140, 214106 (2014)).

    Examples
    --------
    >>> from ase.build import graphene
    >>> sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    >>> i, j = 9, 18
    >>> bond = sheet.get_distance(i, j, mic=True, vector=True)
    >>> turned = sheet.copy()
    >>> side = 0.5 * np.array([-bond[1], bond[0], 0.0])
    >>> turned.positions[[i, j]] = sheet.positions[i] + 0.5 * bond + [-side, side]
    >>> band = first_guess(sheet, turned, 5, np.random.default_rng(0))
    >>> round(float(band[2].get_distance(i, j, mic=True)), 2)
    1.42
    """
    way = final.positions - initial.positions
    shares = np.linspace(0.0, 1.0, images)
    pairs = turning_bonds(initial, final)
    band = []
    for share in shares:
        image = initial.copy()
        image.positions = initial.positions + share * way
        for i, j in pairs:
            image.positions[[i, j]] = _turned(initial, final, i, j, float(share))
        band.append(image)
    if any(_squeezed(image) for image in band[1:-1]):
        idpp_interpolate(band, traj=None, log=None, mic=True, steps=100)  # from the turned guess
    free = np.ones(len(initial), dtype=np.bool_)
    for constraint in initial.constraints:
        free[constraint.get_indices()] = False
    for image in band[1:-1]:
        image.positions[free, 2] += rng.normal(0.0, _SHAKE_A, int(free.sum()))
    return band


def turning_bonds(initial: ase.Atoms, final: ase.Atoms) -> list[tuple[int, int]]:
    """Find pairs of moving atoms, bonded in both states, whose bond turns by more than 45 degrees.

    Parameters
    ----------
    initial, final
        As of `matched`.

    Returns
    -------
    Pairs of atoms; no atom is in two.
    """
    far = np.linalg.norm(final.positions - initial.positions, axis=1)
    movers = np.flatnonzero(far > _MOVES_A)
    found: list[tuple[int, int]] = []
    used: set[int] = set()
    for a, i in enumerate(movers):
        for j in movers[a + 1 :]:
            ends = [_bond(state, int(i), int(j)) for state in (initial, final)]
            if any(end is None for end in ends) or {int(i), int(j)} & used:
                continue
            if _angle(*ends) > _TURNS:  # type: ignore[arg-type]
                found.append((int(i), int(j)))
                used |= {int(i), int(j)}
    return found


def _check_alike(initial: ase.Atoms, final: ase.Atoms) -> None:
    formulas = [a.get_chemical_formula() for a in (initial, final)]
    if formulas[0] != formulas[1]:
        raise BadInput(
            "states of a barrier",
            expected="two states of the same atoms",
            got=" and ".join(formulas),
            todo="Give structures of one formula: a barrier neither adds nor takes atoms.",
        )
    if not np.allclose(initial.cell.array, final.cell.array, atol=_SAME_CELL_A):
        lengths = ["x".join(f"{x:.3f}" for x in a.cell.lengths()) for a in (initial, final)]
        raise BadInput(
            "states of a barrier",
            expected="two states in the same cell",
            got=" and ".join(lengths) + " Å",
            todo="Build both in one cell: its strain would count as a part of the barrier.",
        )


def _longest(initial: ase.Atoms, final: ase.Atoms) -> float:
    way, _ = find_mic(final.positions - initial.positions, initial.cell, initial.pbc)
    return float(np.linalg.norm(way - np.median(way, axis=0), axis=1).max())


def _assigned(initial: ase.Atoms, final: ase.Atoms) -> np.ndarray:
    """Number of the final atom for every initial atom."""
    order = np.empty(len(initial), dtype=np.int64)
    for number in set(initial.numbers.tolist()):
        mine, theirs = (np.flatnonzero(a.numbers == number) for a in (initial, final))
        ways = (final.positions[theirs][None, :] - initial.positions[mine][:, None]).reshape(-1, 3)
        _, far = find_mic(ways, initial.cell, initial.pbc)
        rows, columns = linear_sum_assignment(far.reshape(len(mine), len(theirs)) ** 2)
        order[mine[rows]] = theirs[columns]
    return order


def _bond(atoms: ase.Atoms, i: int, j: int) -> FloatArray | None:
    """Vector from i to j, Å; None where they are not bonded."""
    vector: FloatArray = atoms.get_distance(i, j, mic=True, vector=True)
    radii = covalent_radii[atoms.numbers[[i, j]]].sum()
    return vector if float(np.linalg.norm(vector)) < _BOND * radii else None


def _angle(a: FloatArray, b: FloatArray) -> float:
    cosine = float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.arccos(np.clip(cosine, -1.0, 1.0)))


def _turned(initial: ase.Atoms, final: ase.Atoms, i: int, j: int, share: float) -> FloatArray:
    """Places of two atoms, shape (2, 3), Å, whose bond has turned by a share of the whole angle.

    It turns in the plane of its two directions. A bond that is turned round turns through the
    normal of the sheet, where its neighbours leave room.
    """
    d0 = initial.get_distance(i, j, mic=True, vector=True)
    d1 = final.get_distance(i, j, mic=True, vector=True)
    l0, l1 = float(np.linalg.norm(d0)), float(np.linalg.norm(d1))
    angle = _angle(d0, d1)
    side = d1 / l1 - np.cos(angle) * d0 / l0
    if np.linalg.norm(side) < 0.2:
        side = np.array([0.0, 0.0, 1.0]) - d0[2] / l0 * d0 / l0
    side /= np.linalg.norm(side)
    way = np.cos(share * angle) * d0 / l0 + np.sin(share * angle) * side
    half = 0.5 * ((1.0 - share) * l0 + share * l1) * way
    # The partner may be a periodic image: the middle is taken from the first atom.
    middle = (1.0 - share) * (initial.positions[i] + 0.5 * d0) + share * (
        final.positions[i] + 0.5 * d1
    )
    shift = initial.positions[j] - (initial.positions[i] + d0)  # whole cell vectors
    return np.array([middle - half, middle + half + shift])


def _squeezed(atoms: ase.Atoms) -> bool:
    from ase.neighborlist import neighbor_list

    radii = list(covalent_radii[atoms.numbers] * _SQUEEZED)
    return bool(len(neighbor_list("i", atoms, radii)))
