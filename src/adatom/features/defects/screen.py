"""Where a lattice may be reconstructed: every shape at every place, scored in one pass.

To first order the log-likelihood of a shape over that of the perfect sheet is ``D·R - D·D / 2``,
with the difference D of their images and the residual R of the perfect sheet over the variance of
the noise. D is a sum of spots, so ``D·R`` is a sum of values of one correlation image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from adatom.core import Lattice
from adatom.core.arrays import BoolArray, FloatArray, Image, IntArray
from adatom.features.defects.brightness import Brightness
from adatom.features.defects.shapes import (
    Placed,
    Shape,
    axes_of,
    bonds_for,
    directed_bonds,
    graphene_shapes,
    images,
    number_of_ways,
)
from adatom.features.defects.sites import Sites
from adatom.features.refinement.binning import BinnedFrame
from adatom.features.refinement.image_model import Grid
from adatom.features.refinement.optics import Optics

_BACKGROUND_A = 3.0  # Å: what is smoother than this (standard deviation) is background
_BLOCKS = 4  # blocks in the width of a Gaussian: interpolation between them errs by 1 %
AROUND = 24  # sites whose atoms tell the smooth misfit of the lattice
ON_SITE_A = 0.5  # Å: atoms this near to a site tell it
_MOVED_A = 0.06  # Å: smaller moves of an atom are left out of the score
_FAR_A = 0.3  # Å: and of the first score, by which the places are chosen
_BESIDE_A = 1.9  # Å: places this near to a doubtful one are compared
_REACH_A = 6.0  # Å: sites farther from the middle of a shape are left out of its score
_FINE = 24  # places that are scored by all atoms
_INSIDE_A = 2.0  # Å: places nearer to the border are cut by it

Place = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class _Residual:
    """What the perfect sheet leaves of a frame.

    Parameters
    ----------
    correlation
        Spline coefficients of the residual over the variance, correlated with the spot.
    grid
        The pixels.
    energy, energy_at
        Sum of the squared spot over the typical variance, and over that of each place, shape (row,
        col).
    overlap_px2
        Inverse covariance of the overlap of two spots, shape (2, 2), 1/pixels².
    """

    correlation: Image
    grid: Grid
    energy: float
    energy_at: Image
    overlap_px2: FloatArray


@dataclass(frozen=True, eq=False)  # without slots: the tree is made when it is asked for
class _Places:
    """Where a lattice has room for a shape.

    Parameters
    ----------
    origin, axes
        As of `axes_of`, for each directed bond of `bonds_for`.
    inside
        Whether it is far enough from the border, shape (bond,).
    """

    origin: FloatArray
    axes: FloatArray
    inside: BoolArray

    @cached_property
    def tree(self) -> cKDTree:
        """The origins, to look for those near a place."""
        return cKDTree(self.origin, compact_nodes=False, balanced_tree=False)


@dataclass(frozen=True, eq=False)  # without slots: the residual is computed when it is asked for
class Screen:
    """The perfect sheet against a frame.

    Parameters
    ----------
    sites
        Sites of the lattice.
    measured
        Measured positions of the sites with the smooth misfit of the lattice, shape (site, 2), Å.
    binned
        The frame.
    unit
        Amplitude of a host atom, intensity.
    lattice
        The lattice.
    relative
        Brightness of each element.
    optics, excess
        Probe and noise, and the factor on its variance.
    peak
        Amplitude of an atom here over that in its table; see `coarser`.
    """

    sites: Sites
    measured: FloatArray
    binned: BinnedFrame
    unit: float
    lattice: Lattice
    relative: Mapping[str, Brightness]
    optics: Optics
    excess: float
    peak: float = 1.0

    @cached_property
    def bonds(self) -> IntArray:
        """Bonds of the lattice in both directions, shape (bond, 2)."""
        return directed_bonds(self.sites)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.sites.xy)

    @cached_property
    def _misfit(self) -> FloatArray:
        return self.measured - self.sites.measured_xy

    @cached_property
    def _places(self) -> dict[int, _Places]:
        return {id(shape): self._places_of(shape) for shape in graphene_shapes()}

    @cached_property
    def _differences(self) -> dict[tuple[int, int, float], tuple[FloatArray, FloatArray, float]]:
        """Spots of each shape and image less the perfect sheet, and their `_power`."""
        out = {}
        for shape in graphene_shapes():
            for number, (xy, sites) in enumerate(images(shape)):
                for moved_A in (_FAR_A, _MOVED_A):
                    points, signs = self._difference(xy, sites, moved_A, shape.added)
                    power = self._power(points, signs)
                    out[id(shape), number, moved_A] = points, signs, power
        return out

    def _places_of(self, shape: Shape) -> _Places:
        bonds = bonds_for(shape, self.bonds, self.sites.xy)
        origin, axes = axes_of(shape, self.sites.xy, bonds)
        return _Places(origin, axes, self.sites.border_A[bonds].min(axis=1) > _INSIDE_A)

    @cached_property
    def _residual(self) -> _Residual:
        binned, optics = self.binned, self.optics
        grid = Grid((binned.data.shape[0], binned.data.shape[1]))
        kernel = grid.kernel(optics.probe)
        rc = binned.rc(self.measured)
        spots = grid.image(grid.spectrum(rc, np.full(len(rc), self.unit)), kernel)
        left = binned.data - spots
        used = np.ones(left.shape, dtype=np.float32)
        for spoiled in (binned.masked, binned.clipped):
            if spoiled is not None:
                used[spoiled != 0] = 0.0
        width = _BACKGROUND_A / binned.calibration.pixel_size_A
        level = _smooth(left * used, width) / np.maximum(_smooth(used, width), 1e-3)
        variance = optics.noise.variance((spots + level).astype(np.float32)) * np.float32(
            self.excess
        )
        (correlation,) = grid.correlate((left - level) * used / variance, kernel)
        peak, covariance = optics.probe.effective_gaussian()
        area = np.pi * np.sqrt(float(np.linalg.det(covariance)))
        inside = (float(np.linalg.det(covariance)) ** 0.25) / 2.0**0.5  # of the squared spot
        return _Residual(
            correlation, grid, peak**2 * area / float(np.median(variance)),
            peak**2 * area * _smooth(used / variance, inside),
            np.asarray(np.linalg.inv(2.0 * covariance)),
        )  # fmt: skip

    def best(
        self, shape: Shape, count: int, near: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray, list[Place]]:
        """Give the likeliest places of a shape.

        All places are scored by the atoms that move far, and the best of them by all.

        Parameters
        ----------
        shape
            The shape.
        count
            Most places to give.
        near
            Look only around this place, shape (2,), Å, undistorted axes.

        Returns
        -------
        Scores: logarithms of the likelihood over that of the perfect sheet, falling, shape
        (place,); the scores that are expected where the shape is there, shape (place,); and the
        places: directed bond (row of `bonds_for`) and image (row of `images`).
        """
        places = self._places[id(shape)]
        if near is None:
            rows = np.flatnonzero(places.inside)
        else:
            rows = np.array(sorted(places.tree.query_ball_point(near, _BESIDE_A)), dtype=np.int64)
            rows = rows[places.inside[rows]]
        if not len(rows):
            return np.zeros(0), np.zeros(0), []
        ways = np.arange(len(images(shape)))
        whole = np.stack([np.tile(rows, len(ways)), np.repeat(ways, len(rows))], axis=1)
        chosen = whole
        if len(whole) > _FINE:
            coarse, _ = self._scores(shape, whole, _FAR_A)
            chosen = whole[np.argsort(-coarse)[:_FINE]]
        fine, expected = self._scores(shape, chosen, _MOVED_A)
        order = np.argsort(-fine)[:count]
        return fine[order], expected[order], [(int(r), int(k)) for r, k in chosen[order]]

    def _scores(
        self, shape: Shape, places: IntArray, moved_A: float
    ) -> tuple[FloatArray, FloatArray]:
        left, every = self._residual, self._places[id(shape)]
        origin, axes = every.origin[places[:, 0]], every.axes[places[:, 0]]
        out, expected = np.zeros(len(places)), np.zeros(len(places))
        for number in range(len(images(shape))):
            rows = np.flatnonzero(places[:, 1] == number)
            points, signs, power = self._differences[id(shape), number, moved_A]
            where = origin[rows][:, None] + np.einsum("ki,nij->nkj", points, axes[rows])
            rc = self.binned.rc(self.shifted(where.reshape(-1, 2)))
            value = left.grid.interpolate(left.correlation, rc, ("",))[0].reshape(len(rows), -1)
            expected[rows] = power
            if shape.added:
                # One spot counts, whose noise is that of its place and not the typical one.
                at = np.round(self.binned.rc(self.shifted(where[:, -1]))).astype(int)
                at = np.clip(at, 0, np.array(left.energy_at.shape) - 1)
                expected[rows] *= left.energy_at[at[:, 0], at[:, 1]] / left.energy
            out[rows] = self.unit * value @ signs - expected[rows]
        return out, expected

    def _difference(
        self, xy: FloatArray, sites: FloatArray, moved_A: float, added: tuple[str, ...]
    ) -> tuple[FloatArray, FloatArray]:
        """Spots whose sum is a shape less the perfect sheet: places and signs, (spot, ...)."""
        own = len(xy) - len(added)
        more = [self.relative[symbol].mean for symbol in added]
        distance, at = cKDTree(sites).query(xy[:own])
        stays = distance < moved_A
        gone: BoolArray = np.ones(len(sites), dtype=np.bool_)
        gone[at[stays]] = False
        # At the rim an atom counts by its site, so that both are in or both are out.
        inner = np.hypot(*sites.T) < _REACH_A
        gone &= inner
        new = ~stays & inner[at]
        points = np.concatenate([xy[:own][new], sites[gone], xy[own:]])
        signs = np.concatenate([np.ones(int(new.sum())), -np.ones(int(gone.sum())), more])
        return points, signs

    def placed(self, shape: Shape, place: Place) -> Placed:
        """Put a shape on one of its places."""
        every = self._places[id(shape)]
        origin, axes = every.origin[place[0]], every.axes[place[0]]
        xy, sites = images(shape)[place[1]]
        log_prior = float(np.log(shape.prior / number_of_ways(shape)))
        return Placed(
            shape.kind, origin, origin + xy @ axes, origin + sites @ axes, log_prior, shape.added,
            shape.breathes_A,
        )  # fmt: skip

    def shifted(self, undistorted_xy: FloatArray) -> FloatArray:
        """Measured positions (N, 2), Å, with the smooth misfit of the lattice."""
        near = self._tree.query(undistorted_xy)[1]
        return np.asarray(self.lattice.distort(undistorted_xy) + self._misfit[near])

    def _power(self, points: FloatArray, signs: FloatArray) -> float:
        """Half of the squared difference of two images, over the variance."""
        step = (points[:, None] - points[None]) / self.binned.calibration.pixel_size_A
        decay = np.exp(-0.5 * np.einsum("abi,ij,abj->ab", step, self._residual.overlap_px2, step))
        return 0.5 * self.unit**2 * self._residual.energy * float(signs @ decay @ signs)


def screen(
    binned: BinnedFrame,
    lattice: Lattice,
    sites: Sites,
    atoms_xy: FloatArray,
    optics: Optics,
    unit: float,
    excess: float,
    relative: Mapping[str, Brightness],
    peak: float = 1.0,
) -> Screen:
    """Compare the perfect sheet with a frame.

    Parameters
    ----------
    binned
        The frame.
    lattice
        The lattice of the frame.
    sites
        Its sites.
    atoms_xy
        Likely host atoms, shape (atom, 2), Å, measured axes.
    optics
        Probe and noise.
    unit
        Amplitude of a host atom, intensity.
    excess
        Factor on the variance of the noise.
    relative
        Brightness of each element.
    peak
        As of `Screen`.
    """
    measured = sites.measured_xy + _smooth_misfit(sites.measured_xy, atoms_xy)
    return Screen(sites, measured, binned, unit, lattice, relative, optics, excess, peak)


def _smooth(image: Image, width_px: float) -> Image:
    """Blur by a Gaussian; a wide one on means of blocks, which hold all that it leaves."""
    block = int(width_px // _BLOCKS)
    if block < 2:
        return np.asarray(ndimage.gaussian_filter(image, width_px))
    rows, cols = (-(-n // block) for n in image.shape)
    padded = np.pad(
        image, [(0, n * block - m) for n, m in zip((rows, cols), image.shape, strict=True)], "edge"
    )
    means = padded.reshape(rows, block, cols, block).mean(axis=(1, 3))
    blurred = ndimage.gaussian_filter(means, width_px / block)
    at = [(np.arange(m) - 0.5 * (block - 1)) / block for m in image.shape]
    for axis, places in enumerate(at):
        low = np.clip(np.floor(places).astype(int), 0, blurred.shape[axis] - 2)
        share = np.clip(places - low, 0.0, 1.0).astype(np.float32)
        share = share[:, None] if axis == 0 else share
        first, second = (np.take(blurred, low + k, axis=axis) for k in (0, 1))
        blurred = first + share * (second - first)
    return np.asarray(blurred, dtype=np.float32)


def _smooth_misfit(sites_xy: FloatArray, atoms_xy: FloatArray) -> FloatArray:
    """Mean shift of the atoms around each site from their own sites, shape (site, 2), Å."""
    tree = cKDTree(sites_xy)
    distance, own = tree.query(atoms_xy)
    good = distance < ON_SITE_A
    shift = np.full((len(sites_xy), 2), np.nan)
    shift[own[good]] = atoms_xy[good] - sites_xy[own[good]]
    k = min(AROUND, len(sites_xy))
    near = tree.query(sites_xy, k=k)[1].reshape(len(sites_xy), -1)
    with np.errstate(invalid="ignore"):
        around = shift[near]
        known = np.isfinite(around[:, :, 0])
        total = np.where(known[:, :, None], around, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(known.sum(axis=1), 6)[:, None])
