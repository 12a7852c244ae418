"""From a frame and its networks' maps to the table of its atoms, and to its empty sites."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from adatom.core import AtomTable, Frame, Material, Prediction
from adatom.core.arrays import FloatArray
from adatom.features.calibration.calibrator import SURE, Calibrator
from adatom.features.candidates.beyond_border import ghosts
from adatom.features.candidates.locate import Candidates, LocateOptions, locate
from adatom.features.novelty.frame import describe
from adatom.features.novelty.regions import Regions, describe_regions
from adatom.features.refinement.refine import Refined, RefineOptions, refine
from adatom.features.scaled_lengths import (
    candidates_times,
    frame_in_units,
    material_in_units,
    refined_times,
)
from adatom.features.sublattices import ordered


class FindOptions(BaseModel):
    """How atoms are found in a frame."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    locate: LocateOptions = LocateOptions()
    refine: RefineOptions = RefineOptions()
    lowest_p_exists: float = Field(
        0.05, ge=0, le=1, description="atoms less probable than this are left out of the table"
    )


@dataclass(frozen=True, slots=True, eq=False)
class FoundAtoms:
    """What a frame shows.

    Parameters
    ----------
    atoms
        Table of the atoms.
    p_classes
        Probability of each of the material's species for each of them, shape (atom, species).
    vacancies_xy
        Lattice sites that may be empty, shape (site, 2), Å.
    p_empty
        Probability that they are, shape (site,).
    refined
        The fit: what all atoms share, and how well it explains the frame.
    candidates
        The sites as the networks saw them.
    description
        What `Novelty` compares with the training conditions, shape (description,).
    regions
        The same region by region.
    """

    atoms: AtomTable
    p_classes: FloatArray
    vacancies_xy: FloatArray
    p_empty: FloatArray
    refined: Refined
    candidates: Candidates
    description: FloatArray
    regions: Regions


def find_candidates(
    frame: Frame,
    tiles: Iterable[Prediction],
    material: Material,
    options: FindOptions | None = None,
) -> tuple[Candidates, Refined]:
    """Locate and refine, before calibration; lengths are in units of `Material.scale` Å.

    Parameters
    ----------
    frame
        The image.
    tiles
        The ensemble's maps of it, whole or in tiles; each is let go before the next is made.
    material
        Gives the surroundings of atoms at the border.
    options
        See `FindOptions`.
    """
    options = options or FindOptions()
    scale = material.scale
    candidates = Candidates.concat([locate(tile, options.locate) for tile in tiles])
    candidates = candidates_times(candidates, 1.0 / scale)
    seen = frame_in_units(frame, scale)
    outside = np.zeros((0, 2))
    if material.coordination > 1:
        extent = seen.calibration.extent_xy(seen.shape)
        outside = ghosts(candidates.xy, extent, material_in_units(material, scale))
    return candidates, refine(seen, candidates.xy, options.refine, outside)


def find(
    frame: Frame,
    tiles: Iterable[Prediction],
    material: Material,
    calibrator: Calibrator,
    options: FindOptions | None = None,
) -> FoundAtoms:
    """Find every atom of a frame, with position covariance, element and probabilities.

    Parameters
    ----------
    frame
        The image.
    tiles
        The ensemble's maps of it, whole or in tiles.
    material
        What it shows: the host is its first species.
    calibrator
        Fitted with the ensemble.
    options
        See `FindOptions`.
    """
    options = options or FindOptions()
    candidates, refined = find_candidates(frame, tiles, material, options)
    p_exists, p_empty = calibrator.p_states(candidates, refined)
    keep = p_exists >= options.lowest_p_exists
    p_classes = _p_classes(candidates, refined, p_exists, material, calibrator)
    species = np.array(material.species)
    element, p_element = species[np.argmax(p_classes, axis=1)], p_classes.max(axis=1)
    scale = material.scale
    atoms = AtomTable.build(
        frame=frame.index,
        xy=calibrator.position(candidates, refined, options.refine)[keep] * scale,
        covariance=calibrator.covariance(candidates, refined, options.refine)[keep] * scale**2,
        p_exists=p_exists[keep],
        element=element[keep],
        p_element=p_element[keep],
        votes=candidates.votes[keep],
        amplitude=refined.amplitude[keep],
    )
    vacant = p_empty >= options.lowest_p_exists
    description, regions = describe_frame(frame, candidates, refined, material, options)
    candidates, refined = candidates_times(candidates, scale), refined_times(refined, scale)
    return FoundAtoms(
        atoms, p_classes[keep], candidates.xy[vacant], p_empty[vacant], refined, candidates,
        description, regions.times(scale),
    )  # fmt: skip


def describe_frame(
    frame: Frame, candidates: Candidates, refined: Refined, material: Material, options: FindOptions
) -> tuple[FloatArray, Regions]:
    """Describe a frame, and its regions, for the distance to training; lengths as they come."""
    scale = material.scale
    alike = material_in_units(material, scale)
    extent = frame_in_units(frame, scale).calibration.extent_xy(frame.shape)
    return (
        describe(candidates, refined, alike, options.refine),
        describe_regions(candidates, refined, extent, alike, options.refine),
    )


def _p_classes(
    candidates: Candidates,
    refined: Refined,
    p_exists: FloatArray,
    material: Material,
    calibrator: Calibrator,
) -> FloatArray:
    """Probability of each species at every site, by the site and by its lattice."""
    p, there = calibrator.p_classes(candidates, refined), p_exists > SURE
    alike = material_in_units(material, material.scale)
    p[there] = ordered(candidates.xy[there], p[there], alike, calibrator.order)
    return p
