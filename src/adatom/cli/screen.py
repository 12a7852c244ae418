"""Output for the user: progress, warnings, errors and summaries."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from adatom.cli.options import error_with_options, with_options
from adatom.errors import AdatomError, BadInput, printable
from adatom.version import __version__

_stderr = Console(stderr=True)  # results go to stdout, progress and messages to stderr


@dataclass
class _Wishes:
    """What the user asked of the output of this command."""

    quiet: bool = False
    log: Path | None = None


_wishes = _Wishes()


def obey(*, quiet: bool, log: Path | None) -> None:
    """Set, for this command, whether progress is shown and which file records the messages.

    Parameters
    ----------
    quiet
        Show warnings and errors alone.
    log
        File to append to; None for none.

    Raises
    ------
    BadInput
        If the file cannot be written.
    """
    _wishes.quiet, _wishes.log = quiet, None if log is None else log.expanduser()
    try:
        _record(f"adatom {__version__}: {shlex.join(sys.argv[1:])}")
    except OSError as error:
        _wishes.log = None
        raise BadInput(
            "--log",
            expected="a file that can be written",
            got=f"{log}: {error.strerror or error}",
            todo="Name another file.",
        ) from error


def _record(text: str) -> None:
    """Append a line to the log, with the time (UTC)."""
    if _wishes.log is None:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with _wishes.log.open("a", encoding="utf-8") as file:
        file.write(f"{now} {printable(text)}\n")


class Screen:
    """Progress bars on stderr; plain lines if stderr is not a terminal.

    Parameters
    ----------
    is_stopped
        Whether the user has stopped the command; then the next progress raises
        `KeyboardInterrupt`.
    """

    def __init__(self, is_stopped: Callable[[], bool] = lambda: False) -> None:
        self._is_stopped = is_stopped
        self._bars = Bars(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=_stderr,
            disable=_wishes.quiet or not _stderr.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._bars.start()

    def start(self, step: str, total: int, done: int) -> None:
        """Begin a step of `total` items; `done` of them were finished by an earlier run."""
        self._check()
        self._tasks[step] = self._bars.add_task(step, total=total, completed=done)
        known = f", {done} known from before" if done else ""
        _record(f"{step}: {total} to do{known}")
        if not (_wishes.quiet or _stderr.is_terminal):
            _stderr.print(f"{step}: {total} to do{known}", highlight=False)

    def advance(self, step: str) -> None:
        """Count one item of a step."""
        self._check()
        self._bars.advance(self._tasks[step])

    def finish(self, step: str) -> None:
        """Draw a step as it ended."""
        self._check()
        _record(f"{step}: done")
        self._bars.update(self._tasks[step], refresh=True)

    def _check(self) -> None:
        if self._is_stopped():  # a library may have swallowed the exception of Ctrl-C
            raise KeyboardInterrupt

    def warn(self, text: str) -> None:
        """Show a warning above the bars."""
        warn(text)

    def close(self) -> None:
        """Stop drawing."""
        self._bars.stop()


def say(text: str) -> None:
    """Write a line to stderr, without markup; quiet commands keep it to the log."""
    _record(text)
    if not _wishes.quiet:
        _print(text)


def warn(text: str) -> None:
    """Write a warning to stderr."""
    _record(f"warning: {with_options(text)}")
    # Escaped, because brackets in a file's name are not markup.
    message = escape(printable(with_options(text)))
    _stderr.print(f"[yellow]warning:[/] {message}", highlight=False, soft_wrap=True)


def _print(text: str) -> None:
    _stderr.print(printable(text), highlight=False, soft_wrap=True, markup=False)


def show_error(error: AdatomError) -> None:
    """Write an error of adatom to stderr: its subject, expected, got, to do."""
    for label, text in error_with_options(error).items():
        _record(f"{label}: {text}")
        if label == "error":
            _stderr.print(f"[red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)
        else:
            _print(f"  {label:<9}{text}")


def show_summary(summary: dict[str, Any], *, as_json: bool) -> None:
    """Write the summary of a campaign to stdout."""
    if as_json:
        print(json.dumps(summary))
        return
    if _wishes.quiet:
        return
    out = Console(highlight=False, soft_wrap=True, markup=False)
    if summary["headline"] is not None:
        out.print(with_options(summary["headline"]))
    if "files" in summary:
        _show_batch(summary, out)
        return
    atoms = ", ".join(f"{n} {element}" for element, n in summary["elements"].items())
    out.print(f"{summary['frames']} frames, {summary['atoms']} atoms ({atoms})")
    if summary["bond_length_A"] is not None:
        out.print(
            f"neighbours are {summary['bond_length_A']:.3f} Å apart "
            f"({summary['undistorted_bond_length_A']:.3f} Å without the distortion of the scan)"
        )
    if summary["recorded"]:
        out.print(f"recorded at {summary['recorded']}")
    if (c := summary["contrast"]) is not None:
        out.print(
            f"{c['element']} is {c['ratio']:.2f} ± {c['ratio_sd']:.2f} times as bright as "
            f"{c['host']}: contrast goes with Z^{c['exponent']:.2f} ± {c['exponent_sd']:.2f}"
        )
    for kind, count in list(summary["defect_frames"].items())[:6]:
        out.print(printable(f"  {_seen(kind, count, summary.get('doubtful_defects', {}))}"))
    energies = summary.get("energies", ())
    whole = {row["structure"] for row in energies}
    for row in summary["relaxed"]:
        out.print(_relaxed(row, told_whole=row["structure"] in whole))
    for row in energies:
        narrowed = f"; {row['narrowed_by']} would narrow it most" if row["narrowed_by"] else ""
        out.print(printable(f"  {row['structure']}: formation energy {row['in_words']}{narrowed}"))
    for row in summary["dynamics"]:
        out.print(
            f"  dynamics at {row['temperature_K']:g} K: {row['runs']} runs, "
            f"measured {row['mean_temperature_K']:.0f} K"
            if row["runs"]
            else f"  dynamics at {row['temperature_K']:g} K: none finished"
        )
    out.print(printable(f"report: {summary['report']}"))


def _seen(kind: str, times: int, doubtful: dict[str, int]) -> str:
    """Say how often a defect was seen, and how much of that is doubtful."""
    told, doubt = "once" if times == 1 else f"{times} times", doubtful.get(kind, 0)
    if not doubt:
        return f"{kind}: seen {told}"
    return f"{kind}: suspected {told}, {'each' if doubt == times else doubt} in doubt (p < 0.5)"


def _relaxed(row: dict[str, Any], *, told_whole: bool) -> str:
    """Say draws and minima, and the energy where no line of its own tells it with its spread."""
    # The page's writer of numbers takes a second to import, and runs alone have it by now.
    from adatom.report.words import energy_difference, energy_in_words

    several, spread = row["minima"] > 1, row["energy_sd_eV"]
    mean, lowest = row["formation_energy_eV"], row["lowest_formation_energy_eV"]
    if row["draws"] == 1:
        told = "1 draw"
    else:
        ends = f"{row['minima']} minima" if several else "one minimum"
        told = f"{row['draws']} draws, {ends}"
    if mean is None or told_whole:
        apart = f", {energy_difference(spread)} apart (standard deviation)" if several else ""
        told += apart if told_whole else f"{apart}; formation energy {row['reference']}"
    elif several:
        told += (
            f", formation energy {energy_in_words(mean, spread)} (standard deviation over the "
            f"draws), lowest {energy_in_words(lowest)}"
        )
    else:
        told += f", formation energy {energy_in_words(lowest)}"
    return f"  {row['structure']} ({row['formula']}): {told}"


def _show_batch(summary: dict[str, Any], out: Console) -> None:
    for row in summary["files"]:
        name = Path(row["file"]).name
        if row["status"] == "done":
            found = row["defects"] or "no defect"
            out.print(f"{name}: {row['frames']} frames, {row['atoms']} atoms, {found}")
        else:
            out.print(f"{name}: {row['status']}")
    out.print(f"table: {summary['directory']}/results.csv")
    out.print(f"report: {summary['report']}")


def show_adaptation(adapted: dict[str, Any]) -> None:
    """Write a table of the rounds of an adaptation to stdout."""
    if _wishes.quiet:
        return
    table = Table(
        "round", "members kept", "labels kept, added, dropped", "F1 on validation frames", "passed"
    )
    for done in adapted["rounds"]:
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
    before, after = adapted["detection_limit_counts"]
    limits = ["at no dose" if v is None else f"down to {v:.3g} counts" for v in (before, after)]
    out.print(f"F1 of atoms is 0.95 {limits[0]} before, {limits[1]} after")
