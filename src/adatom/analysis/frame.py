"""The analysis of one frame: every step, in the order in which it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from adatom.analysis.card import fit_in_card
from adatom.analysis.flags import FrameFlags, flags_of
from adatom.analysis.lattice import lattice_of
from adatom.analysis.naming import BORDER_A, Before, seen_sites, weigh_defects
from adatom.analysis.options import AnalysisOptions
from adatom.core import (
    AtomTable,
    DefectTable,
    EmptySites,
    Frame,
    Lattice,
    Material,
    Prediction,
)
from adatom.core.arrays import Image
from adatom.features.calibration.calibrator import LIKELY_P, Calibrator
from adatom.features.candidates.locate import Candidates
from adatom.features.defects.holes import hole_evidence, sites_of_holes
from adatom.features.find import FindOptions, FoundAtoms, find_at, locate_sites
from adatom.features.refinement.binning import restored_frame
from adatom.frames.specimen.examine import examine

if TYPE_CHECKING:  # processes that finish frames do without networks, and without torch
    from adatom.learning.ensemble import Ensemble

_SAME_SITE_A = 0.6  # a candidate this near to a lattice site is that site; sites are 1.2 Å apart
MAPS = ("mean", "std", "entropy", "mutual_information")  # methods of `Prediction`


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """Result of the analysis of one frame.

    Parameters
    ----------
    atoms
        Table of the atoms, with the lattice sites that were tested for a missing atom.
    lattice
        Lattice fitted to the atoms; None if they do not lie on one.
    defects
        Table of the named defects.
    maps
        Mean, standard deviation, entropy and mutual information of the members' maps by name, each
        of shape (class, row, col) at the networks' pixel size.
    flags
        Imaging conditions and out-of-distribution flags.
    found
        The fit and the candidates behind the table, for training and for measurements.
    before
        Atoms and defects before doubtful places were weighed by the counts; None where that
        changed nothing.
    """

    atoms: AtomTable
    lattice: Lattice | None
    defects: DefectTable
    maps: dict[str, Image]
    flags: FrameFlags
    found: FoundAtoms
    before: Before | None = None


def analyse_frame(
    frame: Frame,
    ensemble: Ensemble,
    material: Material,
    options: AnalysisOptions | None = None,
    *,
    predictions: Iterable[Prediction] | None = None,
    finish: Callable[[Frame, Candidates], FrameResult] | None = None,
) -> FrameResult:
    """Find the atoms, vacancies, lattice and defects of one frame.

    All atoms are refined once. This refinement also tests every empty site against the image, so
    vacancies need no second one.

    Parameters
    ----------
    frame
        The image.
    ensemble
        Calibrated networks.
    material
        Material in the frame.
    options
        See `AnalysisOptions`.
    predictions
        The ensemble's maps of the frame, whole or in tiles, where they were made before.
    finish
        Does what follows the networks; default: `finish_frame`, in this process.

    Raises
    ------
    BadInput
        If the ensemble's card has no calibration.
    """
    options = options or AnalysisOptions()
    finish = finish or partial(finish_frame, card=ensemble.card, material=material, options=options)
    frame = examine(frame)
    sites, maps = _see(frame, ensemble, options, predictions)
    result = finish(frame, sites)
    restored = result.found.refined.restored
    if restored is not None:
        # Networks that saw a clipped Si take it for C: they look again at the restored frame.
        sites, maps = _see(restored_frame(frame, restored), ensemble, options)
        result = finish(frame, sites)
    return replace(result, maps=maps)


def finish_frame(
    frame: Frame,
    sites: Candidates,
    card: Mapping[str, Any],
    material: Material,
    options: AnalysisOptions,
) -> FrameResult:
    """Do all that `analyse_frame` does after the networks; the result has no maps.

    Parameters
    ----------
    frame
        The image, examined.
    sites
        Sites that the networks see, from `locate_sites`.
    card
        Model card of the networks.
    material
        Material in the frame.
    options
        See `AnalysisOptions`.
    """
    calibrator = fit_in_card(card, "calibration", Calibrator)
    found = find_at(frame, sites, material, calibrator, options.find)
    lattice = lattice_of(found.atoms, material)
    atoms = with_tested_sites(found, lattice, frame)
    atoms, defects, before = weigh_defects(frame, atoms, found, lattice, material, options)
    return FrameResult(
        in_file_unit(atoms, frame), lattice, defects, {}, flags_of(found, card), found, before
    )


def _see(
    frame: Frame,
    ensemble: Ensemble,
    options: AnalysisOptions,
    predictions: Iterable[Prediction] | None = None,
) -> tuple[Candidates, dict[str, Image]]:
    """Sites that the networks see in a frame, and their maps."""
    from adatom.learning.predict import predict_tiles

    maps = _empty_maps(frame, ensemble)
    tiles = predict_tiles(frame, ensemble) if predictions is None else predictions
    return locate_sites(_summarised(tiles, maps), options.find), maps


def find_atoms(
    frame: Frame,
    ensemble: Ensemble,
    material: Material,
    options: FindOptions | None = None,
    predictions: Iterable[Prediction] | None = None,
) -> FoundAtoms:
    """Find the atoms and the empty sites of one frame: the first half of `analyse_frame`.

    Parameters
    ----------
    frame
        The image.
    ensemble
        Calibrated networks.
    material
        Material in the frame.
    options
        See `FindOptions`.
    predictions
        The ensemble's maps of the frame, whole or in tiles, where they were made before.

    Raises
    ------
    BadInput
        If the ensemble's card has no calibration.
    """
    from adatom.learning.predict import predict_tiles

    frame = examine(frame)
    tiles = predict_tiles(frame, ensemble) if predictions is None else predictions
    sites = locate_sites(tiles, options)
    return find_at(frame, sites, material, calibrator_of(ensemble), options)


def calibrator_of(ensemble: Ensemble) -> Calibrator:
    """Read the calibration from the model card.

    Raises
    ------
    BadInput
        If the card has none, or one that cannot be read.
    """
    return fit_in_card(ensemble.card, "calibration", Calibrator)


def with_tested_sites(found: FoundAtoms, lattice: Lattice | None, frame: Frame) -> AtomTable:
    """Give the atoms with the sites where one may be missing; the two agree on every site.

    Networks may see an atom and an empty site in one place. Where both are likely, the two
    probabilities are divided by their sum, because a site is one or the other.

    Parameters
    ----------
    found, lattice, frame
        As of `tested_sites`.
    """
    tested = seen_sites(tested_sites(found, lattice, frame), frame)
    p_atom, p_empty = found.atoms.column("p_exists").copy(), tested.p.copy()
    atoms, empty = (np.flatnonzero(p > LIKELY_P) for p in (p_atom, p_empty))
    if len(atoms) and len(empty):
        away, nearest = cKDTree(found.atoms.xy[atoms]).query(tested.xy[empty])
        same = away < _SAME_SITE_A
        atoms, empty = atoms[nearest[same]], empty[same]
        both = p_atom[atoms] + p_empty[empty]
        p_atom[atoms], p_empty[empty] = p_atom[atoms] / both, p_empty[empty] / both
    data = found.atoms.data.with_columns(p_exists=pl.Series(p_atom))
    table = EmptySites(tested.xy, p_empty).table(frame.index)
    return replace(found.atoms, data=data, empty_sites=table)


def tested_sites(found: FoundAtoms, lattice: Lattice | None, frame: Frame) -> EmptySites:
    """List the sites where an atom may be missing, with the probability that it is.

    The networks propose empty sites. A lattice site that they do not propose is filled (p = 0).
    Proposed sites off the lattice are kept, for instance where another stacking begins.

    Parameters
    ----------
    found
        Result of `find_atoms`.
    lattice
        Lattice fitted to the atoms; if it is None, only the proposed sites are listed.
    frame
        The image.
    """
    if lattice is None:
        return EmptySites(found.vacancies_xy, found.p_empty)
    extent = frame.calibration.extent_xy(frame.shape)
    index, xy = lattice.sites_within(extent, margin_A=BORDER_A)
    ideal = xy.copy()
    p, alone = np.zeros(len(xy)), np.ones(len(found.p_empty), dtype=bool)
    if len(p) and len(alone):
        distance, nearest = cKDTree(found.vacancies_xy).query(xy)
        near = distance < _SAME_SITE_A
        p[near], xy[near] = found.p_empty[nearest[near]], found.vacancies_xy[nearest[near]]
        alone = cKDTree(xy).query(found.vacancies_xy)[0] >= _SAME_SITE_A
    material = lattice.material
    likely = found.atoms.xy[found.atoms.is_likely]
    hole = sites_of_holes(ideal, likely, material.bond_length_A)
    hole &= frame.border_distance_A(ideal) >= BORDER_A  # masked pixels are no hole
    if hole.any():
        labels = np.array(material.site_species)[index[hole, 2]]
        evidence = hole_evidence(
            frame, found.atoms, found.refined, ideal[hole], labels, material.scale
        )
        p[hole] = np.maximum(p[hole], evidence)
    return EmptySites(
        np.concatenate([xy, found.vacancies_xy[alone]]), np.concatenate([p, found.p_empty[alone]])
    )


def in_file_unit(atoms: AtomTable, frame: Frame) -> AtomTable:
    """Give the table with amplitudes in the intensity of the file."""
    unit = 1.0 if frame.pixels is None else frame.pixels.unit
    data = atoms.data.with_columns(pl.col("amplitude") * unit)
    return replace(atoms, data=data)


def _empty_maps(frame: Frame, ensemble: Ensemble) -> dict[str, Image]:
    from adatom.learning.predict import map_shape

    shape = map_shape(frame.shape, frame.calibration, ensemble.working)
    return {name: np.zeros((len(ensemble.classes), *shape), np.float32) for name in MAPS}


def _summarised(tiles: Iterable[Prediction], maps: dict[str, Image]) -> Iterator[Prediction]:
    """Yield the tiles unchanged, and write their statistics over the members into `maps`.

    The maps of all members fit in memory for a tile, but not for a large frame.
    """
    for tile in tiles:
        rows, cols = tile.inner
        r, c = tile.origin
        there = slice(r + rows.start, r + rows.stop), slice(c + cols.start, c + cols.stop)
        for name, whole in maps.items():
            whole[:, there[0], there[1]] = getattr(tile, name)()[:, rows, cols]
        yield tile
