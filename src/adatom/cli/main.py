"""The command line: a thin layer over `adatom.campaign`."""

from __future__ import annotations

import difflib
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from adatom.cli import campaigns, identify, microscope, networks, outputs, survey, tasks
from adatom.cli.options import Json
from adatom.cli.screen import show_error, warn
from adatom.cli.shared import with_shared_options
from adatom.errors import AdatomError, BadInput
from adatom.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"adatom {__version__}")
        raise typer.Exit


@app.callback()
def _adatom(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="print the version and exit"
        ),
    ] = False,
) -> None:
    """From microscope frames to atoms, simulations and advice.

    Finds atoms with their uncertainty, builds, relaxes and heats supercells, and says what to do
    next. Exit code 0: done, 1: failed, 2: bad input, 3: the frames do not show the material, or
    none that is known.
    """


_COMMANDS: tuple[Callable[..., None], ...] = (
    campaigns.run,
    campaigns.find,
    identify.identify,
    campaigns.simulate,
    campaigns.resume,
    campaigns.demo,
    networks.train,
    networks.adapt,
    microscope.live,
    microscope.move,
    survey.survey,
    outputs.describe,
    outputs.export,
    tasks.barrier,
    tasks.vibrate,
    tasks.adsorb,
    tasks.threshold,
)
for _command in _COMMANDS:
    app.command()(with_shared_options(_command))


app.command()(outputs.materials)


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
    name: Annotated[
        str,
        typer.Argument(
            help="demo, find, speed, defects, adapt, files, versus, wrong, alloys, manipulate, "
            "live, simulate, identify; movie, real with --data"
        ),
    ],
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
    other: Annotated[
        Path | None,
        typer.Option("--other", help="Python of an environment with another adatom, for versus"),
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, help="frames of each defect and dose (defects)")
    ] = None,
    cases: Annotated[
        int | None, typer.Option("--cases", min=1, help="frames at each dose, for simulate")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure against the targets; one table, exit code 1 where one is missed."""
    from adatom.bench import BENCHMARKS, BenchOptions, run_benchmark

    if name not in BENCHMARKS:
        close = difflib.get_close_matches(name, BENCHMARKS, n=1)
        raise BadInput(
            f"bench {name}",
            expected=" or ".join(BENCHMARKS),
            got=repr(name),
            todo=f"Did you mean {close[0]!r}?" if close else "Name one of these.",
        )
    rows = run_benchmark(
        name, BenchOptions(data, output, quick, peers, weights, other, frames, cases)
    )
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


def main() -> None:
    """Run the command line; errors of adatom become one clear message and an exit code."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        """Say a warning of adatom without the place in the code."""
        if issubclass(category, UserWarning):
            warn(str(message))
        else:
            usual(message, category, *where, **more)

    warnings.showwarning = show
    try:
        app()
    except AdatomError as error:
        show_error(error)
        sys.exit(error.exit_code)
