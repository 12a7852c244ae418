"""Open the movie of a configuration, and check its scale against the lattice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adatom.campaign.config import InputOptions
from adatom.campaign.twin import make_twin
from adatom.core import Acquisition, Calibration, Frame, Material, Movie, content_hash
from adatom.errors import BadInput, BlankFrame, DamagedFile
from adatom.frames.lattice.spectrum import TRUSTED_CONTRAST, ScaleEstimate, estimate_scale
from adatom.frames.readers.read import read
from adatom.frames.specimen.examine import examine
from adatom.instrument.twin_options import TwinOptions
from adatom.parallel.progress import Progress

# Largest relative deviation of a given pixel size from the lattice's (dimensionless): calibrations
# are good to a few per cent.
_MOST_SCALE_ERROR = 0.10
_KEPT_BYTES = 64 * 2**20  # bytes of frames kept in memory: a short movie is read once
# Most frames whose spectra are averaged: limits the time for a long movie.
_MOST_SPECTRA = 24


def open_movie(
    options: InputOptions, progress: Progress, *, seed: int, material: Material | None = None
) -> tuple[Movie, tuple[str, ...]]:
    """Open the movie, and check every frame of it.

    Parameters
    ----------
    options
        Files, or the simulated microscope.
    progress
        Receives the progress of the check.
    seed
        Seed of the simulated microscope.
    material
        Specimen of the simulated microscope.

    Returns
    -------
    The movie, and notes on frames that were left out.

    Raises
    ------
    BadInput
        If a file or frame cannot be used, or the simulated microscope has no specimen.
    """
    if options.twin is not None:
        if material is None:
            raise BadInput(
                "the simulated microscope", expected="a specimen", got="no material",
                todo="Name the `material`.",
            )  # fmt: skip
        return twin_movie(options.twin, material, seed), ()
    movie = read(
        [Path(p) for p in options.paths],
        pixel_size_A=options.pixel_size_A,
        frames=options.frames,
        dataset=options.dataset,
        axes=options.axes,
    )
    return checked_frames(movie, progress)


def checked_frames(movie: Movie, progress: Progress) -> tuple[Movie, tuple[str, ...]]:
    """Read every frame once: a bad one is refused, a blank or damaged one left out and said.

    Parameters
    ----------
    movie
        Frames, with or without a calibration.
    progress
        Receives the progress.

    Returns
    -------
    The movie without its blank and damaged frames, the first frames in memory, and notes for the
    user. Each frame must later have the pixels that it had here.

    Raises
    ------
    BadInput
        Naming the first frame that cannot be used.
    """
    movie = movie.cached(_KEPT_BYTES)
    kept: list[int] = []
    unusable: list[BlankFrame | DamagedFile] = []
    progress.start("read", len(movie), 0)
    for i in range(len(movie)):
        try:
            movie.frame_hash(i)
            kept.append(i)
        except (BlankFrame, DamagedFile) as error:
            unusable.append(error)
        progress.advance("read")
    progress.finish("read")
    if not unusable:
        return movie, ()
    if not kept:
        raise unusable[0]
    which = [str(i) for i in range(len(movie)) if i not in set(kept)]
    numbers = ", ".join(which[:8]) + (" ..." if len(which) > 8 else "")
    kinds = {BlankFrame: "have no contrast", DamagedFile: "cannot be read"}
    why = " or ".join(sorted({kinds[type(error)] for error in unusable}))
    note = (
        f"left out of {len(movie)} frames, because they {why}: frame {numbers} "
        f"({unusable[0].got}); the others are numbered from 0 without them"
    )
    return movie.selected(kept), (note,)


def some_images(movie: Movie) -> list[NDArray[np.float32]]:
    """Give a few frames of a movie, evenly spaced: their spectra are averaged."""
    step = max(len(movie) // _MOST_SPECTRA, 1)
    some = movie.recalibrated(movie.calibration or Calibration(1.0))
    return [examine(some[i]).data for i in range(0, len(movie), step)[:_MOST_SPECTRA]]


def settle_scale(
    movie: Movie,
    material: Material,
    *,
    fit: bool,
    images: Sequence[NDArray[np.float32]] | None = None,
) -> tuple[Movie, tuple[str, ...]]:
    """Check the pixel size against the lattice, or fit it to the lattice where that is asked for.

    A pixel size that the file or the user gives is never replaced unasked: the lattice is that of
    the named material, and the specimen may be another.

    Parameters
    ----------
    movie
        Frames, with or without a calibration.
    material
        The crystal that they show.
    fit
        Take the scale from the lattice.
    images
        Result of `some_images`, where it was made before.

    Returns
    -------
    The movie with its final calibration, and notes for the user: none if the scale agrees with the
    lattice, or if the lattice is too faint to tell.

    Raises
    ------
    BadInput
        If there is no scale (the message suggests the lattice's), or if it is wrong by a power of
        ten, as a wrong unit makes it.
    """
    given = None if movie.calibration is None else movie.calibration.pixel_size_A
    if not material.has_lattice:
        if given is not None:  # no lattice to check it against
            return movie, ()
        todo = "Give `pixel_size_A`, in Å."
        raise BadInput(movie.source, expected="a pixel size", got="none in the file", todo=todo)
    images = some_images(movie) if images is None else images
    found = estimate_scale(images, material, expected_A=given)
    sure = found.contrast >= TRUSTED_CONTRAST
    if given is None and not (fit and sure):
        hint = _suggestion(found, material) if sure else "Give `pixel_size_A`, in Å."
        raise BadInput(movie.source, expected="a pixel size", got="none in the file", todo=hint)
    striped = _stripe_notes(found)
    if fit:
        movie, notes = _fitted(movie, material, found if sure else None)
        return movie, (*notes, *striped)
    assert given is not None  # only a fit goes on without one  # noqa: S101
    if not sure or abs(found.pixel_size_A / given - 1.0) <= _MOST_SCALE_ERROR:
        return movie, striped
    ratio = given / found.pixel_size_A
    power = round(np.log10(ratio))
    if power and abs(ratio / 10.0**power - 1.0) < 0.2:
        raise BadInput(
            movie.source,
            expected=f"a pixel size near {found.pixel_size_A:.4g} Å, which the lattice shows",
            got=f"{given:.4g} Å, 10^{power} times that: a unit taken for another (nm, pm, Å)?",
            todo=f"Give `pixel_size_A` {found.pixel_size_A:.4g}, or `fit_scale` to take it.",
        )
    return movie, (scale_note(given, found.pixel_size_A, material), *striped)


def _stripe_notes(found: ScaleEstimate) -> tuple[str, ...]:
    if not found.stripes:
        return ()
    return (
        "the frames have stripes, as interference of the scan makes them, with "
        + " and ".join(str(s) for s in found.stripes[:2])
        + "; they are left out where the pixel size is checked",
    )


SCALE_NOTE = "the pixel size is"  # how the notes on the scale begin


def scale_note(given_A: float, lattice_A: float, material: Material) -> str:
    """Say that pixel size and lattice disagree, with both values and which of them is used."""
    return (
        f"{SCALE_NOTE} {given_A:.4g} Å, and a {material.name} lattice would make it "
        f"{lattice_A:.4g} Å ({lattice_A / given_A - 1.0:+.1%}): kept as given, and so are all "
        "lengths; `fit_scale` takes the lattice's"
    )


def _fitted(
    movie: Movie, material: Material, found: ScaleEstimate | None
) -> tuple[Movie, tuple[str, ...]]:
    given = "none" if movie.calibration is None else f"{movie.calibration.pixel_size_A:.4g} Å"
    if found is None:
        kept = f"the {material.name} lattice is too faint to fit the scale: kept at {given}"
        return movie, (kept,)
    note = (
        f"{SCALE_NOTE} fitted to the {material.name} lattice (`fit_scale`): "
        f"{found.pixel_size_A:.4g} Å; the one given is {given}"
    )
    return movie.recalibrated(Calibration(found.pixel_size_A)), (note,)


def _suggestion(found: ScaleEstimate, material: Material) -> str:
    return (
        f"Give `pixel_size_A`; "
        f"if this is {material.name}, its lattice says {found.pixel_size_A:.4g}."
    )


def twin_movie(options: TwinOptions, material: Material, seed: int) -> Movie:
    """Take frames with the simulated microscope; the same options and seed give the same frames."""
    twin = make_twin(options, material, seed)
    frames = twin.demonstration()
    calibration = Calibration(options.field_of_view_A / options.pixels)
    return Movie(
        load=partial(_frame_of, frames),
        count=len(frames),
        shape=(options.pixels, options.pixels),
        calibration=calibration,
        source="simulated microscope",
        fingerprint=content_hash("twin", options, *(f.data for f in frames)),
        acquisition=Acquisition(
            voltage_kV=twin.conditions.voltage_kV, dose_per_A2=options.dose_per_A2
        ),
    ).cached(0)


def _frame_of(frames: list[Frame], index: int) -> np.ndarray:
    return np.asarray(frames[index].data)
