"""What lies near one defect: the periodic box, the atoms that were seen, and what is trusted."""

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

    min_width_A: float = Field(default=16.0, gt=4.0, description="shortest edge in the plane, Å")
    cell_height_A: float = Field(default=12.0, gt=5.0, description="period across the sheet, Å")
    defect_radius_A: float = Field(
        default=5.0,
        gt=0.0,
        description="observed atoms are kept within this distance of the defect, Å",
    )
    border_A: float = Field(
        default=1.0, ge=0.0, description="nearer to the frame's border no site counts as empty, Å"
    )
    match_A: float = Field(
        default=0.7, gt=0.0, description="farthest that an atom lies from its site, Å"
    )
    min_distance_A: float = Field(
        default=0.9, gt=0.0, description="nearest that two atoms may come, Å"
    )
    min_p_exists: float = Field(
        default=0.5,
        gt=0.0,
        le=1.0,
        description="atoms below this are left out of the probable structure",
    )
    foreign_height_A: float = Field(
        default=1.0, ge=0.0, description="foreign atoms start this high, Å"
    )
    ad_atom_height_A: float = Field(
        default=1.5, gt=0.0, description="an atom on no site of an ad-atom defect starts so high, Å"
    )
    sigma_z_foreign_A: float = Field(default=0.3, ge=0.0, description="spread of their height, Å")
    sigma_z_host_A: float = Field(default=0.05, ge=0.0, description="buckling of the sheet, Å")


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """A periodic rectangle of the crystal, centred on one site.

    Parameters
    ----------
    edges_A
        Shape (2,): edges, Å, along the first lattice vector and across it.
    sites
        Shape (site, 2): perfect positions in cell axes from the central site, Å, within half an
        edge of it.
    species
        Chemical symbol of every site.
    to_cell
        Shape (2, 2): ``cell = to_cell @ undistorted``, the rotation and the one flip of y.
    anchor_xy_A
        The central site in undistorted image axes, Å.
    """

    edges_A: FloatArray
    sites: FloatArray
    species: tuple[str, ...]
    to_cell: FloatArray
    anchor_xy_A: FloatArray

    def from_image(self, undistorted_xy: FloatArray) -> FloatArray:
        """Cell axes from the anchor, y up, of undistorted image positions (N, 2), Å."""
        out: FloatArray = (undistorted_xy - self.anchor_xy_A) @ self.to_cell.T
        return out

    def to_image(self, cell_xy: FloatArray) -> FloatArray:
        """Undistorted image positions of cell positions (N, 2), Å."""
        out: FloatArray = cell_xy @ self.to_cell + self.anchor_xy_A  # to_cell is orthogonal
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """The atoms near one defect, in cell axes: what a supercell is built from, or drawn from.

    Parameters
    ----------
    xy
        Shape (atom, 2), Å from the box's anchor, y up.
    covariance
        Shape (atom, 2, 2), Å², in the same axes.
    z
        Shape (atom,): height over the sheet, Å.
    elements
        Shape (atom,): chemical symbols.
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
    """One defect, ready to be turned into supercells.

    Parameters
    ----------
    lattice
        The crystal in the frame.
    box
        The periodic box around the defect.
    observed
        Every atom of the frame near the defect, improbable ones too.
    center
        Shape (2,): the defect's centre in cell axes, Å.
    trusted
        Shape (site,): True where the site lies well inside the frame.
    """

    lattice: Lattice
    box: Box
    observed: Observed
    center: FloatArray
    trusted: NDArray[np.bool_]
