"""Frames under known imaging conditions, and their estimates."""

from __future__ import annotations

import numpy as np

from adatom.analysis.frame import calibrator_of
from adatom.core import GRAPHENE, Calibration
from adatom.features.conditions.estimate import estimate_imaging
from adatom.features.find import find
from adatom.frames.lattice.fit import fit_lattice
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.sheet import graphene_sheet
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import image_specimen
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.ensemble import predict_tiles

USUAL = Conditions(
    pixel_size_A=0.11,
    probe_sigma_A=(0.44, 0.38),
    probe_angle_rad=0.7,
    tail_fraction=0.2,
    counts=12.0,
    background=0.2,
)


def finder():
    """A function that gives the atoms and the lattice of a frame."""
    use_threads(1)
    ensemble = weights.load_shipped("graphene")
    calibrator = calibrator_of(ensemble)

    def run(frame):
        found = find(frame, predict_tiles(frame, ensemble), GRAPHENE, calibrator)
        sure = found.atoms.is_likely & (found.atoms.elements == "C")
        return found, fit_lattice(found.atoms.xy[sure], GRAPHENE)

    return run


def take(conditions, seed=3, field_A=24.0, shift=None, specimen=None, index=0):
    rng = np.random.default_rng(seed)
    n = int(field_A / conditions.pixel_size_A) + 1
    extent = Calibration(conditions.pixel_size_A).extent_xy((n, n))
    sheet = specimen or graphene_sheet(extent, rng, strain=0.0)
    if shift is not None:
        sheet = Specimen(sheet.xy + shift, sheet.species, sheet.vacancies_xy)
    return image_specimen(sheet, (n, n), GRAPHENE, conditions, rng, index=index).frame


def estimate(see, *frames):
    found, lattices = zip(*(see(f) for f in frames), strict=True)
    return estimate_imaging(frames, found, GRAPHENE, lattices=lattices)


def pull(estimated, truth):
    return abs(estimated.value - truth) / estimated.sd
