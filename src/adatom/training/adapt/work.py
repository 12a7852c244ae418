"""What a round of iterative training is made of, on all cores: see, train, calibrate, guard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from adatom.analysis.frame import analyse_frame, find_atoms
from adatom.analysis.options import AnalysisOptions
from adatom.core import Frame, LabelledFrame, Lattice, Material
from adatom.core.imaging import Imaging
from adatom.features.calibration.calibrator import MATCH_A
from adatom.features.find import FindOptions, FoundAtoms
from adatom.features.member_scores import MemberScore, score_members
from adatom.features.refinement.refine import Optics
from adatom.learning.device import use_threads
from adatom.learning.ensemble import predict
from adatom.learning.network import Network
from adatom.learning.train import TrainOptions, fit
from adatom.learning.weights import Ensemble
from adatom.parallel.processes import cores
from adatom.training.adapt.options import AdaptOptions
from adatom.training.adapt.pseudo_labels import cut_out, with_fewer_counts
from adatom.training.adapt.simulated_like import SimulatedLike
from adatom.training.calibrate import observe, with_calibration
from adatom.training.scores import Answer, Tally, answer_of

KINDS = ("atom", "vacancy", "foreign")
_VALIDATION_FIELD_A = 28.0  # by graphene's pattern
_BLANK = 16  # one frame of a calibration in so many shows nothing, so that such are known
_SURE = 0.8
_LIMIT_F1 = 0.95
_LIMIT_STEPS = 10  # factors of two in counts, down from the frames' own, that are looked at
_LIMIT_FRAMES = 4


@dataclass(frozen=True, slots=True, eq=False)
class ScoredFrame:
    """One frame, as an ensemble sees it.

    Parameters
    ----------
    frame
        The image.
    found
        Its atoms.
    lattice
        Fitted to them; None where they have none.
    scores
        Of every member; empty where nobody asked.
    """

    frame: Frame
    found: FoundAtoms
    lattice: Lattice | None
    scores: list[MemberScore]


@dataclass(frozen=True, slots=True, eq=False)
class RealFrames:
    """Training frames: cut from the real ones, with and without more noise, or simulated."""

    labels: tuple[LabelledFrame, ...]
    optics: tuple[Optics, ...]
    options: AdaptOptions
    matched: SimulatedLike

    def __call__(self, rng: np.random.Generator) -> list[LabelledFrame]:
        """Draw a labelled frame or two."""
        # Simulated frames come in twos.
        share = 2 * self.options.real_share / (1 + self.options.real_share)
        if rng.random() >= share:
            return self.matched(rng)
        k = int(rng.integers(len(self.labels)))
        part = cut_out(self.labels[k], self.matched.field_A, rng)
        if rng.random() < 0.5:
            factor = self.options.fewer ** -rng.uniform(0.0, 1.0)
            noisy = with_fewer_counts(part.frame, self.optics[k], factor, rng)
            part = replace(part, frame=noisy)
        return [part]


@dataclass(frozen=True, slots=True, eq=False)
class RoundRunner:
    """What a round is made of, on all cores."""

    pool: Executor
    material: Material
    options: AdaptOptions
    pixel_size_A: float  # of the frames, as given
    seed: int = 0
    find: FindOptions = FindOptions()  # noqa: RUF009 (frozen)
    density_A2: float | None = None  # of dispersed atoms, as found

    def see(
        self, frames: list[Frame], ensemble: Ensemble, *, scored: bool = True
    ) -> list[ScoredFrame]:
        """Look at frames with an ensemble, and score its members."""
        job = partial(_see, ensemble, self.material, self.find, scored)
        return list(self.pool.map(job, frames))

    def matched(self, imaging: Imaging, *, fewer: float | None = None) -> SimulatedLike:
        """Give the source of simulated frames like the ones seen, and of some with fewer counts."""
        field = _training(self.material).field_A
        scale = self.pixel_size_A / imaging.pixel_size_A.value
        return SimulatedLike(
            self.material, imaging, field, scale, fewer=fewer or self.options.fewer,
            density_A2=self.density_A2,
        )  # fmt: skip

    def tune(
        self,
        ensemble: Ensemble,
        source: RealFrames | SimulatedLike,
        number: int,
        share: float = 1.0,
    ) -> Ensemble:
        """Train every network on, from where it stands, and take that share of the change.

        The card is the old one.
        """
        jobs = [
            self.pool.submit(
                _tune, network, source, self.options, self.material, [self.seed, number, i]
            )
            for i, network in enumerate(ensemble.networks)
        ]
        networks = tuple(job.result() for job in jobs)
        tuned = Ensemble(networks, ensemble.classes, ensemble.working, ensemble.card)
        return ensemble.blended(tuned, share)

    def calibrate(self, ensemble: Ensemble, matched: SimulatedLike, number: int) -> Ensemble:
        """Calibrate an ensemble on simulated frames with truth."""
        count, parts = self.options.calibration_frames, 2 * cores()
        shares = np.array_split(np.arange(count), parts)
        wide = replace(matched, field_A=_VALIDATION_FIELD_A * self.material.scale)
        seed = [self.seed, number, 1]
        job = partial(_observe, ensemble, wide, self.find, seed)
        observations, descriptions = [], []
        for some, more in self.pool.map(job, [s.tolist() for s in shares]):
            observations += some
            descriptions += more
        return with_calibration(ensemble, self.material, observations, descriptions, self.find)

    def validate(
        self, ensemble: Ensemble, imaging: Imaging, number: int, factor: float = 1.0,
        frames: int | None = None, *, clean: bool = False,
    ) -> dict[str, float]:  # fmt: skip
        """F1 of a calibrated ensemble on simulated frames under these conditions.

        Some of them have contamination, in which atoms are lost at any dose, unless `clean`.
        """
        counts = replace(imaging.counts, value=imaging.counts.value * factor, sd=0.0)
        like = replace(imaging, counts=counts)
        field = _VALIDATION_FIELD_A * self.material.scale
        scenes = replace(self.matched(like), field_A=field, wide=0.0, fewer=1.0)
        scenes = replace(scenes, contaminated=0.0) if clean else scenes
        job = partial(_answer, ensemble, scenes, self.find, [self.seed, number, 2])
        tally = Tally(within_A=MATCH_A * self.material.scale)
        for truth, answer in self.pool.map(job, range(frames or self.options.validation_frames)):
            tally.add(truth, answer)
        names = {"atom": "atom", "vacancy": "vacancy", "foreign": "Si"}
        out = {kind: tally.f1(name) for kind, name in names.items()}
        sites = {f"{kind} sites": float(tally.true.get(n, 0)) for kind, n in names.items()}
        return out | sites

    def detection_limit(self, ensemble: Ensemble, imaging: Imaging) -> float:
        """Counts at which F1 of atoms is `_LIMIT_F1`: by factors of two, then between the last.

        Infinite where more counts do not help.
        """
        counts = imaging.counts.value

        def f1(k: int) -> float:
            return self.validate(ensemble, imaging, 99, 2.0**k, _LIMIT_FRAMES, clean=True)["atom"]

        here = f1(0)
        step = 1 if here < _LIMIT_F1 else -1  # more counts until it is reached, or fewer until lost
        for k in range(step, step * (_LIMIT_STEPS + 1), step):
            there = f1(k)
            if (there < _LIMIT_F1) != (here < _LIMIT_F1):
                low, high = (here, there) if step > 0 else (there, here)
                share = (high - _LIMIT_F1) / max(high - low, 1e-9)
                return float(counts * 2.0 ** (max(k, k - step) - share))
            here = there
        return float("inf") if step > 0 else float(counts * 2.0**-_LIMIT_STEPS)


def change_taken(guard: dict[str, float]) -> float:
    """Share of a round's change that is taken, by the guard's scores before it.

    Who sees nothing has nothing to forget; who sees well would lose of what is rare about as much
    as he gains by a few hundred steps.
    """
    return 0.5 if guard["atom"] >= _LIMIT_F1 else 1.0


def _training(material: Material) -> TrainOptions:
    return TrainOptions().at_scale(material.scale)


def _see(
    ensemble: Ensemble, material: Material, options: FindOptions, scored: bool, frame: Frame
) -> ScoredFrame:
    use_threads(1)
    maps = predict(frame, ensemble)
    analysis = AnalysisOptions(find=options)
    result = analyse_frame(frame, ensemble, material, analysis, predictions=[maps])
    scores = []
    if scored:
        scores = score_members(
            [frame], [maps], material,
            locate_options=options.locate, refine_options=options.refine,
        )  # fmt: skip
    return ScoredFrame(frame, result.found, result.lattice, scores)


def _tune(
    network: Network, source: Callable[..., Any], options: AdaptOptions, material: Material,
    seeds: Sequence[int],
) -> Network:  # fmt: skip
    """Train one network; `seeds` are the experiment's, the round's and the network's number."""
    use_threads(1)
    own, number, which = seeds
    seed = 1_000_000 * (own + 1) + 1000 * number + which
    training = _training(material)
    return fit(
        deepcopy(network), source, seed, training, steps=options.steps,
        learning_rate=options.learning_rate,
    )  # fmt: skip


def _observe(
    ensemble: Ensemble,
    matched: SimulatedLike,
    options: FindOptions,
    seed: list[int],
    which: list[int],
) -> Any:
    use_threads(1)
    frames = []
    for i in which:
        rng = np.random.default_rng([*seed, i])
        frames.append(matched.frame(rng, whole=i % 3 > 0, empty=i % _BLANK == _BLANK - 1))
    return observe(ensemble, matched.material, frames, options)


def _answer(
    ensemble: Ensemble, matched: SimulatedLike, options: FindOptions, seed: list[int], which: int
) -> tuple[LabelledFrame, Answer]:
    use_threads(1)
    truth = matched.frame(np.random.default_rng([*seed, which]), whole=True)
    return truth, answer_of(find_atoms(truth.frame, ensemble, matched.material, options))


def density(seen: Sequence[ScoredFrame], material: Material) -> float | None:
    """Sure atoms to an Å², where no crystal says how many there are."""
    if material.has_lattice:
        return None
    count = area = 0.0
    for part in seen:
        w, h = part.frame.calibration.extent_xy(part.frame.shape)
        count += float((part.found.atoms.column("p_exists") > _SURE).sum())
        area += w * h
    return max(count, 1.0) / area
