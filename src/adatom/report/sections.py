"""The sections on defects and frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adatom.report import frame_charts
from adatom.report.facts import Track
from adatom.report.markup import Html, element, folded, join, number, section, table
from adatom.report.stories import Story, certainty, deeds, place_of
from adatom.report.timeline import MOST_ROWS, kinds_key, timeline
from adatom.report.transitions import transition_figure
from adatom.report.view import CampaignView
from adatom.report.viewer import RankedDefect, kind_colours
from adatom.report.words import alternatives_in_words, capital, probability

_MOST_TABLE_ROWS = 200  # rows of a table, a count; the rest is in the campaign's tables


def not_done(text: str, command: str) -> Html:
    """Paragraph that names a missing result and the command that makes it."""
    return element("p", f"{text} ", element("code", command), " does it.", class_="missing")


def defects(view: CampaignView, told: Sequence[Story]) -> Html:
    """Every defect: over time where there is time, and in a table."""
    title = "Defects"
    seen = [(s, s.track) for s in told if s.track is not None]
    if not seen:
        text = "No defect was named in any frame."
        missing = (
            element("p", text, class_="missing")
            if len(view.atoms)
            else not_done("No defects yet.", "adatom run FRAMES…")
        )
        return section("defects", title, missing)
    parts: list[Html] = []
    if view.frame_count > 1:
        ranked = [RankedDefect(s.rank, track, s.words) for s, track in seen]
        parts.append(_over_time(ranked, view.frame_count))
        parts.append(transition_figure(view.transitions, kind_colours(ranked)))
    parts.append(_table(view, seen[:_MOST_TABLE_ROWS]))
    if view.tracks.height:
        parts.append(folded("What made them", _origins(view, seen[:_MOST_TABLE_ROWS])))
    if len(seen) > _MOST_TABLE_ROWS:
        parts.append(element("p", f"{len(seen) - _MOST_TABLE_ROWS} more are in defects.parquet."))
    return section("defects", title, *parts)


def _over_time(rows: Sequence[RankedDefect], frame_count: int) -> Html:
    hidden = len(rows) - MOST_ROWS
    more = f" {hidden} rarer ones are in the table alone." if hidden > 0 else ""
    caption = (
        "One row a defect, by its number. Colour is its kind in that frame, full where p is 0.9 or "
        f"more and pale below 0.5; empty where it was not found. Choose a cell to see it.{more}"
    )
    drawing = timeline(rows, frame_count)
    return element("figure", kinds_key(rows), drawing, element("figcaption", caption))


def _table(view: CampaignView, seen: Sequence[tuple[Story, Track]]) -> Html:
    one = view.frame_count == 1
    head = ["", "Defect", "Kind", "How sure", "x (Å)", "y (Å)"]
    head += [] if one else ["Frames", "What it did"]
    body = []
    for story, track in seen:
        k = int(np.argmax(np.nan_to_num(track.p)))
        name = element("a", capital(story.words), href="#found", data_go=place_of(track))
        x, y = track.xy[k]
        sure = probability(float(track.p[k])) if one else certainty(view, track)
        other = alternatives_in_words(track.alternatives[k], view.material)
        sure = f"{sure}, {other}" if other else sure
        row = [str(story.rank), name, _kind_shares(track), sure, number(x), number(y)]
        row += [] if one else [f"{track.frames.min()}–{track.frames.max()}", deeds(view, story)]
        body.append(row)
    words = {1, 2, 3, 7}
    note = element(
        "p",
        "x and y: in the frame that shows it best, from the centre of the first pixel, x right and "
        "y down. Choose a name to see the place.",
        class_="note",
    )
    return join([table(head, body, words=words), note])


def _origins(view: CampaignView, seen: Sequence[tuple[Story, Track]]) -> Html:
    """Probabilities of what made each defect, with the reason."""
    rows = {r["track"]: r for r in view.tracks.iter_rows(named=True)}
    names = ("p_before", "p_came_in", "p_beam", "p_unknown")
    body = []
    for story, track in seen:
        row = rows.get(track.number) if track.number is not None else None
        if row is not None:
            shares = ["–" if row[name] is None else probability(row[name]) for name in names]
            body.append([str(story.rank), row["kind"], *shares, row["reason"]])
    head = ["", "Kind", "There before", "Came in", "Made by the beam", "By something else", "Why"]
    return table(head, body, words={1, 6})


def _kind_shares(track: Track) -> str:
    names, counts = np.unique(track.kinds, return_counts=True)
    order = np.argsort(-counts)[:4]
    if len(names) == 1:
        return str(names[0])
    return ", ".join(f"{names[n]} {100 * counts[n] / counts.sum():.0f} %" for n in order)


def frames(view: CampaignView) -> Html:
    """Numbers of the frames: atoms, uncertainty, lattice."""
    title = "Frames"
    parts: list[Html] = []
    if len(view.atoms) == 0:
        parts.append(not_done("No atoms have been found yet.", "adatom find FRAMES…"))
    overview: list[Html] = []
    if view.frame_count > 1 and len(view.atoms):
        overview += [frame_charts.atoms_per_frame(view), frame_charts.sigma_per_frame(view)]
    if view.frame_count > 1 and view.lattice.height:
        overview += [frame_charts.stretch_per_frame(view), frame_charts.scatter_per_frame(view)]
    if overview:
        parts.append(element("div", *overview, class_="grid"))
    if view.lattice.height:
        parts.append(folded("Lattice of every frame", _lattice_table(view)))
    return section("frames", title, *parts) if parts else Html("")


def _lattice_table(view: CampaignView) -> Html:
    rows = [
        (
            str(r["frame"]),
            number(r["pixel_size_A"], 4),
            number(r["scale_x"], 4),
            number(r["scale_y"], 4),
            f"{_percent(r['strain_1'])} / {_percent(r['strain_2'])}",
            number(r["angle_deg"], 1),
            number(r["rms_A"], 3),
            _percent(r["matched"], 0),
        )
        for r in view.lattice.head(_MOST_TABLE_ROWS).iter_rows(named=True)
    ]
    head = (
        "Frame", "Pixel (Å)", "Scale x", "Scale y", "Principal stretch (%)", "Angle (°)",
        "rms (Å)", "Matched (%)",
    )  # fmt: skip
    return table(head, rows)


def _percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else number(100.0 * value, digits)
