"""Height of a spot at single pixels, and its change when it moves, in single precision."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from adatom.core.arrays import Image
from adatom.features.refinement.image_model import Probe


def spot_and_slopes(probe: Probe, step: Image) -> tuple[Image, Image]:
    """Height of a spot at vectors from its centre, and its change when it moves.

    Parameters
    ----------
    probe
        The spot.
    step
        Vectors, row and column, shape (2, ...), pixels.

    Returns
    -------
    Height, shape (...), and derivatives by row and column of the centre, shape (2, ...).
    """
    turned, form = _turned(probe, step)
    height, steep = np.zeros_like(form), np.zeros_like(form)
    for part, wider in _parts(probe, form):
        height += part
        steep += part / wider
    return height, steep * turned


def spot(probe: Probe, step: Image) -> Image:
    """Height of a spot alone; see `spot_and_slopes`."""
    _, form = _turned(probe, step)
    height = np.zeros_like(form)
    for part, _ in _parts(probe, form):
        height += part
    return height


def _turned(probe: Probe, step: Image) -> tuple[Image, Image]:
    """Inverse covariance times a vector, shape (2, ...), and minus half the product of both."""
    rr, rc, cc = probe.covariance
    inverse = np.array([[cc, -rc], [-rc, rr]]) / (rr * cc - rc**2)
    inverse = inverse.astype(step.dtype)
    turned = np.empty_like(step)
    for axis in (0, 1):
        np.multiply(inverse[axis, 0], step[0], out=turned[axis])
        turned[axis] += inverse[axis, 1] * step[1]
    form = step[0] * turned[0]
    form += step[1] * turned[1]
    form *= -0.5
    return turned, form


def _parts(probe: Probe, form: Image) -> Iterator[tuple[Image, np.float32]]:
    """Each Gaussian of a spot, with its squared width over that of the core."""
    for weight, wider in zip(probe.weights, probe.squared_widths(), strict=True):
        if weight:
            part = np.exp(form / np.float32(wider))
            part *= np.float32(weight)
            yield part, np.float32(wider)
