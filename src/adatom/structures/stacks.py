"""The atoms of one observed column: those that its label names, on the places of the crystal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.formula import Formula
from numpy.typing import NDArray

from adatom.core.material import ANY, Material
from adatom.errors import BadInput
from adatom.structures.scene import Stack

_FLAT_A = 0.1  # Å: a sheet whose atoms are nearer to one plane than this is flat
_LARGER_A = 0.2  # Å: Si is 0.35 Å larger than C, B 0.08 Å (Cordero et al. 2008, as in ASE)


@dataclass(frozen=True, slots=True)
class Filled:
    """Atoms of one column.

    Parameters
    ----------
    symbols
        Chemical symbols.
    heights_A
        Heights in cell axes, Å.
    missing
        Symbols of the crystal's atoms that are not there.
    added
        Symbols of atoms that the crystal does not have there.
    """

    symbols: tuple[str, ...]
    heights_A: tuple[float, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]


def fill(stack: Stack, label: str, rng: np.random.Generator | None = None) -> Filled:
    """Put the atoms of a label on the places of the crystal's column.

    An atom takes a place of its own element first, then that of another. Where places are alike,
    such as the two S of MoS2, a missing or foreign atom is on a place that is drawn; without a
    source of randomness it is on the highest. Of a crystal in columns, the label names one period.
    How many of the cell's periods a missing or foreign atom concerns is not seen: it is drawn from
    1 to all; without randomness, all.

    Parameters
    ----------
    stack
        The perfect crystal's column.
    label
        What is there: a symbol or formula; empty for no atom.
    rng
        Source of randomness; None for the atoms as the label says.

    Returns
    -------
    The atoms, and what differs from the crystal.

    Raises
    ------
    BadInput
        If the label names no elements.

    Examples
    --------
    >>> sulfur = Stack("S2", ("S", "S"), (-1.56, 1.56))
    >>> fill(sulfur, "S")
    Filled(symbols=('S',), heights_A=(-1.56,), missing=('S',), added=())
    >>> fill(sulfur, "SSe").symbols, fill(sulfur, "").missing
    (('S', 'Se'), ('S', 'S'))
    """
    present = _atoms_of(label)
    if label == stack.label or present == _atoms_of(stack.label):
        return Filled(stack.symbols, stack.heights_A, (), ())
    units = stack.units if rng is None else int(rng.integers(1, stack.units + 1))
    wanted = Counter({s: n * units for s, n in present.items()})
    for symbol, n in _atoms_of(stack.label).items():
        wanted[symbol] += n * (stack.units - units)
    order = np.arange(len(stack.symbols)) if rng is None else rng.permutation(len(stack.symbols))
    placed: dict[int, str] = {}
    left = Counter(wanted)
    for i in order.tolist():
        if left[stack.symbols[i]] > 0:
            placed[i] = stack.symbols[i]
            left[stack.symbols[i]] -= 1
    added = sorted(left.elements())
    free = [i for i in order.tolist() if i not in placed]
    missing = tuple(sorted(stack.symbols[i] for i in free))
    placed.update(zip(reversed(free), added, strict=False))
    kept = sorted(placed)
    symbols = tuple(placed[i] for i in kept)
    heights = tuple(stack.heights_A[i] for i in kept)
    extra = added[len(free) :]
    if extra:  # more atoms than places: above each other, as far apart as bonded atoms
        symbols, heights = _spread((*symbols, *extra), stack.heights_A)
    return Filled(symbols, heights, missing, tuple(added))


def _atoms_of(label: str) -> Counter[str]:
    if not label:
        return Counter()
    counts = Formula(label).count()
    if ANY in counts or not set(counts) <= set(atomic_numbers):
        raise BadInput(
            "supercell",
            expected="columns of known atoms",
            got=f"one named {label}",
            todo="Name what stands there: train on the material's own labels.",
        )
    return Counter(counts)


def _spread(
    symbols: tuple[str, ...], places_A: tuple[float, ...]
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    radii = covalent_radii[[atomic_numbers[s] for s in symbols]]
    heights = np.concatenate([[0.0], np.cumsum(radii[:-1] + radii[1:])])
    heights += float(np.mean(places_A)) - heights.mean() if places_A else -heights.mean()
    return symbols, tuple(float(z) for z in heights)


def buckles(labels: NDArray[np.str_], material: Material) -> NDArray[np.bool_]:
    """Tell which atoms are too large for a flat sheet, and lie above or below it.

    Parameters
    ----------
    labels
        Shape (atom,): labels of the observed atoms.
    material
        The crystal.

    Returns
    -------
    Shape (atom,): True where the covalent radius is 0.2 Å larger than that of the sheet's atoms:
    Si, P and S in graphene, not B, N and O. False in crystals that are not flat.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> buckles(np.array(["Si", "N", "C"]), GRAPHENE).tolist()
    [True, False, False]
    """
    if not is_flat(material):
        return np.zeros(len(labels), dtype=np.bool_)
    host = max(_radius_A(label) for label in material.site_species)
    large = [label for label in set(labels.tolist()) if _radius_A(label) > host + _LARGER_A]
    return np.isin(labels, large)


def is_flat(material: Material) -> bool:
    """Tell whether a material is a sheet of one layer of atoms.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> is_flat(GRAPHENE)
    True
    """
    crystal = material.crystal
    if crystal is None or not crystal.is_sheet:
        return False
    return float(np.ptp(crystal.positions_A[:, 2])) < _FLAT_A


def _radius_A(label: str) -> float:
    """Covalent radius of the largest atom of a label, Å; 0 if the label names none."""
    return max((float(covalent_radii[atomic_numbers.get(s, 0)]) for s in Formula(label)), default=0)
