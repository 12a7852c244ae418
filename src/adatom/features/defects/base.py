"""What every defect namer does, and the options of those that come with adatom."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from adatom.core import AtomTable, DefectTable, EmptySites, Lattice, Material
from adatom.errors import BadInput


class DefectOptions(BaseModel):
    """Thresholds and prior probabilities of defects."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    border_A: float = Field(default=1.5, ge=0.0, description="Ignored margin of the frame, Å")
    minimum_p: float = Field(default=0.5, ge=0.0, le=1.0, description="Least probability")
    site_tolerance_A: float = Field(default=0.75, gt=0.0, description="Atom from its site, Å")
    displaced_A: float = Field(default=1.4, gt=0.0, description="Stray atom from a free site, Å")
    cluster_distance_A: float = Field(default=2.7, gt=0.0, description="Atoms in a cluster, Å")
    relaxation_A: float = Field(default=0.2, gt=0.0, description="Shift of a foreign atom, Å")
    seen_share: float = Field(default=0.97, gt=0.5, lt=1.0, description="Host atoms found")
    false_share: float = Field(default=0.05, gt=0.0, lt=0.5, description="Found where none is")
    vacancy_share: float = Field(default=0.01, gt=0.0, lt=0.5, description="Prior, empty site")
    replaced_share: float = Field(
        default=1e-3, gt=0.0, lt=0.5, description="Prior, column of another element (columns)"
    )
    rotated_share: float = Field(default=1e-4, gt=0.0, lt=0.5, description="Prior, rotated bond")
    rings: bool = Field(default=True, description="Look for rings of the wrong size")
    column_tolerance_bonds: float = Field(
        default=0.35, gt=0.0, description="Column from its site, bond lengths (columns)"
    )
    column_minimum_p: float = Field(
        default=0.05, ge=0.0, le=1.0, description="Least probability of a defect (columns)"
    )


@runtime_checkable
class DefectNamer(Protocol):
    """Names the defects of one frame; registered in the group ``adatom.defect_namers``.

    A material says by `Material.defect_namer` which one names its defects.
    `adatom.conformance.defect_namers.check_defect_namer` checks one.
    """

    @property
    def name(self) -> str:
        """Name under which it is registered, such as ``bonded-sheet``."""

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
        """Name the defects of one frame.

        Parameters
        ----------
        atoms
            Atoms of the frame, measured axes.
        lattice
            Lattice fitted to them; None where none fits.
        material
            The crystal.
        extent_xy_A
            Far corner x, y of the frame, Å, measured axes.
        empty
            Sites that were tested, and the probability that each is empty. Sites that are not
            among them were not tested.
        frame
            Number of the frame.
        options
            Thresholds.

        Returns
        -------
        Defects in measured axes; ``p`` is the probability that the defect is there and is of its
        kind.

        Raises
        ------
        BadInput
            If the table holds other frames.
        """


def check_frame(atoms: AtomTable, frame: int) -> None:
    """Make sure that all atoms are of one frame.

    Raises
    ------
    BadInput
        If there are atoms of another frame.
    """
    if not set(atoms.frames) <= {frame}:
        raise BadInput(
            "atom table",
            expected=f"the atoms of one frame, {frame}",
            got="frames " + ", ".join(str(i) for i in atoms.frames),
            todo="Take one with AtomTable.of_frame.",
        )
