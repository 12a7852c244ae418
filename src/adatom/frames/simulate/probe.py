"""The probe: its transfer function, which spreads the point of an atom over the image.

Images are incoherent (annular dark field): the intensity is the specimen convolved with the probe,
a product in Fourier space. A Gaussian with a tail is fast to compute. The wave-optical probe also
has the rings and three-fold stars of aberrations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from ase import units
from numpy.typing import NDArray
from scipy import ndimage

from adatom.core.arrays import FloatArray

_CORE_A = 0.5  # Å: width of the Gaussian correlated with the probe to find its core; a usual spot's
_NEWTON = 4  # Newton steps from the nearest pixel to the peak, which converge quadratically
_GRID = 128  # grid points per axis of the pupil plane: the probe's box is then about 45 Å wide


@dataclass(frozen=True, slots=True)
class Optics:
    """A wave-optical probe.

    Parameters
    ----------
    voltage_kV
        Acceleration voltage.
    semiangle_mrad
        Convergence semi-angle.
    defocus_A
        C10, Å.
    astigmatism_A, astigmatism_rad
        Two-fold astigmatism C12, Å, and its direction.
    coma_A, coma_rad
        Axial coma C21, Å, and its direction.
    star_A, star_rad
        Three-fold astigmatism C23, Å, and its direction.
    spherical_A
        C30, Å.
    """

    voltage_kV: float = 60.0
    semiangle_mrad: float = 31.0
    defocus_A: float = 0.0
    astigmatism_A: float = 0.0
    astigmatism_rad: float = 0.0
    coma_A: float = 0.0
    coma_rad: float = 0.0
    star_A: float = 0.0
    star_rad: float = 0.0
    spherical_A: float = 0.0

    @property
    def wavelength_A(self) -> float:
        """Relativistic de Broglie wavelength, Å."""
        return wavelength_A(self.voltage_kV)


def wavelength_A(voltage_kV: float) -> float:
    """Relativistic wavelength of electrons, ``h / sqrt(2 m e V (1 + e V / 2 m c²))``, Å.

    Examples
    --------
    >>> round(wavelength_A(60.0), 4)
    0.0487
    """
    energy = voltage_kV * 1e3 * units._e  # noqa: SLF001  # ASE names its SI constants so
    rest = units._me * units._c**2  # noqa: SLF001
    momentum = np.sqrt(energy**2 + 2 * energy * rest) / units._c  # noqa: SLF001
    return float(units._hplanck / momentum * 1e10)  # noqa: SLF001


def gaussian_transfer(
    k_xy: tuple[FloatArray, FloatArray],
    sigma_A: tuple[float, float],
    angle_rad: float,
    smallest_A: float,
) -> FloatArray:
    """Transfer function of a Gaussian, divided by that of a round one of width `smallest_A`.

    The narrow round Gaussian is the one with which atoms were rendered already.

    Parameters
    ----------
    k_xy
        Frequencies along x and y, 1/Å, which broadcast to the spectrum's shape.
    sigma_A, angle_rad
        Standard deviations along two axes, Å, and the direction of the first axis, rad.
    smallest_A
        Width already in the image, Å.

    Returns
    -------
    Transfer function, 1 at frequency zero.
    """
    kx, ky = k_xy
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    v1, v2 = (max(w**2 - smallest_A**2, 0.0) for w in sigma_A)
    k1, k2 = c * kx + s * ky, -s * kx + c * ky
    out: FloatArray = np.exp(-2 * np.pi**2 * (v1 * k1**2 + v2 * k2**2))
    return out


def optics_transfer(k_xy: tuple[FloatArray, FloatArray], optics: Optics) -> NDArray[np.complex128]:
    """Optical transfer function of a probe: the autocorrelation of its pupil.

    Aberrations after Krivanek et al., Ultramicroscopy 78, 1 (1999): the phase is
    ``2π/λ (C10 θ²/2 + C12 θ²/2 cos 2φ + C21 θ³/3 cos φ + C23 θ³/3 cos 3φ + C30 θ⁴/4)``.

    Parameters
    ----------
    k_xy
        Frequencies along x and y, 1/Å, which broadcast to the spectrum's shape.
    optics
        The probe.

    Returns
    -------
    Transfer function, 1 at frequency zero, complex if the probe is not symmetric. The core of the
    probe lies at the origin: in an image, the position of an atom is that of the core of its spot,
    not that of a centre of mass that is shifted by the tail of coma.
    """
    table, step = _optics_table(optics)
    kx, ky = k_xy
    rows, cols = np.broadcast_arrays(ky / step + _GRID // 2, kx / step + _GRID // 2)
    at = np.stack([rows, cols])
    real = ndimage.map_coordinates(table.real, at, order=1, mode="constant")
    imag = ndimage.map_coordinates(table.imag, at, order=1, mode="constant")
    out: NDArray[np.complex128] = real + 1j * imag
    return out


@lru_cache(maxsize=8)
def _optics_table(optics: Optics) -> tuple[NDArray[np.complex128], float]:
    """Transfer function on a grid of frequencies (zero in the middle), and the grid step, 1/Å."""
    wavelength = optics.wavelength_A
    cut = optics.semiangle_mrad * 1e-3 / wavelength
    step = 2.1 * 2 * cut / _GRID  # the autocorrelation reaches to twice the cut
    k: FloatArray = (np.arange(_GRID, dtype=np.float64) - _GRID // 2) * step
    theta = wavelength * np.hypot(k[None, :], k[:, None])
    phi = np.arctan2(k[:, None], k[None, :])
    phase = (
        theta**2 / 2 * optics.defocus_A
        + theta**2 / 2 * optics.astigmatism_A * _wave(phi, 2, optics.astigmatism_rad)
        + theta**3 / 3 * optics.coma_A * _wave(phi, 1, optics.coma_rad)
        + theta**3 / 3 * optics.star_A * _wave(phi, 3, optics.star_rad)
        + theta**4 / 4 * optics.spherical_A
    )
    # The aperture's edge is one grid step wide, to avoid the artefacts of a pixelated edge.
    soft = np.clip(0.5 + (cut - theta / wavelength) / step, 0.0, 1.0)
    pupil = soft * np.exp(-2j * np.pi / wavelength * phase)
    probe = np.abs(np.fft.ifft2(np.fft.ifftshift(pupil))) ** 2
    transfer = np.fft.fft2(probe / probe.sum())
    table = np.fft.fftshift(transfer)
    y, x = _core(table, k)
    return table * np.exp(2j * np.pi * (k[:, None] * y + k[None, :] * x)), step


def _core(transfer: NDArray[np.complex128], k: FloatArray) -> FloatArray:
    """Position of the core of a probe, y and x, Å: the peak of its correlation with a Gaussian.

    Parameters
    ----------
    transfer
        Transfer function of the probe, zero frequency in the middle.
    k
        Frequencies along both axes, 1/Å.
    """
    ky, kx = k[:, None], k[None, :]
    smooth = transfer * np.exp(-2 * np.pi**2 * _CORE_A**2 * (ky**2 + kx**2))
    image = np.fft.ifft2(np.fft.ifftshift(smooth)).real
    peak = np.array(np.unravel_index(int(np.argmax(image)), image.shape))
    n, step = len(k), float(k[1] - k[0])
    at = ((peak + n // 2) % n - n // 2) / (n * step)
    for _ in range(_NEWTON):
        wave = smooth * np.exp(2j * np.pi * (ky * at[0] + kx * at[1]))
        slope = -2 * np.pi * np.array([(ky * wave.imag).sum(), (kx * wave.imag).sum()])
        rr, rc, cc = ((q * wave.real).sum() for q in (ky * ky, ky * kx, kx * kx))
        at = at + np.linalg.solve(4 * np.pi**2 * np.array([[rr, rc], [rc, cc]]), slope)
    return np.asarray(at, dtype=np.float64)


def _wave(phi: FloatArray, fold: int, direction: float) -> FloatArray:
    out: FloatArray = np.cos(fold * (phi - direction))
    return out
