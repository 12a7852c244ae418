"""From a specimen to a labelled frame: probe, dose, noise, jitter, background.

The image is incoherent (annular dark field): each atom is one spot of intensity Zⁿ, n about 1.64,
convolved with the probe (Krivanek et al., Nature 464, 571 (2010)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray
from scipy import ndimage

from adatom.core import Calibration, Frame, LabelledFrame, Material, ScanRequest
from adatom.frames.specimen import Specimen, random_specimen

FloatArray = NDArray[np.float64]
_CORE_A = 0.22  # width of the exactly rendered spot; the rest of the probe is convolved on top


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a frame is taken.

    Parameters
    ----------
    pixel_size_A
        Å.
    probe_sigma_A
        Gaussian width of the spot of one atom along its two axes, Å (probe, source and vibration).
    probe_angle_rad
        Direction of the first axis (two-fold astigmatism).
    tail_fraction
        Share of the intensity in a second Gaussian, `tail_width` times wider.
    tail_width
        Dimensionless.
    counts
        Detected counts at the peak of an isolated host atom.
    background
        Constant level in units of that peak.
    slow_background
        Amplitude of smooth random variation (contamination, support), same unit.
    slow_length_A
        Its length scale, Å.
    jitter_A
        Standard deviation of the shift of a scan line along x, Å.
    read_noise
        Gaussian noise, counts.
    contrast_exponent
        Intensity goes with Z to this power.
    blur_px
        Smoothing after detection (exported or filtered frames), pixels.
    """

    pixel_size_A: float = 0.1
    probe_sigma_A: tuple[float, float] = (0.42, 0.42)
    probe_angle_rad: float = 0.0
    tail_fraction: float = 0.15
    tail_width: float = 2.5
    counts: float = 20.0
    background: float = 0.1
    slow_background: float = 0.0
    slow_length_A: float = 6.0
    jitter_A: float = 0.0
    read_noise: float = 0.0
    contrast_exponent: float = 1.64
    blur_px: float = 0.0

    @classmethod
    def random(cls, rng: np.random.Generator) -> Conditions:
        """Draw conditions as wide as instruments and operators are; the training range."""
        width = rng.uniform(0.3, 0.58)
        stretch = 1.0 + abs(rng.normal(0.0, 0.1))
        pixel_size_A = float(np.exp(rng.uniform(np.log(0.065), np.log(0.22))))
        # Counts per area and not per pixel decide what can be seen: draw those.
        counts_per_A2 = float(np.exp(rng.uniform(np.log(6.0), np.log(8000.0))))
        return cls(
            pixel_size_A=pixel_size_A,
            probe_sigma_A=(width * stretch, width / stretch),
            probe_angle_rad=rng.uniform(0, np.pi),
            tail_fraction=rng.uniform(0.0, 0.4),
            tail_width=rng.uniform(1.8, 3.5),
            counts=counts_per_A2 * pixel_size_A**2,
            background=rng.exponential(0.3),
            slow_background=rng.exponential(0.25) if rng.random() < 0.6 else 0.0,
            slow_length_A=rng.uniform(2.0, 9.0),
            jitter_A=abs(rng.normal(0.0, 0.05)),
            read_noise=rng.uniform(0.0, 0.5) if rng.random() < 0.3 else 0.0,
            contrast_exponent=rng.uniform(1.25, 1.95),
            blur_px=rng.uniform(0.3, 1.0) if rng.random() < 0.25 else 0.0,
        )


def spots(
    shape: tuple[int, int], rc: FloatArray, amplitude: FloatArray, sigma_px: float
) -> FloatArray:
    """Sum of Gaussian spots, exactly: a product of two thin matrices.

    Parameters
    ----------
    shape
        Rows and columns.
    rc
        Centres, shape (atom, 2), row and column in pixels.
    amplitude
        Peak heights, shape (atom,).
    sigma_px
        Width in pixels.

    Returns
    -------
    Image, shape (row, col).

    Examples
    --------
    >>> import numpy as np
    >>> float(spots((3, 5), np.array([[1.0, 2.0]]), np.array([7.0]), 0.5)[1, 2])
    7.0
    """
    rows = np.arange(shape[0])[None, :] - rc[:, :1]
    cols = np.arange(shape[1])[None, :] - rc[:, 1:]
    gy = np.exp(-0.5 * (rows / sigma_px) ** 2)
    gx = np.exp(-0.5 * (cols / sigma_px) ** 2)
    out: FloatArray = (gy * amplitude[:, None]).T @ gx
    return out


def expected_image(
    specimen: Specimen,
    shape: tuple[int, int],
    material: Material,
    conditions: Conditions,
    rng: np.random.Generator,
) -> FloatArray:
    """Expected counts before noise.

    Parameters
    ----------
    specimen
        What lies under the beam.
    shape
        Rows and columns.
    material
        Gives species and their atomic numbers.
    conditions
        Probe, dose, background, jitter.
    rng
        Draws only the background and the jitter.

    Returns
    -------
    Detected counts per pixel, shape (row, col).
    """
    px = conditions.pixel_size_A
    pad = int(np.ceil(3.0 / px))
    padded = (shape[0] + 2 * pad, shape[1] + 2 * pad)
    z = np.array([atomic_numbers[s] for s in material.species], dtype=np.float64)
    relative = (z / atomic_numbers[material.host]) ** conditions.contrast_exponent
    rc = Calibration(px).rc(specimen.xy) + pad
    image = spots(padded, rc, relative[specimen.species], _CORE_A / px)
    image = _convolve_probe(image, conditions)
    image += conditions.background
    if conditions.slow_background > 0:
        image += _slow_background(padded, conditions, rng)
    if conditions.jitter_A > 0:
        image = _shift_rows(image, rng.normal(0.0, conditions.jitter_A / px, padded[0]))
    image = np.maximum(image, 0.0)[pad:-pad, pad:-pad]
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
    """Take a noisy frame of a specimen.

    Parameters
    ----------
    specimen
        What lies under the beam.
    shape
        Rows and columns.
    material
        Gives species and contrast.
    conditions
        Probe, dose, noise.
    rng
        Source of all noise.
    index, source
        Passed to the frame.

    Returns
    -------
    The frame (counts) and the exact positions of the atoms in it.
    """
    counts = rng.poisson(expected_image(specimen, shape, material, conditions, rng)).astype(float)
    if conditions.read_noise > 0:
        counts += rng.normal(0.0, conditions.read_noise, shape)
    if conditions.blur_px > 0:
        counts = ndimage.gaussian_filter(counts, conditions.blur_px)
    if counts.min() == counts.max():  # not one electron arrived: still a frame, not an error
        counts[0, 0] += 1.0
    calibration = Calibration(conditions.pixel_size_A)
    w, h = calibration.extent_xy(shape)
    inside = np.all((specimen.xy >= 0) & (specimen.xy <= (w, h)), axis=1)
    empty = np.all((specimen.vacancies_xy >= 0) & (specimen.vacancies_xy <= (w, h)), axis=1)
    frame = Frame(counts.astype(np.float32), calibration, index=index, source=source)
    return LabelledFrame(
        frame,
        specimen.xy[inside],
        specimen.species[inside],
        material.species,
        specimen.vacancies_xy[empty],
    )


def random_labelled(
    material: Material,
    rng: np.random.Generator,
    *,
    field_A: float = 18.0,
    conditions: Conditions | None = None,
    empty: bool = False,
) -> LabelledFrame:
    """Draw a random specimen and take a frame of it.

    Parameters
    ----------
    material
        The sheet.
    rng
        Source of the specimen, the conditions and the noise.
    field_A
        Edge of the square field, Å, rounded up to whole pixels.
    conditions
        Drawn from the training range by default.
    empty
        Take the frame beside the specimen: background and noise alone.

    Returns
    -------
    The frame (counts) and its truth.
    """
    chosen = conditions or Conditions.random(rng)
    n = int(np.ceil(field_A / chosen.pixel_size_A)) + 1
    specimen = random_specimen(material, Calibration(chosen.pixel_size_A).extent_xy((n, n)), rng)
    if empty:
        specimen = Specimen(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), np.zeros((0, 2)))
    return image_specimen(specimen, (n, n), material, chosen, rng)


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
    """Take the frame that a `ScanRequest` asks for.

    Parameters
    ----------
    xy
        Atoms in the specimen's axes, shape (atom, 2), Å.
    species
        Shape (atom,), index into the material's species.
    material
        Gives species and contrast.
    request
        Where, how wide and how fine; its dose is not used, `conditions` has the counts.
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
    """Widen the core spot to the probe, in Fourier space; a lone host atom peaks at 1."""
    ky = 2 * np.pi * np.fft.fftfreq(image.shape[0], conditions.pixel_size_A)[:, None]
    kx = 2 * np.pi * np.fft.rfftfreq(image.shape[1], conditions.pixel_size_A)[None, :]
    c, s = np.cos(conditions.probe_angle_rad), np.sin(conditions.probe_angle_rad)
    k1, k2 = c * kx + s * ky, -s * kx + c * ky

    def gaussian(scale: float) -> tuple[FloatArray, float]:
        s1, s2 = (scale * np.asarray(conditions.probe_sigma_A)).tolist()
        v1, v2 = max(s1**2 - _CORE_A**2, 0.0), max(s2**2 - _CORE_A**2, 0.0)
        peak = _CORE_A**2 / np.sqrt((v1 + _CORE_A**2) * (v2 + _CORE_A**2))
        return np.exp(-0.5 * (v1 * k1**2 + v2 * k2**2)), float(peak)

    core, core_peak = gaussian(1.0)
    tail, tail_peak = gaussian(conditions.tail_width)
    f = conditions.tail_fraction
    transfer = (1 - f) * core + f * tail
    peak = (1 - f) * core_peak + f * tail_peak
    out: FloatArray = np.fft.irfft2(np.fft.rfft2(image) * transfer / peak, s=image.shape)
    return out


def _slow_background(
    shape: tuple[int, int], conditions: Conditions, rng: np.random.Generator
) -> FloatArray:
    """Smooth random hills, from zero up; made on a coarse grid, since nothing in it is sharp."""
    step = max(int(conditions.slow_length_A / conditions.pixel_size_A / 3), 1)
    coarse = rng.normal(size=(shape[0] // step + 4, shape[1] // step + 4))
    coarse = ndimage.gaussian_filter(coarse, 3.0, mode="wrap")
    hills = ndimage.zoom(coarse, step, order=1)[: shape[0], : shape[1]]
    hills = (hills - hills.min()) / max(float(hills.std()), 1e-9)
    out: FloatArray = conditions.slow_background * hills
    return out


def _shift_rows(image: FloatArray, shift_px: FloatArray) -> FloatArray:
    """Shift every scan line along x by its own amount (Fourier shift)."""
    k = np.fft.rfftfreq(image.shape[1])[None, :]
    phase = np.exp(-2j * np.pi * k * shift_px[:, None])
    out: FloatArray = np.fft.irfft(np.fft.rfft(image, axis=1) * phase, n=image.shape[1], axis=1)
    return out
