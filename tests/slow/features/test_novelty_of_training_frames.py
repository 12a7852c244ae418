"""The out-of-distribution score of frames like those of the training."""

import numpy as np
import pytest

from adatom.analysis.flags import flags_of
from adatom.analysis.frame import find_atoms
from adatom.core import GRAPHENE, Frame
from adatom.features.find import FindOptions, find_candidates
from adatom.features.novelty.frame import OodModel, describe
from adatom.features.refinement.fit import RefineOptions
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.predict import predict_tiles
from adatom.training.calibrate import held_out
from sheets import graphene_frame

OPTIONS = RefineOptions()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture(scope="module")
def ensemble():
    return weights.load_shipped("graphene")


@pytest.fixture(scope="module")
def distance(ensemble):
    novelty = OodModel.model_validate(ensemble.card["novelty"])

    def of(frame: Frame) -> tuple[float, float]:
        found = find_candidates(frame, predict_tiles(frame, ensemble), GRAPHENE, FindOptions())
        d = novelty.score(describe(*found, GRAPHENE, OPTIONS))
        return d, novelty.share_farther(d)

    return of


def test_frames_of_training_are_rarely_flagged(ensemble):
    frames = [f.frame for f in held_out(GRAPHENE, 781, 40) if len(f.xy)]
    flags = [flags_of(find_atoms(f, ensemble, GRAPHENE), ensemble.card) for f in frames]
    assert np.mean([f.is_out_of_distribution for f in flags]) <= 0.06
    assert np.mean([f.has_few_confident_atoms for f in flags]) <= 0.12  # those of fewest counts


def test_frames_of_graphene_have_a_low_score(distance):
    near = [distance(graphene_frame(300 + k, px=0.14, counts=c).frame)[0]
            for k, c in enumerate((0.5, 2.0, 8.0, 30.0))]  # fmt: skip
    near += [distance(f.frame)[0] for f in held_out(GRAPHENE, 778, 12) if len(f.xy)]
    assert np.median(near) < 0.8
    assert np.mean(np.array(near) < 1.2) > 0.75
