"""A campaign directory as layers of napari: frames, maps, atoms, defects, tracks.

All layers share the coordinates of the specimen: y and x in Å, and the frame, or its time in s
where it is known.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adatom.store import load_frames, load_maps, read_table

Layer = tuple[Any, dict[str, Any], str]  # data, arguments, kind, as napari takes them

_CONFIG = "campaign.toml"  # file whose presence makes a directory a campaign
_ATOM_A, _DEFECT_A = 0.8, 3.6  # Å: drawn diameters
# Okabe and Ito, Color Universal Design (2008): elements in the order of their names.
_COLOURS = ["#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#0072B2"]


def get_reader(path: str | list[str]) -> Callable[[Any], list[Layer]] | None:
    """Give the reader of a campaign directory; None for any other path, as napari asks for it."""
    several = path if isinstance(path, list) else [path]
    if len(several) == 1 and (Path(several[0]) / _CONFIG).is_file():
        return read_campaign
    return None


def read_campaign(path: str | list[str]) -> list[Layer]:
    """Read a campaign as layers; images are read frame by frame when they are shown.

    Parameters
    ----------
    path
        The directory, or a list of one.

    Returns
    -------
    Layers from below to above: frames, mean probability of every class, disagreement of the
    networks, atoms, 2σ discs, defects, and tracks of atoms and defects.

    Raises
    ------
    BadInput
        If the directory has no frames yet.
    """
    root = Path(path[0] if isinstance(path, list) else path)
    frames = load_frames(root / "frames.zarr")
    step = frames.image.frame_time_s or 1.0
    edge = frames.pixel_size_A
    layers: list[Layer] = [
        (frames.image.array, {"name": "frames", "scale": (step, edge, edge)}, "image")
    ]
    layers += _maps(root, step)
    layers += _atoms(root, step)
    return layers + _defects(root, step)


class OneClass:
    """One class of maps (frame, class, row, col), read when napari slices it.

    Parameters
    ----------
    array
        The zarr array.
    which
        Number of the class.
    """

    def __init__(self, array: Any, which: int) -> None:
        self._array, self._which = array, which
        self.shape = (array.shape[0], *array.shape[2:])
        self.dtype, self.ndim = np.dtype(array.dtype), 3

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        first, *rest = index if isinstance(index, tuple) else (index,)
        return np.asarray(self._array[(first, self._which, *rest)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        return np.asarray(self._array[:, self._which], dtype=dtype)


def _maps(root: Path, step: float) -> list[Layer]:
    maps = load_maps(root / "maps.zarr")
    edge = maps.pixel_size_A
    out: list[Layer] = []
    for name, colours in (("mean", "viridis"), ("mutual_information", "magma")):
        array = maps.images[name].array
        for number, label in enumerate(maps.classes):
            about = {
                "name": f"{name} {label}",
                "scale": (step, edge, edge),
                "colormap": colours,
                "visible": False,
                "contrast_limits": (0.0, 1.0 if name == "mean" else 0.3),
            }
            out.append((OneClass(array, number), about, "image"))
    return out


def _atoms(root: Path, step: float) -> list[Layer]:
    table = read_table(root / "atoms.parquet")
    if table.is_empty():
        return []
    places = table.select("frame", "y_A", "x_A").to_numpy().astype(np.float64)
    sigma = np.hypot(table["sigma_x_A"], table["sigma_y_A"]) / np.sqrt(2.0)
    names = ["element", "p_exists", "p_element", "sigma_x_A", "sigma_y_A", "cov_xy_A2", "track"]
    features = {name: table[name].to_numpy() for name in names}
    common = {"scale": (step, 1.0, 1.0), "features": features}
    rings = {
        "name": "atoms",
        "size": _ATOM_A,
        "face_color": "element",
        "face_color_cycle": _COLOURS,
        "opacity": 0.6,
    }
    discs = {"name": "2σ", "size": 4.0 * sigma, "face_color": "white", "visible": False}
    layers: list[Layer] = [(places, common | rings, "points"), (places, common | discs, "points")]
    return layers + _tracks(table, step, "tracks of atoms", visible=False)


def _defects(root: Path, step: float) -> list[Layer]:
    table = read_table(root / "defects.parquet")
    if table.is_empty():
        return []
    places = table.select("frame", "y_A", "x_A").to_numpy().astype(np.float64)
    about = {
        "name": "defects",
        "scale": (step, 1.0, 1.0),
        "size": _DEFECT_A,
        "symbol": "ring",
        "face_color": "#E69F00",
        "features": {name: table[name].to_numpy() for name in ("kind", "p", "track", "origin")},
        "text": {"string": "{kind}", "size": 10, "color": "white", "anchor": "upper_left"},
    }
    layers: list[Layer] = [(places, about, "points")]
    return layers + _tracks(table, step, "tracks of defects", visible=True)


def _tracks(table: pl.DataFrame, step: float, name: str, *, visible: bool) -> list[Layer]:
    """Tracks of at least two frames, as napari wants them: track, frame, y, x, sorted."""
    linked = table.filter(pl.col("track") >= 0)
    long = linked.filter(pl.len().over("track") > 1).sort("track", "frame")
    if long.is_empty():
        return []
    data = long.select("track", "frame", "y_A", "x_A").to_numpy().astype(np.float64)
    return [(data, {"name": name, "scale": (step, 1.0, 1.0), "visible": visible}, "tracks")]
