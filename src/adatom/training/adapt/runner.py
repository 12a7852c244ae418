"""The steps of a round of iterative training, on all cores: analyse, train, calibrate, validate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from adatom.analysis.frame import analyse_frame, find_atoms
from adatom.analysis.options import AnalysisOptions
from adatom.core import Frame, LabelledFrame, Lattice, Material
from adatom.core.imaging import Imaging
from adatom.features.calibration.calibrator import MATCH_A
from adatom.features.find import FindOptions, FoundAtoms
from adatom.features.member_scores import MemberScore, score_members
from adatom.features.refinement.refine import Optics
from adatom.frames.specimen.examine import examine
from adatom.learning.device import use_threads
from adatom.learning.ensemble import Ensemble, NetworkWeights
from adatom.learning.network import network_of, weights_of
from adatom.learning.predict import predict
from adatom.learning.train import TrainOptions, fit
from adatom.parallel.processes import cores
from adatom.training.adapt.options import AdaptOptions
from adatom.training.adapt.pseudo_labels import random_crop, with_fewer_counts
from adatom.training.adapt.simulated_like import SimulatedLike
from adatom.training.calibrate import collect_observations, with_calibration
from adatom.training.scores import Tally, ToolResult, result_of

# What validation scores, by the name of `Tally`. The keys stand in model cards.
KINDS = {"atom": "atom", "vacancy": "vacancy", "foreign": "Si"}
_FIELD_A = 28.0  # edge of a calibration or validation frame, Å at graphene's scale: 300 atoms
_BLANK = 16  # one calibration frame in this many shows no specimen: vacuum occurs in experiments
_LIKELY_P = 0.8  # p_exists of the atoms that the density of dispersed atoms counts
_LIMIT_F1 = 0.95  # F1 of atoms that defines the detection limit
_LIMIT_STEPS = 10  # largest number of factors of two in counts that the search tries
_LIMIT_FRAMES = 4  # simulated frames of each of its steps: about 1200 atoms
_LIMIT_NUMBER = 99  # number of a round, in the seed of these frames, that no real round has
_NOISY_SHARE = 0.5  # share of the crops of real frames that get more noise


@dataclass(frozen=True, slots=True, eq=False)
class ScoredFrame:
    """One frame with the result of an ensemble and the scores of its members.

    Parameters
    ----------
    frame
        The image.
    found
        Atoms and vacancies that the ensemble found.
    lattice
        Lattice fitted to the atoms; None if there is none.
    scores
        Score of each member; empty if they were not asked for.
    """

    frame: Frame
    found: FoundAtoms
    lattice: Lattice | None
    scores: list[MemberScore]


@dataclass(frozen=True, slots=True, eq=False)
class RealFrames:
    """Source of training frames: crops of labelled real frames, mixed with simulated frames.

    Half of the crops get more noise, as if taken with fewer counts.

    Parameters
    ----------
    labels
        Real frames with their pseudo-labels.
    optics
        Fitted probe and noise of each real frame.
    options
        Share of the real frames and range of the counts.
    simulated
        Source of the simulated frames.
    """

    labels: tuple[LabelledFrame, ...]
    optics: tuple[Optics, ...]
    options: AdaptOptions
    simulated: SimulatedLike

    def __call__(self, rng: np.random.Generator) -> list[LabelledFrame]:
        """Give one crop of a real frame or two simulated frames."""
        # Simulated frames come in pairs, so real ones must be drawn more often than their share.
        share = 2 * self.options.real_share / (1 + self.options.real_share)
        if rng.random() >= share:
            return self.simulated(rng)
        k = int(rng.integers(len(self.labels)))
        crop = random_crop(self.labels[k], self.simulated.field_A, rng)
        if rng.random() < _NOISY_SHARE:
            factor = self.options.fewer ** -rng.uniform(0.0, 1.0)
            noisy = with_fewer_counts(crop.frame, self.optics[k], factor, rng)
            crop = replace(crop, frame=noisy)
        return [crop]


@dataclass(frozen=True, slots=True, eq=False)
class RoundRunner:
    """Runs the steps of a round in a pool of processes.

    Parameters
    ----------
    pool
        Executor of the jobs.
    material
        Material that the frames show.
    options
        Options of the iterative training.
    pixel_size_A
        Pixel size of the frames as given by the user, Å.
    seed
        Seed of the training and of the simulated frames.
    find
        How atoms are found.
    density_A2
        Density of dispersed atoms in the experiment, atoms per Å²; None for a crystal.
    contrast
        Their median contrast to the texture of the support; None for a crystal.
    """

    pool: Executor
    material: Material
    options: AdaptOptions
    pixel_size_A: float
    seed: int = 0
    find: FindOptions = FindOptions()  # noqa: RUF009 (frozen)
    density_A2: float | None = None
    contrast: float | None = None

    def analyse(
        self, frames: list[Frame], ensemble: Ensemble, *, scored: bool = True
    ) -> list[ScoredFrame]:
        """Analyse frames with an ensemble, and score its members if `scored`."""
        job = partial(_analyse, ensemble, self.material, self.find, scored)
        return list(self.pool.map(job, frames))

    def simulated_like(self, imaging: Imaging, *, fewer: float | None = None) -> SimulatedLike:
        """Give a source of simulated frames under these conditions.

        Parameters
        ----------
        imaging
            Estimated conditions of the experiment.
        fewer
            Largest factor by which counts are reduced; by default that of the options.
        """
        field = _training(self.material).field_A
        scale = self.pixel_size_A / imaging.pixel_size_A.value
        return SimulatedLike(
            self.material, imaging, field, scale, fewer=fewer or self.options.fewer,
            density_A2=self.density_A2, contrast=self.contrast,
        )  # fmt: skip

    def train(
        self,
        ensemble: Ensemble,
        source: RealFrames | SimulatedLike,
        number: int,
        weight: float = 1.0,
    ) -> Ensemble:
        """Continue the training of every network, and average the old and the new weights.

        Parameters
        ----------
        ensemble
            Ensemble to start from; left unchanged. The new one has the same card.
        source
            Source of labelled frames.
        number
            Number of the round; part of the seed.
        weight
            Weight of the new weights in the average, 0 to 1.
        """
        jobs = [
            self.pool.submit(
                _train_network, network, source, self.options, self.material, [self.seed, number, i]
            )
            for i, network in enumerate(ensemble.networks)
        ]
        networks = tuple(job.result() for job in jobs)
        tuned = Ensemble(networks, ensemble.classes, ensemble.working, ensemble.card)
        return ensemble.blended(tuned, weight)

    def calibrate(self, ensemble: Ensemble, simulated: SimulatedLike, number: int) -> Ensemble:
        """Calibrate an ensemble on simulated frames; `number` of the round is part of the seed."""
        count, parts = self.options.calibration_frames, 2 * cores()
        shares = np.array_split(np.arange(count), parts)
        large = replace(simulated, field_A=_FIELD_A * self.material.scale)
        seed = [self.seed, number, 1]
        job = partial(_observe_simulated, ensemble, large, self.find, seed)
        observations, descriptions = [], []
        for observed, described in self.pool.map(job, [s.tolist() for s in shares]):
            observations += observed
            descriptions += described
        return with_calibration(ensemble, self.material, observations, descriptions, self.find)

    def validate(
        self, ensemble: Ensemble, imaging: Imaging, number: int, factor: float = 1.0,
        frames: int | None = None, *, clean: bool = False,
    ) -> dict[str, float]:  # fmt: skip
        """Score a calibrated ensemble on simulated frames under the conditions of the experiment.

        Parameters
        ----------
        ensemble
            Calibrated ensemble.
        imaging
            Conditions of the experiment.
        number
            Number of the round; part of the seed of the frames.
        factor
            Factor on the counts of the experiment.
        frames
            Number of frames; by default that of the options.
        clean
            Simulate no contamination. Atoms under contamination are lost at any dose.

        Returns
        -------
        F1 and, as ``"<kind> sites"``, the number of true sites for each kind of `KINDS`.
        """
        counts = replace(imaging.counts, value=imaging.counts.value * factor, sd=0.0)
        at_counts = replace(imaging, counts=counts)
        field = _FIELD_A * self.material.scale
        source = self.simulated_like(at_counts)
        source = replace(source, field_A=field, training_share=0.0, fewer=1.0)
        source = replace(source, contaminated=0.0) if clean else source
        job = partial(_find_in_simulated, ensemble, source, self.find, [self.seed, number, 2])
        tally = Tally(within_A=MATCH_A * self.material.scale)
        for truth, result in self.pool.map(job, range(frames or self.options.validation_frames)):
            tally.add(truth, result)
        scores = {kind: tally.f1(name) for kind, name in KINDS.items()}
        sites = {f"{kind} sites": float(tally.true.get(n, 0)) for kind, n in KINDS.items()}
        return scores | sites

    def detection_limit(self, ensemble: Ensemble, imaging: Imaging) -> float:
        """Find the lowest counts at which F1 of atoms reaches 0.95.

        The search steps by factors of two, then interpolates F1 in the logarithm of the counts.

        Returns
        -------
        Counts at the peak of a host atom; infinite if more counts do not help.
        """
        counts = imaging.counts.value

        def f1(k: int) -> float:
            scores = self.validate(
                ensemble, imaging, _LIMIT_NUMBER, 2.0**k, _LIMIT_FRAMES, clean=True
            )
            return scores["atom"]

        last = f1(0)
        step = 1 if last < _LIMIT_F1 else -1  # towards the limit: more counts, or fewer
        for k in range(step, step * (_LIMIT_STEPS + 1), step):
            now = f1(k)
            if (now < _LIMIT_F1) != (last < _LIMIT_F1):
                low, high = (last, now) if step > 0 else (now, last)
                share = (high - _LIMIT_F1) / max(high - low, 1e-9)
                return float(counts * 2.0 ** (max(k, k - step) - share))
            last = now
        return float("inf") if step > 0 else float(counts * 2.0**-_LIMIT_STEPS)


def blending_weight(scores: dict[str, float]) -> float:
    """Weight of the new network weights in the average with the old ones, by validation scores.

    If F1 of atoms was at least 0.95 before the round, old and new weights are averaged: a short
    training would otherwise lose about as much on rare classes as it gains. If it was lower, the
    new weights are used alone.

    Examples
    --------
    >>> from adatom.training.adapt.runner import blending_weight
    >>> blending_weight({"atom": 0.99}), blending_weight({"atom": 0.7})
    (0.5, 1.0)
    """
    return 0.5 if scores["atom"] >= _LIMIT_F1 else 1.0


def atom_density(scored: Sequence[ScoredFrame], material: Material) -> float | None:
    """Density of dispersed atoms, likely ones per Å², at least one; None for a crystal."""
    if material.has_lattice:
        return None
    count = area = 0.0
    for part in scored:
        w, h = part.frame.calibration.extent_xy(part.frame.shape)
        count += float((part.found.atoms.column("p_exists") > _LIKELY_P).sum())
        area += w * h * (1.0 - (part.frame.pixels.masked_share if part.frame.pixels else 0.0))
    return max(count, 1.0) / area


def support_contrast(scored: Sequence[ScoredFrame]) -> float | None:
    """Median contrast of the likely atoms to the texture of their support; None without one."""
    parts = []
    for part in scored:
        found = part.found
        contrast, likely = found.refined.texture_contrast, found.atoms.is_likely
        if contrast is not None and likely.any():
            near = cKDTree(found.candidates.xy).query(found.atoms.xy[likely])[1]
            parts.append(contrast[near])
    return float(np.median(np.concatenate(parts))) if parts else None


def _training(material: Material) -> TrainOptions:
    return TrainOptions().at_scale(material.scale)


def _analyse(
    ensemble: Ensemble, material: Material, options: FindOptions, scored: bool, frame: Frame
) -> ScoredFrame:
    use_threads(1)
    frame = examine(frame)
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


def _train_network(
    network: NetworkWeights, source: Callable[..., Any], options: AdaptOptions,
    material: Material, seeds: Sequence[int],
) -> NetworkWeights:  # fmt: skip
    """Train one network further; `seeds` are of the adaptation, the round and the network."""
    use_threads(1)
    own, number, which = seeds
    seed = 1_000_000 * (own + 1) + 1000 * number + which
    training = _training(material)
    tuned = fit(
        network_of(network), source, seed, training, steps=options.steps,
        learning_rate=options.learning_rate,
    )  # fmt: skip
    return weights_of(tuned)


def _observe_simulated(
    ensemble: Ensemble,
    simulated: SimulatedLike,
    options: FindOptions,
    seed: list[int],
    which: list[int],
) -> Any:
    use_threads(1)
    frames = []
    for i in which:
        rng = np.random.default_rng([*seed, i])
        frames.append(simulated.frame(rng, whole=i % 3 > 0, empty=i % _BLANK == _BLANK - 1))
    return collect_observations(ensemble, simulated.material, frames, options)


def _find_in_simulated(
    ensemble: Ensemble, simulated: SimulatedLike, options: FindOptions, seed: list[int], which: int
) -> tuple[LabelledFrame, ToolResult]:
    use_threads(1)
    truth = simulated.frame(np.random.default_rng([*seed, which]), whole=True)
    return truth, result_of(find_atoms(truth.frame, ensemble, simulated.material, options))
