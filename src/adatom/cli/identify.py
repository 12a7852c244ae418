"""The command `adatom identify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from adatom.cli.options import (
    Axes,
    Dataset,
    Frames,
    Json,
    PixelSize,
    Range,
    ZoneAxis,
    absolute_frames,
    zone_axis_of,
)
from adatom.cli.screen import warn
from adatom.errors import BadInput, NoMaterial

_LEAST = 0.005  # probability of a candidate that is shown
_SEEN = 0.5  # probability of a lattice below which none is taken to be seen


def identify(
    frames: Frames = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            "--candidate", "-c", show_default="the built-in materials",
            help="a name, a TOML material file or a structure file; once for each candidate",
        ),
    ] = None,
    zone_axis: ZoneAxis = None,
    pixel_size: PixelSize = None,
    scale_error: Annotated[
        float, typer.Option("--scale-error", help="usual relative error of the pixel size")
    ] = 0.04,
    frame_range: Range = None,
    dataset: Dataset = None,
    axes: Axes = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Tell which of several crystals frames show: by lattice, scale, and the atoms of its cell."""
    if not frames:
        raise BadInput(
            "FRAMES", expected="image files or one directory", got="none",
            todo="Name the files after the command.",
        )  # fmt: skip
    paths = absolute_frames(frames)
    from adatom.api.frames import identify as compare
    from adatom.frames.readers.read import read

    movie = read(
        list(paths), pixel_size_A=pixel_size, frames=frame_range, dataset=dataset, axes=axes
    )
    for note in movie.notes:
        warn(note)
    axis = zone_axis_of(zone_axis or "0,0,1")
    found = compare(movie, candidate or None, zone_axis=axis, scale_error=scale_error)
    if as_json:
        print(json.dumps([asdict(each) for each in found]))
    else:
        table = Table("material", "probability", "of its structure", "pixel size by its lattice")
        for each in found:
            if each.probability >= _LEAST or each is found[0]:
                table.add_row(
                    each.name, f"{each.probability:.1%}", f"{each.structure_probability:.1%}",
                    f"{each.pixel_size_A:.4g} Å",
                )  # fmt: skip
        Console().print(table)
    if sum(each.probability for each in found) < _SEEN:
        raise NoMaterial(
            movie.source, expected="a lattice of one of the candidates", got="none that is seen",
            todo="Check `pixel_size_A`, give more frames, or other candidates.",
        )  # fmt: skip
