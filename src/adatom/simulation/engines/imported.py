"""Any ASE calculator by its import path: ``my_module:make_calculator`` in the place of a name.

The path names a class or a function of a module that Python can import. Called without arguments
it gives an ASE calculator (eV, eV/Å). Every structure gets a calculator of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import ase
from ase.calculators.calculator import Calculator
from ase.data import chemical_symbols

from adatom.errors import AdatomError, EngineMissing, StepFailed
from adatom.simulation.engines.base import Task
from adatom.simulation.engines.calculator import CalculatorEngine
from adatom.simulation.options import RelaxOptions


class ImportedEngine(CalculatorEngine):
    """The engine of one import path.

    adatom knows nothing of its fitness: it asks the calculator, and reports what that refuses.

    Parameters
    ----------
    path
        ``module:name``; the name may have dots.
    """

    tasks: tuple[Task, ...] = ("relax", "dynamics")
    elements = "those that its calculator accepts"
    boundary = "those of its calculator; cells are periodic in three directions"
    not_for = "what its authors say: adatom does not know this calculator"
    covers = frozenset(chemical_symbols[1:])

    def __init__(self, path: str) -> None:
        self.name = path
        self.install = f"put the module {path.partition(':')[0]} on PYTHONPATH"

    def version(self) -> str:
        """Import the module, and give its version or that of its package."""
        make = self._factory()
        package = str(getattr(make, "__module__", None) or self.name).partition(".")[0]
        own = getattr(importlib.import_module(package), "__version__", None)
        return str(own) if own is not None else "unknown"

    @contextmanager
    def calculator(self, atoms: ase.Atoms, options: RelaxOptions) -> Iterator[Calculator]:
        """Make a calculator; whatever it raises is reported as the failure of a step."""
        del atoms, options
        make = self._factory()
        calculator = None
        try:
            calculator = make()
            yield calculator
        except AdatomError:
            raise
        except Exception as error:
            raise StepFailed(
                f"engine {self.name}",
                expected="a calculator that gives energy and forces",
                got=f"{type(error).__name__}: {error}",
                todo="Correct the calculator, or name another engine.",
            ) from error
        finally:
            close = getattr(calculator, "close", None)
            if callable(close):
                close()

    def _factory(self) -> Callable[[], Any]:
        module, _, name = self.name.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise self._missing(f"{type(error).__name__}: {error}") from error
        if not callable(found):
            raise self._missing(f"{type(found).__name__}, which cannot be called")
        make: Callable[[], Any] = found
        return make

    def _missing(self, got: str) -> EngineMissing:
        return EngineMissing(
            f"engine {self.name}",
            expected="module:name of a class or function that gives an ASE calculator",
            got=got,
            todo=f"Correct the path, or {self.install}.",
        )


@cache
def imported_engine(path: str) -> ImportedEngine:
    """Give the engine of an import path; nothing is imported before it is used.

    Parameters
    ----------
    path
        ``module:name``.

    Examples
    --------
    >>> imported_engine("ase.calculators.emt:EMT").status().installed
    True
    """
    return ImportedEngine(path)
