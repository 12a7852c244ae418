"""What commands are told on the command line, and how it is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from adatom.errors import BadInput

Frames = Annotated[
    list[Path],
    typer.Argument(help="image files or one directory: any vendor format, .tif, .npy, .npz, .hdf5"),
]
Material = Annotated[str, typer.Option("--material", "-m", help="what the specimen is")]
ZoneAxis = Annotated[
    str, typer.Option("--zone-axis", help="u,v,w of a structure file: direction of the beam")
]
Adapt = Annotated[
    str, typer.Option("--adapt", help="retrain on the first frames: auto, always or never")
]
PixelSize = Annotated[
    float | None, typer.Option("--pixel-size", help="pixel size in Å (default: the file's)")
]
Range = Annotated[
    str | None, typer.Option("--frames", help="START:STOP, frames to use (default: all)")
]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="which image of a file that holds several")
]
Trust = Annotated[
    bool, typer.Option("--trust-scale", help="keep the given scale though the lattice says other")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="campaign directory")]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="an ensemble (.safetensors; default: shipped)")
]
Seed = Annotated[int, typer.Option("--seed", help="seed of all randomness")]
Json = Annotated[bool, typer.Option("--json", help="print the summary as JSON on stdout")]
Draws = Annotated[
    int, typer.Option("--draws", help="structures drawn from the uncertainty of each defect")
]
MaxStructures = Annotated[
    int, typer.Option("--max-structures", help="distinct defects to simulate, surest first")
]
Temperatures = Annotated[
    str, typer.Option("--temperatures", help="temperatures of the dynamics in K, comma-separated")
]
Picoseconds = Annotated[
    float, typer.Option("--picoseconds", help="length of each dynamics run in ps")
]
Voltage = Annotated[
    float,
    typer.Option(
        "--voltage", help="acceleration voltage in kV, weighed for damage beside 60, 80, 100"
    ),
]


def input_table(
    frames: list[Path],
    pixel_size: float | None,
    frame_range: str | None,
    dataset: str | None,
    trust_scale: bool,
) -> dict[str, Any]:
    """Say where the frames come from, as the configuration has it."""
    return {
        "paths": tuple(str(p.expanduser().resolve()) for p in frames),
        "pixel_size_A": pixel_size,
        "frames": frame_range,
        "dataset": dataset,
        "trust_scale": trust_scale,
    }


def parsed_config(source: dict[str, Any], *, weights: Path | None, **rest: Any) -> Any:
    """Check the whole configuration."""
    from adatom.campaign.config import parse_config

    table = {
        "input": source,
        "weights": None if weights is None else str(weights.expanduser().absolute()),
        **rest,
    }
    return parse_config(table, "command line")


def material_path(text: str) -> str:
    """Give a file's whole path, so that a campaign finds it from anywhere; a name as it is."""
    path = Path(text).expanduser()
    return str(path.absolute()) if path.is_file() else text


def zone_axis_of(text: str) -> tuple[int, int, int]:
    """Read a lattice direction."""
    try:
        u, v, w = (int(part) for part in text.split(","))
    except ValueError:
        u, v, w = 0, 0, 0
    if (u, v, w) == (0, 0, 0):
        raise BadInput(
            f"--zone-axis {text}",
            expected="three whole numbers such as 1,1,0, not all zero",
            got=repr(text),
            todo="Separate them by commas.",
        )
    return u, v, w


def temperatures_of(text: str) -> tuple[float, ...]:
    """Read temperatures."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 < v < math.inf for v in values):  # NaN is not more than 0
        raise BadInput(
            f"--temperatures {text}",
            expected="positive numbers in K, such as 300,900",
            got=repr(text),
            todo="Separate them by commas.",
        )
    return tuple(dict.fromkeys(values))
