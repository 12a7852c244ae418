"""The viewer of frames: pictures, rings round the defects, and the data of its script."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from adatom.core import Advice, AtomTable, Frame
from adatom.core.arrays import FloatArray
from adatom.report.colours import KINDS, OTHER, colour_of
from adatom.report.facts import UNCERTAIN_P, Track
from adatom.report.images import (
    disagreement_picture,
    largest_disagreement,
    recorded_picture,
    smoothed_picture,
)
from adatom.report.markup import Html, element, join
from adatom.report.view import CampaignView

# Bytes of all pictures, and of all atoms, in a page: with a megabyte for the rest it stays below 5.
_PICTURE_BYTES, _ATOM_BYTES = 2_600_000, 1_300_000
# Longest edges tried for the pictures, pixels; the first that fits into the bytes is taken.
_EDGES_PX = (640, 480, 360, 256, 180, 128)
# Å: a ring's distance from the outermost atom of its defect, its least radius, and the radius from
# which the atoms are marked one by one, since a ring would circle half of the frame.
_ROOM_A, _LEAST_RING_A, _LARGEST_RING_A = 0.9, 1.7, 9.0
_WIDTH_PX = 600  # width of the viewer on a screen, for sizes before the script runs
_BADGES = 40  # defects of a frame that carry their number; with more, numbers would hide the atoms


@dataclass(frozen=True, slots=True, eq=False)
class RankedDefect:
    """A defect with its number on the page.

    Parameters
    ----------
    rank
        Number on the page, from 1.
    track
        The defect in every frame that shows it.
    words
        Its name in plain words.
    """

    rank: int
    track: Track
    words: str


def first_frame(view: CampaignView) -> int:
    """Choose the frame to show first: one that was simulated, else the one with most defects."""
    numbers = set(view.frame_numbers)
    for structure in view.structures:
        if structure.frame in numbers:
            return structure.frame
    table = view.defects.data
    weight = dict.fromkeys(view.frame_numbers, 0.0)
    for frame, p in table.select("frame", "p").iter_rows():
        if frame in weight:
            weight[frame] += p or 0.0
    return max(weight, key=lambda f: weight[f]) if weight else -1


def viewer(view: CampaignView, defects: Sequence[RankedDefect]) -> Html:
    """Make the viewer; without scripts and in print it shows one frame with its defects.

    Parameters
    ----------
    view
        The campaign; a page without frames has no viewer.
    defects
        All defects with their numbers.
    """
    if not view.frame_numbers:
        return element("p", "No frame can be shown.", class_="missing")
    start = first_frame(view)
    frame = view.frames[start]
    extent = _extent(frame)
    data = _data(view, start, extent)
    shown = next(f for f in data["frames"] if f["n"] == start)
    unit = extent[2] / _WIDTH_PX
    x, y, width, height = (f"{v:.4f}" for v in extent)
    picture = element("image", href=shown["smoothed"], x=x, y=y, width=width, height=height,
                      preserveAspectRatio="none")  # fmt: skip
    marks = join(_marks(view, n, defects, hidden=n != start) for n in view.frame_numbers)
    drawing = element(
        "svg", _hatch(view), picture, element("g", class_="atoms"), marks,
        viewBox=f"{x} {y} {width} {height}", style=f"--u:{unit:.5f}", role="img",
        aria_label=f"Frame {start} with its defects ringed and numbered",
    )  # fmt: skip
    tip = element("output", class_="tip", hidden="")
    stage = element("div", drawing, element("div", class_="bar"), tip, class_="stage")
    text = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")
    script = Html(f'<script type="application/json" id="frames-data">{text}</script>\n')
    return element(
        "div", stage, _controls(view, data), _legend(view), script,
        class_="viewer", tabindex="0", aria_label="Frames",
    )  # fmt: skip


def script_text() -> str:
    """The script of the viewer."""
    return files("adatom.report").joinpath("viewer.js").read_text(encoding="utf-8")


def _extent(frame: Frame) -> tuple[float, float, float, float]:
    """Left, top, width and height of a frame, Å; the origin is the centre of its first pixel."""
    px = frame.calibration.pixel_size_A
    return -px / 2, -px / 2, frame.shape[1] * px, frame.shape[0] * px


def _data(
    view: CampaignView, start: int, extent: tuple[float, float, float, float]
) -> dict[str, Any]:
    elements = view.element_order()
    numbers = view.frame_numbers
    edge = _edge_px(view, start)
    atoms = _packed_atoms(view, start, extent, elements)
    frames, map_extent = [], extent
    top = None
    for n in numbers:
        frame, masked = view.frames[n], view.masked_regions.get(n, ())
        one = {
            "n": n,
            "name": view.frame_name(n),
            "smoothed": smoothed_picture(frame, edge, masked),
            "recorded": recorded_picture(frame, min(edge, 360), masked),
            "atoms": atoms.get(n),
        }
        maps = view.maps_of(n)
        if maps is not None:
            top = largest_disagreement(maps) if top is None else top
            one["networks"] = disagreement_picture(maps, min(edge, 256), top)
            px = maps.calibration.pixel_size_A
            map_extent = (-px / 2, -px / 2, maps.std.shape[2] * px, maps.std.shape[1] * px)
        frames.append(one)
    return {
        "frames": frames,
        "start": numbers.index(start),
        "sure": UNCERTAIN_P,
        "host": _host(view, elements),
        "elements": [[e, colour_of(e, elements)] for e in elements],
        "mapExtent": map_extent,
    }


def _edge_px(view: CampaignView, start: int) -> int:
    """Largest edge at which the pictures of all frames fit into the page."""
    frame, count = view.frames[start], len(view.frame_numbers)
    for edge in _EDGES_PX:
        size = len(smoothed_picture(frame, edge)) + len(recorded_picture(frame, min(edge, 360)))
        if 1.2 * count * size <= _PICTURE_BYTES:
            return edge
    return _EDGES_PX[-1]


def _host(view: CampaignView, elements: Sequence[str]) -> int:
    return elements.index(view.material.host) if view.material.host in elements else 0


def _packed_atoms(
    view: CampaignView,
    start: int,
    extent: tuple[float, float, float, float],
    elements: Sequence[str],
) -> dict[int, str]:
    """Atoms of as many frames as fit into the page, the first shown and those with defects first.

    Nine bytes each, little-endian: x and y as shares of an enlarged frame (two bytes each),
    standard deviation per axis in 0.0001 Å (two), probability of existence, element, its
    probability.
    """
    with_defects = set(view.defects.data["frame"].to_list())
    order = sorted(view.frame_numbers, key=lambda n: (n != start, n not in with_defects, n))
    parts = view.atoms.data.partition_by("frame", as_dict=True)
    out: dict[int, str] = {}
    used = 0
    for n in order:
        table = parts.get((n,))
        packed = _pack(AtomTable(table), extent, elements) if table is not None else ""
        if used + len(packed) > _ATOM_BYTES:
            continue
        used += len(packed)
        out[n] = packed
    return out


def _pack(
    atoms: AtomTable, extent: tuple[float, float, float, float], elements: Sequence[str]
) -> str:
    left, top, width, height = extent
    row = np.dtype(
        [("x", "<u2"), ("y", "<u2"), ("s", "<u2"), ("p", "u1"), ("e", "u1"), ("q", "u1")]
    )
    out = np.zeros(len(atoms), dtype=row)
    xy = atoms.xy
    sigma = np.hypot(atoms.column("sigma_x_A"), atoms.column("sigma_y_A")) / np.sqrt(2.0)
    place = {e: k for k, e in enumerate(elements)}
    # An atom at the border may lie a little outside: the shares are of a frame 10 % larger.
    out["x"] = np.clip(((xy[:, 0] - left) / width + 0.05) / 1.1, 0, 1) * 65535 + 0.5
    out["y"] = np.clip(((xy[:, 1] - top) / height + 0.05) / 1.1, 0, 1) * 65535 + 0.5
    out["s"] = np.clip(np.nan_to_num(sigma) * 10000, 0, 65535)
    out["p"] = np.clip(np.nan_to_num(atoms.column("p_exists")), 0, 1) * 255
    out["e"] = [place.get(e, 0) for e in atoms.elements]
    out["q"] = np.clip(np.nan_to_num(atoms.column("p_element")), 0, 1) * 255
    return base64.b64encode(out.tobytes()).decode()


def _marks(
    view: CampaignView, number: int, defects: Sequence[RankedDefect], *, hidden: bool
) -> Html:
    """Rings and numbers of one frame's defects, and regions that are not sure."""
    kinds = kind_colours(defects)
    parts: list[Html] = [
        _box(edges, "unlike", "unlike anything in training")
        for edges in view.ood_regions.get(number, ())
    ]
    parts += [
        _box(edges, "missed", "columns seem to be missed here")
        for edges in view.missed_regions.get(number, ())
    ]
    parts += [
        _box(edges, "masked", "no specimen: masked")
        for edges in view.masked_regions.get(number, ())
    ]
    xy = dict(enumerate(view.atoms.of_frame(number).xy))
    here = [(d, k) for d in defects for k in np.flatnonzero(d.track.frames == number)]
    for count, (defect, k) in enumerate(here):
        colour = kinds[defect.track.kinds[k]]
        members = [xy[a] for a in defect.track.atoms[k] if a in xy]
        label = f"{defect.rank}: {defect.words}"
        rank = defect.rank if count < _BADGES else None
        sure = bool(defect.track.p[k] >= 0.5)
        parts.append(_ring(defect.track.xy[k], members, colour, rank, label, sure=sure))
    if number == view.frame_count - 1:  # advice is for the specimen as it was last seen
        parts.append(_advice_marks(view.advice))
    return element("g", *parts, class_="set away" if hidden else "set", data_frame=str(number))


def kind_colours(defects: Sequence[RankedDefect]) -> dict[str, str]:
    """Colour of every kind, the most frequent kinds first; grey beyond the palette."""
    weight: dict[str, float] = {}
    for defect in defects:
        for kind, p in zip(defect.track.kinds, np.nan_to_num(defect.track.p), strict=True):
            weight[kind] = weight.get(kind, 0.0) + float(p)
    order = sorted(weight, key=lambda k: -weight[k])
    return {k: KINDS[n] if n < len(KINDS) else OTHER for n, k in enumerate(order)}


def _ring(
    center: FloatArray,
    members: Sequence[FloatArray],
    colour: str,
    rank: int | None,
    label: str,
    *,
    sure: bool,
) -> Html:
    far = max((float(np.linalg.norm(m - center)) for m in members), default=0.0) + _ROOM_A
    radius = max(far, _LEAST_RING_A)
    title = element("title", label)
    if radius > _LARGEST_RING_A:  # a boundary: its atoms are marked one by one
        rings = [_circle(m, _ROOM_A, "many", colour) for m in members]
        nearest = min(members, key=lambda m: float(np.linalg.norm(m - center)))
        center, radius = nearest, _ROOM_A
    else:
        rings = [_circle(center, radius, "halo", None), _circle(center, radius, "ring", colour)]
    badge = []
    if rank is not None:
        mark = element(
            "g",
            element("circle", r="9", style=f"--c:{colour}"),
            element("text", str(rank), y="4"),
            class_="k",
            style=f"--r:{radius:.2f}px",
        )
        badge.append(
            element(
                "g", mark, transform=f"translate({center[0]:.2f} {center[1]:.2f})", class_="badge"
            )
        )
    return element("g", title, *rings, *badge, class_="defect" if sure else "defect unsure")


def _circle(center: FloatArray, radius: float, kind: str, colour: str | None) -> Html:
    x, y = f"{center[0]:.2f}", f"{center[1]:.2f}"
    size = f"{radius:.2f}"
    least = f"--r:{size}px" if kind in ("ring", "halo") else None  # never too small to be seen
    return element("circle", cx=x, cy=y, r=size, class_=kind, stroke=colour, style=least)


def _hatch(view: CampaignView) -> Html:
    """The pattern that fills masked areas, lines 1 Å apart."""
    if not any(view.masked_regions.values()):
        return Html("")
    line = element("path", d="M0 0V1", stroke="#dfe5ee", stroke_width="1.6")
    pattern = element(
        "pattern", line, id="masked", width="1", height="1", patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    )  # fmt: skip
    return element("defs", pattern)


def _box(edges: tuple[float, float, float, float], kind: str, title: str) -> Html:
    left, top, right, bottom = edges
    return element(
        "rect", element("title", title), x=f"{left:.2f}", y=f"{top:.2f}",
        width=f"{right - left:.2f}", height=f"{bottom - top:.2f}", class_=kind,
    )  # fmt: skip


def _advice_marks(advice: Sequence[Advice]) -> Html:
    """Places of the advice with the letters of its cards."""
    parts = []
    for letter, action in zip(LETTERS, advice, strict=False):
        if action.target_xy_A is not None:
            x, y = action.target_xy_A
            cross = element("path", d="M-9 0H9M0 -9V9", class_="cross")
        elif action.scan is not None:
            half = action.scan.field_of_view_A / 2
            x, y = action.scan.center_xy_A
            x, y = x - half, y - half
            cross = Html("")
            edge = f"{2 * half:.2f}"
            parts.append(element("rect", x=f"{x:.2f}", y=f"{y:.2f}", width=edge, height=edge,
                                 class_="scan"))  # fmt: skip
        else:
            continue
        name = element("text", letter, x="7", y="16")
        mark = element("g", cross, name, class_="k")
        parts.append(element("g", mark, transform=f"translate({x:.2f} {y:.2f})"))
    return element("g", *parts, class_="advice")


LETTERS = "ABCDEFGHIJKL"  # names of the advice, best first


def _zoom() -> Html:
    names = (("in", "+", "Zoom in"), ("out", "−", "Zoom out"), ("whole", "⤢", "Whole frame"))
    buttons = [
        element("button", sign, type="button", data_do=do, title=title, aria_label=title)
        for do, sign, title in names
    ]
    return element("div", *buttons, class_="zoom")


def _controls(view: CampaignView, data: dict[str, Any]) -> Html:
    several = len(data["frames"]) > 1
    row: list[Html] = []
    name = element("b", view.frame_name(data["frames"][data["start"]]["n"]), class_="which")
    if several:
        row += [
            element("button", "‹", type="button", data_do="previous", aria_label="Previous frame"),
            element("input", type="range", min="0", max=str(len(data["frames"]) - 1), step="1",
                    value=str(data["start"]), class_="slide", aria_label="Frame"),
            element("button", "›", type="button", data_do="next", aria_label="Next frame"),
        ]  # fmt: skip
    walk = element("div", name, *row, _zoom(), class_="walk")
    pictures = [("smoothed", "Smoothed"), ("recorded", "Recorded")]
    if any("networks" in f for f in data["frames"]):
        pictures.append(("networks", "Disagreement"))
    choose = element(
        "div",
        *(
            element("button", text, type="button", data_picture=kind,
                    aria_pressed="true" if kind == "smoothed" else "false")
            for kind, text in pictures
        ),
        class_="segments", role="group", aria_label="Picture",
    )  # fmt: skip
    layers = [("atoms", "Atoms"), ("defects", "Defects")]
    if any(a.target_xy_A is not None or a.scan is not None for a in view.advice):
        layers.append(("advice", "Advice"))
    toggles = element(
        "div",
        *(
            element("button", text, type="button", data_layer=kind, aria_pressed="true")
            for kind, text in layers
        ),
        class_="toggles", role="group", aria_label="Marks",
    )  # fmt: skip
    return element(
        "div", walk, element("div", choose, toggles, class_="choices"), class_="controls"
    )


def _legend(view: CampaignView) -> Html:
    elements = view.element_order()
    present = [e for e in elements if (view.atoms.elements == e).any()]
    keys = [
        element("span", element("i", style=f"border-color:{colour_of(e, elements)}"), e)
        for e in present
    ]
    if len(view.atoms):
        keys.append(element("span", element("i", class_="dashed"), f"p < {UNCERTAIN_P}"))
    if any(view.ood_regions.values()):
        keys.append(element("span", element("i", class_="hatched"), "unlike training"))
    if any(view.missed_regions.values()):
        keys.append(element("span", element("i", class_="lacking"), "columns missed"))
    if any(view.masked_regions.values()):
        keys.append(element("span", element("i", class_="masked"), "no specimen, masked"))
    keys.append(
        element("span", "Discs: 2σ of the position, to scale. Point at an atom for its numbers.")
    )
    hidden = view.frame_count - len(view.frame_numbers)
    if hidden > 0:
        keys.append(element("span", f"{hidden} of {view.frame_count} frames are not on the page."))
    return element("p", *keys, class_="legend")
