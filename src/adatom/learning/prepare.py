"""What a network sees of a frame: its working scale and its normalisation, the same in training."""

from __future__ import annotations

import numpy as np
from scipy import fft, sparse

from adatom.core import Calibration
from adatom.core.arrays import FloatArray, Image

_BACKGROUND_PX = 25.0  # slower is background; a hexagon's hole is half as wide
_LIMIT = 12.0  # in standard deviations: a hot pixel stays a bright pixel and nothing more


def resample(image: Image, calibration: Calibration, working: Calibration) -> Image:
    """Bring an image to another pixel size; the centre of pixel (0, 0) stays where it is.

    A triangular kernel as wide as the larger of the two pixels: linear interpolation when pixels
    get smaller, anti-aliased averaging when they get larger.

    Parameters
    ----------
    image
        Shape (row, col).
    calibration, working
        Pixel size before and after.

    Returns
    -------
    Image, shape (row, col) at the new scale, covering the same field.
    """
    ratio = working.pixel_size_A / calibration.pixel_size_A
    if abs(ratio - 1.0) < 1e-6:
        return np.asarray(image, dtype=np.float32)
    rows = _weights(image.shape[0], ratio)
    cols = _weights(image.shape[1], ratio)
    half = rows @ np.asarray(image, dtype=np.float32)
    return np.asarray((cols @ half.T).T, dtype=np.float32, order="C")


def resampled_length(n: int, ratio: float) -> int:
    """Pixels along a side of `n` after pixels grew by `ratio`."""
    if abs(ratio - 1.0) < 1e-6:
        return n
    return max(int(np.floor((n - 1) / ratio + 1e-9)) + 1, 2)


def _weights(n: int, ratio: float) -> sparse.csr_matrix:
    """Sparse (new, old) matrix of triangular weights; each row sums to one."""
    m = resampled_length(n, ratio)
    width = max(ratio, 1.0)
    center = np.arange(m) * ratio
    reach = np.arange(-int(np.ceil(width)), int(np.ceil(width)) + 1)
    old = np.round(center)[:, None].astype(int) + reach[None, :]
    weight = np.maximum(1.0 - np.abs(old - center[:, None]) / width, 0.0)
    weight[(old < 0) | (old >= n)] = 0.0
    weight /= weight.sum(axis=1, keepdims=True)
    row = np.broadcast_to(np.arange(m)[:, None], old.shape)
    used = weight > 0
    return sparse.csr_matrix(
        (weight[used].astype(np.float32), (row[used], old[used])), shape=(m, n)
    )


def normalise(image: Image) -> Image:
    """Remove what is slower than the lattice and bring the contrast to one.

    Uses nothing but this frame, so that no other frame can change its atoms; extremes are
    limited before the scale is measured, so that a hot pixel cannot either.

    Parameters
    ----------
    image
        Shape (row, col), at the working scale.

    Returns
    -------
    Image of the same shape, about zero mean and unit standard deviation.
    """
    low, high = np.percentile(image, (0.2, 99.8))
    if high <= low:
        low, high = float(image.min()), float(image.max())
    limited = np.clip(image, low, high)
    flat = image - _slow(limited)
    scale = float(np.std(np.clip(flat, *np.percentile(flat, (0.2, 99.8)))))
    if scale <= 0:
        scale = float(np.std(flat)) or 1.0
    out: Image = np.clip(flat / scale, -_LIMIT, _LIMIT).astype(np.float32)
    return out


def _slow(image: Image) -> Image:
    """Smooth by a Gaussian cut at 2.5 widths, its edge pixels repeated beyond the border.

    By Fourier transform: a direct sum over its 127 pixels takes three times as long.
    """
    reach = int(2.5 * _BACKGROUND_PX + 0.5)
    x = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (x / _BACKGROUND_PX) ** 2)
    kernel /= kernel.sum()
    size = [int(fft.next_fast_len(n + 2 * reach, real=True)) for n in image.shape]
    pad = [(reach, m - n - reach) for n, m in zip(image.shape, size, strict=True)]
    middle = float(image.mean())  # single precision is for what differs from it
    padded = np.pad(np.asarray(image - np.float32(middle), dtype=np.float32), pad, mode="edge")
    rows, cols = (np.cos(2 * np.pi * np.outer(k, x)) @ kernel for k in _frequencies(size))
    spectrum = fft.rfft2(padded)
    spectrum *= rows.astype(np.float32)[:, None]
    spectrum *= cols.astype(np.float32)
    out = fft.irfft2(spectrum, s=tuple(size), overwrite_x=True)
    out = out[reach : reach + image.shape[0], reach : reach + image.shape[1]]
    return np.asarray(out + np.float32(middle), dtype=np.float32)


def _frequencies(size: list[int]) -> tuple[FloatArray, FloatArray]:
    """Cycles per pixel along rows and, of real images, along columns."""
    return fft.fftfreq(size[0]), fft.rfftfreq(size[1])
