"""Act on a microscope that may stall, lie or be gone; what is wrong is a `Fault`.

Nothing else acts on one: here electrons are counted, times are kept, and the beam is turned off.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from adatom.core import BeamRequest, DwellTrace, Frame, Material, ScanRequest, content_hash
from adatom.errors import (
    AdatomError,
    BlankFrame,
    DamagedFile,
    InstrumentGone,
    NoFrame,
    NoMoreFrames,
)
from adatom.feedback.dose_budget import DoseBudget
from adatom.frames.lattice.spectrum import TRUSTED_CONTRAST, estimate_scale
from adatom.instrument.protocol import Microscope, StopWhen

_T = TypeVar("_T")

_SAME_SIZE = 0.01  # relative difference of pixel sizes that are equal
_WRONG_SIZE = 0.10  # relative difference to the lattice from which a pixel size is wrong
_RECENT = 16  # frames among which one that comes twice is known
_ABORT_S = 5.0  # s: an instrument that does not end a frame in this time after an abort is gone


class Fault(Exception):  # leaves the guard from any depth; the loop goes on
    """A frame that cannot be used.

    Parameters
    ----------
    kind
        ``late``, ``stalled``, ``corrupt``, ``blank``, ``doubled``, ``out of order``, ``wrong pixel
        size``, ``refused`` or ``instrument``.
    what
        What was wrong, in words.
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind, self.what = kind, what


@contextmanager
def beam_off(microscope: Microscope) -> Iterator[None]:
    """Turn the beam off at the end, whatever happens inside."""
    try:
        yield
    finally:
        microscope.abort()


class Guard:
    """Take frames and park the beam, each within a time; check that each frame is what it says.

    Parameters
    ----------
    microscope
        Open microscope.
    material
        Its lattice checks pixel sizes that the instrument chooses itself.
    budget
        Counts the electrons, before they are spent. What may be spent is asked of it before.
    longest_s
        Longest time of a frame, s; that of a parked beam comes on top of its dwell time.
    last_index
        Number of the last frame that was used; frames before it are out of order.
    """

    def __init__(
        self,
        microscope: Microscope,
        material: Material,
        budget: DoseBudget,
        longest_s: float,
        last_index: int = -1,
    ) -> None:
        self._microscope, self._material, self._longest_s = microscope, material, longest_s
        self.budget = budget
        self.last_index = last_index
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._size_A: float | None = None

    def acquire(
        self,
        request: ScanRequest,
        drift_xy_A: tuple[float, float],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Frame:
        """Take a frame. Its dose is counted, unless somebody else takes it.

        Parameters
        ----------
        request
            The frame.
        drift_xy_A
            Drift of the specimen, x and y, Å.
        meanwhile
            Called while the microscope scans.

        Raises
        ------
        Fault
            If it cannot be used. The beam is off then.
        NoMoreFrames, InstrumentGone
            If there will be no other.
        """
        if self._microscope.capabilities.steers:
            self.budget.spend(request, drift_xy_A)
        with self._off_on_error():
            frame = self._within_time(
                lambda: self._microscope.acquire(request), self._longest_s, meanwhile
            )
            self._check(frame, request)
        self.last_index = frame.index
        return frame

    def park(self, request: BeamRequest, stop_when: StopWhen | None) -> DwellTrace:
        """Park the beam; its longest dwell is counted, and what it did not use is given back.

        Raises
        ------
        Fault
            If the instrument fails. The beam is off then.
        InstrumentGone
            If it does not answer any more.
        """
        rate = self._microscope.conditions.electrons_per_s
        self.budget.electrons += rate * request.dwell_s
        with self._off_on_error():
            trace = self._within_time(
                lambda: self._microscope.place_beam(request, stop_when),
                self._longest_s + request.dwell_s,
                lambda: None,
            )
        self.budget.electrons -= rate * (request.dwell_s - trace.dwell_s)
        return trace

    @contextmanager
    def _off_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._microscope.abort()
            raise

    def _within_time(
        self, act: Callable[[], _T], longest_s: float, meanwhile: Callable[[], None]
    ) -> _T:
        answer: queue.SimpleQueue[tuple[_T | None, BaseException | None]] = queue.SimpleQueue()

        def work() -> None:
            try:
                answer.put((act(), None))
            except BaseException as error:  # noqa: BLE001  # it is raised again by who waits
                answer.put((None, error))

        threading.Thread(target=work, daemon=True).start()
        began = time.monotonic()
        meanwhile()
        try:
            got, error = answer.get(timeout=max(longest_s - (time.monotonic() - began), 0.05))
        except queue.Empty:
            self._microscope.abort()
            try:
                answer.get(timeout=_ABORT_S)
            except queue.Empty:
                raise InstrumentGone(
                    "instrument",
                    expected=f"an end within {longest_s:g} s, or an answer to an abort",
                    got="neither",
                    todo="See to the microscope: the beam may be on.",
                ) from None
            raise Fault("stalled", f"no end within {longest_s:g} s: aborted") from None
        if error is not None:
            raise _understood(error)
        return cast("_T", got)

    def _check(self, frame: Frame, request: ScanRequest) -> None:
        steers = self._microscope.capabilities.steers
        found = content_hash(frame.data)
        if found in self._recent:
            raise Fault("doubled", f"frame {frame.index} has the pixels of an earlier one")
        self._recent.append(found)
        if frame.index <= self.last_index:
            raise Fault("out of order", f"frame {frame.index} came after {self.last_index}")
        size = frame.calibration.pixel_size_A
        if steers:
            asked = request.calibration.pixel_size_A
            if abs(size / asked - 1) > _SAME_SIZE or frame.shape != (request.pixels,) * 2:
                got = f"{frame.shape[0]} x {frame.shape[1]} of {size:.4g} Å"
                wanted = f"{request.pixels} x {request.pixels} of {asked:.4g} Å"
                raise Fault("wrong pixel size", f"asked for {wanted}, got {got}")
        elif self._size_A is None or abs(size / self._size_A - 1) > _SAME_SIZE:
            self._check_by_lattice(frame, size)
            self._size_A = size

    def _check_by_lattice(self, frame: Frame, size: float) -> None:
        if not self._material.has_lattice:
            return
        found = estimate_scale([frame.data], self._material, expected_A=size)
        off = abs(size / found.pixel_size_A - 1)
        if found.contrast >= TRUSTED_CONTRAST and off > _WRONG_SIZE:
            raise Fault(
                "wrong pixel size",
                f"the frame says {size:.4g} Å, its lattice {found.pixel_size_A:.4g} Å",
            )


def _understood(error: BaseException) -> BaseException:
    """Give an instrument's error as what the loop knows."""
    final = (Fault, NoMoreFrames, InstrumentGone)
    if isinstance(error, final) or not isinstance(error, Exception):
        return error
    kinds: tuple[tuple[type[Exception], str], ...] = (
        (NoFrame, "late"), (DamagedFile, "corrupt"), (BlankFrame, "blank"),
        (AdatomError, "refused"),
    )  # fmt: skip
    kind = next((name for one, name in kinds if isinstance(error, one)), "instrument")
    return Fault(kind, f"{type(error).__name__}: {error}")
