"""Point defects of any crystal: empty sites, and columns that are not what their site asks for.

Rings and bonds, by which `features.defects` names those of graphene, say nothing where atoms lie
over each other.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from adatom.core import AtomTable, DefectTable, Lattice, Material
from adatom.core.arrays import FloatArray
from adatom.features.sublattices import can_speak, sublattices

_ON_SITE = 0.35  # bond lengths: a column this near to a site stands on it
_LEAST = 0.05  # less probable defects are not listed


def point_defects(
    atoms: AtomTable,
    lattice: Lattice | None,
    vacancies_xy: FloatArray,
    p_empty: FloatArray,
    frame: int,
) -> DefectTable:
    """Name empty sites and replaced columns of one frame.

    Parameters
    ----------
    atoms
        Of the frame.
    lattice
        Fitted to them; without one only empty sites are named, and not what is missing.
    vacancies_xy, p_empty
        Sites that may be empty, shape (site, 2), Å, and how probably.
    frame
        Number of the frame.

    Returns
    -------
    ``V_Mo`` is an empty Mo site; ``W_Mo`` W on one; ``W_ad`` a column between the sites. Hosts on
    each other's sites are named only in a crystal without polytypes, and where
    `features.sublattices` can tell its sites apart, only where it does.
    """
    rows: list[tuple[str, float, float, float, list[int]]] = []
    missing = _due(lattice, vacancies_xy)[0] if lattice is not None else ["X"] * len(p_empty)
    for lost, (x, y), chance in zip(missing, vacancies_xy, p_empty, strict=True):
        if chance >= _LEAST:
            rows.append((f"V_{lost}", float(x), float(y), float(chance), []))
    if lattice is not None and len(atoms.data):
        due, distance = _due(lattice, atoms.xy)
        reach = _ON_SITE * lattice.material.bond_length_A
        p = atoms.column("p_exists") * atoms.column("p_element")
        numbers = atoms.data["atom"].to_list()
        crystal = lattice.material
        hosts = crystal.hosts()
        alike = _alike(atoms, crystal)
        due = [a or d for a, d in zip(alike, due, strict=True)]
        for i, element in enumerate(atoms.elements):
            off = distance[i] > reach and not alike[i]
            # Where stackings change, so do the sites: there, no host is out of place. Nor is it
            # where lattice vectors lead to no others: a second grain is not full of defects.
            unclear = bool(crystal.polytypes) or (can_speak(crystal) and not alike[i])
            usual = element in hosts and (off or unclear or element == due[i])
            if p[i] < _LEAST or usual:
                continue
            x, y = (float(v) for v in atoms.xy[i])
            kind = f"{element}_ad" if off else f"{element}_{due[i]}"
            rows.append((kind, x, y, float(p[i]), [int(numbers[i])]))
    if not rows:
        return DefectTable.empty()
    kinds, x_A, y_A, p_all, members = zip(*rows, strict=True)
    n = len(rows)
    return DefectTable(
        pl.DataFrame(
            {
                "frame": [frame] * n, "defect": list(range(n)), "kind": kinds, "x_A": x_A,
                "y_A": y_A, "p": p_all, "atoms": members, "track": [-1] * n,
                "first_frame": [frame] * n, "origin": ["first seen"] * n,
                "p_beam_induced": [None] * n,
            }
        )
    )  # fmt: skip


def _alike(atoms: AtomTable, material: Material) -> list[str]:
    """What most of the columns are that lattice vectors lead to from each, "" where unknown."""
    out = [""] * len(atoms.data)
    if not can_speak(material):
        return out
    sure = np.flatnonzero(atoms.column("p_exists") > 0.5)
    kind, _ = sublattices(atoms.xy[sure], material)
    names = atoms.elements[sure]
    for k in np.unique(kind[kind >= 0]):
        mine = kind == k
        element, count = np.unique(names[mine], return_counts=True)
        for i in sure[mine]:
            out[int(i)] = str(element[count.argmax()])
    return out


def _due(lattice: Lattice, xy: FloatArray) -> tuple[list[str], FloatArray]:
    """What should stand at the site nearest to each place, and how far away it is, Å."""
    index, offset = lattice.nearest_site(lattice.undistort(xy))
    names = [lattice.material.site_species[int(k)] for k in index[:, 2]]
    return names, np.linalg.norm(offset, axis=1)
