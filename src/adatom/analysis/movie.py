"""Analyse the frames of a movie; the networks of one frame run while others are refined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from adatom.analysis.frame import FrameResult, analyse_frame, finish_frame
from adatom.analysis.options import AnalysisOptions
from adatom.core import Frame, Material, Movie
from adatom.features.candidates.locate import Candidates
from adatom.learning.device import threads_in_use
from adatom.learning.ensemble import Ensemble
from adatom.parallel.overlap import overlapped
from adatom.parallel.processes import cores, local_processes

# Movies of fewer frames are finished before further processes have started.
_LEAST_FRAMES = 8
_MOST_PROCESSES = 4  # one process makes the maps of the networks, at about a third of their pace


def analyse_movie(
    movie: Movie,
    ensemble: Ensemble,
    material: Material,
    options: AnalysisOptions | None = None,
) -> Iterator[FrameResult]:
    """Analyse every frame of a movie.

    Parameters
    ----------
    movie
        Calibrated frames; each is read once.
    ensemble
        Calibrated networks.
    material
        Material in the frames.
    options
        See `AnalysisOptions`.

    Yields
    ------
    The result of each frame, in order.
    """
    with frame_analysis(len(movie), ensemble, material, options) as (analyse, at_once):
        yield from overlapped(lambda i: analyse(movie[i]), range(len(movie)), at_once)


@contextmanager
def frame_analysis(
    count: int, ensemble: Ensemble, material: Material, options: AnalysisOptions | None = None
) -> Iterator[tuple[Callable[[Frame], FrameResult], int]]:
    """Prepare to analyse many frames on all cores.

    The networks run in threads of this process, which has one set of weights in memory. What
    follows them is a chain of short steps that holds Python's global lock, so for longer movies it
    runs in further processes, which load no networks.

    Parameters
    ----------
    count
        Number of frames.
    ensemble
        Calibrated networks.
    material
        Material in the frames.
    options
        See `AnalysisOptions`.

    Yields
    ------
    A function that analyses one frame, and the number of threads that should call it.
    """
    options = options or AnalysisOptions()
    here = partial(analyse_frame, ensemble=ensemble, material=material, options=options)
    processes = min(cores(), _MOST_PROCESSES)
    if count < _LEAST_FRAMES or processes == 1:
        yield here, 1
        return
    finish = partial(finish_frame, card=ensemble.card, material=material, options=options)
    with threads_in_use(1), local_processes(processes) as pool:

        def elsewhere(frame: Frame, sites: Candidates) -> FrameResult:
            return pool.submit(finish, frame, sites).result()

        yield partial(here, finish=elsewhere), processes + 1
