"""A move as the command line runs it: instrument, networks, the record and the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from adatom.analysis.frame import analyse_frame
from adatom.campaign.acting import Approve
from adatom.campaign.arguments import ALONG_C, read_ensemble
from adatom.campaign.instrument_options import instrument_options
from adatom.campaign.move import Moved, move_atom
from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.feedback.moving import MoveOptions
from adatom.instrument.protocol import find_instrument
from adatom.report.move_picture import move_figure, write_move_picture
from adatom.store.journal import Journal
from adatom.store.tables import write_json

Mode = Literal["watch", "confirm", "auto"]
RECORD, PICTURE, RESULT = "decisions.jsonl", "move.png", "move.json"


def run_move(
    name: str,
    material: Material,
    by_A: Sequence[tuple[float, float]],
    directory: Path,
    *,
    approve: Approve,
    element: str = "Si",
    seed: int = 0,
    options_file: Path | None = None,
    options: MoveOptions | None = None,
    tell: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Moved:
    """Move an atom on an instrument; write the record while it runs, then result and picture.

    Parameters
    ----------
    name
        Registered name of the instrument.
    material, by_A, approve, element, options
        As of `adatom.campaign.move.move_atom`.
    directory
        Where to write; it must not hold the record of another move.
    seed
        Seed of a simulated instrument.
    options_file
        TOML file with the instrument's options; None for its defaults.
    tell
        Called with every decision.

    Raises
    ------
    BadInput
        As of `move_atom`; or if the instrument, its options or the directory cannot be used.
    """
    instrument = find_instrument(name)
    chosen = instrument_options(instrument, options_file)
    ensemble = read_ensemble(material, ALONG_C, None)
    with Journal(directory / RECORD) as journal:
        jumps: list[float] = []

        def record(decision: dict[str, Any]) -> None:
            journal.write(decision)
            if decision["action"] == "jump":
                jumps.append(decision["time_s"])
            tell(decision)

        microscope = instrument.open(chosen, material, seed=seed)
        moved = move_atom(
            microscope, lambda frame: analyse_frame(frame, ensemble, material), material, by_A,
            element=element, options=options, approve=approve, tell=record,
        )  # fmt: skip
    write_json(directory / RESULT, summary(moved))
    figure = move_figure(moved.first.frame, moved.last.frame, _ways(moved), moved.trace, jumps)
    write_move_picture(figure, directory / PICTURE)
    return moved


def summary(moved: Moved) -> dict[str, Any]:
    """Give the result in plain types, lengths in Å."""
    return {
        "status": moved.status,
        "reason": moved.reason,
        "hops": len(moved.path_xy_A) - 1,
        "path_xy_A": [[round(x, 3), round(y, 3)] for x, y in moved.path_xy_A],
        "seconds": round(moved.seconds, 3),
        "frames": moved.looks,
        "electrons": moved.electrons,
        "rate_over_prior": round(moved.rate, 3),
    }


def needs_approval(name: str, material: Material, options_file: Path | None) -> bool:
    """Whether the instrument is real: then nothing is moved without being told."""
    instrument = find_instrument(name)
    opened = instrument.open(instrument_options(instrument, options_file), material)
    return not opened.capabilities.simulated


def _ways(moved: Moved) -> tuple[FloatArray, FloatArray]:
    """The path in the axes of the first and of the last frame, Å."""
    path = np.array(moved.path_xy_A)
    first, last = (seen.request.to_specimen(np.zeros(2)) for seen in (moved.first, moved.last))
    return path - first, path + np.asarray(moved.drift_xy_A) - last
