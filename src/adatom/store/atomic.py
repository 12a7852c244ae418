"""Atomic writing: every file of a campaign is on the disk completely, or not at all.

The order is always the same: a temporary file in the same directory, flush, ``fsync``,
``os.replace``, ``fsync`` of the directory. After a kill at any moment, the name holds the complete
old file or the complete new one. Temporary files that are left over are removed by
`sweep_leftovers` when the campaign is opened again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from adatom.errors import AdatomError, BadInput, StepFailed

TEMPORARY = ".adatom-tmp-"  # start of the names of temporary files; no output is named so
_ZARR_TEMPORARY = ".partial"  # end of the names of the temporary files of zarr's LocalStore
# Error numbers (POSIX errno) by what the user can do about them.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISNAMED = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Convert errors of the operating system to adatom's errors.

    Parameters
    ----------
    path
        Path to name in the error.

    Raises
    ------
    BadInput
        If the path may not be written, or cannot be a file or directory of this name.
    StepFailed
        If the disk is full or fails.
    """
    try:
        yield
    except OSError as error:
        raise _explanation(path, error) from error


def _explanation(path: Path, error: OSError) -> AdatomError:
    got = error.strerror or str(error)
    if error.errno in _FULL:
        return StepFailed(
            str(path),
            expected="room on the disk",
            got=got,
            todo="Free some space, then run adatom resume: nothing finished is lost.",
        )
    if error.errno in _FORBIDDEN:
        return BadInput(
            str(path),
            expected="a place that may be read and written",
            got=got,
            todo="Change its permissions, close programs that hold it open, or name another "
            "directory with -o.",
        )
    if error.errno in _MISNAMED:
        return BadInput(
            str(path),
            expected="a usable file or directory name",
            got=got,
            todo="Check the path, or name another directory with -o.",
        )
    return StepFailed(
        str(path),
        expected="a disk that works",
        got=got,
        todo="Check the disk, then run adatom resume: nothing finished is lost.",
    )


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Convert the errors of a missing or damaged file to adatom's errors.

    Parameters
    ----------
    path
        File that is being read.
    what
        Kind of file, such as ``parquet table``.

    Raises
    ------
    BadInput
        If it is missing or may not be read.
    StepFailed
        If it cannot be parsed: another program changed or truncated it.
    """
    try:
        yield
    except AdatomError:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise BadInput(
            str(path),
            expected=f"a {what}",
            got=error.strerror or type(error).__name__,
            todo="Check the path and its permissions; adatom resume makes a missing output again.",
        ) from error
    except Exception as error:
        raise StepFailed(
            str(path),
            expected=f"a whole {what}",
            got=f"{type(error).__name__}: {error}",
            todo="The file was damaged: run adatom resume, which makes it again.",
        ) from error


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears under its name only when it is complete and on the disk.

    Parameters
    ----------
    path
        Final name; its directory is made if it is missing.

    Yields
    ------
    A binary file to write; it gets the final name when the block ends without an error.

    Raises
    ------
    BadInput
        If the path cannot be written.
    StepFailed
        If the disk is full.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_directory(path.parent)


def temporary_beside(path: Path) -> Path:
    """Name a temporary file in the same directory; of fixed length, so that long names fit too."""
    return path.with_name(TEMPORARY + uuid.uuid4().hex)


def sync_file(path: Path) -> None:
    """Force a finished file's bytes to the disk."""
    # Windows flushes only through a writable handle.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Force a directory's entries to the disk (Windows does this itself)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems refuse this; the rename is done anyway
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(handle)


def remove_tree(path: Path) -> None:
    """Delete a directory or file: it is renamed first, so that a kill leaves no partial directory.

    Raises
    ------
    BadInput
        If it may not be changed.
    """
    with explained(path):
        doomed = temporary_beside(path)
        path.replace(doomed)
        if doomed.is_dir():
            shutil.rmtree(doomed)
        else:
            doomed.unlink()


def sweep_leftovers(root: Path) -> int:
    """Remove temporary files of killed writers; call it only while holding the campaign's lock.

    Parameters
    ----------
    root
        Campaign directory.

    Returns
    -------
    Number of temporary files and directories that were removed.
    """
    removed = 0
    with explained(root):
        for folder, names, files in os.walk(root):
            here = Path(folder)
            for name in [n for n in names if n.startswith(TEMPORARY)]:
                shutil.rmtree(here / name)
                names.remove(name)
                removed += 1
            in_zarr = any(part.endswith(".zarr") for part in here.relative_to(root).parts)
            for name in files:
                if name.startswith(TEMPORARY) or (in_zarr and name.endswith(_ZARR_TEMPORARY)):
                    (here / name).unlink()
                    removed += 1
    return removed


def file_hash(path: str | Path, *more: str | Path) -> str:
    """Hash files on the disk, for the ``output`` of a ledger record.

    Parameters
    ----------
    path
        The file. The hash of one file is the start of what ``sha256sum`` prints.
    more
        Further files of the same output; the hash then covers all of them, in this order.

    Returns
    -------
    20 hexadecimal digits of SHA-256.

    Raises
    ------
    BadInput
        If a file is missing or cannot be read.
    """
    return _hash_of([_digest(Path(p)) for p in (path, *more)])


def bytes_hash(*contents: bytes) -> str:
    """Hash the contents of files as `file_hash` does.

    Examples
    --------
    >>> bytes_hash(b"one"), bytes_hash(b"one", b"two")
    ('7692c3ad3540bb803c02', '11914c19a28a98c57d12')
    """
    return _hash_of([hashlib.sha256(content).digest() for content in contents])


def _hash_of(digests: list[bytes]) -> str:
    if len(digests) == 1:
        return digests[0].hex()[:20]
    return hashlib.sha256(b"".join(digests)).hexdigest()[:20]


def is_intact(output: str, *paths: str | Path) -> bool:
    """Tell whether the files still have the ``output`` hash of the ledger.

    Parameters
    ----------
    output
        `file_hash` of the files when they were written; an empty one matches nothing.
    paths
        The same files in the same order.
    """
    try:
        return bool(output) and file_hash(*paths) == output
    except BadInput:
        return False


def _digest(path: Path) -> bytes:
    with reading(path, "readable file"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
