"""A Tango device server as a registered instrument: a running one, or one with a specimen."""

from __future__ import annotations

import weakref

from pydantic import BaseModel, ConfigDict, Field

from adatom.campaign.hosted_process import HostedProcess
from adatom.campaign.hosted_twin import limits_of
from adatom.campaign.replay import options_of
from adatom.core import Material
from adatom.errors import BadInput
from adatom.instrument.limits import Limits, limits_needed
from adatom.instrument.protocol import missing_extra
from adatom.instrument.tango import Setup, TangoMicroscope
from adatom.instrument.twin_options import TwinOptions


class TangoOptions(BaseModel):
    """A running device server with the verbs of the field, or one that is started."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str | None = Field(
        None, description="address of the microscope's device, such as "
        "tango://host:port/a/b/c#dbase=no; by default a server is started with the simulated "
        "specimen"
    )  # fmt: skip
    scan_device: str | None = Field(None, description="address of its SCAN device")
    limits: Limits | None = Field(
        None, description="what may be done; needed with `device`, else those of the specimen"
    )
    voltage_kV: float | None = Field(
        None, gt=0, description="acceleration voltage, kV, which the verbs do not tell"
    )
    current_pA: float | None = Field(
        None, gt=0, description="probe current, pA; by default that of the screen"
    )
    detector: str = Field("haadf", description="detector, as the server names it")
    defocus_A: float | None = Field(None, description="defocus to set at the start, Å")
    region_by_corners: bool = Field(
        default=False, description="the server takes scan_region as left, top, right, bottom and "
        "not as left, top, width, height"
    )  # fmt: skip
    twin: TwinOptions = Field(TwinOptions(), description="the simulated specimen")


class TangoInstrument:
    """Open a Tango device server: an `adatom.instrument.protocol.Instrument`.

    Examples
    --------
    >>> TANGO.options_type().detector
    'haadf'
    """

    name = "tango"
    summary = "A Tango device server with asyncroscopy's verbs: a running one, or a simulated one"
    options_type = TangoOptions
    extra = "tango"
    modules = ("tango",)

    def open(self, options: BaseModel, material: Material, *, seed: int = 0) -> TangoMicroscope:
        """Connect to a running device server, or start one.

        Raises
        ------
        BadInput
            If the extra ``tango`` is missing, no device answers, a verb or a limit is missing, or
            the microscope is outside of the limits. Nothing was moved.
        """
        chosen = options_of(options, TangoOptions, self.name)
        if chosen.device is not None and chosen.limits is None:
            raise limits_needed("the instrument tango")
        missing_extra(self)
        if chosen.device is not None and chosen.limits is not None:
            if chosen.scan_device is None or chosen.voltage_kV is None:
                raise BadInput(
                    "the instrument tango", expected="the options `scan_device` and `voltage_kV`",
                    got="only one of them, or none",
                    todo="Give them in the file of --instrument-options.",
                )  # fmt: skip
            return _opened(
                chosen, chosen.device, chosen.scan_device, chosen.voltage_kV, chosen.limits
            )
        server = HostedProcess(
            "adatom.campaign.tango_server", "Tango device server", self.extra, chosen.twin,
            material, seed,
        )  # fmt: skip
        try:
            scan = server.address.replace("/microscope/", "/scan/")
            voltage = chosen.voltage_kV or chosen.twin.voltage_kV
            limits = chosen.limits or limits_of(chosen.twin)
            return _opened(chosen, server.address, scan, voltage, limits, server)
        except BaseException:
            server.end()
            raise


def _opened(
    chosen: TangoOptions, device: str, scan: str, voltage_kV: float, limits: Limits,
    server: HostedProcess | None = None,
) -> TangoMicroscope:  # fmt: skip
    setup = Setup(
        device, scan, chosen.detector, voltage_kV, chosen.current_pA, chosen.region_by_corners,
        limits,
    )  # fmt: skip

    def end() -> None:
        if server is not None:  # one that somebody else started is left as it is
            server.end()

    microscope = TangoMicroscope(setup, end)
    weakref.finalize(microscope, end)
    if chosen.defocus_A is not None:
        microscope.set_defocus(chosen.defocus_A)
    return microscope


TANGO = TangoInstrument()
