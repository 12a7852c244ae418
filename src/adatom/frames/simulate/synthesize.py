"""Simulate a labelled frame of a specimen: probe, dose, noise, jitter, background.

The image is incoherent (annular dark field): each atom is one spot of intensity Zⁿ, n about 1.64,
convolved with the probe (Krivanek et al., Nature 464, 571 (2010)).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from adatom.core import Calibration, Frame, LabelledFrame, Material, ScanRequest
from adatom.core.arrays import FloatArray
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.crystal import draw_specimen
from adatom.frames.simulate.probe import gaussian_transfer, optics_transfer
from adatom.frames.simulate.specimen import MARGIN_A, Specimen

NOTHING = Specimen(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), np.zeros((0, 2)))  # no atoms
# Å: width of the spots that are rendered at exact positions, narrower than any probe; a convolution
# widens them to the probe.
_CORE_A = 0.22
# Lumps of a support: mean number in the area 2πσ² of a spot, and their widths over its width.
_LUMPS_PER_SPOT = 0.4
_LUMP_WIDTHS = (1.0, 1.3, 1.7)


def spots(
    shape: tuple[int, int], rc: FloatArray, amplitude: FloatArray, sigma_px: float
) -> FloatArray:
    """Sum of Gaussian spots at sub-pixel positions, as a product of two matrices.

    Parameters
    ----------
    shape
        Rows and columns.
    rc
        Centres, shape (atom, 2), row and column in pixels.
    amplitude
        Peak heights, shape (atom,).
    sigma_px
        Standard deviation, pixels.

    Returns
    -------
    Image, shape (row, col).

    Examples
    --------
    >>> import numpy as np
    >>> float(spots((3, 5), np.array([[1.0, 2.0]]), np.array([7.0]), 0.5)[1, 2])
    7.0
    """
    # Single precision takes half the time; its error is 1e-7 of a peak.
    rows = (np.arange(shape[0])[None, :] - rc[:, :1]).astype(np.float32)
    cols = (np.arange(shape[1])[None, :] - rc[:, 1:]).astype(np.float32)
    scale = np.float32(-0.5 / sigma_px**2)
    gy = np.exp(scale * rows**2) * amplitude[:, None].astype(np.float32)
    gx = np.exp(scale * cols**2)
    return np.asarray(gy.T @ gx, dtype=np.float64)


def expected_image(
    specimen: Specimen,
    shape: tuple[int, int],
    material: Material,
    conditions: Conditions,
    rng: np.random.Generator,
) -> FloatArray:
    """Expected counts of a specimen, before noise.

    Parameters
    ----------
    specimen
        The atoms.
    shape
        Rows and columns.
    material
        Defines the species and their brightness.
    conditions
        Probe, dose, background, jitter.
    rng
        Source of the background and the jitter.

    Returns
    -------
    Detected counts per pixel, shape (row, col).
    """
    px = conditions.pixel_size_A
    pad = int(np.ceil(MARGIN_A * material.scale / px))
    padded = (fft.next_fast_len(shape[0] + 2 * pad), fft.next_fast_len(shape[1] + 2 * pad))
    amplitude = material.brightness(conditions.contrast_exponent)[specimen.species]
    if specimen.brightness is not None:
        amplitude = amplitude * specimen.brightness
    rc = Calibration(px).rc(_fly_back(specimen.xy, conditions)) + pad
    image = spots(padded, rc, amplitude, _CORE_A / px)
    if conditions.contamination > 0:
        image += _contamination(padded, conditions, rng)
    image = _convolve_probe(image, conditions)
    image += conditions.background
    if conditions.support > 0:
        image += _support(padded, conditions, rng)
    if conditions.slow_background > 0:
        image += _slow_background(padded, conditions, rng)
    if conditions.jitter_A > 0 or conditions.vibration_A > 0:
        image = _shift_rows(image, _row_shifts(padded[0], conditions, rng))
    image = np.maximum(image, 0.0)[pad : pad + shape[0], pad : pad + shape[1]]
    out: FloatArray = image * conditions.counts
    return out


def image_specimen(
    specimen: Specimen,
    shape: tuple[int, int],
    material: Material,
    conditions: Conditions,
    rng: np.random.Generator,
    *,
    index: int = 0,
    source: str = "simulated",
) -> LabelledFrame:
    """Simulate a noisy frame of a specimen.

    Parameters
    ----------
    specimen
        The atoms.
    shape
        Rows and columns.
    material
        Defines the species and their brightness.
    conditions
        Probe, dose, noise.
    rng
        Source of all noise.
    index, source
        Number and source of the frame.

    Returns
    -------
    The frame (counts) and the exact positions of the atoms in it.
    """
    expected = expected_image(specimen, shape, material, conditions, rng)
    return _detect(expected, specimen, material, conditions, rng, index=index, source=source)


def random_labelled(
    material: Material,
    rng: np.random.Generator,
    *,
    field_A: float = 18.0,
    conditions: Conditions | None = None,
    empty: bool = False,
    whole: bool = False,
    disorder_A: float | None = None,
) -> LabelledFrame:
    """Sample a random specimen and simulate a frame of it.

    Parameters
    ----------
    material
        The material.
    rng
        Source of the specimen, the conditions and the noise.
    field_A
        Edge of the square field, Å, rounded up to whole pixels.
    conditions
        Sampled from the training range by default.
    empty
        Leave out the specimen: background and noise only.
    whole, disorder_A
        Passed to `draw_specimen`.

    Returns
    -------
    The frame (counts) and its ground truth.
    """
    chosen = conditions or Conditions.random(rng, material)
    n = int(np.ceil(field_A / chosen.pixel_size_A)) + 1
    extent = Calibration(chosen.pixel_size_A).extent_xy((n, n))
    specimen = draw_specimen(material, extent, rng, whole=whole, disorder_A=disorder_A)
    if empty:
        specimen = NOTHING
    return image_specimen(specimen, (n, n), material, chosen, rng)


def random_pair(
    material: Material, rng: np.random.Generator, *, field_A: float, empty_share: float = 0.03
) -> list[LabelledFrame]:
    """Simulate two frames of one random specimen at independent doses, for training.

    Parameters
    ----------
    material
        The material.
    rng
        Source of the specimen, the conditions and the noise.
    field_A
        Edge of the square field, Å, rounded up to whole pixels.
    empty_share
        Fraction of the pairs with background and noise only.

    Returns
    -------
    Two frames with the same ground truth; only the noise of the second is computed anew.
    """
    first = Conditions.random(rng, material)
    second = Conditions.random(rng, material)
    counts = first.counts * second.counts_per_A2 / first.counts_per_A2
    n = int(np.ceil(field_A / first.pixel_size_A)) + 1
    specimen = draw_specimen(material, Calibration(first.pixel_size_A).extent_xy((n, n)), rng)
    if rng.random() < empty_share:
        specimen = NOTHING
    other = replace(first, counts=counts, read_noise=second.read_noise)
    return image_twice(specimen, (n, n), material, (first, other), rng)


def image_twice(
    specimen: Specimen,
    shape: tuple[int, int],
    material: Material,
    conditions: tuple[Conditions, Conditions],
    rng: np.random.Generator,
) -> list[LabelledFrame]:
    """Simulate two frames of a specimen that differ only in counts and read noise.

    Parameters
    ----------
    specimen
        The atoms.
    shape
        Rows and columns.
    material
        Defines the species and their brightness.
    conditions
        Conditions of the first and of the second frame; only the counts and the read noise of the
        second are used.
    rng
        Source of all noise.

    Returns
    -------
    Two frames with the same ground truth; only the noise of the second is computed anew.
    """
    first, second = conditions
    expected = expected_image(specimen, shape, material, first, rng)
    more = expected * (second.counts / first.counts)
    return [
        _detect(expected, specimen, material, first, rng),
        _detect(more, specimen, material, second, rng),
    ]


def _detect(
    expected: FloatArray,
    specimen: Specimen,
    material: Material,
    conditions: Conditions,
    rng: np.random.Generator,
    *,
    index: int = 0,
    source: str = "simulated",
) -> LabelledFrame:
    """Add detection noise to expected counts (row, col), and the ground truth in the field."""
    shape = (expected.shape[0], expected.shape[1])
    counts = rng.poisson(expected).astype(float)
    if conditions.read_noise > 0:
        counts += rng.normal(0.0, conditions.read_noise, shape)
    if conditions.blur_px > 0:
        counts = ndimage.gaussian_filter(counts, conditions.blur_px)
    if counts.min() == counts.max():  # no electron was detected; `Frame` refuses a constant image
        counts[0, 0] += 1.0
    calibration = Calibration(conditions.pixel_size_A)
    w, h = calibration.extent_xy(shape)
    seen = _fly_back(specimen.xy, conditions)
    inside = np.all((seen >= 0) & (seen <= (w, h)), axis=1)
    empty = np.all((specimen.vacancies_xy >= 0) & (specimen.vacancies_xy <= (w, h)), axis=1)
    frame = Frame(counts.astype(np.float32), calibration, index=index, source=source)
    return LabelledFrame(
        frame,
        seen[inside],
        specimen.species[inside],
        material.species,
        _fly_back(specimen.vacancies_xy[empty], conditions),
    )


def image_request(
    xy: FloatArray,
    species: NDArray[np.int64],
    material: Material,
    request: ScanRequest,
    conditions: Conditions,
    rng: np.random.Generator,
    *,
    index: int,
) -> Frame:
    """Simulate the frame of a `ScanRequest`.

    Parameters
    ----------
    xy
        Positions of the atoms in the specimen's axes, shape (atom, 2), Å.
    species
        Index into the material's species, shape (atom,).
    material
        Defines the species and their brightness.
    request
        Centre, field of view and pixels; its dose is not used, since `conditions` has the counts.
    conditions
        Probe, counts, noise; the pixel size must be that of the request.
    rng
        Source of all noise.
    index
        Number of the frame.

    Returns
    -------
    The frame; pixel (0, 0) lies half a field of view left of and above the request's centre.
    """
    corner = np.asarray(request.center_xy_A) - request.field_of_view_A / 2
    specimen = Specimen(xy - corner, species, np.zeros((0, 2)))
    shape = (request.pixels, request.pixels)
    return image_specimen(
        specimen, shape, material, conditions, rng, index=index, source="simulated microscope"
    ).frame


def _convolve_probe(image: FloatArray, conditions: Conditions) -> FloatArray:
    """Widen the core spots to the probe, in Fourier space; an isolated host atom has peak 1."""
    px = conditions.pixel_size_A
    ky = fft.fftfreq(image.shape[0], px)[:, None]
    kx = fft.rfftfreq(image.shape[1], px)[None, :]
    widths, angle = conditions.probe_sigma_A, conditions.probe_angle_rad
    transfer: NDArray[Any] = gaussian_transfer((kx, ky), widths, angle, _CORE_A)
    f = conditions.tail_fraction
    if f > 0:
        wide = (widths[0] * conditions.tail_width, widths[1] * conditions.tail_width)
        transfer = (1 - f) * transfer + f * gaussian_transfer((kx, ky), wide, angle, _CORE_A)
    if conditions.optics is not None:
        transfer = transfer * optics_transfer((kx, ky), conditions.optics)
    core = 2 * np.pi * (_CORE_A / px) ** 2 * np.exp(-2 * (np.pi * _CORE_A) ** 2 * (kx**2 + ky**2))
    spot: FloatArray = fft.irfft2(core * transfer, s=image.shape)
    out: FloatArray = fft.irfft2(fft.rfft2(image) * transfer, s=image.shape)
    return out / float(spot.max())


def _fly_back(xy: FloatArray, conditions: Conditions) -> FloatArray:
    """Shift positions at the start of the scan lines, where the scan has not settled yet."""
    if conditions.fly_back_A == 0:
        return xy
    settle = np.exp(-np.maximum(xy[:, 0], 0.0) / conditions.fly_back_length_A)
    return xy + np.stack([conditions.fly_back_A * settle, np.zeros(len(xy))], axis=1)


def _row_shifts(rows: int, conditions: Conditions, rng: np.random.Generator) -> FloatArray:
    """Shift of every line along x, pixels: jitter and a periodic vibration."""
    shift = rng.normal(0.0, conditions.jitter_A, rows)
    phase = 2 * np.pi * (np.arange(rows) / conditions.vibration_lines + rng.random())
    out: FloatArray = (shift + conditions.vibration_A * np.sin(phase)) / conditions.pixel_size_A
    return out


def _contamination(
    shape: tuple[int, int], conditions: Conditions, rng: np.random.Generator
) -> FloatArray:
    """Amorphous patches: random host-like atoms that cover a fraction of the field."""
    px = conditions.pixel_size_A
    density = 0.6  # atoms per Å²
    count = int(density * shape[0] * shape[1] * px**2)
    rc = rng.uniform(0, 1, (count, 2)) * np.asarray(shape)
    lumps = spots(shape, rc, rng.exponential(1.0, count), _CORE_A / px)
    # A usual probe spreads each over about 2π·0.42² Å²: the mean level of the patches becomes 1.
    lumps /= density * 2 * np.pi * 0.42**2
    hills = _hills(shape, 4.0 / px, rng)
    low, high = np.quantile(hills[::4, ::4], [1 - conditions.contamination, 1.0])
    mask = np.clip((hills - low) / max(0.5 * (high - low), 1e-9), 0.0, 1.0)
    out: FloatArray = conditions.contamination_level * lumps * mask
    return out


def _support(
    shape: tuple[int, int], conditions: Conditions, rng: np.random.Generator
) -> FloatArray:
    """Amorphous support: varying thickness, speckle from its many atoms under the probe, and lumps.

    Carbon has structure on more than one length scale: a random part of the speckle is wider than a
    spot. Speckle is as often dark as bright; lumps are bright only.
    """
    fine = _convolve_probe(rng.normal(size=shape), conditions)
    width = 1.8 * float(np.mean(conditions.probe_sigma_A)) / conditions.pixel_size_A
    coarse = ndimage.gaussian_filter(rng.normal(size=shape), width)
    share = rng.random()
    speckle = sum(
        weight * part / max(float(part.std()), 1e-12)
        for weight, part in ((share**0.5, fine), ((1 - share) ** 0.5, coarse))
    )
    speckle = conditions.support_speckle * np.asarray(speckle)
    hills = _hills(shape, conditions.slow_length_A / conditions.pixel_size_A, rng)
    thickness = np.maximum(1.0 + conditions.support_hills * hills, 0.05)
    out: FloatArray = conditions.support * thickness * np.maximum(1.0 + speckle, 0.0)
    return out + _lumps(shape, conditions, rng)


def _lumps(shape: tuple[int, int], conditions: Conditions, rng: np.random.Generator) -> FloatArray:
    """Spots of a support that look like dim atoms, as wide as an atom or wider."""
    px, width = conditions.pixel_size_A, float(np.mean(conditions.probe_sigma_A))
    area = shape[0] * shape[1] * px**2
    expected = _LUMPS_PER_SPOT * area / (2 * np.pi * width**2)
    out = np.zeros(shape)
    for wider in _LUMP_WIDTHS:
        count = rng.poisson(expected / len(_LUMP_WIDTHS))
        rc = rng.uniform(0, 1, (count, 2)) * np.asarray(shape)
        height = np.abs(rng.normal(0.0, conditions.support_lumps, count))
        out += spots(shape, rc, height, wider * width / px)
    return out


def _slow_background(
    shape: tuple[int, int], conditions: Conditions, rng: np.random.Generator
) -> FloatArray:
    """Smooth random background with minimum 0."""
    hills = _hills(shape, conditions.slow_length_A / conditions.pixel_size_A, rng)
    out: FloatArray = conditions.slow_background * (hills - hills.min())
    return out


def _hills(shape: tuple[int, int], length_px: float, rng: np.random.Generator) -> FloatArray:
    """Smooth noise of standard deviation 1, made on a coarse grid and interpolated."""
    step = max(int(length_px / 3), 1)
    coarse = rng.normal(size=(shape[0] // step + 4, shape[1] // step + 4))
    coarse = ndimage.gaussian_filter(coarse, 3.0, mode="wrap")
    hills = ndimage.zoom(coarse, step, order=1)[: shape[0], : shape[1]]
    out: FloatArray = (hills - hills.mean()) / max(float(hills.std()), 1e-9)
    return out


def _shift_rows(image: FloatArray, shift_px: FloatArray) -> FloatArray:
    """Shift every scan line along x by its own amount (Fourier shift)."""
    k = np.fft.rfftfreq(image.shape[1])[None, :]
    phase = np.exp(-2j * np.pi * k * shift_px[:, None])
    out: FloatArray = np.fft.irfft(np.fft.rfft(image, axis=1) * phase, n=image.shape[1], axis=1)
    return out
