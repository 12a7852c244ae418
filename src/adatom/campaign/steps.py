"""Run the steps of a campaign; a step that the ledger has is not repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, as_completed
from dataclasses import dataclass
from typing import Any, NoReturn

from adatom.core import Record, content_hash
from adatom.errors import BadInput, StepFailed
from adatom.parallel.overlap import overlapped
from adatom.parallel.progress import Progress
from adatom.store import CampaignDirectory
from adatom.store.code import code_hash
from adatom.version import __version__

# What every step's result rests on, and the code of each step beside that: packages and modules of
# adatom. A test compares them with the imports.
_COMMON = ("core", "materials")
_FINDING = (*_COMMON, "frames", "features", "learning", "analysis", "campaign.find",
            "campaign.lattices")  # fmt: skip
_SIMULATING = (*_COMMON, "structures", "simulation", "campaign.simulate", "campaign.energies",
               "campaign.spread", "campaign.shared", "campaign.pool",
               "campaign.recall")  # fmt: skip
STEP_CODE = {
    "adapt": (*_FINDING, "training", "campaign.adapt", "campaign.choose", "campaign.recording"),
    "find": _FINDING,
    "link": (*_COMMON, "features", "simulation", "campaign.link", "campaign.lattices"),
    "supercells": (*_COMMON, "features", "structures", "campaign.build"),
    "relax": _SIMULATING,
    "dynamics": _SIMULATING,
    "advice": (*_COMMON, "feedback", "instrument", "simulation", "campaign.advise"),
    "report": (*_COMMON, "report", "simulation", "campaign.report"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One item of one step.

    Parameters
    ----------
    step, item
        Names, such as ``find`` and ``frame 12``.
    inputs
        All values that determine the result; the key is a hash of them, the step and its code.
    current
        Gives the hash of the output on the disk, or an empty string if there is none.
    make
        Does the work, writes the output, returns its hash. Not needed where jobs run in a pool.
    parents
        Keys of the jobs whose results this one reads.
    seed
        Seed of its generator, -1 for none.
    """

    step: str
    item: str
    inputs: Sequence[Any]
    current: Callable[[], str]
    make: Callable[[], str] | None = None
    parents: tuple[str, ...] = ()
    seed: int = -1

    @property
    def key(self) -> str:
        """Hash that identifies this job: the same key means the same result."""
        return content_hash(
            self.step,
            self.item,
            code_hash(*STEP_CODE.get(self.step, _COMMON)),
            list(self.parents),
            self.seed,
            *self.inputs,
        )


class Steps:
    """Runs jobs against the ledger of a campaign.

    Parameters
    ----------
    directory
        Open for writing.
    progress
        Receives the progress of every job.

    Attributes
    ----------
    worked
        Number of jobs that were done, and not known from before.
    """

    def __init__(self, directory: CampaignDirectory, progress: Progress) -> None:
        self.directory, self.progress = directory, progress
        self.worked = 0

    def is_done(self, job: Job) -> bool:
        """Whether the job was finished before and its output is unchanged."""
        record = self.directory.ledger.find(job.key)
        return record is not None and record.output != "" and record.output == job.current()

    def run(self, jobs: Sequence[Job], *, at_once: int = 1) -> list[str]:
        """Run the jobs that are missing, in order; return all keys.

        Parameters
        ----------
        jobs
            All of one step.
        at_once
            Number of jobs that run at the same time, in threads of this process.

        Raises
        ------
        StepFailed
            If a job refused its input; jobs before it are finished.
        """
        done = [self.is_done(job) for job in jobs]
        if not jobs:
            return []
        step = jobs[0].step
        self.progress.start(step, len(jobs), sum(done))
        missing = [job for job, finished in zip(jobs, done, strict=True) if not finished]
        for job, output in overlapped(self._make, missing, at_once):
            if isinstance(output, Exception):
                self._fail(job, output)
            self._commit(job, *output)
            self.progress.advance(step)
        self.progress.finish(step)
        return [job.key for job in jobs]

    def _make(self, job: Job) -> tuple[Job, tuple[str, float] | Exception]:
        """Run one job; return the hash of its output and its wall time in s, or its error."""
        assert job.make is not None  # only jobs of `run_pool` have none  # noqa: S101
        self._begin(job)
        began = time.perf_counter()
        try:
            return job, (job.make(), time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001 (raised again by `run`)
            return job, error

    def run_pool(
        self,
        jobs: Sequence[Job],
        submit: Callable[[int], Any],
        keep: Callable[[int, Any], str],
    ) -> list[str]:
        """Run the jobs that are missing in a pool of processes; return all keys.

        Parameters
        ----------
        jobs
            All of one step.
        submit
            Starts job i and gives its future.
        keep
            Writes the result of job i and gives the hash of what it wrote.

        Raises
        ------
        StepFailed
            If a worker process died, or a job refused its input.
        """
        if not jobs:
            return []
        step = jobs[0].step
        missing = [i for i, job in enumerate(jobs) if not self.is_done(job)]
        self.progress.start(step, len(jobs), len(jobs) - len(missing))
        futures = {}
        for i in missing:
            self._begin(jobs[i])
            futures[submit(i)] = i
        for future in as_completed(futures):
            i = futures[future]
            try:
                result = future.result()
                output = keep(i, result)
            except Exception as error:  # noqa: BLE001 (raised again)
                self._fail(jobs[i], error)
            self._commit(jobs[i], output, float(getattr(result, "seconds", 0.0)))
            self.progress.advance(step)
        self.progress.finish(step)
        return [job.key for job in jobs]

    def _begin(self, job: Job) -> None:
        self.directory.ledger.start(
            job.key,
            job.step,
            job.item,
            parents=job.parents,
            seed=job.seed,
            version=__version__,
        )

    def _fail(self, job: Job, error: Exception) -> NoReturn:
        """Record a failure and raise it; `BadInput` becomes `StepFailed`: files were written."""
        self.directory.ledger.fail(job.key, str(error))
        subject = f"{job.step}, {job.item}"
        if isinstance(error, BrokenExecutor):
            raise StepFailed(
                subject,
                expected="a worker process that finishes its job",
                got="one that ended before (killed, or out of memory)",
                todo="Free some memory, then run adatom resume: nothing finished is lost.",
            ) from error
        if isinstance(error, BadInput):
            raise StepFailed(
                f"{subject}: {error.subject}",
                expected=error.expected,
                got=error.got,
                todo=error.todo,
            ) from error
        raise error

    def _commit(self, job: Job, output: str, seconds: float) -> None:
        self.worked += 1
        self.directory.ledger.finish(
            Record(
                key=job.key,
                step=job.step,
                item=job.item,
                parents=job.parents,
                seed=job.seed,
                version=__version__,
                seconds=seconds,
                output=output,
            )
        )
