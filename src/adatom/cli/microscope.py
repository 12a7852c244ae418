"""Commands that act on a microscope: `move`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from adatom.cli.options import Json
from adatom.cli.screen import say
from adatom.errors import BadInput


def move(
    by: Annotated[
        list[str],
        typer.Argument(help="displacements from where the atom is, in turn, Å: RIGHT,DOWN"),
    ],
    material: Annotated[
        str, typer.Option("--material", "-m", help="the sheet: a name or a TOML material file")
    ] = "graphene",
    element: Annotated[str, typer.Option("--element", help="the atom that is moved")] = "Si",
    instrument: Annotated[
        str, typer.Option("--instrument", help="a name that `adatom doctor` lists")
    ] = "twin",
    instrument_options: Annotated[
        Path | None,
        typer.Option("--instrument-options", help="TOML file with options of the instrument"),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode",
            show_default="auto on a simulated instrument, else watch",
            help="watch (only say), confirm (ask before each step) or auto",
        ),
    ] = None,
    longest: Annotated[
        float | None, typer.Option("--longest", show_default="600", help="longest time, s")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="directory for the record and the picture")
    ] = Path("move"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="seed of a simulated instrument")] = 0,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Move an impurity atom with the beam, step by step, and watch it jump.

    The atom nearest to the middle of the field is moved. Put `--` before displacements that begin
    with a minus sign. Exit code 0: a frame shows it on its goal; 1: given up or stopped.
    """
    from adatom.campaign.move_run import PICTURE, needs_approval, run_move, summary
    from adatom.feedback.moving import MoveOptions
    from adatom.materials.library import load_material

    sheet = load_material(material)
    if mode is None:
        mode = "watch" if needs_approval(instrument, sheet, instrument_options) else "auto"
    answers = {"watch": _only_say, "confirm": _ask, "auto": _yes}
    if mode not in answers:
        raise BadInput(
            "--mode", expected="watch, confirm or auto", got=repr(mode), todo="Name one of these."
        )
    moved = run_move(
        instrument,
        sheet,
        [_displacement(text) for text in by],
        output,
        approve=answers[mode],
        element=element,
        seed=seed,
        options_file=instrument_options,
        options=MoveOptions() if longest is None else MoveOptions(longest_s=longest),
        tell=_say_decision,
    )
    if as_json:
        print(json.dumps(summary(moved)))
    else:
        hops = len(moved.path_xy_A) - 1
        say(
            f"{moved.status}: {moved.reason}; {hops} hops in {moved.seconds:.1f} s of the "
            f"instrument's time, {moved.looks} frames; picture: {output / PICTURE}"
        )
    if moved.status != "done":
        raise typer.Exit(1)


def _displacement(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError as error:
        raise BadInput(
            "displacement",
            expected="two numbers in Å, right and down, such as 2.1,1.2",
            got=repr(text),
            todo="Write them with a comma and no space.",
        ) from error
    return x, y


def _say_decision(decision: dict[str, Any]) -> None:
    when = f"{decision['time_s']:7.2f} s  "
    if decision["action"] == "look":
        say(f"{when}frame {decision['why']}")
    elif decision["action"] == "jump":
        x, y = decision["end_xy_A"]
        low, high = decision["rate_ratio_90"]
        say(
            f"{when}it jumped to ({x:.2f}, {y:.2f}) Å; rate {decision['rate_ratio']:.2f} "
            f"({low:.2f} to {high:.2f}) of the published one"
        )


def _only_say(words: str) -> bool:
    say(f"would {words}")
    return False


def _ask(words: str) -> bool:
    return typer.confirm(words[0].upper() + words[1:], default=False, err=True)


def _yes(words: str) -> bool:
    del words
    return True
