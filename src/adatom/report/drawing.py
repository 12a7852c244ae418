"""Drawings of supercells as SVG: from above, or from the side."""

from __future__ import annotations

from collections.abc import Collection

import ase
import numpy as np

from adatom.core.arrays import FloatArray
from adatom.report.colours import HEIGHT, INK, MUTED, colour_of, ramp
from adatom.report.facts import heights, host_element
from adatom.report.fates import Bond, bond_lengths
from adatom.report.markup import Html, element

_HOST_A, _GUEST_A = 0.36, 0.58  # Å: drawn radii; two hosts leave half of a C-C bond visible
_EDGE_A = 0.9  # Å: room round the drawing
_FORMED, _BROKEN = "#009E73", "#D55E00"  # colours of bonds that a simulation formed and broke


def cell_drawing(
    atoms: ase.Atoms,
    elements: tuple[str, ...],
    label: str,
    *,
    z_limit_A: float,
    side: bool = False,
    sigma_A: FloatArray | None = None,
    formed: Collection[Bond] = (),
    broken: Collection[Bond] = (),
) -> Html:
    """Draw a supercell; fill colour is the height, impurity atoms carry their symbol.

    Parameters
    ----------
    atoms
        The supercell.
    elements
        Order of the elements' colours.
    label
        Text for readers who cannot see the drawing.
    z_limit_A
        Largest height of the colours, Å.
    side
        Draw it from the side (x right, z up) in place of from above (x right, y up).
    sigma_A
        Standard deviations, shape (atom, 3), Å; if given, every atom gets a dark 2σ disc.
    formed, broken
        Bonds to mark, as pairs of atom numbers.
    """
    z = heights(atoms)
    flat = _flat(atoms, z, side=side)
    low, high = flat.min(axis=0) - _EDGE_A, flat.max(axis=0) + _EDGE_A
    if side:
        middle, half = 0.0, max(z_limit_A + 0.8, 1.3)
        low[1], high[1] = middle - half, middle + half
    parts = [_bonds(atoms, flat, set(broken), set(formed))]
    symbols, host = atoms.get_chemical_symbols(), host_element(atoms)
    fills = ramp(z / (2 * z_limit_A) + 0.5, HEIGHT).round().astype(int)
    depth = -atoms.positions[:, 1] if side else z
    order = sorted(np.argsort(depth), key=lambda n: symbols[n] != host)
    for n in order:
        parts += _disc(
            flat[n],
            symbols[n],
            "#{:02x}{:02x}{:02x}".format(*fills[n]),
            elements,
            guest=symbols[n] != host,
        )
    if sigma_A is not None:
        radii = 2.0 * np.hypot(*np.nan_to_num(sigma_A[:, :2]).T) / np.sqrt(2.0)
        parts += [
            element("circle", cx=_n(p[0]), cy=_n(p[1]), r=_n(r), fill=INK, opacity="0.6")
            for p, r in zip(flat, radii, strict=True)
            if r > 0.005
        ]
    size = high - low
    box = " ".join(_n(v) for v in (*low, *size))
    return element("svg", *parts, viewBox=box, role="img", aria_label=label, class_="cell")


def _flat(atoms: ase.Atoms, z: FloatArray, *, side: bool) -> FloatArray:
    """Coordinates on the screen, shape (atom, 2), Å, y down."""
    x = atoms.positions[:, 0]
    return np.column_stack([x, -z if side else -atoms.positions[:, 1]])


def _bonds(atoms: ase.Atoms, flat: FloatArray, broken: set[Bond], formed: set[Bond]) -> Html:
    """Draw the bonds that do not cross the border of the cell, as one path of each colour."""
    longest = 3.2  # Å: no bond is longer; farther partners lie across the border
    now = set(bond_lengths(atoms))
    paths = []
    for chosen, kind, colour in (
        (now - formed, "bonds", MUTED),
        (formed, "changed", _FORMED),
        (broken, "changed gone", _BROKEN),
    ):
        lines = [
            f"M{_n(flat[a][0])} {_n(flat[a][1])}L{_n(flat[b][0])} {_n(flat[b][1])}"
            for a, b in sorted(chosen)
            if np.linalg.norm(flat[a] - flat[b]) < longest
        ]
        if lines:
            paths.append(element("path", d="".join(lines), class_=kind, stroke=colour))
    return element("g", *paths)


def _disc(
    place: FloatArray, symbol: str, fill: str, elements: tuple[str, ...], *, guest: bool
) -> list[Html]:
    x, y = _n(place[0]), _n(place[1])
    rim = colour_of(symbol, elements) if guest else INK
    disc = element(
        "circle", cx=x, cy=y, r=_n(_GUEST_A if guest else _HOST_A), fill=fill, stroke=rim,
        stroke_width="0.18" if guest else "0.05",
    )  # fmt: skip
    return [disc, element("text", symbol, x=x, y=_n(place[1] + 0.19))] if guest else [disc]


def _n(value: float) -> str:
    return f"{value:.2f}"
