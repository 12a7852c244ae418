"""The bytes of an image's chunks, one for every frame, and of the shards that hold many of them.

A chunk is one frame, compressed, with a checksum. A shard is its chunks one after another, then
an index: offset and length of each, little-endian 64-bit numbers, and a checksum. Frames are
moved into a shard as they are, without being compressed again.

Specification: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from adatom.store.atomic import atomic_file

_CHECKSUM = 4  # bytes of a CRC-32C
_ENTRY = np.dtype(("<u8", 2))  # offset and length of a chunk in its shard
_MISSING = np.iinfo(np.uint64).max  # both numbers of a chunk that was never written
_LEVEL = 8  # of zstd in Blosc: 8 % smaller than 5 for 4 ms more a frame of 64²


def codecs() -> list[Any]:
    """Make the codecs of a chunk, as its array's metadata name them."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    # Shuffled bytes: rounded numbers as float32 take little more than as integers.
    return [BloscCodec(cname="zstd", clevel=_LEVEL, shuffle="shuffle"), Crc32cCodec()]


def encode(values: NDArray[np.float32]) -> bytes:
    """Compress the values of a chunk, little-endian, and add their checksum.

    Examples
    --------
    >>> import numpy as np
    >>> ones = np.ones((4, 4), dtype=np.float32)
    >>> bool((decode(encode(ones), (4, 4)) == ones).all())
    True
    """
    from numcodecs import Blosc

    plain = np.ascontiguousarray(values, dtype="<f4")
    packed = bytes(Blosc(cname="zstd", clevel=_LEVEL, shuffle=Blosc.SHUFFLE).encode(plain))
    return packed + _checksum(packed)


def decode(data: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Read what `encode` made.

    Raises
    ------
    ValueError
        If the checksum or the shape does not fit.
    """
    from numcodecs import Blosc

    packed = data[:-_CHECKSUM]
    if data[-_CHECKSUM:] != _checksum(packed):
        raise ValueError("the checksum of the chunk does not fit")
    values = np.frombuffer(Blosc().decode(packed), dtype="<f4")
    return values.reshape(shape).astype(np.float32)


def shard_chunk(path: Path, place: int, count: int) -> bytes | None:
    """Read the bytes of one chunk of a shard.

    Parameters
    ----------
    path
        The shard; it need not exist.
    place
        Number of the chunk in the shard.
    count
        Number of chunks that the shard has room for.

    Returns
    -------
    What `encode` made; None if there is none, or the shard's index is damaged.
    """
    try:
        with path.open("rb") as file:
            offset, length = (int(n) for n in _index(file, count)[place])
            if length == _MISSING:
                return None
            file.seek(offset)
            return file.read(length)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def write_shard(path: Path, chunks: Sequence[Path | None]) -> None:
    """Write a shard, or replace it: files where they are given, else the chunks that it has.

    Parameters
    ----------
    path
        The shard.
    chunks
        File of every chunk that the shard has room for; None keeps what is there.

    Raises
    ------
    BadInput
        If the path cannot be written.
    StepFailed
        If the disk is full.
    """
    index = np.full((len(chunks), 2), _MISSING, dtype="<u8")
    end = 0
    with atomic_file(path) as file:
        for place, chunk in enumerate(chunks):
            data = shard_chunk(path, place, len(chunks)) if chunk is None else chunk.read_bytes()
            if data is not None:
                index[place] = end, len(data)
                end += file.write(data)
        packed = index.tobytes()
        file.write(packed + _checksum(packed))


def _index(file: BinaryIO, count: int) -> NDArray[np.uint64]:
    """Read the index at the end of a shard."""
    size = count * _ENTRY.itemsize
    if file.seek(0, os.SEEK_END) < size + _CHECKSUM:
        raise ValueError("the shard is too short for its index")
    file.seek(-size - _CHECKSUM, os.SEEK_END)
    packed, checksum = file.read(size), file.read()
    if checksum != _checksum(packed):
        raise ValueError("the checksum of the index does not fit")
    return np.frombuffer(packed, dtype=_ENTRY.base).reshape(count, 2)


def _checksum(data: bytes) -> bytes:
    import google_crc32c  # what zarr uses

    return int(google_crc32c.value(data)).to_bytes(_CHECKSUM, "little")
