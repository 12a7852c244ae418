"""A move as the command line runs it: instrument, networks, the record and the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from adatom.analysis.frame import analyse_frame
from adatom.campaign.acting import Approve
from adatom.campaign.arguments import ALONG_C, read_ensemble
from adatom.campaign.keep import keep_movie, keeper
from adatom.campaign.move import move_atoms
from adatom.campaign.move_film import film_of
from adatom.campaign.moved import Moved
from adatom.core import Material
from adatom.feedback.moving import MoveOptions
from adatom.feedback.plans import Plan
from adatom.instrument.protocol import find_instrument, what_it_cannot
from adatom.report.film import film_data
from adatom.report.move_picture import move_figure, write_move_picture
from adatom.report.report import move_page
from adatom.report.words import capital
from adatom.store.journal import Journal
from adatom.store.tables import write_json, write_text

Mode = Literal["watch", "confirm", "auto"]
RECORD, PICTURE, RESULT = "decisions.jsonl", "move.png", "move.json"
FILM, PAGE = "film.json", "report.html"
LAST_FRAMES = "after-the-move.npz"  # the frames of the field after the move, as one movie


def run_move(
    name: str,
    material: Material,
    plan: Plan,
    directory: Path,
    *,
    approve: Approve | Mapping[Mode, Approve],
    element: str = "Si",
    seed: int = 0,
    instrument_options: BaseModel | None = None,
    options: MoveOptions | None = None,
    tell: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Moved:
    """Move atoms on an instrument; write the record while it runs, then result, page and picture.

    Parameters
    ----------
    name
        Registered name of the instrument.
    material, plan, element, options
        As of `adatom.campaign.move.move_atoms`.
    approve
        As there; or one for each mode, of which ``auto`` is taken on a simulated instrument and
        ``watch`` on a real one.
    directory
        Where to write; it must not hold the record of another move.
    seed
        Seed of a simulated instrument.
    instrument_options
        As of the instrument; None for its defaults.
    tell
        Called with every decision.

    Raises
    ------
    BadInput
        As of `move_atoms`; or if the instrument, its options or the directory cannot be used.
    """
    instrument = find_instrument(name)
    chosen = instrument_options or instrument.options_type()
    ensemble = read_ensemble(material, ALONG_C, None)
    with Journal(directory / RECORD) as journal:
        lines: list[dict[str, Any]] = []

        def record(decision: dict[str, Any]) -> None:
            journal.write(decision)
            lines.append(decision)
            tell(decision)

        microscope = instrument.open(chosen, material, seed=seed)
        if not callable(approve):
            approve = approve["auto" if microscope.capabilities.simulated else "watch"]
        for note in what_it_cannot(microscope.capabilities):
            record({"time_s": 0.0, "action": "note", "what": note})
        moved = move_atoms(
            microscope, partial(analyse_frame, ensemble=ensemble, material=material), material,
            plan, element=element, options=options, approve=approve, tell=record,
        )  # fmt: skip
    _write(moved, lines, material, directory, options or MoveOptions())
    return moved


def _write(
    moved: Moved,
    lines: Sequence[dict[str, Any]],
    material: Material,
    directory: Path,
    options: MoveOptions,
) -> None:
    """Write frames, film, page and picture, and at the end the result."""
    keep = keeper(directory)
    for n, seen in enumerate(moved.frames):
        keep(n, seen.frame)
    if options.last_frames:
        after = moved.frames[-options.last_frames :]
        keep_movie(directory / LAST_FRAMES, [seen.frame for seen in after])
    film = film_of(moved, lines)
    data = film_data(film)
    write_json(directory / FILM, data)
    knocks = any(line["action"] == "plan" and line["knock"] for line in lines)
    what = f"a vacancy of {material.host}" if knocks else f"move of {film.element}"
    title = f"{material.name[:1].upper()}{material.name[1:]}: {what}"
    told = f"{capital(moved.status)}: {moved.reason}."
    write_text(directory / PAGE, move_page(title, told, data))
    used = [f for f in film.frames if len(f.xy_A)]
    path, shots = np.array(moved.path_xy_A), (used[0], used[-1])
    figure = move_figure(
        shots[0].frame, shots[1].frame, [path - np.asarray(f.corner_xy_A) for f in shots],
        moved.trace, [line["time_s"] for line in lines if line["action"] == "jump"],
    )  # fmt: skip
    write_move_picture(figure, directory / PICTURE)
    write_json(directory / RESULT, summary(moved))


def summary(moved: Moved) -> dict[str, Any]:
    """Give the result in plain types, lengths in Å."""
    return {
        "status": moved.status,
        "reason": moved.reason,
        "hops": len(moved.path_xy_A) - 1,
        "path_xy_A": _rounded(moved.path_xy_A),
        "paths_xy_A": [_rounded(path) for path in moved.paths_xy_A],
        "seconds": round(moved.seconds, 3),
        "frames": moved.looks,
        "electrons": moved.electrons,
        "rate_over_prior": round(moved.rate, 3),
    }


def _rounded(path: Sequence[tuple[float, float]]) -> list[list[float]]:
    return [[round(x, 3), round(y, 3)] for x, y in path]
