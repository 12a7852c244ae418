"""Make the film of a move from its record, its frames and its dwells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adatom.campaign.move_words import in_words
from adatom.campaign.moved import Moved
from adatom.core.arrays import FloatArray
from adatom.report.film import Decision, Film, FilmFrame
from adatom.report.words import capital


def film_of(moved: Moved, lines: Sequence[Mapping[str, Any]]) -> Film:
    """Gather what a film shows.

    Parameters
    ----------
    moved
        Result of the move.
    lines
        Its record, complete.
    """
    seen = {line["frame"]: line for line in lines if line["action"] == "seen"}
    element = next(iter(seen.values()))["element"]
    drift: Sequence[float] = (0.0, 0.0)
    frames = []
    for n, shot in enumerate(moved.frames):
        line = seen.get(n)
        # A frame that was not used, or only kept, lies where the last one that was says.
        drift = moved.drift_xy_A if n > max(seen) else line["drift_xy_A"] if line else drift
        corner = shot.request.to_specimen(np.zeros(2)) - np.asarray(drift)
        frames.append(
            FilmFrame(
                shot.start_s, shot.seconds, shot.frame, (float(corner[0]), float(corner[1])),
                np.array(line["xy_A"] if line else []).reshape(-1, 2),
                line["elements"] if line else [],
            )
        )  # fmt: skip
    knocks = next((line for line in lines if line["action"] == "plan" and line["knock"]), None)
    jumps = [line for line in lines if line["action"] == "jump"]
    began = min(line["time_s"] for line in seen.values())
    paths = moved.paths_xy_A[:-1] if knocks else moved.paths_xy_A
    places = [(began, n, *path[0]) for n, path in enumerate(paths)]
    places += [(j["time_s"], j["atom"], *j["end_xy_A"]) for j in jumps]
    return Film(
        title=_title(moved, knocks["element"] if knocks else element, knocks=knocks is not None),
        element=element,
        frames=frames,
        signal=_signal(moved),
        slice_s=moved.dwells[0].trace.slice_s if moved.dwells else 0.0,
        ways=[(x["time_s"], np.array(x["way_xy_A"])) for x in lines if x["action"] == "plan"],
        places=sorted(places),
        decisions=[Decision(x["time_s"], x["action"], capital(in_words(x))) for x in lines],
        seconds=moved.seconds,
    )


def _title(moved: Moved, element: str, *, knocks: bool) -> str:
    hops = sum(len(path) - 1 for path in moved.paths_xy_A)
    what = "a vacancy" if knocks else f"the move of the {element}"
    done = f"The {element} was moved by {hops} {'hop' if hops == 1 else 'hops'}"
    told = {
        "done": f"One {element} was knocked out" if knocks else done,
        "given up": f"Given up: {what}; {moved.reason}",
        "stopped": f"Stopped: {what}",
    }
    return told[moved.status] + (" with the electron beam" if moved.status == "done" else "")


def _signal(moved: Moved) -> FloatArray:
    """Time, counts and place of the beam without drift, of every time slice, shape (slice, 4)."""
    parts = []
    for d in moved.dwells:
        n = len(d.trace.counts)
        times = d.start_s + d.trace.slice_s * np.arange(1, n + 1)
        parts.append(np.column_stack([times, d.trace.counts, np.tile(d.xy_A, (n, 1))]))
    return np.concatenate([np.zeros((0, 4)), *parts])
