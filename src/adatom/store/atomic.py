"""Every file of a campaign reaches the disk through here: whole, or not at all.

The order is always the same: a temporary file in the same directory, flush, ``fsync``,
``os.replace``, ``fsync`` of the directory. A process killed at any instant leaves the old file or
the new one under the name, never a part; what it leaves beside them is swept away by
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

TEMPORARY = ".adatom-tmp-"
_ZARR_TEMPORARY = ".partial"  # how zarr's LocalStore names what it has not renamed yet
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISNAMED = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a disk into adatom's errors.

    Parameters
    ----------
    path
        What to name in the error.

    Raises
    ------
    BadInput
        If the place cannot be written or is not what its name says.
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
    """Turn a missing or damaged file into adatom's errors.

    Parameters
    ----------
    path
        File that is being read.
    what
        What it should be, such as ``parquet table``.

    Raises
    ------
    BadInput
        If it is missing or may not be read.
    StepFailed
        If it cannot be parsed: it was changed or torn from outside.
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
    """Write a file that appears under its name whole, on the disk, or not at all.

    Parameters
    ----------
    path
        Final name; its directory is made where it is missing.

    Yields
    ------
    A binary file to write; it takes the name when the block ends without an error.

    Raises
    ------
    BadInput
        If the place cannot be written.
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
    """Name a temporary on the same file system; a fixed length, so that long names still fit."""
    return path.with_name(TEMPORARY + uuid.uuid4().hex)


def sync_file(path: Path) -> None:
    """Force a finished file's bytes to the disk."""
    # Windows flushes only through a handle that may write.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Force a directory's names to the disk, where the system can (Windows does it itself)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems refuse; the rename still holds
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(handle)


def remove_tree(path: Path) -> None:
    """Take a directory away at once: renamed first, so that a kill leaves no half under its name.

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
    """Remove what killed writers left behind; only for the holder of the campaign's lock.

    Parameters
    ----------
    root
        Campaign directory.

    Returns
    -------
    How many temporary files and directories were removed.
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
    """Hash what lies on the disk, for the ``output`` of a ledger record.

    Parameters
    ----------
    path
        The file; its hash is the start of what ``sha256sum`` prints.
    more
        Further files of the same output; all of them then make one hash, in this order.

    Returns
    -------
    20 hexadecimal digits of SHA-256.

    Raises
    ------
    BadInput
        If a file is missing or cannot be read.
    """
    digests = [_digest(Path(p)) for p in (path, *more)]
    if len(digests) == 1:
        return digests[0].hex()[:20]
    return hashlib.sha256(b"".join(digests)).hexdigest()[:20]


def is_intact(output: str, *paths: str | Path) -> bool:
    """Say whether the files are still what the ledger's ``output`` hash says.

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
