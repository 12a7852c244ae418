"""The ensemble of a running experiment changes between frames and never within one."""

import threading

import pytest

from adatom.core import GRAPHENE
from adatom.errors import BadInput
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.training.adapt.live_ensemble import LiveEnsemble
from adatom.training.adapt.rounds import Adapted
from sheets import graphene_frame


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture(scope="module")
def shipped():
    return weights.load_shipped("graphene")


class Retraining:
    """In the place of `adapt`: waits until `end`, then gives a result or refuses the frames."""

    def __init__(self, *results):
        self.results = list(results)
        self.calls = []
        self.go, self.began = threading.Event(), threading.Event()

    def __call__(self, frames, ensemble):
        self.calls.append((frames, ensemble))
        self.began.set()
        assert self.go.wait(20)
        self.go.clear()
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return Adapted(result, [], None, (0.0, 0.0))

    def end(self, live):
        """Let it end, and wait until it has."""
        assert self.began.wait(20)
        self.began.clear()
        assert not live.wait(0.0)
        self.go.set()
        assert live.wait(20)


@pytest.fixture
def three(shipped):
    return [shipped.with_members([k]) for k in (0, 1, 2)]


@pytest.fixture
def frames():
    return [graphene_frame(1, px=0.15, field=(8.0, 8.0)).frame]


def test_a_new_ensemble_takes_over_at_the_next_call_of_current(three, frames):
    first, second, third = three
    work = Retraining(second, third)
    live = LiveEnsemble(first, GRAPHENE, work)
    assert live.current() is first
    assert live.adapt_to(frames)
    for _ in range(3):  # while it trains, frames are found with what there is
        assert live.current() is first
    assert not live.adapt_to(frames), "two at a time"
    work.end(live)
    assert live.current() is second
    assert live.current() is second
    assert live.adapt_to(frames)
    work.end(live)
    assert live.current() is third
    live.close()
    assert len(work.calls) == 2
    assert [e for _, e in work.calls] == [first, second]  # each goes on from the newest


def test_no_adaptation_starts_before_the_last_result_was_taken(three, frames):
    first, second, _ = three
    work = Retraining(second)
    live = LiveEnsemble(first, GRAPHENE, work)
    live.adapt_to(frames)
    work.end(live)
    assert not live.adapt_to(frames)  # what is ready comes first
    assert live.current() is second
    live.close()


def test_refused_frames_raise_once_and_the_ensemble_stays(three, frames):
    first, second, _ = three
    refusal = BadInput("the first frames", expected="graphene", got="noise", todo="Look.")
    work = Retraining(refusal, second)
    live = LiveEnsemble(first, GRAPHENE, work)
    live.adapt_to(frames)
    work.end(live)
    with pytest.raises(BadInput, match="got noise"):
        live.current()
    assert live.current() is first
    assert live.adapt_to(frames)  # and it can be tried again
    work.end(live)
    assert live.current() is second
    live.close()


def test_frames_are_those_at_the_time_of_the_call(three, frames):
    first, second, _ = three
    work = Retraining(second)
    live = LiveEnsemble(first, GRAPHENE, work)
    given = list(frames)
    live.adapt_to(given)
    given.clear()  # the microscope goes on
    work.end(live)
    assert work.calls[0][0] == frames
    live.close()
    assert live.current() is second


def test_of_many_threads_one_starts_the_adaptation(three, frames):
    first, second, _ = three
    work = Retraining(second)
    live = LiveEnsemble(first, GRAPHENE, work)
    begun = []
    threads = [
        threading.Thread(target=lambda: begun.append(live.adapt_to(frames))) for _ in "abcdef"
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(begun) == [False] * 5 + [True]
    work.end(live)
    assert live.current() is second
    live.close()
