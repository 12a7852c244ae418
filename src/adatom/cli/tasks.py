"""Commands on structure files: `barrier`, `vibrate`, `adsorb`, `threshold`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from adatom.cli.checked import checked
from adatom.cli.options import AllowUnfit, Json, Material, ZoneAxis, engine_of, zone_axis_of
from adatom.cli.screen import say
from adatom.errors import BadInput

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
        options=checked(BarrierOptions, images=images, flat=flat),
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


def vibrate(
    structure: _File,
    material: Material = None,
    zone_axis: ZoneAxis = None,
    engine: _Engine = "auto",
    allow_unfit: AllowUnfit = None,
    atoms: Annotated[
        str | None,
        typer.Option("--atoms", show_default="all", help="numbers of the atoms that vibrate: 0,5"),
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="K")] = 300.0,
    as_json: Json = False,
) -> None:
    """Compute harmonic vibrations: frequencies, free energy, and how fast each atom moves."""
    from adatom.api.tasks import vibrate as compute
    from adatom.materials.library import read_structure

    found = compute(
        read_structure(structure),
        atoms=None if atoms is None else _numbers("--atoms", atoms),
        **_common(material, zone_axis, engine, allow_unfit),
    )
    square = [found.mean_square_velocity_m2_s2(int(i), temperature) for i in found.free]
    values = {
        "structure": found.structure, "engine": found.engine, "temperature_K": temperature,
        "imaginary": found.imaginary, "zero_point_eV": found.zero_point_eV,
        "free_energy_eV": found.free_energy_eV(temperature), "seconds": found.seconds,
        "notes": found.notes,
    }  # fmt: skip
    symbols = found.atoms.get_chemical_symbols()
    rows = [
        (str(i), symbols[i], *(f"{v:.3g}" for v in v2))
        for i, v2 in zip(found.free, square, strict=True)
    ]
    series = {
        "frequencies_THz": found.frequencies_THz.tolist(),
        "mean_square_velocity_m2_s2": {
            str(i): v2.tolist() for i, v2 in zip(found.free, square, strict=True)
        },
    }
    heads = ("atom", "element", "<vx²> (m²/s²)", "<vy²>", "<vz²>")
    _show(values, heads, rows, series, as_json=as_json)


def adsorb(
    structure: _File,
    element: Annotated[str, typer.Option("--element", "-e", help="chemical symbol")],
    near: Annotated[
        str | None,
        typer.Option("--near", show_default="middle of the cell", help="x,y in Å"),
    ] = None,
    material: Material = None,
    zone_axis: ZoneAxis = None,
    engine: _Engine = "auto",
    allow_unfit: AllowUnfit = None,
    output: _Output = None,
    as_json: Json = False,
) -> None:
    """Put an ad-atom over hollow, bridge and top of a sheet; tell where it ends and how bound."""
    from adatom.api.tasks import adsorb as compute
    from adatom.materials.library import read_structure
    from adatom.store import write_trajectory

    place = None if near is None else _numbers("--near", near, float)
    if place is not None and len(place) != 2:
        raise BadInput(
            f"--near {near}", expected="two numbers x,y in Å", got=str(len(place)),
            todo="Separate them by a comma.",
        )  # fmt: skip
    found = compute(
        read_structure(structure),
        element,
        near_xy_A=None if place is None else (place[0], place[1]),
        **_common(material, zone_axis, engine, allow_unfit),
    )
    if output is not None:
        write_trajectory(output, [state.result.trajectory[-1] for state in found.states])
    values = {
        name: getattr(found, name)
        for name in ("structure", "element", "engine", "reference", "failed", "notes")
    }
    rows = [
        (
            state.start, state.end, f"{state.adsorption_eV:.3f}", f"{state.height_A:.2f}",
            ", ".join(f"{bond:.2f}" for bond in state.bonds_A),
        )
        for state in found.states
    ]  # fmt: skip
    series = {
        "states": [
            {
                "start": state.start, "end": state.end, "adsorption_eV": state.adsorption_eV,
                "energy_eV": state.result.energy_eV, "height_A": state.height_A,
                "bonds_A": state.bonds_A,
            }
            for state in found.states
        ]
    }  # fmt: skip
    heads = ("started over", "ended at", "adsorption (eV)", "height (Å)", "bonds (Å)")
    _show(values, heads, rows, series, as_json=as_json)


def threshold(
    structure: _File,
    atom: Annotated[int, typer.Option("--atom", help="number of the atom, from 0")],
    direction: Annotated[
        str, typer.Option("--direction", help="of the knock: x,y,z, that of the beam")
    ] = "0,0,1",
    low: Annotated[float, typer.Option("--low", help="an energy that moves nothing, eV")] = 5.0,
    high: Annotated[float, typer.Option("--high", help="one that drives it out, eV")] = 40.0,
    tolerance: Annotated[float, typer.Option("--tolerance", help="eV, at the end")] = 0.5,
    material: Material = None,
    zone_axis: ZoneAxis = None,
    engine: _Engine = "auto",
    allow_unfit: AllowUnfit = None,
    as_json: Json = False,
) -> None:
    """Find the least knock that moves an atom of a sheet, and the one that drives it out."""
    from adatom.api.tasks import displacement_threshold
    from adatom.materials.library import read_structure
    from adatom.simulation import DisplacementOptions

    way = _numbers("--direction", direction, float)
    if len(way) != 3:
        raise BadInput(
            f"--direction {direction}", expected="three numbers x,y,z", got=str(len(way)),
            todo="Separate them by commas.",
        )  # fmt: skip
    found = displacement_threshold(
        read_structure(structure),
        atom,
        direction=(way[0], way[1], way[2]),
        options=checked(
            DisplacementOptions,
            {"low_eV": "--low", "high_eV": "--high", "tolerance_eV": "--tolerance"},
            low_eV=low,
            high_eV=high,
            tolerance_eV=tolerance,
        ),
        **_common(material, zone_axis, engine, allow_unfit),
    )
    values = {
        name: getattr(found, name)
        for name in (
            "structure", "engine", "atom", "element", "moves_eV", "moves_sd_eV", "leaves_eV",
            "leaves_sd_eV", "seconds", "notes",
        )
    }  # fmt: skip
    rows = [(f"{energy:.2f}", outcome) for energy, outcome in found.tried]
    series = {"tried": found.tried}
    _show(values, ("knock (eV)", "outcome"), rows, series, as_json=as_json)


def _numbers(option: str, text: str, kind: Callable[[str], Any] = int) -> list[Any]:
    """Read numbers that are separated by commas."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        word = "whole numbers" if kind is int else "numbers"
        raise BadInput(
            f"{option} {text}", expected=f"{word} such as 0,5", got=repr(text),
            todo="Separate them by commas.",
        ) from None  # fmt: skip


def _common(
    material: str | None, zone_axis: str | None, engine: str, allow_unfit: bool | None
) -> dict[str, Any]:
    axis = {} if zone_axis is None else {"zone_axis": zone_axis_of(zone_axis)}
    return {
        "material": material, "engine": engine_of(engine), "allow_unfit": bool(allow_unfit), **axis,
    }  # fmt: skip


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
