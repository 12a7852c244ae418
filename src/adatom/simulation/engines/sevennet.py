"""SevenNet: the machine-learned potential 7net-l3i5, whose weights come with its package.

Park, Kim, Hwang & Han, J. Chem. Theory Comput. 20, 4857 (2024). 7net-l3i5 is trained on MPtrj, the
PBE relaxations of the Materials Project. Its weights are read without running anything that a file
may hold, and only if they are the ones that were tested.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import Calculator
from ase.data import chemical_symbols

from adatom.errors import EngineMissing
from adatom.simulation.engines.base import Task, not_installed
from adatom.simulation.engines.calculator import CalculatorEngine
from adatom.simulation.options import RelaxOptions

_WEIGHTS = "pretrained_potentials/SevenNet_l3i5/checkpoint_l3i5.pth"
_SHA256 = "a7ff190d41efe5b8317a03d20a468e4036a1a3e64e0b14fdbab64ac3f4bfc09d"  # of sevenn 0.13.0
# MPtrj has no Po, At, Rn, Fr and Ra; Pu is its last element.
_ABSENT = frozenset({"Po", "At", "Rn", "Fr", "Ra"})
_PLUTONIUM = 94


class SevenNetEngine(CalculatorEngine):
    """SevenNet with 7net-l3i5, on the processor."""

    name = "sevennet"
    tasks: tuple[Task, ...] = ("relax", "dynamics")
    elements = "H to Pu but Po, At, Rn, Fr, Ra"
    boundary = "periodic in three directions; any cell, its forces are short-ranged"
    not_for = "charge, magnetism and free atoms; check energies with a first-principles engine"
    install = "pip install sevenn"
    covers = frozenset(chemical_symbols[1 : _PLUTONIUM + 1]) - _ABSENT
    distribution = "sevenn"
    reference_cells = 1
    # Å, by `measure_lattice_constant_A`; a test repeats the measurement.
    lattice_constants_A = {  # noqa: RUF012
        "graphene": 2.4681,
        "h-BN": 2.5099,
        "MoS2": 3.1891,
        "MoSSe": 3.2551,
        "MoSe2": 3.3270,
        "WS2": 3.1906,
    }

    def version(self) -> str:
        """Version of the package, if it has the weights that were tested."""
        if importlib.util.find_spec("sevenn") is None:
            raise not_installed(self.name, "it is not installed", self.install)
        _weights()
        return super().version()

    def calculator(
        self, atoms: ase.Atoms, options: RelaxOptions
    ) -> AbstractContextManager[Calculator]:
        """Give SevenNet's calculator, the same for all structures of a process."""
        del atoms, options
        made = _calculator()
        made.reset()
        return nullcontext(made)


@cache
def _weights() -> Path:
    """File of the weights, checked against its hash.

    Raises
    ------
    EngineMissing
        If the package is not installed, or has other weights.
    """
    spec = importlib.util.find_spec("sevenn")
    if spec is None or spec.origin is None:
        raise not_installed(SevenNetEngine.name, "it is not installed", SevenNetEngine.install)
    path = Path(spec.origin).parent / _WEIGHTS
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "of no file"
    if found != _SHA256:
        raise EngineMissing(
            "engine sevennet",
            expected=f"its weights {path.name} with SHA-256 {_SHA256[:12]}…",
            got=f"other weights: {path.name} with SHA-256 {found[:12]}…",
            todo="Install the version that adatom is tested with: pip install sevenn==0.13.0",
        )
    return path


@cache
def _calculator() -> Any:
    """Build the model from its weights, 3 s; nothing is unpickled but arrays of numbers."""
    torch, checkpoint = map(importlib.import_module, ("torch", "sevenn.checkpoint"))
    rebuild = np.asarray(0).__reduce__()[0]  # how NumPy rebuilds an array
    arrays = [
        (rebuild, "numpy.core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        type(np.dtype(np.float32)),
        type(np.dtype(np.float64)),
    ]

    class Checkpoint(checkpoint.SevenNetCheckpoint):  # type: ignore[misc, name-defined]
        """SevenNet's checkpoint, read by torch's loader of plain values."""

        def _load(self) -> None:
            with torch.serialization.safe_globals(arrays):
                read = torch.load(self.checkpoint_path, weights_only=True, map_location="cpu")
            self._model_state_dict = read["model_state_dict"]
            # As in the original: old names of options, and defaults of those that came later.
            self._config = checkpoint._config_cp_routine(read["config"])  # noqa: SLF001
            self._epoch, self._loaded = read["epoch"], True

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that kernels for graphics cards are absent
        model = Checkpoint(_weights()).build_model()
        return importlib.import_module("sevenn.calculator").SevenNetCalculator(
            model, file_type="model_instance", device="cpu"
        )


ENGINE = SevenNetEngine()
