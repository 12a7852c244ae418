"""Commands that act on a microscope: `live` and `move`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from adatom.cli.checked import checked
from adatom.cli.options import Json, PixelSize
from adatom.cli.screen import Screen, say
from adatom.errors import BadInput

_LIVE_OPTIONS = {
    "frames": "--frames", "longest_s": "--longest", "dose_per_A2": "--dose",
    "field_A": "--field", "most_dose_per_A2": "--max-dose", "most_electrons": "--max-electrons",
}  # fmt: skip


def move(
    by: Annotated[
        list[str] | None,
        typer.Argument(help="displacements from where the atom is, in turn, Å: RIGHT,DOWN"),
    ] = None,
    sites: Annotated[
        int | None,
        typer.Option("--sites", min=1, help="move it so many sites away, where there is most room"),
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="bring the two nearest atoms together")
    ] = False,
    fill: Annotated[
        bool, typer.Option("--fill", help="bring it to the rim of the nearest vacancy")
    ] = False,
    vacancy: Annotated[
        str | None,
        typer.Option(
            "--vacancy",
            metavar="RIGHT,DOWN",
            help="knock out the atom there: displacement from the middle of the field, Å",
        ),
    ] = None,
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

    The atom nearest to the middle of the field is moved: by displacements, or by `--sites`; or two
    are brought together; or one to a vacancy; or an atom of the crystal is knocked out. Put `--`
    before displacements that begin with a minus sign. Exit code 0: a frame shows it; 1: given up or
    stopped.
    """
    from adatom.campaign.instrument_options import instrument_options as options_of
    from adatom.campaign.move_run import PAGE, run_move, summary
    from adatom.feedback.moving import MoveOptions
    from adatom.instrument.protocol import find_instrument
    from adatom.materials.library import load_material

    plan = _plan(by or [], sites, vacancy, together=together, fill=fill)
    sheet = load_material(material)
    chosen = options_of(find_instrument(instrument), instrument_options)
    answers: dict[Any, Any] = {"watch": _only_say, "confirm": _ask, "auto": _yes}
    moved = run_move(
        instrument,
        sheet,
        plan,
        output,
        approve=answers if mode is None else answers[_mode(mode)],
        element=element,
        seed=seed,
        instrument_options=chosen,
        options=MoveOptions()
        if longest is None
        else checked(MoveOptions, {"longest_s": "--longest"}, longest_s=longest),
        tell=say_decision,
    )
    if as_json:
        print(json.dumps(summary(moved)))
    else:
        hops = sum(len(path) - 1 for path in moved.paths_xy_A)
        say(
            f"{moved.status}: {moved.reason}; {hops} hops in {moved.seconds:.1f} s of the "
            f"instrument's time, {moved.looks} frames; page: {output / PAGE}"
        )
    if moved.status != "done":
        raise typer.Exit(1)


def live(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="a movie to replay, or a directory to watch for new files"),
    ] = None,
    material: Annotated[
        str, typer.Option("--material", "-m", help="a name or a TOML material file")
    ] = "graphene",
    instrument: Annotated[
        str | None,
        typer.Option(
            "--instrument",
            show_default="replay for a movie, folder for a directory, else twin",
            help="a name that `adatom doctor` lists",
        ),
    ] = None,
    instrument_options: Annotated[
        Path | None,
        typer.Option("--instrument-options", help="TOML file with options of the instrument"),
    ] = None,
    pixel_size: PixelSize = None,
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode",
            show_default="auto on a simulated instrument, else watch",
            help="watch (only say), confirm (ask before each closer look) or auto",
        ),
    ] = None,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="most frames")] = None,
    longest: Annotated[
        float | None, typer.Option("--longest", show_default="3600", help="longest time, s")
    ] = None,
    dose: Annotated[
        float | None,
        typer.Option("--dose", show_default="5e4", help="electrons per Å² of a scan"),
    ] = None,
    field: Annotated[
        float | None, typer.Option("--field", show_default="24", help="field of view, Å")
    ] = None,
    max_dose: Annotated[
        float | None,
        typer.Option("--max-dose", show_default="5e6", help="most electrons per Å² on any atom"),
    ] = None,
    max_electrons: Annotated[
        float | None,
        typer.Option("--max-electrons", show_default="1e11", help="most electrons of all frames"),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="directory for record, frames, tables and page")
    ] = Path("live"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="seed of a simulated instrument")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the interrupted run of the directory")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="run the directory's record again; say whether it agrees"),
    ] = False,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate/--no-simulate",
            help="simulate each kind of sure defect in a process beside the loop",
        ),
    ] = True,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="write tables and page at the end")
    ] = True,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Watch a specimen while frames come: analyse, follow, decide, and look closer.

    Takes frames of a field until every defect in it is sure, a limit is reached, or Ctrl-C. A movie
    or a directory is only watched. Every decision is recorded before it is carried out.
    """
    from adatom.campaign.live_run import resume_live, run_live, summary, verify_live, write_page
    from adatom.feedback.live import LiveOptions

    if verify:
        lines = verify_live(output)
        say(f"{output}: all {lines} lines of the record come out again")
        return
    given = {
        "frames": frames, "longest_s": longest, "dose_per_A2": dose, "field_A": field,
        "most_dose_per_A2": max_dose, "most_electrons": max_electrons,
    }  # fmt: skip
    for name, value in given.items():
        if value is not None and not math.isfinite(value):
            raise BadInput(
                _LIVE_OPTIONS[name], expected="a finite number", got=str(value),
                todo="Give another value, or leave the option out for its default.",
            )  # fmt: skip
    options = {k: v for k, v in given.items() if v is not None}
    if resume:
        _refuse_changes({**options, "PATHS": paths, "--instrument": instrument, "--mode": mode})
        lived = resume_live(output, approve=_ask, tell=_say_line)
    else:
        name, more = _source(paths or [], instrument, pixel_size)
        lived = run_live(
            name, material, output, mode=_mode(mode), approve=_ask, seed=seed,
            options_file=instrument_options, instrument_more=more,
            options=checked(LiveOptions, _LIVE_OPTIONS, **options), simulate=simulate,
            tell=_say_line,
        )  # fmt: skip
    written = f"record: {output / 'decisions.jsonl'}"
    if page and lived.frames:
        screen = Screen()
        try:
            written = f"page: {write_page(output, screen)}"
        finally:
            screen.close()
    if as_json:
        print(json.dumps(summary(lived)))
    else:
        say(
            f"{lived.status}: {lived.reason}; {lived.frames} frames, {lived.faults} faults, "
            f"{lived.electrons:.3g} electrons in {lived.seconds:.1f} s; {written}"
        )
    if lived.status == "lost":
        raise typer.Exit(1)


def _refuse_changes(given: dict[str, Any]) -> None:
    """Refuse options of a resumed run: it keeps its instrument, its mode and its limits."""
    for name, value in given.items():
        if value:
            raise BadInput(
                "--resume", expected="the options of the run that goes on",
                got=f"{name} {value}", todo="Leave it out, or begin another run.",
            )  # fmt: skip


def _source(
    paths: list[Path], instrument: str | None, pixel_size: float | None
) -> tuple[str, dict[str, Any]]:
    """Name of the instrument, and its options that the command line gives."""
    more: dict[str, Any] = {} if pixel_size is None else {"pixel_size_A": pixel_size}
    if not paths:
        return instrument or "twin", more
    if len(paths) == 1 and paths[0].is_dir() and instrument in {None, "folder"}:
        return "folder", {**more, "path": str(paths[0])}
    if instrument not in {None, "replay"}:
        raise BadInput(
            "PATHS", expected=f"none with --instrument {instrument}", got=str(paths[0]),
            todo="Leave one of both out.",
        )  # fmt: skip
    return "replay", {**more, "paths": tuple(map(str, paths))}


def _mode(name: str | None) -> Any:
    if name not in {None, "watch", "confirm", "auto"}:
        raise BadInput(
            "--mode", expected="watch, confirm or auto", got=repr(name), todo="Name one of these."
        )
    return name


def _say_line(line: dict[str, Any]) -> None:
    """Say a line for every frame, closer look, advice and fault."""
    when, action = f"{line['time_s']:8.2f} s  ", line["action"]
    if action in {"begin", "resume"}:
        for note in line["notes"]:
            say(f"{when}the instrument {note}")
    elif action == "seen" and not line["lattice"]:
        say(
            f"{when}frame {line['n']}: the lattice of the material is not found, so nothing is "
            "concluded; more dose, or the right pixel size or material, may show it"
        )
    elif action == "seen":
        elements = ", ".join(f"{n} {e}" for e, n in line["elements"].items())
        kinds = [
            f"{k} {p:.2f} at ({x:.1f}, {y:.1f})" for k, x, y, p in line["defects"] if k != "atom"
        ]
        moved = [f"{e} moved to ({u:.1f}, {v:.1f})" for e, _, (u, v) in line["moved"]]
        x, y = line["known"]["drift_xy_A"]
        say(
            f"{when}frame {line['n']}: {elements or 'no atoms'}; "
            f"{'; '.join(kinds + moved) or 'no defect'}; "
            f"drift ({x:+.1f}, {y:+.1f}) Å; {line['analysis']}, {line['ms']:.0f} ms"
        )
    elif action == "look":
        say(f"{when}looks closer: {line['why']}")
    elif action == "check" and line.get("missed"):
        say(f"{when}the full analysis finds more: {', '.join(line['missed'])}")
    elif action == "simulation":
        say(f"{when}{line['why']}{_numbers(line['result'])}")
    elif action == "advise":
        say(f"{when}would look closer: {line['why']}")
    elif action == "fault":
        say(f"{when}{line['kind']}: {line['what']}")
    elif action == "clock":
        say(f"{when}the instrument's clock jumped by {line['step_s']:.3g} s: not counted")


def _numbers(result: dict[str, Any]) -> str:
    """Say what a simulation gave."""
    if not result:
        return ""
    energy, limit = result["formation_energy_eV"], result["dose_limit_per_A2"]
    parts = [f" in {result['seconds']:.0f} s by {result['engine']}: "]
    parts += [] if energy is None else [f"formation energy {energy:.2f} eV, "]
    parts += [f"an atom beside it is displaced from {result['threshold_eV']:.1f} eV on"]
    parts += [] if limit is None else [f", so it bears {limit:.2g} e⁻/Å²"]
    return "".join(parts)


def _plan(
    by: list[str], sites: int | None, vacancy: str | None, *, together: bool, fill: bool
) -> Any:
    from adatom.feedback.fill import Fill
    from adatom.feedback.plans import Along, Away, Together, Vacancy

    told = {
        "displacements": by, "--sites": sites, "--together": together, "--fill": fill,
        "--vacancy": vacancy,
    }  # fmt: skip
    given = [name for name, there in told.items() if there]
    if len(given) != 1:
        raise BadInput(
            "move",
            expected="displacements, --sites, --together, --fill or --vacancy, one of them",
            got=" and ".join(given) or "none", todo="Say where to, such as 1.2,0.7 or --sites 2.",
        )  # fmt: skip
    if vacancy:
        return Vacancy(_displacement(vacancy))
    if together:
        return Together()
    if fill:
        return Fill()
    return Away(sites) if sites else Along([_displacement(text) for text in by])


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


def say_decision(line: dict[str, Any]) -> None:
    """Say a line of the record of a move, but for the places of the beam and the end."""
    from adatom.campaign.move_words import in_words

    if line["action"] not in {"park", "end"}:
        say(f"{line['time_s']:7.2f} s  {in_words(line)}")


def _only_say(words: str) -> bool:
    say(f"would {words}")
    return False


def _ask(words: str) -> bool:
    return typer.confirm(words[0].upper() + words[1:], default=False, err=True)


def _yes(words: str) -> bool:
    del words
    return True
