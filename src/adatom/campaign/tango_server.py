"""A Tango device server without a database, with the simulated specimen behind the field's verbs.

`adatom.campaign.tango` starts it. It reads one line of settings, says the address of its
microscope, and ends when its input does. Its verbs are those of asyncroscopy: images come as bytes,
nothing goes over a store.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time

import numpy as np
import tango
from tango import AttrWriteType, DevEncoded, DevFloat, DevVarFloatArray, DevVarStringArray
from tango.server import Device, attribute, command, run

from adatom.campaign.hosted_process import READY, specimen
from adatom.campaign.hosted_twin import HostedTwin
from adatom.campaign.twin import make_twin
from adatom.core.arrays import FloatArray, Image

_A_PER_M = 1e10
_MICROSCOPE, _SCAN = "adatom/microscope/1", "adatom/scan/1"


class _State:
    """What both devices share."""

    hosted: HostedTwin
    half_angle_rad = 0.03  # convergence half-angle of a usual probe at 60 kV
    defocus_m = 0.0
    field_m = 2e-9
    dwell_s = 1e-6
    pixels = 256
    region = (0.0, 0.0, 1.0, 1.0)
    place = (0.0, 0.0)
    images: tuple[Image, ...] = ()
    field_unit_m = 1.0  # unit in which lengths are told
    binning = 1


class Scan(Device):  # type: ignore[misc]  # pytango is not typed
    """Settings of the next scan."""

    dwell_time = attribute(dtype=float, access=AttrWriteType.READ_WRITE, unit="s")
    imsize = attribute(dtype=int, access=AttrWriteType.READ_WRITE, unit="px")
    scan_region = attribute(
        dtype=(float,), max_dim_x=4, access=AttrWriteType.READ_WRITE, unit="fractional"
    )

    def read_dwell_time(self) -> float:
        """Time on a pixel, s."""
        return _State.dwell_s

    def write_dwell_time(self, value: float) -> None:
        """Set the time on a pixel, s."""
        _State.dwell_s = value

    def read_imsize(self) -> int:
        """Pixels along an edge."""
        return _State.pixels

    def write_imsize(self, value: int) -> None:
        """Set the pixels along an edge."""
        _State.pixels = value

    def read_scan_region(self) -> list[float]:
        """Left, top, width and height in fractions of the field of view."""
        return list(_State.region)

    def write_scan_region(self, value: FloatArray) -> None:
        """Set the part of the field of view that is scanned."""
        left, top, width, height = (float(v) for v in value)
        if min(left, top) < 0 or max(left + width, top + height) > 1 + 1e-9 or width != height:
            raise ValueError("a square [left, top, width, height] within [0, 1]")
        _State.region = left, top, width, height


class Microscope(Device):  # type: ignore[misc]
    """The verbs."""

    @command(dtype_in=DevVarStringArray, dtype_out=str)  # type: ignore[untyped-decorator]
    def acquire_scanned_image(self, detectors: list[str]) -> str:
        """Scan; `get_image_data_cached` gives the image."""
        if list(detectors) != ["haadf"]:
            raise ValueError(f"no detector {detectors}")
        left, top, edge, _ = _State.region
        field_A = _State.field_m * _A_PER_M
        middle = field_A * (np.array([left, top]) + edge / 2 - 0.5)
        pixels = _State.pixels // _State.binning
        image = _State.hosted.scan(middle, field_A * edge, pixels, 1e6 * _State.dwell_s)
        _State.images = (image,)
        time.sleep(_State.pixels**2 * _State.dwell_s)
        return "0"

    @command(dtype_in=int, dtype_out=DevEncoded)  # type: ignore[untyped-decorator]
    def get_image_data_cached(self, index: int) -> tuple[str, bytes]:
        """Give the image as its shape and type in JSON, and its bytes."""
        image = _State.images[index]
        return json.dumps({"shape": image.shape, "dtype": str(image.dtype)}), image.tobytes()

    @command(dtype_in=DevVarFloatArray)  # type: ignore[untyped-decorator]
    def place_beam(self, place: FloatArray) -> None:
        """Park the beam at fractions x, y of the field of view."""
        x, y = (float(v) for v in place)
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise ValueError("x and y in 0..1")
        _State.place = x, y
        self._settle()

    @command  # type: ignore[untyped-decorator]
    def blank_beam(self) -> None:
        """Blank the beam."""
        _State.hosted.blanked(on=True)

    @command  # type: ignore[untyped-decorator]
    def unblank_beam(self) -> None:
        """Unblank the beam."""
        _State.hosted.blanked(on=False)

    @command(dtype_in=DevFloat)  # type: ignore[untyped-decorator]
    def set_fov(self, field_m: float) -> None:
        """Set the field of view, m."""
        _State.field_m = field_m
        self._settle()

    @command(dtype_out=DevFloat)  # type: ignore[untyped-decorator]
    def get_fov(self) -> float:
        """Field of view, m."""
        return _State.field_m / _State.field_unit_m

    @command(dtype_in=DevFloat)  # type: ignore[untyped-decorator]
    def set_defocus(self, defocus_m: float) -> None:
        """Set the defocus, m."""
        _State.defocus_m = defocus_m

    @command(dtype_out=DevFloat)  # type: ignore[untyped-decorator]
    def get_defocus(self) -> float:
        """Defocus, m."""
        return _State.defocus_m

    @command(dtype_out=DevFloat)  # type: ignore[untyped-decorator]
    def get_screen_current(self) -> float:
        """Probe current, pA."""
        return _State.hosted.twin.conditions.current_pA

    def _settle(self) -> None:
        """The beam rests at its fractions of whatever the field of view is."""
        _State.hosted.rest((np.array(_State.place) - 0.5) * _State.field_m * _A_PER_M)


def main() -> None:
    """Serve until the input ends."""
    told = json.loads(sys.stdin.readline())
    options, material, seed = specimen(told)

    def blur_A() -> float:
        # A uniform disc has half its radius as the standard deviation along an axis.
        return _State.half_angle_rad * abs(_State.defocus_m) * _A_PER_M / 2

    _State.hosted = HostedTwin(make_twin(options, material, seed, blur_A=blur_A))
    _State.hosted.blanked(on="blank_beam" not in told.get("without", ()))
    # Servers of other times and makers, for tests of what an adapter makes of them.
    for verb in told.get("without", ()):
        del Microscope.TangoClassClass.cmd_list[verb]
    _State.field_unit_m = told.get("field_unit_m", 1.0)
    _State.binning = told.get("binning", 1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def ready() -> None:
        address = f"tango://127.0.0.1:{port}/{_MICROSCOPE}#dbase=no"
        print(f"{READY}{address}", flush=True)

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)  # the server's loop has no other end

    threading.Thread(target=watch, daemon=True).start()
    devices = f"Microscope::{_MICROSCOPE},Scan::{_SCAN}"
    end_point = f"giop:tcp:127.0.0.1:{port}"
    arguments = ["adatom", "twin", "-nodb", "-dlist", devices, "-ORBendPoint", end_point]
    try:
        run((Microscope, Scan), args=arguments, post_init_callback=ready)
    except tango.DevFailed as error:
        sys.exit(str(error.args[0].desc))


if __name__ == "__main__":
    main()
