"""Options of the commands, and the key of the configuration that each of them sets.

An option that is left out sets nothing: the configuration has the default, and a test compares it
with the help. `SETTINGS` is the only table from options to keys. Error messages use it to replace
the name of a Python argument by the name of the option.
"""

from __future__ import annotations

import math
import os
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from adatom.errors import AdatomError, BadInput


def _materials(incomplete: str) -> list[str]:
    """Complete a built-in material for the shell."""
    from adatom.materials.library import material_names

    return [name for name in material_names() if name.lower().startswith(incomplete.lower())]


Frames = Annotated[
    list[Path] | None,
    typer.Argument(
        show_default=False,
        help="image files or one directory: any vendor format, .tif, .npy, .npz, .hdf5, .zarr",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="TOML file with keys of a campaign.toml; options go before its keys"
    ),
]
Material = Annotated[
    str | None,
    typer.Option(
        "--material", "-m", show_default="chosen by lattice and scale", autocompletion=_materials,
        help="what the specimen is: a name, a TOML material file or a structure file",
    ),
]  # fmt: skip
ZoneAxis = Annotated[
    str | None,
    typer.Option(
        "--zone-axis", show_default="0,0,1",
        help="u,v,w: lattice direction of the beam, for a structure file",
    ),
]  # fmt: skip
Adapt = Annotated[
    str | None,
    typer.Option(
        "--adapt", show_default="auto",
        help="retrain on the first frames: auto (where they are unlike training), always or never",
    ),
]  # fmt: skip
PixelSize = Annotated[
    float | None,
    typer.Option("--pixel-size", show_default="the file's", help="pixel size in Å"),
]
Range = Annotated[
    str | None,
    typer.Option(
        "--frames", show_default="all", help="START:STOP, frames to use, or several: :3,4:"
    ),
]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="which image or channel of a file with several")
]
Axes = Annotated[
    str | None,
    typer.Option(
        "--axes", show_default="the file's labels",
        help="order of the axes, a letter each: t frames, c channels, y rows, x columns",
    ),
]  # fmt: skip
FitScale = Annotated[
    bool | None,
    typer.Option(
        "--fit-scale", is_flag=True, show_default=False,
        help="take the scale from the material's lattice, in place of the given one",
    ),
]  # fmt: skip
Detector = Annotated[
    str | None,
    typer.Option(
        "--detector", show_default="the file's, else any",
        help="INNER,OUTER: angles of the annular detector in mrad; networks adapt to its contrast",
    ),
]  # fmt: skip
FrameTime = Annotated[
    float | None,
    typer.Option(
        "--frame-time", show_default="the file's", help="time from frame to frame in s, for rates"
    ),
]
Dose = Annotated[
    float | None,
    typer.Option(
        "--dose", show_default="the file's", help="electrons per Å² and frame, for rates and damage"
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="campaign directory")]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights", show_default="shipped", help="an ensemble of networks (.safetensors)"
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", show_default="0", help="seed of all random numbers")
]
Json = Annotated[bool, typer.Option("--json", help="print the summary as JSON on stdout")]
Draws = Annotated[
    int | None,
    typer.Option(
        "--draws", show_default="4",
        help="structures of each defect, drawn from its uncertainty",
    ),
]  # fmt: skip
MaxStructures = Annotated[
    int | None,
    typer.Option(
        "--max-structures", show_default="2", help="distinct defects to simulate, likeliest first"
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine", show_default="auto",
        help="engine of the relaxations: auto, a name that `adatom doctor` lists, or module:name "
        "of what makes an ASE calculator",
    ),
]  # fmt: skip
DynamicsEngine = Annotated[
    str | None,
    typer.Option("--dynamics-engine", show_default="auto", help="engine of the dynamics, alike"),
]
AllowUnfit = Annotated[
    bool | None,
    typer.Option(
        "--allow-unfit", is_flag=True, show_default=False,
        help="run an engine also on what it says that it is not fit for",
    ),
]  # fmt: skip
Mu = Annotated[
    str | None,
    typer.Option(
        "--mu",
        help="reservoirs of formation energies, comma-separated: S-rich, or Si=-5.4 (eV an atom)",
    ),
]
Temperatures = Annotated[
    str | None,
    typer.Option(
        "--temperatures", show_default="300,900",
        help="temperatures of the dynamics in K, comma-separated",
    ),
]  # fmt: skip
Picoseconds = Annotated[
    float | None,
    typer.Option("--picoseconds", show_default="10.0", help="length of each dynamics run in ps"),
]
Voltage = Annotated[
    float | None,
    typer.Option(
        "--voltage", show_default="the file's, else 60",
        help="acceleration voltage in kV; damage is weighed at it and at 60, 80, 100 kV",
    ),
]  # fmt: skip
Rounds = Annotated[
    int | None, typer.Option("--rounds", show_default="3", help="most rounds of training")
]


def absolute(path: Path) -> str:
    """Give a file's absolute path, so that a campaign finds it from any directory."""
    return str(path.expanduser().absolute())


def absolute_frames(paths: Sequence[Path]) -> tuple[str, ...]:
    """Give the absolute paths of image files, with links resolved.

    Raises
    ------
    BadInput
        If one does not exist: this is said before networks and libraries are loaded.
    """
    found = tuple(_resolved(p) for p in paths)
    for given, path in zip(paths, found, strict=True):
        if not os.path.lexists(path) and not given.is_symlink():  # readers explain odd links
            raise BadInput(
                path, expected="a file of frames", got="no such file", todo="Check the name."
            )
    return found


def _resolved(path: Path) -> str:
    try:
        return str(path.expanduser().resolve())
    except (OSError, RuntimeError):  # links in a circle, or ~ before what is no user
        return str(path.absolute())


def material_path(text: str) -> str:
    """Give a material file's absolute path; a name is returned unchanged."""
    path = Path(text).expanduser()
    return str(path.absolute()) if path.is_file() else text


def zone_axis_of(text: str) -> tuple[int, int, int]:
    """Read a lattice direction.

    Raises
    ------
    BadInput
        If these are not three whole numbers, or all are zero.
    """
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


def detector_of(text: str) -> tuple[float, float]:
    """Read the angles of a detector in mrad.

    Raises
    ------
    BadInput
        If these are not two numbers.
    """
    try:
        inner, outer = (float(part) for part in text.split(","))
    except ValueError:
        raise BadInput(
            f"--detector {text}",
            expected="inner and outer angle in mrad, such as 80,200",
            got=repr(text),
            todo="Separate them by a comma.",
        ) from None
    return inner, outer


def reservoirs_of(text: str) -> tuple[str, ...]:
    """Read reservoirs, comma-separated; their elements are checked before the frames are read."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def temperatures_of(text: str) -> tuple[float, ...]:
    """Read temperatures in K.

    Raises
    ------
    BadInput
        If one is not a finite positive number.
    """
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


def engine_of(text: str) -> str:
    """Take an engine; the module of an import path may lie in the working directory."""
    here = str(Path.cwd())
    if ":" in text and here not in sys.path:
        sys.path.append(here)  # processes that simulate get the same path
    return text


class Setting(NamedTuple):
    """What an option sets.

    Parameters
    ----------
    option
        Name on the command line.
    key
        Key of the configuration; its last part is the name of the argument in Python.
    read
        Converts typer's value to the configuration's; None to use the value unchanged.
    """

    option: str
    key: str
    read: Callable[[Any], Any] | None = None


# Settings by the name of the commands' parameter.
SETTINGS = {
    "frames": Setting("FRAMES", "input.paths", absolute_frames),
    "pixel_size": Setting("--pixel-size", "input.pixel_size_A"),
    "frame_range": Setting("--frames", "input.frames"),
    "dataset": Setting("--dataset", "input.dataset"),
    "axes": Setting("--axes", "input.axes"),
    "detector": Setting("--detector", "input.detector_mrad", detector_of),
    "frame_time": Setting("--frame-time", "input.frame_time_s"),
    "dose": Setting("--dose", "input.dose_per_A2"),
    "fit_scale": Setting("--fit-scale", "input.fit_scale"),
    "material": Setting("--material", "material", material_path),
    "zone_axis": Setting("--zone-axis", "zone_axis", zone_axis_of),
    "weights": Setting("--weights", "weights", absolute),
    "adapt": Setting("--adapt", "adapt"),
    "seed": Setting("--seed", "seed"),
    "voltage": Setting("--voltage", "voltage_kV"),
    "draws": Setting("--draws", "simulate.draws"),
    "max_structures": Setting("--max-structures", "simulate.max_structures"),
    "engine": Setting("--engine", "simulate.relax_engine", engine_of),
    "dynamics_engine": Setting("--dynamics-engine", "simulate.dynamics_engine", engine_of),
    "allow_unfit": Setting("--allow-unfit", "simulate.allow_unfit"),
    "mu": Setting("--mu", "simulate.mu", reservoirs_of),
    "temperatures": Setting("--temperatures", "simulate.temperatures_K", temperatures_of),
    "picoseconds": Setting("--picoseconds", "dynamics.production_ps"),
    "rounds": Setting("--rounds", "adaptation.rounds"),
}
_BY_KEY = {setting.key: setting.option for setting in SETTINGS.values()}
_BY_ARGUMENT = {
    **{setting.key.rsplit(".", 1)[-1]: setting.option for setting in SETTINGS.values()},
    **{
        name: f"--{name}" for name in ("kind", "members", "steps", "start", "to", "atom", "sites")
    },  # arguments of a training, of an export and of tasks on structures
    "scale_error": "--scale-error",
    "candidates": "--candidate",
    "low_eV": "--low",
    "high_eV": "--high",
    "tolerance_eV": "--tolerance",
}


def config_of(config_file: Path | None = None, **given: Any) -> Any:
    """Make the configuration from the given options, by the parameters' names.

    Parameters
    ----------
    config_file
        TOML file with keys of a ``campaign.toml``; given options replace its values.
    **given
        Options; None where they are not given.

    Raises
    ------
    BadInput
        If a value is out of range; the message names the option.
    """
    source = "command line" if config_file is None else str(config_file)
    table = {} if config_file is None else _read_config(config_file)
    for name, value in given.items():
        if value is None or value == []:
            continue
        _, key, read = SETTINGS[name]
        *sections, last = key.split(".")
        inside = table
        for section in sections:
            if not isinstance(inside.setdefault(section, {}), dict):
                inside[section] = {}  # a file that is wrong there: the option goes before it
            inside = inside[section]
        inside[last] = value if read is None else read(value)
    source_of_frames = table.get("input")
    if not isinstance(source_of_frames, dict) or not {"paths", "twin"} & set(source_of_frames):
        raise BadInput(
            "FRAMES",
            expected="image files or one directory",
            got="none",
            todo="Name the files after the command, or as input.paths in the file of --config.",
        )
    from adatom.campaign.config import parse_config  # networks and libraries: after the checks

    try:
        return parse_config(table, source)
    except BadInput as error:
        option = _BY_KEY.get(error.subject.removeprefix(f"{source}, "))
        if option is None:
            raise
        raise BadInput(
            option, expected=error.expected, got=error.got,
            todo="Give another value, or leave the option out for its default.",
        ) from error  # fmt: skip


def _read_config(path: Path) -> dict[str, Any]:
    """Read the TOML file of `--config`; paths in it start at its directory."""
    path = path.expanduser()
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"--config {path}",
            expected="a TOML file with keys of a campaign.toml",
            got=str(getattr(error, "strerror", None) or error),
            todo="Correct the file, or name another.",
        ) from error
    own = table.get("input")
    if isinstance(own, dict) and isinstance(own.get("paths"), list):
        own["paths"] = absolute_frames([path.parent / str(name) for name in own["paths"]])
    for key in ("weights", "material"):
        if isinstance(table.get(key), str) and (path.parent / table[key]).is_file():
            table[key] = absolute(path.parent / table[key])
    return table


def with_options(text: str) -> str:
    """Replace Python's arguments in a message, as in `` `pixel_size_A` ``, by options."""
    return re.sub(r"`(\w+)`", lambda m: _BY_ARGUMENT.get(m[1], m[0]), text)


def error_with_options(error: AdatomError) -> dict[str, str]:
    """Give the four parts of an error, with options in place of Python's arguments."""
    parts = {
        "error": error.subject, "expected": error.expected, "got": error.got, "to do": error.todo,
    }  # fmt: skip
    return {label: with_options(text) for label, text in parts.items()}
