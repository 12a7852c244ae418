"""Figures of frames: image, atoms, disagreement of the ensemble, lattice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Ellipse

from adatom.core import AtomTable, Calibration, Frame
from adatom.report.colours import MUTED, colour_of
from adatom.report.facts import UNCERTAIN_P
from adatom.report.images import GAMMA, grey_levels, percentiles, shrink, smooth
from adatom.report.style import key, scale_bar
from adatom.report.view import FrameMaps

# Å: radius of the ring round an atom, below half a C-C bond so that rings do not touch
_RING_A = 0.42
_LARGEST_PX = 400  # pixels: longest edge of an image in the page, about its size on the screen
_MANY_ATOMS = 1200  # atoms; with more, rings are drawn as pixels to keep the page small


def draw_image(ax: Axes, frame: Frame, *, sigma_A: float) -> None:
    """Draw a frame in the background, smoothed by a Gaussian of `sigma_A` Å (0: not smoothed)."""
    image = frame.data
    if sigma_A > 0:
        image = smooth(image, frame.calibration.pixels(sigma_A))
    # Bright impurity atoms set the grey scale: on a linear scale the host lattice would be black.
    gamma = GAMMA if sigma_A > 0 else 1.0
    small = shrink(image, _LARGEST_PX)
    ax.imshow(
        grey_levels(small, *percentiles(small), gamma=gamma),
        cmap="gray",
        vmin=0.0,
        vmax=1.15 if sigma_A > 0 else 1.0,
        extent=_extent(frame.shape, frame.calibration),
    )
    scale_bar(ax, frame.shape[1] * frame.calibration.pixel_size_A, dark_image=True)


def draw_atoms(ax: Axes, atoms: AtomTable, elements: tuple[str, ...]) -> None:
    """Draw rings by element (dashed below 0.9 existence probability) and 2σ ellipses."""
    x0, x1 = ax.get_xlim()
    width_pt = ax.get_position().width * _inches(ax) * 72.0
    ring_pt = 2.0 * _RING_A * width_pt / abs(x1 - x0)
    raster = len(atoms) > _MANY_ATOMS
    names, p = atoms.elements, atoms.column("p_exists")
    ellipses = two_sigma_ellipses(atoms)
    present = [e for e in elements if (names == e).any()]
    for element in present:
        colour = colour_of(element, elements)
        for certain in (True, False):
            chosen = (names == element) & ((p >= UNCERTAIN_P) == certain)
            if not chosen.any():
                continue
            ax.scatter(
                atoms.xy[chosen, 0],
                atoms.xy[chosen, 1],
                s=ring_pt**2,
                facecolors="none",
                edgecolors=colour,
                linewidths=1.3 if certain else 1.5,
                linestyles="-" if certain else (0, (2.0, 1.6)),
                rasterized=raster,
            )
        own = [ellipses[i] for i in np.flatnonzero(names == element)]
        ax.add_collection(
            PatchCollection(
                own,
                facecolors=[(*to_rgb(colour), 0.9)],
                linewidths=0,
                rasterized=raster,
            ),
            autolim=False,
        )
    _atom_legend(ax, present, elements, uncertain=bool((p < UNCERTAIN_P).any()))


def draw_std(ax: Axes, maps: FrameMaps) -> None:
    """Draw the square root of the summed variances of the classes, with its colour bar."""
    std = np.sqrt(np.sum(shrink(maps.std, _LARGEST_PX).astype(np.float64) ** 2, axis=0))
    top = max(float(np.nanmax(std)), 1e-3)
    shape = maps.std.shape[1], maps.std.shape[2]
    image = ax.imshow(
        np.round(std / top * 63.0) / 63.0 * top,
        cmap="magma_r",
        vmin=0.0,
        vmax=top,
        extent=_extent(shape, maps.calibration),
    )
    scale_bar(ax, shape[1] * maps.calibration.pixel_size_A, dark_image=False)
    figure = ax.figure
    box = ax.get_position()
    bar = figure.add_axes((box.x0, box.y1 + 0.018, box.width * 0.45, 0.016))
    figure.colorbar(image, cax=bar, orientation="horizontal")
    bar.tick_params(labelsize=7.5, length=2, pad=1, top=True, bottom=False)
    bar.xaxis.set_ticks_position("top")
    bar.locator_params(nbins=4)
    bar.text(1.05, 0.5, "σ of probability", transform=bar.transAxes, fontsize=8.5, va="center")


def two_sigma_ellipses(atoms: AtomTable) -> list[Ellipse]:
    """2σ ellipses of the positions, which hold 86 % of a two-dimensional Gaussian, one per atom.

    The semi-axes are twice the square roots of the covariance's eigenvalues, Å.
    """
    covariance = np.nan_to_num(atoms.covariance)
    values, vectors = np.linalg.eigh(covariance)
    axes = 2.0 * np.sqrt(np.maximum(values, 0.0))
    angle = np.degrees(np.arctan2(vectors[:, 1, 1], vectors[:, 0, 1]))
    return [
        Ellipse((x, y), 2.0 * a[1], 2.0 * a[0], angle=float(t))
        for (x, y), a, t in zip(atoms.xy, axes, angle, strict=True)
    ]


def _extent(shape: tuple[int, ...], calibration: Calibration) -> tuple[float, float, float, float]:
    """Edges of an image in Å; the origin is the centre of its first pixel."""
    half = calibration.pixel_size_A / 2.0
    right, bottom = calibration.extent_xy((shape[0], shape[1]))
    return (-half, right + half, bottom + half, -half)


def _inches(ax: Axes) -> float:
    figure = ax.get_figure(root=True)
    return float(figure.get_size_inches()[0]) if figure is not None else 1.0


def _atom_legend(
    ax: Axes, present: list[str], elements: tuple[str, ...], *, uncertain: bool
) -> None:
    handles = [key(e, colour_of(e, elements), marker="o", fill="none", size=9) for e in present]
    if uncertain:
        # Markers cannot be dashed, so the legend shows a dashed line.
        handles.append(key("p < 0.9", MUTED, line="--"))
    handles.append(key("2σ ellipse", MUTED, marker="o", size=4.5))
    _legend_above(ax, handles)


def _legend_above(ax: Axes, handles: Sequence[Artist]) -> None:
    ax.legend(
        handles=list(handles),
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=6,
        borderaxespad=0.1,
        handletextpad=0.3,
        columnspacing=1.3,
    )
