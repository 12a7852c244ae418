"""How frames were taken, from the atoms found in them: the conditions that a simulation takes.

With all positions known, a frame has few unknowns: one spot, one amplitude per element, a smooth
background and the noise. They are fitted together in parts of every frame. What the parts share
has the larger of two covariances: the fit's own and, from the scatter of the parts' scores, that
of White, Econometrica 50, 1 (1982).

``imaging_frame`` cuts frames into the parts that ``imaging_parts`` models, ``imaging_noise``
measures their noise, ``imaging_fit`` fits what they share, ``imaging_summary`` translates.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from adatom.core import AtomTable, Estimate, Frame, Imaging, Lattice, Material
from adatom.core.arrays import FloatArray
from adatom.errors import BadInput
from adatom.features.conditions.patches import LEAST_ATOMS, View
from adatom.features.conditions.shared_fit import TAIL, Jitter, improve, settle_lines
from adatom.features.conditions.summary import pool, summarise
from adatom.features.find import FoundAtoms
from adatom.features.tracking import estimate_drift

_FRAMES = 8  # of a longer movie so many are looked at, evenly spaced
_ROUNDS = 8  # Gauss-Newton steps of the shared fit
_MASKED = (1, 2, 3, 5)  # rounds in which strange places are left out anew
_LINES = 2  # first round in which lines are shifted
_NO_LATTICE = 0.03  # what scans are stretched by
_SCALE_SD = 4e-4  # least uncertainty of a scale: disorder is not white


def estimate_imaging(
    frames: Sequence[Frame],
    found: Sequence[FoundAtoms],
    material: Material,
    *,
    lattices: Sequence[Lattice | None] = (),
) -> Imaging:
    """Estimate how frames of one movie were taken, each condition with its standard deviation.

    Parameters
    ----------
    frames
        Of one pixel size; their intensities may have any scale and offset, each its own.
    found
        What each shows.
    material
        What they show; its host sets the unit of intensity.
    lattices
        Of every frame, None where none was found; without any the pixel size is the frames' own.

    Raises
    ------
    BadInput
        If the frames and what was found are not equally many, or no frame has enough atoms.
    """
    if len(frames) != len(found) or (lattices and len(lattices) != len(frames)):
        raise BadInput(
            "conditions of frames",
            expected=f"what was found, and its lattice, for each of {len(frames)} frames",
            got=f"{len(found)} and {len(lattices)}",
            todo="Give one of each for every frame, in the same order.",
        )
    chosen = np.unique(np.linspace(0, max(len(frames) - 1, 0), _FRAMES).astype(int))[: len(frames)]
    views = [
        View.of(frames[i], found[i], material, lattices[i] if lattices else None) for i in chosen
    ]
    views = [v for v in views if v.parts]
    if not views:
        raise BadInput(
            "conditions of frames",
            expected=f"at least {LEAST_ATOMS} atoms of {material.host} in one frame",
            got="fewer in every frame",
            todo="Leave these frames out, or take conditions from other ones.",
        )
    theta = np.array([*_start([found[int(i)] for i in chosen]), *TAIL])
    jitter = Jitter()
    for n in range(_ROUNDS):
        theta = improve(views, theta)
        for view in views:
            if n in _MASKED:
                view.mask_strange(theta)
            view.measure_noise(theta)
        if n >= _LINES:
            jitter = settle_lines(views, theta)
    return summarise(views, theta, jitter, _scale(frames, lattices), _drift(frames, found))


def _start(found: Sequence[FoundAtoms]) -> FloatArray:
    """Core of the refinement's probe, Å², median over frames."""
    optics = [f.refined.optics for f in found]
    cores = [o.probe.covariance * o.pixel_size_A**2 for o in optics]
    out: FloatArray = np.median(cores, axis=0)
    return out


def _scale(
    frames: Sequence[Frame], lattices: Sequence[Lattice | None]
) -> tuple[Estimate, Estimate, Estimate]:
    """Pixel size by the lattice's area, Å, and the distortion besides: stretch and shear."""
    px = frames[0].calibration.pixel_size_A
    pairs = [(f, m) for f, m in zip(frames, lattices, strict=False) if m is not None]
    if not pairs:
        unknown = Estimate(0.0, _NO_LATTICE)
        return Estimate(px, _NO_LATTICE * px), unknown, unknown
    rows, variances = [], []
    for frame, lattice in pairs:
        m = lattice.affine.array()
        size = float(np.sqrt(np.linalg.det(m)))
        rows.append((size, (m[0, 0] - m[1, 1]) / 2 / size, (m[0, 1] + m[1, 0]) / 2 / size))
        extent = np.asarray(frame.calibration.extent_xy(frame.shape))
        cell = abs(np.linalg.det(lattice.material.cell()))
        atoms = max(len(lattice.material.basis) * float(extent.prod()) / cell, 4.0)
        # A slope over atoms spread evenly along x: rms / (width / sqrt(12) * sqrt(atoms)).
        per_axis = 12 * lattice.rms_A**2 / extent**2 / atoms
        variances.append(float(per_axis.sum()) / 4)
    pooled = [pool([r[k] for r in rows], variances) for k in range(3)]
    zoom, stretch, shear = (Estimate(p.value, max(p.sd, _SCALE_SD)) for p in pooled)
    return Estimate(px * zoom.value, px * zoom.sd), stretch, shear


def _drift(frames: Sequence[Frame], found: Sequence[FoundAtoms]) -> tuple[Estimate, Estimate]:
    """Mean drift per frame along x and y, Å."""
    tables = [
        AtomTable(f.atoms.data.with_columns(pl.lit(i, dtype=pl.Int32).alias("frame")))
        for i, f in enumerate(found)
        if len(f.atoms)
    ]
    shifts = estimate_drift(AtomTable.concat(tables)) if len(tables) > 1 else {}
    steps = [
        (np.subtract(shifts[b], shifts[a])) / max(frames[b].index - frames[a].index, b - a)
        for a, b in pairwise(sorted(shifts))
    ]
    if not steps:
        return Estimate(0.0, 0.0), Estimate(0.0, 0.0)
    mean = np.mean(steps, axis=0)
    floor = 0.02 / len(steps)
    sd = np.maximum(np.std(steps, axis=0) / np.sqrt(max(len(steps) - 1, 1)), floor)
    x, y = (Estimate(float(m), float(s)) for m, s in zip(mean, sd, strict=True))
    return x, y
