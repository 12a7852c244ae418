"""Regions of held-out training frames are within the distribution."""

import numpy as np
import pytest

from adatom.analysis.flags import ood_model_of
from adatom.analysis.frame import find_atoms
from adatom.core import GRAPHENE
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.training.calibrate import held_out


@pytest.mark.slow
def test_few_regions_of_training_frames_are_flagged():
    use_threads(1)
    ensemble = weights.load_shipped("graphene")
    local = ood_model_of(ensemble.card, "novelty_of_regions")
    frames = [f.frame for f in held_out(GRAPHENE, 779, 36) if len(f.xy)]
    found = [find_atoms(f, ensemble, GRAPHENE).regions for f in frames]
    flagged = sum(len(r.out_of_distribution(local)) for r in found)
    every = sum(int(np.isfinite(r.description).all(axis=1).sum()) for r in found)
    assert every > 60
    assert flagged <= 0.1 * every
