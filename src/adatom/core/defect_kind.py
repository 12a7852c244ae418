"""The kinds of defect as values, and their names in tables.

`str` writes the name of a kind and `DefectKind.parse` reads it back; nothing else interprets names.
Each kind has exactly one name. Names consist of letters, digits, hyphens and underscores, and of
one space in ``rings 5-7``, which `DefectKind.label` replaces for file names and extended XYZ.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from adatom.core.composition import (
    COUNTED,
    FORMULA,
    Counts,
    check_counts,
    count_elements,
    count_formula,
    formula_of,
    listed,
)
from adatom.errors import BadInput

_RING_SIZES = range(3, 10)  # one digit each, so that a name such as ``rings 55-7`` is unambiguous
_PLACES = {"hollow": "over the middle of a ring", "bridge": "over a bond", "top": "over an atom"}
_TURNED_DIVACANCY = (5, 5, 5, 7, 7, 7)
_STONE_WALES_RINGS = (5, 5, 7, 7)  # atoms in the four rings around a rotated bond of graphene


class DefectKind(ABC):
    """Base class of the kinds of defect.

    Examples
    --------
    >>> kind = DefectKind.parse("Si1C3")
    >>> kind == Cluster.of(["Si"], ["C", "C", "C"]), str(kind), kind.describe()
    (True, 'Si1C3', 'Si bonded to 3 C')
    """

    __slots__ = ()

    @staticmethod
    def parse(name: str) -> DefectKind:
        """Read the name of a kind, as a table of defects holds it.

        Raises
        ------
        BadInput
            If it is not the name of a kind.
        """
        kind = DefectKind.parse_or_none(name)
        if kind is None:
            raise _bad(repr(name), "the name of a kind of defect, such as V1, W_Mo or Si1C3")
        return kind

    @staticmethod
    def parse_or_none(name: str) -> DefectKind | None:
        """Read a name that may also be another label; None if it is not the name of a kind."""
        for pattern, build in _NAMES:
            match = re.fullmatch(pattern, name)
            if match:
                try:
                    kind = build(match)
                except BadInput:
                    return None
                return kind if str(kind) == name else None  # one kind, one name
        return None

    @property
    def label(self) -> str:
        """The name for file names and extended XYZ: letters, digits, hyphens and underscores."""
        return str(self).replace(" ", "_")

    @abstractmethod
    def __str__(self) -> str:
        """Give the name that tables hold."""

    @abstractmethod
    def describe(self) -> str:
        """Describe the kind in plain words."""


@dataclass(frozen=True, slots=True)
class Vacancy(DefectKind):
    """Neighbouring empty sites: ``V1``, ``V2``, or ``vac_Mo`` where sites of a crystal differ.

    Papers write V_Mo for a missing Mo. Here ``V_Mo`` is vanadium on a Mo site, so the prefix is
    ``vac``, which is no chemical symbol.

    Parameters
    ----------
    count
        Number of empty sites.
    sites
        Element or column at each site in the perfect crystal, sorted. Empty if the crystal has one
        element, or if no lattice was found.
    rings
        Sizes of the rings around it where bonds have turned, sorted: ``V2-555-777``. Empty for the
        usual arrangement.

    Raises
    ------
    BadInput
        If there is no site, sites are named but not all of them, or rings are out of range.
    """

    count: int
    sites: tuple[str, ...] = ()
    rings: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1 or len(self.sites) not in (0, self.count):
            raise _bad(f"{self.count} and {self.sites}", "at least one site, and all or none named")
        if self.rings and self.sites:
            raise _bad(f"{self.sites} and {self.rings}", "sites or rings, not both")
        if self.rings:
            object.__setattr__(self, "rings", Rings(self.rings).sizes)
        for site in self.sites:
            count_formula(site)
        object.__setattr__(self, "sites", tuple(sorted(self.sites)))

    @classmethod
    def at(cls, *sites: str) -> Vacancy:
        """Make one of named sites.

        Examples
        --------
        >>> str(Vacancy.at("Mo")), str(Vacancy.at("S2", "Mo"))
        ('vac_Mo', 'vac_Mo_S2')
        """
        return cls(len(sites), sites)

    @property
    def missing(self) -> Counts:
        """Atoms that are missing; empty if the sites are not named."""
        return count_elements(
            symbol for site in self.sites for symbol, n in count_formula(site) for _ in range(n)
        )

    def __str__(self) -> str:
        if self.sites:
            return "_".join(("vac", *self.sites))
        return f"V{self.count}" + (f"-{_grouped(self.rings)}" if self.rings else "")

    def describe(self) -> str:
        """Say in plain words what it is."""
        if self.rings:
            rings = " and ".join(str(n) for n in self.rings)
            return f"{self.count} atoms missing, among rings of {rings} atoms"
        if self.sites:
            return f"empty {' and '.join(self.sites)} site{'s' if self.count > 1 else ''}"
        return "one empty site" if self.count == 1 else f"{self.count} neighbouring empty sites"


@dataclass(frozen=True, slots=True)
class Substitution(DefectKind):
    """An atom or column on the site of another: ``W_Mo``; ``S_S2`` is an S2 column without one S.

    The order is that of the Kröger-Vink notation: first the atom, then the site.

    Parameters
    ----------
    present
        Element or column that is there.
    site
        Element or column at this site in the perfect crystal.

    Raises
    ------
    BadInput
        If one of them is no formula, or both are the same.
    """

    present: str
    site: str

    def __post_init__(self) -> None:
        _check_exchange(self.present, self.site)

    @property
    def missing(self) -> Counts:
        """Atoms of the site that are not there: one S in ``S_S2``, one Mo in ``W_Mo``."""
        left = Counter(dict(count_formula(self.site)))
        left.subtract(dict(count_formula(self.present)))
        return tuple(sorted((symbol, n) for symbol, n in left.items() if n > 0))

    def __str__(self) -> str:
        return f"{self.present}_{self.site}"

    def describe(self) -> str:
        """Say in plain words what it is."""
        added = Counter(dict(count_formula(self.present)))
        added.subtract(dict(count_formula(self.site)))
        if max(added.values()) <= 0:
            return f"{self.site} column without {listed(self.missing)}"
        return f"{self.present} on a site of {self.site}"


@dataclass(frozen=True, slots=True)
class Antisite(DefectKind):
    """One of the crystal's own columns on a site of another: ``anti_Te_Cd``.

    Parameters
    ----------
    present, site
        As of `Substitution`.

    Raises
    ------
    BadInput
        If one of them is no formula, or both are the same.
    """

    present: str
    site: str

    def __post_init__(self) -> None:
        _check_exchange(self.present, self.site)

    def __str__(self) -> str:
        return f"anti_{self.present}_{self.site}"

    def describe(self) -> str:
        """Say in plain words what it is."""
        return f"antisite: {self.present} of the crystal on a site of {self.site}"


@dataclass(frozen=True, slots=True)
class Adatom(DefectKind):
    """Atoms on top of a sheet: ``ad-C``, ``ad-Si2``; with its place ``ad-Si-bridge``.

    Parameters
    ----------
    atoms
        Number of atoms of each element.
    place
        ``hollow`` (over the middle of a ring), ``bridge`` (over a bond) or ``top`` (over an atom);
        empty if it is not known or is none of these.

    Raises
    ------
    BadInput
        If there are none, an element does not exist, or there is no such place.
    """

    atoms: Counts
    place: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "atoms", check_counts(self.atoms))
        if self.place not in ("", *_PLACES):
            raise _bad(repr(self.place), "hollow, bridge, top or nothing as the place")

    @classmethod
    def of(cls, symbols: Iterable[str], place: str = "") -> Adatom:
        """Make one of chemical symbols.

        Examples
        --------
        >>> str(Adatom.of(["Si"])), str(Adatom.of(["Si"], "bridge"))
        ('ad-Si', 'ad-Si-bridge')
        """
        return cls(count_elements(symbols), place)

    def __str__(self) -> str:
        return "-".join(filter(None, ("ad", formula_of(self.atoms), self.place)))

    def describe(self) -> str:
        """Say in plain words what it is."""
        one = sum(n for _, n in self.atoms) == 1
        where = _PLACES.get(self.place, "on top of the crystal")
        return f"{listed(self.atoms)} {where}, {'an ad-atom' if one else 'ad-atoms'}"


@dataclass(frozen=True, slots=True)
class Interstitial(DefectKind):
    """A column between the sites of a thick crystal: ``Cd_i``.

    Parameters
    ----------
    present
        Element or column that is there.

    Raises
    ------
    BadInput
        If it is no formula.
    """

    present: str

    def __post_init__(self) -> None:
        count_formula(self.present)

    def __str__(self) -> str:
        return f"{self.present}_i"

    def describe(self) -> str:
        """Say in plain words what it is."""
        return f"{self.present} between the sites of the crystal"


@dataclass(frozen=True, slots=True)
class Cluster(DefectKind):
    """Impurity atoms in place of host atoms, with the host atoms bonded to them: ``Si2C6``.

    Parameters
    ----------
    atoms
        The impurity atoms.
    bonded
        The host atoms bonded to them.

    Raises
    ------
    BadInput
        If one of the two is empty, or an element does not exist.
    """

    atoms: Counts
    bonded: Counts

    def __post_init__(self) -> None:
        object.__setattr__(self, "atoms", check_counts(self.atoms))
        object.__setattr__(self, "bonded", check_counts(self.bonded))

    @classmethod
    def of(cls, atoms: Iterable[str], bonded: Iterable[str]) -> Cluster:
        """Make one of chemical symbols.

        Examples
        --------
        >>> str(Cluster.of(["Si", "Si"], ["C"] * 6)), str(Cluster.of(["C"], ["B", "N", "N"]))
        ('Si2C6', 'C1-B1N2')
        """
        return cls(count_elements(atoms), count_elements(bonded))

    def __str__(self) -> str:
        first, last = ("".join(f"{s}{n}" for s, n in c) for c in (self.atoms, self.bonded))
        # With two host elements, only the hyphen separates the impurity atoms from the host atoms.
        return first + ("-" if len(self.bonded) > 1 else "") + last

    def describe(self) -> str:
        """Say in plain words what it is."""
        return f"{listed(self.atoms)} bonded to {listed(self.bonded, ones=True)}"


@dataclass(frozen=True, slots=True)
class Rings(DefectKind):
    """Rings of another size than the crystal's that share bonds: ``rings 5-7``, ``rings 55-8``.

    Parameters
    ----------
    sizes
        Atoms in each ring, 3 to 9, sorted.

    Raises
    ------
    BadInput
        If there is none, or a size is out of range.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.sizes or not set(self.sizes) <= set(_RING_SIZES):
            raise _bad(str(self.sizes), "rings of 3 to 9 atoms")
        object.__setattr__(self, "sizes", tuple(sorted(self.sizes)))

    def __str__(self) -> str:
        return "rings " + _grouped(self.sizes)

    def describe(self) -> str:
        """Say in plain words what it is."""
        plural = "s" if len(self.sizes) > 1 else ""
        return f"ring{plural} of {' and '.join(str(n) for n in self.sizes)} atoms"


@dataclass(frozen=True, slots=True)
class StoneWales(DefectKind):
    """A bond rotated by 90 degrees: two rings of 5 and two of 7 atoms in graphene."""

    def __str__(self) -> str:
        return "Stone-Wales"

    def describe(self) -> str:
        """Say in plain words what it is."""
        return "a bond rotated by 90 degrees"


@dataclass(frozen=True, slots=True)
class Boundary(DefectKind):
    """A boundary between two grains."""

    def __str__(self) -> str:
        return "boundary"

    def describe(self) -> str:
        """Say in plain words what it is."""
        return "a boundary between two grains"


@dataclass(frozen=True, slots=True)
class Other(DefectKind):
    """A kind that only an added namer knows: ``other-`` and its label.

    Parameters
    ----------
    label_of_namer
        Letters and digits, with hyphens or underscores between them.

    Raises
    ------
    BadInput
        If it has other characters.
    """

    label_of_namer: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)*", self.label_of_namer):
            raise _bad(repr(self.label_of_namer), "letters and digits, with - or _ between them")

    def __str__(self) -> str:
        return f"other-{self.label_of_namer}"

    def describe(self) -> str:
        """Say in plain words what it is."""
        return f"{self.label_of_namer}, a kind of the namer's own"


def kind_of_rings(sizes: Iterable[int]) -> Rings | StoneWales | Vacancy:
    """Name rings that share bonds.

    Two of 5 and two of 7 atoms are a rotated bond; three and three are two missing atoms beside a
    turned bond (Banhart, Kotakoski and Krasheninnikov, ACS Nano 5, 26 (2011)).

    Examples
    --------
    >>> str(kind_of_rings([7, 5])), str(kind_of_rings([5, 7, 7, 5]))
    ('rings 5-7', 'Stone-Wales')
    """
    rings = Rings(tuple(sizes))
    if rings.sizes == _TURNED_DIVACANCY:
        return Vacancy(2, rings=rings.sizes)
    return StoneWales() if rings.sizes == _STONE_WALES_RINGS else rings


def _grouped(sizes: tuple[int, ...]) -> str:
    return "-".join(str(n) * sizes.count(n) for n in sorted(set(sizes)))


# The patterns exclude each other, so their order does not matter.
_NAMES: tuple[tuple[str, Callable[[re.Match[str]], DefectKind]], ...] = (
    (
        r"V([1-9]\d*)(?:-([3-9]+(?:-[3-9]+)*))?",
        lambda m: Vacancy(int(m[1]), rings=tuple(int(d) for d in (m[2] or "").replace("-", ""))),
    ),
    (rf"vac((?:_{FORMULA})+)", lambda m: Vacancy.at(*m[1][1:].split("_"))),
    (rf"({FORMULA})_({FORMULA})", lambda m: Substitution(m[1], m[2])),
    (rf"anti_({FORMULA})_({FORMULA})", lambda m: Antisite(m[1], m[2])),
    (
        rf"ad-({FORMULA})(?:-({'|'.join(_PLACES)}))?",
        lambda m: Adatom(count_formula(m[1]), m[2] or ""),
    ),
    (rf"({FORMULA})_i", lambda m: Interstitial(m[1])),
    (rf"((?:{COUNTED})+)({COUNTED})", lambda m: _cluster(m[1], m[2])),
    (rf"((?:{COUNTED})+)-((?:{COUNTED})+)", lambda m: _cluster(m[1], m[2])),
    (r"rings ([3-9]+(?:-[3-9]+)*)", lambda m: Rings(tuple(int(d) for d in m[1].replace("-", "")))),
    (r"Stone-Wales", lambda _: StoneWales()),
    (r"boundary", lambda _: Boundary()),
    (r"other-(.+)", lambda m: Other(m[1])),
)


def _cluster(atoms: str, bonded: str) -> Cluster:
    return Cluster(count_formula(atoms), count_formula(bonded))


def _check_exchange(present: str, site: str) -> None:
    count_formula(present)
    count_formula(site)
    if present == site:
        raise _bad(f"{present} on {site}", "something else than what the site holds")


def _bad(got: str, expected: str) -> BadInput:
    return BadInput(
        "kind of defect",
        expected=expected,
        got=got,
        todo="docs/reference/defect-kinds.md lists every kind and its name.",
    )
