"""A rectangle of a frame as a sum of spots, with the equations of what all rectangles share.

What parts share is called `theta`, shape (5,): the covariance of a spot's core (rows, mixed,
columns), Å²; the share of the intensity in its tail; and how many times wider the tail is.
"""

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

SHARED = 5  # length of theta
MARGIN_A = 4.0  # atoms around a part whose tails reach into it
_STRANGE_A = 0.35  # width over which residuals are summed
_STRANGE_AROUND_A = 1.5  # what is left out around a strange place, Å


def binning(bins: int, px: float) -> float:
    """Variance that the mean over so many pixels adds to a spot, Å², of a binned pixel in Å."""
    return float((1 - bins**-2.0) * px**2 / 12)


def determinant(theta: FloatArray, widening: FloatArray | float = 0.0) -> float:
    """Determinant of a core's covariance, Å⁴, less what widens it."""
    rr, rc, cc = theta[:3] - widening
    return float(max(rr * cc - rc**2, 1e-8))


@dataclass(frozen=True, slots=True, eq=False)
class PatchAtoms:
    """Atoms of a part and around it, in binned pixels of the part.

    Parameters
    ----------
    rc
        Row, column; shape (atom, 2).
    group
        Which element each is of, the host's being 0; shape (atom,).
    ratio
        Amplitude of each in units of its group's, shape (atom,).
    amplitude
        Of every group, intensity, shape (group,).
    level
        Usual background, intensity.
    wander
        Mean covariance of the positions, row and column, shape (2, 2), pixels².
    moved
        How far each has left the networks' column, shape (atom,), pixels.
    fitted
        Number of coordinates that the frame decided.
    start_sigma
        How far the networks' positions were trusted in the fit, pixels (1 sigma).
    """

    rc: FloatArray
    group: NDArray[np.int64]
    ratio: FloatArray
    amplitude: FloatArray
    level: float
    wander: FloatArray
    moved: FloatArray
    fitted: float
    start_sigma: float


class Canvas:
    """Spots of a part, drawn with a margin, at its binned pixels or at the original ones.

    Parameters
    ----------
    shape
        Rows and columns that are drawn.
    px
        Binned pixel, Å.
    atoms
        What is drawn.
    finer
        Drawn pixels along a binned one.
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

    def cores(self, theta: FloatArray, lines: FloatArray) -> list[Image]:
        """Image of every group at amplitude one, its lines shifted by so many pixels."""
        kernel = self._kernel(theta)
        return [self._see(s, kernel, lines) for s in self._spectra]

    def slope(self, theta: FloatArray, amplitude: FloatArray, lines: FloatArray) -> Image:
        """Derivative along columns, per pixel."""
        along = self._grid.column_derivative(self._kernel(theta))
        return self._see(self._total(amplitude), along, lines)

    def correlate(self, theta: FloatArray, weighted: Image, rc: FloatArray) -> FloatArray:
        """Sum of an image under each spot's derivative by its column, shape (atom,)."""
        m = self._margin
        (coefficients,) = self._grid.correlate(np.pad(weighted, m), self._kernel(theta))
        along: FloatArray = self._grid.interpolate(coefficients, rc + m, ("c",))[0]
        return along

    def steepness(self, theta: FloatArray, amplitude: FloatArray) -> Image:
        """Sum over atoms of the squared slope of each one's spot, taken as round and without tail.

        The Fourier transform of ``r² exp(-r²/σ²)/σ⁴`` is ``π exp(-u) (1 - u)``, ``u = π²σ²k²``.
        """
        grid = self._grid
        u = np.pi**2 * np.sqrt(determinant(theta)) / self.px**2 * (grid.kr**2 + grid.kc**2)
        kernel = grid.divide_by_spline((np.pi * np.exp(-u) * (1 - u)).astype(np.float32))
        return self._see(self._total(amplitude**2), kernel, np.zeros(self._shape[0]))

    def derivatives(
        self, theta: FloatArray, amplitude: FloatArray, lines: FloatArray
    ) -> list[Image]:
        """Derivatives of the whole image by what parts share."""
        total, now = self._total(amplitude), self._transfer(theta)
        width = np.sqrt(determinant(theta))
        slopes = []
        for k, h in enumerate((0.02 * width, 0.02 * width, 0.02 * width, 0.02, 0.05)):
            moved = theta.copy()
            moved[k] += h
            change = (self._transfer(moved) - now) / np.float32(h)
            slopes.append(self._see(total, self._grid.divide_by_spline(change), lines))
        return slopes

    def _total(self, amplitude: FloatArray) -> NDArray[np.complex64]:
        out: NDArray[np.complex64] = sum(
            np.float32(a) * s for a, s in zip(amplitude, self._spectra, strict=True)
        )  # type: ignore[assignment]
        return out

    def _kernel(self, theta: FloatArray) -> Image:
        return self._grid.divide_by_spline(self._transfer(theta))

    def _transfer(self, theta: FloatArray) -> Image:
        rr, rc, cc = theta[:3] / self.px**2
        f, wider = theta[3], theta[4] ** 2
        kr, kc = self._grid.kr, self._grid.kc
        form = (-2 * np.pi**2 * (rr * kr**2 + 2 * rc * kr * kc + cc * kc**2)).astype(np.float32)
        area = 2 * np.pi * np.sqrt(max(rr * cc - rc**2, 1e-12)) / (1 - f + f / wider)
        core, tail = np.exp(form), np.exp(np.float32(wider) * form)
        return np.asarray(np.float32(area) * (np.float32(1 - f) * core + np.float32(f) * tail))

    def _see(
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


class Part:
    """A rectangle of a frame, with the atoms in it and around it.

    Its own unknowns are the amplitude of every element and the background's levels.

    Parameters
    ----------
    data, fine
        Binned and original pixels, shapes (row, col), intensity.
    mask
        Binned pixels that count.
    atoms
        In it and around it.
    px
        Binned pixel, Å.
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
        self.level = np.full(self.background.count, atoms.level)
        self.canvas = Canvas(data.shape, px, atoms, 1)
        self._fine = self.canvas if self.bins == 1 else Canvas(fine.shape, px, atoms, self.bins)
        self._shared_own = np.zeros((SHARED, 0))  # information between theta and its own unknowns
        self.inverse = np.zeros((0, 0))  # covariance of its own unknowns at a known theta
        self.whole = mask
        self.leave_out(np.zeros_like(mask))

    def solve(
        self, theta: FloatArray, noise: FrameNoise
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Normal equations of what parts share, its own unknowns eliminated; and its own step."""
        slopes = self.canvas.derivatives(theta, self.amplitude, self.lines)
        cores = self.canvas.cores(theta, self.lines)
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
        by_level = self.background.gradient(residual) - smooth @ self.level
        step = self.inverse @ np.concatenate([right[t:], by_level])
        self._shared_own = np.concatenate([whole[:t, t:], cross[:t]], axis=1)
        schur = whole[:t, :t] - self._shared_own @ self.inverse @ self._shared_own.T
        return schur, right[:t] - self._shared_own @ step, step

    def follows(self) -> FloatArray:
        """How amplitudes and levels change with what parts share, shape (own, shared)."""
        out: FloatArray = -self.inverse @ self._shared_own.T
        return out

    def take(self, step: FloatArray) -> None:
        """Change amplitudes and levels."""
        groups = len(self.amplitude)
        least = 0.1 * self.atoms.amplitude[0]
        self.amplitude = np.maximum(self.amplitude + step[:groups], least)
        self.level = self.level + step[groups:]

    def model(self, cores: Sequence[Image]) -> Image:
        """Expected image (row, col)."""
        return self._with_spots(self.background.image(self.level), cores)

    def weight(self, model: Image, noise: FrameNoise) -> Image:
        """Information of every binned pixel about its intensity."""
        share = np.float32(noise.correlation / self.bins**2)
        return np.asarray(self.mask / (noise.variance(model) * share))

    def mean_level(self) -> float:
        """Mean of the background over what counts."""
        return float((self.background.image(self.level) * self.own).sum())

    def strangeness(self, theta: FloatArray, noise: FrameNoise) -> Image:
        """Residual over about an atom, relative to the noise."""
        model = self.model(self.canvas.cores(theta, self.lines))
        scaled = (self.data - model) / np.sqrt(noise.variance(model))
        return np.asarray(ndimage.gaussian_filter(scaled, _STRANGE_A / self.px), dtype=np.float32)

    def leave_out(self, strange: NDArray[np.bool_]) -> None:
        """Use all but what is strange, and what is near to it."""
        used = self.whole
        if strange.any():
            away = ndimage.distance_transform_edt(~strange) * self.px
            used = used & (away > _STRANGE_AROUND_A)
        self.mask = used.astype(np.float32)
        self.own = self.mask / max(float(self.mask.sum()), 1.0)

    def fine_residual(self, theta: FloatArray) -> tuple[Image, Image, NDArray[np.bool_]]:
        """Model, residual and what counts, in original pixels."""
        b = self.bins
        sharp = theta.copy()
        sharp[[0, 2]] -= binning(b, self.px)
        growth = float(np.sqrt((theta[0] * theta[2] - theta[1] ** 2) / determinant(sharp)))
        cores = self._fine.cores(sharp, np.repeat(self.lines * b, b))
        background = self.background.image(self.level).repeat(b, axis=0).repeat(b, axis=1)
        image = self._with_spots(background, cores, growth)
        return image, self.fine - image, self.mask.repeat(b, axis=0).repeat(b, axis=1) > 0

    def taken(self, theta: FloatArray, usual: Image, correlation: float) -> Image:
        """Variance that fitted positions took from the residuals', in original pixels.

        Where each spot is steep; in all, as much as the coordinates that the frame decided are
        many. `usual` is the noise's variance.
        """
        steep = self._fine.steepness(theta, self.amplitude)
        whole = self.atoms.fitted * correlation / float((steep / usual).mean()) / steep.size
        out: Image = np.float32(whole) * np.maximum(steep, 0)
        return out

    def _with_spots(self, image: Image, cores: Sequence[Image], growth: float = 1.0) -> Image:
        for a, core in zip(self.amplitude, cores, strict=True):
            image = image + np.float32(a * growth) * core
        return image
