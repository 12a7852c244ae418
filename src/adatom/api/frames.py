"""The steps on frames: example frames, atoms, adaptation, defects."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adatom.analysis.card import calibration_warning
from adatom.analysis.lattice import lattice_of
from adatom.analysis.movie import analyse_movie
from adatom.analysis.naming import name_defects
from adatom.analysis.options import AnalysisOptions
from adatom.campaign.arguments import (
    ALONG_C,
    MaterialLike,
    ZoneAxis,
    checked_seed,
    read_ensemble,
    read_material,
)
from adatom.campaign.choose import Settled, rank_candidates, settle
from adatom.campaign.recording import with_detector
from adatom.campaign.sources import checked_frames, twin_movie
from adatom.campaign.verdict import judge
from adatom.campaign.warn import frame_warnings
from adatom.core import Acquisition, AtomTable, DefectTable, Frame, Movie
from adatom.errors import BadInput, WrongMaterialWarning
from adatom.features.find import FindOptions
from adatom.frames.lattice.candidates import SCALE_SD, Candidate
from adatom.frames.readers.read import read
from adatom.instrument import FAST_HOPS_A2, TwinOptions
from adatom.learning.ensemble import Ensemble
from adatom.materials.library import load_material, material_names
from adatom.parallel.progress import Silent
from adatom.training.adapt.options import AdaptOptions

if TYPE_CHECKING:
    from adatom.training.adapt.rounds import Adapted

Frames = Movie | NDArray[Any] | str | Path | Sequence[str | Path]


def example_frames(count: int = 2, *, seed: int = 7) -> tuple[NDArray[np.float32], float]:
    """Take frames with the simulated microscope: graphene with a vacancy and a walking Si.

    Parameters
    ----------
    count
        Number of frames.
    seed
        Seed of specimen and noise.

    Returns
    -------
    Counts, shape (frame, row, col), and the pixel size in Å.

    Raises
    ------
    BadInput
        If the count is below one, or the seed below zero.

    Examples
    --------
    >>> import adatom as ad
    >>> frames, pixel_size_A = ad.example_frames(1)
    >>> frames.shape, round(pixel_size_A, 4)
    ((1, 192, 192), 0.1042)
    """
    if count < 1:
        raise BadInput(
            "`count`", expected="at least one frame", got=repr(count), todo="Ask for one or more."
        )
    options = TwinOptions(frames=count, hop_cross_section_A2=FAST_HOPS_A2)
    movie = twin_movie(options, load_material("graphene"), checked_seed(seed))
    frames = list(movie)
    return np.stack([f.data for f in frames]), frames[0].calibration.pixel_size_A


def find(
    frames: Frames,
    *,
    material: MaterialLike | None = None,
    zone_axis: ZoneAxis = ALONG_C,
    pixel_size_A: float | None = None,
    fit_scale: bool = False,
    weights: str | Path | None = None,
    options: FindOptions | None = None,
) -> AtomTable:
    """Find every atom with its position covariance, element and probability.

    Parameters
    ----------
    frames
        A `Movie` from `read` (which has options for axes, channels and a choice of frames), or what
        `read` takes: file names, an array of shape (row, col) or (frame, row, col), lazy arrays.
    material
        Material in the frames: its name, its TOML file, a structure file that ASE reads, or
        a `Material`. Left out, it is chosen by lattice and scale, and a warning says so.
    zone_axis
        Lattice direction of the beam, for a structure file.
    pixel_size_A
        Pixel size in Å; needed if the frames have none.
    fit_scale
        Take the scale from the material's lattice, in place of the given one.
    weights
        File of an ensemble (``.safetensors``); by default the shipped one of the material.
    options
        How atoms are found. Probabilities hold for the options that the ensemble was calibrated
        with; others give a warning.

    Warns
    -----
    WrongMaterialWarning
        If the frames do not show the material; ``adatom find`` then ends with exit code 3.
    UserWarning
        If the lattice contradicts the pixel size (the message has both values; the given one is
        used), a scale or the material had to be assumed, the options are not those of the
        calibration, pixels are masked or clipped, or image and
        atoms disagree in parts of a frame (contamination, missed and invented columns).

    Returns
    -------
    Atoms of all frames; `AtomTable.data` is a polars table.

    Raises
    ------
    BadInput
        If a frame cannot be used, no scale is known, or there are no networks for the material.
    NoMaterial
        If no material is named, and the frames do not clearly show one.

    Examples
    --------
    >>> import adatom as ad
    >>> frames, pixel_size_A = ad.example_frames(1)
    >>> atoms = ad.find(frames, material="graphene", pixel_size_A=pixel_size_A)
    >>> sorted(set(atoms.elements[atoms.is_likely].tolist()))
    ['C', 'Si']
    """
    how = _Arguments(frames, material, zone_axis, pixel_size_A, fit_scale)
    settled, ensemble = _settle_with_networks(how, weights)
    movie, chosen = settled.movie, settled.material
    unknown = calibration_warning(ensemble.card, options or FindOptions())
    for note in (unknown, *settled.notes):
        if note:
            warnings.warn(note, stacklevel=2)
    analysis = AnalysisOptions(find=options or FindOptions())
    parts, lattices, flags = [], {}, {}
    for i, result in enumerate(analyse_movie(movie, ensemble, chosen, analysis)):
        parts.append(result.atoms)
        lattices[i], flags[i] = result.lattice, result.flags
    atoms = AtomTable.concat(parts)
    wrong = judge(movie, chosen, ensemble, settled.screening, atoms, lattices, flags, options)
    if wrong is not None:
        warnings.warn(wrong, WrongMaterialWarning, stacklevel=2)
    told = settled.notes
    for note in frame_warnings(flags, lattices, movie, chosen, told=told, wrong=wrong):
        warnings.warn(note, stacklevel=2)
    return atoms


def identify(
    frames: Frames,
    candidates: Sequence[MaterialLike] | None = None,
    *,
    zone_axis: ZoneAxis = ALONG_C,
    pixel_size_A: float | None = None,
    scale_error: float = SCALE_SD,
) -> tuple[Candidate, ...]:
    """Tell which of several crystals frames show, by lattice and by the intensities in its cell.

    Nothing is trained, and the elements need not be known beyond the list: a tenth of a second a
    candidate.

    Parameters
    ----------
    frames
        As of `find`.
    candidates
        Names, TOML files, structure files that ASE reads, or `Material` objects; by default all
        built-in ones.
    zone_axis
        Lattice direction of the beam, for structure files.
    pixel_size_A
        Pixel size in Å; needed if the frames have none.
    scale_error
        Relative standard deviation of the pixel size. The more exactly it is known, the better are
        crystals of similar patterns told apart.

    Warns
    -----
    UserWarning
        If the reader had to assume something.

    Returns
    -------
    The candidates, the likeliest first. What is missing to a sum of 1 is the probability that no
    lattice is seen. Crystals of equal structure and similar elements, such as MoS2 and WS2, often
    share it: `Candidate.structure_probability` is that of all of them.

    Raises
    ------
    BadInput
        If a frame cannot be used, no scale is known, or a candidate cannot be read.

    Examples
    --------
    >>> import adatom as ad
    >>> frames, pixel_size_A = ad.example_frames(1)
    >>> found = ad.identify(frames, ["graphene", "MoS2", "SrTiO3"], pixel_size_A=pixel_size_A)
    >>> found[0].name, found[0].probability > 0.9
    ('graphene', True)
    """
    named = material_names() if candidates is None else candidates
    read_ones = [read_material(each, zone_axis) for each in named]
    if candidates is None:
        read_ones = [m for m in read_ones if m.has_lattice]
    movie, notes = _read(frames, pixel_size_A)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return rank_candidates(movie, read_ones, scale_error)


def adapt(
    frames: Frames,
    *,
    material: MaterialLike | None = None,
    zone_axis: ZoneAxis = ALONG_C,
    pixel_size_A: float | None = None,
    fit_scale: bool = False,
    detector_mrad: tuple[float, float] | None = None,
    voltage_kV: float | None = None,
    weights: str | Path | None = None,
    options: AdaptOptions | None = None,
    find_options: FindOptions | None = None,
    seed: int = 0,
) -> Adapted:
    """Retrain an ensemble on the first frames of an experiment, without a label.

    Parameters
    ----------
    frames, material, zone_axis, pixel_size_A, fit_scale, weights
        As of `find`.
    detector_mrad, voltage_kV
        Inner and outer angle of the annular detector, mrad, and acceleration voltage, kV: they set
        the contrast of the simulated frames. By default the file's, else any detector at 60 kV.
    options
        Rounds, steps, frames.
    find_options
        How atoms are found, here and later: the adapted ensemble is calibrated for them.
    seed
        Seed of the training and of its simulated frames.

    Returns
    -------
    `Adapted.ensemble` and what every round did; `adatom.learning.weights.save` writes it to a file
    that `find` takes as `weights`.

    Raises
    ------
    BadInput
        If a frame cannot be used, or the frames do not show the material.

    Examples
    --------
    Frames that do not show the material are refused, because the networks would learn wrong labels:

    >>> import numpy as np
    >>> import adatom as ad
    >>> noise = np.random.default_rng(0).poisson(3.0, (1, 128, 128))
    >>> try:
    ...     adapted = ad.adapt(noise, material="graphene", pixel_size_A=0.12)
    ... except ad.AdatomError as error:
    ...     print(error.expected[:40])
    atoms that stand as in graphene: its lat
    """
    # Torch, which takes seconds to import, is for training.
    from adatom.training.adapt.rounds import adapt as adapt_ensemble

    how = _Arguments(frames, material, zone_axis, pixel_size_A, fit_scale)
    settled, ensemble = _settle_with_networks(how, weights)
    for note in settled.notes:
        warnings.warn(note, stacklevel=2)
    first = min((options or AdaptOptions()).frames, len(settled.movie))
    some = [settled.movie[i] for i in range(first)]
    given = Acquisition(voltage_kV=voltage_kV, detector_mrad=detector_mrad)
    return adapt_ensemble(
        some,
        with_detector(settled.material, given.or_else(settled.movie.acquisition)),
        ensemble,
        options,
        find_options=find_options,
        seed=checked_seed(seed),
    )


def find_defects(
    frames: Frames,
    atoms: AtomTable,
    *,
    material: MaterialLike | None = None,
    zone_axis: ZoneAxis = ALONG_C,
    pixel_size_A: float | None = None,
    fit_scale: bool = False,
) -> DefectTable:
    """Name the defects of every frame.

    Atoms from `find` come with the sites that were tested for a missing atom, so the defects are
    those of ``adatom find``. For other atoms, every lattice site is tested against the image, which
    takes a refinement of each frame.

    Parameters
    ----------
    frames, material, zone_axis, pixel_size_A, fit_scale
        As of `find`: with the same values, frames and atoms have the same scale.
    atoms
        Atoms of these frames.

    Warns
    -----
    UserWarning
        If the lattice contradicts the pixel size, as `find` does.

    Returns
    -------
    Defects of all frames; `DefectTable.data` is a polars table.

    Raises
    ------
    BadInput
        If a frame cannot be used or no scale is known.

    Examples
    --------
    >>> import adatom as ad
    >>> frames, pixel_size_A = ad.example_frames(1)
    >>> given = {"material": "graphene", "pixel_size_A": pixel_size_A}
    >>> atoms = ad.find(frames, **given)
    >>> defects = ad.find_defects(frames, atoms, **given)
    >>> sorted(defects.data["kind"])
    ['Si1C3', 'V1']
    """
    settled = _settle(_Arguments(frames, material, zone_axis, pixel_size_A, fit_scale))
    chosen, movie = settled.material, settled.movie
    for note in settled.notes:
        warnings.warn(note, stacklevel=2)

    def named(frame: Frame) -> DefectTable:
        own = atoms.of_frame(frame.index)
        return name_defects(frame, own, lattice_of(own, chosen), chosen)

    return DefectTable.concat(map(named, movie))


@dataclass(frozen=True, slots=True)
class _Arguments:
    """What `find`, `adapt` and `find_defects` take in common."""

    frames: Frames
    material: MaterialLike | None
    zone_axis: ZoneAxis
    pixel_size_A: float | None
    fit_scale: bool


def _settle(how: _Arguments) -> Settled:
    """Read frames, choose the material if none is named, and settle the scale.

    The notes of a `Movie` are not repeated: the user read it and has them in `Movie.notes`.
    """
    named = None if how.material is None else read_material(how.material, how.zone_axis)
    movie, notes = _read(how.frames, how.pixel_size_A)
    settled = settle(movie, named, fit=how.fit_scale)
    return replace(settled, notes=(*notes, *settled.notes))


def _read(frames: Frames, pixel_size_A: float | None) -> tuple[Movie, tuple[str, ...]]:
    """Read and check frames, with what the user should know of them."""
    given = isinstance(frames, Movie)
    movie = frames if isinstance(frames, Movie) else read(frames, pixel_size_A=pixel_size_A)
    movie, left_out = checked_frames(movie, Silent())
    return movie, (*(() if given else movie.notes), *left_out)


def _settle_with_networks(how: _Arguments, weights: str | Path | None) -> tuple[Settled, Ensemble]:
    """Settle the frames, and load networks: first those of a material that is named."""
    if how.material is not None:
        ensemble = read_ensemble(how.material, how.zone_axis, weights)
        return _settle(how), ensemble
    settled = _settle(how)
    return settled, read_ensemble(settled.material, how.zone_axis, weights)
