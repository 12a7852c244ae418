"""Nion Swift as a registered instrument: a running one, or one that is started with a specimen.

This file is not in `adatom.instrument`, because the specimen is rendered with `adatom.frames`.
"""

from __future__ import annotations

import math
import secrets
import weakref
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from adatom.campaign.hosted_process import HostedProcess
from adatom.campaign.hosted_twin import limits_of
from adatom.campaign.replay import options_of
from adatom.core import Material
from adatom.instrument.limits import Limits, limits_needed
from adatom.instrument.nion.client import NionMicroscope, Setup
from adatom.instrument.nion.link import Link
from adatom.instrument.protocol import missing_extra
from adatom.instrument.twin_options import TwinOptions


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
        key = secrets.token_hex(16)
        swift = HostedProcess(
            "adatom.campaign.nion_process", "Nion Swift", self.extra, chosen.twin, material, seed,
            key=key, blanker=chosen.blanker,
        )  # fmt: skip
        limits = chosen.limits or limits_of(chosen.twin)
        try:
            link = Link(swift.address, key)
            traces = chosen.twin.traces if chosen.traces is None else chosen.traces
            return _opened(link, chosen, limits, traces=traces, swift=swift)
        except BaseException:
            swift.end()
            raise


def _opened(
    link: Link,
    options: NionOptions,
    limits: Limits,
    *,
    traces: bool,
    swift: HostedProcess | None = None,
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


NION = NionInstrument()
