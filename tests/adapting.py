"""Pool and round runner for the tests of adaptation: real networks, no processes, no training."""

from concurrent.futures import Future
from dataclasses import replace
from typing import ClassVar

from adatom.training.adapt.options import AdaptOptions
from adatom.training.adapt.runner import RoundRunner

TINY = AdaptOptions(rounds=1, frames=2, steps=4, calibration_frames=24, validation_frames=4)


def validation_scores(atom=0.99, vacancy=0.9, foreign=0.95, sites=200.0):
    """F1 and number of sites as `RoundRunner.validate` gives them."""
    scores = {"atom": atom, "vacancy": vacancy, "foreign": foreign}
    return scores | {f"{kind} sites": sites for kind in scores}


class InThisProcess:
    """A pool that runs its jobs in this process."""

    def __init__(self, workers):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def map(self, job, items):
        return map(job, items)

    def submit(self, job, *words):
        future = Future()
        future.set_result(job(*words))
        return future


class Scripted(RoundRunner):
    """Analyses with the real networks; its training changes nothing, its F1 is prescribed."""

    f1: ClassVar[list] = []
    analyses: ClassVar[list] = []
    sources: ClassVar[list] = []
    weights: ClassVar[list] = []

    def analyse(self, frames, ensemble, *, scored=True):
        self.analyses.append((ensemble.members, scored))
        return super().analyse(frames, ensemble, scored=scored)

    def train(self, ensemble, source, number, weight=1.0):
        self.sources.append(source)
        self.weights.append(weight)
        return replace(ensemble, card={**ensemble.card, "trained": number})

    def calibrate(self, ensemble, simulated, number):
        return ensemble

    def validate(self, ensemble, imaging, number, factor=1.0, frames=None, *, clean=False):
        return validation_scores(atom=self.f1.pop(0))

    def detection_limit(self, ensemble, imaging):
        return 1.0
