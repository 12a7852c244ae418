"""Training of an ensemble in worker processes."""

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.synthesize import random_labelled
from adatom.learning.predict import predict
from adatom.learning.train import TrainOptions
from adatom.training.train import train_ensemble

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def frame():
    conditions = Conditions(pixel_size_A=0.15, counts=20.0)
    rng = np.random.default_rng(900_002)
    return random_labelled(GRAPHENE, rng, field_A=12.0, conditions=conditions).frame


def test_training_in_processes_gives_the_members_and_keeps_them(tmp_path, frame):
    options, done = TrainOptions(steps=2, batch=2, side_px=32, width=8, members=3), []
    ensemble = train_ensemble(
        GRAPHENE, options=options, workers=1, keep=tmp_path, progress=lambda *n: done.append(n)
    )
    assert done == [(1, 2), (2, 2)]
    assert ensemble.members == 3
    assert ensemble.card["training"] == options.model_dump()
    kept = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.safetensors")}
    assert len(kept) == 2
    again = train_ensemble(GRAPHENE, options=options, workers=1, keep=tmp_path)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.safetensors")} == kept
    before, after = (predict(frame, e).probabilities for e in (ensemble, again))
    assert np.abs(before - after).max() < 2e-3
