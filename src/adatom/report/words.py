"""Plain words for kinds of defects and probabilities, and numbers as exact as they are known."""

from __future__ import annotations

import math
import re
from collections import Counter

from ase.data import atomic_names, atomic_numbers

from adatom.core import DefectKind, Material
from adatom.core.defect_kind import Adatom, Cluster, Rings, Substitution, Vacancy
from adatom.report.facts import printable
from adatom.report.markup import listing

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_POLYGONS = {3: "triangle", 4: "square", 5: "pentagon", 6: "hexagon", 7: "heptagon", 8: "octagon",
             9: "nonagon"}  # fmt: skip
_ON_TOP = {"hollow": "on top, in the middle of a ring", "bridge": "on top of a bond",
           "top": "on top of an atom"}  # fmt: skip
_NOISE_EV = 1e-3  # eV: relaxations that end at some meV/Å differ by less in one minimum
_HOLE = 6  # missing atoms from which an empty place is called a hole
# Least probability of each phrase, highest first.
_SURE = (
    (0.95, "almost certain"),
    (0.8, "likely"),
    (0.5, "more likely than not"),
    (0.0, "doubtful"),
)


def kind_in_words(name: str, material: Material) -> str:
    """Name a kind of defect as a microscopist says it.

    Parameters
    ----------
    name
        Name of the kind, as in ``defects.parquet``.
    material
        The crystal that it is in.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> kind_in_words("Si1C3", GRAPHENE), kind_in_words("V1", GRAPHENE)
    ('silicon in place of carbon, three bonds', 'one carbon missing')
    >>> kind_in_words("V13", GRAPHENE)
    'a hole of 13 carbon atoms'
    >>> kind_in_words("rings 55-77", GRAPHENE), kind_in_words("rings 5-7", GRAPHENE)
    ('two pentagons and two heptagons', 'pentagon and heptagon')
    """
    kind = DefectKind.parse_or_none(name)
    if isinstance(kind, Vacancy):
        return _empty(kind, material)
    if isinstance(kind, Cluster):
        return _cluster(kind, material)
    if isinstance(kind, Substitution) and kind.present in atomic_numbers:
        return f"{_element(kind.present)} in place of {_element(kind.site)}"
    if isinstance(kind, Adatom):
        return f"{_atoms(kind.atoms)} {_ON_TOP.get(kind.place, 'on top of the crystal')}"
    if isinstance(kind, Rings):
        each = Counter(kind.sizes).items()
        shapes = [_POLYGONS[n] if k == 1 else f"{counted(k)} {_POLYGONS[n]}s" for n, k in each]
        return ("a line of " if len(kind.sizes) > 4 else "") + listing(shapes)
    return printable(name, 40) if kind is None else kind.describe()


_NO_KIND = {"none": "no defect", "?": "something else"}  # alternatives that are no kind


def alternatives_in_words(text: str, material: Material) -> str:
    """Say what else a defect may be, from the column of its table; empty for nothing.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> alternatives_in_words("V1 0.12, none 0.05, ? 0.02", GRAPHENE)
    'or one carbon missing (p 0.12), no defect (p 0.05) or something else (p 0.02)'
    """
    parts = []
    for one in filter(None, text.split(", ")):
        name, _, p = one.rpartition(" ")
        if not re.fullmatch(r"[01]\.\d+", p):
            continue  # a table that something else wrote
        what = {"none": "no defect", "?": "something else"}.get(name) or kind_in_words(
            name, material
        )
        parts.append(f"{what} ({probability(float(p))})")
    if len(parts) > 1:
        parts[-2:] = [f"{parts[-2]} or {parts[-1]}"]
    return f"or {', '.join(parts)}" if parts else ""


def how_sure(p: float) -> str:
    """Describe a probability in words with its value.

    Examples
    --------
    >>> how_sure(0.9999), how_sure(0.874)
    ('almost certain (p > 0.99)', 'likely (p 0.87)')
    """
    if not math.isfinite(p):
        return "of unknown probability"
    word = next(text for least, text in _SURE if p >= least)
    return f"{word} ({probability(p)})"


def probability(p: float) -> str:
    """Write a probability with two digits; never as 0 or 1."""
    if not math.isfinite(p):
        return "p unknown"
    if p > 0.99:
        return "p > 0.99"
    return "p < 0.01" if p < 0.01 else f"p {p:.2f}"


def measured(value: float, sd: float, unit: str = "") -> str:
    """Write a value with its standard deviation, both cut where the deviation has two digits.

    Examples
    --------
    >>> measured(12.34567, 0.0213, "Å")
    '12.346 ± 0.021 Å'
    >>> measured(-3404.3747, 0.00012, "eV")
    '−3404.37470 ± 0.00012 eV'
    """
    if not (math.isfinite(value) and math.isfinite(sd)):
        return f"{value:.3g} {unit}".strip() if math.isfinite(value) else "–"
    digits = min(max(1 - math.floor(math.log10(sd)), 0), 6) if sd > 0 else 3
    return f"{value:.{digits}f} ± {sd:.{digits}f} {unit}".strip().replace("-", "−")


def energy_in_words(eV: float, sd_eV: float = 0.0) -> str:
    """Write an energy to the first digit of its standard deviation, to 1 meV at the finest.

    Where that is below 1 meV it is the noise of an optimiser, no uncertainty, and is left out; the
    energy then has 0.01 eV.

    Examples
    --------
    >>> energy_in_words(7.9034, 0.0121), energy_in_words(7.9034, 0.000003)
    ('7.90 ± 0.01 eV', '7.90 eV')
    """
    if not math.isfinite(eV):
        return "–"
    noise = not sd_eV >= _NOISE_EV
    digits = 2 if noise else min(max(-math.floor(math.log10(sd_eV)), 0), 3)
    value = f"{round(eV, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus zero
    return f"{value} eV" if noise else f"{value} ± {sd_eV:.{digits}f} eV"


def energy_difference(eV: float) -> str:
    """Write a difference of energies in the unit in which it is not zero.

    Relaxations end at forces of some meV/Å, so that less than 1 meV is no difference.

    Examples
    --------
    >>> energy_difference(0.00012), energy_difference(0.0123), energy_difference(0.352)
    ('less than 1 meV', '12 meV', '0.35 eV')
    """
    if not math.isfinite(eV):
        return "–"
    size = abs(eV)
    if size < 1e-3:
        return "less than 1 meV"
    text = f"{1000 * eV:.0f} meV" if size < 0.1 else f"{eV:.2f} eV"
    return text.replace("-", "−")


def counted(n: int) -> str:
    """Write a small number as a word, a larger one in digits."""
    return _NUMBERS[n] if 0 <= n < len(_NUMBERS) else str(n)


def capital(text: str) -> str:
    """Give the text a capital first letter."""
    return text[:1].upper() + text[1:]


def _element(symbol: str) -> str:
    return atomic_names[atomic_numbers[symbol]].lower() if symbol in atomic_numbers else symbol


def _atoms(counts: tuple[tuple[str, int], ...]) -> str:
    parts = [_element(e) if n == 1 else f"{counted(n)} {_element(e)} atoms" for e, n in counts]
    return " and ".join(parts)


def _empty(kind: Vacancy, material: Material) -> str:
    if kind.sites:
        which = " and ".join(sorted({_element(s) for s in kind.sites}))
        if kind.count == 1:
            return f"one {which} missing"
        return f"{counted(kind.count)} neighbouring sites empty ({which})"
    host = _element(material.host)
    if kind.rings:
        among = kind_in_words(str(Rings(kind.rings)), material).removeprefix("a line of ")
        return f"{counted(kind.count)} {host} atoms missing, the others joined to {among}"
    if kind.count == 1:
        return f"one {host} missing"
    if kind.count < _HOLE:
        return f"{counted(kind.count)} neighbouring {host} atoms missing"
    return f"a hole of {kind.count} {host} atoms"


def _cluster(kind: Cluster, material: Material) -> str:
    bonds = sum(n for _, n in kind.bonded)
    what = _atoms(kind.atoms)
    one = sum(n for _, n in kind.atoms) == 1
    tail = f"{counted(bonds)} bond{'s' if bonds != 1 else ''}"
    if one and bonds == material.coordination:
        return f"{what} in place of {_element(material.host)}, {tail}"
    return f"{what} in the {_element(material.host)} sheet, {tail}"
