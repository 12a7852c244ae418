"""The figure of a supercell from above, and the heights of its atoms."""

from __future__ import annotations

import ase
import numpy as np
from ase.neighborlist import natural_cutoffs, neighbor_list
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.patches import Circle
from numpy.typing import NDArray

from adatom.core.arrays import FloatArray
from adatom.report.colours import INK, LINE, MUTED, colour_of
from adatom.report.facts import heights, host_element

# Length of a drawn bond over the sum of the covalent radii, dimensionless: 1.75 Å for C-C, so that
# only real bonds are drawn.
_BOND_TOLERANCE = 1.15
_RADIUS_A = 0.36  # Å: drawn radius of a host atom; two of them leave half of a C-C bond visible
_IMPURITY_A = 0.58  # Å: drawn radius of an impurity atom, wide enough for its symbol


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


def draw_top(
    ax: Axes,
    atoms: ase.Atoms,
    elements: tuple[str, ...],
    *,
    z_limit_A: float,
) -> None:
    """Draw a supercell from above; the fill shows the height, an impurity's rim its element."""
    low, high = _bounds(atoms)
    i, _, _, vector = bonds(atoms)
    start = atoms.positions[i, :2]
    segments = np.stack([start, start + vector[:, :2] / 2.0], axis=1)
    ax.add_collection(LineCollection(list(segments), colors=MUTED, linewidths=1.4, zorder=1))
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) @ atoms.cell.array[:2, :2]
    ax.plot(*corners.T, color=LINE, linewidth=1.0, zorder=0)
    _draw_atoms(ax, atoms, elements, z_limit_A=z_limit_A)
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    ax.set_aspect("equal")


def _draw_atoms(
    ax: Axes,
    atoms: ase.Atoms,
    elements: tuple[str, ...],
    *,
    z_limit_A: float,
) -> None:
    """Draw atoms as discs, the nearest to the viewer last, with symbols on impurity atoms."""
    z, host = heights(atoms), host_element(atoms)
    symbols = atoms.get_chemical_symbols()
    fills = ScalarMappable(Normalize(-z_limit_A, z_limit_A), cmap="PuOr_r").to_rgba(z)
    near = np.argsort(z)
    # Impurity atoms are drawn last, so that no host atom hides them.
    order = sorted(near, key=lambda n: symbols[n] != host)
    discs, faces, rims, widths = [], [], [], []
    for n in order:
        impurity = symbols[n] != host
        place = (float(atoms.positions[n, 0]), float(atoms.positions[n, 1]))
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
