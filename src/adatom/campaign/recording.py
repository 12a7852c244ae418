"""How the frames were recorded: by the options, else by the files, else assumed and said."""

from __future__ import annotations

from dataclasses import replace

from adatom.core import Acquisition, Material, Movie
from adatom.core.acquisition import ASSUMED_KV
from adatom.frames.simulate.detector import detector_exponents


def with_recording(
    movie: Movie, given: Acquisition, material: Material
) -> tuple[Movie, tuple[str, ...]]:
    """Settle how a movie was recorded.

    Parameters
    ----------
    movie
        Frames; what their files say of the recording is used where nothing is given.
    given
        What the user says.
    material
        What the frames show: where no knock-on threshold is known, the voltage does not matter.

    Returns
    -------
    The movie with its recording, and notes on what had to be assumed. An unknown voltage stays
    None; `Acquisition.usual_voltage_kV` is then what is assumed.
    """
    pixel_A = None if movie.calibration is None else movie.calibration.pixel_size_A
    # A current or time of the user's own makes another dose than the files say.
    known = given.or_else(movie.acquisition).with_dose(pixel_A)
    assumed: list[str] = []
    if known.voltage_kV is None and material.knock_on is not None:
        assumed.append(
            f"an acceleration voltage of {ASSUMED_KV:g} kV (`voltage_kV`), for knock-on damage"
        )
    if known.frame_time_s is None and known.dwell_s is not None and len(movie) > 1:
        seconds = known.dwell_s * movie.shape[0] * movie.shape[1]
        known = replace(known, frame_time_s=seconds)
        assumed.append(
            f"{seconds:.3g} s from frame to frame (`frame_time_s`): the time of its pixels, "
            "without fly-back"
        )
    notes = (f"not in the files, so assumed: {'; '.join(assumed)}",) if assumed else ()
    return replace(movie, acquisition=known), notes


def with_detector(material: Material, acquisition: Acquisition) -> Material:
    """Give the material the contrast of the detector, where its angles are known.

    Raises
    ------
    BadInput
        If the angles are not those of an annular detector.
    """
    if acquisition.detector_mrad is None:
        return material
    exponents = detector_exponents(*acquisition.detector_mrad, acquisition.usual_voltage_kV)
    return replace(material, contrast_range=exponents)


def recording_in_words(acquisition: Acquisition) -> str:
    """Say how frames were recorded, as far as it is known; empty if nothing is.

    Examples
    --------
    >>> from adatom.core import Acquisition
    >>> recording_in_words(Acquisition(voltage_kV=60.0, detector_mrad=(80.0, 200.0), dwell_s=2e-5))
    '60 kV, detector 80 to 200 mrad, 20 µs a pixel'
    """
    a = acquisition
    parts = [
        "" if a.voltage_kV is None else f"{a.voltage_kV:g} kV",
        ""
        if a.detector_mrad is None
        else "detector {:.4g} to {:.4g} mrad".format(*a.detector_mrad),
        "" if a.dwell_s is None else f"{a.dwell_s * 1e6:.4g} µs a pixel",
        "" if a.frame_time_s is None else f"{a.frame_time_s:.4g} s a frame",
        "" if a.current_pA is None else f"{a.current_pA:.4g} pA",
        "" if a.dose_per_A2 is None else f"{a.dose_per_A2:.3g} e⁻/Å² a frame",
    ]
    return ", ".join(filter(None, parts))
