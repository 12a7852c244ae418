"""Analyse the frames of a movie; the networks of one frame run while another is refined."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adatom.analysis.frame import FrameResult, analyse_frame
from adatom.analysis.options import AnalysisOptions
from adatom.core import Material, Movie
from adatom.learning.device import threads_in_use
from adatom.learning.weights import Ensemble
from adatom.parallel.overlap import overlapped
from adatom.parallel.processes import cores

# Frames analysed at the same time: two fill the cores of a small machine, a third needs memory.
_AT_ONCE = 2


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

    def work(i: int) -> FrameResult:
        return analyse_frame(movie[i], ensemble, material, options)

    with frames_at_once(len(movie)) as at_once:
        yield from overlapped(work, range(len(movie)), at_once)


@contextmanager
def frames_at_once(count: int) -> Iterator[int]:
    """Share the cores between concurrent frames, and give the number of concurrent frames.

    Networks and linear algebra release Python's global lock. Threads therefore overlap two frames
    on two cores, with one set of weights in memory.

    Parameters
    ----------
    count
        Number of frames of the movie.
    """
    at_once = max(min(_AT_ONCE, count, cores()), 1)
    with threads_in_use(max(cores() // at_once, 1)):
        yield at_once
