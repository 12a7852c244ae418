"""Frames of graphene sheets with exact truth, for the tests of finding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core import GRAPHENE, AtomTable, Frame, LabelledFrame
from adatom.core.arrays import FloatArray
from adatom.features.calibration.calibrator import match_truth
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_points
from adatom.frames.simulate.synthesize import image_specimen

NONE = np.zeros((0, 2))
SEED = 77_000_000  # far from the seeds of training and calibration


def graphene_frame(
    seed, *, px=0.12, counts=30.0, field=(18.0, 18.0), missing=(), silicon=(), **conditions
):
    """A flat sheet without distortion; `missing` and `silicon` are places whose nearest site is."""
    rng = np.random.default_rng(SEED + seed)
    xy = lattice_points(GRAPHENE, field, 3.0, rng.uniform(0, 6)) + rng.uniform(-1, 1, 2)
    species = np.zeros(len(xy), dtype=np.int64)
    if silicon:
        species[cKDTree(xy).query(np.array(silicon))[1]] = 1
    gone = cKDTree(xy).query(np.array(missing))[1] if missing else []
    specimen = Specimen(np.delete(xy, gone, axis=0), np.delete(species, gone), xy[gone])
    shape = (round(field[1] / px) + 1, round(field[0] / px) + 1)
    taken = Conditions(pixel_size_A=px, counts=counts, **conditions)
    return image_specimen(specimen, shape, GRAPHENE, taken, rng)


def extent(frame: Frame) -> tuple[float, float]:
    return frame.calibration.extent_xy(frame.shape)


def inner(frame: Frame, xy: FloatArray, margin: float = 0.8) -> NDArray[np.bool_]:
    return np.all((xy > margin) & (xy < np.subtract(extent(frame), margin)), axis=1)


def errors(truth: LabelledFrame, xy: FloatArray, margin: float = 0.8) -> FloatArray:
    """Errors of the atoms that are some true atom, border left out."""
    match = match_truth(xy, truth.xy)
    keep = (match >= 0) & inner(truth.frame, xy, margin)
    return xy[keep] - truth.xy[match[keep]]


def rms(error: FloatArray) -> float:
    return float(np.sqrt(np.mean(error**2)))


def moved(a: AtomTable, b_xy: FloatArray, frame: Frame, margin: float = 0.8) -> FloatArray:
    """Displacements from the atoms of `a` to their partners in `b_xy`; all must have one."""
    keep = inner(frame, a.xy, margin)
    distance, partner = cKDTree(b_xy).query(a.xy[keep])
    assert (distance < 0.6).all(), f"{(distance >= 0.6).sum()} of {keep.sum()} have no partner"
    return b_xy[partner] - a.xy[keep]
