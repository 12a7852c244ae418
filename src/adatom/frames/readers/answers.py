"""Answers of the process that reads files; the parent takes nothing from it unchecked.

A damaged or hostile file may have taken over the reader's process, so its answers are data to be
checked: JSON and plain numbers, never anything that is unpickled.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from adatom.core import Acquisition

_Length = Annotated[int, Field(ge=1, lt=2**40)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Field = Literal[
    "voltage_kV", "detector_mrad", "frame_time_s", "dwell_s", "current_pA", "dose_per_A2"
]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: int = Field(ge=0, alias="bytes")  # of the content that follows


class Ready(_Answer):
    """The process waits for requests."""

    ready: Literal[True]


class Refused(_Answer):
    """A request that could not be done: the fields of the error, and what caused it."""

    error: tuple[str, str, str, str]
    cause: str
    damaged: bool


class About(_Answer):
    """A file that was opened; see `adatom.frames.readers.stack.Stack`."""

    count: _Length
    shape: tuple[_Length, _Length]
    pixel_A: _Number | None
    notes: tuple[str, ...]
    acquisition: dict[_Field, _Positive | tuple[_Positive, _Positive] | None]

    @property
    def recorded(self) -> Acquisition:
        """How the frames were recorded."""
        return Acquisition(**self.acquisition)  # type: ignore[arg-type]


class Pixels(_Answer):
    """A frame, whose pixels follow."""

    shape: tuple[_Length, ...] = Field(min_length=1, max_length=4)
    dtype: str = Field(pattern=r"^[<>|=]?[buif][0-9]{1,2}$")

    def array(self, content: bytes) -> NDArray[Any]:
        """Give the frame; ValueError if the content is not as long as shape and type say."""
        dtype = np.dtype(self.dtype)
        if math.prod(self.shape) * dtype.itemsize != len(content):
            raise ValueError(f"{len(content)} bytes for shape {self.shape} of {self.dtype}")
        return np.frombuffer(content, dtype).reshape(self.shape)


Answer = Ready | Refused | About | Pixels
_ANSWERS: TypeAdapter[Answer] = TypeAdapter(Answer)


def parse_answer(line: bytes) -> Answer:
    """Parse and check an answer.

    Raises
    ------
    ValueError
        If it is none of the known ones.

    Examples
    --------
    >>> from adatom.frames.readers.answers import parse_answer
    >>> parse_answer(b'{"bytes": 8, "shape": [1, 2], "dtype": "<f4"}').array(bytes(8)).tolist()
    [[0.0, 0.0]]
    """
    return _ANSWERS.validate_json(line)
