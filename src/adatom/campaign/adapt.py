"""Iterative training: an ensemble retrains itself on the first frames of an experiment.

Ghosh, Sumpter, Dyck, Kalinin and Ziatdinov, npj Comput. Mater. 7, 100 (2021), with a guard in the
place of the person who picked the networks there: each round's members are scored by what a
material must look like, its labels come from those that are free of artefacts, and it is taken
back where it finds less in simulated frames, under the conditions of the experiment, whose truth
is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from adatom.campaign.adapt_options import AdaptOptions
from adatom.campaign.assess import observe, with_calibration
from adatom.campaign.executors import cores, local_processes
from adatom.campaign.matched import Matched
from adatom.campaign.perception import calibrator_of
from adatom.campaign.progress import Progress, Silent
from adatom.campaign.pseudo import (
    LabelChange,
    compare_labels,
    cut_out,
    label_frame,
    with_fewer_counts,
)
from adatom.campaign.score import Answer, Tally
from adatom.core import Frame, LabelledFrame, Lattice, Material
from adatom.core.imaging import Imaging
from adatom.errors import BadInput
from adatom.features.artefacts import MemberScore, choose_members, mean_scores, score_members
from adatom.features.find import Found, find
from adatom.features.imaging import estimate_imaging
from adatom.features.refine import Optics
from adatom.frames.calibrate import TRUSTED_CONTRAST, estimate_scale, fit_lattice
from adatom.learning import weights
from adatom.learning.ensemble import predict
from adatom.learning.network import Network
from adatom.learning.train import TrainOptions, fit
from adatom.learning.weights import Ensemble

_KINDS = ("atom", "vacancy", "foreign")
_GUARD_FIELD_A = 28.0
_BLANK = 16  # one frame of a calibration in so many shows nothing, so that such are known
_SCALE_OFF = 0.08
_LIKE, _ON_SITE = 0.4, 0.5  # shares: of right neighbours, of atoms on a site
_SURE = 0.8
_LIMIT_F1 = 0.95
_LIMIT_STEPS = 10  # factors of two in counts, down from the frames' own, that are looked at
_LIMIT_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did.

    Parameters
    ----------
    number
        From 1.
    members
        Scores of all members, before this round's training.
    kept, dropped
        Members whose labels were used; and why each other one was not.
    labels
        Change of the labels against the round before; all are new in the first.
    before, after
        F1 of the guard's atoms, vacancies and foreign atoms, before and after training.
    accepted
        Whether the guard let it pass; if not, the ensemble is that of the round before.
    seconds
        Wall time.
    """

    number: int
    members: list[MemberScore]
    kept: list[int]
    dropped: dict[int, str]
    labels: LabelChange
    before: dict[str, float]
    after: dict[str, float]
    accepted: bool
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Adapted:
    """An adapted ensemble and how it came to be.

    Parameters
    ----------
    ensemble
        The best that the guard let pass; its card tells the rounds.
    rounds
        What each did.
    imaging
        Conditions of the frames, by the last round.
    detection_limit
        Lowest counts at a host atom's peak at which F1 of atoms reaches 0.95 under these
        conditions, before and after.
    """

    ensemble: Ensemble
    rounds: list[Round]
    imaging: Imaging
    detection_limit: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """One frame, as the present ensemble sees it."""

    frame: Frame
    found: Found
    lattice: Lattice | None
    scores: list[MemberScore]


def adapt(
    frames: Sequence[Frame],
    material: Material,
    ensemble: Ensemble,
    options: AdaptOptions | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Adapted:
    """Adapt an ensemble to an experiment by its first frames, without a label.

    Parameters
    ----------
    frames
        First frames of the experiment, of one scale.
    material
        What they show.
    ensemble
        Calibrated; left as it is.
    options
        See `AdaptOptions`.
    workers
        Processes at a time; the number of cores by default.
    progress
        Told of every round.

    Raises
    ------
    BadInput
        If the ensemble sees other species, or no frame shows enough atoms to learn from.
    """
    options, progress = options or AdaptOptions(), progress or Silent()
    if ensemble.species != material.species:
        raise BadInput(
            "the ensemble",
            expected=f"networks that see {', '.join(material.species)}",
            got=f"some that see {', '.join(ensemble.species)}",
            todo=f"Train them: adatom train {material.name}.",
        )
    first = list(frames)[: options.frames]
    if not first:
        raise BadInput(
            "adapt", expected="at least one frame", got="none", todo="Give the first frames."
        )
    progress.start("adapt", options.rounds, 0)
    with local_processes(workers or cores()) as pool:
        work = _Work(pool, material, options, first[0].calibration.pixel_size_A)
        out = _rounds(work, first, ensemble, progress)
    progress.finish("adapt")
    return out


def tune_on(
    imaging: Imaging,
    material: Material,
    ensemble: Ensemble,
    options: AdaptOptions | None = None,
    *,
    pixel_size_A: float | None = None,
) -> Ensemble:
    """Train and calibrate an ensemble for known conditions, on simulated frames alone.

    Parameters
    ----------
    imaging
        The conditions.
    material
        What the frames will show.
    ensemble
        What to start from; left as it is.
    options
        Steps, learning rate, calibration.
    pixel_size_A
        As it will be given, Å; by default the true one.
    """
    options = options or AdaptOptions()
    with local_processes(cores()) as pool:
        given = pixel_size_A or imaging.pixel_size_A.value
        work = _Work(pool, material, options, given)
        matched = work.matched(imaging)
        tuned = work.tune(ensemble, matched, 0)
        return work.calibrate(tuned, matched, 0)


def _rounds(work: _Work, frames: list[Frame], start: Ensemble, progress: Progress) -> Adapted:
    options, best = work.options, start
    seen = work.see(frames, best)
    _refuse_other(seen, work.material)
    rounds: list[Round] = []
    labels: list[LabelledFrame] = []
    imaging = _imaging(seen, work.material)
    for number in range(1, options.rounds + 1):
        began = time.perf_counter()
        scores = mean_scores([s.scores for s in seen])
        kept, dropped = choose_members(scores)
        own = seen if not dropped else work.see(frames, best.with_members(kept), scored=False)
        imaging = _imaging(own, work.material)
        fresh = [label_frame(s.frame, s.found, work.material) for s in own]
        change = compare_labels(labels or [_without(f) for f in fresh], fresh)
        labels = fresh
        if number > 1 and change.share < options.settled:
            break
        work = replace(work, density_A2=_density(own, work.material))
        matched = work.matched(imaging)
        real = _Real(tuple(labels), tuple(s.found.refined.optics for s in own), options, matched)
        tuned = work.tune(best, real, number)
        tuned = work.calibrate(tuned, matched, number)
        before, after = (work.guard(e, imaging, number) for e in (best, tuned))
        accepted = _passes(before, after, options.tolerance)
        rounds.append(
            Round(
                number, scores, kept, dropped, change, before, after, accepted,
                time.perf_counter() - began,
            )
        )  # fmt: skip
        progress.advance("adapt")
        if not accepted:
            break
        best = tuned
        seen = work.see(frames, best)
    limit = work.detection_limit(start, imaging), work.detection_limit(best, imaging)
    story = {
        "adapted": {
            "rounds": [_plain(r) for r in rounds],
            "imaging": asdict(imaging),
            "detection_limit_counts": [v if np.isfinite(v) else None for v in limit],
            "options": options.model_dump(),
        }
    }
    card = {**best.card, **story}
    return Adapted(replace(best, card=card), rounds, imaging, limit)


def _refuse_other(seen: Sequence[_Seen], material: Material) -> None:
    """Refuse frames that do not show the material: networks would learn to see it everywhere."""
    if material.form == "atoms":
        return
    best = [max(np.nan_to_num(s.coordination) for s in part.scores) for part in seen]
    on_sites = [part.lattice is not None and part.lattice.matched > _ON_SITE for part in seen]
    if max(best) < _LIKE or not (any(on_sites) or _has_reflections(seen, material)):
        raise BadInput(
            "the first frames",
            expected=f"atoms that stand as in {material.name}, "
            f"most with {material.coordination} neighbours",
            got=f"{100 * max(best):.0f} % with so many, in the best frame",
            todo="Check --material and --pixel-size; a bilayer, another crystal or noise cannot be "
            "learned as this one.",
        )


def _has_reflections(seen: Sequence[_Seen], material: Material) -> bool:
    """Whether the frames' spectrum has the lattice, where single atoms are too faint to fit one."""
    px = seen[0].frame.calibration.pixel_size_A
    found = estimate_scale([s.frame.data for s in seen], material, expected_A=px)
    near = abs(found.pixel_size_A / px - 1.0) < _SCALE_OFF
    return near and found.contrast >= TRUSTED_CONTRAST


def _plain(done: Round) -> dict[str, Any]:
    plain = asdict(done)
    plain["dropped"] = {str(m): why for m, why in done.dropped.items()}
    plain["members"] = [
        {k: (v if np.isfinite(v) else None) for k, v in asdict(s).items()} for s in done.members
    ]
    return plain


def _without(labelled: LabelledFrame) -> LabelledFrame:
    none = np.zeros((0, 2))
    return replace(labelled, xy=none, species=np.zeros(0, dtype=np.int64), vacancies_xy=none)


def _imaging(seen: Sequence[_Seen], material: Material) -> Imaging:
    return estimate_imaging(
        [s.frame for s in seen], [s.found for s in seen], material,
        lattices=[s.lattice for s in seen],
    )  # fmt: skip


def _density(seen: Sequence[_Seen], material: Material) -> float | None:
    """Sure atoms to an Å², where no crystal says how many there are."""
    if material.form != "atoms":
        return None
    count = area = 0.0
    for part in seen:
        w, h = part.frame.calibration.extent_xy(part.frame.shape)
        count += float((part.found.atoms.column("p_exists") > _SURE).sum())
        area += w * h
    return max(count, 1.0) / area


def _passes(before: dict[str, float], after: dict[str, float], tolerance: float) -> bool:
    """Whether nothing got worse by more than the guard's few sites make likely."""
    for kind in _KINDS:
        count = max(before[f"{kind} sites"], 1.0)
        chance = 1.5 * np.sqrt(max(before[kind] * (1 - before[kind]), 0.5 / count) / count)
        if after[kind] < before[kind] - max(tolerance, float(chance)):
            return False
    return True


@dataclass(frozen=True, slots=True, eq=False)
class _Real:
    """Training frames: cut from the real ones, with and without more noise, or simulated."""

    labels: tuple[LabelledFrame, ...]
    optics: tuple[Optics, ...]
    options: AdaptOptions
    matched: Matched

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
class _Work:
    """What a round is made of, on all cores."""

    pool: Executor
    material: Material
    options: AdaptOptions
    pixel_size_A: float  # of the frames, as given
    density_A2: float | None = None  # of dispersed atoms, as found

    def see(self, frames: list[Frame], ensemble: Ensemble, *, scored: bool = True) -> list[_Seen]:
        job = partial(_see, ensemble, self.material, scored)
        return list(self.pool.map(job, frames))

    def matched(self, imaging: Imaging) -> Matched:
        field = _training(self.material).field_A
        scale = self.pixel_size_A / imaging.pixel_size_A.value
        return Matched(
            self.material, imaging, field, scale, fewer=self.options.fewer,
            density_A2=self.density_A2,
        )  # fmt: skip

    def tune(self, ensemble: Ensemble, source: _Real | Matched, number: int) -> Ensemble:
        jobs = [
            self.pool.submit(_tune, network, source, self.options, self.material, number, i)
            for i, network in enumerate(ensemble.networks)
        ]
        networks = tuple(job.result() for job in jobs)
        return Ensemble(networks, ensemble.classes, ensemble.working, ensemble.card)

    def calibrate(self, ensemble: Ensemble, matched: Matched, number: int) -> Ensemble:
        count, parts = self.options.calibration_frames, 2 * cores()
        shares = np.array_split(np.arange(count), parts)
        wide = replace(matched, field_A=_GUARD_FIELD_A * self.material.scale)
        seed = [self.options.seed, number, 1]
        job = partial(_observe, ensemble, wide, seed)
        observations, descriptions = [], []
        for some, more in self.pool.map(job, [s.tolist() for s in shares]):
            observations += some
            descriptions += more
        return with_calibration(ensemble, observations, descriptions)

    def guard(
        self, ensemble: Ensemble, imaging: Imaging, number: int, factor: float = 1.0,
        frames: int | None = None,
    ) -> dict[str, float]:  # fmt: skip
        """F1 of a calibrated ensemble on simulated frames under these conditions."""
        counts = replace(imaging.counts, value=imaging.counts.value * factor, sd=0.0)
        like = replace(imaging, counts=counts)
        field = _GUARD_FIELD_A * self.material.scale
        scenes = replace(self.matched(like), field_A=field, wide=0.0, fewer=1.0)
        job = partial(_answer, ensemble, scenes, [self.options.seed, number, 2])
        tally = Tally()
        for truth, answer in self.pool.map(job, range(frames or self.options.guard_frames)):
            tally.add(truth, answer)
        names = {"atom": "atom", "vacancy": "vacancy", "foreign": "Si"}
        out = {kind: tally.f1(name) for kind, name in names.items()}
        sites = {f"{kind} sites": float(tally.true.get(n, 0)) for kind, n in names.items()}
        return out | sites

    def detection_limit(self, ensemble: Ensemble, imaging: Imaging) -> float:
        """Lowest counts at which atoms are found: by halves, then between the last two."""
        counts, above = imaging.counts.value, (np.inf, 1.0)
        for k in range(_LIMIT_STEPS):
            factor = 2.0**-k
            f1 = self.guard(ensemble, imaging, 99, factor, _LIMIT_FRAMES)["atom"]
            if f1 < _LIMIT_F1:
                if not np.isfinite(above[0]):
                    return float("inf")
                share = (above[1] - _LIMIT_F1) / max(above[1] - f1, 1e-9)
                return float(counts * above[0] * 2.0**-share)
            above = (factor, f1)
        return float(counts * above[0])


def _training(material: Material) -> TrainOptions:
    return TrainOptions().at_scale(material.scale)


def _see(ensemble: Ensemble, material: Material, scored: bool, frame: Frame) -> _Seen:
    weights.threads(1)
    maps = predict(frame, ensemble)
    found = find(frame, [maps], material, calibrator_of(ensemble))
    sure = found.atoms.column("p_exists") > 0.5
    host = sure & (found.atoms.elements == material.host)
    lattice = fit_lattice(found.atoms.xy[host], material, others_xy=found.atoms.xy[sure & ~host])
    scores = score_members([frame], [maps], material) if scored else []
    return _Seen(frame, found, lattice, scores)


def _tune(
    network: Network, source: Callable[..., Any], options: AdaptOptions, material: Material,
    number: int, which: int,
) -> Network:  # fmt: skip
    weights.threads(1)
    seed = 1_000_000 * (options.seed + 1) + 1000 * number + which
    training = _training(material)
    return fit(
        deepcopy(network), source, seed, training, steps=options.steps,
        learning_rate=options.learning_rate,
    )  # fmt: skip


def _observe(ensemble: Ensemble, matched: Matched, seed: list[int], which: list[int]) -> Any:
    weights.threads(1)
    frames = []
    for i in which:
        rng = np.random.default_rng([*seed, i])
        frames.append(matched.frame(rng, whole=i % 3 > 0, empty=i % _BLANK == _BLANK - 1))
    return observe(ensemble, matched.material, frames)


def _answer(
    ensemble: Ensemble, matched: Matched, seed: list[int], which: int
) -> tuple[LabelledFrame, Answer]:
    weights.threads(1)
    truth = matched.frame(np.random.default_rng([*seed, which]), whole=True)
    found = find(truth.frame, [predict(truth.frame, ensemble)], matched.material,
                 calibrator_of(ensemble))  # fmt: skip
    table = found.atoms
    return truth, Answer(
        table.xy, table.elements, table.data.select("sigma_x_A", "sigma_y_A").to_numpy(),
        table.column("p_exists"), table.column("p_element"),
        found.vacancies_xy[found.p_empty > 0.5],
    )  # fmt: skip
