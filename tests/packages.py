"""Packages made up for a test and registered by real entry points, in a directory of the path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adatom.core.plugins import plugins


@contextmanager
def installed(directory: Path, name: str, source: str, **groups: dict[str, str]) -> Iterator[None]:
    """Install a package of one module.

    Parameters
    ----------
    directory
        Where to write it; it is on the path inside the context.
    name
        Of the package and its module.
    source
        Text of the module.
    groups
        Entry points: group without ``adatom.``, to name and object in the module.
    """
    (directory / f"{name}.py").write_text(source, "utf-8")
    info = directory / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n", "utf-8")
    lines = []
    for group, parts in groups.items():
        lines += [f"[adatom.{group}]", *(f"{key} = {name}:{part}" for key, part in parts.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")
    sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    plugins.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(directory))
        sys.modules.pop(name, None)
        plugins.cache_clear()
