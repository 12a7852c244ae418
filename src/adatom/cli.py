"""The command line: a thin face over `adatom.campaign`."""

from __future__ import annotations

import json
import math
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

Frames = Annotated[
    list[Path],
    typer.Argument(help="image files or one directory: any vendor format, .tif, .npy, .npz, .hdf5"),
]
Material = Annotated[str, typer.Option("--material", "-m", help="what the specimen is")]
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
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Do the main job: find atoms and defects, build supercells, relax and heat them, advise."""
    config = _config(
        _input(frames, pixel_size, frame_range, dataset, trust_scale),
        material=material,
        weights=weights,
        seed=seed,
        voltage_kV=voltage,
        simulate={
            "draws": draws,
            "max_structures": max_structures,
            "temperatures_K": _numbers(temperatures),
        },
        dynamics={"production_ps": picoseconds},
    )
    _run(config, output, as_json=as_json)


@app.command()
def find(
    frames: Frames,
    material: Material = "graphene",
    pixel_size: PixelSize = None,
    frame_range: Range = None,
    dataset: Dataset = None,
    trust_scale: Trust = False,
    output: Output = Path("adatom-campaign"),
    weights: Weights = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find atoms and defects only: tables, maps and a page; `adatom simulate` goes on from it."""
    config = _config(
        _input(frames, pixel_size, frame_range, dataset, trust_scale),
        material=material,
        weights=weights,
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
    material: Annotated[str, typer.Argument(help="name of a material")],
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            help="shared, scratch, baseline, swag, snapshot or dropout: how members differ",
        ),
    ] = "shared",
    members: Annotated[int, typer.Option("--members", min=2, help="members")] = 10,
    steps: Annotated[int, typer.Option("--steps", min=10, help="optimiser steps")] = 8000,
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="file to write (default: MATERIAL.safetensors)"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train an ensemble on simulated frames and calibrate it on held-out ones."""
    from adatom.campaign.training import parse_options, train_to_file

    path = output or Path(f"{material}.safetensors")
    options = parse_options(kind=kind, members=members, steps=steps)
    screen = _Screen()
    try:
        card = train_to_file(material, path, options=options, seed=seed, progress=screen)
    finally:
        screen.close()
    if as_json:
        print(json.dumps(card))
    else:
        _screen.print(f"wrote {path}; scores on held-out frames in {path.with_suffix('.json')}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show which engines are installed and how to install the others."""
    from dataclasses import asdict

    from adatom.simulation import engine_status

    rows = engine_status()
    if as_json:
        print(json.dumps([asdict(r) for r in rows]))
        return
    table = Table("engine", "for", "installed", "version", "note")
    for r in rows:
        mark = "[green]yes[/]" if r.installed else "no"
        table.add_row(r.name, ", ".join(r.tasks), mark, r.version, escape(r.note))
    out = Console()
    out.print(table)
    missing = [r for r in rows if not r.installed]
    if missing:
        out.print("To install, one line each:")
    for r in missing:  # not in the table, which would cut or wrap what is meant to be copied
        out.print(f"  {r.name + ':':<18}{r.install}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="demo, find, speed; with --data movie, real")],
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
    from adatom.campaign.bench import BENCHMARKS, BenchOptions, run_benchmark

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


def _input(
    frames: list[Path],
    pixel_size: float | None,
    frame_range: str | None,
    dataset: str | None,
    trust_scale: bool,
) -> dict[str, Any]:
    return {
        "paths": tuple(str(p.expanduser().resolve()) for p in frames),
        "pixel_size_A": pixel_size,
        "frames": frame_range,
        "dataset": dataset,
        "trust_scale": trust_scale,
    }


def _config(source: dict[str, Any], *, weights: Path | None, **rest: Any) -> Any:
    from adatom.campaign.config import parse_config

    table = {
        "input": source,
        "weights": None if weights is None else str(weights.expanduser().absolute()),
        **rest,
    }
    return parse_config(table, "command line")


def _numbers(text: str) -> tuple[float, ...]:
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
