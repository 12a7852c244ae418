"""Records of finished steps, and the hashes that identify them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np


def content_hash(*parts: Any) -> str:
    """Hash the inputs of a step: arrays by value, all else as canonical JSON.

    Parameters
    ----------
    parts
        NumPy arrays, numbers, strings, and nested lists, tuples, dictionaries, dataclasses and
        pydantic models of them.

    Returns
    -------
    20 hexadecimal digits of SHA-256.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"\x00part")
        if isinstance(part, np.ndarray):
            digest.update(str((part.dtype.str, part.shape)).encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, bytes):
            digest.update(part)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=_plain).encode())
    return digest.hexdigest()[:20]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": content_hash(value)}
    if isinstance(value, np.generic):
        return value.item()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"cannot hash a {type(value).__name__}: give arrays, numbers, strings")


@dataclass(frozen=True, slots=True)
class Record:
    """One finished step, as the ledger stores it.

    Parameters
    ----------
    key
        Hash of inputs, options and code version: the same key means the same result.
    step
        Name of the step, such as ``find``.
    item
        Item that it processed, such as ``frame 12``.
    parents
        Keys of the steps that it used.
    seed
        Seed of its random generator, -1 for a step without one.
    version
        Version of adatom.
    seconds
        Wall time.
    output
        Hash of its output files, so that a changed or incomplete file is detected.
    """

    key: str
    step: str
    item: str
    parents: tuple[str, ...]
    seed: int
    version: str
    seconds: float
    output: str = ""
