"""Estimate the imaging conditions of frames from their atoms, as input of a simulation.

With known positions, a frame has few parameters: one spot shape, one amplitude per element, a
smooth background and the noise. They are fitted together in patches of every frame. The covariance
of the shared parameters is the larger one of two: that of the fit, and the sandwich estimate from
the scatter of the patches (White, Econometrica 50, 1 (1982)).

`patches` cuts frames into patches, `patch_model` models one patch, `noise` measures the noise,
`shared_fit` fits the spot shape, and `summary` converts the results to conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from adatom.core import AtomTable, Estimate, Frame, Imaging, Lattice, Material
from adatom.core.arrays import FloatArray
from adatom.errors import BadInput
from adatom.features.conditions.patch_model import SpotShape
from adatom.features.conditions.patches import LEAST_ATOMS, FramePatches
from adatom.features.conditions.shared_fit import TAIL, Jitter, fit_line_shifts, gauss_newton_step
from adatom.features.conditions.summary import pool, summarise
from adatom.features.find import FoundAtoms
from adatom.features.tracking import estimate_drift

_FRAMES = 8  # most frames that are analysed; of a longer movie, evenly spaced ones
_ROUNDS = 8  # Gauss-Newton steps of the shared fit
_MASKED = (1, 2, 3, 5)  # rounds after which outliers are masked again
_LINES = 2  # first round in which line shifts are fitted
_NO_LATTICE = 0.03  # relative error of scale, stretch and shear without a lattice: usual for scans
_SCALE_SD = 4e-4  # least relative error of a scale: displacements of atoms are correlated


def estimate_imaging(
    frames: Sequence[Frame],
    found: Sequence[FoundAtoms],
    material: Material,
    *,
    lattices: Sequence[Lattice | None] = (),
) -> Imaging:
    """Estimate the imaging conditions of the frames of one movie, with standard deviations.

    Parameters
    ----------
    frames
        Frames of equal pixel size; each may have its own scale and offset of the intensity.
    found
        Atoms of each frame.
    material
        Material of the frames; the amplitude of its host is the unit of the background.
    lattices
        Lattice of each frame, or None; without any, the pixel size is that of the frames.

    Raises
    ------
    BadInput
        If the numbers of frames, results and lattices differ, or no frame has enough atoms.
    """
    if len(frames) != len(found) or (lattices and len(lattices) != len(frames)):
        raise BadInput(
            "conditions of frames",
            expected=f"what was found, and its lattice, for each of {len(frames)} frames",
            got=f"{len(found)} and {len(lattices)}",
            todo="Give one of each for every frame, in the same order.",
        )
    chosen = np.unique(np.linspace(0, max(len(frames) - 1, 0), _FRAMES).astype(int))[: len(frames)]
    patched = [
        # The frame that was fitted: its noise is in the unit of the fit.
        FramePatches.from_frame(
            found[i].frame, found[i], material, lattices[i] if lattices else None
        )
        for i in chosen
    ]
    patched = [v for v in patched if v.patches]
    if not patched:
        raise BadInput(
            "conditions of frames",
            expected=f"at least {LEAST_ATOMS} atoms of {material.host} in one frame",
            got="fewer in every frame",
            todo="Leave these frames out, or take conditions from other ones.",
        )
    spot = SpotShape(np.array([*_start([found[int(i)] for i in chosen]), *TAIL]))
    jitter = Jitter()
    for n in range(_ROUNDS):
        spot = gauss_newton_step(patched, spot)
        for one_frame in patched:
            if n in _MASKED:
                one_frame.mask_outliers(spot)
            one_frame.measure_noise(spot)
        if n >= _LINES:
            jitter = fit_line_shifts(patched, spot)
    return summarise(patched, spot, jitter, _scale(frames, lattices), _drift(frames, found))


def _start(found: Sequence[FoundAtoms]) -> FloatArray:
    """Covariance of the core of the refined probe, Å², median over frames."""
    optics = [f.refined.optics for f in found]
    cores = [o.probe.covariance * o.pixel_size_A**2 for o in optics]
    out: FloatArray = np.median(cores, axis=0)
    return out


def _scale(
    frames: Sequence[Frame], lattices: Sequence[Lattice | None]
) -> tuple[Estimate, Estimate, Estimate]:
    """Pixel size from the area of the cell, Å; stretch and shear of the scan."""
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
        # Error of a slope for evenly spread atoms: rms / (width / sqrt(12) * sqrt(atoms)).
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
