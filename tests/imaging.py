"""Frames under known imaging conditions, and their estimates."""

from __future__ import annotations

import numpy as np

from adatom.analysis.frame import calibrator_of
from adatom.core import GRAPHENE, Calibration
from adatom.core.imaging import Estimate, Imaging
from adatom.features.conditions.estimate import estimate_imaging
from adatom.features.find import find
from adatom.frames.lattice.fit import fit_lattice
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.sheet import graphene_sheet
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import image_specimen
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.predict import predict_tiles

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


def known_imaging(**change: object) -> Imaging:
    """Conditions without uncertainty; `change` replaces some of them."""

    def known(value: float) -> Estimate:
        return Estimate(value, 0.0)

    values: dict[str, object] = {
        "pixel_size_A": known(0.15), "probe_sigma_A": (known(0.5), known(0.4)),
        "probe_angle_rad": known(0.7), "tail_fraction": known(0.1), "tail_width": known(2.5),
        "counts": known(12.0), "background": known(1.5), "background_variation": known(0.2),
        "background_length_A": known(7.0), "jitter_A": known(0.05), "blur_px": known(0.4),
        "noise_correlation": known(1.0), "read_noise": known(0.3), "stretch": known(0.0),
        "shear": known(0.0), "drift_x_A": known(0.0), "drift_y_A": known(0.0),
    }  # fmt: skip
    return Imaging(**(values | change))
