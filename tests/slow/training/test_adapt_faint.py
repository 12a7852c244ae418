"""Iterative training on frames too faint for labels."""

import numpy as np
import pytest

from adapting import TINY, InThisProcess, Scripted
from adatom.core import GRAPHENE, Calibration, Frame
from adatom.errors import BadInput
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.materials.library import load_material
from adatom.parallel.progress import Silent
from adatom.training.adapt.checks import faint_conditions, require_material
from adatom.training.adapt.rounds import run_rounds
from adatom.training.adapt.simulated_like import SimulatedLike
from sheets import graphene_frame

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture(scope="module")
def shipped():
    return weights.load_shipped("graphene")


def faint_frame(seed, counts=0.012):
    return graphene_frame(seed, px=0.15, counts=counts, field=(38.0, 38.0)).frame


def faint_noise():
    data = np.random.default_rng(1).poisson(0.0065, (256, 256)).astype(np.float32)
    return Frame(data, Calibration(0.15))


def test_faint_noise_is_refused_and_faint_frames_of_the_lattice_are_not(shipped):
    """Half a count per atom: no atom is likely, but the spectrum shows the lattice."""
    runner = Scripted(InThisProcess(1), GRAPHENE, TINY, 0.15)
    small = shipped.with_members([0, 5])
    noise = runner.analyse([faint_noise()] * 4, small)
    assert faint_conditions(noise, GRAPHENE) is None
    with pytest.raises(BadInput, match="no lattice"):
        require_material(noise, GRAPHENE)
    seen = runner.analyse([faint_frame(i) for i in range(4)], small)
    assert faint_conditions(seen, GRAPHENE).counts.value == pytest.approx(0.012, rel=0.4)
    assert faint_conditions(seen, load_material("Pt-on-carbon")) is None
    assert faint_conditions(runner.analyse([graphene_frame(1).frame], small), GRAPHENE) is None


def test_for_faint_frames_training_uses_simulated_frames_only(shipped):
    Scripted.f1[:], Scripted.analyses[:], Scripted.sources[:] = [0.01, 0.5, 0.5, 0.6], [], []
    runner = Scripted(InThisProcess(1), GRAPHENE, TINY.model_copy(update={"rounds": 2}), 0.15)
    frames = [faint_frame(i) for i in range(4)]
    out = run_rounds(runner, frames, shipped.with_members([0, 5]), Silent())
    assert [type(s) for s in Scripted.sources] == [SimulatedLike, SimulatedLike]
    for done in out.rounds:
        assert done.accepted
        assert done.kept == [0, 1]
        assert (done.labels.kept, done.labels.added, done.labels.dropped) == (0, 0, 0)
    assert out.imaging.counts.value == pytest.approx(0.012, rel=0.4)
    source = Scripted.sources[0]
    drawn = [frame for k in range(20) for frame in source(np.random.default_rng(k))]
    counts = [float(np.mean(d.frame.data)) for d in drawn]
    assert 0.002 < np.median(counts) < 0.02
