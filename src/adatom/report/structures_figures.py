"""Figures of supercells, from above and from the side."""

from __future__ import annotations

import ase
import numpy as np
from ase.neighborlist import natural_cutoffs, neighbor_list
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from adatom.core.arrays import FloatArray
from adatom.report.style import INK, LINE, MUTED, colour_of, new_figure, style

# Length of a drawn bond over the sum of the covalent radii, dimensionless: 1.75 Å for C-C, so that
# only real bonds are drawn.
_BOND_TOLERANCE = 1.15
_RADIUS_A = 0.36  # Å: drawn radius of a host atom; two of them leave half of a C-C bond visible
_IMPURITY_A = 0.58  # Å: drawn radius of an impurity atom, wide enough for its symbol


def host_element(atoms: ase.Atoms) -> str:
    """The most frequent element."""
    names, counts = np.unique(atoms.get_chemical_symbols(), return_counts=True)
    return str(names[int(np.argmax(counts))])


def heights(atoms: ase.Atoms) -> FloatArray:
    """Heights above the median of the host atoms, shape (atom,), Å.

    A sheet that an engine wrapped at the cell boundary along z is unwrapped first.
    """
    host = np.array(atoms.get_chemical_symbols()) == host_element(atoms)
    z = atoms.positions[:, 2] - atoms.positions[host, 2][0]
    length = float(atoms.cell.array[2, 2])
    if atoms.pbc[2] and length > 0:
        z = z - length * np.round(z / length)
    out: FloatArray = z - np.median(z[host])
    return out


def bonds(atoms: ase.Atoms) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray, FloatArray]:
    """Pairs closer than 1.15 times the sum of their covalent radii, each in both directions.

    Radii: Cordero et al., Dalton Trans. 2008, 2832 (as in ASE).

    Returns
    -------
    Indices i and j, shape (bond,); lengths, shape (bond,), Å; vectors i to j, shape (bond, 3), Å.
    """
    cutoffs = natural_cutoffs(atoms, mult=_BOND_TOLERANCE)
    i, j, d, vector = neighbor_list("ijdD", atoms, cutoffs)
    return i.astype(np.int64), j.astype(np.int64), d, vector


def supercell(
    atoms: ase.Atoms,
    elements: tuple[str, ...],
    *,
    z_limit_A: float,
    sigma_A: FloatArray | None = None,
) -> Figure:
    """Draw a supercell from above (fill colour: height) and from the side.

    Parameters
    ----------
    atoms
        The supercell.
    elements
        Order of the elements' colours.
    z_limit_A
        Largest height of the colour scale, Å.
    sigma_A
        Standard deviations, shape (atom, 3), Å; if given, every atom gets a dark 2σ disc.
    """
    low, high = _bounds(atoms)
    span = high - low
    side = max(2.0 * z_limit_A + 2.0, 3.0)
    width, left, right = 5.6, 0.62, 0.95
    inner = width - left - right
    tall = min(inner * span[1] / span[0], 8.0)
    flat = inner * side / span[0]
    height = 0.48 + flat + 0.22 + tall + 0.12
    with style():
        figure = new_figure(width, height)
        figure.set_layout_engine("none")
        share = inner / width
        lower = figure.add_axes((left / width, 0.48 / height, share, flat / height))
        box = (left / width, (0.48 + flat + 0.22) / height, share, tall / height)
        upper = figure.add_axes(box, sharex=lower)
        draw_top(upper, atoms, elements, z_limit_A=z_limit_A, sigma_A=sigma_A)
        _draw_side(lower, atoms, elements, z_limit_A=z_limit_A, half_A=side / 2.0)
        upper.tick_params(labelbottom=False)
        upper.set_ylabel("y (Å), up")
        lower.set_xlabel("x (Å)")
        lower.set_ylabel("z (Å)")
        colours = ScalarMappable(Normalize(-z_limit_A, z_limit_A), cmap="PuOr_r")
        place = ((width - right + 0.14) / width, box[1], 0.12 / width, box[3])
        bar = figure.colorbar(colours, cax=figure.add_axes(place))
        bar.set_label("height above the sheet (Å)")
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8)
    return figure


def draw_top(
    ax: Axes,
    atoms: ase.Atoms,
    elements: tuple[str, ...],
    *,
    z_limit_A: float,
    sigma_A: FloatArray | None = None,
) -> None:
    """Draw a supercell from above; the fill shows the height, an impurity's rim its element."""
    low, high = _bounds(atoms)
    i, _, _, vector = bonds(atoms)
    start = atoms.positions[i, :2]
    segments = np.stack([start, start + vector[:, :2] / 2.0], axis=1)
    ax.add_collection(LineCollection(list(segments), colors=MUTED, linewidths=1.4, zorder=1))
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) @ atoms.cell.array[:2, :2]
    ax.plot(*corners.T, color=LINE, linewidth=1.0, zorder=0)
    _draw_atoms(ax, atoms, elements, atoms.positions[:, 1], z_limit_A=z_limit_A)
    if sigma_A is not None:
        dots = [
            Circle(tuple(p), 2.0 * float(np.hypot(*s) / np.sqrt(2.0)))
            for p, s in zip(atoms.positions[:, :2], np.nan_to_num(sigma_A[:, :2]), strict=True)
        ]
        ax.add_collection(
            PatchCollection(dots, facecolors=[to_rgba(INK, 0.6)], linewidths=0, zorder=3.5)
        )
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    ax.set_aspect("equal")


def _draw_side(
    ax: Axes, atoms: ase.Atoms, elements: tuple[str, ...], *, z_limit_A: float, half_A: float
) -> None:
    z = heights(atoms)
    i, _, _, vector = bonds(atoms)
    start = np.column_stack([atoms.positions[i, 0], z[i]])
    segments = np.stack([start, start + vector[:, [0, 2]] / 2.0], axis=1)
    ax.add_collection(
        LineCollection(list(segments), colors=MUTED, linewidths=0.8, alpha=0.6, zorder=1)
    )
    _draw_atoms(ax, atoms, elements, z, z_limit_A=z_limit_A, by_depth=True)
    ax.set_ylim(-half_A, half_A)
    ax.set_aspect("equal")


def _draw_atoms(
    ax: Axes,
    atoms: ase.Atoms,
    elements: tuple[str, ...],
    up: FloatArray,
    *,
    z_limit_A: float,
    by_depth: bool = False,
) -> None:
    """Draw atoms as discs, the nearest to the viewer last, with symbols on impurity atoms."""
    z, host = heights(atoms), host_element(atoms)
    symbols = atoms.get_chemical_symbols()
    fills = ScalarMappable(Normalize(-z_limit_A, z_limit_A), cmap="PuOr_r").to_rgba(z)
    near = np.argsort(-atoms.positions[:, 1] if by_depth else z)
    # Impurity atoms are drawn last, so that no host atom hides them.
    order = sorted(near, key=lambda n: symbols[n] != host)
    discs, faces, rims, widths = [], [], [], []
    for n in order:
        impurity = symbols[n] != host
        place = (float(atoms.positions[n, 0]), float(up[n]))
        discs.append(Circle(place, _IMPURITY_A if impurity else _RADIUS_A))
        faces.append(fills[n])
        rims.append(to_rgba(colour_of(symbols[n], elements)) if impurity else to_rgba(INK, 0.8))
        widths.append(2.0 if impurity else 0.6)
        if impurity:
            ax.text(
                *place,
                symbols[n],
                fontsize=7.5,
                fontweight="bold",
                ha="center",
                va="center",
                zorder=4,
                clip_on=True,
                path_effects=[patheffects.withStroke(linewidth=1.8, foreground="white")],
            )
    ax.add_collection(
        PatchCollection(discs, facecolors=faces, edgecolors=rims, linewidths=widths, zorder=3)
    )


def _bounds(atoms: ase.Atoms) -> tuple[FloatArray, FloatArray]:
    """Lower and upper corner of a box round the atoms and the cell, x and y in Å."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) @ atoms.cell.array[:2, :2]
    points = np.concatenate([corners, atoms.positions[:, :2]])
    return points.min(axis=0) - 0.9, points.max(axis=0) + 0.9
