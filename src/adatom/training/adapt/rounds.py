"""Iterative training: an ensemble retrains itself on the first frames of an experiment.

After Ghosh, Sumpter, Dyck, Kalinin and Ziatdinov, npj Comput. Mater. 7, 100 (2021), where a person
picked the good networks. Here each round (1) scores the members by the structure of the material,
(2) makes pseudo-labels with the members that are free of artefacts, (3) trains all members on these
labels and on simulated frames under the conditions of the experiment, and (4) validates the result
on simulated frames with known truth. A round that fails the validation is undone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from adatom.core import Frame, LabelledFrame, Material
from adatom.core.imaging import Imaging
from adatom.errors import BadInput
from adatom.features.conditions.estimate import estimate_imaging
from adatom.features.find import FindOptions
from adatom.features.member_scores import MemberScore, choose_members, mean_scores
from adatom.learning.device import threads_in_use
from adatom.learning.ensemble import Ensemble
from adatom.parallel.processes import cores, local_processes
from adatom.parallel.progress import Progress, Silent
from adatom.training.adapt.checks import (
    faint_conditions,
    passes_validation,
    require_material,
)
from adatom.training.adapt.options import AdaptOptions
from adatom.training.adapt.pseudo_labels import LabelChange, compare_labels, label_frame
from adatom.training.adapt.runner import (
    RealFrames,
    RoundRunner,
    ScoredFrame,
    atom_density,
    blending_weight,
    support_contrast,
)
from adatom.training.adapt.simulated_like import SimulatedLike

# Largest factor by which counts are reduced in the training for faint frames: their counts are
# hardly enough already.
_FAINT_REDUCTION = 2.0


@dataclass(frozen=True, slots=True)
class Round:
    """Record of one round.

    Parameters
    ----------
    number
        Number of the round, from 1.
    members
        Scores of all members before the training of this round.
    kept, dropped
        Members that made the pseudo-labels; the other members, each with the reason.
    labels
        Change of the labels since the previous round; in the first round all are new.
    before, after
        Validation scores before and after the training, see `RoundRunner.validate`.
    accepted
        Whether the round passed the validation; if not, it is undone.
    seconds
        Wall time, s.
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
    """An adapted ensemble and the record of its rounds.

    Parameters
    ----------
    ensemble
        Ensemble after the last round that passed the validation; its card has the rounds.
    rounds
        Record of each round.
    imaging
        Conditions of the frames, as estimated in the last round.
    detection_limit
        Lowest counts at the peak of a host atom at which F1 of atoms reaches 0.95 under these
        conditions, before and after the adaptation.
    """

    ensemble: Ensemble
    rounds: list[Round]
    imaging: Imaging
    detection_limit: tuple[float, float]

    @property
    def changed(self) -> bool:
        """Whether any round passed the validation; if not, the weights are unchanged."""
        return any(r.accepted for r in self.rounds)


def adapt(
    frames: Sequence[Frame],
    material: Material,
    ensemble: Ensemble,
    options: AdaptOptions | None = None,
    *,
    find_options: FindOptions | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Adapted:
    """Adapt an ensemble to an experiment on its first frames, without manual labels.

    Parameters
    ----------
    frames
        First frames of the experiment, all of one pixel size.
    material
        Material that they show.
    ensemble
        Calibrated ensemble; left unchanged.
    options
        See `AdaptOptions`.
    find_options
        How atoms are found; the adapted ensemble is calibrated for these options.
    seed
        Seed of the training and of the simulated frames.
    workers
        Number of processes; by default the number of cores.
    progress
        Receives the progress of the step ``rounds``.

    Raises
    ------
    BadInput
        If the ensemble was trained for other species, or if the frames do not show the material.
    """
    options, progress = options or AdaptOptions(), progress or Silent()
    if ensemble.species != material.species:
        raise BadInput(
            "the ensemble",
            expected=f"networks that see {', '.join(material.species)}",
            got=f"some that see {', '.join(ensemble.species)}",
            todo=f"Train them: `adatom train {material.name}`.",
        )
    first = list(frames)[: options.frames]
    if not first:
        raise BadInput(
            "adapt", expected="at least one frame", got="none", todo="Give the first frames."
        )
    progress.start("rounds", options.rounds, 0)
    # One thread: sums of several would differ in the last digits with their number.
    with threads_in_use(1), local_processes(workers or cores()) as pool:
        given = first[0].calibration.pixel_size_A
        find = find_options or FindOptions()
        runner = RoundRunner(pool, material, options, given, seed, find)
        out = run_rounds(runner, first, ensemble, progress)
    progress.finish("rounds")
    return out


def train_for(
    imaging: Imaging,
    material: Material,
    ensemble: Ensemble,
    options: AdaptOptions | None = None,
    *,
    pixel_size_A: float | None = None,
    seed: int = 0,
) -> Ensemble:
    """Train and calibrate an ensemble for known conditions, on simulated frames only.

    Parameters
    ----------
    imaging
        Conditions of the frames.
    material
        Material that the frames will show.
    ensemble
        Ensemble to start from; left unchanged.
    options
        Steps, learning rate and number of calibration frames.
    pixel_size_A
        Pixel size that the user will give, Å; by default the true one.
    seed
        Seed of the training and of the simulated frames.
    """
    options = options or AdaptOptions()
    with threads_in_use(1), local_processes(cores()) as pool:
        given = pixel_size_A or imaging.pixel_size_A.value
        runner = RoundRunner(pool, material, options, given, seed)
        simulated = runner.simulated_like(imaging)
        weight = blending_weight(runner.validate(ensemble, imaging, 0))
        tuned = runner.train(ensemble, simulated, 0, weight)
        return runner.calibrate(tuned, simulated, 0)


def run_rounds(
    runner: RoundRunner, frames: list[Frame], start: Ensemble, progress: Progress
) -> Adapted:
    """Run the rounds of an adaptation.

    Parameters
    ----------
    runner
        Does the steps of a round.
    frames
        First frames of the experiment.
    start
        Calibrated ensemble; left unchanged.
    progress
        Receives the progress of the step ``rounds``.

    Raises
    ------
    BadInput
        If the frames do not show the material.
    """
    options, best = runner.options, start
    scored = runner.analyse(frames, best)
    if faint_conditions(scored, runner.material) is None:
        require_material(scored, runner.material)
    rounds: list[Round] = []
    labels: list[LabelledFrame] = []
    for number in range(1, options.rounds + 1):
        started = time.perf_counter()
        training = _training_set(runner, frames, scored, best, labels)
        settled = bool(labels) and training.change.share < options.settled
        labels, imaging = training.labels, training.imaging
        if settled:
            break
        runner = replace(runner, density_A2=training.density_A2, contrast=training.contrast)
        before = runner.validate(best, imaging, number)
        tuned = runner.train(best, training.source, number, blending_weight(before))
        tuned = runner.calibrate(tuned, training.simulated, number)
        after = runner.validate(tuned, imaging, number)
        accepted = passes_validation(
            before, after, options.tolerance, must_gain=runner.material.has_support
        )
        rounds.append(
            Round(
                number, training.scores, training.kept, training.dropped, training.change,
                before, after, accepted, time.perf_counter() - started,
            )
        )  # fmt: skip
        progress.advance("rounds")
        if not accepted:
            break
        best = tuned
        scored = runner.analyse(frames, best)
    limit = runner.detection_limit(start, imaging), runner.detection_limit(best, imaging)
    record = {
        "adapted": {
            "rounds": [_round_record(r) for r in rounds],
            "imaging": asdict(imaging),
            "detection_limit_counts": [v if np.isfinite(v) else None for v in limit],
            "options": options.model_dump(),
            "seed": runner.seed,
        }
    }
    card = {**best.card, **record}
    return Adapted(replace(best, card=card), rounds, imaging, limit)


@dataclass(frozen=True, slots=True, eq=False)
class _TrainingSet:
    """Source of the training frames of a round, and what it was made from."""

    source: RealFrames | SimulatedLike
    simulated: SimulatedLike
    imaging: Imaging
    labels: list[LabelledFrame]
    change: LabelChange
    scores: list[MemberScore]
    kept: list[int]
    dropped: dict[int, str]
    density_A2: float | None = None
    contrast: float | None = None


def _training_set(
    runner: RoundRunner,
    frames: list[Frame],
    scored: list[ScoredFrame],
    best: Ensemble,
    labels: list[LabelledFrame],
) -> _TrainingSet:
    """Make pseudo-labels and a source of simulated frames; of faint frames the latter only."""
    scores = mean_scores([s.scores for s in scored])
    faint = faint_conditions(scored, runner.material)
    if faint is not None:  # no labels, and no score of the members
        simulated = runner.simulated_like(faint, fewer=_FAINT_REDUCTION)
        every = list(range(best.members))
        change = compare_labels([], [])
        return _TrainingSet(simulated, simulated, faint, [], change, scores, every, {})
    kept, dropped = choose_members(scores)
    analysed = (
        scored if not dropped else runner.analyse(frames, best.with_members(kept), scored=False)
    )
    imaging = _estimate_imaging(analysed, runner.material)
    new_labels = [label_frame(s.found, runner.material) for s in analysed]
    change = compare_labels(labels or [_without_labels(f) for f in new_labels], new_labels)
    density, contrast = atom_density(analysed, runner.material), support_contrast(analysed)
    like = replace(runner, density_A2=density, contrast=contrast)
    simulated = like.simulated_like(imaging)
    optics = tuple(s.found.refined.optics for s in analysed)
    source = RealFrames(tuple(new_labels), optics, runner.options, simulated)
    return _TrainingSet(
        source,
        simulated,
        imaging,
        new_labels,
        change,
        scores,
        kept,
        dropped,
        density,
        contrast,
    )


def _round_record(done: Round) -> dict[str, Any]:
    plain = asdict(done)
    plain["dropped"] = {str(m): why for m, why in done.dropped.items()}
    plain["members"] = [
        {k: (v if np.isfinite(v) else None) for k, v in asdict(s).items()} for s in done.members
    ]
    return plain


def _without_labels(labelled: LabelledFrame) -> LabelledFrame:
    none = np.zeros((0, 2))
    return replace(labelled, xy=none, species=np.zeros(0, dtype=np.int64), vacancies_xy=none)


def _estimate_imaging(scored: Sequence[ScoredFrame], material: Material) -> Imaging:
    return estimate_imaging(
        [s.frame for s in scored], [s.found for s in scored], material,
        lattices=[s.lattice for s in scored],
    )  # fmt: skip
