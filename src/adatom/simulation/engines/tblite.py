"""GFN1-xTB in tblite: relaxations of all elements from H to Rn, without parameters to choose."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import importlib.util
import platform
import sys
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import Calculator
from ase.data import chemical_symbols

from adatom.core import Material, SimulationResult, SimulationTask
from adatom.simulation.engines.base import Task, not_installed
from adatom.simulation.engines.calculator import CalculatorEngine
from adatom.simulation.options import RelaxOptions
from adatom.simulation.prepare import classical_start
from adatom.simulation.relaxation import from_given_positions, relax_with_ase

# Least width of a cell in the plane, Å: seven cells of graphene are 14.9 Å wide. Measured energies
# of a perfect sheet at Γ, meV an atom from that of 7 x 7 cells: 258 in 3 x 3 cells, -13 in 4 x 4,
# 9 in 5 x 5, 30 in 6 x 6, 5 in 8 x 8.
_WIDTH_A = 14.0
_TRANSITION_METALS = [*range(21, 31), *range(39, 49), *range(57, 81)]
_A_SHEET_OF = 0.2  # share of metal atoms; impurities in a sheet are fewer
_RADON = 86  # the last element of GFN1-xTB: Grimme et al., J. Chem. Theory Comput. 13, 1989 (2017)


class TBLiteEngine(CalculatorEngine):
    """GFN1-xTB (Grimme, Bannwarth & Shushkov, J. Chem. Theory Comput. 13, 1989 (2017)).

    Γ point only: the cell should not be divisible by three along a lattice vector of graphene, and
    be seven cells or wider.
    """

    name = "gfn1-xtb"
    tasks: tuple[Task, ...] = ("relax", "dynamics")
    elements = "H to Rn"
    boundary = "periodic in three directions, Γ point alone"
    not_for = (
        "what needs k-points; sheets of transition metals; check energies of defects with a "
        "first-principles engine"
    )
    install = (
        "pip install tblite"
        if sys.platform == "darwin" or (sys.platform, platform.machine()) == ("linux", "x86_64")
        else "conda install -c conda-forge tblite-python"  # PyPI has no wheel for this system
    )
    covers = frozenset(chemical_symbols[1 : _RADON + 1])
    # eV: what the Γ point alone does to a formation energy in 7 x 7 cells of graphene: root mean
    # square of the differences in 10 x 10 cells: V1 -0.07, Stone-Wales -0.22, V2 -0.34.
    sampling_sd_eV = 0.24
    distribution = "tblite"
    starts_classically = True  # two structures with one classical minimum relax alike
    # Å, at the Γ point: flat sheets of 7 x 7 cells by `measure_lattice_constant_A`; 5 x 5 cells of
    # MoS2 relaxed with their plane. That is 4 % above experiment, and an S vacancy beside S8 costs
    # 0.33 eV there, some eV less than in DFT: `unfit` refuses such sheets.
    lattice_constants_A = {"graphene": 2.4566, "h-BN": 2.5036, "MoS2": 3.2831}  # noqa: RUF012

    def version(self) -> str:
        """Load tblite, and give its version."""
        load_tblite()
        return super().version()

    def unfit(self, atoms: ase.Atoms, material: Material) -> str:
        """Say that it does not hold sheets of transition metals."""
        del material
        metals = np.isin(atoms.numbers, _TRANSITION_METALS)
        if metals.mean() < _A_SHEET_OF:
            return ""
        return (
            f"{atoms.get_chemical_formula()} is a sheet of a transition metal: GFN1-xTB makes MoS2 "
            "4 % too long, and an S vacancy beside S8 costs 0.33 eV in it, some eV less than in DFT"
        )

    def label(self, symbols: Collection[str]) -> str:
        """Name of the method, and version of tblite."""
        del symbols
        return f"{self.name} (tblite {self.version()})"

    def calculator(
        self, atoms: ase.Atoms, options: RelaxOptions
    ) -> AbstractContextManager[Calculator]:
        """Give tblite's calculator; it reuses the wave function of the previous step."""
        del atoms
        return nullcontext(
            load_tblite()(
                method="GFN1-xTB",
                accuracy=options.accuracy,
                electronic_temperature=options.electronic_temperature_K,
                verbosity=0,
            )
        )

    def caution(self, atoms: ase.Atoms, material: Material) -> str:
        """Say that a cell is too small, or folds the Dirac point, for the Γ point alone."""
        vectors = atoms.cell.array[:2]
        lengths = np.linalg.norm(vectors, axis=1)
        width = float(np.linalg.norm(np.cross(*vectors)) / lengths.max())
        if width < _WIDTH_A:
            return (
                f"the cell of {atoms.get_chemical_formula()} is {width:.1f} Å wide, and "
                f"{self.name} samples the Γ point alone: below {_WIDTH_A:g} Å its energies and "
                "bonds are those of this cell, not of the sheet; take a wider one (for cells that "
                "adatom builds: `supercell.min_width_A`)"
            )
        # K lies on Γ if both vectors are n a1 + m a2 with n - m divisible by three. Then it also
        # divides their squared lengths n² + nm + m², in squares of the lattice constant.
        squares = np.round((lengths / material.lattice_constant_A) ** 2).astype(int)
        if _has_dirac_point(material) and not (squares % 3).any():
            return (
                f"the cell of {atoms.get_chemical_formula()} folds the Dirac point of "
                f"{material.name} onto Γ, where {self.name} finds no gap: its energies are off; "
                "use a number of cells that three does not divide"
            )
        return ""

    def relax(self, task: SimulationTask, options: RelaxOptions) -> SimulationResult:
        """Relax from the classical minimum; if that fails, from the given positions."""
        # The charges may diverge at the classical minimum: then the given positions are the start.
        classical = partial(classical_start, buckle=options.buckle)
        starts = (classical, from_given_positions) if options.prepare else (from_given_positions,)
        return relax_with_ase(self, task, options, starts=starts)


def _has_dirac_point(material: Material) -> bool:
    """Tell whether a sheet is a honeycomb of like atoms."""
    a, b = material.cell()
    lengths = np.linalg.norm([a, b], axis=1)
    hexagonal = np.isclose(*lengths) and np.isclose(abs(a @ b) / (a @ a), 0.5)
    return bool(hexagonal) and len(material.basis) == 2 and len(set(material.site_species)) == 1


@cache
def load_tblite() -> Any:
    """Load tblite's ASE calculator, after a fast BLAS if there is one.

    Returns
    -------
    The class ``tblite.ase.TBLite``.

    Raises
    ------
    EngineMissing
        If tblite is not installed or does not load.
    """
    if importlib.util.find_spec("tblite") is None:
        raise not_installed(TBLiteEngine.name, "it is not installed", TBLiteEngine.install)
    preload_fast_blas()
    try:
        return importlib.import_module("tblite.ase").TBLite
    except (ImportError, OSError) as error:
        raise not_installed(
            TBLiteEngine.name, f"it does not load: {error}", TBLiteEngine.install
        ) from error


@cache
def preload_fast_blas() -> str:
    """Load a fast BLAS and LAPACK, which then replace the reference library in tblite's wheel.

    The wheel is linked to the reference BLAS, where 112 atoms cost 6 s a step. The dynamic linker
    prefers a library that is already loaded globally, so a system OpenBLAS, MKL, or the MKL that
    PyTorch's wheel exports (a library file: PyTorch is not imported) brings that to 2 s with the
    same energies. Nothing happens without such a library, or on other systems than Linux.

    Returns
    -------
    Path of the library, or an empty string.
    """
    if not sys.platform.startswith("linux") or "tblite" in sys.modules:
        return ""
    for path in (
        ctypes.util.find_library("openblas"),
        ctypes.util.find_library("mkl_rt"),
        _torch(),
    ):
        try:
            library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL) if path else None
        except OSError:
            continue
        if path and library is not None and all(hasattr(library, f) for f in ("dgemm_", "dsyevd_")):
            return path
    return ""


def _torch() -> str | None:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "lib" / "libtorch_cpu.so"
    return str(path) if path.exists() else None


ENGINE = TBLiteEngine()
