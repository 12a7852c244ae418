"""Model of a rectangular patch of a frame as a sum of spots, and the equations of its fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, ndimage

from adatom.core import Calibration
from adatom.core.arrays import FloatArray, Image
from adatom.features.conditions.noise import FrameNoise
from adatom.features.refinement.background import Background
from adatom.features.refinement.image_model import Grid

SHARED = 5  # number of parameters of a `SpotShape`
MARGIN_A = 4.0  # margin in which atoms outside a patch are included, Å: tails are negligible beyond
_STRANGE_A = 0.35  # smoothing of residuals for the search of outliers, Å: about one atom
_STRANGE_AROUND_A = 1.5  # radius that is excluded around an outlier, Å


def binning(bins: int, px: float) -> float:
    """Variance that averaging `bins` pixels adds to a spot, Å²; `px` is the binned pixel, Å."""
    return float((1 - bins**-2.0) * px**2 / 12)


@dataclass(frozen=True, slots=True, eq=False)
class SpotShape:
    """Shape of a spot: a Gaussian core and a wider Gaussian tail; all patches share it.

    Parameters
    ----------
    values
        Covariance of the core (rows, mixed, columns), Å²; tail fraction; and width of the tail in
        units of the core; shape (5,).

    Examples
    --------
    >>> spot = SpotShape(np.array([0.16, 0.0, 0.16, 0.2, 2.6]))
    >>> round(spot.determinant() ** 0.25, 3)  # mean width (sigma), Å
    0.4
    """

    values: FloatArray

    @property
    def core(self) -> FloatArray:
        """Covariance of the core (rows, mixed, columns), shape (3,), Å²."""
        return self.values[:3]

    @property
    def tail_fraction(self) -> float:
        """Fraction of the peak that belongs to the tail."""
        return float(self.values[3])

    @property
    def tail_width(self) -> float:
        """Width of the tail in units of the core."""
        return float(self.values[4])

    def determinant(self, widening: FloatArray | float = 0.0) -> float:
        """Determinant of the covariance of the core, Å⁴, after subtracting `widening`, Å²."""
        rr, rc, cc = self.core - widening
        return float(max(rr * cc - rc**2, 1e-8))

    def changed(self, index: int, step: float) -> SpotShape:
        """Add a step to one of the five values."""
        values = self.values.copy()
        values[index] += step
        return SpotShape(values)


@dataclass(frozen=True, slots=True, eq=False)
class PatchAtoms:
    """Atoms in a patch and around it, in binned pixels of the patch.

    Parameters
    ----------
    rc
        Row and column, shape (atom, 2).
    group
        Index of the element of each atom, 0 for the host, shape (atom,).
    ratio
        Amplitude of each atom relative to its group, shape (atom,).
    amplitude
        Amplitude of each group, shape (group,), intensity.
    background
        Typical background, intensity.
    position_covariance
        Mean covariance of the fitted positions (row, column), shape (2, 2), pixels².
    moved
        Shift of each atom along columns from the position of the networks, shape (atom,), pixels.
    fitted
        Effective number of coordinates that the image determined (not the prior).
    start_sigma
        Standard deviation of the prior on the positions of the networks, pixels.
    """

    rc: FloatArray
    group: NDArray[np.int64]
    ratio: FloatArray
    amplitude: FloatArray
    background: float
    position_covariance: FloatArray
    moved: FloatArray
    fitted: float
    start_sigma: float


class PatchRenderer:
    """Renders the spots of a patch with a margin, at binned or at original pixels.

    Parameters
    ----------
    shape
        Rows and columns of the image.
    px
        Binned pixel, Å.
    atoms
        Atoms to render.
    finer
        Number of rendered pixels along a binned pixel.
    """

    def __init__(self, shape: tuple[int, ...], px: float, atoms: PatchAtoms, finer: int) -> None:
        self.px = px / finer
        self._margin = int(np.ceil(MARGIN_A / self.px))
        self._shape = shape
        self._grid = Grid((shape[0] + 2 * self._margin, shape[1] + 2 * self._margin))
        rc = atoms.rc * finer + (finer - 1) / 2 + self._margin
        self._spectra = [
            self._grid.spectrum(rc[atoms.group == g], atoms.ratio[atoms.group == g])
            for g in range(len(atoms.amplitude))
        ]

    def cores(self, spot: SpotShape, lines: FloatArray) -> list[Image]:
        """Image of each group at amplitude one; `lines` (row,) are line shifts in pixels."""
        kernel = self._kernel(spot)
        return [self._convolve(s, kernel, lines) for s in self._spectra]

    def slope(self, spot: SpotShape, amplitude: FloatArray, lines: FloatArray) -> Image:
        """Derivative of the image along columns, per pixel."""
        along = self._grid.column_derivative(self._kernel(spot))
        return self._convolve(self._total(amplitude), along, lines)

    def correlate_slope(self, spot: SpotShape, weighted: Image, rc: FloatArray) -> FloatArray:
        """Sum of an image times the column derivative of each spot, shape (atom,)."""
        m = self._margin
        (coefficients,) = self._grid.correlate(np.pad(weighted, m), self._kernel(spot))
        along: FloatArray = self._grid.interpolate(coefficients, rc + m, ("c",))[0]
        return along

    def steepness(self, spot: SpotShape, amplitude: FloatArray) -> Image:
        """Sum over atoms of the squared slope of the spot, assumed to be round and without tail.

        The Fourier transform of ``r² exp(-r²/σ²)/σ⁴`` is ``π exp(-u) (1 - u)``, ``u = π²σ²k²``.
        """
        grid = self._grid
        u = np.pi**2 * np.sqrt(spot.determinant()) / self.px**2 * (grid.kr**2 + grid.kc**2)
        kernel = grid.divide_by_spline((np.pi * np.exp(-u) * (1 - u)).astype(np.float32))
        return self._convolve(self._total(amplitude**2), kernel, np.zeros(self._shape[0]))

    def derivatives(self, spot: SpotShape, amplitude: FloatArray, lines: FloatArray) -> list[Image]:
        """Derivatives of the image by the five values of the spot shape."""
        total, now = self._total(amplitude), self._transfer(spot)
        width = np.sqrt(spot.determinant())
        slopes = []
        for k, h in enumerate((0.02 * width, 0.02 * width, 0.02 * width, 0.02, 0.05)):
            change = (self._transfer(spot.changed(k, h)) - now) / np.float32(h)
            slopes.append(self._convolve(total, self._grid.divide_by_spline(change), lines))
        return slopes

    def _total(self, amplitude: FloatArray) -> NDArray[np.complex64]:
        out: NDArray[np.complex64] = sum(
            np.float32(a) * s for a, s in zip(amplitude, self._spectra, strict=True)
        )  # type: ignore[assignment]
        return out

    def _kernel(self, spot: SpotShape) -> Image:
        return self._grid.divide_by_spline(self._transfer(spot))

    def _transfer(self, spot: SpotShape) -> Image:
        rr, rc, cc = spot.core / self.px**2
        f, wider = spot.tail_fraction, spot.tail_width**2
        kr, kc = self._grid.kr, self._grid.kc
        form = (-2 * np.pi**2 * (rr * kr**2 + 2 * rc * kr * kc + cc * kc**2)).astype(np.float32)
        area = 2 * np.pi * np.sqrt(max(rr * cc - rc**2, 1e-12)) / (1 - f + f / wider)
        core, tail = np.exp(form), np.exp(np.float32(wider) * form)
        return np.asarray(np.float32(area) * (np.float32(1 - f) * core + np.float32(f) * tail))

    def _convolve(
        self,
        spectrum: NDArray[np.complex64],
        kernel: Image | NDArray[np.complex64],
        lines: FloatArray,
    ) -> Image:
        m = self._margin
        image = self._grid.image(spectrum, kernel)[m : m + self._shape[0]]
        if lines.any():
            k = np.fft.rfftfreq(image.shape[1])[None, :]
            phase = np.exp(-2j * np.pi * k * lines[:, None])
            shifted = np.fft.irfft(np.fft.rfft(image, axis=1) * phase, n=image.shape[1], axis=1)
            image = shifted.astype(np.float32)
        return np.ascontiguousarray(image[:, m : m + self._shape[1]])


class Patch:
    """A rectangular patch of a frame, with the atoms in it and around it.

    Its own parameters are the amplitude of each element and the coefficients of the background.

    Parameters
    ----------
    data, fine
        Binned and original pixels, shapes (row, col), intensity.
    mask
        Binned pixels that are used, shape (row, col).
    atoms
        Atoms in the patch and around it.
    px
        Size of a binned pixel, Å.
    """

    def __init__(
        self,
        data: Image,
        fine: Image,
        mask: NDArray[np.bool_],
        atoms: PatchAtoms,
        px: float,
    ) -> None:
        self.data, self.fine, self.px = data, fine, px
        self.bins = fine.shape[0] // data.shape[0]
        self.atoms = atoms
        self.background = Background((data.shape[0], data.shape[1]), Calibration(px))
        self.lines, self.lines_var = np.zeros(data.shape[0]), 0.0  # shifts, pixels; Å²
        self.amplitude = atoms.amplitude.copy()
        self.coefficients = np.full(self.background.count, atoms.background)
        self.renderer = PatchRenderer(data.shape, px, atoms, 1)
        self._fine = (
            self.renderer if self.bins == 1 else PatchRenderer(fine.shape, px, atoms, self.bins)
        )
        self._shared_own = np.zeros(
            (SHARED, 0)
        )  # information between the spot shape and the own parameters
        self.inverse = np.zeros((0, 0))  # covariance of the own parameters at a known spot shape
        self.whole = mask
        self.exclude(np.zeros_like(mask))

    def solve(
        self, spot: SpotShape, noise: FrameNoise
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Normal equations of the spot shape after eliminating the own parameters.

        Returns
        -------
        Matrix, shape (5, 5); gradient, shape (5,); and step of the own parameters, shape (own,).
        """
        slopes = self.renderer.derivatives(spot, self.amplitude, self.lines)
        cores = self.renderer.cores(spot, self.lines)
        model = self.model(cores)
        weight = self.weight(model, noise)
        residual = weight * (self.data - model)
        x = np.stack([i.ravel() for i in (*slopes, *cores)])
        xw = x * weight.ravel()
        whole = (xw @ x.T).astype(np.float64)
        cross = np.stack([self.background.gradient(i.reshape(weight.shape)) for i in xw])
        smooth = self.background.roughness * (0.5 * self.amplitude[0]) ** -2.0
        knots = self.background.information(weight) + smooth
        t = SHARED
        own = np.block([[whole[t:, t:], cross[t:]], [cross[t:].T, knots.toarray()]])
        own[np.diag_indices_from(own)] *= 1 + 1e-9
        scale = 1 / np.sqrt(np.diag(own))
        self.inverse = linalg.inv(own * scale[:, None] * scale) * scale[:, None] * scale
        right = (x @ residual.ravel()).astype(np.float64)
        by_background = self.background.gradient(residual) - smooth @ self.coefficients
        step = self.inverse @ np.concatenate([right[t:], by_background])
        self._shared_own = np.concatenate([whole[:t, t:], cross[:t]], axis=1)
        schur = whole[:t, :t] - self._shared_own @ self.inverse @ self._shared_own.T
        return schur, right[:t] - self._shared_own @ step, step

    def response_to_shared(self) -> FloatArray:
        """Derivative of the own parameters by the spot shape, shape (own, 5)."""
        out: FloatArray = -self.inverse @ self._shared_own.T
        return out

    def apply_step(self, step: FloatArray) -> None:
        """Add a step, shape (own,), to amplitudes and background."""
        groups = len(self.amplitude)
        least = 0.1 * self.atoms.amplitude[0]
        self.amplitude = np.maximum(self.amplitude + step[:groups], least)
        self.coefficients = self.coefficients + step[groups:]

    def model(self, cores: Sequence[Image]) -> Image:
        """Expected image, shape (row, col); `cores` are from the renderer."""
        return self._with_spots(self.background.image(self.coefficients), cores)

    def weight(self, model: Image, noise: FrameNoise) -> Image:
        """One over the variance of every binned pixel; zero for pixels that are not used."""
        share = np.float32(noise.correlation / self.bins**2)
        return np.asarray(self.mask / (noise.variance(model) * share))

    def mean_background(self) -> float:
        """Mean background over the pixels that are used, intensity."""
        return float((self.background.image(self.coefficients) * self.own).sum())

    def smoothed_residual(self, spot: SpotShape, noise: FrameNoise) -> Image:
        """Residual in standard deviations, smoothed over about one atom, shape (row, col)."""
        model = self.model(self.renderer.cores(spot, self.lines))
        scaled = (self.data - model) / np.sqrt(noise.variance(model))
        return np.asarray(ndimage.gaussian_filter(scaled, _STRANGE_A / self.px), dtype=np.float32)

    def exclude(self, strange: NDArray[np.bool_]) -> None:
        """Use all pixels except outliers (row, col) and their surroundings."""
        used = self.whole
        if strange.any():
            away = ndimage.distance_transform_edt(~strange) * self.px
            used = used & (away > _STRANGE_AROUND_A)
        self.mask = used.astype(np.float32)
        self.own = self.mask / max(float(self.mask.sum()), 1.0)

    def residual_at_full_resolution(
        self, spot: SpotShape
    ) -> tuple[Image, Image, NDArray[np.bool_]]:
        """Model, residual and mask in original pixels, each of shape (row, col)."""
        b = self.bins
        values = spot.values.copy()
        values[[0, 2]] -= binning(b, self.px)
        sharp, (rr, rc, cc) = SpotShape(values), spot.core
        growth = float(np.sqrt((rr * cc - rc**2) / sharp.determinant()))
        cores = self._fine.cores(sharp, np.repeat(self.lines * b, b))
        background = self.background.image(self.coefficients).repeat(b, axis=0).repeat(b, axis=1)
        image = self._with_spots(background, cores, growth)
        return image, self.fine - image, self.mask.repeat(b, axis=0).repeat(b, axis=1) > 0

    def absorbed_variance(self, spot: SpotShape, usual: Image, correlation: float) -> Image:
        """Variance by which fitted positions reduce the residuals, in original pixels.

        It is proportional to the squared slope of the spots. Its sum is the number of fitted
        coordinates, in units of the variance of the noise, `usual`.
        """
        steep = self._fine.steepness(spot, self.amplitude)
        whole = self.atoms.fitted * correlation / float((steep / usual).mean()) / steep.size
        out: Image = np.float32(whole) * np.maximum(steep, 0)
        return out

    def _with_spots(self, image: Image, cores: Sequence[Image], growth: float = 1.0) -> Image:
        for a, core in zip(self.amplitude, cores, strict=True):
            image = image + np.float32(a * growth) * core
        return image
