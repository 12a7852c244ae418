"""The ensemble of a running experiment, adapted in the background while frames arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

from adatom.core import Frame, Material
from adatom.learning.ensemble import Ensemble
from adatom.training.adapt.rounds import Adapted, adapt


class LiveEnsemble:
    """The newest ensemble of a running experiment.

    The adaptation runs in a background thread. Frames are analysed with the present ensemble
    meanwhile; the new one takes over at the next call of `current`. All methods may be called from
    several threads.

    Parameters
    ----------
    ensemble
        Ensemble to start with.
    material
        Material that the frames show.
    retrain
        Function that gives an adapted ensemble from frames and the present ensemble; by default
        `adapt` with its default options.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        material: Material,
        retrain: Callable[[Sequence[Frame], Ensemble], Adapted] | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._ensemble = ensemble
        self._retrain = retrain or partial(_retrain, material)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="adapt")
        self._job: Future[Adapted] | None = None

    def current(self) -> Ensemble:
        """Give the newest ensemble. Call this once per frame and use the result for all of it.

        Raises
        ------
        BadInput
            If the frames given to `adapt_to` were refused. The ensemble stays as it was, and the
            next call gives it.
        """
        with self._lock:
            job = self._job
            if job is not None and job.done():
                self._job = None
                self._ensemble = job.result().ensemble
            return self._ensemble

    def adapt_to(self, frames: Sequence[Frame]) -> bool:
        """Start an adaptation in the background.

        Returns
        -------
        False if an earlier adaptation still runs, or if its result was not yet taken by `current`.
        """
        with self._lock:
            if self._job is not None:
                return False
            self._job = self._pool.submit(self._retrain, list(frames), self._ensemble)
            return True

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no adaptation runs, at most `timeout_s` seconds; False if one still runs."""
        with self._lock:
            job = self._job
        return job is None or not wait([job], timeout_s).not_done

    def close(self) -> None:
        """Wait for a running adaptation and end the background thread."""
        self._pool.shutdown(wait=True)


def _retrain(material: Material, frames: Sequence[Frame], ensemble: Ensemble) -> Adapted:
    return adapt(frames, material, ensemble)
