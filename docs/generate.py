"""Write the pages that are made from the code: command line, tables, API, import graph.

Sphinx calls `write_all` before it reads the pages; what is written lies in ``_generated`` folders
and is included by the pages around it.
"""

from __future__ import annotations

import inspect
import itertools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import grimp
import matplotlib as mpl
import typer

import adatom
from adatom import core
from adatom.campaign.batch import BATCH_COLUMNS
from adatom.campaign.reference import reference as configuration
from adatom.cli.main import app
from adatom.core import atoms, defects, empty_sites, environments, tracks, transitions
from adatom.core.columns import Column
from adatom.store.ledger import LEDGER_COLUMNS
from adatom.store.results import RESULTS_COLUMNS, TRACE_COLUMNS

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch

ROOT = Path(__file__).parents[1]
EVERYWHERE = ("core", "errors", "version")  # nearly every room imports them: no arrows


def write_all(docs: Path) -> None:
    """Write every generated page below `docs`."""
    reference, explanation = docs / "reference" / "_generated", docs / "explanation" / "_generated"
    for folder in (reference, explanation):
        folder.mkdir(exist_ok=True)
    pages = {
        reference / "command-line.md": command_line(),
        reference / "configuration.md": configuration(),
        reference / "functions.md": functions(),
        reference / "nouns.md": nouns(),
        **{reference / f"{name}.md": text for name, text in tables().items()},
    }
    for path, text in pages.items():
        if not path.exists() or path.read_text("utf-8") != text:  # else Sphinx reads it again
            path.write_text(text, "utf-8")
    draw_imports(explanation / "imports.svg")


def command_line() -> str:
    """Give a section for every command, with its arguments and options."""
    group = typer.main.get_command(app)
    typed = {c.name or c.callback.__name__: get_type_hints(c.callback) for c in _commands()}
    out = [f"{_whole(group.help)}\n"]
    for name, command in group.commands.items():
        words = ["adatom", name, *(_metavar(p) for p in command.params if not _is_option(p))]
        out += [f"## adatom {name}\n", f"{_whole(command.help)}\n"]
        out += [f"```text\n{' '.join(words)} [OPTIONS]\n```\n"]
        out += ["| argument or option | type | default | what it says |", "|---|---|---|---|"]
        for p in command.params:
            shown = ", ".join(f"`{o}`" for o in p.opts) if _is_option(p) else f"`{_metavar(p)}`"
            kind = _type(typed[name][p.name])
            default = "off" if kind == "switch" and not p.default else _default(p)
            out.append(f"| {shown} | {kind} | {default} | {_whole(p.help)} |")
        out.append("")
    return "\n".join(out)


def _commands() -> list[Any]:
    return app.registered_commands


def _is_option(parameter: Any) -> bool:
    return parameter.opts[0].startswith("-")


def _type(annotation: Any) -> str:
    """Name a type in the words of a command line."""
    known = [a for a in get_args(annotation) if a is not type(None)]
    if get_origin(annotation) is not list and known and get_origin(known[0]) is list:
        return _type(known[0])  # a list that may be left out
    parts = known or [annotation]
    several = get_origin(annotation) is list
    word = {int: "whole number", float: "number", str: "text", Path: "path", bool: "switch"}
    return word[parts[0]] + ("s" if several else "")


def _metavar(parameter: Any) -> str:
    return str(parameter.name).upper() + ("…" if parameter.nargs == -1 else "")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "needed"
    if isinstance(parameter.show_default, str):  # the configuration's, where the option has none
        return f"`{parameter.show_default}`"
    if parameter.default is None:
        return "–"
    return f"`{parameter.default}`"


def _whole(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def tables() -> dict[str, str]:
    """Give a table of columns for every file that has some."""
    return {
        "atoms": columns(atoms.COLUMNS),
        "defects": columns(defects.COLUMNS),
        "tracks": columns(tracks.COLUMNS),
        "transitions": columns(transitions.COLUMNS),
        "environments": columns(environments.COLUMNS),
        "simulations": columns(RESULTS_COLUMNS),
        "batch": columns(BATCH_COLUMNS),
        "empty-sites": columns(empty_sites.COLUMNS),
        "trace-relax": columns(TRACE_COLUMNS["relax"]),
        "trace-dynamics": columns(TRACE_COLUMNS["dynamics"]),
        "ledger": "\n".join(
            [
                "| column | meaning |",
                "|---|---|",
                *(f"| `{name}` | {meaning} |" for name, meaning in LEDGER_COLUMNS.items()),
                "",
            ]
        ),
    }


def columns(described: Mapping[str, Column]) -> str:
    """Give the table of one file's columns."""
    rows = [
        f"| `{name}` | {c.dtype} | {c.unit or '–'} | {c.meaning} |" for name, c in described.items()
    ]
    return "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *rows, ""])


def functions() -> str:
    """Give the public functions of the package, in its own order."""
    names = [n for n in adatom.__all__ if inspect.isfunction(getattr(adatom, n))]
    return _autodoc(f".. autofunction:: adatom.{name}" for name in names)


def nouns() -> str:
    """Give the nouns: classes with their members, then what else `adatom.core` exports."""
    public = {name: getattr(core, name) for name in core.__all__}
    classes = [n for n, value in public.items() if inspect.isclass(value)]
    others = [n for n, value in public.items() if inspect.isfunction(value)]
    return _autodoc(
        [
            *(f".. autoclass:: adatom.core.{name}\n   :members:" for name in classes),
            *(f".. autofunction:: adatom.core.{name}" for name in others),
        ]
    )


def _autodoc(directives: Any) -> str:
    return "\n".join(f"```{{eval-rst}}\n{each}\n```\n" for each in directives)


def floors() -> list[list[str]]:
    """Give the rooms floor by floor, top first, as the linter enforces them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    first = project["tool"]["importlinter"]["contracts"][0]["layers"]
    return [[room.strip().removeprefix("adatom.") for room in each.split("|")] for each in first]


def draw_imports(path: Path) -> None:
    """Draw which room imports which, from the code as it is, on the floors of the linter."""
    graph = grimp.build_graph("adatom", cache_dir=None)
    rooms = floors()
    place = {
        room: ((k + 0.5) / len(floor), -i)
        for i, floor in enumerate(rooms)
        for k, room in enumerate(floor)
    }
    figure, ax = plt.subplots(figsize=(11, 1.05 * len(rooms)), layout="constrained")
    for i in range(len(rooms)):
        ax.axhspan(-i - 0.32, -i + 0.32, color="0.94", lw=0)
    drawn = [room for room in place if room not in EVERYWHERE]
    for upper, lower in itertools.permutations(drawn, 2):
        if _imports(graph, upper, lower):
            start, end = place[upper], place[lower]
            ax.add_patch(
                FancyArrowPatch(
                    start, end, arrowstyle="-|>", mutation_scale=9, shrinkA=13, shrinkB=13,
                    color="tab:blue", alpha=0.35, lw=0.9,
                    connectionstyle=f"arc3,rad={0.12 if end[0] >= start[0] else -0.12}",
                )
            )  # fmt: skip
    for room, (x, y) in place.items():
        ax.text(
            x, y, room, ha="center", va="center", fontsize=11,
            bbox={"boxstyle": "round,pad=0.35", "fc": "white", "ec": "0.4"},
        )  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(-len(rooms) + 0.5, 0.5))
    ax.set_axis_off()
    mpl.rcParams["svg.hashsalt"] = "adatom"  # the same drawing for the same imports
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _imports(graph: Any, upper: str, lower: str) -> bool:
    def modules(room: str) -> set[str]:
        name = f"adatom.{room}"
        return {name, *graph.find_descendants(name)}

    below = modules(lower)
    return any(below & graph.find_modules_directly_imported_by(m) for m in modules(upper))
