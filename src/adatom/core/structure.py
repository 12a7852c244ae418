"""A supercell, with the source of each atom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """A periodic supercell with the source and uncertainty of every atom.

    The cell is right-handed with z up; y runs opposite to the frame's rows.

    Parameters
    ----------
    atoms
        Copied in, and copied out by `to_ase`; positions in Å.
    name
        Unique name, such as ``Si3C6-f012-d02``.
    kind
        Kind of the defect in it.
    frame
        Frame that it was built from.
    defect
        Number of the defect in that frame, -1 for none.
    draw
        Number of the draw from the uncertainty, -1 for the most probable structure.
    source_atom
        Shape (atom,): number in that frame's atom table; -1 for an atom of the perfect lattice.
    sigma_A
        Shape (atom, 3): standard deviation of every coordinate, Å.
    fixed
        Shape (atom,): True where the atom must not move.
    """

    atoms: ase.Atoms
    name: str
    kind: str
    frame: int
    defect: int
    draw: int
    source_atom: NDArray[np.int64]
    sigma_A: NDArray[np.float64]
    fixed: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n = len(self.atoms)
        for label, array, shape in (
            ("source_atom", self.source_atom, (n,)),
            ("sigma_A", self.sigma_A, (n, 3)),
            ("fixed", self.fixed, (n,)),
        ):
            if array.shape != shape:
                raise ValueError(f"{label}: expected shape {shape}, got {array.shape}")
        object.__setattr__(self, "atoms", self.atoms.copy())

    @property
    def weight(self) -> float:
        """Importance weight of the draw among those of its defect; NaN if it has none."""
        return float(self.atoms.info.get("weight", np.nan))

    def to_ase(self) -> ase.Atoms:
        """Copy out as `ase.Atoms`, with ``source_atom`` and ``sigma`` as arrays.

        Fixed atoms are constrained by `ase.constraints.FixAtoms`, which extended XYZ keeps as
        ``move_mask``. The identity (name, kind, frame, defect, draw) travels in ``info``;
        `from_ase` reads it.
        """
        atoms: ase.Atoms = self.atoms.copy()
        atoms.set_array("source_atom", self.source_atom.astype(np.int64))
        atoms.set_array("sigma", self.sigma_A.astype(np.float64))
        if self.fixed.any():
            from ase.constraints import FixAtoms  # imports ASE's crystallography

            atoms.set_constraint([*atoms.constraints, FixAtoms(mask=self.fixed)])
        atoms.info.update(
            name=self.name,
            kind=self.kind,
            frame=int(self.frame),
            defect=int(self.defect),
            draw=int(self.draw),
        )
        return atoms

    @classmethod
    def from_ase(cls, atoms: ase.Atoms) -> Structure:
        """Read what `to_ase` wrote; any other `ase.Atoms` becomes a structure without a source.

        Atoms are fixed where a constraint fixes all their coordinates (``FixAtoms``, or a
        ``move_mask`` of extended XYZ). Other constraints stay in `atoms`.
        """
        n = len(atoms)
        fixed, others = _fixed_atoms(atoms)
        arrays, info = atoms.arrays, atoms.info
        bare = atoms.copy()
        bare.set_constraint(others)
        for extra in ("source_atom", "sigma", "fixed"):
            bare.arrays.pop(extra, None)
        return cls(
            atoms=bare,
            name=str(info.get("name", atoms.get_chemical_formula())),
            kind=str(info.get("kind", "given")),
            frame=int(info.get("frame", -1)),
            defect=int(info.get("defect", -1)),
            draw=int(info.get("draw", -1)),
            source_atom=np.asarray(arrays.get("source_atom", np.full(n, -1)), dtype=np.int64),
            sigma_A=np.asarray(arrays.get("sigma", np.zeros((n, 3))), dtype=np.float64),
            fixed=fixed | np.asarray(arrays.get("fixed", np.zeros(n)), dtype=np.bool_),
        )


def _fixed_atoms(atoms: ase.Atoms) -> tuple[NDArray[np.bool_], list[Any]]:
    """Mark the atoms that constraints fix, shape (atom,), and list the constraints that do not."""
    fixed = np.zeros(len(atoms), dtype=np.bool_)
    others: list[Any] = []
    if not atoms.constraints:
        return fixed, others
    from ase.constraints import FixAtoms, FixCartesian, FixScaled

    for constraint in atoms.constraints:
        whole = isinstance(constraint, FixAtoms) or (
            isinstance(constraint, (FixCartesian, FixScaled)) and bool(np.all(constraint.mask))
        )
        if whole:
            fixed[constraint.get_indices()] = True
        else:
            others.append(constraint)
    return fixed, others
