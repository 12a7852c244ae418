"""How much memory and time a file may take; both follow its size."""

from __future__ import annotations

MIB = 1 << 20


def most_unpacked(size: int) -> int:
    """Most bytes that the arrays of a compressed file may unpack to.

    Counts of few electrons, stored as floating-point numbers, shrink to a fiftieth; a file that
    claims more than a hundredfold is taken for one that lies.

    Parameters
    ----------
    size
        Bytes of the file.
    """
    return 1024 * MIB + 100 * size


def most_memory(size: int) -> int:
    """Most bytes that a reader may allocate: some libraries hold a file several times.

    Parameters
    ----------
    size
        Bytes of the file.
    """
    return 1024 * MIB + 20 * size


def most_seconds(size: int) -> float:
    """Most processor time in s to open a file or to read a frame: 20 s, and 5 MB/s.

    Parameters
    ----------
    size
        Bytes of the file.
    """
    return 20.0 + size / 5e6
