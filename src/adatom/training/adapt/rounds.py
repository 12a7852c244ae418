"""Iterative training: an ensemble retrains itself on the first frames of an experiment.

Ghosh, Sumpter, Dyck, Kalinin and Ziatdinov, npj Comput. Mater. 7, 100 (2021), with a guard in the
place of the person who picked the networks there: each round's members are scored by what a
material must look like, its labels come from those that are free of artefacts, and it is taken
back where it finds less in simulated frames, under the conditions of the experiment, whose truth
is known.
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
from adatom.frames.lattice.faint import estimate_faint, lattice_evidence
from adatom.frames.lattice.spectrum import TRUSTED_CONTRAST, estimate_scale
from adatom.learning.weights import Ensemble
from adatom.parallel.processes import cores, local_processes
from adatom.parallel.progress import Progress, Silent
from adatom.training.adapt.options import AdaptOptions
from adatom.training.adapt.pseudo_labels import LabelChange, compare_labels, label_frame
from adatom.training.adapt.simulated_like import SimulatedLike
from adatom.training.adapt.work import (
    KINDS,
    RealFrames,
    RoundRunner,
    ScoredFrame,
    change_taken,
    density,
)

_SCALE_OFF = 0.08  # of the pixel size, by the spectrum: farther off it is another lattice
_LIKE, _ON_SITE = 0.4, 0.5  # shares: of right neighbours, of atoms on a site
_FEW_SURE = 0.4  # of the lattice's sites
_LITTLE_FEWER = 2.0  # of counts that are hardly enough, training goes down to half
_EVIDENCE = 4.0  # for a lattice in faint frames: noise shows as much once in ten thousand times


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

    @property
    def changed(self) -> bool:
        """Whether any round passed its validation: if not, the weights are as they were."""
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
    find_options
        How atoms are found, here and with the adapted ensemble; it is calibrated for them.
    seed
        Seed of the training and of the simulated frames.
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
    progress.start("rounds", options.rounds, 0)
    with local_processes(workers or cores()) as pool:
        given = first[0].calibration.pixel_size_A
        find = find_options or FindOptions()
        work = RoundRunner(pool, material, options, given, seed, find)
        out = _rounds(work, first, ensemble, progress)
    progress.finish("rounds")
    return out


def tune_on(
    imaging: Imaging,
    material: Material,
    ensemble: Ensemble,
    options: AdaptOptions | None = None,
    *,
    pixel_size_A: float | None = None,
    seed: int = 0,
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
    seed
        Seed of the training and of the simulated frames.
    """
    options = options or AdaptOptions()
    with local_processes(cores()) as pool:
        given = pixel_size_A or imaging.pixel_size_A.value
        work = RoundRunner(pool, material, options, given, seed)
        matched = work.matched(imaging)
        tuned = work.tune(ensemble, matched, 0, change_taken(work.validate(ensemble, imaging, 0)))
        return work.calibrate(tuned, matched, 0)


def _rounds(work: RoundRunner, frames: list[Frame], start: Ensemble, progress: Progress) -> Adapted:
    options, best = work.options, start
    seen = work.see(frames, best)
    if _faint(seen, work.material) is None:
        _refuse_other(seen, work.material)
    rounds: list[Round] = []
    labels: list[LabelledFrame] = []
    for number in range(1, options.rounds + 1):
        began = time.perf_counter()
        lesson = _training_set(work, frames, seen, best, labels)
        settled = bool(labels) and lesson.change.share < options.settled
        labels, imaging = lesson.labels, lesson.imaging
        if settled:
            break
        work = replace(work, density_A2=lesson.density_A2)
        before = work.validate(best, imaging, number)
        tuned = work.tune(best, lesson.source, number, change_taken(before))
        tuned = work.calibrate(tuned, lesson.matched, number)
        after = work.validate(tuned, imaging, number)
        accepted = _passes(before, after, options.tolerance)
        rounds.append(
            Round(
                number, lesson.scores, lesson.kept, lesson.dropped, lesson.change, before, after,
                accepted, time.perf_counter() - began,
            )
        )  # fmt: skip
        progress.advance("rounds")
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


@dataclass(frozen=True, slots=True, eq=False)
class _TrainingSet:
    """What a round learns from, and what was made of the frames for it."""

    source: RealFrames | SimulatedLike
    matched: SimulatedLike
    imaging: Imaging
    labels: list[LabelledFrame]
    change: LabelChange
    scores: list[MemberScore]
    kept: list[int]
    dropped: dict[int, str]
    density_A2: float | None = None


def _training_set(
    work: RoundRunner,
    frames: list[Frame],
    seen: list[ScoredFrame],
    best: Ensemble,
    labels: list[LabelledFrame],
) -> _TrainingSet:
    """Label the frames and simulate others like them; of faint ones simulate only."""
    scores = mean_scores([s.scores for s in seen])
    faint = _faint(seen, work.material)
    if faint is not None:  # nobody can make labels of them, nor tell good members from bad
        matched = work.matched(faint, fewer=_LITTLE_FEWER)
        every = list(range(best.members))
        change = compare_labels([], [])
        return _TrainingSet(matched, matched, faint, [], change, scores, every, {})
    kept, dropped = choose_members(scores)
    own = seen if not dropped else work.see(frames, best.with_members(kept), scored=False)
    imaging = _imaging(own, work.material)
    fresh = [label_frame(s.frame, s.found, work.material) for s in own]
    change = compare_labels(labels or [_without(f) for f in fresh], fresh)
    found = density(own, work.material)
    matched = replace(work, density_A2=found).matched(imaging)
    optics = tuple(s.found.refined.optics for s in own)
    source = RealFrames(tuple(fresh), optics, work.options, matched)
    return _TrainingSet(source, matched, imaging, fresh, change, scores, kept, dropped, found)


def _faint(seen: Sequence[ScoredFrame], material: Material) -> Imaging | None:
    """Conditions of frames that show the lattice but no sure atoms; None for any others.

    Of such frames nobody can make labels. Networks learn to see them from simulated ones.
    """
    if not material.has_lattice:
        return None
    frames = [s.frame for s in seen]
    areas = [np.prod(f.calibration.extent_xy(f.shape)) for f in frames]
    sure = sum(int((s.found.atoms.column("p_exists") > 0.5).sum()) for s in seen)
    if sure * material.site_area_A2 > _FEW_SURE * sum(areas):
        return None
    imaging = estimate_faint(frames, material)
    if imaging is None or lattice_evidence(frames, material) < _EVIDENCE:
        return None
    return imaging


def _refuse_other(seen: Sequence[ScoredFrame], material: Material) -> None:
    """Refuse frames that do not show the material: networks would learn to see it everywhere."""
    if not material.has_lattice:
        return
    best = max(np.nan_to_num(s.coordination) for part in seen for s in part.scores)
    on_sites = [part.lattice is not None and part.lattice.matched > _ON_SITE for part in seen]
    ordered = any(on_sites) or _has_reflections(seen, material)
    if best < _LIKE or not ordered:
        raise BadInput(
            "the first frames",
            expected=f"atoms that stand as in {material.name}: its lattice, and at least "
            f"{100 * _LIKE:.0f} % with {material.coordination} neighbours",
            got=f"{100 * best:.0f} % with so many in the best frame, "
            + ("on its lattice" if ordered else "and no lattice"),
            todo="Check `material` and `pixel_size_A`; a bilayer, another crystal or noise cannot "
            "be learned as this one.",
        )


def _has_reflections(seen: Sequence[ScoredFrame], material: Material) -> bool:
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


def _imaging(seen: Sequence[ScoredFrame], material: Material) -> Imaging:
    return estimate_imaging(
        [s.frame for s in seen], [s.found for s in seen], material,
        lattices=[s.lattice for s in seen],
    )  # fmt: skip


def _passes(before: dict[str, float], after: dict[str, float], tolerance: float) -> bool:
    """Whether nothing got worse by more than the guard's few sites make likely."""
    for kind in KINDS:
        count = max(before[f"{kind} sites"], 1.0)
        chance = 1.5 * np.sqrt(max(before[kind] * (1 - before[kind]), 0.5 / count) / count)
        if after[kind] < before[kind] - max(tolerance, float(chance)):
            return False
    return True
