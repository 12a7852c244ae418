"""The material: crystal, species, contrast, and abilities such as simulation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from ase.data import atomic_numbers
from ase.formula import Formula

from adatom.core.arrays import FloatArray
from adatom.core.crystal import Crystal

Form = Literal["sheet", "columns", "atoms"]
ANY = "X"  # label of a column of unknown composition
_LATTICE_A = 2.46  # lattice constant of graphene, Å: that of graphite (2.461 Å)
_BOND_A = _LATTICE_A / 3.0**0.5  # graphene's bond length, Å
_ANY_DETECTOR = (0.34, 0.36)  # exponents below and above the usual one, over all detectors
_USUAL_PROBE_A = 0.43  # standard deviation, Å: the middle of graphene's range of probes


@dataclass(frozen=True, slots=True)
class SiteThreshold:
    """Threshold of the atoms at one kind of site, where it is not that of the perfect crystal.

    Parameters
    ----------
    element
        Chemical symbol of the atom that is displaced.
    beside
        Element that it is bonded to; empty for any.
    coordination
        Number of its neighbours; 0 for any.
    threshold_eV, threshold_sd_eV
        Energy that displaces the atom, and its standard deviation, eV.
    mean_square_velocity_m2_s2
        Mean square velocity of the atom along the beam, m²/s².
    outcome
        ``leaves`` the sheet, or ``moves`` to another site.
    source
        Publication or computation that the numbers come from.
    """

    element: str
    beside: str
    coordination: int
    threshold_eV: float
    threshold_sd_eV: float
    mean_square_velocity_m2_s2: float
    outcome: Literal["leaves", "moves"]
    source: str

    def __str__(self) -> str:
        """Name the site for people, such as ``C beside Si``."""
        where = f" beside {self.beside}" if self.beside else ""
        return (
            self.element
            + where
            + (f" with {self.coordination} neighbours" if self.coordination else "")
        )


@dataclass(frozen=True, slots=True)
class KnockOnData:
    """Data for the cross section of knock-on damage, for the element with the lowest threshold.

    Parameters
    ----------
    element
        Chemical symbol of the atom that is displaced.
    threshold_eV, threshold_sd_eV
        Energy that displaces the atom, and its standard deviation, eV.
    mean_square_velocity_m2_s2
        Mean square velocity of the atom along the beam, m²/s².
    source
        Publication that the numbers come from.
    sites
        Kinds of site with a threshold of their own; an atom belongs to the first that fits.
    caveat
        What these numbers leave out, one sentence for the operator; empty if nothing.
    """

    element: str
    threshold_eV: float
    threshold_sd_eV: float
    mean_square_velocity_m2_s2: float
    source: str
    sites: tuple[SiteThreshold, ...] = ()
    caveat: str = ""


@dataclass(frozen=True, slots=True)
class Material:
    """A crystal in projection, or atoms on a support, and the abilities that adatom has for it.

    Parameters
    ----------
    name
        Name that the user gives.
    cell_A
        Two lattice vectors as rows, Å, right-handed.
    basis
        Fractional coordinates of the sites of one cell.
    site_species
        Label of the column at every site of the basis: a chemical symbol, or the formula of atoms
        above each other, such as ``S2``.
    species
        Labels of everything that may appear, host first, in the order of the networks' classes.
    bond_length_A
        Nearest-neighbour distance of the perfect crystal.
    coordination
        Neighbours of an atom in the perfect crystal.
    ring_size
        Atoms in the rings of the perfect crystal.
    contrast_exponent
        The intensity of an atom is proportional to Z to this power (annular dark field).
    contrast_range
        Smallest and largest exponent in simulated frames: those of the experiment's detector. None
        for those of any annular detector.
    polytypes
        Other arrangements in the same cell, such as stackings of two layers: the sites of each, as
        (label, fractional x, fractional y).
    form
        ``sheet``: one layer. ``columns``: a crystal so thick that equal columns differ in
        brightness. ``atoms``: atoms dispersed on an amorphous support, without a lattice; the cell
        and the basis have no meaning then, and the bond length is the shortest distance of two
        atoms. Code asks `has_lattice`, `has_support` and `is_thick`.
    probe_sigma_A
        Standard deviations of the narrowest and the widest probe, Å. None: as fine as the pattern
        requires.
    defect_namer
        Registered name of its defect namer (entry points ``adatom.defect_namers``).
    simulated_by
        Names of the engines that can simulate supercells of it; empty where none can.
    knock_on
        Data for the cross section of knock-on damage; None where they are not known.
    crystal
        The atoms in three dimensions behind the columns, also those too dim to be seen, in the axes
        of `cell_A` with z along the beam; None where they are not known. Supercells need it.
    """

    name: str
    cell_A: tuple[tuple[float, float], tuple[float, float]]
    basis: tuple[tuple[float, float], ...]
    site_species: tuple[str, ...]
    species: tuple[str, ...]
    bond_length_A: float
    coordination: int
    ring_size: int
    contrast_exponent: float = 1.64
    polytypes: tuple[tuple[tuple[str, float, float], ...], ...] = ()
    form: Form = "sheet"
    probe_sigma_A: tuple[float, float] | None = None
    defect_namer: str = "columns"
    simulated_by: tuple[str, ...] = ()
    knock_on: KnockOnData | None = None
    contrast_range: tuple[float, float] | None = None
    crystal: Crystal | None = None

    @property
    def has_lattice(self) -> bool:
        """Whether its atoms lie on a lattice."""
        return self.form != "atoms"

    @property
    def has_support(self) -> bool:
        """Whether an amorphous support lies under its atoms, in place of a smooth background."""
        return self.form == "atoms"

    @property
    def is_thick(self) -> bool:
        """Whether equal columns differ in brightness, because the thickness varies."""
        return self.form == "columns"

    @property
    def host(self) -> str:
        """The element of the perfect crystal's first site."""
        return self.site_species[0]

    def cell(self) -> FloatArray:
        """Lattice vectors as the rows of a (2, 2) array, Å."""
        return np.array(self.cell_A, dtype=np.float64)

    @property
    def lattice_constant_A(self) -> float:
        """Length of the first lattice vector, Å."""
        return float(np.linalg.norm(self.cell()[0]))

    @property
    def site_area_A2(self) -> float:
        """Area of the sheet per site, Å²."""
        return float(abs(np.linalg.det(self.cell()))) / len(self.basis)

    @property
    def scale(self) -> float:
        """Length scale of its images relative to graphene's, from which pixel sizes follow.

        Networks see every material at about the same number of pixels per bond, or per probe where
        the probe is wider. The scale is limited to 1.5, so that the probe stays sampled where bonds
        are long.
        """
        finest = float(np.clip(self.bond_length_A / _BOND_A, 0.85, 1.5))
        if self.probe_sigma_A is None:
            return finest
        return max(finest, float(np.mean(self.probe_sigma_A)) / _USUAL_PROBE_A)

    @property
    def exponents(self) -> tuple[float, float]:
        """Smallest and largest exponent of the contrast in simulated frames.

        Without a detector they are 1.3 to 2.0 for the usual exponent of 1.64: from medium-angle to
        high-angle annular dark field.
        """
        below, above = _ANY_DETECTOR
        middle = self.contrast_exponent
        return self.contrast_range or (middle - below, middle + above)

    def hosts(self) -> set[str]:
        """Labels of the columns of the crystal and of its polytypes."""
        return {s for each in self.arrangements() for s in each.site_species}

    def arrangements(self) -> tuple[Material, ...]:
        """Give the crystal and each of its polytypes as a separate material."""
        others = [
            replace(
                self,
                basis=tuple((x, y) for _, x, y in sites),
                site_species=tuple(label for label, _, _ in sites),
                polytypes=(),
                crystal=None,
            )
            for sites in self.polytypes
        ]
        return (self, *others)

    def brightness(self, exponent: float | None = None) -> FloatArray:
        """Intensity of each species over the host's, shape (species,).

        Parameters
        ----------
        exponent
            Exponent of the atomic number; the material's own by default. The intensity of a column
            is the sum over its atoms.
        """
        power = self.contrast_exponent if exponent is None else exponent
        value = np.array([_intensity(label, power) for label in self.species])
        out: FloatArray = value / _intensity(self.host, power)
        return out


def _intensity(label: str, exponent: float) -> float:
    """Sum of Zⁿ over the atoms of a label; 1 for a column that is not named."""
    if label == ANY:
        return 1.0
    return float(sum(n * atomic_numbers[s] ** exponent for s, n in Formula(label).count().items()))


_HALF_A, _ROW_A = _LATTICE_A / 2.0, _LATTICE_A * 3.0**0.5 / 2.0  # of graphene's cell, Å
GRAPHENE = Material(
    name="graphene",
    cell_A=((_LATTICE_A, 0.0), (_HALF_A, _ROW_A)),
    basis=((1.0 / 3.0, 1.0 / 3.0), (2.0 / 3.0, 2.0 / 3.0)),
    site_species=("C", "C"),
    species=("C", "Si"),
    bond_length_A=_BOND_A,
    coordination=3,
    ring_size=6,
    defect_namer="bonded-sheet",
    simulated_by=("gfn1-xtb", "lammps"),
    knock_on=KnockOnData(
        element="C",
        threshold_eV=21.5,
        threshold_sd_eV=0.4,
        mean_square_velocity_m2_s2=3.05e5,
        source="Susi et al., Nat. Commun. 7, 13040 (2016): out-of-plane <v²> of carbon at 300 K "
        "from phonons; threshold with the spread of published values",
        sites=(
            SiteThreshold(
                element="C",
                beside="Si",
                coordination=0,
                threshold_eV=13.5,
                threshold_sd_eV=0.5,
                mean_square_velocity_m2_s2=3.05e5,
                outcome="moves",
                source="the effective threshold at which the cross section at 60 kV is that of the "
                "published hops of Si (arXiv:2311.17894, see `core.hops`); a factor of three in "
                "the rates is 0.45 eV",
            ),
        ),
    ),
    crystal=Crystal(
        ((_LATTICE_A, 0.0, 0.0), (_HALF_A, _ROW_A, 0.0)),
        None,
        (("C", _HALF_A, _ROW_A / 3.0, 0.0), ("C", _LATTICE_A, 2.0 * _ROW_A / 3.0, 0.0)),
    ),
)
