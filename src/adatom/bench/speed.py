"""`adatom bench speed`: time from a raw frame to atoms with covariances, against AtomAI."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from adatom.bench.find import Finder
from adatom.bench.peers import run_tool, write_frames
from adatom.bench.rows import Row, row
from adatom.bench.sets import convolution_set
from adatom.core import GRAPHENE, Frame
from adatom.frames.simulate.synthesize import random_labelled
from adatom.learning.predict import predict_tiles

_DOSE = 5.0  # counts at the peak of a carbon atom, per pixel: a usual dose
_PEER_STEPS = 20  # training steps of AtomAI's networks; the number does not change their time
_REPEATS = 3  # measurements of one frame; the median is reported
_SCENE_PX = 1024  # edge of the largest simulated frame, pixels; larger ones repeat it
_PIXEL_A = (0.15, 0.15)  # smallest and largest pixel size, Å
_MAX_MB = 1000  # limit on the peak memory at 1024², MB
_MAX_RATIO = 1.5  # limit on the time per pixel of the largest frame over that of the smallest


def bench_speed(options: Any, output: Path) -> list[Row]:
    """Time frames of growing size on one thread.

    Parameters
    ----------
    options
        See `BenchOptions`.
    output
        Directory for the frames that AtomAI reads.
    """
    finder = Finder(options.weights)
    sizes = (256, 512, 1024) if options.quick else (256, 512, 1024, 2048, 4096, 8192)
    seconds: dict[int, float] = {}
    memory: dict[int, float] = {}
    rows: list[Row] = []
    for size in sizes:
        frame = _frame(size)
        if size <= _SCENE_PX:
            finder(frame)  # warm up
        times = []
        for _ in range(_REPEATS if size <= _SCENE_PX else 1):
            start = time.perf_counter()
            found = finder(frame)
            times.append(time.perf_counter() - start)
        seconds[size] = float(np.median(times))
        memory[size] = _peak_MB()
        start = time.perf_counter()
        for _ in predict_tiles(frame, finder.ensemble):
            pass
        networks = time.perf_counter() - start
        rows.append(
            row(
                f"{size}²: seconds in all, of these networks; atoms; peak memory so far",
                f"{seconds[size]:.2f}, {networks:.2f}; {len(found.atoms)}; {memory[size]:.0f} MB",
                f"at most {_MAX_MB} MB" if size == _SCENE_PX else "reported",
                met=size != _SCENE_PX or memory[size] <= _MAX_MB,
            )
        )
    per_pixel = {n: 1e6 * s / n**2 for n, s in seconds.items()}
    small, large = min(per_pixel), max(per_pixel)
    ratio = per_pixel[large] / per_pixel[small]
    rows.append(
        row(
            f"microseconds a pixel, {small}² and {large}²",
            f"{per_pixel[small]:.2f} and {per_pixel[large]:.2f} (ratio {ratio:.2f})",
            f"linear: ratio at most {_MAX_RATIO}",
            met=ratio <= _MAX_RATIO,
        )
    )
    if options.peers is not None:
        rows.append(_against_atomai(options.peers, finder, output))
    return rows


def _frame(size: int) -> Frame:
    """Simulate a frame of `size`² pixels; one larger than the scene repeats it."""
    (scene,) = convolution_set(1, pixels=min(size, _SCENE_PX), pixel_range_A=_PIXEL_A)
    frame = scene.frame(_DOSE, size).frame
    copies = max(size // _SCENE_PX, 1)
    return Frame(np.tile(frame.data, (copies, copies)), frame.calibration, source="benchmark")


def _against_atomai(python: Path, finder: Finder, output: Path) -> Row:
    """Time AtomAI's ten networks on the same 1024² frame, one thread, in turns with ours."""
    (scene,) = convolution_set(1, pixels=_SCENE_PX, pixel_range_A=_PIXEL_A)
    shown = scene.frame(_DOSE, _SCENE_PX)
    write_frames(output / "large", [shown])
    own = []

    def ours() -> None:
        for _ in range(_REPEATS):
            start = time.perf_counter()
            finder(shown.frame)
            own.append(time.perf_counter() - start)

    finder(shown.frame)  # warm up
    training = [
        random_labelled(GRAPHENE, np.random.default_rng([41_000_000, i]), field_A=40.0)
        for i in range(30)
    ]
    write_frames(output / "training", training, labels=True)
    theirs, memory = [], 0.0
    for _ in range(2):
        ours()
        answer = run_tool(
            python, "AtomAI", output / "large", output, output, members=10, steps=_PEER_STEPS
        )
        theirs.append(float(answer["frames"][0]["seconds"]))
        memory = answer["peak_memory_MB"]
    ours()
    mine, other = float(np.median(own)), float(np.median(theirs))
    return row(
        "1024², ten members: adatom over AtomAI",
        f"{mine:.2f} s over {other:.1f} s ({memory:.0f} MB): 1/{other / mine:.1f}",
        "at most 1/10",
        met=mine <= other / 10,
    )


def _peak_MB() -> float:
    """Largest resident memory of this process so far, MB; NaN on Windows, which does not tell."""
    try:
        import resource
    except ImportError:
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit / 1024**2
