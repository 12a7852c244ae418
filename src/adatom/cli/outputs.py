"""Commands that show, describe and export: `materials`, `describe` and `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from adatom.cli.options import Json
from adatom.cli.screen import say

_Directory = Annotated[Path, typer.Argument(help="campaign directory")]


def materials(as_json: Json = False) -> None:
    """List the built-in materials: elements, lattice, networks that ship, engines."""
    rows = _materials()
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("material", "what it is", "elements", "lattice constant", "networks", "engines")
    table.columns[0].no_wrap = True  # a name is copied whole
    for row in rows:
        length = row["lattice_constant_A"]
        table.add_row(
            row["name"],
            row["form"],
            " ".join(row["species"]),
            "" if length is None else f"{length:.3f} Å",
            "shipped" if row["networks_ship"] else "to train",
            ", ".join(row["simulated_by"]) or "none",
        )
    Console().print(table)


def describe(
    directory: _Directory,
    cutoff: Annotated[
        float | None,
        typer.Option(
            "--cutoff",
            min=0.5,
            show_default="2.2 nearest distances",
            help="atoms nearer than this count, Å",
        ),
    ] = None,
    groups: Annotated[
        int | None,
        typer.Option(
            "--groups",
            min=1,
            show_default="the data choose",
            help="number of groups of each element",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Group the atoms of a campaign by their surroundings; the oddest ones are listed."""
    import polars as pl

    from adatom.campaign.describe import describe_campaign
    from adatom.features.descriptors import EnvironmentOptions, GroupOptions, group_changes

    table = describe_campaign(
        directory,
        EnvironmentOptions(cutoff_A=cutoff),
        GroupOptions(groups=groups),
    )
    sizes = table["group"].drop_nulls().value_counts(sort=True)
    odd = table.filter(table["group"].is_not_null()).sort("p_odder", "frame", "atom").head(5)
    changes = group_changes(table).filter(pl.col("from_group") != pl.col("to_group"))
    if as_json:
        found = {"groups": sizes.to_dicts(), "odd": odd.to_dicts(), "changes": changes.to_dicts()}
        print(json.dumps(found))
        return
    for row in sizes.iter_rows(named=True):
        say(f"{row['group']}: {row['count']} atoms")
    for row in odd.iter_rows(named=True):
        say(f"odd: atom {row['atom']} of frame {row['frame']}, {row['group']}, "
            f"{row['p_odder']:.1g} of such surroundings are odder")  # fmt: skip
    for row in changes.iter_rows(named=True):
        say(f"{row['from_group']} to {row['to_group']}: {row['seen']} times, "
            f"{row['share_low']:.2g} to {row['share_high']:.2g} a frame")  # fmt: skip
    say(f"wrote {directory / 'environments.parquet'}")


def export(
    directory: _Directory,
    to: Annotated[
        str,
        typer.Option("--to", help="cif, poscar, lammps or xyz for structures; csv for tables"),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", show_default="DIR/export-FORMAT", help="directory to write"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write structures and tables of a campaign in the formats of other programs."""
    from adatom.campaign.export import export_campaign

    written = export_campaign(directory, to, output)
    if as_json:
        print(json.dumps([str(path) for path in written]))
    else:
        say(f"wrote {len(written)} files to {written[0].parent}")


def _materials() -> list[dict[str, Any]]:
    from adatom.learning.weights import ships_for
    from adatom.materials.library import load_material, material_names

    found = [load_material(name) for name in material_names()]
    return [
        {
            "name": each.name,
            "form": each.form,
            "species": list(each.species),
            "lattice_constant_A": each.lattice_constant_A if each.has_lattice else None,
            "networks_ship": ships_for(each.name),
            "simulated_by": list(each.simulated_by),
        }
        for each in found
    ]
