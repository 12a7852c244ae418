"""Refinement of simulated sheets, for the tests of the fit."""

from __future__ import annotations

import numpy as np

from adatom.core import GRAPHENE
from adatom.features.candidates.beyond_border import atoms_beyond_border
from adatom.features.refinement.binning import bin_frame
from adatom.features.refinement.fit import Fit
from adatom.features.refinement.image_model import Probe
from adatom.features.refinement.noise import Noise
from adatom.features.refinement.optics import Optics
from adatom.features.refinement.refine import Refined, RefineOptions, refine


def start_of(truth, scale=0.06, seed=0):
    return truth.xy + np.random.default_rng(seed).normal(0.0, scale, truth.xy.shape)


def refine_truth(truth, start, **options) -> Refined:
    outside = atoms_beyond_border(start, truth.frame.border_distance_A, GRAPHENE)
    return refine(truth.frame, start, RefineOptions(**options), outside)


def fit_of(truth) -> Fit:
    """A fit of a whole frame that has not run."""
    start = start_of(truth)
    outside = atoms_beyond_border(start, truth.frame.border_distance_A, GRAPHENE)
    binned = bin_frame(truth.frame)
    rc, px = binned.rc(np.concatenate([start, outside])), binned.calibration.pixel_size_A
    sigma2 = (0.42 / px) ** 2
    level = float(binned.data.mean())
    optics = Optics(
        Probe(np.array([sigma2, 0.0, sigma2]), np.array([0.1, 0.0])),
        Noise(0.1 * level, 1.0, 1.0, 0.05 * level), px,
    )  # fmt: skip
    return Fit(binned.data, rc, np.arange(len(rc)) >= len(start), optics, RefineOptions())
