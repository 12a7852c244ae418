"""Names of the defects of one frame, and doubtful places that are weighed by the counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from adatom.analysis.options import AnalysisOptions
from adatom.core import AtomTable, DefectTable, EmptySites, Frame, Lattice, Material
from adatom.core.arrays import BoolArray
from adatom.core.plugins import DEFECT_NAMERS, plugin
from adatom.features.defects.base import DefectNamer
from adatom.features.defects.hypotheses import ADDED
from adatom.features.defects.reconsider import Asked, reconsider, with_weighed
from adatom.features.defects.settled import ON_IT_A, has_impurity
from adatom.features.defects.vacancy_test import site_evidence
from adatom.features.find import FoundAtoms
from adatom.frames.specimen.examine import examine

BORDER_A = 0.5  # sites nearer to the border are cut by it and not tested


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """Atoms and defects of a frame before its doubtful places were weighed.

    Parameters
    ----------
    atoms, defects
        As they were found and named.
    asked
        The places where something else was found, and the shapes that remained possible.
    """

    atoms: AtomTable
    defects: DefectTable
    asked: tuple[Asked, ...]


def weigh_defects(
    frame: Frame,
    atoms: AtomTable,
    found: FoundAtoms,
    lattice: Lattice | None,
    material: Material,
    options: AnalysisOptions,
) -> tuple[AtomTable, DefectTable, Before | None]:
    """Name the defects of one frame, and reconsider its atoms by the likelihood of the counts.

    Parameters
    ----------
    frame
        The image, examined.
    atoms
        Its atoms, with the sites that were tested.
    found
        The fit behind them.
    lattice
        Lattice fitted to the atoms; None if they do not lie on one.
    material
        Material in the frame.
    options
        See `AnalysisOptions`.

    Returns
    -------
    The atoms, where the counts speak for other ones these; the defects; and what there was before,
    None if the counts speak for nothing else.
    """
    named = name_defects(frame, atoms, lattice, material, options)
    if lattice is None:
        return atoms, named, None
    weighed, asked = reconsider(
        frame, atoms, found.refined, lattice, named, material, options.defects
    )
    if weighed is atoms:
        return atoms, named, None
    defects = name_defects(frame, weighed, lattice, material, options)
    return weighed, defects, Before(atoms, named, asked)


def weigh_again(
    frame: Frame,
    before: Before,
    others: DefectTable,
    found: FoundAtoms,
    lattice: Lattice,
    material: Material,
    options: AnalysisOptions,
) -> tuple[AtomTable, DefectTable, Before | None]:
    """Weigh the places of the last frame in one that resembles it, by the counts of this one.

    Parameters
    ----------
    frame, found, material, options
        As of `weigh_defects`.
    before
        Atoms and defects as found and named in this frame, and the places of the last one.
    others
        Defects of this frame at other places.
    lattice
        Lattice of this frame, followed from that of the last.

    Returns
    -------
    The atoms and the defects, as of `weigh_defects`. Where another kind is likelier than in the
    last frame, what there was before is given, too, and a sheet that changed is named anew; else
    that is None.
    """
    weighed, asked = reconsider(
        frame, before.atoms, found.refined, lattice, before.defects, material, options.defects,
        before.asked,
    )  # fmt: skip
    changed = [a for a, b in zip(asked, before.asked, strict=True) if a.kind != b.kind]
    if any(one.reach is not ADDED for one in changed):
        defects = name_defects(frame, weighed, lattice, material, options)
        return weighed, defects, replace(before, asked=asked)
    others = _with_impurities(others, before.defects, changed, lattice)
    defects = _on_specimen(with_weighed(others, weighed.weighed), frame, options)
    return weighed, defects, replace(before, asked=asked) if changed else None


def _with_impurities(
    others: DefectTable, plain: DefectTable, changed: Sequence[Asked], lattice: Lattice
) -> DefectTable:
    """Add the impurities at some places as they were named before they were weighed."""
    if not changed:
        return others
    places = lattice.distort(np.array([one.centre for one in changed]))

    def there(table: DefectTable) -> BoolArray:
        away = np.linalg.norm(table.xy[:, None] - places, axis=2).min(axis=1)
        own = np.array([has_impurity(k) for k in table.kinds], dtype=np.bool_)
        return np.asarray((away < ON_IT_A) & own)

    rest = others.data.filter(pl.Series(~there(others), dtype=pl.Boolean))
    again = plain.data.filter(pl.Series(there(plain), dtype=pl.Boolean))
    return DefectTable.concat([DefectTable(rest), DefectTable(again)])


def name_defects(
    frame: Frame,
    atoms: AtomTable,
    lattice: Lattice | None,
    material: Material,
    options: AnalysisOptions | None = None,
) -> DefectTable:
    """Name the defects of one frame.

    Atoms from `analyse_frame` come with the sites that were tested for a missing atom. Other atoms
    do not: every lattice site is then tested against the image, which refines the frame again.

    Parameters
    ----------
    frame
        The image.
    atoms
        Atoms of this frame.
    lattice
        Lattice fitted to the atoms; None if they do not lie on one.
    material
        Material in the frame.
    options
        See `AnalysisOptions`.
    """
    options, frame = options or AnalysisOptions(), examine(frame)
    if atoms.empty_sites is None:
        sites = _sites_by_counts(frame, atoms, lattice, options)
    else:
        sites = EmptySites.from_table(atoms.empty_sites)
    extent = frame.calibration.extent_xy(frame.shape)
    namer: DefectNamer = plugin(DEFECT_NAMERS, material.defect_namer, DefectNamer)
    named = namer.name_defects(
        atoms, lattice, material, extent, sites, frame.index, options.defects
    )
    return _on_specimen(with_weighed(named, atoms.weighed), frame, options)


def _sites_by_counts(
    frame: Frame, atoms: AtomTable, lattice: Lattice | None, options: AnalysisOptions
) -> EmptySites:
    if lattice is None:
        return EmptySites.none()
    extent = frame.calibration.extent_xy(frame.shape)
    index, xy = lattice.sites_within(extent, margin_A=BORDER_A)
    labels = np.array(lattice.material.site_species)[index[:, 2]]
    evidence = site_evidence(frame, atoms, xy, labels, options.evidence)
    return seen_sites(EmptySites(xy, evidence), frame)


def seen_sites(sites: EmptySites, frame: Frame) -> EmptySites:
    """Count sites on masked pixels as filled: nothing is known of them, so none is a vacancy."""
    if frame.pixels is None or not frame.pixels.any_masked:
        return sites
    seen = frame.border_distance_A(sites.xy) >= BORDER_A
    return EmptySites(sites.xy, np.where(seen, sites.p, 0.0))


def _on_specimen(defects: DefectTable, frame: Frame, options: AnalysisOptions) -> DefectTable:
    """Drop what touches masked pixels, as namers do at the border of a frame."""
    if frame.pixels is None or not frame.pixels.any_masked or not len(defects):
        return defects
    away = frame.border_distance_A(defects.data.select("x_A", "y_A").to_numpy())
    return DefectTable(defects.data.filter(pl.Series(away >= options.defects.border_A)))
