"""`adatom bench files`: how many files a campaign of many small frames makes, and how large."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from adatom.bench.rows import Row, row
from adatom.campaign.config import Config, InputOptions
from adatom.campaign.pipeline import run_campaign
from adatom.campaign.sources import twin_movie
from adatom.instrument import TwinOptions
from adatom.materials.library import load_material

_EDGE = 64  # pixels of a frame
_BINNED = 2  # pixels of the simulated microscope put together: 0.21 Å, the scale of the networks
_SCENES = 12  # frames that it takes, of which the others are pieces
_SEED = 7


def bench_files(options: Any, output: Path) -> list[Row]:
    """Find the atoms of 5,000 frames of 64² pixels (600 if quick), and measure what is written.

    Parameters
    ----------
    options
        `BenchOptions`; uses ``quick``.
    output
        Directory of the campaign.
    """
    count = 600 if options.quick else 5000
    frames, pixel_size_A = _frames(count)
    source = output.with_name(f"{output.name}.npy")
    source.parent.mkdir(parents=True, exist_ok=True)
    np.save(source, frames)
    began = time.perf_counter()
    given = InputOptions(paths=(str(source),), pixel_size_A=pixel_size_A)
    config = Config(material="graphene", input=given, adapt="never")
    run_campaign(config, output, only_find=True)
    seconds = time.perf_counter() - began
    sizes = {p.relative_to(output): p.stat().st_size for p in output.rglob("*") if p.is_file()}
    total, times = sum(sizes.values()), sum(sizes.values()) / frames.nbytes
    rows = [
        row(f"files of {count} frames of {_EDGE}²", str(len(sizes)), "≤ 200", len(sizes) <= 200),
        row("size", f"{total / 1e6:.0f} MB, {times:.2f} × the pixels", "≤ 3 ×", times <= 3.0),
    ]
    parts = {
        "frames": "frames.zarr", "maps": "maps.zarr", "parts of the tables": ".parts",
        "atoms": "atoms.parquet", "ledger": "ledger.sqlite", "page": "report.html",
    }  # fmt: skip
    for name, first in parts.items():
        size = sum(n for path, n in sizes.items() if path.parts[0] == first)
        rows.append(row(f"… {name}", f"{size / count / 1e3:.1f} kB a frame", "shown", met=True))
    rows.append(row("wall time", f"{seconds:.0f} s", "shown", met=True))
    return rows


def _frames(count: int) -> tuple[np.ndarray, float]:
    """Pieces of frames of the simulated microscope, uint16, and their pixel size in Å."""
    movie = list(twin_movie(TwinOptions(frames=_SCENES), load_material("graphene"), _SEED))
    counts = np.round([frame.data for frame in movie]).astype(np.uint16)
    n, rows, cols = (length // (_BINNED if axis else 1) for axis, length in enumerate(counts.shape))
    cut = counts[:, : rows * _BINNED, : cols * _BINNED]
    binned = cut.reshape(n, rows, _BINNED, cols, _BINNED).sum((2, 4), dtype=np.uint16)
    rng = np.random.default_rng(_SEED)
    out = np.empty((count, _EDGE, _EDGE), np.uint16)
    for i in range(count):
        row_, col = rng.integers(0, (rows - _EDGE + 1, cols - _EDGE + 1))
        out[i] = binned[i % n, row_ : row_ + _EDGE, col : col + _EDGE]
    return out, movie[0].calibration.pixel_size_A * _BINNED
