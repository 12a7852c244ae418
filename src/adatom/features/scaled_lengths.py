"""Convert lengths to units of a material, so that one set of constants fits all materials.

Refinement and calibration treat every material at the size of graphene: pixel sizes are divided by
`Material.scale` before, and positions are multiplied by it afterwards.
"""

from __future__ import annotations

from dataclasses import replace

from adatom.core import Calibration, Frame, LabelledFrame, Material
from adatom.features.candidates.locate import Candidates
from adatom.features.refinement.refine import Refined


def frame_in_units(frame: Frame, scale: float) -> Frame:
    """Give the same frame with its pixel size in units of `scale` Å."""
    if scale == 1.0:
        return frame
    return frame.recalibrated(Calibration(frame.calibration.pixel_size_A / scale))


def truth_in_units(truth: LabelledFrame, scale: float) -> LabelledFrame:
    """Give the same labels with lengths in units of `scale` Å."""
    return replace(
        truth,
        frame=frame_in_units(truth.frame, scale),
        xy=truth.xy / scale,
        vacancies_xy=truth.vacancies_xy / scale,
    )


def material_in_units(material: Material, scale: float) -> Material:
    """Give the same crystal with lengths in units of `scale` Å."""
    (a, b), (c, d) = material.cell_A
    return replace(
        material,
        cell_A=((a / scale, b / scale), (c / scale, d / scale)),
        bond_length_A=material.bond_length_A / scale,
    )


def scale_candidates(candidates: Candidates, factor: float) -> Candidates:
    """Multiply all lengths of candidates by a factor."""
    return replace(
        candidates,
        xy=candidates.xy * factor,
        scatter=candidates.scatter * factor**2,
        border_A=candidates.border_A * factor,
    )


def scale_refined(refined: Refined, factor: float) -> Refined:
    """Multiply all lengths of a fit by a factor; the probe is in pixels and does not change."""
    optics = replace(
        refined.optics,
        pixel_size_A=refined.optics.pixel_size_A * factor,
        jitter_A=refined.optics.jitter_A * factor,
    )
    return replace(
        refined,
        xy=refined.xy * factor,
        covariance=refined.covariance * factor**2,
        optics=optics,
        start_sigma_A=refined.start_sigma_A * factor,
    )
