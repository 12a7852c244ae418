"""Locate sites in the maps of all members: peaks, vote fractions and the scatter of positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from scipy.spatial import cKDTree

from adatom.core import VACANCY, Frame, Prediction
from adatom.core.arrays import FloatArray

_SPOT_A = 0.25  # width of a spot in the maps of graphene, Å: the lengths of the options refer to it

_UNSEEN = 1e-3  # expected number of atoms at a place that no network sees


class LocateOptions(BaseModel):
    """Options of the peak search; lengths are for spots of 0.25 Å and scale with the spot width."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float = Field(0.08, gt=0, lt=1, description="lowest peak of the mean map")
    member_threshold: float = Field(0.2, gt=0, lt=1, description="lowest peak that is a vote")
    separation_A: float = Field(0.7, gt=0, description="least distance between two sites, Å")
    window_A: float = Field(0.5, gt=0, description="radius around a peak that belongs to it, Å")


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Sites in the maps of the networks, before refinement: atoms and vacancies.

    Parameters
    ----------
    xy
        Shape (site, 2), Å.
    scatter
        Covariance of the positions over the members, shape (site, 2, 2), Å².
    peak
        Highest value of the mean map, summed over the classes of atoms, shape (site,).
    mass
        Expected number of each class within the window, shape (site, class).
    disagreement
        Standard deviation over the members of the expected number of atoms, shape (site,).
    vote_fraction
        Fraction of the members that found an atom, shape (site,).
    border_A
        Distance from the nearest border of the frame, shape (site,), Å.
    """

    xy: FloatArray
    scatter: FloatArray
    peak: FloatArray
    mass: FloatArray
    disagreement: FloatArray
    vote_fraction: FloatArray
    border_A: FloatArray

    @classmethod
    def concat(cls, parts: Sequence[Candidates]) -> Candidates:
        """Join the sites of several tiles."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def with_places(self, xy: FloatArray, border_A: FloatArray, scatter_A: float) -> Candidates:
        """Add places that no network sees; no class is likelier than usual.

        Parameters
        ----------
        xy
            Shape (spot, 2), Å.
        border_A
            Distance from the nearest border of the frame, shape (place,), Å.
        scatter_A
            Standard deviation of a position, Å.
        """
        n = len(xy)
        usual = self.mass.sum(axis=0) / max(float(self.mass.sum()), 1e-12)
        none, scatter = np.zeros(n), np.tile(np.eye(2) * scatter_A**2, (n, 1, 1))
        mass = np.tile(_UNSEEN * usual, (n, 1))
        more = Candidates(xy, scatter, none, mass, none, none, border_A)
        return Candidates.concat([self, more])


def locate(prediction: Prediction, options: LocateOptions | None = None) -> Candidates:
    """Find sites in the maps of an ensemble.

    Peaks are found in the mean over the members. Each member is then evaluated around these peaks,
    class by class. A member that misses an atom therefore lowers the vote fraction but does not
    remove the atom, and no peak of a member counts twice.

    Parameters
    ----------
    prediction
        Maps of all members for a frame, or for one tile of it.
    options
        See `LocateOptions`.

    Returns
    -------
    Sites in the axes of the frame; for a tile, those in its inner part.

    Examples
    --------
    >>> from adatom.core import Calibration
    >>> rows, cols = np.mgrid[:30, :40]
    >>> spot = np.exp(-((rows - 12) ** 2 + (cols - 20) ** 2) / (2 * 1.25**2)).astype(np.float32)
    >>> empty = np.zeros_like(spot)
    >>> maps = np.stack([[spot, empty], [spot, empty], [empty, empty]])  # (member, class, row, col)
    >>> found = locate(Prediction(maps, ("C", VACANCY), Calibration(0.2), spot_A=0.25))
    >>> found.xy.round(2).tolist(), found.vote_fraction.round(2).tolist()
    ([[4.0, 2.4]], [0.67])
    """
    options = options or LocateOptions()
    working = prediction.calibration
    maps = prediction.probabilities
    is_atom = np.array([c != VACANCY for c in prediction.classes])
    mean = maps.mean(axis=0)
    total = mean.sum(axis=0)
    atoms = mean[is_atom].sum(axis=0)
    spot = working.pixels(prediction.spot_A)
    separation, window_px = (
        spot * length / _SPOT_A for length in (options.separation_A, options.window_A)
    )
    reach = max(int(separation / 2), 1)
    rc = _peaks(total, reach, options.threshold, spot)
    rc = _separate(rc, total, separation)
    rc = rc[_inner(rc, prediction)]
    window = _Window(rc, total.shape, max(round(window_px), 1), window_px)
    unit = 2 * np.pi * spot**2  # integral of the spot of one atom, pixels²
    mass = np.stack([window.sums(m)[0] for m in mean], axis=1) / unit
    own_mass, offsets, seen = [], [], []
    for member in maps:
        own = member[is_atom].sum(axis=0)
        own_total = own if is_atom.all() else own + member[~is_atom].sum(axis=0)
        offsets.append(window.sums(own_total)[1])
        own_mass.append(window.sums(own)[0] / unit)
        seen.append(window.highest(own) >= options.member_threshold)
    xy = working.xy(rc + np.asarray(prediction.origin))
    deviation = np.stack(offsets) - np.mean(offsets, axis=0)
    scatter = np.einsum("mni,mnj->nij", deviation, deviation) / max(len(maps) - 1, 1)
    # The window cuts off a part of a displaced spot, so the centre of mass underestimates the
    # displacement: divide by the ratio for a Gaussian.
    cut = 0.5 * (window_px / spot) ** 2
    scatter /= (1.0 - cut / np.expm1(cut)) ** 2
    far = np.asarray(working.extent_xy(prediction.whole))
    return Candidates(
        xy,
        scatter[:, ::-1, ::-1] * working.pixel_size_A**2,  # x, y from row, column
        window.highest(atoms),
        mass,
        np.std(own_mass, axis=0),
        np.mean(seen, axis=0),
        np.minimum(xy, far - xy).min(axis=1, initial=np.inf),
    )


def on_specimen(candidates: Candidates, frame: Frame) -> Candidates:
    """Drop the sites on masked pixels, and measure the others' distance from these.

    Parameters
    ----------
    candidates
        Sites, in Å.
    frame
        Their frame.
    """
    if frame.pixels is None or not frame.pixels.any_masked:
        return candidates
    border = np.minimum(candidates.border_A, frame.border_distance_A(candidates.xy))
    kept = frame.pixels.distance_px(frame.calibration.rc(candidates.xy)) > 0.0
    parts = {f.name: getattr(candidates, f.name)[kept] for f in fields(Candidates)}
    return Candidates(**{**parts, "border_A": border[kept]})


class _Window:
    """Round windows around positions, in which maps are summed."""

    def __init__(self, rc: FloatArray, shape: tuple[int, ...], half: int, radius: float) -> None:
        base = np.round(rc).astype(np.int64)
        k = np.arange(-half, half + 1)
        dr, dc = (a.ravel() for a in np.meshgrid(k, k, indexing="ij"))
        round_ = dr**2 + dc**2 <= max(radius, 1.0) ** 2 + 0.5
        dr, dc = dr[round_], dc[round_]
        r, c = base[:, :1] + dr, base[:, 1:] + dc
        self._inside = (r >= 0) & (r < shape[0]) & (c >= 0) & (c < shape[1])
        self._index = np.clip(r, 0, shape[0] - 1) * shape[1] + np.clip(c, 0, shape[1] - 1)
        self._d = np.stack([dr, dc], axis=1).astype(np.float64)
        self._near = dr**2 + dc**2 <= 2

    def sums(self, image: NDArray[np.float32]) -> tuple[FloatArray, FloatArray]:
        """Sum, shape (site,), and centre of mass from the centre, shape (site, 2), pixels."""
        values = np.where(self._inside, image.ravel()[self._index], 0.0)
        amount = values.sum(axis=1)
        return amount, values @ self._d / np.maximum(amount, 1e-6)[:, None]

    def highest(self, image: NDArray[np.float32]) -> FloatArray:
        """Highest value at the centre pixel and its eight neighbours, shape (site,)."""
        values = image.ravel()[self._index[:, self._near]]
        out: FloatArray = np.where(self._inside[:, self._near], values, 0.0).max(
            axis=1, initial=0.0
        )
        return out


def _inner(rc: FloatArray, prediction: Prediction) -> NDArray[np.bool_]:
    rows, cols = prediction.inner
    nearest = np.round(rc)
    out: NDArray[np.bool_] = (
        (nearest[:, 0] >= rows.start) & (nearest[:, 0] < rows.stop)
        & (nearest[:, 1] >= cols.start) & (nearest[:, 1] < cols.stop)
    )  # fmt: skip
    return out


def _peaks(
    image: NDArray[np.float32], distance: int, threshold: float, spot_px: float
) -> FloatArray:
    """Local maxima with sub-pixel precision, row and column, shape (peak, 2).

    A Gaussian is fitted through each peak and its neighbours. At the border, where a neighbour is
    missing, the Gaussian has the width of the spot.
    """
    highest = ndimage.maximum_filter(image, 2 * distance + 1, mode="constant")
    found = np.argwhere((image == highest) & (image > threshold))
    padded = np.log(np.maximum(np.pad(image, 1, mode="edge"), 1e-4)).astype(np.float64)
    r, c = found[:, 0] + 1, found[:, 1] + 1
    rc = found.astype(np.float64)
    for axis, (dr, dc) in enumerate(((1, 0), (0, 1))):
        low, mid, high = padded[r - dr, c - dc], padded[r, c], padded[r + dr, c + dc]
        curvature = low - 2 * mid + high
        shift = np.where(curvature < -1e-9, 0.5 * (low - high) / np.minimum(curvature, -1e-9), 0.0)
        first, last = found[:, axis] == 0, found[:, axis] == image.shape[axis] - 1
        shift = np.where(first, 0.5 - spot_px**2 * (mid - high), shift)
        shift = np.where(last, spot_px**2 * (mid - low) - 0.5, shift)
        rc[:, axis] += np.clip(shift, -0.49, 0.49)
    return np.asarray(rc, dtype=np.float64)


def _separate(rc: FloatArray, image: NDArray[np.float32], distance_px: float) -> FloatArray:
    """Keep the higher one of two peaks that are closer than `distance_px`."""
    if len(rc) < 2:
        return rc
    at = np.round(rc).astype(int)
    height = image[
        np.clip(at[:, 0], 0, image.shape[0] - 1), np.clip(at[:, 1], 0, image.shape[1] - 1)
    ].astype(np.float64)
    drop = np.zeros(len(rc), dtype=bool)
    pairs = cKDTree(rc).query_pairs(distance_px, output_type="ndarray")
    order = np.argsort([-max(height[i], height[j]) for i, j in pairs], kind="stable")
    for i, j in pairs[np.asarray(order, dtype=np.int64)]:
        if not (drop[i] or drop[j]):
            drop[j if height[i] >= height[j] else i] = True
    out: FloatArray = rc[~drop]
    return out
