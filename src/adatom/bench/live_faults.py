"""Live runs with injected faults: limits, records and the beam, counted."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from adatom.analysis.frame import FrameResult
from adatom.bench.faulty import KINDS, FaultyMicroscope
from adatom.bench.rows import Row, row
from adatom.campaign.keep import keeper
from adatom.campaign.live import State, run_loop
from adatom.campaign.live_run import RECORD, analysis_of, state_of, verify_live
from adatom.campaign.twin import make_twin
from adatom.core import GRAPHENE
from adatom.errors import AdatomError
from adatom.feedback.live import Knowledge, LiveOptions
from adatom.instrument import TwinOptions
from adatom.parallel.beside import Beside
from adatom.parallel.processes import cores, local_processes
from adatom.store.journal import Journal, read_journal

_SEED = 9000  # of the first run
_SHARE = 0.3  # of the frames that have a fault
_FRAMES = 6  # frames of a run
_KILLED, _FULL_DISK, _WORKERS = 0.2, 0.2, 0.1  # share of the runs
_JOB_S = 0.2  # s: a job of a simulation worker that is killed
_VERIFIED = 10  # of so many runs, one is run again from its record
_OPTIONS = LiveOptions(
    frames=_FRAMES, field_A=12.0, look_field_A=8.0, keep_watching=True, longest_frame_s=0.5,
    most_dose_per_A2=4e5, most_electrons=5e7, most_faults=4,
)  # fmt: skip


class _Killed(BaseException):
    """Stands for the end of the process in the middle of a frame."""


@dataclass(frozen=True, slots=True)
class FaultyRun:
    """What became of one run.

    Parameters
    ----------
    within_limits
        Every request was within the instrument's abilities, the electrons and the dose of every
        place of the specimen within the limits.
    recorded
        Every request that the instrument got is in the record, in order, before it was made.
    blanked
        The beam was off at the end, and before each frame that followed a fault.
    again
        Whether the record comes out again; None where that was not tried.
    faults
        Injected faults that the run met.
    """

    within_limits: bool
    recorded: bool
    blanked: bool
    again: bool | None
    faults: tuple[str, ...]


def bench_faults(runs: int) -> list[Row]:
    """Run the live loop many times with random faults.

    Parameters
    ----------
    runs
        Number of runs.
    """
    with local_processes(cores()) as pool:
        results = list(pool.map(faulty_run, range(_SEED, _SEED + runs)))
    met = [kind for r in results for kind in r.faults]
    named = ", ".join(f"{k} {met.count(k)}" for k in sorted(set(met)))
    rows = [row(f"faults in {runs} runs", named, "reported", met=True)]
    for name, good in (
        ("no action outside the limits", [r.within_limits for r in results]),
        ("no record lost", [r.recorded for r in results]),
        ("beam blanked after each fault and at the end", [r.blanked for r in results]),
        ("the record comes out again", [r.again for r in results if r.again is not None]),
    ):
        rows.append(row(name, f"{sum(good)} of {len(good)} runs", "all", met=all(good)))
    return rows


def faulty_run(seed: int) -> FaultyRun:
    """Make one run, with faults by its seed."""
    rng = np.random.default_rng(seed)
    faults = {int(n): str(rng.choice(KINDS)) for n in np.flatnonzero(rng.random(40) < _SHARE)}
    killed = int(rng.integers(1, _FRAMES)) if rng.random() < _KILLED else None
    room = int(rng.integers(4_000, 30_000)) if rng.random() < _FULL_DISK else None
    other = np.random.default_rng([seed, 1])
    workers = _KilledWorkers(other) if other.random() < _WORKERS else None
    twin = make_twin(TwinOptions(field_of_view_A=12.0, pixels=96, sheet_A=40.0), GRAPHENE, seed)
    microscope = _Killable(FaultyMicroscope(twin, faults), killed)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        with contextlib.suppress(AdatomError), _disk_of(room):
            _run(microscope, directory, None, workers)
        if microscope.was_killed:
            _tear(directory / RECORD, rng)
            lines = read_journal(directory / RECORD)
            with contextlib.suppress(AdatomError):
                _run(microscope, directory, state_of(lines, _OPTIONS))
        lines = read_journal(directory / RECORD)
        again = None
        if seed % _VERIFIED == 0 and room is None:
            again = _comes_out_again(directory)
    inner = microscope.inner
    met = [faults[n] for n in range(len(inner.asked)) if n in faults]
    met += ["process killed"] * microscope.was_killed + ["disk full"] * (room is not None)
    met += ["simulation worker killed"] * (0 if workers is None else workers.killed)
    return FaultyRun(
        within_limits=(
            inner.electrons <= _OPTIONS.most_electrons
            and inner.highest_dose_per_A2 <= _OPTIONS.most_dose_per_A2
        ),
        recorded=_recorded(lines, inner),
        blanked=not inner.beam_on and inner.exposed_twice == 0,
        again=again,
        faults=tuple(met),
    )


class _Killable:
    """A faulty microscope that ends the process at one frame, with its beam on."""

    def __init__(self, inner: FaultyMicroscope, at: int | None) -> None:
        self.inner, self._at, self.was_killed = inner, at, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def acquire(self, request: Any) -> Any:
        if self._at is not None and len(self.inner.asked) == self._at:
            self._at = None
            with contextlib.suppress(Exception):
                self.inner.acquire(request)
            self.inner.withhold()
            self.was_killed = True
            raise _Killed
        return self.inner.acquire(request)

    def abort(self) -> None:
        self.inner.abort()


class _KilledWorkers:
    """Jobs beside the loop, whose worker is killed at half of the frames."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._beside, self.killed = rng, Beside(time.sleep), 0

    def ask(self, result: FrameResult, known: Knowledge, frame: int) -> None:
        """Ask for a job at each frame, and kill the worker."""
        del result, known
        self._beside.offer(str(frame), _JOB_S)
        if self._rng.random() < 0.5 and self._beside.pid is not None:
            os.kill(self._beside.pid, signal.SIGKILL)
            self.killed += 1

    def told(self) -> list[dict[str, Any]]:
        """Give what became of the jobs."""
        return [
            {"what": e.what, "kind": e.key, "why": e.what, "result": {}}
            for e in self._beside.poll()
        ]

    def close(self) -> None:
        """End the worker."""
        self._beside.close()


def _run(
    microscope: _Killable,
    directory: Path,
    start: State | None,
    workers: _KilledWorkers | None = None,
) -> None:
    analysis = _analysis()
    with Journal(directory / RECORD, resume=start is not None) as journal:
        if start is None:
            journal.write({"action": "run", "material": "graphene", "seed": 0})
        with contextlib.suppress(_Killed):
            run_loop(
                microscope, analysis.see, GRAPHENE, mode="auto", options=_OPTIONS,
                tell=journal.write, keep=keeper(directory), meanwhile=analysis.check,
                simulations=workers, start=start,
            )  # fmt: skip
            return
    microscope.inner.beam_on = True  # a process that is killed turns nothing off


def _analysis() -> Any:
    _networks()  # loaded once in each process
    return analysis_of(GRAPHENE, _OPTIONS)


@cache
def _networks() -> None:
    analysis_of(GRAPHENE, _OPTIONS)


def _tear(record: Path, rng: np.random.Generator) -> None:
    """Cut what a killed process could not write: the end line, and a part of the last one."""
    lines = record.read_bytes().splitlines(keepends=True)
    acts = [i for i, x in enumerate(lines) if b'"action": "scan"' in x or b'"action": "look"' in x]
    kept = lines[: acts[-1] + 1]
    torn = b'{"time_s": 1.0, "action": "frame"'[: int(rng.integers(0, 30))]
    record.write_bytes(b"".join(kept) + torn)


def _recorded(lines: Sequence[dict[str, Any]], inner: FaultyMicroscope) -> bool:
    """Whether the requests of the record are those that the instrument got."""
    told = [x["request"] for x in lines if x["action"] in {"scan", "look"}]
    asked = [
        {"center_xy_A": list(r.center_xy_A), "field_of_view_A": r.field_of_view_A,
         "pixels": r.pixels, "dose_per_A2": r.dose_per_A2, "voltage_kV": r.voltage_kV}
        for r in inner.asked
    ]  # fmt: skip
    # A last act may be recorded and not made: the record comes first.
    return told[: len(asked)] == asked and len(told) - len(asked) <= 1


def _comes_out_again(directory: Path) -> bool:
    try:
        verify_live(directory)
    except AdatomError:
        return False
    return True


@contextlib.contextmanager
def _disk_of(room: int | None) -> Iterator[None]:
    """Let no file of this process grow beyond `room` bytes, as on a full disk."""
    if room is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error in place of a signal
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
