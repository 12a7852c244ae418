"""A defect namer: atoms far from every neighbour, named ``other-stray``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from adatom.core import AtomTable, DefectTable, EmptySites, Lattice, Material, Other, Vacancy
from adatom.features.defects.base import DefectOptions

FAR_BONDS = 1.5  # bond lengths: farther from its nearest neighbour an atom is stray


@dataclass(frozen=True)
class StrayNamer:
    """Names likely atoms without a near neighbour, and empty sites."""

    name: str = "stray-atoms"

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
        """Name the defects of one frame; see `DefectNamer.name_defects`."""
        rows = np.flatnonzero(atoms.is_likely)
        if len(rows) > 1:
            nearest = cKDTree(atoms.xy[rows]).query(atoms.xy[rows], k=2)[0][:, 1]
            rows = rows[nearest > FAR_BONDS * material.bond_length_A]
        gone = np.flatnonzero(empty.p >= options.minimum_p)
        numbers = atoms.data["atom"].to_list()
        return DefectTable.build(
            frame=frame,
            kinds=[*(Vacancy(1) for _ in gone), *(Other("stray") for _ in rows)],
            xy=np.concatenate([empty.xy[gone], atoms.xy[rows]]),
            p=[*empty.p[gone], *atoms.column("p_exists")[rows]],
            atoms=[*([] for _ in gone), *([int(numbers[i])] for i in rows)],
        )


NAMER = StrayNamer()
