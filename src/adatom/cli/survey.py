"""The command `survey`: every site of a field, with dose where there is doubt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from adatom.cli.checked import checked
from adatom.cli.options import Json
from adatom.cli.screen import say
from adatom.errors import BadInput

_OPTIONS = {
    "field_A": "--field", "dose_per_A2": "--dose", "uniform": "--uniform",
    "most_dose_per_A2": "--max-dose", "most_electrons": "--max-electrons", "longest_s": "--longest",
}  # fmt: skip


def survey(
    material: Annotated[
        str, typer.Option("--material", "-m", help="the crystal: a name or a TOML material file")
    ] = "graphene",
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
            help="watch (one scan, and say where dose is missing), confirm (ask before more dose) "
            "or auto",
        ),
    ] = None,
    field: Annotated[
        float | None,
        typer.Option("--field", show_default="200, or what fits", help="edge of the field, Å"),
    ] = None,
    dose: Annotated[
        float | None,
        typer.Option("--dose", show_default="2e4", help="electrons per Å² of a scan of the field"),
    ] = None,
    uniform: Annotated[
        bool, typer.Option("--uniform", help="the same dose for all places: scan the field again")
    ] = False,
    max_dose: Annotated[
        float | None,
        typer.Option("--max-dose", show_default="5e5", help="most electrons per Å² on any atom"),
    ] = None,
    max_electrons: Annotated[
        float | None,
        typer.Option("--max-electrons", show_default="1e11", help="most electrons of all visits"),
    ] = None,
    longest: Annotated[
        float | None, typer.Option("--longest", show_default="3600", help="longest time, s")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="directory for record, counts and result")
    ] = Path("survey"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="seed of a simulated instrument")] = 0,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Find what is on every site of a field, with dose where there is doubt.

    Scans the field once, then small patches around the sites whose kind is not known, until every
    one is. Exit code 0: done; 1: a limit, a refusal or a lost instrument ended it.
    """
    from adatom.campaign.instrument_options import instrument_options as options_of
    from adatom.campaign.survey_run import RESULT, run_survey, summary
    from adatom.feedback.survey import SurveyOptions
    from adatom.instrument.protocol import find_instrument
    from adatom.materials.library import load_material

    given = {
        "field_A": field, "dose_per_A2": dose, "most_dose_per_A2": max_dose,
        "most_electrons": max_electrons, "longest_s": longest, "uniform": uniform or None,
    }  # fmt: skip
    found = run_survey(
        instrument,
        load_material(material),
        output,
        approve={"watch": lambda _: False, "confirm": _ask, "auto": lambda _: True},
        mode=_mode(mode),
        seed=seed,
        instrument_options=options_of(find_instrument(instrument), instrument_options),
        options=checked(
            SurveyOptions, _OPTIONS, **{k: v for k, v in given.items() if v is not None}
        ),
        tell=_say,
    )
    if as_json:
        print(json.dumps(summary(found)))
    else:
        kinds = [o.kind or "vacancy" for o in found.others]
        counts = ", ".join(f"{kinds.count(k)} {k}" for k in sorted(set(kinds))) or "nothing else"
        scans, anchors, patches = found.frames
        say(
            f"{found.status}: {found.reason}; {found.sites} sites, {counts}, {found.open_sites} "
            f"open; {found.electrons:.3g} electrons in {scans} scans, {anchors} frames for the "
            f"drift and {patches} patches; result: {output / RESULT}"
        )
    if found.status != "done":
        raise typer.Exit(1)


def _mode(name: str | None) -> Any:
    if name not in {None, "watch", "confirm", "auto"}:
        raise BadInput(
            "--mode", expected="watch, confirm or auto", got=repr(name), todo="Name one of these."
        )
    return name


def _ask(words: str) -> bool:
    return typer.confirm(f"{words[:1].upper()}{words[1:]}?", err=True)


def _say(line: dict[str, Any]) -> None:
    """Say a line for every scan, visit, state and fault."""
    when, action = f"{line['time_s']:8.2f} s  ", line["action"]
    if action == "begin":
        for note in line["notes"]:
            say(f"{when}the instrument {note}")
    elif action in {"scan", "visit"}:
        say(f"{when}{action}: {line['why']}")
    elif action == "known":
        sure = sum(p >= 0.95 for *_, p in line["others"])
        say(
            f"{when}{sure} sites surely hold something else than the crystal, {line['open']} are "
            f"open; {line['electrons']:.3g} electrons"
        )
    elif action in {"fault", "refused"}:
        say(f"{when}{action}: {line.get('what', line.get('why'))}")
