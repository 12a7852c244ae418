"""Sites and fits made by hand, and observations of simulated frames, for tests of calibration."""

from __future__ import annotations

import numpy as np

from adatom.core import GRAPHENE
from adatom.features.calibration.calibrator import Observation
from adatom.features.candidates.locate import Candidates
from adatom.features.find import FindOptions, find_candidates
from adatom.features.refinement.fit import Optics, RefineOptions
from adatom.features.refinement.image_model import Probe
from adatom.features.refinement.noise import Noise
from adatom.features.refinement.refine import Refined
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.synthesize import random_labelled
from adatom.learning.predict import predict_tiles
from sheets import SEED

OPTIONS = RefineOptions()


def observe_eight_frames(ensemble):
    """Eight frames from a few counts to many, as the ensemble sees them, with their truth."""
    out = []
    for k in range(8):
        truth = random_labelled(
            GRAPHENE,
            np.random.default_rng(SEED + 300 + k),
            conditions=Conditions(pixel_size_A=0.14, counts=0.3 * 2.2**k),
            whole=True,
        )
        tiles = predict_tiles(truth.frame, ensemble)
        found = find_candidates(truth.frame, tiles, GRAPHENE, FindOptions())
        out.append(Observation(*found, truth))
    return out


def candidates_of(atom, foreign=0.0, vacant=0.0, peak=None):
    """Sites of which the networks expect so many atoms, a share of them foreign."""
    atom, foreign, vacant = np.broadcast_arrays(
        np.asarray(atom, dtype=float), np.asarray(foreign, dtype=float),
        np.asarray(vacant, dtype=float),
    )  # fmt: skip
    n = len(atom)
    grid = 2.0 * np.stack(np.divmod(np.arange(n), 8), axis=1).astype(float)
    return Candidates(
        grid, np.tile(np.eye(2) * 1e-4, (n, 1, 1)), atom if peak is None else peak,
        np.stack([atom * (1 - foreign), atom * foreign, vacant], axis=1), np.zeros(n),
        np.clip(atom, 0, 1), np.full(n, 9.0),
    )  # fmt: skip


def refined_of(candidates, amplitude, *, shift=(0.0, 0.0), sigma=0.02):
    n = len(candidates.xy)
    # The fit's covariance has the prior in it; `sigma` is that of the counts alone.
    variance = 1.0 / (sigma**-2.0 + OPTIONS.start_sigma_A**-2.0)
    optics = Optics(Probe(np.array([9.0, 0.0, 9.0]), np.zeros(2)), Noise(0.0, 1.0, 1.0, 0.1), 0.14)
    return Refined(
        candidates.xy + shift, np.tile(np.eye(2) * variance, (n, 1, 1)),
        np.broadcast_to(amplitude, n).astype(float), np.full(n, 0.1), np.zeros(n), optics, 1.0,
        OPTIONS.start_sigma_A,
    )  # fmt: skip
