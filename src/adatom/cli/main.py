"""The command line: a thin face over `adatom.campaign`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from adatom.cli.options import (
    Adapt,
    Dataset,
    Draws,
    Frames,
    Json,
    Material,
    MaxStructures,
    Output,
    Picoseconds,
    PixelSize,
    Range,
    Seed,
    Temperatures,
    Trust,
    Voltage,
    Weights,
    ZoneAxis,
    input_table,
    material_path,
    parsed_config,
    temperatures_of,
    zone_axis_of,
)
from adatom.errors import AdatomError, BadInput

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From microscope frames to atoms with uncertainty, relaxed and heated supercells, and "
    "advice on what to do next. Exit code 0: done, 1: failed, 2: bad input.",
)
_screen = Console(stderr=True)  # answers go to stdout, everything for the eye to stderr


class _Screen:
    """Progress bars on stderr; plain lines where it is no terminal."""

    def __init__(self) -> None:
        self._bars = Bars(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=_screen,
            disable=not _screen.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._bars.start()

    def start(self, step: str, total: int, done: int) -> None:
        self._tasks[step] = self._bars.add_task(step, total=total, completed=done)
        if not _screen.is_terminal:
            known = f", {done} known from before" if done else ""
            _screen.print(f"{step}: {total} to do{known}", highlight=False)

    def advance(self, step: str) -> None:
        self._bars.advance(self._tasks[step])

    def finish(self, step: str) -> None:
        self._bars.update(self._tasks[step], refresh=True)

    def warn(self, text: str) -> None:
        # Escaped: what stands in brackets in a file's name is no markup.
        _screen.print(f"[yellow]warning:[/] {escape(text)}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._bars.stop()


@app.command()
def run(
    frames: Frames,
    material: Material = "graphene",
    zone_axis: ZoneAxis = "0,0,1",
    pixel_size: PixelSize = None,
    frame_range: Range = None,
    dataset: Dataset = None,
    trust_scale: Trust = False,
    output: Output = Path("adatom-campaign"),
    draws: Draws = 4,
    max_structures: MaxStructures = 2,
    temperatures: Temperatures = "300,900",
    picoseconds: Picoseconds = 10.0,
    voltage: Voltage = 60.0,
    weights: Weights = None,
    adapt: Adapt = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Do the main job: find atoms and defects, build supercells, relax and heat them, advise."""
    config = parsed_config(
        input_table(frames, pixel_size, frame_range, dataset, trust_scale),
        material=material_path(material),
        zone_axis=zone_axis_of(zone_axis),
        weights=weights,
        adapt=adapt,
        seed=seed,
        voltage_kV=voltage,
        simulate={
            "draws": draws,
            "max_structures": max_structures,
            "temperatures_K": temperatures_of(temperatures),
        },
        dynamics={"production_ps": picoseconds},
    )
    _run(config, output, as_json=as_json)


@app.command()
def find(
    frames: Frames,
    material: Material = "graphene",
    zone_axis: ZoneAxis = "0,0,1",
    pixel_size: PixelSize = None,
    frame_range: Range = None,
    dataset: Dataset = None,
    trust_scale: Trust = False,
    output: Output = Path("adatom-campaign"),
    weights: Weights = None,
    adapt: Adapt = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find atoms and defects only: tables, maps and a page; `adatom simulate` goes on from it."""
    config = parsed_config(
        input_table(frames, pixel_size, frame_range, dataset, trust_scale),
        material=material_path(material),
        zone_axis=zone_axis_of(zone_axis),
        weights=weights,
        adapt=adapt,
        seed=seed,
    )
    _run(config, output, as_json=as_json, only_find=True)


@app.command()
def simulate(
    directory: Annotated[Path, typer.Argument(help="campaign directory")],
    as_json: Json = False,
) -> None:
    """Build, relax and heat supercells of what `adatom find` found."""
    _resume(directory, as_json=as_json)


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(help="campaign directory")],
    as_json: Json = False,
) -> None:
    """Carry on a campaign that was interrupted; finished steps are not repeated."""
    _resume(directory, as_json=as_json)


@app.command()
def demo(
    output: Output = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", help="seed of specimen, noise and draws")] = 7,
    as_json: Json = False,
) -> None:
    """Run the whole way on the simulated microscope; ends by naming its report."""
    from adatom.campaign.demo import demo_config, write_demo_picture

    outcome = _run(demo_config(seed), output, as_json=as_json)
    write_demo_picture(outcome, output)


@app.command()
def train(
    material: Annotated[
        str, typer.Argument(help="a material's name, its TOML file, or a structure file")
    ],
    zone_axis: ZoneAxis = "0,0,1",
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            help="shared, scratch, baseline, swag, snapshot or dropout: how members differ",
        ),
    ] = "shared",
    members: Annotated[int, typer.Option("--members", min=2, help="members")] = 10,
    steps: Annotated[int | None, typer.Option("--steps", min=10, help="optimiser steps")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            help="ensemble whose trunks to start from, or scratch (default: universal; for "
            "graphene, which ships, scratch)",
        ),
    ] = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="file to write (default: MATERIAL.safetensors)"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train an ensemble on simulated frames and calibrate it on held-out ones."""
    from adatom.training.train import train_options, train_to_file

    path = output or Path(f"{Path(material).stem}.safetensors")
    options = train_options(material, kind=kind, members=members, steps=steps, start=start)
    screen = _Screen()
    try:
        card = train_to_file(
            material_path(material), path, options=options, seed=seed, progress=screen,
            zone_axis=zone_axis_of(zone_axis),
        )  # fmt: skip
    finally:
        screen.close()
    if as_json:
        print(json.dumps(card))
    else:
        _screen.print(f"wrote {path}; scores on held-out frames in {path.with_suffix('.json')}")


@app.command()
def adapt(
    frames: Frames,
    material: Material = "graphene",
    zone_axis: ZoneAxis = "0,0,1",
    pixel_size: PixelSize = None,
    frame_range: Range = None,
    dataset: Dataset = None,
    trust_scale: Trust = False,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="most rounds")] = 3,
    weights: Weights = None,
    seed: Seed = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="ensemble to write, for --weights")
    ] = Path("adapted.safetensors"),
    as_json: Json = False,
) -> None:
    """Retrain the networks on the first frames of an experiment, without a label."""
    from adatom.campaign.adapt import adapt_to_file

    config = parsed_config(
        input_table(frames, pixel_size, frame_range, dataset, trust_scale),
        material=material_path(material),
        zone_axis=zone_axis_of(zone_axis),
        weights=weights,
        seed=seed,
        adaptation={"rounds": rounds},
    )
    screen = _Screen()
    try:
        card = adapt_to_file(config, output, screen)
    finally:
        screen.close()
    if as_json:
        print(json.dumps(card["adapted"]))
        return
    table = Table("round", "members kept", "labels kept, added, dropped", "F1 guarded", "passed")
    for done in card["adapted"]["rounds"]:
        labels = done["labels"]
        table.add_row(
            str(done["number"]),
            f"{len(done['kept'])} of {len(done['members'])}",
            f"{labels['kept']}, {labels['added']}, {labels['dropped']}",
            ", ".join(
                f"{kind} {done['before'][kind]:.4f} → {done['after'][kind]:.4f}"
                for kind in ("atom", "vacancy", "foreign")
            ),
            "yes" if done["accepted"] else "no, taken back",
        )
    out = Console()
    out.print(table)
    before, after = card["adapted"]["detection_limit_counts"]
    limits = ["at no dose" if v is None else f"down to {v:.3g} counts" for v in (before, after)]
    out.print(f"F1 of atoms is 0.95 {limits[0]} before, {limits[1]} after")
    out.print(f"wrote {output}", highlight=False, soft_wrap=True, markup=False)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show engines, instruments, readers and defect namers, what is missing, and the device."""
    from adatom.cli.doctor import diagnosis, show

    found = diagnosis()
    if as_json:
        print(json.dumps(found))
    else:
        show(found, Console())


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="demo, find, speed, adapt; with --data movie, real")],
    data: Annotated[
        Path | None, typer.Option("--data", help="directory of the real micrographs")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="keep what is made here")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="fewer frames")] = False,
    peers: Annotated[
        Path | None,
        typer.Option("--peers", help="Python of an environment with AtomAI, Atomap and trackpy"),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="an ensemble in place of the shipped one")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure against the targets; one table, exit code 1 where one is missed."""
    from adatom.bench import BENCHMARKS, BenchOptions, run_benchmark

    if name not in BENCHMARKS:
        raise BadInput(
            f"bench {name}",
            expected=" or ".join(BENCHMARKS),
            got=repr(name),
            todo="Name one of these.",
        )
    rows = run_benchmark(name, BenchOptions(data, output, quick, peers, weights))
    if as_json:
        print(json.dumps(rows))
    else:
        table = Table("quantity", "measured", "target", "met")
        for row in rows:
            table.add_row(
                row["quantity"], row["measured"], row["target"], "yes" if row["met"] else "NO"
            )
        Console().print(table)
    if not all(row["met"] for row in rows):
        raise typer.Exit(1)


def _run(config: Any, output: Path, *, as_json: bool, only_find: bool = False) -> Any:
    from adatom.campaign.pipeline import run_campaign

    outcome = _watched(
        lambda screen: run_campaign(config, output, only_find=only_find, progress=screen), output
    )
    _show(outcome.summary, as_json=as_json)
    return outcome


def _resume(directory: Path, *, as_json: bool) -> None:
    from adatom.campaign.pipeline import resume_campaign

    outcome = _watched(lambda screen: resume_campaign(directory, progress=screen), directory)
    _show(outcome.summary, as_json=as_json)


def _watched(work: Callable[[_Screen], Any], directory: Path) -> Any:
    """Show the progress of a campaign; say how to go on where the user stops it."""
    screen = _Screen()
    try:
        return work(screen)
    except KeyboardInterrupt:  # here, because typer would answer it with a bare "Aborted!"
        screen.close()
        _screen.print(
            f"stopped; `adatom resume {directory}` carries on from the last finished step",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
        raise typer.Exit(1) from None
    finally:
        screen.close()


def _show(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
        return
    out = Console(highlight=False, soft_wrap=True, markup=False)
    atoms = ", ".join(f"{n} {element}" for element, n in summary["elements"].items())
    out.print(f"{summary['frames']} frames, {summary['atoms']} atoms ({atoms})")
    if summary["bond_length_A"] is not None:
        out.print(f"nearest neighbours {summary['bond_length_A']:.3f} Å, distortion removed")
    for kind, count in list(summary["defect_frames"].items())[:6]:
        out.print(f"  {kind}: seen {count} times")
    for row in summary["relaxed"]:
        spread = row["energy_sd_eV"]
        more = "" if spread is None else f" ± {spread:.4f}"
        out.print(
            f"  {row['structure']} ({row['formula']}): {row['draws']} draws, "
            f"{row['energy_eV']:.4f}{more} eV"
        )
    for row in summary["dynamics"]:
        out.print(
            f"  dynamics at {row['temperature_K']:g} K: {row['runs']} runs, "
            f"measured {row['mean_temperature_K']:.0f} K"
            if row["runs"]
            else f"  dynamics at {row['temperature_K']:g} K: none finished"
        )
    out.print(f"report: {summary['report']}")


def main() -> None:
    """Run the command line; errors of adatom become one clear message and an exit code."""
    try:
        app()
    except AdatomError as error:
        subject = escape(error.subject)
        _screen.print(f"[red]error:[/] {subject}", highlight=False, soft_wrap=True)
        for label, text in (
            ("expected", error.expected),
            ("got", error.got),
            ("to do", error.todo),
        ):
            _screen.print(f"  {label:<9}{text}", highlight=False, soft_wrap=True, markup=False)
        sys.exit(error.exit_code)
