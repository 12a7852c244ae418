"""Name point defects of any crystal: empty sites, replaced columns, columns between the sites.

Rings and bonds are not used: they have no meaning where atoms lie above each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adatom.core import (
    Adatom,
    Antisite,
    AtomTable,
    DefectKind,
    DefectTable,
    EmptySites,
    Interstitial,
    Lattice,
    Material,
    Substitution,
    Vacancy,
)
from adatom.core.arrays import FloatArray
from adatom.core.composition import count_formula
from adatom.features.defects.base import DefectOptions, check_frame
from adatom.features.defects.replaced_columns import p_replaced
from adatom.features.sublattices import has_distinct_sublattices, sublattices

_SURE_P = 0.5  # atoms more probable than this decide which element a sublattice holds


@dataclass(frozen=True, slots=True)
class ColumnsNamer:
    """Names vacancies, substitutions, antisites, and columns between the sites.

    Without a lattice only empty sites are named, and not what is missing there. Antisites are
    named only in a crystal without polytypes, because the sites differ between stackings. Where
    `features.sublattices` can tell the sublattices apart, they are named only where it does.
    """

    name: str = "columns"

    def name_defects(
        self,
        atoms: AtomTable,
        lattice: Lattice | None,
        material: Material,
        extent_xy_A: tuple[float, float],
        empty: EmptySites,
        frame: int,
        options: DefectOptions,
    ) -> DefectTable:
        """Name the defects of one frame; parameters as of `DefectNamer.name_defects`.

        Raises
        ------
        BadInput
            If the table holds other frames.
        """
        del extent_xy_A  # every column and every tested site counts, wherever it is
        check_frame(atoms, frame)
        listed = np.flatnonzero(empty.p >= options.column_minimum_p)
        kinds: list[DefectKind] = _vacancies(lattice, material, empty.xy[listed])
        members: list[list[int]] = [[] for _ in listed]
        p_columns = atoms.column("p_exists") * atoms.column("p_element")
        replaced: dict[int, DefectKind] = {}
        if lattice is not None and len(atoms):
            replaced, due = _name_columns(atoms, lattice, material, options.column_tolerance_bonds)
            asked = [i for i, k in replaced.items() if isinstance(k, (Antisite, Substitution))]
            p_columns[asked] *= p_replaced(
                atoms.xy, atoms.column("amplitude"), atoms.elements, due,
                np.array(asked, dtype=np.int64), material, options.replaced_share,
            )  # fmt: skip
            probable = p_columns >= options.column_minimum_p
            replaced = {i: kind for i, kind in replaced.items() if probable[i]}
        rows = list(replaced)
        numbers = atoms.data["atom"].to_list()
        return DefectTable.build(
            frame=frame,
            kinds=[*kinds, *replaced.values()],
            xy=np.concatenate([empty.xy[listed], atoms.xy[rows]]),
            p=[*empty.p[listed], *p_columns[rows]],
            atoms=[*members, *([int(numbers[i])] for i in rows)],
        )


NAMER = ColumnsNamer()  # the object that the entry point names


def _vacancies(lattice: Lattice | None, material: Material, xy: FloatArray) -> list[DefectKind]:
    """Name one vacancy for each empty site, shape (site, 2), Å, measured axes."""
    if lattice is None:
        return [Vacancy(1) for _ in xy]
    return [Vacancy.at(site) for site in _nearest_sites(lattice, material, xy)[0]]


def _name_columns(
    atoms: AtomTable, lattice: Lattice, material: Material, tolerance_bonds: float
) -> tuple[dict[int, DefectKind], list[str]]:
    """Name every column that is not what its site should hold, by its row in the table.

    Gives the label of the sublattice of every column, too; empty where it is not known.
    """
    expected, distance = _nearest_sites(lattice, material, atoms.xy)
    sublattice = _sublattice_elements(atoms, material)
    expected = [s or e for s, e in zip(sublattice, expected, strict=True)]
    hosts = material.hosts()
    out: dict[int, DefectKind] = {}
    for i, element in enumerate(str(e) for e in atoms.elements):
        off_site = distance[i] > tolerance_bonds * material.bond_length_A and not sublattice[i]
        if element in hosts:
            # In another stacking or grain the lattice's labels of the sites do not hold.
            unclear = bool(material.polytypes) or (
                has_distinct_sublattices(material) and not sublattice[i]
            )
            if not (off_site or unclear or element == expected[i]):
                out[i] = Antisite(element, expected[i])
        elif off_site:
            out[i] = _between_sites(element, material)
        elif element != expected[i]:
            out[i] = Substitution(element, expected[i])
    return out, sublattice


def _between_sites(element: str, material: Material) -> DefectKind:
    """Name a foreign column on no site: an interstitial, or on a sheet an ad-atom."""
    return Interstitial(element) if material.is_thick else Adatom(count_formula(element))


def _sublattice_elements(atoms: AtomTable, material: Material) -> list[str]:
    """Give the element of most columns on each column's sublattice; empty where it is unknown."""
    out = [""] * len(atoms)
    if not has_distinct_sublattices(material):
        return out
    sure = np.flatnonzero(atoms.column("p_exists") > _SURE_P)
    number, _ = sublattices(atoms.xy[sure], material)
    names = atoms.elements[sure]
    for k in np.unique(number[number >= 0]):
        mine = number == k
        element, count = np.unique(names[mine], return_counts=True)
        for i in sure[mine]:
            out[int(i)] = str(element[count.argmax()])
    return out


def _nearest_sites(
    lattice: Lattice, material: Material, xy: FloatArray
) -> tuple[Sequence[str], FloatArray]:
    """Give the label of the nearest site, and the distance to it in Å, for positions (N, 2)."""
    index, offset = lattice.nearest_site(lattice.undistort(xy))
    names = [material.site_species[int(k)] for k in index[:, 2]]
    return names, np.linalg.norm(offset, axis=1)
