"""Signal of a beam that is parked on one place."""

from __future__ import annotations

import numpy as np

from adatom.core.arrays import FloatArray
from adatom.frames.simulate.conditions import Conditions


def signal_at(
    place_xy: FloatArray, xy: FloatArray, amplitude: FloatArray, conditions: Conditions
) -> FloatArray:
    """Signal at places, in units of the peak of an isolated host atom.

    It is the value that `adatom.frames.simulate.synthesize.expected_image` has in a pixel there.

    Parameters
    ----------
    place_xy
        Places, shape (..., 2), Å.
    xy
        Atoms, shape (atom, 2), Å.
    amplitude
        Their peak heights in units of the host atom's, shape (atom,).
    conditions
        Gaussian probe with its tail, and the constant background; anything else is not used.

    Examples
    --------
    >>> import numpy as np
    >>> here = signal_at(np.zeros(2), np.zeros((1, 2)), np.ones(1), Conditions(background=0.1))
    >>> float(here.round(6))
    1.1
    """
    c = conditions
    turn = np.array(
        [
            [np.cos(c.probe_angle_rad), np.sin(c.probe_angle_rad)],
            [-np.sin(c.probe_angle_rad), np.cos(c.probe_angle_rad)],
        ]
    )
    away = (place_xy[..., None, :] - xy) @ turn.T / np.asarray(c.probe_sigma_A)
    distance2 = np.einsum("...ax,...ax->...a", away, away)
    # Both Gaussians have their share of the area, so their peaks go with 1 / width².
    core, tail = 1.0 - c.tail_fraction, c.tail_fraction / c.tail_width**2
    spot = core * np.exp(-0.5 * distance2) + tail * np.exp(-0.5 * distance2 / c.tail_width**2)
    out: FloatArray = spot @ amplitude / (core + tail) + c.background
    return out
