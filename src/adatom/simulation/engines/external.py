"""Engines that `adatom doctor` detects and that adatom cannot run yet.

They fit `ListedEngine` only and declare no tasks. A simulation with one of them is refused with the
names of engines that can do it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from dataclasses import dataclass

from adatom.simulation.engines.base import Status, Task

_NOTE = "adatom cannot run it yet"  # shown by `adatom doctor`


@dataclass(frozen=True)
class ExternalEngine:
    """A Python package or a program that is detected but not loaded.

    Parameters
    ----------
    name, elements, boundary, not_for, install, tasks
        As of `adatom.simulation.engines.base.ListedEngine`.
    package
        Python package to look for, or an empty string.
    distribution
        Name under which that package is installed.
    programs
        Programs to look for, any of them.
    """

    name: str
    elements: str
    boundary: str
    not_for: str
    install: str
    package: str = ""
    distribution: str = ""
    programs: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()

    def status(self) -> Status:
        """Look for the package or the programs."""
        if self.package and importlib.util.find_spec(self.package) is not None:
            try:
                version = importlib.metadata.version(self.distribution)
            except importlib.metadata.PackageNotFoundError:
                version = "unknown"
            return Status(installed=True, version=version, note=_NOTE)
        if any(shutil.which(program) for program in self.programs):
            return Status(installed=True, version="unknown", note=_NOTE)
        return Status(installed=False, note=_NOTE)


QUANTUM_ESPRESSO = ExternalEngine(
    name="quantum-espresso",
    elements="H to Rn",
    boundary="periodic in three directions",
    not_for="more than a few hundred atoms",
    install="apt-get install quantum-espresso quantum-espresso-data",
    programs=("pw.x",),
)
CP2K = ExternalEngine(
    name="cp2k",
    elements="H to Rn",
    boundary="periodic or open along each axis",
    not_for="more than a thousand atoms",
    install="apt-get install cp2k cp2k-data",
    programs=("cp2k", "cp2k.psmp", "cp2k.ssmp"),
)
CHGNET = ExternalEngine(
    name="chgnet",
    elements="H to Pu",
    boundary="periodic in three directions",
    not_for="defects in sheets, until it is compared with a first-principles engine there",
    install="pip install chgnet",
    package="chgnet",
    distribution="chgnet",
)
MACE = ExternalEngine(
    name="mace",
    elements="those of the model file",
    boundary="periodic or open along each axis",
    not_for="what the model file was not trained on",
    install="pip install mace-torch",
    package="mace",
    distribution="mace-torch",
)
