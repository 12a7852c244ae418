"""Refuse HDF5 files that take their data from other files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from adatom.errors import BadInput

if TYPE_CHECKING:
    import h5py


def check_self_contained(path: Path) -> None:
    """Refuse an HDF5 file that takes data from other files: it could show any file of the disk.

    Raises
    ------
    BadInput
        Naming the link or data set, and the other file.
    """
    import h5py

    with h5py.File(path) as file:
        for name, other in _references(file):
            raise BadInput(
                str(path),
                expected="an HDF5 file that holds its own data",
                got=f"{name}, which takes data from another file, {other}",
                todo="Copy the data into one file, for instance with h5copy or h5repack.",
            )


def _references(group: h5py.Group) -> Iterator[tuple[str, str]]:
    """Links to other files, and data sets that are stored in them, in a group and below."""
    import h5py

    waiting, seen = [group], {group.id.__hash__()}
    while waiting:
        here = waiting.pop()
        for name in here:
            link = here.get(name, getlink=True)
            full = f"{here.name}/{name}".replace("//", "/")
            if isinstance(link, h5py.ExternalLink):
                yield full, str(link.filename)
            if not isinstance(link, h5py.HardLink):
                continue
            inside = here.get(name)
            if isinstance(inside, h5py.Group) and inside.id.__hash__() not in seen:
                seen.add(inside.id.__hash__())
                waiting.append(inside)
            elif isinstance(inside, h5py.Dataset):
                if inside.external:
                    yield full, str(inside.external[0][0])
                if inside.is_virtual:
                    others = {s.file_name for s in inside.virtual_sources()} - {"."}
                    yield from ((full, other) for other in sorted(others))
