"""Multislice images with abTEM's PRISM: independent test images that are not used in training.

Training images are convolutions (`synthesize`). Here the electrons are waves that are scattered
by the atoms' potential and detected on an annulus (Kirkland, Advanced Computing in Electron
Microscopy (2010), chapter 5; Ophus, Advanced Structural and Chemical Imaging 3, 13 (2017)).

Three things are done here instead of by abTEM, so that positions are exact to 0.001 Å:

- The potential is summed in Fourier space with exact phases. abTEM puts atoms on its grid by linear
  interpolation; their brightness then depends on their position between the grid points by up to
  25 %. With this sum it is 0.3 %.
- The probe scans a coarse grid that determines the image completely. With a probe of wave numbers
  up to k, the image is a Fourier series up to 2 k (Black and Linfoot, Proc. R. Soc. A 239, 522
  (1957)). The coarse scan of the periodic cell gives the series, which is then evaluated on the
  pixel grid.
- The source size and the vibration of the atoms are Gaussian factors on that series.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import warnings
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.spatial import cKDTree

from adatom.core import GRAPHENE, Calibration, Material, content_hash
from adatom.core.arrays import FloatArray
from adatom.errors import BadInput, EngineMissing
from adatom.frames.simulate.sheet import graphene_sheet
from adatom.frames.simulate.specimen import Specimen

ComplexArray = NDArray[np.complex128]
_REVISION = 1  # part of the cache's keys; raise it when the same options give another image
_DEPTH_A = 2.0  # Å: height of the cell of a sheet, one slice
_GAP_A = 4.0  # Å: vacuum between a sheet and its periodic images


@dataclass(frozen=True, slots=True)
class PrismOptions:
    """The microscope, and the precision of the computation.

    Parameters
    ----------
    energy_kV
        Acceleration voltage.
    semiangle_mrad
        Convergence semi-angle of the probe.
    defocus_A
        Defocus, Å, positive for underfocus.
    astigmatism_A
        Two-fold astigmatism, Å.
    astigmatism_angle_rad
        Its direction, from x towards y (downwards), rad.
    threefold_A
        Three-fold astigmatism, Å.
    threefold_angle_rad
        Its direction, rad.
    spherical_A
        Third-order spherical aberration, Å.
    inner_mrad, outer_mrad
        Inner and outer angle of the annular detector.
    source_sigma_A
        Standard deviation of the Gaussian blur by the finite source, Å.
    vibration_sigma_A
        Root mean square displacement of an atom along one axis, Å. For incoherent scattering it
        blurs the image like the source.
    frozen_phonons
        Number of configurations of displaced atoms to average over; 0: blur the image instead.
    phonon_seed
        Seed of the displacements.
    window_A
        Smallest edge of the field in which one probe is computed, Å; sets PRISM's interpolation.
        At 10 Å the error is under 1 % of a carbon peak.
    slice_A
        Largest thickness of a slice, Å.
    """

    energy_kV: float = 60.0
    semiangle_mrad: float = 31.0
    defocus_A: float = 0.0
    astigmatism_A: float = 0.0
    astigmatism_angle_rad: float = 0.0
    threefold_A: float = 0.0
    threefold_angle_rad: float = 0.0
    spherical_A: float = 0.0
    inner_mrad: float = 80.0
    outer_mrad: float = 200.0
    source_sigma_A: float = 0.25
    vibration_sigma_A: float = 0.07
    frozen_phonons: int = 0
    phonon_seed: int = 0
    window_A: float = 10.0
    slice_A: float = _DEPTH_A

    def aberrations(self) -> dict[str, float]:
        """Aberration coefficients by their names in abTEM, Å and rad."""
        return {
            "C10": -self.defocus_A,
            "C12": self.astigmatism_A,
            "phi12": self.astigmatism_angle_rad,
            "C23": self.threefold_A,
            "phi23": self.threefold_angle_rad,
            "C30": self.spherical_A,
        }


@dataclass(frozen=True, slots=True, eq=False)
class PrismTruth:
    """A multislice image without noise, and its specimen.

    Parameters
    ----------
    image
        Shape (row, col); 1 at the centre of a carbon atom that has all its neighbours (median).
    pixel_size_A
        Edge of a pixel, Å.
    specimen
        All atoms, also those outside the image.
    options
        The microscope.
    height
        Fraction of the beam detected at such a carbon atom: the unit of `image`.
    """

    image: FloatArray
    pixel_size_A: float
    specimen: Specimen
    options: PrismOptions
    height: float


def atoms_of(specimen: Specimen, material: Material = GRAPHENE) -> Atoms:
    """Convert a specimen to periodic atoms in a cell with a gap of vacuum around them.

    Parameters
    ----------
    specimen
        Positions and species of the atoms.
    material
        Defines the species.

    Returns
    -------
    Periodic atoms at half the height of the cell. Their x and y are those of the specimen (y down)
    and may be negative.
    """
    size = np.ptp(specimen.xy, axis=0) + _GAP_A
    z = np.full((len(specimen.xy), 1), _DEPTH_A / 2)
    symbols = [material.species[s] for s in specimen.species]
    cell = (*size.tolist(), _DEPTH_A)
    return Atoms(symbols, positions=np.hstack([specimen.xy, z]), cell=cell, pbc=True)


def prism_image(
    atoms: Atoms, shape: tuple[int, int], pixel_size_A: float, options: PrismOptions
) -> FloatArray:
    """Simulate an annular dark-field image of atoms, without noise.

    Parameters
    ----------
    atoms
        Periodic in an orthorhombic cell; the beam runs along z, x is right and y is down.
    shape
        Rows and columns.
    pixel_size_A
        Edge of a pixel, Å; the centre of pixel (0, 0) lies at x = y = 0 of the atoms.
    options
        The microscope.

    Returns
    -------
    Fraction of the beam that hits the detector, shape (row, col).

    Raises
    ------
    EngineMissing
        If abTEM is not installed.
    BadInput
        If the cell is not orthorhombic.
    """
    abtem = _load_abtem()
    size = np.diag(atoms.cell.array)
    if not (np.allclose(atoms.cell.array, np.diag(size)) and np.all(size > 0)):
        raise BadInput(
            "atoms",
            expected="an orthorhombic cell along x, y and z",
            got=f"cell vectors {np.round(atoms.cell.array, 3).tolist()} Å",
            todo="Put them into such a cell, with vacuum along directions that are not periodic.",
        )
    configurations = [atoms]
    spread = np.hypot(options.source_sigma_A, options.vibration_sigma_A)
    if options.frozen_phonons > 0:
        rng = np.random.default_rng(options.phonon_seed)
        configurations = [_displaced(atoms, options, rng) for _ in range(options.frozen_phonons)]
        spread = options.source_sigma_A
    scans = [_coarse_scan(abtem, frozen, options) for frozen in configurations]
    series = fft.fft2(np.mean(scans, axis=0)) / scans[0].size
    kx, ky = (_frequencies(n, side) for n, side in zip(series.shape, size[:2], strict=True))
    series *= np.exp(-2 * (np.pi * spread) ** 2 * (kx[:, None] ** 2 + ky[None, :] ** 2))
    x, y = (np.arange(n, dtype=np.float64) * pixel_size_A for n in (shape[1], shape[0]))
    # abTEM's arrays are [x, y]; only here they become (row, col).
    out: FloatArray = (_waves(y, ky) @ series.T @ _waves(x, kx).T).real
    return out


def prism_set(
    count: int = 6,
    *,
    seed: int = 20,
    pixels: int = 256,
    cache: Path | None = None,
    pixel_range_A: tuple[float, float] = (0.11, 0.19),
) -> list[PrismTruth]:
    """Simulate graphene images with defects, each with its own pixel size and probe.

    Parameters
    ----------
    count
        Number of images.
    seed
        The same seed gives the same images.
    pixels
        Rows and columns.
    cache
        Directory for finished images; None: no cache.
    pixel_range_A
        Smallest and largest pixel size, Å; the others are evenly spaced between them.

    Returns
    -------
    The images and their ground truth.

    Raises
    ------
    EngineMissing
        If abTEM is not installed.
    BadInput
        If the field has no carbon atom without a defect nearby.
    """
    out = []
    spawned = np.random.default_rng(seed).spawn(count)
    for pixel_size_A, rng in zip(np.linspace(*pixel_range_A, count), spawned, strict=True):
        px, shape = float(pixel_size_A), (pixels, pixels)
        extent = Calibration(px).extent_xy(shape)
        specimen = graphene_sheet(extent, rng)
        options = _random_options(rng)
        image = _cached_image(atoms_of(specimen), shape, px, options, cache)
        plain = specimen.xy[_surrounded(specimen, extent)]
        if not len(plain):
            raise BadInput(
                "multislice images",
                expected="a field with undisturbed carbon atoms in it",
                got=f"{pixels} pixels of {px:g} Å",
                todo="Give more pixels or larger ones.",
            )
        height = np.median(ndimage.map_coordinates(image, Calibration(px).rc(plain).T, order=5))
        out.append(PrismTruth(image / height, px, specimen, options, float(height)))
    return out


def prism_spot(
    pixels: int, pixel_size_A: float, options: PrismOptions, *, cache: Path | None = None
) -> FloatArray:
    """Simulate the image of one carbon atom: the spot of a multislice set.

    Parameters
    ----------
    pixels
        Rows and columns, odd; the atom is in the middle.
    pixel_size_A
        Edge of a pixel, Å.
    options
        The microscope.
    cache
        Directory for finished images; None: no cache.

    Returns
    -------
    Fraction of the beam that hits the detector, shape (row, col).
    """
    middle = (pixels - 1) / 2 * pixel_size_A
    lone = Specimen(np.array([[middle, middle]]), np.zeros(1, dtype=np.int64), np.zeros((0, 2)))
    atoms = atoms_of(lone)
    # The cell must be as wide as the image, else it would show the atom's periodic images.
    side = (pixels - 1) * pixel_size_A + _GAP_A
    atoms.set_cell((side, side, _DEPTH_A))
    return _cached_image(atoms, (pixels, pixels), pixel_size_A, options, cache)


def _load_abtem() -> Any:
    try:
        return importlib.import_module("abtem")
    except ImportError as error:
        raise EngineMissing(
            "multislice images",
            expected="abTEM",
            got=f"it does not load: {error}",
            todo="Install it: pip install adatom[bench]",
        ) from error


def _coarse_scan(abtem: Any, atoms: Atoms, options: PrismOptions) -> FloatArray:
    """Scan the cell with the fewest points that its Fourier series needs; array [x, y]."""
    potential, factors = scattering_potential(atoms, options)
    with (
        abtem.config.set(
            {"diagnostics.progress_bar": False, "fftw.planning_effort": "FFTW_ESTIMATE"}
        ),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # abTEM warns about grids given twice, and about dask
        matrix = abtem.SMatrix(
            semiangle_cutoff=options.semiangle_mrad,
            energy=1e3 * options.energy_kV,
            potential=potential,
            interpolation=factors,
        )
        size = np.asarray(potential.extent, dtype=np.float64)
        finest = float(np.linalg.norm(matrix.wave_vectors, axis=1).max())  # 1/Å
        nx, ny = (2 * int(np.ceil(2 * finest * side)) + 1 for side in size)
        measured = matrix.build(lazy=False).reduce(
            scan=abtem.GridScan(start=(0.0, 0.0), end=tuple(size), gpts=(nx, ny)),
            ctf=abtem.CTF(
                semiangle_cutoff=options.semiangle_mrad,
                aberration_coefficients=options.aberrations(),
            ),
            detectors=abtem.AnnularDetector(options.inner_mrad, options.outer_mrad),
            max_batch_reduction=64,  # probes per batch, neighbours; they share a window
        )
    return np.asarray(measured.array, dtype=np.float64)


def scattering_potential(atoms: Atoms, options: PrismOptions) -> tuple[Any, tuple[int, int]]:
    """Sum Lobato's atomic potentials slice by slice, in Fourier space with exact phases.

    Parameters
    ----------
    atoms
        Periodic in an orthorhombic cell.
    options
        The microscope; its detector sets the sampling.

    Returns
    -------
    An `abtem.PotentialArray`, and PRISM's interpolation factors along x and y.

    Raises
    ------
    EngineMissing
        If abTEM is not installed.
    """
    abtem = _load_abtem()
    width, height, depth = (float(side) for side in np.diag(atoms.cell.array))
    wavelength = abtem.core.energy.energy2wavelength(1e3 * options.energy_kV)
    # abTEM keeps 2/3 of the wave numbers (against aliasing); the detector must lie within these.
    step = wavelength / (3e-3 * options.outer_mrad) * 0.97
    fx, fy = (max(int(side / options.window_A), 1) for side in (width, height))
    nx = fx * fft.next_fast_len(int(np.ceil(width / step / fx)))
    ny = fy * fft.next_fast_len(int(np.ceil(height / step / fy)))
    kx, ky = _frequencies(nx, width), _frequencies(ny, height)
    k2 = kx[:, None] ** 2 + ky[None, :] ** 2
    factor_of = abtem.parametrizations.LobatoParametrization().projected_scattering_factor
    slices = max(int(np.ceil(depth / options.slice_A - 1e-6)), 1)
    which = np.minimum((atoms.positions[:, 2] % depth / depth * slices).astype(int), slices - 1)
    out = np.zeros((slices, nx, ny))
    for number in np.unique(atoms.numbers):
        factor = np.asarray(factor_of(chemical_symbols[number])(k2), dtype=np.float64)
        for i in range(slices):
            x, y = atoms.positions[(atoms.numbers == number) & (which == i), :2].T
            phases = _waves(kx, -x) @ _waves(ky, -y).T
            out[i] += fft.ifft2(factor * phases).real * (nx * ny / (width * height))
    potential = abtem.PotentialArray(
        out.astype(np.float32), slice_thickness=depth / slices, extent=(width, height)
    )
    return potential, (fx, fy)


def _waves(positions: FloatArray, frequencies: FloatArray) -> ComplexArray:
    """Plane waves ``exp(2πikx)``, shape (position, frequency)."""
    out: ComplexArray = np.exp(2j * np.pi * np.outer(positions, frequencies))
    return out


def _frequencies(n: int, side_A: float) -> FloatArray:
    return np.asarray(fft.fftfreq(n, side_A / n), dtype=np.float64)


def _displaced(atoms: Atoms, options: PrismOptions, rng: np.random.Generator) -> Atoms:
    out: Atoms = atoms.copy()
    out.positions += rng.normal(0.0, options.vibration_sigma_A, out.positions.shape)
    return out


def _random_options(rng: np.random.Generator) -> PrismOptions:
    """Sample a well-tuned microscope with small residual aberrations."""
    return replace(
        PrismOptions(),
        defocus_A=rng.normal(0.0, 8.0),
        astigmatism_A=abs(rng.normal(0.0, 6.0)),
        astigmatism_angle_rad=rng.uniform(0, np.pi),
        threefold_A=abs(rng.normal(0.0, 40.0)),
        threefold_angle_rad=rng.uniform(0, 2 * np.pi / 3),
        source_sigma_A=rng.uniform(0.2, 0.3),
    )


def _cached_image(
    atoms: Atoms,
    shape: tuple[int, int],
    pixel_size_A: float,
    options: PrismOptions,
    cache: Path | None,
) -> FloatArray:
    """Read the image from the cache, keyed by the hash of all its inputs, or compute it."""
    if cache is None:
        return prism_image(atoms, shape, pixel_size_A, options)
    _load_abtem()
    made_by = [_REVISION, importlib.metadata.version("abtem")]
    what = [atoms.positions, atoms.numbers, atoms.cell.array, shape, pixel_size_A, options]
    path = cache / f"prism-{content_hash(*made_by, *what)}.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            return np.asarray(kept["image"], dtype=np.float64)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        image = prism_image(atoms, shape, pixel_size_A, options)
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        np.savez_compressed(file, image=image)
    part.replace(path)
    return image


def _surrounded(specimen: Specimen, extent_xy_A: tuple[float, float]) -> NDArray[np.bool_]:
    """Mark carbon atoms in the field with three carbon neighbours and no Si within 3 Å."""
    xy, carbon = specimen.xy, specimen.species == 0
    neighbours = cKDTree(xy[carbon]).query_ball_point(xy, 1.25 * GRAPHENE.bond_length_A)
    whole = np.array([len(n) == 4 for n in neighbours])
    inside = np.all((xy > 1.0) & (xy < np.asarray(extent_xy_A) - 1.0), axis=1)
    clear = np.ones(len(xy), dtype=bool)
    if not carbon.all():
        clear = cKDTree(xy[~carbon]).query(xy)[0] > 3.0
    out: NDArray[np.bool_] = carbon & whole & inside & clear
    return out
