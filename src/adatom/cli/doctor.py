"""The diagnosis of `adatom doctor`: engines, instruments, readers, defect namers, the device."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adatom import simulation
from adatom.core import GRAPHENE
from adatom.core.plugins import DEFECT_NAMERS, INSTRUMENTS, Plugin, registered
from adatom.errors import EngineMissing
from adatom.features.defects.base import DefectNamer
from adatom.frames.readers.base import registered_readers
from adatom.instrument import registered_instruments
from adatom.instrument.protocol import missing_modules
from adatom.learning.device import describe_device
from adatom.simulation.engines.base import Task, registered_engines

_MOST_SUFFIXES = 8  # suffixes of a reader shown in the table; --json has all of them

Row = dict[str, Any]


def diagnosis() -> dict[str, Any]:
    """Check every registered part; engines are loaded to find out whether they work.

    Returns
    -------
    Rows under ``engines``, ``instruments``, ``readers`` and ``defect_namers``, each with ``name``
    and ``package``, those of instruments with ``missing``: the extra to install, or an empty text;
    under ``failed`` the parts that cannot be used, with the reason; and
    ``device``. All of it is plain numbers, texts and lists.
    """
    groups = {
        "instruments": registered_instruments(),
        "readers": registered_readers(),
        "defect_namers": registered(DEFECT_NAMERS, DefectNamer),
    }
    parts = [*registered_engines(), *(found for group in groups.values() for found in group)]
    return {
        "engines": [asdict(row) for row in simulation.engine_status()],
        **{name: [_row(f) for f in group if not f.error] for name, group in groups.items()},
        "failed": [
            {"name": f.name, "group": f.group, "package": f.distribution, "error": f.error}
            for f in parts
            if f.error
        ],
        "device": describe_device(),
    }


def show(found: dict[str, Any], out: Console) -> None:
    """Print a diagnosis as tables."""
    table = Table("engine", "for", "here", "version", "package", "note")
    for column in table.columns[:4]:
        column.no_wrap = True
    for r in sorted(found["engines"], key=lambda row: not row["tasks"]):
        mark = "[green]yes[/]" if r["installed"] else "no"
        note = escape(r["note"])
        table.add_row(r["name"], ", ".join(r["tasks"]), mark, r["version"], _package(r), note)
    out.print(table)
    used = (
        "`auto` takes the first engine that is installed and fit for the structures: "
        f"for graphene {_chosen('relax')} relaxes, and {_chosen('dynamics')} runs dynamics."
    )
    out.print(used, markup=False, highlight=False, soft_wrap=True)
    missing = [r for r in found["engines"] if not r["installed"]]
    if missing:
        out.print("To install, one line each:")
    for r in missing:  # a table would wrap the command, and it could not be copied
        line = f"  {r['name'] + ':':<18}{r['install']}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    for title, group in (
        ("instrument", "instruments"),
        ("reader", "readers"),
        ("defect namer", "defect_namers"),
    ):
        if not found[group]:
            continue
        table = Table(title, "what it is", "package")
        for r in found[group]:
            about = escape(" ".join([r["summary"], _short(r.get("suffixes", []))]).strip())
            if r.get("missing"):
                about += f" [yellow]({escape(r['missing'])})[/]"
            table.add_row(r["name"], about, _package(r))
        out.print(table)
    for r in found["failed"]:
        text = f"{r['package']}: {r['group']} {r['name']} cannot be used: {r['error']}"
        out.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
    out.print(f"{found['device']}.", markup=False, highlight=False, soft_wrap=True)


def _row(found: Plugin) -> Row:
    lines = (found.value.__doc__ or "").strip().splitlines()
    row = {
        "name": found.name,
        "package": found.distribution,
        "summary": getattr(found.value, "summary", lines[0] if lines else ""),
    }
    if hasattr(found.value, "suffixes"):
        row["suffixes"] = list(found.value.suffixes())
    if found.group == INSTRUMENTS:
        row["missing"] = ""
        if missing_modules(found.value):
            row["missing"] = f"not here: pip install 'adatom[{found.value.extra}]'"
    return row


def _package(row: Row) -> str:
    """Name of the package without its version."""
    return str(row["package"]).partition(" ")[0]


def _short(suffixes: list[str]) -> str:
    more = len(suffixes) - _MOST_SUFFIXES
    first = " ".join(suffixes[:_MOST_SUFFIXES])
    return f"({first} and {more} more)" if more > 0 else f"({first})" if first else ""


def _chosen(kind: Task) -> str:
    """Engine of graphene by default, or ``none``."""
    try:
        return simulation.engine_for("auto", kind, [], GRAPHENE)
    except EngineMissing:
        return "none"
