"""Calibration of an ensemble on simulated held-out frames, and its scores on others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.analysis.frame import find_atoms
from adatom.core import AtomTable, LabelledFrame, Material
from adatom.core.arrays import FloatArray
from adatom.errors import StepFailed
from adatom.features.calibration.calibrator import MATCH_A, Observation, fit_calibrator, match_truth
from adatom.features.find import FindOptions, describe_frame, find_candidates
from adatom.features.novelty.frame import fit_ood_model
from adatom.features.novelty.regions import Regions, fit_ood_model_of_regions
from adatom.features.scaled_lengths import material_in_units, truth_in_units
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.synthesize import random_labelled
from adatom.frames.simulate.universal import UNIVERSAL, nameless, random_material
from adatom.learning.device import threads_in_use, use_threads
from adatom.learning.ensemble import Ensemble
from adatom.learning.predict import predict_tiles
from adatom.parallel.processes import local_processes
from adatom.training.scores import expected_calibration_error

Descriptions = list[tuple[FloatArray, Regions]]  # description of each frame and of its regions
_Compared = list[tuple[float, dict[str, Any]]]  # dose of each frame, counts per Å²; its comparison
_FIELD_A = 28.0  # edge of a held-out frame, Å at graphene's scale: about 300 atoms
_BLANK = 12  # one held-out frame in this many shows no specimen: vacuum occurs in experiments
_BORDER_A = 1.0  # Å; atoms nearer to the border are cut by it: neither right nor wrong
# One frame in six is of a disordered sheet, up to this standard deviation, Å: error bars must hold
# there, while the networks are trained on sheets as most people have them.
_DISORDERED_A = 0.14
_MIN_SITES = 6  # frames with fewer candidates have no statistics of their own to calibrate on
_DOSE_EDGES = (0.0, 40.0, 300.0, 2000.0, np.inf)  # counts per Å² between which scores are reported
_HELD_OUT_SEED = 7_000_000  # far above the seeds of training, so that no frame is shared


def held_out(material: Material, seed: int, count: int) -> list[LabelledFrame]:
    """Simulate frames that no member was trained on.

    Two of three frames show a whole crystal with point defects and no disturbance but noise, like
    most frames that people keep. The others have every disturbance of the training. One frame in
    twelve shows no specimen.

    Parameters
    ----------
    material
        Material that the frames show; `UNIVERSAL` draws another material for each frame.
    seed
        Seed of the set.
    count
        Number of frames.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> from adatom.training.calibrate import held_out
    >>> (labelled,) = held_out(GRAPHENE, seed=0, count=1)
    >>> labelled.classes, labelled.xy.shape[1]
    (('C', 'Si'), 2)
    """
    return [_held_out(material, seed, i) for i in range(count)]


def _held_out(material: Material, seed: int, i: int) -> LabelledFrame:
    rng = np.random.default_rng([_HELD_OUT_SEED, seed, i])
    shown = random_material(rng) if material == UNIVERSAL else material
    conditions, undisturbed = Conditions.random(rng, shown), i % 3 > 0
    if undisturbed:
        conditions = conditions.undisturbed()
    labelled = random_labelled(
        shown, rng, field_A=_FIELD_A * shown.scale, conditions=conditions, whole=undisturbed,
        empty=i % _BLANK == _BLANK - 1,
        disorder_A=_DISORDERED_A * ((i // 6) % 8 + 0.5) / 8.0 if i % 6 == 1 else None,
    )  # fmt: skip
    return nameless(labelled, shown.scale) if material == UNIVERSAL else labelled


def calibrate_ensemble(
    ensemble: Ensemble,
    material: Material,
    *,
    seed: int = 0,
    frames: int = 400,
    workers: int = 1,
    options: FindOptions | None = None,
) -> Ensemble:
    """Fit the calibration of an ensemble on held-out frames; score it on a third as many others.

    Parameters
    ----------
    ensemble
        Trained ensemble.
    material
        Material that it was trained for.
    seed
        Seed of the held-out frames.
    frames
        Number of frames to fit on.
    workers
        Number of processes; 1 stays in this process.
    options
        How atoms are found. The calibrated probabilities hold for these options only.

    Returns
    -------
    The same networks; the card has ``calibration``, its ``options`` and ``scores``.
    """
    parts = [p.tolist() for p in np.array_split(np.arange(frames), 4 * workers)]
    options = options or FindOptions()
    job = partial(_observe_held_out, ensemble, material, options, seed)
    observations: list[Observation] = []
    descriptions: Descriptions = []
    with local_processes(workers) as pool:
        for observed, described in pool.map(job, parts) if workers > 1 else map(job, parts):
            observations += observed
            descriptions += described
        fitted = with_calibration(ensemble, material, observations, descriptions, options)
        measured = partial(_measure_held_out, fitted, material, options, seed + 1)
        parts = [p.tolist() for p in np.array_split(np.arange(frames // 3), 4 * workers)]
        found = pool.map(measured, parts) if workers > 1 else map(measured, parts)
        compared = [one for part in found for one in part]
    return replace(fitted, card={**fitted.card, "scores": _scores_by_dose(compared)})


def _observe_held_out(
    ensemble: Ensemble, material: Material, options: FindOptions, seed: int, which: list[int]
) -> tuple[list[Observation], Descriptions]:
    use_threads(1)
    return collect_observations(
        ensemble, material, (_held_out(material, seed, i) for i in which), options
    )


def _measure_held_out(
    ensemble: Ensemble, material: Material, options: FindOptions, seed: int, which: list[int]
) -> _Compared:
    use_threads(1)
    return _compare(ensemble, material, (_held_out(material, seed, i) for i in which), options)


def collect_observations(
    ensemble: Ensemble,
    material: Material,
    frames: Iterable[LabelledFrame],
    options: FindOptions,
) -> tuple[list[Observation], Descriptions]:
    """Find the candidates of frames whose truth is known, before calibration.

    Parameters
    ----------
    ensemble
        Trained ensemble; needs no calibration.
    material
        Material that the frames show.
    frames
        Frames with their true atoms.
    options
        How atoms are found.

    Returns
    -------
    Candidates with their fit and truth, for `fit_calibrator`; and the descriptions of frames and
    regions, for `fit_ood_model` and `fit_ood_model_of_regions`.
    """
    scale = material.scale
    observations: list[Observation] = []
    descriptions: Descriptions = []
    for labelled in frames:
        tiles = predict_tiles(labelled.frame, ensemble)
        candidates, refined = find_candidates(labelled.frame, tiles, material, options)
        if len(candidates.xy) >= _MIN_SITES:
            truth = truth_in_units(labelled, scale)
            observations.append(Observation(candidates, refined, truth))
        if len(labelled.xy):
            frame = labelled.frame
            descriptions.append(describe_frame(frame, candidates, refined, material, options))
    return observations, descriptions


def with_calibration(
    ensemble: Ensemble,
    material: Material,
    observations: list[Observation],
    descriptions: Descriptions,
    options: FindOptions,
) -> Ensemble:
    """Fit the calibration and the out-of-distribution score of an ensemble.

    Parameters
    ----------
    ensemble
        Trained ensemble.
    material
        Material that the frames show.
    observations, descriptions
        Results of `collect_observations` with the same `options`.
    options
        How atoms are found.

    Returns
    -------
    The same networks; the card has both fits and the options that they hold for. It has no model of
    the frames or of their regions where too few of them can be described.

    Raises
    ------
    StepFailed
        If the networks found nothing to calibrate.
    """
    if not observations or not descriptions:
        raise StepFailed(
            f"calibration of the networks for {material.name}",
            expected=f"held-out frames in which they find at least {_MIN_SITES} sites",
            got="none",
            todo="Train them for more steps.",
        )
    scaled = material_in_units(material, material.scale)
    with threads_in_use(1):  # sums of several would differ in the last digits with their number
        calibrator = fit_calibrator(observations, options.refine, scaled)
        models = {
            "novelty": fit_ood_model(np.array([whole for whole, _ in descriptions])),
            "novelty_of_regions": fit_ood_model_of_regions([parts for _, parts in descriptions]),
        }
    kept = {key: value for key, value in ensemble.card.items() if key not in models}
    card = {
        **kept,
        "options": options.model_dump(),
        "calibration": calibrator.model_dump(),
        **{key: model.model_dump() for key, model in models.items() if model is not None},
    }
    return replace(ensemble, card=card)


def _compare(
    ensemble: Ensemble,
    material: Material,
    frames: Iterable[LabelledFrame],
    options: FindOptions,
) -> _Compared:
    return [
        (
            _dose(labelled),
            compare_with_truth(
                labelled, find_atoms(labelled.frame, ensemble, material, options).atoms, material
            ),
        )
        for labelled in frames
    ]


def _scores_by_dose(parts: _Compared) -> dict[str, Any]:
    """Score an ensemble against truth, by dose.

    Returns
    -------
    Number of frames; one row per dose range with the range in counts per Å², F1 of atoms and of
    impurity atoms, the share of found atoms with the right element, the root-mean-square error per
    axis in Å, and the shares of errors within one and two standard deviations; and the expected
    calibration error of ``p_exists`` over all doses.
    """
    rows = []
    for low, high in pairwise(_DOSE_EDGES):
        inside = [part for dose, part in parts if low <= dose < high]
        if inside:
            joined = {k: np.concatenate([p[k] for p in inside]) for k in inside[0]}
            rows.append({"counts_per_A2": [low, float(min(high, 1e9))], **_scores(joined)})
    exists = np.concatenate([p["p_exists"] for _, p in parts])
    right = np.concatenate([p["right"] for _, p in parts])
    return {
        "frames": len(parts),
        "bands": rows,
        "ece_p_exists": expected_calibration_error(exists, right),
    }


def _dose(labelled: LabelledFrame) -> float:
    """Dose of a frame in counts per Å²: its mean over the area of a pixel."""
    px = labelled.frame.calibration.pixel_size_A
    return float(np.mean(labelled.frame.data)) / px**2


def compare_with_truth(
    labelled: LabelledFrame, table: AtomTable, material: Material
) -> dict[str, NDArray[Any]]:
    """Compare found atoms with the true ones of their frame, away from its border.

    A found atom is right if it lies within `MATCH_A` at graphene's scale of a true one, matched one
    to one; for other materials the distance scales with `Material.scale`, as in the calibration.

    Parameters
    ----------
    labelled
        Frame with its true atoms.
    table
        Atoms that were found in it.
    material
        Material that the frame shows.

    Returns
    -------
    Booleans: ``true`` (of the true atoms, those found), ``predicted`` (of the likely atoms, those
    that are right), both again for impurity atoms as ``true_impurity`` and
    ``predicted_impurity``, ``named`` (of the right atoms, those with the right element), ``right``
    (of all atoms in the table). Floats: ``p_exists`` of all atoms in the table; ``error`` in Å and
    ``z`` in standard deviations, of both axes of the right and likely atoms.
    """
    w, h = labelled.frame.calibration.extent_xy(labelled.frame.shape)

    def inner(xy: Any) -> Any:
        return np.all((xy > _BORDER_A) & (xy < np.array([w, h]) - _BORDER_A), axis=1)

    match = match_truth(table.xy, labelled.xy, MATCH_A * material.scale)
    keep = inner(table.xy)
    likely = table.is_likely
    right = match >= 0
    truth_inner = inner(labelled.xy)
    found = np.zeros(len(labelled.xy), dtype=bool)
    found[match[right & likely]] = True
    impurity = table.elements != labelled.classes[0]
    true_impurity = np.zeros(len(match), dtype=bool)
    true_impurity[right] = labelled.species[match[right]] > 0
    good = right & likely & keep
    error = table.xy[good] - labelled.xy[match[good]]
    names = np.array(labelled.classes)[labelled.species[match[good]]]
    sigma = table.data.select("sigma_x_A", "sigma_y_A").to_numpy()[good]
    found_impurity = np.zeros(len(labelled.xy), dtype=bool)
    found_impurity[match[right & likely & impurity]] = True
    return {
        "true": found[truth_inner],
        "predicted": right[keep & likely],
        "true_impurity": found_impurity[truth_inner & (labelled.species > 0)],
        "predicted_impurity": true_impurity[keep & likely & impurity],
        "named": table.elements[good] == names,
        "error": error.ravel(),
        "z": (error / sigma).ravel(),
        "p_exists": table.column("p_exists")[keep],
        "right": right[keep],
    }


def _scores(joined: dict[str, Any]) -> dict[str, float | None]:
    z = np.abs(joined["z"])
    return {
        "f1": _f1(joined["true"], joined["predicted"]),
        "f1_foreign": _f1(joined["true_impurity"], joined["predicted_impurity"]),
        "class_right": float(np.mean(joined["named"])) if len(joined["named"]) else 1.0,
        "rmse_A": float(np.sqrt(np.mean(joined["error"] ** 2))) if len(z) else None,
        "within_1_sigma": float(np.mean(z < 1)) if len(z) else None,
        "within_2_sigma": float(np.mean(z < 2)) if len(z) else None,
    }


def _f1(true: Any, predicted: Any) -> float:
    recall = float(np.mean(true)) if len(true) else 1.0
    precision = float(np.mean(predicted)) if len(predicted) else 1.0
    return 2 * recall * precision / max(recall + precision, 1e-12)
