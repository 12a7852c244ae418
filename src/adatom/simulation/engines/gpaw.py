"""GPAW: density-functional theory, in a process of its own.

Mortensen, Larsen, Kuisma et al., J. Chem. Phys. 160, 092503 (2024). GPAW may be installed beside
adatom or in another Python, such as Debian's: ``ADATOM_GPAW_PYTHON`` names that, and
``/usr/bin/python3`` is tried. `gpaw_worker` runs there and answers in lines of JSON.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import ase
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_numbers
from ase.neighborlist import natural_cutoffs, neighbor_list

from adatom.core.arrays import FloatArray
from adatom.errors import StepFailed
from adatom.simulation.engines.base import not_installed
from adatom.simulation.engines.calculator import CalculatorEngine
from adatom.simulation.engines.lines import LinesWorker, clean_environment
from adatom.simulation.options import RelaxOptions

_WORKER = Path(__file__).with_name("gpaw_worker.py")
_OTHER_PYTHON = "/usr/bin/python3"  # where Debian's package of GPAW is installed
_PYTHON_VARIABLE = "ADATOM_GPAW_PYTHON"
# Setups of gpaw-setups 0.9.20000 that have a double-zeta polarised basis.
_ELEMENTS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba Hf Ta W Re Os Ir Pt Au Hg Tl Pb "
    "Bi Rn"
)
# Spacing of k-points, 1/Å: 12 along graphene's cell, 2 along seven of them.
_K_SPACING_PER_A = 0.25
_OPEN_SHELL = ("Cr", "Mn", "Fe", "Co", "Ni", "V", "Ti")  # atoms with a moment in most surroundings
_START_MOMENT_uB = 1.0  # of an atom with a dangling bond; the calculation finds the true one
_MOST_ATOMS = 300  # of a structure that it is fit for
_GAP_A = 4.0  # Å without atoms across a cell vector: no k-points along it


@dataclass(frozen=True, slots=True)
class _Scf:
    """Settings of the self-consistency, and what they are called in a result."""

    name: str
    smearing_eV: float = 0.1
    mixing: float | None = None  # GPAW's own by default
    maxiter: int = 200


# Tried in this order where the self-consistency does not converge; each is kept in the result.
FALLBACKS = (
    _Scf("standard"),
    _Scf("mixing 0.02, 500 iterations", mixing=0.02, maxiter=500),
    _Scf("mixing 0.02, smearing 0.3 eV, 500 iterations", 0.3, 0.02, 500),
)


class GpawEngine(CalculatorEngine):
    """PBE in GPAW, with a double-zeta polarised basis or in plane waves."""

    boundary = "periodic in three directions; k-points by density"
    not_for = "more than a few hundred atoms; dispersion forces between layers (PBE has none)"
    elements = "H to Rn without Tc, lanthanides, Po, At"
    install = "apt-get install gpaw gpaw-data"
    covers = frozenset(_ELEMENTS.split())
    distribution = "gpaw"
    reference_cells = 1

    def __init__(self, name: str, mode: Literal["lcao", "pw"], constants: dict[str, float]) -> None:
        self.name, self._mode = name, mode
        self.lattice_constants_A = constants

    def version(self) -> str:
        """Version of the GPAW that is found."""
        return find_gpaw()[1]

    def unfit(self, atoms: ase.Atoms, material: Any) -> str:
        """Say that a structure is too large to end within days."""
        del material
        if len(atoms) <= _MOST_ATOMS:
            return ""
        return f"{len(atoms)} atoms: a step of more than {_MOST_ATOMS} takes hours on a workstation"

    def label(self, symbols: Any) -> str:
        """Version, functional and basis."""
        del symbols
        basis = "PBE, dzp" if self._mode == "lcao" else "PBE, plane waves 400 eV"
        return f"gpaw {self.version()} ({basis})"

    @contextmanager
    def calculator(self, atoms: ase.Atoms, options: RelaxOptions) -> Iterator[Calculator]:
        """Start a worker process, and end it with the context, whatever happens."""
        python, _ = find_gpaw()
        deadline = time.perf_counter() + options.max_seconds
        with LinesWorker([python, str(_WORKER)], self.name, deadline) as worker:
            worker.answer()  # it is ready
            yield GpawCalculator(worker, atoms, self._mode)


class GpawCalculator(Calculator):
    """GPAW in a worker as an ASE calculator.

    Parameters
    ----------
    worker
        It runs `gpaw_worker`.
    atoms
        Structure, for k-points and start moments.
    mode
        ``lcao`` or ``pw``.

    Attributes
    ----------
    notes
        K-points, moment, and every fall-back of the self-consistency, in words.
    """

    implemented_properties = ["energy", "forces", "magmom", "magmoms"]  # noqa: RUF012 (ASE's)

    def __init__(self, worker: LinesWorker, atoms: ase.Atoms, mode: str) -> None:
        super().__init__()
        self._worker, self._mode = worker, mode
        self._kpts, self._moments = k_points(atoms), start_moments(atoms)
        self._scf = FALLBACKS[0]
        self._fell_back: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """What the result should say of the calculation."""
        by = " x ".join(map(str, self._kpts))
        out = [f"k-points {by}", *self._fell_back]
        if "magmom" in self.results:
            out.append(f"moment {self.results['magmom']:.2f} µB")
        return tuple(out)

    def calculate(
        self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes
    ) -> None:
        """Evaluate energy, forces and moments; fall back where they do not converge."""
        super().calculate(atoms, properties, system_changes)
        answer: dict[str, Any] = {}
        for scf in FALLBACKS[FALLBACKS.index(self._scf) :]:
            self._scf = scf
            answer = self._worker.ask(self._request(atoms, scf))
            if answer.get("error") not in ("KohnShamConvergenceError", "ConvergenceError"):
                break
            self._fell_back.append(f"self-consistency not reached with {scf.name}")
        if "error" in answer:
            raise StepFailed(
                "GPAW",
                expected="a self-consistent energy",
                got=f"{answer['error']}: {answer['message'].splitlines()[0]}",
                todo="Look at the structure: atoms may be too close together.",
            )
        self.results = {
            "energy": answer["energy"],
            "free_energy": answer["energy"],
            "forces": np.array(answer["forces"]),
        }
        if "magmom" in answer:
            self.results |= {
                "magmom": answer["magmom"],
                "magmoms": np.array(answer["magmoms"]),
            }

    def _request(self, atoms: ase.Atoms, scf: _Scf) -> dict[str, Any]:
        return {
            "numbers": atoms.numbers.tolist(),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist(),
            "pbc": [bool(each) for each in atoms.pbc],
            "magmoms": None if self._moments is None else self._moments.tolist(),
            "parameters": {
                "mode": self._mode,
                "xc": "PBE",
                "kpts": list(self._kpts),
                "smearing_eV": scf.smearing_eV,
                "mixing": scf.mixing,
                "maxiter": scf.maxiter,
                "spacing_A": 0.2,
                "cutoff_eV": 400.0,
            },
        }


def k_points(atoms: ase.Atoms, spacing_per_A: float = _K_SPACING_PER_A) -> tuple[int, int, int]:
    """Choose the k-points of a cell by their density; one along a vector with vacuum.

    Parameters
    ----------
    atoms
        Periodic; Å.
    spacing_per_A
        Largest distance of neighbouring k-points, 1/Å.

    Examples
    --------
    >>> from ase.build import graphene
    >>> k_points(graphene(size=(1, 1, 1), vacuum=8.0)), k_points(graphene(size=(7, 7, 1), vacuum=8))
    ((12, 12, 1), (2, 2, 1))
    """
    lengths = 2.0 * np.pi * np.linalg.norm(atoms.cell.reciprocal().array, axis=1)
    counts = []
    for axis in range(3):
        fraction = np.sort(atoms.get_scaled_positions()[:, axis] % 1.0)
        gap_A = np.diff(fraction, append=fraction[0] + 1.0).max() * 2.0 * np.pi / lengths[axis]
        # The widest gap between atoms in a crystal is a bond length or two.
        vacuum = not atoms.pbc[axis] or (len(atoms) > 1 and gap_A > 2.0 * _GAP_A)
        counts.append(1 if vacuum else max(1, int(np.ceil(lengths[axis] / spacing_per_A - 1e-6))))
    return counts[0], counts[1], counts[2]


def start_moments(atoms: ase.Atoms) -> FloatArray | None:
    """Start moments of a spin-polarised calculation, µB; None where none is called for.

    A calculation is spin-polarised if an atom has no neighbours, or fewer than most of its element
    (a dangling bond), is of an element with an open d shell, or the number of electrons is odd.

    Parameters
    ----------
    atoms
        Periodic; Å.

    Returns
    -------
    Shape (atom,).

    Examples
    --------
    >>> from ase.build import graphene
    >>> sheet = graphene(size=(4, 4, 1), vacuum=8.0)
    >>> start_moments(sheet) is None
    True
    >>> del sheet[0]
    >>> float(start_moments(sheet).sum())
    3.0
    """
    cutoffs = natural_cutoffs(atoms, mult=1.15)
    count = np.bincount(neighbor_list("i", atoms, cutoffs), minlength=len(atoms))
    odd = bool(atoms.numbers.sum() % 2)
    moments = np.full(len(atoms), 0.1 if odd else 0.0)
    for symbol in set(atoms.get_chemical_symbols()):
        own = atoms.numbers == atomic_numbers[symbol]
        usual = np.bincount(count[own]).argmax()
        moments[own & ((count < usual) | (count == 0))] = _START_MOMENT_uB
        if symbol in _OPEN_SHELL:
            moments[own] = _START_MOMENT_uB
    return moments if moments.any() else None


@cache
def find_gpaw() -> tuple[str, str]:
    """Find a Python that has GPAW: this one, that of ``ADATOM_GPAW_PYTHON``, or the system's.

    Returns
    -------
    Path of the Python, and the version of its GPAW.

    Raises
    ------
    EngineMissing
        If none has it.
    """
    given = os.environ.get(_PYTHON_VARIABLE)
    for python in [given] if given else [sys.executable, _OTHER_PYTHON]:
        try:
            asked = subprocess.run(  # noqa: S603 (a Python that the user named, or the system's)
                [python, "-c", "import gpaw; print(gpaw.__version__)"],
                capture_output=True,
                text=True,
                timeout=60,
                env=clean_environment(python),
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if asked.returncode == 0:
            return python, asked.stdout.split()[-1]
    raise not_installed("gpaw", "no Python that has it", GpawEngine.install)


# Å, by `measure_lattice_constant_A`.
GPAW = GpawEngine("gpaw", "lcao", {"graphene": 2.4745})
GPAW_PW = GpawEngine("gpaw-pw", "pw", {})
