"""Labels that an ensemble gives to real frames, and training frames cut from them."""

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

_LABEL = 0.9  # atoms and empty sites surer than this are labels
_NAMED = 0.8  # below it an atom is there, but what it is stays open: its classes share the label
_SEEN = 5.0  # standard deviations of its own intensity: such an atom is no fancy of a network
_LEAST = 0.3  # of p_exists, that the counts may speak up for
_DOUBTED = 0.05  # empty sites less likely than this are no site at all
_SMOOTH_PX = 1.5


def label_frame(frame: Frame, found: FoundAtoms, material: Material) -> LabelledFrame:
    """Make labels of what was found, with doubt where the ensemble has any.

    Where a lattice's columns are nearly alike, most atoms are surely there and none surely named:
    each class is taught the probability that it has.

    An atom that the networks doubt because it is unlike the lattice, but that the counts show
    (its fitted intensity is five standard deviations from nothing), is a label all the same: the
    iterative training must not erase what is new.

    Parameters
    ----------
    frame
        A real frame.
    found
        What a calibrated ensemble found there.
    material
        Its species number the labels.
    """
    table = found.atoms
    p, p_kind = table.column("p_exists"), table.column("p_element")
    number = {s: k for k, s in enumerate(material.species)}
    kinds = np.array([number[e] for e in table.elements], dtype=np.int64)
    nearest = _nearest(table.xy, found.candidates.xy)
    seen = found.refined.amplitude / np.maximum(found.refined.amplitude_sd, 1e-12)
    shown = (p > _LEAST) & (seen[nearest] > _SEEN) if len(p) else np.zeros(0, dtype=bool)
    label = (p > _LABEL) | (shown & (p_kind > _NAMED))
    sure_of_kind = np.where(p_kind > _NAMED, p_kind, 1.0)
    empty = found.p_empty > _LABEL
    open_sites = ~empty & (found.p_empty > _DOUBTED)
    doubt = np.concatenate(
        [
            np.where(label, 2.0 * (1.0 - np.maximum(p, _LABEL) * sure_of_kind), 1.0),
            2.0 * (1.0 - found.p_empty[empty]),
            np.ones(int(open_sites.sum())),
        ]
    )
    where = np.concatenate([table.xy, found.vacancies_xy[empty], found.vacancies_xy[open_sites]])
    some = doubt > 0.01
    named = (p_kind > _NAMED)[label, None]
    taught = np.where(named, np.eye(len(material.species))[kinds[label]], found.p_classes[label])
    return LabelledFrame(
        frame,
        table.xy[label],
        kinds[label],
        material.species,
        found.vacancies_xy[empty],
        where[some],
        np.clip(doubt[some], 0.0, 1.0),
        taught,
    )


@dataclass(frozen=True, slots=True)
class LabelChange:
    """What a round changed in the labels.

    Parameters
    ----------
    kept, added, dropped
        Labels that stayed, came and went.
    drift_px
        Length of the mean displacement of those that stayed, in pixels of the frame: what creeps.
    scatter_px
        Median distance by which they moved; at few counts mostly chance.
    renamed
        Labels of those that stayed whose species changed, where it was no open question.
    """

    kept: int
    added: int
    dropped: int
    drift_px: float
    scatter_px: float
    renamed: int

    @property
    def share(self) -> float:
        """Changed labels over all."""
        changed = self.added + self.dropped + self.renamed
        return changed / max(self.kept + self.added, 1)


def compare_labels(before: Sequence[LabelledFrame], after: Sequence[LabelledFrame]) -> LabelChange:
    """Compare the labels of the same frames before and after a round."""
    kept = added = dropped = renamed = 0
    shifts = []
    for old, new in zip(before, after, strict=True):
        match = match_truth(new.xy, old.xy)
        same = match >= 0
        kept += int(same.sum())
        added += int((~same).sum())
        dropped += len(old.xy) - int(same.sum())
        other = new.species[same] != old.species[match[same]]
        renamed += int((other & _named(new)[same] & _named(old)[match[same]]).sum())
        px = new.frame.calibration.pixel_size_A
        shifts.append((new.xy[same] - old.xy[match[same]]) / px)
    every = np.concatenate(shifts) if kept else np.zeros((1, 2))
    drift = float(np.linalg.norm(every.mean(axis=0)))
    scatter = float(np.median(np.linalg.norm(every, axis=1)))
    return LabelChange(kept, added, dropped, drift, scatter, renamed)


def _named(labelled: LabelledFrame) -> NDArray[np.bool_]:
    """Tell which atoms have one species, shape (atom,)."""
    p = labelled.p_species
    return np.ones(len(labelled.xy), dtype=bool) if p is None else p.max(axis=1, initial=0.0) == 1.0


def cut_out(labelled: LabelledFrame, field_A: float, rng: np.random.Generator) -> LabelledFrame:
    """Cut a square at random out of a labelled frame, and turn and mirror it at random.

    Parameters
    ----------
    labelled
        Of any size; one smaller than the field is used whole.
    field_A
        Edge of the square, Å.
    rng
        Source of randomness.
    """
    frame = labelled.frame
    px = frame.calibration.pixel_size_A
    side = int(np.ceil(field_A / px)) + 1
    rows, cols = (min(side, n) for n in frame.shape)
    top = int(rng.integers(frame.shape[0] - rows + 1))
    left = int(rng.integers(frame.shape[1] - cols + 1))
    data = frame.data[top : top + rows, left : left + cols]
    if float(data.min()) == float(data.max()):  # not one electron in it: the frame shows more
        rows, cols = frame.shape
        top, left, data = 0, 0, frame.data
    turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)

    def move(xy: FloatArray) -> FloatArray:
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
        xy=move(labelled.xy),
        vacancies_xy=move(labelled.vacancies_xy),
        doubtful_xy=move(labelled.doubtful_xy),
    )


def with_fewer_counts(
    frame: Frame, optics: Optics, factor: float, rng: np.random.Generator
) -> Frame:
    """Add the noise that a frame would have had with fewer counts.

    Parameters
    ----------
    frame
        The image, any linear unit.
    optics
        With its noise, as refinement learned it, of pixels that may be binned.
    factor
        Counts over those that it has, 0 to 1.
    rng
        Source of the noise.
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
