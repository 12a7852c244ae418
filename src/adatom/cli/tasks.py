"""Commands on structure files: `barrier`, `vibrate`, `adsorb`, `threshold`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from adatom.cli.options import AllowUnfit, Json, Material, ZoneAxis, engine_of, zone_axis_of
from adatom.cli.screen import say

_File = Annotated[
    Path, typer.Argument(help="structure file (extxyz, CIF, POSCAR, ...) of a sheet in its cell")
]
_Engine = Annotated[
    str,
    typer.Option("--engine", help="auto, a name that `adatom doctor` lists, or module:name"),
]
_Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="write the geometries here, as extended XYZ"),
]


def barrier(
    initial: _File,
    final: _File,
    material: Material = None,
    zone_axis: ZoneAxis = None,
    engine: _Engine = "auto",
    allow_unfit: AllowUnfit = None,
    images: Annotated[int, typer.Option("--images", help="images of the band with its ends")] = 9,
    flat: Annotated[bool, typer.Option("--flat", help="hold the sheet in its plane")] = False,
    output: _Output = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="draw the band here (.png, .svg, .pdf)")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the energy barrier between two states of a sheet, given as structure files."""
    from adatom.api.tasks import barrier as find
    from adatom.materials.library import read_structure
    from adatom.report.band import draw_band
    from adatom.simulation.barrier import BarrierOptions
    from adatom.store import write_trajectory

    found = find(
        read_structure(initial),
        read_structure(final),
        **_common(material, zone_axis, engine, allow_unfit),
        options=_checked(BarrierOptions, images=images, flat=flat),
    )
    if output is not None:
        write_trajectory(output, found.images)
    if picture is not None:
        draw_band(found.way_A, found.energy_eV, found.barrier_eV, picture)
    values = {
        name: getattr(found, name)
        for name in (
            "structure", "engine", "status", "barrier_eV", "reverse_eV", "reaction_eV",
            "negative_modes", "seconds", "notes",
        )
    }  # fmt: skip
    rows = [
        (f"{way:.2f}", f"{energy:.3f}")
        for way, energy in zip(found.way_A, found.energy_eV, strict=True)
    ]
    series = {"way_A": found.way_A.tolist(), "energy_eV": found.energy_eV.tolist()}
    _show(values, ("way (Å)", "energy (eV)"), rows, series, as_json=as_json)


def _common(
    material: str | None, zone_axis: str | None, engine: str, allow_unfit: bool | None
) -> dict[str, Any]:
    axis = {} if zone_axis is None else {"zone_axis": zone_axis_of(zone_axis)}
    return {
        "material": material, "engine": engine_of(engine), "allow_unfit": bool(allow_unfit), **axis,
    }  # fmt: skip


def _checked(kind: Any, **given: Any) -> Any:
    """Make options; a value that is out of range is named as on the command line."""
    from pydantic import ValidationError

    from adatom.errors import BadInput

    try:
        return kind(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(
            "--" + str(first["loc"][0]).replace("_", "-"),
            expected=str(first["msg"]),
            got=repr(first.get("input")),
            todo="Give another value, or leave the option out for its default.",
        ) from error


def _show(
    values: dict[str, Any],
    heads: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    series: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Print numbers and a table, or both as JSON; notes go to stderr."""
    if as_json:
        print(json.dumps({**values, **series}, allow_nan=True))
        return
    out = Console(highlight=False, soft_wrap=True, markup=False)
    for name, value in values.items():
        if name != "notes":
            shown = f"{value:.3f}" if isinstance(value, float) else str(value)
            out.print(f"{name:<18}{shown}")
    table = Table(*heads)
    for row in rows:
        table.add_row(*row)
    out.print(table)
    for note in values["notes"]:
        say(f"note: {note}")
