"""Patches of a frame with their atoms, and the noise that they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from adatom.core import Frame, Lattice, Material
from adatom.core.arrays import FloatArray, Image
from adatom.features.candidates.beyond_border import atoms_beyond_border
from adatom.features.conditions.noise import (
    FrameNoise,
    autocorrelation,
    blur_from_autocorrelation,
    fit_noise,
)
from adatom.features.conditions.patch_model import MARGIN_A, Patch, PatchAtoms, SpotShape
from adatom.features.find import FoundAtoms
from adatom.features.refinement.binning import BinnedFrame, bin_frame

LEAST_ATOMS = 8  # least number of host atoms in a patch
_EDGE_PX = 192  # edge of a patch, binned pixels
_LEAST_PX = 400  # least number of pixels of a patch inside the rim, binned pixels
_SPLIT_A = 12.0  # frames with a shorter edge are one patch, Å
_RIM_A = 1.2  # rim of the frame that is not used, Å: atoms outside are guesses
_STRANGE = 4.5  # smoothed residual of an outlier, standard deviations


@dataclass(slots=True, eq=False)
class FramePatches:
    """The patches of one frame, and their noise.

    Parameters
    ----------
    patches
        Patches with enough host atoms.
    noise
        Noise of original pixels.
    data
        The whole frame, shape (row, col), intensity.
    zero
        Intensity that the file calls zero.
    """

    patches: list[Patch]
    noise: FrameNoise
    data: Image
    zero: float = 0.0

    @classmethod
    def from_frame(
        cls, frame: Frame, found: FoundAtoms, material: Material, lattice: Lattice | None
    ) -> FramePatches:
        """Cut a frame into patches; the lattice, if any, gives the atoms outside the frame."""
        binned, old = bin_frame(frame), found.refined.optics.noise
        px, b = binned.calibration.pixel_size_A, frame.shape[0] // binned.data.shape[0]
        noise = FrameNoise(old.constant * b**2, old.gain * b**2, least=old.least * b**2)
        zero = 0.0 if frame.pixels is None else frame.pixels.zero_of_file
        out = cls([], noise, frame.data, zero)
        located = _Located.of(frame, binned, found, material, lattice)
        if located is None:
            return out
        rim = int(np.ceil(_RIM_A / px))
        mask = np.zeros(binned.data.shape, dtype=np.bool_)
        mask[rim:-rim, rim:-rim] = True
        if binned.masked is not None:  # beside masked pixels as much as at the border
            mask &= ~ndimage.binary_dilation(binned.masked, iterations=rim)
        for box in _boxes(binned.data.shape, px, b):
            atoms = located.cut(box, material.host)
            if atoms is not None and mask[box].sum() > _LEAST_PX:
                r, c = (slice(s.start * b, s.stop * b) for s in box)
                data = np.ascontiguousarray(binned.data[box])
                fine = frame.data[r, c] if b > 1 else data
                out.patches.append(Patch(data, fine, mask[box], atoms, px))
        return out

    def mask_outliers(self, spot: SpotShape) -> None:
        """Exclude pixels that the model does not describe: contamination, misplaced atoms."""
        maps = [p.smoothed_residual(spot, self.noise) for p in self.patches]
        seen = np.concatenate([np.abs(m[p.whole]) for m, p in zip(maps, self.patches, strict=True)])
        usual = (
            float(np.quantile(seen, 0.35)) / 0.454
        )  # quantile of the absolute value of a normal variable
        for patch, strange in zip(self.patches, maps, strict=True):
            patch.exclude(np.abs(strange) > _STRANGE * usual)
        kept = [p for p in self.patches if p.mask.sum() > max(0.15 * p.whole.sum(), 300)]
        self.patches = kept or [max(self.patches, key=lambda p: float(p.mask.sum()))]

    def measure_noise(self, spot: SpotShape) -> None:
        """Fit the noise to the residuals of the model, in original pixels."""
        models, squares, lags = [], [], []
        for patch in self.patches:
            model, residual, mask = patch.residual_at_full_resolution(spot)
            usual = self.noise.variance(model)
            absorbed = patch.absorbed_variance(spot, usual, self.noise.correlation)
            models.append(model[mask])
            squares.append((residual**2 + absorbed)[mask])
            lost = float((absorbed / usual)[mask].mean())
            lags.append(autocorrelation(np.asarray(residual / np.sqrt(usual)), mask, lost))
        used = sum(len(m) for m in models)
        knots = sum(len(p.coefficients) for p in self.patches) * self.noise.correlation / used
        self.noise = fit_noise(np.concatenate(models), np.concatenate(squares), 1 + knots)
        near = np.array(lags).mean(axis=0)
        sd = max(float(np.std(lags)) / np.sqrt(max(2 * len(lags) - 1, 1)), (2 * used) ** -0.5)
        # Jitter correlates pixels along one axis only; smoothing correlates them along both.
        alike = abs(near[0] - near[1]) < 4 * sd
        self.noise.blur = blur_from_autocorrelation(float(near.mean() if alike else near.min()), sd)
        self.noise.covariance *= 1 + (self.noise.correlation - 1) / 2


@dataclass(frozen=True, slots=True, eq=False)
class _Located:
    """Atoms of a frame: first those found, then those outside whose tails reach into it.

    Lengths are in binned pixels. All arrays but ``rc`` and ``element`` hold the found atoms only;
    ``covariance`` is (row, column), ``moved`` is the shift along columns from the networks.
    """

    rc: FloatArray
    element: NDArray[np.str_]
    amplitude: FloatArray
    amplitude_sd: FloatArray
    covariance: FloatArray
    moved: FloatArray
    background: float
    start_sigma: float
    px: float

    @classmethod
    def of(
        cls,
        frame: Frame,
        binned: BinnedFrame,
        found: FoundAtoms,
        material: Material,
        lattice: Lattice | None,
    ) -> _Located | None:
        """Collect the atoms that are likely to exist; None if there are none."""
        refined, px = found.refined, binned.calibration.pixel_size_A
        likely = found.atoms.is_likely
        if not likely.any():
            return None
        match = cKDTree(refined.xy).query(found.atoms.xy[likely])[1]
        inside = refined.xy[match]
        outside = _outside(inside, frame, material, lattice)
        return cls(
            rc=binned.rc(np.concatenate([inside, outside])),
            element=np.array([*found.atoms.elements[likely], *[material.host] * len(outside)]),
            amplitude=refined.amplitude[match],
            amplitude_sd=refined.amplitude_sd[match],
            covariance=refined.covariance[match][:, ::-1, ::-1] / px**2,
            moved=(inside[:, 0] - found.candidates.xy[match, 0]) / px,
            background=float(np.median(refined.background[match])),
            start_sigma=refined.start_sigma_A / px,
            px=px,
        )

    def cut(self, box: tuple[slice, slice], host: str) -> PatchAtoms | None:
        """Atoms in and around a patch; None if there are too few host atoms."""
        at = self.rc - np.array([s.start for s in box])
        size, margin = np.array([s.stop - s.start for s in box]), MARGIN_A / self.px
        near = np.all((at > -margin) & (at < size + margin), axis=1)
        found = len(self.amplitude)
        inner = np.flatnonzero(np.all((at > 0) & (at < size), axis=1)[:found])
        if np.count_nonzero(self.element[inner] == host) < LEAST_ATOMS:
            return None
        names = [host, *sorted({*self.element[near]} - {host})]
        group = np.array([names.index(e) if e in names else 0 for e in self.element])
        usual, ratio = self._amplitudes(group, near, len(names))
        covariance = self.covariance[inner]
        moved = np.pad(self.moved, (0, len(at) - found))
        return PatchAtoms(
            rc=at[near],
            group=group[near],
            ratio=ratio[near],
            amplitude=usual,
            background=self.background,
            position_covariance=covariance.mean(axis=0),
            moved=moved[near],
            fitted=float(
                (1 - np.clip(covariance[:, [0, 1], [0, 1]] / self.start_sigma**2, 0, 1)).sum()
            ),
            start_sigma=self.start_sigma,
        )

    def _amplitudes(
        self, group: NDArray[np.int64], near: NDArray[np.bool_], groups: int
    ) -> tuple[FloatArray, FloatArray]:
        """Median amplitude of each group near a patch, and ratios of atoms that deviate from it."""
        found = len(self.amplitude)
        usual, ratio = np.ones(groups), np.ones(len(group))
        for g in range(groups):
            mine = (group == g)[:found] & near[:found]
            usual[g] = max(float(np.median(self.amplitude[mine])), 1e-12)
            share, sd = self.amplitude / usual[g], self.amplitude_sd / usual[g]
            odd = np.flatnonzero(mine & (np.abs(share - 1) > np.maximum(6 * sd, 0.5)))
            ratio[odd] = share[odd]
        return usual, ratio


def _boxes(shape: tuple[int, ...], px: float, bins: int) -> list[tuple[slice, slice]]:
    """Patches of a frame: the centres of its quadrants, or all of a small frame."""
    edge = min(_EDGE_PX, max(512 // bins, 64))
    halves = 1 if min(shape) * px < _SPLIT_A else 2
    along = []
    for n in shape:
        size = n // halves
        first = [k * size + max(size - edge, 0) // 2 for k in range(halves)]
        along.append([slice(a, a + min(size, edge)) for a in first])
    return [(r, c) for r in along[0] for c in along[1]]


def _outside(
    xy: FloatArray, frame: Frame, material: Material, lattice: Lattice | None
) -> FloatArray:
    """Atoms outside the frame: sites of the lattice, or missing neighbours of the atoms."""
    if lattice is None:
        return atoms_beyond_border(xy, frame.border_distance_A, material)
    extent = frame.calibration.extent_xy(frame.shape)
    sites = lattice.sites_within(extent, margin_A=-MARGIN_A)[1]
    away = frame.border_distance_A(sites)
    out = (away < 0.0) & (away > -MARGIN_A)
    apart = cKDTree(xy).query(sites)[0] > 0.6 * material.bond_length_A
    chosen: FloatArray = sites[out & apart]
    return chosen
