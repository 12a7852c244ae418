"""Figures of frames: image, atoms, maps of the ensemble, lattice, advice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from adatom.core import Advice, AtomTable, Calibration, Frame
from adatom.report.facts import UNCERTAIN_P
from adatom.report.style import (
    INK,
    KINDS,
    MUTED,
    colour_of,
    grey_levels,
    key,
    new_figure,
    scale_bar,
    shrink,
    smooth,
    style,
    whole_numbers,
)
from adatom.report.view import CampaignView, FrameMaps

SMOOTHING_A = 0.35  # Å: standard deviation of the smoothing, a little below that of an atom's spot
GAMMA = 0.6  # exponent of the grey scale, chosen so that C shows beside Si
# Å: radius of the ring round an atom, below half a C-C bond so that rings do not touch
_RING_A = 0.42
_LARGEST_PX = 400  # pixels: longest edge of an image in the page, about its size on the screen
_MANY_ATOMS = 1200  # atoms; with more, rings are drawn as pixels to keep the page small


def frame_image(frame: Frame) -> Figure:
    """Draw a frame as it was recorded, stretched between its 0.5th and 99.5th percentiles."""
    with style():
        figure, ax = _image_figure(frame.shape)
        draw_image(ax, frame, sigma_A=0.0)
        _label_axes(ax)
    return figure


def frame_atoms(
    frame: Frame,
    atoms: AtomTable,
    elements: tuple[str, ...],
    boxes: Sequence[tuple[float, float, float, float]] = (),
) -> Figure:
    """Draw the smoothed frame with a ring and the 2σ ellipse (to scale) of every atom.

    Parameters
    ----------
    frame
        The image.
    atoms
        Its atoms.
    elements
        Order of the elements' colours.
    boxes
        Areas to hatch: left, top, right and bottom of each, Å.
    """
    with style():
        figure, ax = _image_figure(frame.shape)
        draw_image(ax, frame, sigma_A=SMOOTHING_A)
        draw_atoms(ax, atoms, elements)
        for left, top, right, bottom in boxes:
            ax.add_patch(
                Rectangle(
                    (left, top), right - left, bottom - top,
                    fill=False, hatch="//", edgecolor="white", linewidth=1.0, alpha=0.6,
                )
            )  # fmt: skip
        _label_axes(ax)
    return figure


def map_mean(maps: FrameMaps, elements: tuple[str, ...]) -> Figure:
    """Draw the mean probabilities, one colour per element on white."""
    with style():
        figure, ax = _image_figure(maps.mean.shape[1:], bar=True)
        draw_mean(ax, maps, elements)
        _label_axes(ax)
    return figure


def map_std(maps: FrameMaps) -> Figure:
    """Draw the standard deviation between the members of the ensemble."""
    with style():
        figure, ax = _image_figure(maps.std.shape[1:], bar=True)
        draw_std(ax, maps)
        _label_axes(ax)
    return figure


def draw_image(ax: Axes, frame: Frame, *, sigma_A: float) -> None:
    """Draw a frame in the background, smoothed by a Gaussian of `sigma_A` Å (0: not smoothed)."""
    image = frame.data
    if sigma_A > 0:
        image = smooth(image, frame.calibration.pixels(sigma_A))
    # Bright impurity atoms set the grey scale: on a linear scale the host lattice would be black.
    gamma = GAMMA if sigma_A > 0 else 1.0
    ax.imshow(
        grey_levels(shrink(image, _LARGEST_PX), 0.5, 99.5, gamma=gamma),
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


def draw_mean(ax: Axes, maps: FrameMaps, elements: tuple[str, ...]) -> None:
    """Mix the classes' colours by their probabilities on white."""
    mean = np.clip(shrink(maps.mean, _LARGEST_PX), 0.0, 1.0)
    rgb = np.ones((*mean.shape[1:], 3))
    for probability, name in zip(mean, maps.classes, strict=True):
        ink = 1.0 - np.array(to_rgb(colour_of(name, elements)))
        rgb -= probability[..., None] * ink
    # 64 levels make the page smaller without a visible difference.
    rgb = np.round(np.clip(rgb, 0.0, 1.0) * 63.0) / 63.0
    shape = maps.mean.shape[1], maps.mean.shape[2]
    ax.imshow(rgb, extent=_extent(shape, maps.calibration))
    scale_bar(ax, shape[1] * maps.calibration.pixel_size_A, dark_image=False)
    handles = [key(c, colour_of(c, elements), marker="o") for c in maps.classes]
    _legend_above(ax, handles)


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


def atoms_per_frame(view: CampaignView) -> Figure:
    """Draw the number of atoms and their median position uncertainty in every frame."""
    elements, frames = view.element_order(), view.atoms.frames
    with style():
        figure = new_figure(5.6, 3.5)
        top, bottom = figure.subplots(2, 1, sharex=True)
        names = view.atoms.elements
        index = view.atoms.column("frame").astype(int)
        for element in elements:
            if not (names == element).any():
                continue
            counts = [int(np.sum((names == element) & (index == f))) for f in frames]
            top.plot(
                frames, counts, ".-", color=colour_of(element, elements), label=element, ms=4.5
            )
        top.set_yscale("symlog", linthresh=1, linscale=0.4)
        ticks = [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000]
        top.set_yticks([t for t in ticks if t <= 1.6 * max(1, top.dataLim.y1)])
        top.set_yticklabels([str(int(t)) for t in top.get_yticks()])
        top.minorticks_off()
        top.set_ylabel("atoms")
        _legend_above(top, top.get_legend_handles_labels()[0])
        sx, sy = view.atoms.column("sigma_x_A"), view.atoms.column("sigma_y_A")
        sigma = np.sqrt((sx**2 + sy**2) / 2.0)
        parts = [np.nanpercentile(sigma[index == f], (25, 50, 75)) for f in frames]
        low, middle, high = np.array(parts).reshape(-1, 3).T
        bottom.fill_between(frames, low, high, color=KINDS[1], alpha=0.18, linewidth=0)
        bottom.plot(frames, middle, ".-", color=KINDS[1], ms=4.5)
        bottom.set_ylim(bottom=0.0)
        bottom.set_ylabel("σ of position (Å)")
        bottom.set_xlabel("frame")
        whole_numbers(bottom.xaxis)
    return figure


def lattice_over_frames(view: CampaignView) -> Figure:
    """Draw the scan's distortion and the scatter of the atoms about the lattice in every frame."""
    table = view.lattice
    frames = table["frame"].to_numpy()
    with style():
        figure = new_figure(5.6, 3.5)
        top, bottom = figure.subplots(2, 1, sharex=True)
        for column, colour in (("strain_1", KINDS[0]), ("strain_2", KINDS[1])):
            values = table[column].cast(float).fill_null(np.nan).to_numpy() * 100.0
            top.plot(frames, values, ".-", color=colour, ms=4.5)
        top.axhline(0.0, color=MUTED, linewidth=0.7)
        top.set_ylabel("stretch removed (%)")
        handles = [
            key("largest principal", KINDS[0], marker=".", line="-"),
            key("smallest", KINDS[1], marker=".", line="-"),
        ]
        _legend_above(top, handles)
        rms = table["rms_A"].fill_null(np.nan).to_numpy()
        bottom.plot(frames, rms, ".-", color=KINDS[2], ms=4.5)
        bottom.set_ylim(bottom=0.0)
        bottom.set_ylabel("rms from sites (Å)")
        bottom.set_xlabel("frame")
        whole_numbers(bottom.xaxis)
    return figure


def advice_map(frame: Frame, advice: tuple[Advice, ...]) -> Figure:
    """Draw the places of the advice: boxes to scan, crosses for the beam, numbered by rank."""
    with style():
        figure, ax = _image_figure(frame.shape)
        draw_image(ax, frame, sigma_A=SMOOTHING_A)
        limits = ax.get_xlim(), ax.get_ylim()
        for rank, action in enumerate(advice, start=1):
            colour = KINDS[4] if action.target_xy_A is not None else "white"
            if action.target_xy_A is not None:
                x, y = action.target_xy_A
                ax.plot([x], [y], "+", color=colour, ms=15, mew=2.2)
            elif action.scan is not None:
                x, y = action.scan.center_xy_A
                edge = action.scan.field_of_view_A
                x, y = x - edge / 2, y - edge / 2
                box = Rectangle((x, y), edge, edge, fill=False, edgecolor=colour, linewidth=1.4)
                ax.add_patch(box)
            else:
                continue
            label = {"facecolor": INK, "alpha": 0.75, "edgecolor": "none", "boxstyle": "circle"}
            ax.annotate(
                str(rank),
                (x, y),
                xytext=(9, -9),
                textcoords="offset points",
                color=colour,
                fontsize=9,
                fontweight="bold",
                bbox=label,
                ha="center",
                va="center",
                annotation_clip=True,
            )
        ax.set_xlim(limits[0])
        ax.set_ylim(limits[1])
        _label_axes(ax)
    return figure


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


def _image_figure(shape: tuple[int, ...], *, bar: bool = False) -> tuple[Figure, Axes]:
    """Make a figure with one axes that fits an image, and room above for legend or colour bar."""
    aspect = shape[-2] / shape[-1]
    width = 5.6
    left, right, below, above = 0.62, 0.1, 0.5, 0.34 + 0.08 * bar
    inner = width - left - right
    height = min(max(aspect * inner, 1.2), 9.0) + below + above
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    box = (left / width, below / height, inner / width, (height - below - above) / height)
    return figure, figure.add_axes(box)


def _extent(shape: tuple[int, ...], calibration: Calibration) -> tuple[float, float, float, float]:
    """Edges of an image in Å; the origin is the centre of its first pixel."""
    half = calibration.pixel_size_A / 2.0
    right, bottom = calibration.extent_xy((shape[0], shape[1]))
    return (-half, right + half, bottom + half, -half)


def _label_axes(ax: Axes) -> None:
    ax.set_xlabel("x (Å)")
    ax.set_ylabel("y (Å)")
    whole_numbers(ax.xaxis)
    whole_numbers(ax.yaxis)


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
