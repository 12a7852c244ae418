"""Pseudo-labels: what an ensemble finds in real frames, as labels to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from adatom.core import Calibration, Frame, LabelledFrame, Material
from adatom.core.arrays import FloatArray
from adatom.features.calibration.calibrator import match_truth
from adatom.features.find import FoundAtoms
from adatom.features.refinement.refine import Optics

# All but the last are probabilities or ratios without unit. Of calibrated probabilities above 0.9,
# fewer than one label in ten is wrong.
_LABEL_P = 0.9  # p_exists of atoms and p_empty of vacancies above which they become labels
_ELEMENT_P = 0.8  # p_element below which the label is shared by the classes
# An atom with a lower p_exists becomes a label too if its fitted amplitude is this many of its
# standard deviations above zero (Rose criterion: 5) and p_exists is above `_VISIBLE_P`.
_VISIBLE_SD = 5.0
_VISIBLE_P = 0.3
_OPEN_SITE_P = 0.05  # p_empty below which a site counts as occupied
_MIN_DOUBT = 0.01  # smaller doubts are ignored: they change a weight by less than 1 %
_MASKED_STEP_A = 0.5  # distance of the places that take masked pixels out of the loss, Å
_CROPS = 8  # crops of which the one with the fewest masked pixels is taken
_SMOOTH_PX = 1.5  # Gaussian width, pixels, of the local mean signal that sets the noise level


def label_frame(found: FoundAtoms, material: Material) -> LabelledFrame:
    """Turn the atoms and vacancies that were found into labels.

    Atoms and vacancies with a high probability become labels. The remaining probability becomes a
    doubt, which lowers the weight of the place in the loss. An atom whose element is uncertain is
    labelled with the probability of each class.

    An atom with a low ``p_exists`` whose fitted amplitude is significant becomes a label too. Such
    atoms are often defects; without this rule the iterative training would remove them.

    Parameters
    ----------
    found
        Atoms and vacancies that a calibrated ensemble found in a real frame.
    material
        Gives the order of the species.
    """
    table = found.atoms
    p, p_kind = table.column("p_exists"), table.column("p_element")
    number = {s: k for k, s in enumerate(material.species)}
    kinds = np.array([number[e] for e in table.elements], dtype=np.int64)
    nearest = _nearest(table.xy, found.candidates.xy)
    snr = found.refined.amplitude / np.maximum(found.refined.amplitude_sd, 1e-12)
    visible = (p > _VISIBLE_P) & (snr[nearest] > _VISIBLE_SD) if len(p) else np.zeros(0, dtype=bool)
    label = (p > _LABEL_P) | (visible & (p_kind > _ELEMENT_P))
    p_named = np.where(p_kind > _ELEMENT_P, p_kind, 1.0)
    empty = found.p_empty > _LABEL_P
    open_sites = ~empty & (found.p_empty > _OPEN_SITE_P)
    doubt = np.concatenate(
        [
            np.where(label, 2.0 * (1.0 - np.maximum(p, _LABEL_P) * p_named), 1.0),
            2.0 * (1.0 - found.p_empty[empty]),
            np.ones(int(open_sites.sum())),
        ]
    )
    places = np.concatenate([table.xy, found.vacancies_xy[empty], found.vacancies_xy[open_sites]])
    hidden = _masked_places(found.frame)
    places = np.concatenate([places, hidden])
    doubt = np.concatenate([doubt, np.ones(len(hidden))])
    uncertain = doubt > _MIN_DOUBT
    named = (p_kind > _ELEMENT_P)[label, None]
    p_species = np.where(named, np.eye(len(material.species))[kinds[label]], found.p_classes[label])
    return LabelledFrame(
        found.frame,
        table.xy[label],
        kinds[label],
        material.species,
        found.vacancies_xy[empty],
        places[uncertain],
        np.clip(doubt[uncertain], 0.0, 1.0),
        p_species,
    )


def _masked_places(frame: Frame) -> FloatArray:
    """Places that cover the masked pixels, where nothing is known, shape (place, 2), Å."""
    if frame.pixels is None or not frame.pixels.any_masked:
        return np.zeros((0, 2))
    step = max(round(_MASKED_STEP_A / frame.calibration.pixel_size_A), 1)
    rc = np.argwhere(frame.pixels.masked[::step, ::step]) * step
    return frame.calibration.xy(rc.astype(np.float64))


@dataclass(frozen=True, slots=True)
class LabelChange:
    """Difference between the labels of two rounds.

    Parameters
    ----------
    kept, added, dropped
        Number of labels in both rounds, only in the second, only in the first.
    drift_px
        Length of the mean displacement of the kept labels, pixels of the frame: a systematic shift.
    scatter_px
        Median distance by which the kept labels moved, pixels; at low dose mostly noise.
    renamed
        Number of kept labels with another species, where both rounds had a single species.
    """

    kept: int
    added: int
    dropped: int
    drift_px: float
    scatter_px: float
    renamed: int

    @property
    def share(self) -> float:
        """Changed labels over all labels of both rounds."""
        changed = self.added + self.dropped + self.renamed
        return changed / max(self.kept + self.added, 1)


def compare_labels(before: Sequence[LabelledFrame], after: Sequence[LabelledFrame]) -> LabelChange:
    """Compare the labels of the same frames before and after a round.

    Raises
    ------
    ValueError
        If the two sequences differ in length.
    """
    kept = added = dropped = renamed = 0
    shifts = []
    for old, new in zip(before, after, strict=True):
        match = match_truth(new.xy, old.xy)
        same = match >= 0
        kept += int(same.sum())
        added += int((~same).sum())
        dropped += len(old.xy) - int(same.sum())
        other = new.species[same] != old.species[match[same]]
        renamed += int(
            (other & _has_one_species(new)[same] & _has_one_species(old)[match[same]]).sum()
        )
        px = new.frame.calibration.pixel_size_A
        shifts.append((new.xy[same] - old.xy[match[same]]) / px)
    every = np.concatenate(shifts) if kept else np.zeros((1, 2))
    drift = float(np.linalg.norm(every.mean(axis=0)))
    scatter = float(np.median(np.linalg.norm(every, axis=1)))
    return LabelChange(kept, added, dropped, drift, scatter, renamed)


def _has_one_species(labelled: LabelledFrame) -> NDArray[np.bool_]:
    """Whether each atom has a single possible species, shape (atom,)."""
    p = labelled.p_species
    return np.ones(len(labelled.xy), dtype=bool) if p is None else p.max(axis=1, initial=0.0) == 1.0


def random_crop(labelled: LabelledFrame, field_A: float, rng: np.random.Generator) -> LabelledFrame:
    """Crop a random square of a labelled frame; rotate it by quarter turns and mirror it at random.

    A crop without contrast, which may occur at very low dose, is replaced by the whole frame. Of a
    few crops, that with the fewest masked pixels is taken.

    Parameters
    ----------
    labelled
        Frame of any size; along a side shorter than the field it is used whole.
    field_A
        Edge of the square, Å.
    rng
        Source of randomness.
    """
    frame = labelled.frame
    px = frame.calibration.pixel_size_A
    side = int(np.ceil(field_A / px)) + 1
    rows, cols = (min(side, n) for n in frame.shape)
    top, left = _place(frame, rows, cols, rng)
    data = frame.data[top : top + rows, left : left + cols]
    if float(data.min()) == float(data.max()):  # not one count in the crop
        rows, cols = frame.shape
        top, left, data = 0, 0, frame.data
    turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)

    def transform(xy: FloatArray) -> FloatArray:
        out = xy - np.array([left, top]) * px
        h, w = rows, cols
        for _ in range(turns):  # as numpy.rot90: (row, col) to (w - 1 - col, row)
            out = np.stack([out[:, 1], (w - 1) * px - out[:, 0]], axis=1)
            h, w = w, h
        if flip:
            out = np.stack([(w - 1) * px - out[:, 0], out[:, 1]], axis=1)
        return out

    image = np.rot90(data, turns)
    image = image[:, ::-1] if flip else image
    return replace(
        labelled,
        frame=Frame(np.ascontiguousarray(image), Calibration(px), frame.index, frame.source),
        xy=transform(labelled.xy),
        vacancies_xy=transform(labelled.vacancies_xy),
        doubtful_xy=transform(labelled.doubtful_xy),
    )


def _place(frame: Frame, rows: int, cols: int, rng: np.random.Generator) -> tuple[int, int]:
    """Choose the top left pixel of a crop."""
    best, least = (0, 0), np.inf
    masked = frame.pixels is not None and frame.pixels.any_masked
    for _ in range(_CROPS if masked else 1):
        top = int(rng.integers(frame.shape[0] - rows + 1))
        left = int(rng.integers(frame.shape[1] - cols + 1))
        if frame.pixels is None or not masked:
            return top, left
        hidden = float(frame.pixels.masked[top : top + rows, left : left + cols].mean())
        if hidden < least:
            best, least = (top, left), hidden
    return best


def with_fewer_counts(
    frame: Frame, optics: Optics, factor: float, rng: np.random.Generator
) -> Frame:
    """Add noise so that a frame looks as if it had been taken with fewer counts.

    The variance of the noise rises by the factor ``1 / factor``, at the same mean signal.

    Parameters
    ----------
    frame
        Image in any linear unit.
    optics
        Fitted probe and noise of the frame; its pixels may be binned.
    factor
        New counts over present counts, 0 to 1.
    rng
        Source of randomness.
    """
    signal = ndimage.gaussian_filter(frame.data, _SMOOTH_PX)
    bins = max(round(optics.pixel_size_A / frame.calibration.pixel_size_A), 1)
    variance = np.asarray(optics.noise.variance(signal)) / optics.noise.correlation * bins**2
    added = rng.normal(size=frame.shape) * np.sqrt(variance * (1.0 / factor - 1.0))
    return replace(frame, data=(frame.data + added).astype(np.float32))


def _nearest(xy: FloatArray, other: FloatArray) -> NDArray[np.int64]:
    if not len(xy):
        return np.zeros(0, dtype=np.int64)
    return np.asarray(cKDTree(other).query(xy)[1], dtype=np.int64)
