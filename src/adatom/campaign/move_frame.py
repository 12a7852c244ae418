"""What a move takes from the analysis of a frame: its atoms, and the signal of a parked beam."""

from __future__ import annotations

import numpy as np

from adatom.analysis.frame import FrameResult
from adatom.core import Material, ScanRequest
from adatom.core.arrays import BoolArray, FloatArray
from adatom.feedback.sites import Sites
from adatom.feedback.watch import Spots

_SURE = 0.5  # p_exists and p_element from which an atom is taken as there


def atoms_of(
    result: FrameResult, request: ScanRequest, element: str
) -> tuple[BoolArray, BoolArray, FloatArray]:
    """Which atoms are there, which are of the element, and their places in the specimen, Å.

    Parameters
    ----------
    result
        Analysis of the frame.
    request
        Where it was taken.
    element
        Element of the atoms that are moved.

    Returns
    -------
    Shapes (atom,), (atom,) and (atom, 2).
    """
    atoms = result.atoms
    there = atoms.column("p_exists") >= _SURE
    mine = there & (atoms.elements == element)
    mine &= atoms.column("p_element") >= _SURE
    return there, mine, request.to_specimen(atoms.xy)


def spots_of(
    result: FrameResult, there: BoolArray, request: ScanRequest, sites: Sites, material: Material
) -> Spots:
    """Take the signal of parked beams from the fit to a frame.

    Parameters
    ----------
    result, there, request
        As of `atoms_of`.
    sites
        Sites of the atoms that are there, in their order.
    material
        The sheet.
    """
    refined = result.found.refined
    per_pixel = request.dose_per_A2 * request.calibration.pixel_size_A**2
    pixels = result.found.frame.pixels
    unit = (1.0 if pixels is None else pixels.unit) / per_pixel
    peak = result.atoms.column("amplitude")[there] / per_pixel
    # One host atom is as bright as another; the mean of all of them has less noise.
    host = result.atoms.elements[there] == material.host
    peak = np.where(host, np.median(peak[host]), peak)
    probe, size = refined.optics.probe, refined.optics.pixel_size_A
    return Spots(
        sites.xy,
        peak,
        lambda step: probe.value_at(step[..., ::-1] / size),
        float(np.median(refined.background)) * unit,
    )
