"""How well a choice of atoms explains the pixels of a frame around one place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adatom.core import AtomTable, Frame, Material
from adatom.core.arrays import BoolArray, FloatArray
from adatom.features.refinement.binning import BinnedFrame, bin_frame
from adatom.features.refinement.image_model import Probe
from adatom.features.refinement.refine import RefineOptions, refine

# Standard deviation of amplitudes relative to their element's, without noise: focus and vibration;
# as in the test of empty sites.
NATURAL_SPREAD = 0.12
# Å: atoms up to this far outside the pixels reach into them: six widths of a usual probe (0.42 Å).
_TAIL_A = 2.5
_FEWEST_ATOMS = 5  # with fewer atoms neither probe nor amplitude is known
_STEP_PX = 0.01  # pixels, of the numerical derivative of the probe


@dataclass(frozen=True, slots=True, eq=False)
class LocalLikelihood:
    """The pixels near one place, reduced to what the likelihood of any choice of atoms needs.

    The pixels are ``background + sum_i A_i P(r - r_i - t_i)`` with normal noise of the variance
    that the fit found, times its reduced chi² where that exceeds one. Of a chosen atom ``A_i`` is
    normal around the amplitude of its element, the shift ``t_i`` is normal with the prior of the
    refinement, and the background is a plane. All three are integrated out, the shift to first
    order, so the likelihood depends on nothing but which candidates exist and what they are.

    Parameters
    ----------
    near
        Rows of the candidates that reach into the pixels, ascending, shape (near,).
    gram
        Shape (3 near + 3, 3 near + 3): products of the derivatives of the image by
        amplitude, row and column of each of them at amplitude one, and by the three of the
        background, each over the variance of the pixel.
    onto
        Shape (3 near + 3,): their products with the pixels, less the median background.
    square
        Sum of the squared pixels over their variance, less the median background.
    spread_px
        Standard deviation of the prior on a shift, pixels.
    background_sd
        That of each part of the background, intensity.
    amplitude
        Amplitude and its relative standard deviation by species, intensity.
    """

    near: NDArray[np.int64]
    gram: FloatArray
    onto: FloatArray
    square: float
    spread_px: float
    background_sd: float
    amplitude: dict[str, tuple[float, float]]

    def log_likelihood(self, exists: BoolArray, labels: NDArray[np.str_]) -> float:
        """Natural logarithm of p(pixels | these atoms), up to a constant of the frame.

        The model is linear in all that is integrated out, so the integral is that of a normal
        distribution (Bishop, Pattern Recognition and Machine Learning (2006), eq. 2.115) and is
        computed in the parameters instead of the pixels.

        Parameters
        ----------
        exists
            Shape (candidate,): True where the candidate exists.
        labels
            Shape (candidate,): what each is; species of the material.
        """
        chosen = np.flatnonzero(exists[self.near])
        known = np.array([self.amplitude[str(s)] for s in labels[self.near[chosen]]]).reshape(-1, 2)
        n = len(chosen)
        at = np.concatenate([(3 * chosen[:, None] + np.arange(3)).ravel(),
                             len(self.onto) - 3 + np.arange(3)])  # fmt: skip
        scale = np.concatenate([np.repeat(known[:, 0], 3), np.ones(3)])
        prior_sd = np.concatenate([
            np.stack([known[:, 1], *[np.full(n, self.spread_px)] * 2], axis=1).ravel(),
            np.full(3, self.background_sd),
        ])  # fmt: skip
        mean = np.concatenate([np.tile([1.0, 0.0, 0.0], n), np.zeros(3)])
        gram = self.gram[np.ix_(at, at)] * np.outer(scale, scale)
        onto = self.onto[at] * scale
        left = prior_sd * (onto - gram @ mean)
        misfit = self.square - 2.0 * float(mean @ onto) + float(mean @ gram @ mean)
        root = np.linalg.cholesky(np.eye(len(at)) + gram * np.outer(prior_sd, prior_sd))
        gained = np.linalg.solve(root, left)
        return float(-0.5 * (misfit - gained @ gained) - np.log(np.diagonal(root)).sum())


def likelihood_near(
    frame: Frame,
    atoms: AtomTable,
    center_xy_A: tuple[float, float],
    radius_A: float,
    material: Material,
    options: RefineOptions | None = None,
) -> LocalLikelihood | None:
    """Prepare the likelihood of the atoms near a place, with the frame's own probe and noise.

    Parameters
    ----------
    frame
        The image.
    atoms
        Its atoms, also improbable ones: the candidates.
    center_xy_A, radius_A
        The pixels that count, Å, measured axes.
    material
        Gives the relative brightness of its species, and how far that is known.
    options
        Of the fit; they give the prior on positions.

    Returns
    -------
    The likelihood, whose candidates are all rows of `atoms`. None where the frame has fewer than
    five likely atoms or no usable pixel there.
    """
    options = options or RefineOptions()
    likely = atoms.is_likely
    if np.count_nonzero(likely) < _FEWEST_ATOMS:
        return None
    fit = refine(frame, atoms.xy[likely], options)
    bright = _brightness(material)
    unit = float(np.median(fit.amplitude / [bright[str(s)][0] for s in atoms.elements[likely]]))
    binned, center = bin_frame(frame), np.asarray(center_xy_A)
    used = _pixels(binned, center, radius_A)
    if not used.any() or unit <= 0:
        return None
    rc = np.argwhere(used).astype(np.float64)
    away = np.linalg.norm(atoms.xy - center, axis=1)
    near = np.flatnonzero(away <= radius_A + _TAIL_A).astype(np.int64)
    spots = [_spot(fit.optics.probe, rc - binned.rc(atoms.xy[i : i + 1])) for i in near]
    plane = np.column_stack([np.ones(len(rc)), (rc - rc.mean(axis=0)) / np.ptp(rc, axis=0).max()])
    columns = np.hstack([*spots, plane])
    level, found = float(np.median(fit.background)), np.zeros(len(atoms))
    found[likely] = fit.amplitude
    signal = level + columns[:, :-3:3] @ found[near]
    variance = fit.optics.noise.variance(signal.astype(np.float32)).astype(np.float64)
    weighted = columns / (variance * max(fit.reduced_chi2, 1.0))[:, None]
    data = binned.data[used].astype(np.float64) - level
    return LocalLikelihood(
        near=near,
        gram=weighted.T @ columns,
        onto=weighted.T @ data,
        square=float(data**2 @ weighted[:, -3]),
        spread_px=options.start_sigma_A / binned.calibration.pixel_size_A,
        background_sd=unit,
        amplitude={s: (unit * b, sd) for s, (b, sd) in bright.items()},
    )


def _pixels(binned: BinnedFrame, center_xy_A: FloatArray, radius_A: float) -> BoolArray:
    """Mark the pixels around a place that are neither masked nor clipped, shape (row, col)."""
    shape = binned.data.shape
    xy = binned.xy(np.indices(shape).reshape(2, -1).T.astype(np.float64))
    used: BoolArray = (np.linalg.norm(xy - center_xy_A, axis=1) <= radius_A).reshape(shape)
    for spoiled in (binned.masked, binned.clipped):
        if spoiled is not None:
            used &= spoiled == 0
    return used


def _brightness(material: Material) -> dict[str, tuple[float, float]]:
    """Brightness over the host's and its relative standard deviation, by species.

    The detector's exponent is known within a range; its half counts as standard deviation.
    """
    low, high = (material.brightness(e) for e in material.exponents)
    own = np.abs(high - low) / (high + low)
    middle = material.brightness()
    return {
        s: (float(b), float(np.hypot(NATURAL_SPREAD, r)))
        for s, b, r in zip(material.species, middle, own, strict=True)
    }


def _spot(probe: Probe, step: FloatArray) -> FloatArray:
    """Height of a spot at vectors (pixel, 2) from its centre, and its slopes, shape (pixel, 3)."""
    slopes = [
        (probe.value_at(step - move) - probe.value_at(step + move)) / (2 * _STEP_PX)
        for move in _STEP_PX * np.eye(2)
    ]
    return np.stack([probe.value_at(step), *slopes], axis=1)
