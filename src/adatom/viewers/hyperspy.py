"""The frames of a campaign as a HyperSpy signal with calibrated axes.

``hs.load("my-campaign/campaign.toml", file_format=adatom.viewers.hyperspy)`` opens them: HyperSpy
takes any module with a `file_reader`, but no directory except its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from adatom.store import load_frames


def file_reader(filename: str | Path, lazy: bool = False, **kwds: Any) -> list[dict[str, Any]]:
    """Read frames as HyperSpy's readers do.

    Parameters
    ----------
    filename
        ``campaign.toml`` of a campaign, or its ``frames.zarr``.
    lazy
        Give the zarr array itself, of which frames are read when they are needed.
    kwds
        Not used; HyperSpy passes its own.

    Returns
    -------
    One dictionary with the keys ``data`` (frame, row, col), ``axes`` and ``metadata``, as
    rosettasciio defines them.

    Raises
    ------
    BadInput
        If the path is not such a store.
    """
    del kwds
    path = Path(filename)
    image = load_frames(path.with_name("frames.zarr") if path.is_file() else path).image
    array = image.array
    step = image.frame_time_s
    frames, rows, columns = array.shape
    axes = [
        _axis("time" if step else "frame", frames, step or 1.0, "s" if step else "", navigate=True),
        _axis("y", rows, image.pixel_size_A, "Å", navigate=False),
        _axis("x", columns, image.pixel_size_A, "Å", navigate=False),
    ]
    for place, axis in enumerate(axes):
        axis["index_in_array"] = place
    about = {
        "General": {"title": path.resolve().parent.name, "original_filename": str(filename)},
        "Signal": {"signal_type": ""},
    }
    return [
        {
            "data": array if lazy else np.asarray(array[:]),
            "axes": axes,
            "metadata": about,
            "original_metadata": {},
        }
    ]


def _axis(name: str, size: int, scale: float, units: str, *, navigate: bool) -> dict[str, Any]:
    return {
        "name": name, "size": size, "scale": scale, "offset": 0.0, "units": units,
        "navigate": navigate,
    }  # fmt: skip
