"""Give frames with rectangular pixels square ones, which all later steps take for granted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.errors import BadInput
from adatom.frames.readers.axes import MIN_PIXELS
from adatom.frames.readers.pixel_size import Scale
from adatom.frames.readers.stack import Stack

_MOST_RATIO = 4.0  # most height over width, or width over height: beyond it, rows are line scans


def with_square_pixels(stack: Stack, subject: str) -> Stack:
    """Average the finer edge of rectangular pixels to the coarser one; square ones stay.

    Averaging keeps the noise of neighbouring pixels all but independent, as the analysis expects
    it, and loses no detail that the coarser edge does not lose anyway. Positions stay: the centre
    of the first pixel is the origin before and after.

    Parameters
    ----------
    stack
        Frames with a `Scale.ratio`.
    subject
        File, for messages.

    Raises
    ------
    BadInput
        If the pixels are more than four times as long as wide, or too few are left.
    """
    ratio = stack.scale.ratio
    if ratio == 1.0:
        return stack
    axis, factor = (1, ratio) if ratio > 1 else (0, 1 / ratio)
    count = averaged_count(stack.shape[axis], factor)
    edge = stack.scale.pixel_A
    sizes = f"{ratio:.4g} times as high as wide"
    if edge is not None:
        short = edge / factor
        tall, wide = (edge, short) if ratio > 1 else (short, edge)
        sizes = f"{tall:.4g} Å high and {wide:.4g} Å wide"
    if factor > _MOST_RATIO or count < MIN_PIXELS:
        raise BadInput(
            subject,
            expected="square pixels, or rectangular ones that can be averaged to square ones",
            got=f"pixels {sizes}",
            todo="Resample the frames to square pixels first.",
        )
    shape = (stack.shape[0], count) if axis else (count, stack.shape[1])
    note = (
        f"rectangular pixels, {sizes}: averaged along {'rows' if axis else 'columns'} to squares "
        f"({stack.shape[0]} x {stack.shape[1]} to {shape[0]} x {shape[1]})"
    )
    scale = Scale(edge, (*stack.scale.notes, note))
    return replace(
        stack, shape=shape, load=lambda i: averaged(stack.load(i), factor, axis), scale=scale
    )


def averaged_count(count: int, factor: float) -> int:
    """Number of coarse pixels that lie within `count` fine ones; see `averaged`."""
    return math.floor((count - 0.5 - factor / 2) / factor + 1e-6) + 1


def averaged(frame: NDArray[Any], factor: float, axis: int) -> NDArray[np.float64]:
    """Average a frame over pixels that are `factor` times as long along one axis.

    Parameters
    ----------
    frame
        Shape (row, col).
    factor
        Coarse pixel over fine pixel, above 1.
    axis
        Axis to average along; the centre of its first pixel stays in place.

    Examples
    --------
    >>> averaged(np.array([[0.0, 2.0, 4.0, 6.0, 8.0]]), 2.0, 1)
    array([[0.66666667, 4.        ]])
    """
    fine = np.moveaxis(np.asarray(frame, dtype=np.float64), axis, -1)
    count = fine.shape[-1]
    # Edges of the coarse pixels, in fine pixels from the outer edge of the first one.
    edges = factor * (np.arange(averaged_count(count, factor) + 1) - 0.5) + 0.5
    edges = np.clip(edges, 0.0, count)
    whole = np.minimum(edges.astype(int), count - 1)
    sums = np.concatenate([np.zeros((*fine.shape[:-1], 1)), fine.cumsum(axis=-1)], axis=-1)
    upto = sums[..., whole] + (edges - whole) * fine[..., whole]
    return np.moveaxis(np.diff(upto, axis=-1) / np.diff(edges), -1, axis)
