"""The bridge: lets adatom scan and park the beam from within the process of Nion Swift.

Run it in Nion Swift's own Python, where adatom need not be installed: this file and `wire.py` need
Nion Swift and NumPy alone. ``python -m adatom.instrument.nion.bridge`` does nothing; a script in
Nion Swift calls `start`.

The bridge does not rely on adatom for the beam's safety: it blanks the beam, or parks it in the
corner of the largest field, after each frame and dwell, and when the connection ends.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

if __package__:
    from adatom.instrument.nion.wire import Gone, Message, Wire, challenge
else:  # beside wire.py, in the Python of Nion Swift
    from wire import Gone, Message, Wire, challenge  # type: ignore[no-redef, import-not-found]

_HELLO_S = 10.0  # s: who connects proves its key in this time
_SYNC_S = 5.0  # s: Nion Swift ends a scan in this time after it is told to
_POINT_NM = 1e-4  # nm: a scan of this field of view is a parked beam whose detector is read


class Refused(Exception):
    """What was asked for is not done; the text says why."""


class Bridge:
    """Serve one scan unit.

    Parameters
    ----------
    stem, scan
        Nion Swift's STEM controller, and its scan hardware source.
    key
        Text that whoever connects must know.
    blanker
        Control that blanks the beam while it is 1; an empty string where there is none.
    rest_nm
        Edge of the field in whose corner the beam is parked between requests, nm.
    """

    def __init__(
        self, stem: Any, scan: Any, key: str, *, blanker: str = "C_Blank", rest_nm: float = 100.0
    ) -> None:
        self._stem, self._scan, self._key, self._rest_nm = stem, scan, key, rest_nm
        self._blanker = blanker if blanker and stem.TryGetVal(blanker)[0] else ""
        self._busy = threading.Lock()  # one program acts at a time
        self._acting = threading.Lock()  # held while the beam is on
        self._resting = threading.Lock()  # two connections end at once; Nion Swift is told in turn
        self._ended = threading.Event()
        self._until = 0  # number of the last request that was told to end

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Serve connections in threads of their own.

        Parameters
        ----------
        host, port
            Where to listen; 0 for any free port.

        Returns
        -------
        The port.
        """
        server = socket.create_server((host, port))
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()
        return int(server.getsockname()[1])

    def rest(self) -> None:
        """Stop what runs, blank the beam, and park it in the corner of the largest field."""
        self._ended.set()
        with self._resting:
            self._blank(on=True)
            if self._scan.is_playing:
                self._scan.abort_playing()
            if self._scan.is_recording:
                self._scan.abort_recording()
            self._scan.scan_device.cancel()
            with self._acting:  # what ran has ended
                self._blank(on=True)
                self._park(0.0, 0.0, (0.0, 0.0), self._rest_nm, 0.0)

    def _accept(self, server: socket.socket) -> None:
        while True:
            connected, _ = server.accept()
            threading.Thread(target=self._serve, args=(Wire(connected),), daemon=True).start()

    def _serve(self, wire: Wire) -> None:
        """Serve one connection: requests in turn, or the one that may interrupt them."""
        try:
            if not challenge(wire, self._key, _HELLO_S):
                return
            first, _ = wire.receive(_HELLO_S)
            if first.get("do") == "interrupt":
                self._interrupt(wire)
                return
            if not self._busy.acquire(blocking=False):
                wire.send({"refused": "another program drives this microscope"})
                return
            try:
                self._work(wire, first)
            finally:
                self.rest()
                self._busy.release()
        except Gone:
            pass
        finally:
            wire.close()

    def _interrupt(self, wire: Wire) -> None:
        """End requests by their number; when the connection ends, whatever runs."""
        try:
            while True:
                asked, _ = wire.receive()
                self._until = max(self._until, int(asked["n"]))
                self.rest()
                wire.send({})
        finally:
            self.rest()

    def _work(self, wire: Wire, asked: Message) -> None:
        while True:
            try:
                data = b""
                if asked["do"] == "hello":
                    told = self._hello()
                elif asked["do"] == "set":
                    told = self._set(asked)
                elif asked["do"] == "scan":
                    told, data = self._take(asked)
                elif asked["do"] == "park":
                    told = self._dwell(wire, asked)
                else:
                    raise Refused(f"unknown request {asked['do']!r}")  # noqa: TRY301
                wire.send(told, data)
            except Gone:
                raise
            except Exception as error:  # noqa: BLE001  # Nion Swift may fail in any way
                kind = "" if isinstance(error, Refused) else f"{type(error).__name__}: "
                wire.send({"refused": f"{kind}{error}"})
            asked, _ = wire.receive()

    def _hello(self) -> Message:
        import importlib.metadata as packages

        names = ("nionswift", "nionswift-instrumentation")
        scan = self._scan
        channels = [scan.get_channel_state(i).name for i in range(scan.channel_count)]
        return {
            "versions": {name: packages.version(name) for name in names},
            "scan": str(scan.hardware_source_id), "channels": channels,
            "blanks": bool(self._blanker),
            "max_field_nm": float(scan.scan_device.calculate_max_field_of_view(self._frame())),
            **self._state(),
        }  # fmt: skip

    def _state(self) -> Message:
        """Voltage in V, current in A and defocus in m, as Nion Swift's controls say; or None."""
        told = {"voltage_V": "EHT", "current_A": "BeamCurrent", "defocus_m": "C10"}
        return {name: self._control(control) for name, control in told.items()}

    def _control(self, name: str) -> float | None:
        known, value = self._stem.TryGetVal(name)
        return float(value) if known and value is not None else None

    def _set(self, asked: Message) -> Message:
        self._check_still(asked)
        if not self._stem.SetVal("C10", asked["defocus_m"]):
            raise Refused("the defocus, control C10, cannot be set")
        return self._state()

    def _take(self, asked: Message) -> tuple[Message, bytes]:
        """Scan one frame."""
        self._check_still(asked)
        scan, frame = self._scan, self._frame()
        frame.pixel_size = _size(asked["pixels"], asked["pixels"])
        frame.fov_nm, frame.rotation_rad = asked["fov_nm"], asked["rotation_rad"]
        frame.center_nm = _point(*asked["center_nm"])
        frame.pixel_time_us = asked["pixel_time_us"]
        channels = [scan.get_channel_state(i).name for i in range(scan.channel_count)]
        frame.enabled_channel_indexes = [channels.index(asked["channel"])]
        for index in range(scan.channel_count):
            scan.set_channel_enabled(index, index == channels.index(asked["channel"]))
        with self._beam(asked):
            taken = scan.record_immediate(frame)
        if self._ended.is_set():
            raise Refused("aborted")
        if not taken or taken[0] is None:
            raise Refused("the scan gave no data")
        image = taken[0]
        told = {
            "shape": list(image.data.shape),
            "scale": [axis.scale for axis in image.dimensional_calibrations],
            "units": [axis.units for axis in image.dimensional_calibrations],
            **self._state(),
        }
        return told, np.ascontiguousarray(image.data, dtype="<f4").tobytes()

    def _dwell(self, wire: Wire, asked: Message) -> Message:
        """Park the beam; tell the detector's values slice by slice where they are asked for."""
        self._check_still(asked)
        field = asked["center_nm"], asked["fov_nm"], asked["rotation_rad"]
        if not asked["slices"]:
            with self._beam(asked, (*asked["place"], *field)):
                began = time.perf_counter()
                self._ended.wait(asked["dwell_s"])
                seconds = time.perf_counter() - began
            return {"seconds": seconds, "stopped": self._ended.is_set()}
        scan, frame = self._scan, self._frame()
        frame.pixel_size = _size(asked["slices"], 1)
        frame.fov_nm, frame.rotation_rad, frame.center_nm = _POINT_NM, 0.0, _point(*asked["at_nm"])
        frame.pixel_time_us = 1e6 * asked["slice_s"]
        channels = [scan.get_channel_state(i).name for i in range(scan.channel_count)]
        for index in range(scan.channel_count):
            scan.set_channel_enabled(index, index == channels.index(asked["channel"]))
        with self._beam(asked):
            done = self._read_point(wire, frame)
        return {"slices": done, "stopped": self._ended.is_set()}

    def _read_point(self, wire: Wire, frame: Any) -> int:
        """Read a scan of one point row by row, past the 50 ms that Nion Swift's own loop waits."""
        device, done, complete = self._scan.scan_device, 0, False
        device.set_frame_parameters(frame)
        number, skip = device.start_frame(is_continuous=False), 0
        while not complete and not self._ended.is_set():
            elements, complete, _, area, number, skip = device.read_partial(number, skip)
            if self._ended.is_set():
                break  # what is left of the scan was not made
            (first, _), (rows, _) = area
            values = elements[0]["data"][first : first + rows, 0]
            if rows and (first + rows) > done:
                wire.send({"first": done, "values": [float(v) for v in values[done - first :]]})
                done = first + rows
        return done

    @contextmanager
    def _beam(
        self,
        asked: Message,
        place: tuple[float, float, tuple[float, float], float, float] | None = None,
    ) -> Iterator[None]:
        """Have the beam on for one scan or dwell; off after it, whatever happens."""
        if self._scan.is_playing or self._scan.is_recording:
            raise Refused("Nion Swift scans already: stop its live view")
        with self._acting:
            self._ended.clear()
            if asked["n"] <= self._until:
                raise Refused("aborted")
            try:
                if place is not None:
                    self._park(*place)
                self._blank(on=False)
                yield
            finally:
                self._blank(on=True)
                self._park(0.0, 0.0, (0.0, 0.0), self._rest_nm, 0.0)

    def _blank(self, *, on: bool) -> None:
        if self._blanker and not self._stem.SetVal(self._blanker, 1.0 if on else 0.0):
            raise Refused(f"the blanker, control {self._blanker}, cannot be set")

    def _park(
        self, y: float, x: float, center_nm: tuple[float, float], fov_nm: float, rotation_rad: float
    ) -> None:
        """Park the beam at fractions of a field.

        Nion Swift takes fractions of its scan context: the frame of its live view, and not the one
        that was recorded last. So the context is made the field that the fractions are of.
        """
        frame = self._frame()
        frame.pixel_size, frame.fov_nm = _size(256, 256), fov_nm
        frame.center_nm, frame.rotation_rad = _point(*center_nm), rotation_rad
        self._scan.set_current_frame_parameters(frame)
        context = self._scan.scan_context
        same = abs(context.fov_nm - fov_nm) < 1e-6 * fov_nm and context.rotation_rad == rotation_rad
        if not same or tuple(context.center_nm) != tuple(center_nm):
            raise Refused("Nion Swift does not take the field of view that the beam is parked in")
        self._scan.probe_position = _point(y, x)

    def _frame(self) -> Any:
        """Give the scan unit's own parameters, to be changed."""
        return self._scan.get_frame_parameters(0)

    def _check_still(self, asked: Message) -> None:
        """Refuse to act where the voltage is not what the limits were checked for."""
        now = self._control("EHT")
        if now is not None and abs(now - asked["voltage_V"]) > 1e-3 * asked["voltage_V"]:
            raise Refused(
                f"the voltage is {now / 1e3:g} kV, and was {asked['voltage_V'] / 1e3:g} kV"
            )


def _point(y: float, x: float) -> Any:
    from nion.utils import Geometry

    return Geometry.FloatPoint(y=y, x=x)


def _size(rows: int, columns: int) -> Any:
    from nion.utils import Geometry

    return Geometry.IntSize(height=rows, width=columns)


def start(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    key: str | None = None,
    blanker: str = "C_Blank",
    rest_nm: float = 100.0,
) -> tuple[Bridge, str, str]:
    """Serve the microscope of the running Nion Swift, from a script in it.

    Parameters
    ----------
    host, port
        Where to listen; 0 for any free port. Leave the host as it is, and reach it from another
        computer through an SSH tunnel: the connection is not encrypted.
    key
        Text that adatom must know; by default a new one.
    blanker, rest_nm
        As of `Bridge`.

    Returns
    -------
    The bridge, the address and the key, for the options ``address`` and ``key`` of the instrument.

    Raises
    ------
    RuntimeError
        If Nion Swift has no scan unit.
    """
    from nion.utils import Registry

    stem = Registry.get_component("stem_controller")
    scan = None if stem is None else stem.scan_controller
    if scan is None:
        raise RuntimeError("this Nion Swift has no scan unit")
    key = key or secrets.token_hex(16)
    bridge = Bridge(stem, scan, key, blanker=blanker, rest_nm=rest_nm)
    return bridge, f"{host}:{bridge.listen(host, port)}", key
