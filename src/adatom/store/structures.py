"""Structures and trajectories as extended XYZ, which ASE, OVITO, chemfiles and others open.

Readers of the format differ in what they accept. This module writes only what all of them read
alike: plain names, words and numbers in the comment line, and columns of numbers, truth values or
single words. The rest is kept for adatom as percent-encoded JSON in further entries of the comment
line: ``adatom_info``, and ``adatom_info_1`` and so on where one is too long for a reader. Columns
of words with spaces are percent-encoded, and columns of matrices are written flat; that entry holds
what restores them. Files that need none of this do not have it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import ase
import ase.io
import numpy as np
from ase import units
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict, per_config_properties
from numpy.typing import NDArray

from adatom.core import Structure
from adatom.store.atomic import atomic_file, file_hash, reading

_EXTRA = "adatom_info"  # key of that entry
_VELOCITY = "velo"  # velocities, Å/fs, by the name that OVITO and libAtoms know
_COLUMNS, _WORDS, _SHAPES = "columns", "words", "shapes"  # keys in it that are not of ``info``
# Keys of the format itself, and keys that ASE's reader moves from ``info`` to a calculator.
_RESERVED = {"lattice", "properties", "pbc", "virial", _EXTRA, *per_config_properties}
_RESERVED_COLUMNS = {"species", "pos", "symbols", "move_mask"}
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WORD = re.compile(r"[A-Za-z0-9_.+:/-]+")
_TEXT = re.compile(r"[A-Za-z0-9_.+:/-]+( [A-Za-z0-9_.+:/-]+)*")
_LARGEST_INTEGER = 2**31 - 1  # libAtoms' reader has integers of 32 bits
_LONGEST = 1000  # characters; libAtoms' parser in C does not read a value of 1400
_MOST = 40  # numbers of an array in the comment line: at most 25 characters each
_EMPTY = "%"  # an empty word; percent-encoding never gives a single percent sign


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
    """Copy atoms so that every reader understands them; what only adatom reads is in one entry."""
    info = {k: _jsonable(v) for k, v in atoms.info.items() if not _is_plain(k, v)}
    odd = {k: v for k, v in atoms.arrays.items() if not _is_plain_column(k, v)}
    if not info and not odd:
        return atoms
    out: ase.Atoms = atoms.copy()
    out.calc = atoms.calc
    for key in list(atoms.info):
        if not _is_plain(key, atoms.info[key]):
            del out.info[key]
    kept: dict[str, Any] = {"info": info}
    for name, values in odd.items():
        del out.arrays[name]
        named = _COLUMN.fullmatch(name) and name.lower() not in _RESERVED_COLUMNS
        if named and values.dtype.kind in "fib" and values.ndim > 2 and values.size > len(values):
            out.arrays[name] = values.reshape(len(values), -1)
            kept.setdefault(_SHAPES, {})[name] = list(values.shape[1:])
        elif named and _are_words(values):
            out.arrays[name] = np.array([quote(v, safe="") or _EMPTY for v in values])
            kept.setdefault(_WORDS, []).append(name)
        else:
            kept.setdefault(_COLUMNS, {})[name] = _jsonable(values)
    code = quote(json.dumps(kept), safe="")
    for i in range(0, len(code), _LONGEST):
        out.info[f"{_EXTRA}_{i // _LONGEST}" if i else _EXTRA] = code[i : i + _LONGEST]
    return out


def _unguarded(atoms: ase.Atoms) -> ase.Atoms:
    if atoms.has("momenta"):
        atoms.arrays.pop(_VELOCITY, None)
    extra = atoms.info.pop(_EXTRA, None)
    if not isinstance(extra, str):
        return atoms
    number = 1
    while isinstance(more := atoms.info.pop(f"{_EXTRA}_{number}", None), str):
        extra, number = extra + more, number + 1
    if extra.startswith("{"):  # adatom 0.1.0 wrote plain JSON of ``info`` alone
        atoms.info.update({k: _from_json(v) for k, v in json.loads(extra).items()})
        return atoms
    kept = json.loads(unquote(extra))
    atoms.info.update({k: _from_json(v) for k, v in kept["info"].items()})
    for name, shape in kept.get(_SHAPES, {}).items():
        atoms.arrays[name] = atoms.arrays[name].reshape(len(atoms), *shape)
    for name in kept.get(_WORDS, []):
        words = ["" if v == _EMPTY else unquote(v) for v in atoms.arrays[name]]
        atoms.arrays[name] = np.array(words)
    for name, values in kept.get(_COLUMNS, {}).items():
        atoms.arrays[name] = _from_json(values)
    return atoms


def _is_plain(key: Any, value: Any) -> bool:
    """Tell whether every reader understands an entry, and ASE's gives back the same."""
    if not isinstance(key, str) or not _KEY.fullmatch(key) or key.lower() in _RESERVED:
        return False
    if key.startswith(_EXTRA):
        return False
    if isinstance(value, str):
        plain = len(value) <= _LONGEST and _TEXT.fullmatch(value) is not None
        return plain and _survives(key, value)
    if isinstance(value, np.ndarray):
        plain = value.ndim == 1 and 1 < value.size <= _MOST and value.dtype.kind in "fib"
        return plain and _are_usual(value) and _survives(key, value)
    numbers = (bool, np.bool_, int, np.integer, float, np.floating)
    return isinstance(value, numbers) and _are_usual(np.asarray(value)) and _survives(key, value)


def _is_plain_column(name: str, values: NDArray[Any]) -> bool:
    if name in ("numbers", "positions"):
        return True
    if not _COLUMN.fullmatch(name) or name.lower() in _RESERVED_COLUMNS:
        return False
    if values.dtype.kind in "OU":
        words = _are_words(values) and all(map(_WORD.fullmatch, values))
        return words and not any(v == _EMPTY for v in values)
    return values.dtype.kind in "fib" and values.ndim <= 2 and values.size >= len(values)


def _are_words(values: NDArray[Any]) -> bool:
    return values.ndim == 1 and all(isinstance(v, str) for v in values)


def _are_usual(values: NDArray[Any]) -> bool:
    """Tell whether numbers are finite, and integers fit in 32 bits."""
    if values.dtype.kind == "i":
        return bool((np.abs(values.astype(np.float64)) <= _LARGEST_INTEGER).all())
    return values.dtype.kind in "fb" and bool(np.isfinite(values).all())


def _survives(key: str, value: Any) -> bool:
    """Tell whether ASE's writer and reader return the same entry."""
    try:
        back = key_val_str_to_dict(key_val_dict_to_str({key: value}))
    except (ValueError, TypeError, AttributeError):
        return False
    return list(back) == [key] and _same(back[key], value)


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
