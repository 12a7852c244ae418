"""Bonds and coordination of a structure, and a test whether two structures are the same."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ase
import numpy as np
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from adatom.core.structure import Structure

if TYPE_CHECKING:
    import networkx as nx

# Bond length over the sum of the covalent radii below which two atoms are bonded, dimensionless:
# 1.82 Å for C-C lies between a stretched bond (1.6 Å) and second neighbours in graphene (2.46 Å).
_BOND_SCALE = 1.2
_LONGEST_RING = 12  # atoms; longer cycles of a 16 Å box run around its periodic boundary
_PLANAR_A = 0.3  # Å; nearer to the sheet than this an atom counts as in it (buckling: 0.05 Å)
_ROUNDS = 5  # of relabelling: compares surroundings five bonds wide; copies are seven bonds away
_CRYSTAL_SHARE = 0.15  # share of the atoms, at least, that has a label of the crystal


@dataclass(frozen=True, slots=True)
class ImpurityAtom:
    """An atom that is not of the host element, and its neighbours.

    Parameters
    ----------
    index
        Its index in the structure.
    element
        Chemical symbol.
    neighbours
        Formula of its neighbours, such as ``C3``.
    bond_lengths_A
        Ascending, Å.
    height_A
        Height above the sheet (the median of the host atoms), Å.
    """

    index: int
    element: str
    neighbours: str
    bond_lengths_A: tuple[float, ...]
    height_A: float


@dataclass(frozen=True, slots=True)
class CoordinationReport:
    """Bonds and coordination of a structure.

    Parameters
    ----------
    formula
        Stoichiometric formula, such as ``C109Si3``.
    composition
        Number of atoms of every element.
    bond_lengths_A
        Every bond length by pair of elements, such as ``C-Si``, ascending, Å.
    coordination
        Number of atoms by element and number of neighbours.
    impurities
        Every atom that is not of the most common element.
    shortest_A
        Shortest distance of any two atoms, Å; infinite if none is below 5 Å.
    """

    formula: str
    composition: dict[str, int]
    bond_lengths_A: dict[str, tuple[float, ...]]
    coordination: dict[str, dict[int, int]]
    impurities: tuple[ImpurityAtom, ...]
    shortest_A: float


def bonds(atoms: ase.Atoms) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """List every bond of a periodic structure once.

    Two atoms are bonded where they are nearer than 1.2 times the sum of their covalent radii
    (Cordero et al., Dalton Trans. 2008, 2832): 1.82 Å for C-C, 2.24 Å for Si-C.

    Parameters
    ----------
    atoms
        Any structure.

    Returns
    -------
    Pairs of indices, shape (bond, 2), lower index first; and their lengths, shape (bond,), Å.

    Examples
    --------
    >>> from ase.build import molecule
    >>> pairs, lengths = bonds(molecule("H2O"))
    >>> pairs.tolist(), lengths.round(2).tolist()
    ([[0, 1], [0, 2]], [0.97, 0.97])
    """
    radii = covalent_radii[atoms.numbers] * _BOND_SCALE
    i, j, d, shift = neighbor_list("ijdS", atoms, list(radii))
    # The list has every bond in both directions: keep one, also of an atom with its own image.
    first = (i < j) | ((i == j) & np.array([tuple(s) > (0, 0, 0) for s in shift], dtype=bool))
    pairs = np.stack([i[first], j[first]], axis=1).astype(np.int64)
    return pairs, np.asarray(d[first], dtype=np.float64)


def coordination_report(structure: Structure | ase.Atoms) -> CoordinationReport:
    """Report bonds, coordination and impurity atoms of a structure.

    Parameters
    ----------
    structure
        A structure, or plain `ase.Atoms`.
    """
    atoms = _atoms(structure)
    symbols = atoms.get_chemical_symbols()
    pairs, lengths = bonds(atoms)
    by_pair: dict[str, list[float]] = {}
    around: list[list[tuple[str, float]]] = [[] for _ in symbols]
    for (i, j), d in zip(pairs.tolist(), lengths.tolist(), strict=True):
        by_pair.setdefault("-".join(sorted((symbols[i], symbols[j]))), []).append(d)
        around[i].append((symbols[j], d))
        around[j].append((symbols[i], d))
    coordination: dict[str, dict[int, int]] = {}
    for symbol, near in zip(symbols, around, strict=True):
        count = coordination.setdefault(symbol, {})
        count[len(near)] = count.get(len(near), 0) + 1
    heights = _heights(atoms)
    host = _host(symbols)
    impurities = tuple(
        ImpurityAtom(
            i,
            symbol,
            _formula(Counter(s for s, _ in near)),
            tuple(sorted(d for _, d in near)),
            float(heights[i]),
        )
        for i, (symbol, near) in enumerate(zip(symbols, around, strict=True))
        if symbol != host
    )
    close = neighbor_list("d", atoms, 5.0)
    return CoordinationReport(
        formula=_formula(Counter(symbols)),
        composition=dict(sorted(Counter(symbols).items())),
        bond_lengths_A={k: tuple(sorted(v)) for k, v in sorted(by_pair.items())},
        coordination=coordination,
        impurities=impurities,
        shortest_A=float(close.min()) if len(close) else float("inf"),
    )


def fingerprint(structure: Structure | ase.Atoms) -> str:
    """Hash the defects of a structure by their bonds, rings, and the side of their impurity atoms.

    Rotated, shifted, renumbered and mirrored copies have the same fingerprint, in cells of any size
    and shape whose copies are 10 Å apart, and so have samples that relax into the same minimum.

    It is made of the atoms whose element, side and rings are not those of the crystal. Five rounds
    of Weisfeiler-Lehman relabelling (Shervashidze et al., J. Mach. Learn. Res. 12, 2539 (2011))
    give each of them a label of its surroundings within five bonds, too few to reach a copy. That
    alone cannot distinguish networks in which every atom has three neighbours, so the first label
    of every atom holds the sizes of its rings.

    Parameters
    ----------
    structure
        A structure, or plain `ase.Atoms`.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    import networkx as nx  # takes 0.2 s to import, and only fingerprints need it

    atoms = _atoms(structure)
    symbols = atoms.get_chemical_symbols()
    host = _host(symbols)
    graph = nx.Graph()
    graph.add_nodes_from(range(len(symbols)))
    graph.add_edges_from(bonds(atoms)[0].tolist())
    rings = _rings(graph)
    heights = _heights(atoms)
    side = np.where(np.abs(heights) > _PLANAR_A, np.sign(heights), 0.0).astype(int)
    hashes = []
    for face in (1, -1):  # a sheet turned upside down is the same sheet
        labels = [
            f"{symbol} {face * int(side[i]) if symbol != host else 0} {rings[i]}"
            for i, symbol in enumerate(symbols)
        ]
        count = Counter(labels)
        crystal = {label for label, n in count.items() if n >= _CRYSTAL_SHARE * len(labels)}
        odd = [i for i, label in enumerate(labels) if label not in crystal]
        for _ in range(_ROUNDS):
            labels = [
                _digest([labels[i], *sorted(labels[j] for j in graph[i])]) for i in graph.nodes
            ]
        hashes.append(_digest([*sorted(crystal), *sorted(labels[i] for i in odd)]))
    return min(hashes)[:16]


def _digest(words: list[str]) -> str:
    return hashlib.sha256("|".join(words).encode()).hexdigest()


def same_structure(a: Structure | ase.Atoms, b: Structure | ase.Atoms) -> bool:
    """Tell whether two structures have the same `fingerprint`."""
    return fingerprint(a) == fingerprint(b)


def _atoms(structure: Structure | ase.Atoms) -> ase.Atoms:
    return structure.atoms if isinstance(structure, Structure) else structure


def _host(symbols: list[str]) -> str:
    return min(Counter(symbols).items(), key=lambda item: (-item[1], item[0]))[0]


def _formula(count: Counter[str]) -> str:
    return "".join(f"{s}{n if n > 1 else ''}" for s, n in sorted(count.items())) or "none"


def _heights(atoms: ase.Atoms) -> NDArray[np.float64]:
    """Height above the sheet, shape (atom,), Å, also where the sheet crosses the cell boundary."""
    z = atoms.positions[:, 2].astype(np.float64)
    host = np.array(atoms.get_chemical_symbols()) == _host(atoms.get_chemical_symbols())
    period = float(atoms.cell[2, 2])
    if atoms.pbc[2] and period > 0:
        # A circular mean gives the sheet's height even where it crosses the cell boundary.
        phase = np.exp(2j * np.pi * z[host] / period).sum()
        z = z - float(np.angle(phase)) * period / (2 * np.pi)
        z -= period * np.round(z / period)
    out: NDArray[np.float64] = z - np.median(z[host])
    return out


def _rings(graph: nx.Graph) -> list[str]:
    """Sizes of the smallest rings at every atom, one for each pair of its neighbours."""
    import networkx as nx

    out = []
    for node in sorted(graph.nodes):
        near = sorted(graph[node])
        graph.remove_node(node)
        sizes = []
        for k, start in enumerate(near):
            reach = nx.single_source_shortest_path_length(graph, start, cutoff=_LONGEST_RING - 2)
            sizes += [reach[end] + 2 if end in reach else 0 for end in near[k + 1 :]]
        graph.add_edges_from((node, other) for other in near)
        graph.add_node(node)
        out.append(",".join(map(str, sorted(sizes))))
    return out
