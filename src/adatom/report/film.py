"""The film of a move: frames, atoms, the place of the beam, its signal, and the decisions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from adatom.core import Frame
from adatom.core.arrays import FloatArray
from adatom.report.colours import colour_of
from adatom.report.images import smoothed_picture
from adatom.report.markup import Html, count, element, join, number, section

_EDGE_PX = 384  # longest edge of a picture, pixels
_MOST_POINTS = 2400  # points of the signal: two for each pixel of a wide screen
_LEAST_STEP_S = 0.01  # s: a point holds two time slices or more
_LONGEST_S = 24.0  # s: longer films run faster
_SPEEDS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)


@dataclass(frozen=True, slots=True, eq=False)
class FilmFrame:
    """A frame of the film.

    Parameters
    ----------
    start_s, seconds
        When its scan began, and how long it took, s.
    frame
        The image.
    corner_xy_A
        Centre of its first pixel, without drift, x and y, Å.
    xy_A
        Its atoms without drift, shape (atom, 2), Å.
    elements
        Their elements, shape (atom,).
    """

    start_s: float
    seconds: float
    frame: Frame
    corner_xy_A: tuple[float, float]
    xy_A: FloatArray
    elements: Sequence[str]


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision.

    Parameters
    ----------
    time_s
        When, s.
    kind
        ``look``, ``seen``, ``plan``, ``park``, ``jump``, ``knocked``, ``lost``, ``fault``,
        ``limit`` or ``end``.
    words
        The decision.
    """

    time_s: float
    kind: str
    words: str


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """What a film shows; all places are without drift, Å.

    Parameters
    ----------
    title
        What was done, in a few words.
    element
        Element of the atoms that were moved.
    frames
        The first one is the stage.
    signal
        Shape (slice, 4): time at its end, s; counts, NaN where the detector was not read; x and y
        of the beam.
    slice_s
        Duration of a time slice, s.
    ways
        Each goal: when it was set, and the way to it, shape (site, 2).
    places
        Each place of an atom: from when on, number of the atom, x and y.
    decisions
        In turn.
    seconds
        Duration, s.
    """

    title: str
    element: str
    frames: Sequence[FilmFrame]
    signal: FloatArray
    slice_s: float
    ways: Sequence[tuple[float, FloatArray]]
    places: Sequence[tuple[float, int, float, float]]
    decisions: Sequence[Decision]
    seconds: float


def film_data(film: Film) -> dict[str, Any]:
    """Turn a film into plain types that can be written as JSON."""
    first = film.frames[0]
    px = first.frame.calibration.pixel_size_A
    names = sorted({e for f in film.frames for e in f.elements}, key=lambda e: e == film.element)
    wanted = film.seconds / _LONGEST_S
    return {
        "title": film.title,
        "seconds": math.ceil(1e3 * film.seconds) / 1e3,  # not before the end of the last frame
        "speed": next((s for s in _SPEEDS[1:] if s >= wanted), _SPEEDS[-1]),
        "stage": _box(first),
        "bar_A": 5.0 if px * first.frame.shape[1] > 15.0 else 2.0,
        "element": film.element,
        "elements": [[name, colour_of(name, names)] for name in names],
        "frames": [
            {
                "t": round(f.start_s, 4),
                "s": round(f.seconds, 4),
                "box": _box(f),
                "src": smoothed_picture(f.frame, _EDGE_PX),
                "xy": np.asarray(f.xy_A).reshape(-1, 2).round(2).tolist(),
                "e": [names.index(e) for e in f.elements],
            }
            for f in film.frames
        ],
        "signal": _thinned(film.signal, film.seconds),
        "slice_ms": round(1e3 * film.slice_s, 3),
        "ways": [[round(t, 4), np.asarray(way).round(3).tolist()] for t, way in film.ways],
        "places": [[round(t, 4), n, round(x, 3), round(y, 3)] for t, n, x, y in film.places],
        "decisions": [[round(d.time_s, 4), d.kind, d.words] for d in film.decisions],
    }


def film_section(data: Mapping[str, Any]) -> Html:
    """Make the section of a page that holds a film; without scripts it shows its last frame.

    Parameters
    ----------
    data
        As `film_data` gives it.
    """
    x, y, width, height = data["stage"]
    stage = element(
        "svg", element("g", class_="shots"), element("g", class_="over"),
        viewBox=f"{x:.4f} {y:.4f} {width:.4f} {height:.4f}", role="img",
        aria_label="The specimen with the moved atom and the beam",
    )  # fmt: skip
    last = data["frames"][-1]
    still = element("img", src=last["src"], alt="The last frame", class_="still")
    bar = element("div", f"{data['bar_A']:g} Å", class_="bar",
                  style=f"width:{100 * data['bar_A'] / width:.2f}%")  # fmt: skip
    now = element("output", class_="now")
    controls = element(
        "div",
        element("button", "Play", type="button", data_do="play", class_="play"),
        element("input", type="range", min="0", max="1000", value="0", class_="seek",
                aria_label="Time"),
        element("output", class_="clock"),
        element("button", "", type="button", data_do="speed", class_="speed",
                aria_label="Speed of the film"),
        class_="reel",
    )  # fmt: skip
    chart = element("canvas", class_="trace", role="img",
                    aria_label="Signal of the parked beam over time")  # fmt: skip
    unit = f"Detected counts in {data['slice_ms']:g} ms while the beam is parked; lines: jumps."
    items = [
        element(
            "li",
            element("button", element("b", f"{number(t, 2)} s"), element("span", words),
                    type="button", data_time=f"{t:.4f}"),
            class_=kind,
        )
        for t, kind, words in data["decisions"]
    ]  # fmt: skip
    told = element(
        "div",
        element("figure", chart, element("figcaption", unit)),
        element("ol", *items, class_="decisions", tabindex="0", aria_label="Decisions"),
        class_="told",
    )
    text = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")
    script = Html(f'<script type="application/json" id="film-data">{text}</script>\n')
    seen = element("div", element("div", stage, still, bar, now, class_="stage"), controls,
                   _legend(data))  # fmt: skip
    frames = f"{count(len(data['frames']), 'frame')}, {number(data['seconds'], 1)} s"
    note = element("p", f"{data['title']} ({frames} of the microscope's time).", class_="lead")
    box = element("div", seen, told, script, class_="film", tabindex="0", aria_label="Film")
    return section("film", "The move", note, box)


def film_script() -> str:
    """The script of the film."""
    return files("adatom.report").joinpath("film.js").read_text(encoding="utf-8")


def _legend(data: Mapping[str, Any]) -> Html:
    marks = [
        ("beam", "beam"), ("here", f"{data['element']} as believed"), ("route", "way and goal"),
        ("scanned", "scanned last"),
    ]  # fmt: skip
    return element(
        "p", *(join([element("span", element("i", class_=k), text)]) for k, text in marks),
        class_="legend",
    )  # fmt: skip


def _box(shot: FilmFrame) -> list[float]:
    """Left, top, width and height of a frame, Å."""
    px = shot.frame.calibration.pixel_size_A
    rows, cols = shot.frame.shape
    x, y = shot.corner_xy_A
    return [round(v, 4) for v in (x - px / 2, y - px / 2, cols * px, rows * px)]


def _thinned(signal: FloatArray, seconds: float) -> dict[str, Any]:
    """Average the time slices of the signal over equal steps; steps without any are left out."""
    step = max(_LEAST_STEP_S, seconds / _MOST_POINTS)
    if not len(signal):
        return {"step": step, "t": [], "c": [], "x": [], "y": []}
    bins = np.floor(signal[:, 0] / step).astype(int)
    which, group = np.unique(bins, return_inverse=True)
    n = np.bincount(group)
    mean = [np.bincount(group, weights=np.nan_to_num(signal[:, k])) / n for k in (1, 2, 3)]
    dark = bool(np.isnan(signal[:, 1]).any())
    return {
        "step": round(step, 5),
        "t": ((which + 0.5) * step).round(4).tolist(),
        "c": [] if dark else mean[0].round(1).tolist(),
        "x": mean[1].round(3).tolist(),
        "y": mean[2].round(3).tolist(),
    }
