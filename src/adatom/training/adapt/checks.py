"""Checks of the iterative training: do the frames show the material, did a round do no harm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adatom.core import Material
from adatom.core.imaging import Imaging
from adatom.errors import BadInput
from adatom.frames.lattice.faint import estimate_faint, lattice_evidence
from adatom.frames.lattice.spectrum import TRUSTED_CONTRAST, estimate_scale
from adatom.training.adapt.runner import KINDS, ScoredFrame

# Relative difference between the given pixel size and that from the spectrum; beyond it the
# reflections belong to another lattice.
_MAX_SCALE_ERROR = 0.08
_MIN_COORDINATED = 0.4  # share of atoms with the right number of neighbours, of the best member
_MIN_ON_SITE = 0.5  # share of atoms on a site of the fitted lattice
_FAINT_SHARE = 0.4  # likely atoms per lattice site below which frames are too faint for labels
# Evidence for a lattice in faint frames, as -log10 of the probability that noise shows as much.
_MIN_EVIDENCE = 4.0
# Tolerated loss of F1 in standard errors of a proportion (one-sided, 93 % of random losses are
# smaller).
_TOLERATED_ERRORS = 1.5


def faint_conditions(scored: Sequence[ScoredFrame], material: Material) -> Imaging | None:
    """Estimate the conditions of frames that show the lattice but too few likely atoms.

    Such frames give no labels; the networks can only be trained on simulated frames like them.

    Parameters
    ----------
    scored
        The first frames, analysed.
    material
        Material that they are said to show.

    Returns
    -------
    The conditions; None if the frames show enough atoms, or no lattice.
    """
    if not material.has_lattice:
        return None
    frames = [s.frame for s in scored]
    areas = [np.prod(f.calibration.extent_xy(f.shape)) for f in frames]
    likely = sum(int(s.found.atoms.is_likely.sum()) for s in scored)
    if likely * material.site_area_A2 > _FAINT_SHARE * sum(areas):
        return None
    imaging = estimate_faint(frames, material)
    if imaging is None or lattice_evidence(frames, material) < _MIN_EVIDENCE:
        return None
    return imaging


def require_material(scored: Sequence[ScoredFrame], material: Material) -> None:
    """Refuse frames that do not show the material: networks would learn to find it everywhere.

    Parameters
    ----------
    scored
        The first frames, analysed, with scores of the members.
    material
        Material that they are said to show.

    Raises
    ------
    BadInput
        If too few atoms have the right number of neighbours, or no lattice fits.
    """
    if not material.has_lattice:
        return
    best = max(np.nan_to_num(s.coordination) for part in scored for s in part.scores)
    on_sites = [part.lattice is not None and part.lattice.matched > _MIN_ON_SITE for part in scored]
    ordered = any(on_sites) or _has_reflections(scored, material)
    if best < _MIN_COORDINATED or not ordered:
        raise BadInput(
            "the first frames",
            expected=f"atoms that stand as in {material.name}: its lattice, and at least "
            f"{100 * _MIN_COORDINATED:.0f} % with {material.coordination} neighbours",
            got=f"{100 * best:.0f} % with so many in the best frame, "
            + ("on its lattice" if ordered else "and no lattice"),
            todo="Check `material` and `pixel_size_A`; a bilayer, another crystal or noise cannot "
            "be learned as this one.",
        )


def _has_reflections(scored: Sequence[ScoredFrame], material: Material) -> bool:
    """Whether the spectrum shows the lattice, for frames whose single atoms are too faint."""
    px = scored[0].frame.calibration.pixel_size_A
    found = estimate_scale([s.frame.data for s in scored], material, expected_A=px)
    near = abs(found.pixel_size_A / px - 1.0) < _MAX_SCALE_ERROR
    return near and found.contrast >= TRUSTED_CONTRAST


def passes_validation(
    before: dict[str, float],
    after: dict[str, float],
    tolerance: float,
    *,
    must_gain: bool = False,
) -> bool:
    """Whether a round did no harm: no F1 fell by more than the tolerance or its standard error.

    The standard error is that of a proportion, ``sqrt(F1 (1 - F1) / sites)``, with at least half a
    wrong site.

    Parameters
    ----------
    before, after
        Scores of `RoundRunner.validate` before and after the round.
    tolerance
        Loss of F1 that is accepted with any number of sites.
    must_gain
        Ask for a gain of F1 of atoms beyond its standard error. Atoms on a support have no lattice
        that would show wrong pseudo-labels, so a round without a gain is not worth their risk.

    Examples
    --------
    >>> from adatom.training.adapt.checks import passes_validation
    >>> kinds = ("atom", "vacancy", "foreign")
    >>> before = {kind: 0.9 for kind in kinds} | {f"{kind} sites": 10_000.0 for kind in kinds}
    >>> passes_validation(before, before | {"atom": 0.896}, tolerance=0.004)
    True
    >>> passes_validation(before, before | {"vacancy": 0.85}, tolerance=0.004)
    False
    >>> passes_validation(before, before, tolerance=0.004, must_gain=True)
    False
    """
    for kind in KINDS:
        count = max(before[f"{kind} sites"], 1.0)
        error = np.sqrt(max(before[kind] * (1 - before[kind]), 0.5 / count) / count)
        least = max(tolerance, float(_TOLERATED_ERRORS * error))
        if after[kind] < before[kind] - least:
            return False
        if must_gain and kind == "atom" and after[kind] < before[kind] + least:
            return False
    return True
