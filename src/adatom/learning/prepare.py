"""Input of a network: a frame at the working pixel size, normalised as in training."""

from __future__ import annotations

import numpy as np
from scipy import fft, sparse

from adatom.core import Calibration
from adatom.core.arrays import FloatArray, Image

_BACKGROUND_PX = 25.0  # Gaussian width of the background, working pixels: twice a hexagon's hole
_LIMIT = 12.0  # largest input, standard deviations: limits the effect of a hot pixel
_LIMITED_PERCENTILES = (0.2, 99.8)  # values outside are clipped before the scale is measured
_CUT = 2.5  # the Gaussian kernel of the background ends at this many widths
_SAME_SCALE = 1e-6  # relative difference of pixel sizes below which nothing is resampled


def resample(image: Image, calibration: Calibration, working: Calibration) -> Image:
    """Resample an image to another pixel size; the centre of pixel (0, 0) stays in place.

    The kernel is a triangle as wide as the larger of the two pixels: linear interpolation for
    smaller pixels, anti-aliased averaging for larger ones.

    Parameters
    ----------
    image
        Shape (row, col).
    calibration, working
        Pixel size before and after.

    Returns
    -------
    Image, shape (row, col), at the new pixel size; it covers the same field.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import Calibration
    >>> from adatom.learning.prepare import resample
    >>> ramp = np.arange(5, dtype=np.float32)[None, :].repeat(5, axis=0)
    >>> resample(ramp, Calibration(0.1), Calibration(0.2))[0].tolist()
    [0.3333333432674408, 2.0, 3.6666667461395264]
    """
    ratio = working.pixel_size_A / calibration.pixel_size_A
    if abs(ratio - 1.0) < _SAME_SCALE:
        return np.asarray(image, dtype=np.float32)
    rows = _weights(image.shape[0], ratio)
    cols = _weights(image.shape[1], ratio)
    half = rows @ np.asarray(image, dtype=np.float32)
    return np.asarray((cols @ half.T).T, dtype=np.float32, order="C")


def resampled_length(n: int, ratio: float) -> int:
    """Give the number of pixels of a side of `n` pixels after they grew by the factor `ratio`."""
    if abs(ratio - 1.0) < _SAME_SCALE:
        return n
    return max(int(np.floor((n - 1) / ratio + 1e-9)) + 1, 2)


def _weights(n: int, ratio: float) -> sparse.csr_matrix:
    """Give the sparse (new, old) matrix of triangular weights; each row sums to one."""
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
    """Subtract the background and scale the contrast to one.

    Only this frame is used, so other frames cannot change its result. Extreme values are clipped
    before the scale is measured, so a hot pixel cannot change it either.

    Parameters
    ----------
    image
        Shape (row, col), at the working pixel size.

    Returns
    -------
    Image of the same shape, with about zero mean and unit standard deviation.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.learning.prepare import normalise
    >>> image = np.random.default_rng(0).normal(100.0, 7.0, (64, 64)).astype(np.float32)
    >>> abs(float(normalise(image).std()) - 1.0) < 0.1
    True
    """
    low, high = np.percentile(image, _LIMITED_PERCENTILES)
    if high <= low:
        low, high = float(image.min()), float(image.max())
    limited = np.clip(image, low, high)
    flat = image - _background(limited)
    scale = float(np.std(np.clip(flat, *np.percentile(flat, _LIMITED_PERCENTILES))))
    if scale <= 0:
        scale = float(np.std(flat)) or 1.0
    out: Image = np.clip(flat / scale, -_LIMIT, _LIMIT).astype(np.float32)
    return out


def _background(image: Image) -> Image:
    """Smooth by a truncated Gaussian; the border pixels are repeated outside.

    Uses Fourier transforms: a direct sum over the 127 pixels of the kernel takes three times as
    long.
    """
    reach = int(_CUT * _BACKGROUND_PX + 0.5)
    x = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (x / _BACKGROUND_PX) ** 2)
    kernel /= kernel.sum()
    size = [int(fft.next_fast_len(n + 2 * reach, real=True)) for n in image.shape]
    pad = [(reach, m - n - reach) for n, m in zip(image.shape, size, strict=True)]
    middle = float(image.mean())  # subtracted first, to keep the precision of the small differences
    padded = np.pad(np.asarray(image - np.float32(middle), dtype=np.float32), pad, mode="edge")
    rows, cols = (np.cos(2 * np.pi * np.outer(k, x)) @ kernel for k in _frequencies(size))
    spectrum = fft.rfft2(padded)
    spectrum *= rows.astype(np.float32)[:, None]
    spectrum *= cols.astype(np.float32)
    out = fft.irfft2(spectrum, s=tuple(size), overwrite_x=True)
    out = out[reach : reach + image.shape[0], reach : reach + image.shape[1]]
    return np.asarray(out + np.float32(middle), dtype=np.float32)


def _frequencies(size: list[int]) -> tuple[FloatArray, FloatArray]:
    """Give the frequencies of a real image along rows and columns, cycles per pixel."""
    return fft.fftfreq(size[0]), fft.rfftfreq(size[1])
