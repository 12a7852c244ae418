"""Structures and trajectories as extended XYZ, which ASE and most viewers can open.

ASE's reader guesses types: it reads a name ``007`` as 7 and ``5,7`` as an array, and a backslash or
a newline breaks the line. Values that would change are stored as JSON in one more entry of the
comment line, ``adatom_info``. Files without such values do not have this entry.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from ase import units
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict, per_config_properties

from adatom.core import Structure
from adatom.store.atomic import atomic_file, file_hash, reading

_EXTRA = "adatom_info"  # key of that entry
_VELOCITY = "velo"  # velocities, Å/fs, by the name that OVITO and libAtoms know
# Keys of the format itself, and keys that ASE's reader moves from ``info`` to a calculator.
_RESERVED = {"lattice", "properties", "pbc", "virial", _EXTRA, *per_config_properties}


def write_structures(path: str | Path, structures: Iterable[Structure]) -> str:
    """Write structures to one extended XYZ file; positions in Å to 1e-8.

    Parameters
    ----------
    path
        The file.
    structures
        Structures, with their provenance and uncertainty.

    Returns
    -------
    `file_hash` of the file, for the ledger.

    Raises
    ------
    BadInput
        If the path cannot be written.
    StepFailed
        If the disk is full.
    TypeError
        If a structure carries information that is neither text nor numbers.
    """
    return write_trajectory(path, [s.to_ase() for s in structures])


def read_structures(path: str | Path) -> list[Structure]:
    """Read structures; those of other programs have no source frame.

    Raises
    ------
    BadInput
        If the file is missing.
    StepFailed
        If it is damaged.
    """
    frames = read_trajectory(path)
    with reading(Path(path), "file of structures"):
        return [Structure.from_ase(atoms) for atoms in frames]


def write_trajectory(path: str | Path, trajectory: Iterable[ase.Atoms]) -> str:
    """Write geometries to one extended XYZ file, with stored energies and forces.

    Parameters
    ----------
    path
        The file.
    trajectory
        Geometries in Å, first to last. Those with momenta get a column ``velo``, Å/fs.

    Returns
    -------
    `file_hash` of the file, for the ledger.

    Raises
    ------
    BadInput
        If the path cannot be written.
    StepFailed
        If the disk is full.
    TypeError
        If a geometry carries information that is neither text nor numbers.
    """
    path = Path(path)
    text = io.StringIO(newline="\n")
    for atoms in trajectory:
        ase.io.write(text, _guarded(_with_velocities(atoms)), format="extxyz")
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
    return file_hash(path)


def read_trajectory(path: str | Path) -> tuple[ase.Atoms, ...]:
    """Read geometries, first to last.

    Raises
    ------
    BadInput
        If the file is missing.
    StepFailed
        If it is damaged.
    """
    path = Path(path)
    with reading(path, "extended XYZ file"):
        text = path.read_bytes().decode()
        if not text:
            return ()
        frames = ase.io.read(io.StringIO(text), index=":", format="extxyz")
        return tuple(_unguarded(atoms) for atoms in frames)


def _with_velocities(atoms: ase.Atoms) -> ase.Atoms:
    """Give a copy with the column that other programs know; ASE's reader needs the momenta."""
    if not atoms.has("momenta") or _VELOCITY in atoms.arrays:
        return atoms
    out: ase.Atoms = atoms.copy()
    out.calc = atoms.calc
    out.set_array(_VELOCITY, atoms.get_velocities() * units.fs)
    return out


def _guarded(atoms: ase.Atoms) -> ase.Atoms:
    lost = {k: v for k, v in atoms.info.items() if not _survives(k, v)}
    if not lost:
        return atoms
    out: ase.Atoms = atoms.copy()
    out.calc = atoms.calc
    for key in lost:
        del out.info[key]
    # ASE's reader treats every backslash as an escape, but its writer escapes none: double them.
    out.info[_EXTRA] = json.dumps({k: _jsonable(v) for k, v in lost.items()}).replace("\\", "\\\\")
    return out


def _unguarded(atoms: ase.Atoms) -> ase.Atoms:
    if atoms.has("momenta"):
        atoms.arrays.pop(_VELOCITY, None)
    extra = atoms.info.pop(_EXTRA, None)
    if isinstance(extra, str):
        atoms.info.update({k: _from_json(v) for k, v in json.loads(extra).items()})
    return atoms


def _survives(key: Any, value: Any) -> bool:
    """Tell whether ASE's writer and reader return the same entry."""
    if not isinstance(key, str) or key.lower() in _RESERVED or not key.isprintable():
        return False
    if isinstance(value, str) and not value.isprintable():  # a line break, above all
        return False
    if isinstance(value, np.ndarray) and value.size < 2:
        return False
    try:
        # Test it between two entries: an empty value or a trailing = swallows the next one.
        line = key_val_dict_to_str({"before": 1, key: value, "after": 2})
        back = key_val_str_to_dict(line)
    except (ValueError, TypeError, AttributeError):
        return False
    whole = list(back) == ["before", key, "after"] and (back["before"], back["after"]) == (1, 2)
    return whole and _same(back[key], value)


def _same(back: Any, value: Any) -> bool:
    for kind in ((str,), (bool, np.bool_), (int, np.integer), (float, np.floating)):
        if isinstance(value, kind):
            return isinstance(back, kind) and np.array_equal(
                back, value, equal_nan=kind[0] is float
            )
    if isinstance(value, np.ndarray):
        return (
            isinstance(back, np.ndarray)
            and back.dtype == value.dtype
            and np.array_equal(back, value, equal_nan=value.dtype.kind == "f")
        )
    return type(back) is type(value) and bool(back == value)


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str}
    return value.item() if isinstance(value, np.generic) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"array", "dtype"}:
        return np.array(value["array"], dtype=value["dtype"])
    return value
