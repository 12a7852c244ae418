"""Numbers of atoms by element, and chemical formulas."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from ase.data import atomic_numbers

from adatom.errors import BadInput

# Number of atoms of each element, sorted by symbol: ``(("C", 3), ("Si", 1))``.
Counts = tuple[tuple[str, int], ...]

_ELEMENT = r"[A-Z][a-z]?"
FORMULA = rf"(?:{_ELEMENT}(?:[1-9]\d*)?)+"  # a symbol, or the formula of a column such as S2
COUNTED = rf"{_ELEMENT}[1-9]\d*"  # an element whose number is always written: Si1


def count_elements(symbols: Iterable[str]) -> Counts:
    """Count chemical symbols.

    Examples
    --------
    >>> count_elements(["Si", "C", "C"])
    (('C', 2), ('Si', 1))
    """
    return tuple(sorted(Counter(symbols).items()))


def count_formula(formula: str) -> Counts:
    """Count the atoms of a formula without brackets, such as the column label ``S2``.

    Raises
    ------
    BadInput
        If it is no formula, or an element does not exist.

    Examples
    --------
    >>> count_formula("MoS2")
    (('Mo', 1), ('S', 2))
    """
    if not re.fullmatch(FORMULA, formula):
        raise BadInput(
            "formula",
            expected="a chemical symbol, or a formula such as S2",
            got=repr(formula),
            todo="Write symbols with their numbers, without brackets.",
        )
    total: Counter[str] = Counter()
    for symbol, number in re.findall(rf"({_ELEMENT})(\d*)", formula):
        total[symbol] += int(number or 1)
    unknown = sorted(set(total) - set(atomic_numbers))
    if unknown:
        raise BadInput(
            f"formula {formula}",
            expected="symbols of elements",
            got=", ".join(unknown),
            todo="Check the spelling: Mo and not MO.",
        )
    return tuple(sorted(total.items()))


def check_counts(counts: Counts) -> Counts:
    """Sort counts by symbol, and check them.

    Raises
    ------
    BadInput
        If there are none, a symbol is unknown or stands twice, or a number is below 1.
    """
    ordered = tuple(sorted(counts))
    symbols = [symbol for symbol, _ in ordered]
    known = set(symbols) <= set(atomic_numbers) and len(set(symbols)) == len(symbols)
    if not ordered or not known or min(n for _, n in ordered) < 1:
        raise BadInput(
            "numbers of atoms",
            expected="chemical symbols, each once, each with a number of at least 1",
            got=str(counts),
            todo="Name at least one atom.",
        )
    return ordered


def formula_of(counts: Counts) -> str:
    """Write a formula: ``Si2``, ``MoS2``.

    Examples
    --------
    >>> formula_of((("Mo", 1), ("S", 2)))
    'MoS2'
    """
    return "".join(f"{symbol}{n if n > 1 else ''}" for symbol, n in counts)


def listed(counts: Counts, *, ones: bool = False) -> str:
    """Write counts in words; the number 1 is written only with `ones`.

    Examples
    --------
    >>> listed((("C", 1), ("Si", 2))), listed((("C", 1), ("Si", 2)), ones=True)
    ('C and 2 Si', '1 C and 2 Si')
    """
    return " and ".join(f"{n} {s}" if n > 1 or ones else s for s, n in counts)
