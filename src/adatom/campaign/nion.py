"""Nion Swift as a registered instrument: a running one, or one that is started with a specimen.

This file is not in `adatom.instrument`, because the specimen is rendered with `adatom.frames`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
import weakref
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from adatom.campaign.replay import options_of
from adatom.core import Material
from adatom.errors import BadInput
from adatom.instrument.limits import Limits, limits_needed
from adatom.instrument.nion.client import NionMicroscope, Setup
from adatom.instrument.nion.link import Link
from adatom.instrument.protocol import missing_extra
from adatom.instrument.twin_options import TwinOptions

_START_S = 120.0  # s: Nion Swift starts in 5 s; a loaded computer may take longer
_LEAST_FIELD_A = 2.0  # Å: as of the simulated microscope
_READY = "adatom: "  # as of `adatom.campaign.nion_process`


class NionOptions(BaseModel):
    """A running Nion Swift with adatom's bridge, or one that is started with a specimen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = Field(
        None, description="HOST:PORT of the bridge in a running Nion Swift; by default one is "
        "started without a window, with the simulated specimen as its sample"
    )  # fmt: skip
    key: str = Field("", description="the key that the bridge gave")
    limits: Limits | None = Field(
        None, description="what may be done; needed with `address`, else those of the specimen"
    )
    channel: str = Field("HAADF", description="detector, as Nion Swift names it")
    rotation_deg: float = Field(0.0, description="scan rotation, degrees")
    defocus_A: float | None = Field(
        None, description="defocus to set at the start, Å; by default it is left as it is"
    )
    current_pA: float | None = Field(
        None, gt=0, description="probe current, pA; by default what Nion Swift says"
    )
    traces: bool | None = Field(
        None, description="read the detector while the beam is parked; by default with the "
        "simulated specimen alone: it was not tried on another scan unit"
    )  # fmt: skip
    blanker: str = Field(
        "C_Blank", description="control that blanks the beam of the Nion Swift that is started; "
        "empty for one that cannot"
    )  # fmt: skip
    twin: TwinOptions = Field(TwinOptions(), description="the simulated specimen")


class NionInstrument:
    """Open Nion Swift: an `adatom.instrument.protocol.Instrument`.

    Examples
    --------
    >>> NION.options_type().channel
    'HAADF'
    """

    name = "nion"
    summary = "Nion Swift: a running one, or one without a window with the simulated specimen"
    options_type = NionOptions
    extra = "nion"
    modules = ("nion.instrumentation", "nion.usim_device")

    def open(self, options: BaseModel, material: Material, *, seed: int = 0) -> NionMicroscope:
        """Connect to a running Nion Swift, or start one.

        Raises
        ------
        BadInput
            If the extra ``nion`` is needed and missing, no bridge answers, a limit is missing, or
            the microscope is outside of the limits. Nothing was moved.
        """
        chosen = options_of(options, NionOptions, self.name)
        if chosen.address is not None:
            if chosen.limits is None:
                raise limits_needed("the instrument nion")
            link = Link(chosen.address, chosen.key)
            return _opened(link, chosen, chosen.limits, traces=chosen.traces is True)
        missing_extra(self)
        swift = _Swift(chosen, material, seed)
        limits = chosen.limits or _limits_of(chosen.twin)
        try:
            link = Link(swift.address, swift.key)
            traces = chosen.twin.traces if chosen.traces is None else chosen.traces
            return _opened(link, chosen, limits, traces=traces, swift=swift)
        except BaseException:
            swift.end()
            raise


class _Swift:
    """A Nion Swift of our own, without a window; it ends with this object.

    Raises
    ------
    BadInput
        If it does not start.
    """

    def __init__(self, options: NionOptions, material: Material, seed: int) -> None:
        self.key = secrets.token_hex(16)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "adatom.campaign.nion_process"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._errors, text=True, encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.end = weakref.finalize(self, _end, self._process)
        told = {
            "key": self.key, "seed": seed, "blanker": options.blanker,
            "twin": options.twin.model_dump(mode="json"),
            "material": TypeAdapter(Material).dump_python(material, mode="json"),
        }  # fmt: skip
        assert self._process.stdin is not None  # noqa: S101  # it is a pipe
        with contextlib.suppress(OSError):  # it ended already: the address does not come
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
        self.address = self._address()

    def _address(self) -> str:
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(self._process.stdout, lines), daemon=True).start()
        try:
            while (line := lines.get(timeout=_START_S)).strip() or line:
                if line.startswith(_READY):
                    return line.removeprefix(_READY).strip()
            got = f"it ended: {self._last_words()}"
        except queue.Empty:
            got = f"nothing within {_START_S:g} s"
        self.end()
        raise BadInput(
            "Nion Swift", expected="that it starts without a window", got=got,
            todo="See that nionswift, nionswift-instrumentation and nionswift-usim fit together: "
            "pip install 'adatom[nion]'.",
        )  # fmt: skip

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"


def _pass_on(lines: IO[str], to: queue.SimpleQueue[str]) -> None:
    """Pass lines on to who waits; read on afterwards, so that nothing waits for its output."""
    for line in lines:
        to.put(line)
    to.put("")


def _end(process: subprocess.Popen[str]) -> None:
    """End the process: it stops the beam when its input ends."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _opened(
    link: Link, options: NionOptions, limits: Limits, *, traces: bool, swift: _Swift | None = None
) -> NionMicroscope:
    setup = Setup(
        options.channel, math.radians(options.rotation_deg), options.current_pA, traces, limits
    )
    try:
        microscope = NionMicroscope(link, setup, swift.end if swift is not None else _nothing)
        weakref.finalize(microscope, _closed, link, swift)
        if options.defocus_A is not None:
            microscope.set_defocus(options.defocus_A)
    except BaseException:
        link.close()
        raise
    return microscope


def _closed(link: Link, swift: Any) -> None:
    link.close()
    if swift is not None:
        swift.end()


def _nothing() -> None:
    """Leave a Nion Swift that somebody else started as it is."""


def _limits_of(options: TwinOptions) -> Limits:
    """Limits of the simulated specimen: its sheet, and its beam."""
    return Limits(
        voltage_kV=(options.voltage_kV, options.voltage_kV), most_current_pA=options.current_pA,
        field_of_view_A=(_LEAST_FIELD_A, options.sheet_A), longest_dwell_s=60.0,
        pixel_time_us=(0.01, 1e5),
    )  # fmt: skip


NION = NionInstrument()
