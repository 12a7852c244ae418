"""Name the defects of a sheet of bonded atoms such as graphene.

Positions in a frame have errors of 0.05 to 0.2 Å, so bond lengths alone would mislead. Every host
atom is therefore assigned to a lattice site first. A foreign atom is named by the sites that it
replaces and by the sites next to those. Where no lattice holds, bond lengths and rings decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.core import AtomTable, DefectTable, EmptySites, Lattice, Material
from adatom.features.defects.base import DefectOptions, check_frame
from adatom.features.defects.clusters import name_clusters, name_clusters_by_bonds
from adatom.features.defects.frame_atoms import NamedDefect, occupy_sites, read_frame_atoms
from adatom.features.defects.host_defects import (
    name_ad_atoms,
    name_rings,
    name_rotated_bonds,
    name_vacancies,
)
from adatom.features.defects.sites import lattice_sites


@dataclass(frozen=True, slots=True)
class BondedSheetNamer:
    """Names clusters of foreign atoms, vacancies, rotated bonds, ad-atoms and odd rings.

    Foreign atoms that touch are one cluster, named by its atoms and the host atoms bonded to them:
    ``Si1C3``, ``Si1C4``, ``Si2C6``. Neighbouring empty sites are ``V1``, ``V2``, ...; a site that
    was not tested and shows no atom is empty with probability 0.5.
    """

    name: str = "bonded-sheet"

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

        Returns
        -------
        The defects. ``atoms`` lists the foreign or displaced atoms first, then the atoms bonded to
        them that were found.

        Raises
        ------
        BadInput
            If the table holds other frames.
        """
        check_frame(atoms, frame)
        if not len(atoms):
            return DefectTable.empty()
        view = read_frame_atoms(atoms, lattice, material, extent_xy_A, options)
        found: list[NamedDefect] = []
        crystal = None
        if lattice is None:
            foreign = np.flatnonzero(view.foreign)
            found += name_clusters_by_bonds(view, foreign, material, options)
        else:
            view, crystal = occupy_sites(view, lattice_sites(lattice, extent_xy_A), empty, options)
            found += name_clusters(view, crystal, material, options)
            found += name_rotated_bonds(view, crystal, found, options)
            found += name_vacancies(view, crystal, found, options)
            found += name_ad_atoms(view, crystal, options)
        if options.rings:
            found += name_rings(view, crystal, found, material, options)
        return DefectTable.build(
            frame=frame,
            kinds=[f.kind for f in found],
            xy=np.array([f.xy for f in found]).reshape(-1, 2),
            p=[f.p for f in found],
            atoms=[f.atoms for f in found],
            alternatives=[f.alternatives for f in found],
        )


NAMER = BondedSheetNamer()  # the object that the entry point names
