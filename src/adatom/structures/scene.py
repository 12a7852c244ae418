"""The surroundings of one defect: periodic box, observed atoms, and sites inside the frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from adatom.core.arrays import FloatArray
from adatom.core.lattice import Lattice


class SupercellOptions(BaseModel):
    """How to build a supercell; lengths in Å."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_width_A: float = Field(
        default=15.5, gt=4.0, description="shortest distance in the plane between two copies, Å"
    )
    min_separation_A: float = Field(
        default=10.0,
        gt=0.0,
        description="least distance between a defect's atoms and those of its copies, Å",
    )
    cell_height_A: float = Field(default=20.0, ge=8.0, description="least period across a sheet, Å")
    min_vacuum_A: float = Field(default=15.0, ge=4.0, description="least vacuum over a sheet, Å")
    min_depth_A: float = Field(
        default=10.0, gt=0.0, description="least period along the beam of a crystal in columns, Å"
    )
    defect_radius_A: float = Field(
        default=5.0,
        gt=0.0,
        description="observed atoms are kept within this distance of the defect, Å",
    )
    core_radius_A: float = Field(
        default=3.0,
        gt=0.0,
        description="up to here they keep their places; beyond, these approach the crystal's, Å",
    )
    border_A: float = Field(
        default=1.0,
        ge=0.0,
        description="a site nearer than this to the frame's border is never a vacancy, Å",
    )
    flake_radius_A: float = Field(
        default=8.0, gt=4.0, description="radius of a flake, where no periodic cell fits, Å"
    )
    match_A: float = Field(
        default=0.7, gt=0.0, description="largest distance of an atom from its site, Å"
    )
    min_distance_A: float = Field(
        default=0.9, gt=0.0, description="smallest allowed distance of two atoms, Å"
    )
    min_p_exists: float = Field(
        default=0.5,
        gt=0.0,
        le=1.0,
        description="atoms below this are left out of the most probable structure",
    )
    foreign_height_A: float = Field(
        default=1.0, ge=0.0, description="starting height of impurity atoms above the sheet, Å"
    )
    ad_atom_height_A: float = Field(
        default=1.5, gt=0.0, description="starting height of an ad-atom above the sheet, Å"
    )
    sigma_z_foreign_A: float = Field(
        default=0.3, ge=0.0, description="standard deviation of the height of impurity atoms, Å"
    )
    sigma_z_host_A: float = Field(
        default=0.05, ge=0.0, description="standard deviation of the height of host atoms, Å"
    )


@dataclass(frozen=True, slots=True)
class Stack:
    """The atoms of one column of the perfect crystal, in cell axes.

    Parameters
    ----------
    label
        The column's label in the material.
    symbols
        Chemical symbols, by rising height; along the beam those of all periods in the cell.
    heights_A
        Their heights, Å.
    units
        How often the atoms of the label stand in it.
    visible
        Whether the material's images show it.
    """

    label: str
    symbols: tuple[str, ...]
    heights_A: tuple[float, ...]
    units: int = 1
    visible: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """A periodic cell of the crystal, centred on one site.

    Parameters
    ----------
    vectors
        Shape (3, 3): cell vectors as rows, Å, right-handed; the first along x, the third along z.
    sites
        Shape (site, 2): columns of the perfect crystal relative to the central site, in cell
        axes, Å, each at its copy nearest to the centre.
    stacks
        The atoms of every column.
    to_cell
        Shape (2, 2): ``cell = to_cell @ undistorted``, the rotation and the flip of y.
    anchor_xy_A
        The central site in undistorted image axes, Å.
    is_sheet
        Whether there is vacuum along z.
    """

    vectors: FloatArray
    sites: FloatArray
    stacks: tuple[Stack, ...]
    to_cell: FloatArray
    anchor_xy_A: FloatArray
    is_sheet: bool

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Shape (site,): whether the material's images show the column."""
        return np.array([stack.visible for stack in self.stacks])

    @property
    def half_thickness_A(self) -> float:
        """Half of a sheet's thickness, Å."""
        return max(abs(z) for stack in self.stacks for z in stack.heights_A)

    def from_image(self, undistorted_xy: FloatArray) -> FloatArray:
        """Convert undistorted image positions (N, 2), Å, to cell axes (anchor at 0, y up)."""
        out: FloatArray = (undistorted_xy - self.anchor_xy_A) @ self.to_cell.T
        return out

    def to_image(self, cell_xy: FloatArray) -> FloatArray:
        """Convert positions in cell axes (N, 2), Å, to undistorted image positions."""
        out: FloatArray = cell_xy @ self.to_cell + self.anchor_xy_A  # to_cell is orthogonal
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """The observed atoms near one defect, in cell axes.

    Parameters
    ----------
    xy
        Shape (atom, 2), Å from the box's anchor, y up.
    covariance
        Shape (atom, 2, 2), Å², in the same axes.
    z
        Shape (atom,): height above the place that the crystal has for it, Å.
    elements
        Shape (atom,): labels, chemical symbols or formulas of columns.
    p_exists, p_element
        Shape (atom,): probabilities.
    number
        Shape (atom,): number in the frame's atom table.
    """

    xy: FloatArray
    covariance: FloatArray
    z: FloatArray
    elements: NDArray[np.str_]
    p_exists: FloatArray
    p_element: FloatArray
    number: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.xy)

    def take(self, keep: NDArray[np.bool_]) -> Observed:
        """Select atoms, shape (atom,)."""
        return Observed(
            self.xy[keep],
            self.covariance[keep],
            self.z[keep],
            self.elements[keep],
            self.p_exists[keep],
            self.p_element[keep],
            self.number[keep],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One defect with everything that a supercell of it needs.

    Parameters
    ----------
    lattice
        The crystal in the frame.
    box
        The periodic box around the defect.
    observed
        Every atom of the frame near the defect, also those with a low ``p_exists``.
    center
        Shape (2,): the defect's centre in cell axes, Å.
    trusted
        Shape (site,): True where the site lies inside the frame by more than ``border_A``.
    p_empty
        Shape (site,): probability that there is no atom.
    others
        Other defects of the frame inside the box, in words: the supercell has crystal there.
    """

    lattice: Lattice
    box: Box
    observed: Observed
    center: FloatArray
    trusted: NDArray[np.bool_]
    p_empty: FloatArray
    others: tuple[str, ...]
