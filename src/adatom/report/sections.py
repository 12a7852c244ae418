"""The sections on the frames: summary, frames with atoms, defects."""

from __future__ import annotations

import math

import numpy as np

from adatom.core import DefectKind, Frame
from adatom.report import defect_figures, figures
from adatom.report.facts import UNCERTAIN_P, Track, median_sigma, tracks
from adatom.report.markup import Html, count, element, join, number, picture, table
from adatom.report.summary import all_warnings, key_numbers, sentences
from adatom.report.view import CampaignView

_MOST_TABLE_ROWS = 60  # rows of the table of tracks, a count; the rest is in defects.parquet


def section(anchor: str, place: int, title: str, *children: str) -> Html:
    """Make one numbered section."""
    head = element("h2", element("span", str(place), class_="place"), title)
    return element("section", head, *children, id=anchor)


def not_done(text: str, command: str) -> Html:
    """Paragraph that names a missing result and the command that makes it."""
    return element("p", f"{text} ", element("code", command), " does it.", class_="missing")


def found(view: CampaignView) -> Html:
    """Section 1: warnings, findings and key numbers."""
    tiles = join(
        element("div", element("b", value), element("span", what))
        for value, what in key_numbers(view)
    )
    texts = sentences(view)
    lead = element("p", texts[0], class_="lead")
    rest = element("ul", *(element("li", t) for t in texts[1:]), class_="findings")
    return section("found", 1, "What was found", _warnings(view), lead, rest,
                   element("div", tiles, class_="tiles"))  # fmt: skip


def _warnings(view: CampaignView) -> Html:
    texts = all_warnings(view)
    if not texts:
        return Html("")
    items = element("ul", *(element("li", t) for t in texts))
    head = element("h3", count(len(texts), "warning"))
    return element("div", head, items, class_="warnings", role="note")


def frames(view: CampaignView) -> Html:
    """Section 2: frames with their atoms, the ensemble's maps, the lattice."""
    parts: list[str] = []
    if len(view.atoms) == 0:
        parts.append(not_done("No atoms have been found yet.", "adatom find FRAMES…"))
    if view.frames:
        shown = element("div", *(_one_frame(view, f) for f in view.frames), class_="frames")
        parts.append(shown)
    else:
        parts.append(element("p", "No frame was chosen to be shown.", class_="missing"))
    overview: list[str] = []
    if len(view.atoms):
        overview.append(
            picture(
                figures.atoms_per_frame(view),
                "Number of atoms of each element, and their position uncertainty, by frame",
                "Atoms of each element (logarithmic above 1) and the standard deviation of their "
                "positions per axis in every frame. Line: median over the atoms; band: from the "
                "25th to the 75th percentile of the atoms.",
            )
        )
    if view.lattice.height:
        overview.append(
            picture(
                figures.lattice_over_frames(view),
                "Principal stretches of the scan and scatter about the lattice, by frame",
                "Distortion of the scan that was removed before any supercell was built, and the "
                "root-mean-square distance per axis of matched atoms from their lattice sites. "
                "No uncertainty of the fit is shown.",
            )
        )
    if overview:
        parts.append(element("div", *overview, class_="grid"))
    if view.lattice.height:
        parts.append(_lattice_table(view))
    return section("frames", 2, "Frames and atoms", *parts)


def _one_frame(view: CampaignView, frame: Frame) -> Html:
    elements = view.element_order()
    atoms, maps = view.atoms.of_frame(frame.index), view.maps_of(frame.index)
    uncertain = int(np.sum(atoms.column("p_exists") < UNCERTAIN_P)) if len(atoms) else 0
    sigma = number(median_sigma(atoms), 3)
    boxes = view.ood_regions.get(frame.index, ())
    hatched = " Hatched: out of the distribution of the training data." if boxes else ""
    overlay = picture(
        figures.frame_atoms(frame, atoms, elements, boxes),
        f"Frame {frame.index}, smoothed, with {len(atoms)} atoms marked",
        f"Atoms on the frame smoothed by a Gaussian of {figures.SMOOTHING_A} Å, grey scale raised "
        f"to the power {figures.GAMMA} so that the host shows beside brighter atoms. Rings mark "
        "elements and have no size of their own; filled ellipses are the 2σ region of each "
        f"position, true to scale (median σ {sigma} Å per axis). Dashed rings: existence "
        f"probability below {UNCERTAIN_P} ({uncertain} of {len(atoms)}).{hatched}",
    )
    raw = picture(
        figures.frame_image(frame),
        f"Frame {frame.index} as recorded",
        "The frame as recorded, grey values stretched from the 0.5th to the 99.5th percentile.",
        pixels=True,
    )
    panels = [overlay, raw]
    if maps is not None:
        mean = picture(
            figures.map_mean(maps, elements),
            f"Mean probability maps of frame {frame.index}",
            "Mean over the members of the ensemble of the probability that an atom's centre "
            "lies here, in the colour of its element.",
        )
        std = picture(
            figures.map_std(maps),
            f"Standard deviation between members for frame {frame.index}",
            "Standard deviation of that probability between the members (root of the sum of "
            "squares over the elements): where the networks disagree.",
        )
        panels += [mean, std]
    else:
        panels.append(element("p", "This frame has no maps.", class_="missing"))
    title = element("h3", f"Frame {frame.index}")
    return element("article", title, element("div", *panels, class_="grid"), class_="frame",
                   data_name=f"Frame {frame.index}")  # fmt: skip


def _lattice_table(view: CampaignView) -> Html:
    shown = {f.index for f in view.frames}
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
        for r in view.lattice.iter_rows(named=True)
        if r["frame"] in shown
    ]
    head = (
        "Frame", "Pixel (Å)", "Scale x", "Scale y", "Principal stretch (%)", "Angle (°)",
        "rms (Å)", "Matched (%)",
    )  # fmt: skip
    title = element("h3", "Lattice of the shown frames")
    return join([title, table(head, rows)]) if rows else Html("")


def _percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else number(100.0 * value, digits)


def defects(view: CampaignView) -> Html:
    """Section 3: defects over time."""
    title = "Defects over time"
    if len(view.defects) == 0:
        if len(view.atoms):
            text = "No defect was named in any frame."
            return section("defects", 3, title, element("p", text, class_="missing"))
        return section("defects", 3, title, not_done("No defects yet.", "adatom run FRAMES…"))
    rows = tracks(view.defects)
    linked = [t for t in rows if t.number is not None]
    hidden = len(rows) - defect_figures.MOST_ROWS
    more = f" {hidden} shorter rows are left out." if hidden > 0 else ""
    parts = [
        picture(
            defect_figures.timeline(rows, view.frame_count),
            "Timeline of defects: one row a track, coloured by kind",
            "Every row is one defect, followed from frame to frame. Colour is its kind in that "
            "frame, opacity the probability that it is there and is of this kind; an empty cell "
            f"means that it was not found.{more}",
            wide=True,
        )
    ]
    side: list[str] = []
    if linked:
        side.append(
            picture(
                defect_figures.paths(linked),
                "Path of the defects through the field of view, coloured by frame",
                "Centres of the longest tracks in the axes of the frames (y down). Drift of the "
                "specimen and of the scan is part of this motion; no position uncertainty is "
                "drawn.",
            )
        )
    parts.append(_kinds_explained(rows))
    listed = rows[:_MOST_TABLE_ROWS]
    side.append(element("div", element("h3", "Tracks"), _track_table(listed)))
    parts.append(element("div", *side, class_="grid"))
    return section("defects", 3, title, *parts)


def _kinds_explained(rows: list[Track]) -> Html:
    """Paragraph that explains the names of the kinds, the most probable kinds first."""
    named = [(name, DefectKind.parse_or_none(name)) for name in defect_figures.kind_order(rows)]
    words = [f"{name}: {kind.describe()}" for name, kind in named if kind is not None]
    return element("p", "; ".join(words), class_="note")


def _track_table(rows: list[Track]) -> Html:
    head = ("Track", "Kinds (share)", "Origin", "Frames", "Mean p", "Net (Å)", "p(beam)")
    body = [
        (
            "–" if t.number is None else str(t.number),
            _kind_shares(t),
            t.origin or "–",
            f"{t.frames.min()}–{t.frames.max()} ({len(np.unique(t.frames))})",
            number(float(np.nanmean(t.p)) if np.isfinite(t.p).any() else math.nan),
            "–" if t.number is None else number(t.net_A),
            number(t.p_beam),
        )
        for t in rows
    ]
    return table(head, body, words=3)


def _kind_shares(track: Track) -> str:
    names, counts = np.unique(track.kinds, return_counts=True)
    order = np.argsort(-counts)[:4]
    if len(names) == 1:
        return str(names[0])
    return ", ".join(f"{names[n]} {100 * counts[n] / counts.sum():.0f} %" for n in order)
