"""Compute the atoms and vacancies of a frame from the maps of an ensemble."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from adatom.core import AtomTable, Frame, Material, Prediction
from adatom.core.arrays import BoolArray, FloatArray
from adatom.features.calibration.calibrator import LIKELY_P, Calibrator
from adatom.features.calibration.texture import texture_contrast
from adatom.features.candidates.beyond_border import atoms_beyond_border
from adatom.features.candidates.locate import Candidates, LocateOptions, locate, on_specimen
from adatom.features.dim_columns import many_doubtful
from adatom.features.image_check import (
    ImageCheck,
    brightest,
    check_image,
    relative_brightness,
    shows_dim_columns,
    supported_again,
    uneven,
)
from adatom.features.novelty.frame import describe
from adatom.features.novelty.regions import Regions, describe_regions
from adatom.features.refinement.again import refine_again
from adatom.features.refinement.binning import bin_frame
from adatom.features.refinement.refine import Refined, RefineOptions, refine
from adatom.features.residual import hollows
from adatom.features.scaled_lengths import (
    frame_in_units,
    material_in_units,
    scale_candidates,
    scale_refined,
)
from adatom.features.stackings import hollows_are_filled
from adatom.features.sublattices import with_sublattice_evidence

# Share of the pixels in the middle of a spot from which it counts as clipped, dimensionless.
_CLIPPED_SHARE = 0.3


class FindOptions(BaseModel):
    """Options of finding atoms in a frame."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    locate: LocateOptions = LocateOptions()
    refine: RefineOptions = RefineOptions()
    lowest_p_exists: float = Field(
        0.05, ge=0, le=1, description="atoms less probable than this are left out of the table"
    )


@dataclass(frozen=True, slots=True, eq=False)
class FoundAtoms:
    """Atoms, vacancies and descriptions of one frame.

    Parameters
    ----------
    frame
        The frame, whose intensity is that of `refined`.
    atoms
        Table of the atoms; amplitudes are in the unit of `frame`.
    p_classes
        Probability of each species of the material for each atom, shape (atom, species).
    vacancies_xy
        Possible vacancies, shape (site, 2), Å.
    p_empty
        Probability that each is a vacancy, shape (site,).
    refined
        The fit: positions, amplitudes, probe, noise and reduced χ².
    candidates
        Sites in the maps of the networks, before refinement.
    description
        Input of `OodModel.score` for the frame, shape (description,).
    regions
        The same for each region of the frame.
    clipped
        Whether the top of each atom's spot is clipped, shape (atom,).
    check
        Where the image disagrees with the columns.
    """

    frame: Frame
    atoms: AtomTable
    p_classes: FloatArray
    vacancies_xy: FloatArray
    p_empty: FloatArray
    refined: Refined
    candidates: Candidates
    description: FloatArray
    regions: Regions
    clipped: BoolArray
    check: ImageCheck


def find_candidates(
    frame: Frame,
    tiles: Iterable[Prediction],
    material: Material,
    options: FindOptions | None = None,
) -> tuple[Candidates, Refined]:
    """Locate and refine sites, without calibration; lengths are in units of `Material.scale` Å.

    Parameters
    ----------
    frame
        The image.
    tiles
        Maps of the ensemble, for the whole frame or for tiles; one tile is in memory at a time.
    material
        Gives scale, bond length and coordination number.
    options
        See `FindOptions`.
    """
    options = options or FindOptions()
    return _refine_sites(frame, locate_sites(tiles, options), material, options)


def locate_sites(tiles: Iterable[Prediction], options: FindOptions | None = None) -> Candidates:
    """Locate sites in the maps of the networks, for the whole frame or for tiles; lengths in Å."""
    options = options or FindOptions()
    return Candidates.concat([locate(tile, options.locate) for tile in tiles])


def _refine_sites(
    frame: Frame,
    candidates: Candidates,
    material: Material,
    options: FindOptions,
    *,
    settle: bool = False,
) -> tuple[Candidates, Refined]:
    scale = material.scale
    candidates = on_specimen(candidates, frame)
    candidates = scale_candidates(candidates, 1.0 / scale)
    scaled = frame_in_units(frame, scale)
    outside = np.zeros((0, 2))
    if material.coordination > 1:
        unscaled = material_in_units(material, scale)
        outside = atoms_beyond_border(candidates.xy, scaled.border_distance_A, unscaled)
    refined = refine(scaled, candidates.xy, options.refine, outside, settle=settle)
    if material.has_support:
        contrast = texture_contrast(scaled, candidates.xy, refined.optics.sigma_A)
        refined = replace(refined, texture_contrast=contrast)
    return candidates, refined


def _with_hollows(
    frame: Frame, sites: Candidates, refined: Refined, material: Material
) -> Candidates:
    """Add the hollows between sites, where dim columns may stand; only the fit is in units."""
    scale = material.scale
    bond = material_in_units(material, scale).bond_length_A
    places = hollows(bin_frame(frame_in_units(frame, scale)), refined.xy, bond) * scale
    far = np.asarray(frame.calibration.extent_xy(frame.shape))
    border = np.minimum(places, far - places).min(axis=1, initial=np.inf)
    return sites.with_places(places, border, refined.start_sigma_A * scale)


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
        Maps of the ensemble, for the whole frame or for tiles.
    material
        Material of the frame; its first species is the host.
    calibrator
        Calibrator of the ensemble.
    options
        See `FindOptions`.
    """
    return find_at(frame, locate_sites(tiles, options), material, calibrator, options)


def find_at(
    frame: Frame,
    sites: Candidates,
    material: Material,
    calibrator: Calibrator,
    options: FindOptions | None = None,
) -> FoundAtoms:
    """Find every atom of a frame, as `find` does, from the sites that the networks see.

    Parameters
    ----------
    frame
        The image.
    sites
        Result of `locate_sites`.
    material
        Material of the frame; its first species is the host.
    calibrator
        Calibrator of the ensemble.
    options
        See `FindOptions`.
    """
    options, scale = options or FindOptions(), material.scale
    candidates, refined = _refine_sites(frame, sites, material, options)
    p_exists, p_empty = calibrator.p_states(candidates, refined)
    filled = _shows_filled_hollows(candidates, refined, p_exists, material)
    if filled or (uneven(material) and many_doubtful(p_exists)):
        # A crystal like training needs no second look: it takes as long as the first.
        candidates, refined = _refine_sites(frame, sites, material, options, settle=True)
        p_exists, p_empty = calibrator.p_states(candidates, refined)
        scaled, unscaled = frame_in_units(frame, scale), material_in_units(material, scale)
        if filled or shows_dim_columns(scaled, candidates, refined, p_exists, unscaled):
            # Where most of what the networks doubt is there, so may be what they do not see.
            sites = _with_hollows(frame, sites, refined, material)
            candidates, refined = _refine_sites(frame, sites, material, options, settle=True)
            p_exists, p_empty = calibrator.p_states(candidates, refined)
    description, regions = describe_frame(frame, candidates, refined, material, options)
    p_exists, check = check_image(
        frame_in_units(frame, scale), candidates, refined, p_exists,
        material_in_units(material, scale), regions.boxes, filled=filled,
    )  # fmt: skip
    return _found(
        frame, candidates, refined, (p_exists, p_empty), material, calibrator, options,
        (description, regions.scaled(scale), check.scaled(scale)),
    )  # fmt: skip


def _shows_filled_hollows(
    candidates: Candidates, refined: Refined, p_exists: FloatArray, material: Material
) -> bool:
    """Whether bright columns say that dim ones stand between them."""
    if not (uneven(material) and material.polytypes):
        return False
    unscaled, share = material_in_units(material, material.scale), relative_brightness(material)
    likely = p_exists > LIKELY_P
    bright = likely & (refined.amplitude > 0.5 * brightest(candidates, refined, material))
    return hollows_are_filled(refined.xy[bright], refined.amplitude[bright], unscaled, share)


def find_again(
    frame: Frame,
    sites: Candidates,
    last: FoundAtoms,
    material: Material,
    calibrator: Calibrator,
    options: FindOptions,
) -> FoundAtoms | None:
    """Find every atom of a frame that resembles the last one: `find_at` at a lower cost.

    Probe and noise are those of the last frame, and so are the descriptions of the frame.

    Parameters
    ----------
    frame
        The image, of the same shape and pixel size as the last one.
    sites
        Result of `locate_sites`.
    last
        Result for the last frame that was analysed in full.
    material, calibrator, options
        As of `find_at`.

    Returns
    -------
    The result, or None where that is not enough: a frame of several pieces, clipped pixels, or
    many dim columns.
    """
    scale = material.scale
    candidates = scale_candidates(on_specimen(sites, frame), 1.0 / scale)
    scaled, unscaled = frame_in_units(frame, scale), material_in_units(material, scale)
    outside = np.zeros((0, 2))
    if material.coordination > 1:
        outside = atoms_beyond_border(candidates.xy, scaled.border_distance_A, unscaled)
    before = scale_refined(last.refined, 1.0 / scale)
    binned = bin_frame(scaled)
    refined = refine_again(binned, candidates.xy, before, options.refine, outside)
    if refined is None:
        return None
    p_exists, p_empty = calibrator.p_states(candidates, refined)
    supported = supported_again(binned, candidates, refined, p_exists, unscaled)
    if supported is None:
        return None
    return _found(
        frame, candidates, refined, (supported, p_empty), material, calibrator, options,
        (last.description, last.regions, last.check),
    )  # fmt: skip


def _found(
    frame: Frame,
    candidates: Candidates,
    refined: Refined,
    p_states: tuple[FloatArray, FloatArray],
    material: Material,
    calibrator: Calibrator,
    options: FindOptions,
    described: tuple[FloatArray, Regions, ImageCheck],
) -> FoundAtoms:
    """Make the tables of a frame from its refined sites and their probabilities."""
    (p_exists, p_empty), scale = p_states, material.scale
    keep = p_exists >= options.lowest_p_exists
    p_classes = _p_classes(candidates, refined, p_exists, material, calibrator)
    species = np.array(material.species)
    element, p_element = species[np.argmax(p_classes, axis=1)], p_classes.max(axis=1)
    xy, covariance = calibrator.placed(candidates, refined, options.refine)
    atoms = AtomTable.build(
        frame=frame.index,
        xy=xy[keep] * scale,
        covariance=covariance[keep] * scale**2,
        p_exists=p_exists[keep],
        element=element[keep],
        p_element=p_element[keep],
        votes=candidates.vote_fraction[keep],
        amplitude=refined.amplitude[keep],
    )
    vacant = p_empty >= options.lowest_p_exists
    candidates, refined = scale_candidates(candidates, scale), scale_refined(refined, scale)
    description, regions, check = described
    return FoundAtoms(
        frame, atoms, p_classes[keep], candidates.xy[vacant], p_empty[vacant], refined, candidates,
        description, regions, clipped_under(frame, atoms.xy, refined), check,
    )  # fmt: skip


def clipped_under(frame: Frame, xy: FloatArray, refined: Refined) -> BoolArray:
    """Tell for each position, shape (atom, 2), Å, whether the top of its spot is clipped."""
    if frame.pixels is None or not (frame.pixels.clipped > 0).any() or not len(xy):
        return np.zeros(len(xy), dtype=np.bool_)
    edge = max(round(frame.calibration.pixels(refined.optics.sigma_A)), 1)
    share = ndimage.uniform_filter((frame.pixels.clipped > 0).astype(np.float32), edge)
    rc = frame.calibration.rc(xy).T
    return np.asarray(ndimage.map_coordinates(share, rc, order=1) > _CLIPPED_SHARE)


def describe_frame(
    frame: Frame, candidates: Candidates, refined: Refined, material: Material, options: FindOptions
) -> tuple[FloatArray, Regions]:
    """Describe a frame and its regions for `OodModel`; lengths are those of `find_candidates`."""
    scale = material.scale
    unscaled = material_in_units(material, scale)
    extent = frame_in_units(frame, scale).calibration.extent_xy(frame.shape)
    return (
        describe(candidates, refined, unscaled, options.refine),
        describe_regions(candidates, refined, extent, unscaled, options.refine),
    )


def _p_classes(
    candidates: Candidates,
    refined: Refined,
    p_exists: FloatArray,
    material: Material,
    calibrator: Calibrator,
) -> FloatArray:
    """Probability of each species at every site, from the site and from its sublattice."""
    p, there = calibrator.p_classes(candidates, refined), p_exists > LIKELY_P
    unscaled = material_in_units(material, material.scale)
    p[there] = with_sublattice_evidence(candidates.xy[there], p[there], unscaled, calibrator.order)
    return p
