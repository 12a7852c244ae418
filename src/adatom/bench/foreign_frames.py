"""Frames for `adatom bench wrong`: real graphene, and frames that are not graphene.

The second set holds other materials, noise, dirt, phase contrast and pictures that no microscope
took, real ones as far as they are published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from adatom.core import GRAPHENE, Movie
from adatom.core.arrays import FloatArray
from adatom.frames import read
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.synthesize import random_labelled
from adatom.materials.library import load_material

_PIXELS = 256  # edge of a simulated frame
_FINE_A = 0.12  # pixel size of the phase contrast of graphene, Å
_COUNTS_PER_A2 = (150.0, 3000.0)  # doses of the simulated frames: an ordinary and a high one
# Pixel sizes, Å, that a user gives for files without one: by the lattice that they show.
_BY_HAND_A = {
    "G-dimSi.hdf5": 0.0385,
    "G-trimSi.hdf5": 0.0385,
    "GB_2H3R_MoSe2.tif": 0.159,
    "MoSe2_80K_small_region.tif": 0.0795,
    "perovskite_uncalibrated.dm3": 0.15,
    "bpy_crop19.tif": 0.2,
    "1vacancy_MoS2_incostem_29_17_1_0.tif": 0.1,
    "2vacancy_MoS2_incostem_29_17_1_0.tif": 0.1,
    "ImageMoS2_incostem_29_17_1_0.tif": 0.1,
}
_FOREIGN_FILES = ("cdte_twin_dm3/*.dm3", "mos2/*.npy", "mose2/*.tif", "pt_single_atoms/*.tif",
                  "re_single_atoms/*.tif", "simulated/*.tif", "vendor_formats/*")  # fmt: skip
_GRAPHENE_FILES = ("graphene_raw/*.hdf5", "graphene_si_library/*/*.hdf5")
_SIMULATED = ("h-BN", "MoS2", "WS2", "MoSSe", "SrTiO3", "Au", "CdTe")


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A movie that a user gives to adatom.

    Parameters
    ----------
    name
        What it is.
    movie
        Its frames, with their pixel size.
    """

    name: str
    movie: Movie


def graphene_frames(data: Path) -> Iterator[Given]:
    """Give every real frame of graphene, one movie each.

    Parameters
    ----------
    data
        Directory of the real micrographs.
    """
    for path in sorted(p for pattern in _GRAPHENE_FILES for p in data.glob(pattern)):
        yield Given(f"{path.parent.name}/{path.name}", _opened(path))
    for path in sorted(data.glob("graphene_si_movie/*.tif")):
        for i in range(len(read(path))):
            yield Given(f"{path.name}, frame {i}", read(path, frames=f"{i}:{i + 1}"))


def foreign_frames(data: Path | None, seed: int) -> Iterator[Given]:
    """Give frames that are not graphene, one movie each.

    Parameters
    ----------
    data
        Directory of the real micrographs; None for the simulated frames only.
    seed
        Seed of the simulated ones.
    """
    files = () if data is None else (sorted(data.glob(pattern)) for pattern in _FOREIGN_FILES)
    for path in (p for some in files for p in some if "_pts_" not in p.name):
        yield Given(f"{path.parent.name}/{path.name}", replace(_opened(path), count=1))
    rng = np.random.default_rng([seed, 41])
    for name in _SIMULATED:
        for counts in _COUNTS_PER_A2:
            yield _given(f"{name}, simulated", *_crystal(name, counts, rng))
    for name, image in _pictures(rng):
        px = _FINE_A if "graphene" in name else float(rng.uniform(0.08, 0.18))
        yield _given(name, image, px)


def _opened(path: Path) -> Movie:
    dataset = "0" if path.parent.name == "simulated" else None
    return read(path, pixel_size_A=_BY_HAND_A.get(path.name), dataset=dataset)


def _given(name: str, image: FloatArray, pixel_size_A: float) -> Given:
    return Given(name, read(image.astype(np.float32), pixel_size_A=pixel_size_A))


def _crystal(name: str, counts_per_A2: float, rng: np.random.Generator) -> tuple[FloatArray, float]:
    material = load_material(name)
    conditions = Conditions.random(rng, material)
    px = float(rng.uniform(0.1, 0.16))
    conditions = replace(conditions, pixel_size_A=px, counts=counts_per_A2 * px**2)
    frame = random_labelled(
        material, rng, field_A=_PIXELS * px, conditions=conditions, whole=True
    ).frame
    return np.asarray(frame.data, dtype=np.float64), px


def _pictures(rng: np.random.Generator) -> Iterator[tuple[str, FloatArray]]:
    """Give noise, dirt, phase contrast and pictures from a screen."""
    flat = np.ones((_PIXELS, _PIXELS))
    yield "noise, 3 counts a pixel", _counted(3.0 * flat, rng)
    yield "noise, 300 counts a pixel", _counted(300.0 * flat, rng)
    for sigma in (1.0, 2.5, 6.0):
        yield f"noise, smoothed over {sigma} pixels", _counted(30 + 8 * _smooth(sigma, rng), rng)
    for counts in (5.0, 80.0):  # amorphous carbon: atoms at random, imaged by a probe
        places = rng.poisson(0.05, flat.shape).astype(float)
        dirt = 1.0 + 0.4 * _normed(ndimage.gaussian_filter(places, 3.0))
        yield "dirt", _counted(counts * dirt * (1.0 + 0.5 * _smooth(30.0, rng)), rng)
    for defocus in (30.0, 90.0):
        image = 50.0 + 8.0 * _rings(defocus, rng)
        yield "phase contrast of amorphous carbon", _counted(image, rng)
    for contrast in (0.2, 0.6):  # bright field: atoms are dark
        dark = 1.0 - contrast * _graphene(rng)
        yield "bright field of graphene", _counted(60.0 * dark, rng)
    yield from _screen(rng)


def _counted(mean: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draw counts."""
    return rng.poisson(np.maximum(mean, 0.01)).astype(np.float64)


def _smooth(sigma: float, rng: np.random.Generator) -> FloatArray:
    return _normed(ndimage.gaussian_filter(rng.normal(size=(_PIXELS, _PIXELS)), sigma))


def _graphene(rng: np.random.Generator) -> FloatArray:
    """Give the image of a sheet of graphene, at most one."""
    conditions = Conditions(pixel_size_A=_FINE_A, counts=1000.0)
    frame = random_labelled(
        GRAPHENE, rng, field_A=_PIXELS * _FINE_A, conditions=conditions, whole=True
    ).frame
    return np.asarray(frame.data, dtype=np.float64)[:_PIXELS, :_PIXELS] / float(frame.data.max())


def _normed(image: FloatArray) -> FloatArray:
    out: FloatArray = (image - image.mean()) / image.std()
    return out


def _rings(defocus: float, rng: np.random.Generator) -> FloatArray:
    """Filter white noise by a contrast transfer function: Thon rings, in standard deviations."""
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(_PIXELS), np.fft.fftfreq(_PIXELS)))
    transfer = np.sin(np.pi * defocus * k**2 * 4.0) * np.exp(-((k / 0.25) ** 2))
    noise = np.fft.fft2(rng.normal(size=(_PIXELS, _PIXELS)))
    return _normed(np.fft.ifft2(noise * transfer).real)


def _screen(rng: np.random.Generator) -> Iterator[tuple[str, FloatArray]]:
    """Give pictures from a screen: a text, a plot, a table, a shaded view, a checked pattern."""
    for name, draw in (("a text", _text), ("a plot", _plot), ("a table", _table)):
        page = Image.new("L", (_PIXELS, _PIXELS), 245)
        draw(ImageDraw.Draw(page), rng)
        yield f"screenshot of {name}", np.asarray(page, dtype=np.float64)
    y, x = np.mgrid[:_PIXELS, :_PIXELS] / _PIXELS
    sky = 180 - 120 * y + 40 * np.sin(7 * x + 3 * y) + 30 * (y > 0.6 + 0.1 * np.sin(9 * x))
    yield "screenshot of a landscape", np.asarray(Image.fromarray(sky.astype(np.uint8)), float)
    checks = ((np.indices((_PIXELS, _PIXELS)) // 12).sum(axis=0) % 2) * 200.0 + 20.0
    yield "screenshot of a checked pattern", checks


def _text(page: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz      "
    for y in range(4, _PIXELS - 8, 12):
        line = "".join(letters[i] for i in rng.integers(0, len(letters), 40))
        page.text((6, y), line, fill=20)


def _plot(page: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    page.rectangle((30, 20, 240, 225), outline=0)
    for k in range(6):
        page.line((26, 20 + 41 * k, 30, 20 + 41 * k), fill=0)
        page.text((4, 14 + 41 * k), f"{5 - k}", fill=0)
    walk = np.cumsum(rng.normal(0.0, 4.0, 210)) + 120
    page.line([(30 + i, float(v)) for i, v in enumerate(walk)], fill=60, width=2)


def _table(page: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    for y in range(8, _PIXELS, 16):
        page.line((4, y, 250, y), fill=150)
        for x in range(8, 240, 48):
            page.text((x, y + 2), f"{rng.normal():.3f}", fill=10)
