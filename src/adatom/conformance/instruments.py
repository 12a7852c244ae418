"""Conformance of an instrument: it takes the frame that is asked for, and refuses the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import BaseModel

from adatom.conformance.expect import expect, expect_refused
from adatom.core import GRAPHENE, BeamRequest, Frame, Material, ScanRequest
from adatom.frames.lattice.spectrum import TRUSTED_CONTRAST, estimate_scale
from adatom.instrument import Instrument, Microscope

_PIXEL_A = 0.12  # atoms sampled well, and still many of them in a frame
_DWELL_S = 0.05  # s: ten time slices
_STOP_AFTER = 3  # time slices
_LATE_S = 0.25  # s: by which a dwell of a clock of its own may be off, if it tells the true time
_LATE_SLICES = 6  # by which such a beam may be on for longer than it is told
_LONGEST_SLICE_S = 0.005
_DOSE_PER_A2 = 1e6  # e⁻/Å²: a clean frame


class _NoOptions(BaseModel):
    """Options of no instrument."""


def check_instrument(
    instrument: Instrument,
    *,
    options: BaseModel | None = None,
    material: Material = GRAPHENE,
    request: ScanRequest | None = None,
    shows_lattice: bool = True,
) -> None:
    """Check that an instrument takes the frames that adatom asks for.

    A frame has the pixels, the pixel size in Å and the dose of its request; the material's lattice
    in it confirms that pixel size; a parked beam takes its time, gives its signal and stops when it
    is told; what the instrument cannot do is refused; a simulated microscope that is opened twice
    gives the same frames, each with noise of its own. An instrument that does not steer gives two
    frames that differ, in order, by a clock that goes forward; it parks no beam.

    Parameters
    ----------
    instrument
        What the entry point names.
    options
        Of its type; its defaults where nothing is given.
    material
        What is looked at.
    request
        A frame that it can take; by default one of its middle with pixels of about 0.12 Å.
    shows_lattice
        The frame shows the perfect lattice of the material over most of its area.

    Raises
    ------
    AssertionError
        At the first thing that is wrong: what was expected, what came.

    Examples
    --------
    >>> from adatom.instrument import find_instrument
    >>> check_instrument(find_instrument("twin"))
    """
    expect(
        isinstance(instrument, Instrument),
        "instrument",
        expected="an Instrument",
        got=type(instrument).__name__,
    )
    name = instrument.name
    chosen = instrument.options_type() if options is None else options
    expect_refused(lambda: instrument.open(_NoOptions(), material), f"{name}: wrong options")
    microscope = instrument.open(chosen, material)
    can = microscope.capabilities
    if not can.steers:
        _check_given_frames(microscope, name)
        return
    wanted = _usual_request(can.center_xy_A, can.field_of_view_A, can.pixels)
    wanted = wanted if request is None else request
    frame = microscope.acquire(wanted)
    _check_frame(frame, wanted, name)
    if shows_lattice:
        asked = wanted.calibration.pixel_size_A
        found = estimate_scale([frame.data], material, expected_A=asked)
        expect(
            found.contrast >= TRUSTED_CONTRAST and abs(found.pixel_size_A / asked - 1.0) < 0.05,
            f"{name}: pixel size by the lattice of {material.name}",
            expected=f"{asked:.4g} Å, clearly",
            got=f"{found.pixel_size_A:.4g} Å, {found.contrast:.3g} standard deviations clear",
        )
    coarse = replace(wanted, pixels=max(can.pixels[0], wanted.pixels // 2))
    _check_frame(microscope.acquire(coarse), coarse, name)
    too_wide = replace(wanted, field_of_view_A=2.0 * can.field_of_view_A[1])
    expect_refused(
        lambda: microscope.acquire(too_wide), f"{name}: a field of view that is too wide"
    )
    too_fine = replace(wanted, pixels=2 * can.pixels[1])
    expect_refused(lambda: microscope.acquire(too_fine), f"{name}: more pixels than it has")
    _check_beam(microscope, wanted, name)
    if can.simulated:
        one, two = (instrument.open(chosen, material) for _ in range(2))
        series = [[m.acquire(wanted).data for _ in range(2)] for m in (one, two)]
        same = all(np.array_equal(a, b) for a, b in zip(*series, strict=True))
        expect(same, name, expected="the same frames when opened again", got="others")
        noisy = not np.array_equal(series[0][0], series[0][1])
        expect(noisy, name, expected="noise of its own in each frame", got="the same frame twice")


def _check_given_frames(microscope: Microscope, name: str) -> None:
    """Take two frames that somebody else takes."""
    can, before = microscope.capabilities, microscope.time_s
    edge = min(max(24.0, can.field_of_view_A[0]), can.field_of_view_A[1])
    nominal = ScanRequest(can.center_xy_A, edge, can.pixels[0], _DOSE_PER_A2)
    one, two = (microscope.acquire(nominal) for _ in range(2))
    expect(two.index > one.index, f"{name}: order", expected="a later frame", got=two.index)
    same = one.shape == two.shape and np.array_equal(one.data, two.data)
    expect(not same, name, expected="another frame each time", got="the same one twice")
    later = microscope.time_s >= before
    expect(later, f"{name}: clock", expected="no step back", got=microscope.time_s)
    expect(not can.longest_dwell_s, name, expected="no parked beam", got=can.longest_dwell_s)
    _check_beam(microscope, nominal, name)


def _check_beam(microscope: Microscope, seen: ScanRequest, name: str) -> None:
    """Park the beam in the middle of a frame: its time, its signal, its end, and refusals."""
    can, middle = microscope.capabilities, (seen.field_of_view_A / 2,) * 2
    beam = microscope.conditions
    sane = 1.0 <= beam.voltage_kV <= 1000.0 and beam.current_pA > 0
    expect(sane, f"{name}: beam", expected="1 to 1000 kV and a current in pA", got=beam)
    too_long = BeamRequest(seen, middle, max(2.0 * can.longest_dwell_s, 1.0))
    expect_refused(lambda: microscope.place_beam(too_long), f"{name}: a dwell that is too long")
    if not can.longest_dwell_s:
        return
    short = BeamRequest(seen, middle, min(_DWELL_S, can.longest_dwell_s))
    before = microscope.time_s
    trace = microscope.place_beam(short)
    late_s = max(can.slice_s, 0.01) if can.simulated else _LATE_S
    right = abs(trace.dwell_s - short.dwell_s) <= late_s
    expect(right, f"{name}: dwell", expected=f"{short.dwell_s:g} s", got=f"{trace.dwell_s:g} s")
    passed = microscope.time_s - before
    late = passed >= 0.9 * short.dwell_s
    expect(late, f"{name}: clock", expected=f"{short.dwell_s:g} s later", got=f"{passed:g} s")
    if not can.traces:
        stop = f"{name}: a stop by a signal that it has not"
        expect_refused(lambda: microscope.place_beam(short, lambda _: True), stop)
        return
    fine = can.slice_s <= _LONGEST_SLICE_S
    expect(fine, f"{name}: time slice", expected="at most 5 ms", got=f"{can.slice_s * 1e3:g} ms")
    whole = np.isfinite(trace.counts).all()
    expect(whole, f"{name}: signal", expected="counts in every slice", got=trace.counts)
    stopped = microscope.place_beam(short, lambda counts: len(counts) >= _STOP_AFTER)
    more = 0 if can.simulated else _LATE_SLICES
    expect(
        stopped.stopped and 0 <= len(stopped.counts) - _STOP_AFTER <= more,
        f"{name}: a dwell that is stopped after {_STOP_AFTER} slices",
        expected=f"{_STOP_AFTER} slices, at most {more} more, and that it was stopped",
        got=f"{len(stopped.counts)} slices, stopped: {stopped.stopped}",
    )


def _usual_request(
    center_xy_A: tuple[float, float], field_A: tuple[float, float], pixels: tuple[int, int]
) -> ScanRequest:
    width = float(np.clip(24.0, *field_A))
    return ScanRequest(
        center_xy_A, width, int(np.clip(round(width / _PIXEL_A), *pixels)), _DOSE_PER_A2
    )


def _check_frame(frame: Frame, request: ScanRequest, name: str) -> None:
    shape, size = (request.pixels, request.pixels), request.calibration.pixel_size_A
    expect(frame.shape == shape, f"{name}: frame", expected=f"{shape} pixels", got=frame.shape)
    got = frame.calibration.pixel_size_A
    right = abs(got / size - 1.0) < 1e-6
    expect(right, f"{name}: pixel size", expected=f"{size:g} Å", got=f"{got:g} Å")
    dose = frame.dose_per_A2
    close = dose is None or abs(dose / request.dose_per_A2 - 1.0) < 0.5  # a beam current drifts
    expect(close, f"{name}: dose", expected=f"about {request.dose_per_A2:g} e⁻/Å²", got=dose)
