"""A lock that allows one writer at a time in a campaign directory.

The operating system holds the lock and releases it when the process ends for any reason. On Unix it
is a POSIX record lock and not ``flock``. Worker processes inherit the open files of their parent,
and with ``flock`` also the lock: a worker that outlives a killed parent would block
``adatom resume``. A POSIX lock is released when the process closes *any* handle on the file.
Therefore this module registers the directories that the process holds, and never opens a lock file
twice.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import weakref
from pathlib import Path
from typing import BinaryIO

from adatom.errors import BadInput
from adatom.store.atomic import explained

LOCK_NAME = ".adatom-lock"  # file in the campaign directory that is locked
# Offset of the locked byte, bytes. Windows forbids reading a locked byte, so it lies far behind the
# process number at the start of the file, which stays readable.
_LOCKED_BYTE = 1 << 30

_Identity = tuple[int, int]
_held: set[_Identity] = set()
_register = threading.Lock()


class DirectoryLock:
    """The lock of one directory, held until `release` or the end of the process.

    Parameters
    ----------
    directory
        An existing directory.

    Raises
    ------
    BadInput
        If another process (or this one) holds it, or the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK_NAME
        with explained(path):
            status = directory.stat()
            identity = (status.st_dev, status.st_ino)
            with _register:
                if identity in _held:
                    raise _busy(directory, f"this process (pid {os.getpid()}) has it open")
                file = _open(path)
                try:
                    _lock_or_refuse(file, directory)
                    _sign(file)
                except BaseException:
                    file.close()
                    raise
                _held.add(identity)
        self._release = weakref.finalize(self, _close, file, identity)

    def release(self) -> None:
        """Release the lock; releasing twice is harmless."""
        self._release()


def _open(path: Path) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)


def _lock_or_refuse(file: BinaryIO, directory: Path) -> None:
    try:
        free = _try_lock(file)
    except OSError as error:
        raise BadInput(
            str(directory),
            expected="a file system with file locks",
            got=error.strerror or str(error),
            todo="Name a directory on another disk with -o.",
        ) from error
    if not free:
        file.seek(0)
        signed = file.read(300).decode(errors="replace").split()
        who = f"pid {signed[0]} on {signed[1]}" if len(signed) == 2 else "pid unknown"
        raise _busy(directory, f"another adatom process ({who}) is working there")


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: BinaryIO) -> bool:
        file.seek(_LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: BinaryIO) -> bool:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LOCKED_BYTE)
        except (BlockingIOError, PermissionError):  # POSIX allows both errors
            return False
        return True


def _sign(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()} {socket.gethostname() or 'localhost'}\n".encode())


def _close(file: BinaryIO, identity: _Identity) -> None:
    with contextlib.suppress(OSError):
        file.close()
    with _register:
        _held.discard(identity)


def _busy(directory: Path, got: str) -> BadInput:
    return BadInput(
        str(directory),
        expected="a campaign directory that no process is writing",
        got=got,
        todo="Wait for it or stop it, or name another directory with -o.",
    )
