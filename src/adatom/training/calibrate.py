"""Held-out frames with truth: calibrate an ensemble on some, measure it on others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from adatom.analysis.frame import find_atoms
from adatom.core import LabelledFrame, Material
from adatom.core.arrays import FloatArray
from adatom.features.calibration.calibrator import MATCH_A, Observation, fit_calibrator, match_truth
from adatom.features.find import FindOptions, describe_frame, find_candidates
from adatom.features.novelty.frame import fit_ood_model
from adatom.features.novelty.regions import Regions, fit_ood_model_of_regions
from adatom.features.scaled_lengths import material_in_units, truth_in_units
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.synthesize import random_labelled
from adatom.frames.simulate.universal import UNIVERSAL, nameless, random_material
from adatom.learning.device import use_threads
from adatom.learning.ensemble import predict_tiles
from adatom.learning.weights import Ensemble
from adatom.parallel.processes import local_processes

Descriptions = list[tuple[FloatArray, Regions]]  # of frames, and of their regions
_Compared = list[tuple[float, dict[str, Any]]]  # a frame's dose, and how it compares
_FIELD_A = 28.0  # edge of a held-out frame, Å at graphene's scale: about 300 atoms
_BLANK = 12  # one held-out frame in this many shows no specimen
_BORDER_A = (
    1.0  # atoms nearer to the border, Å, are cut by it: they count as neither right nor wrong
)


def held_out(material: Material, seed: int, count: int) -> list[LabelledFrame]:
    """Simulate frames that training never saw: their seeds lie far above those of any member.

    Two of three show a whole sheet with point defects and no disturbance but noise, like most
    frames that people keep. The others have every disturbance that training has. One in twelve
    shows no specimen, so that the calibration includes such frames.
    """
    return [_held_out(material, seed, i) for i in range(count)]


def _held_out(material: Material, seed: int, i: int) -> LabelledFrame:
    rng = np.random.default_rng([7_000_000, seed, i])
    shown = random_material(rng) if material == UNIVERSAL else material
    conditions, usual = Conditions.random(rng, shown), i % 3 > 0
    if usual:
        conditions = conditions.undisturbed()
    labelled = random_labelled(
        shown, rng, field_A=_FIELD_A * shown.scale, conditions=conditions, whole=usual,
        empty=i % _BLANK == _BLANK - 1,
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
    """Fit the ensemble's calibration on held-out frames, measure it on a third as many others.

    Parameters
    ----------
    ensemble
        Trained.
    material
        What it was trained for.
    seed
        Of the frames.
    frames
        How many to fit on.
    workers
        Processes that look at them; 1 for none but this.
    options
        How atoms are found: the probabilities hold for these options alone.

    Returns
    -------
    The same networks with ``calibration``, its ``options`` and ``scores`` in the card.
    """
    parts = [p.tolist() for p in np.array_split(np.arange(frames), 4 * workers)]
    options = options or FindOptions()
    job = partial(_observe_held_out, ensemble, material, options, seed)
    observations: list[Observation] = []
    descriptions: Descriptions = []
    with local_processes(workers) as pool:
        for some, more in pool.map(job, parts) if workers > 1 else map(job, parts):
            observations += some
            descriptions += more
        fitted = with_calibration(ensemble, material, observations, descriptions, options)
        measured = partial(_measure_held_out, fitted, material, options, seed + 1)
        parts = [p.tolist() for p in np.array_split(np.arange(frames // 3), 4 * workers)]
        found = pool.map(measured, parts) if workers > 1 else map(measured, parts)
        compared = [one for part in found for one in part]
    return replace(fitted, card={**fitted.card, "scores": _bands(compared)})


def _observe_held_out(
    ensemble: Ensemble, material: Material, options: FindOptions, seed: int, which: list[int]
) -> tuple[list[Observation], Descriptions]:
    use_threads(1)
    return observe(ensemble, material, (_held_out(material, seed, i) for i in which), options)


def _measure_held_out(
    ensemble: Ensemble, material: Material, options: FindOptions, seed: int, which: list[int]
) -> _Compared:
    use_threads(1)
    return _compared(ensemble, material, (_held_out(material, seed, i) for i in which), options)


def observe(
    ensemble: Ensemble,
    material: Material,
    frames: Iterable[LabelledFrame],
    options: FindOptions,
) -> tuple[list[Observation], Descriptions]:
    """Find atoms in frames whose truth is known, before calibration.

    Parameters
    ----------
    ensemble
        Trained; needs no calibration.
    material
        What the frames show.
    frames
        With their labels.
    options
        How atoms are found.

    Returns
    -------
    Candidates with their fit and truth, for `fit_calibrator`; and the descriptions of the frames,
    for `fit_ood_model`.
    """
    scale = material.scale
    observations: list[Observation] = []
    descriptions: Descriptions = []
    for labelled in frames:
        tiles = predict_tiles(labelled.frame, ensemble)
        candidates, refined = find_candidates(labelled.frame, tiles, material, options)
        if len(candidates.xy) > 5:
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
    """Fit calibration and novelty to what `observe` saw with the same options.

    Returns
    -------
    The same networks; the card has both, and the options that they hold for.
    """
    alike = material_in_units(material, material.scale)
    calibrator = fit_calibrator(observations, options.refine, alike)
    card = {
        **ensemble.card,
        "options": options.model_dump(),
        "calibration": calibrator.model_dump(),
        "novelty": fit_ood_model(np.array([whole for whole, _ in descriptions])).model_dump(),
        "novelty_of_regions": fit_ood_model_of_regions(
            [parts for _, parts in descriptions]
        ).model_dump(),
    }
    return replace(ensemble, card=card)


def _compared(
    ensemble: Ensemble,
    material: Material,
    frames: Iterable[LabelledFrame],
    options: FindOptions,
) -> _Compared:
    parts = []
    for labelled in frames:
        table = find_atoms(labelled.frame, ensemble, material, options).atoms
        # As calibration does: the radius goes with the pattern.
        compared = _compare(labelled, table, MATCH_A * material.scale)
        parts.append((_dose(labelled), compared))
    return parts


def _bands(parts: _Compared) -> dict[str, Any]:
    """Score an ensemble against truth, by dose.

    Returns
    -------
    One table: counts per Å² from and to, F1 of atoms and of foreign atoms, share of the found
    atoms whose class is right, root-mean-square error per axis in Å, share of errors within one and
    two standard deviations, and the expected calibration error of ``p_exists`` over all doses.
    """
    rows = []
    for low, high in pairwise((0.0, 40.0, 300.0, 2000.0, np.inf)):
        inside = [part for dose, part in parts if low <= dose < high]
        if inside:
            joined = {k: np.concatenate([p[k] for p in inside]) for k in inside[0]}
            rows.append({"counts_per_A2": [low, float(min(high, 1e9))], **_scores(joined)})
    exists = np.concatenate([p["p_exists"] for _, p in parts])
    right = np.concatenate([p["right"] for _, p in parts])
    return {"frames": len(parts), "bands": rows, "ece_p_exists": _ece(exists, right)}


def _dose(labelled: LabelledFrame) -> float:
    """Counts per Å² of a frame: its mean over the area of a pixel."""
    px = labelled.frame.calibration.pixel_size_A
    return float(np.mean(labelled.frame.data)) / px**2


def _compare(labelled: LabelledFrame, table: Any, within_A: float) -> dict[str, Any]:
    w, h = labelled.frame.calibration.extent_xy(labelled.frame.shape)

    def inner(xy: Any) -> Any:
        return np.all((xy > _BORDER_A) & (xy < np.array([w, h]) - _BORDER_A), axis=1)

    match = match_truth(table.xy, labelled.xy, within_A)
    keep = inner(table.xy)
    sure = table.column("p_exists") > 0.5
    right = match >= 0
    truth_inner = inner(labelled.xy)
    found = np.zeros(len(labelled.xy), dtype=bool)
    found[match[right & sure]] = True
    foreign = table.elements != labelled.classes[0]
    true_foreign = np.zeros(len(match), dtype=bool)
    true_foreign[right] = labelled.species[match[right]] > 0
    good = right & sure & keep
    error = table.xy[good] - labelled.xy[match[good]]
    names = np.array(labelled.classes)[labelled.species[match[good]]]
    sigma = table.data.select("sigma_x_A", "sigma_y_A").to_numpy()[good]
    found_foreign = np.zeros(len(labelled.xy), dtype=bool)
    found_foreign[match[right & sure & foreign]] = True
    return {
        "true": found[truth_inner],
        "predicted": right[keep & sure],
        "true_foreign": found_foreign[truth_inner & (labelled.species > 0)],
        "predicted_foreign": true_foreign[keep & sure & foreign],
        "named": table.elements[good] == names,
        "error": error.ravel(),
        "z": (error / sigma).ravel(),
        "p_exists": table.column("p_exists")[keep],
        "right": right[keep],
    }


def _scores(joined: dict[str, Any]) -> dict[str, float]:
    z = np.abs(joined["z"])
    return {
        "f1": _f1(joined["true"], joined["predicted"]),
        "f1_foreign": _f1(joined["true_foreign"], joined["predicted_foreign"]),
        "class_right": float(np.mean(joined["named"])) if len(joined["named"]) else 1.0,
        "rmse_A": float(np.sqrt(np.mean(joined["error"] ** 2))),
        "within_1_sigma": float(np.mean(z < 1)),
        "within_2_sigma": float(np.mean(z < 2)),
    }


def _f1(true: Any, predicted: Any) -> float:
    recall = float(np.mean(true)) if len(true) else 1.0
    precision = float(np.mean(predicted)) if len(predicted) else 1.0
    return 2 * recall * precision / max(recall + precision, 1e-12)


def _ece(p: Any, right: Any, bins: int = 15) -> float:
    which = np.minimum((p * bins).astype(int), bins - 1)
    total = 0.0
    for b in range(bins):
        mine = which == b
        if mine.any():
            total += mine.mean() * abs(float(p[mine].mean()) - float(right[mine].mean()))
    return float(total)
