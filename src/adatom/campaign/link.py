"""Link what was found in the frames of a movie: tracks, rates of jumps, and origins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.special import ndtri

from adatom.campaign.config import Config
from adatom.campaign.lattices import lattice_from_json
from adatom.core import AtomTable, DefectTable, KnockOnData, Material, Movie, SiteThreshold
from adatom.core.atoms import COLUMNS as ATOM_COLUMNS
from adatom.core.defects import COLUMNS as DEFECT_COLUMNS
from adatom.core.tracks import COLUMNS as TRACK_COLUMNS
from adatom.core.transitions import COLUMNS as TRANSITION_COLUMNS
from adatom.core.units import A2_PER_BARN
from adatom.features import Clock, estimate_drift, link_atoms, link_defects, transition_table
from adatom.features.histories import SearchedField
from adatom.features.origin import Beam, track_table, with_beam_probability
from adatom.simulation import displacement_cross_section_barn
from adatom.store import CampaignDirectory, FrameParts, file_hash, write_table

_THRESHOLDS = 16  # values of the displacement threshold that stand for its distribution


def link_movie(
    directory: CampaignDirectory,
    config: Config,
    movie: Movie,
    material: Material,
    parts: FrameParts,
) -> str:
    """Join the frames' parts into the tables that a user reads: atoms, defects, tracks, rates.

    Parameters
    ----------
    directory
        Open for writing.
    config, movie, material
        Of the campaign.
    parts
        What was found in each frame.

    Returns
    -------
    Hash of the tables.
    """
    assert movie.calibration is not None  # settled by sources.open_movie  # noqa: S101
    count, extent = len(movie), movie.calibration.extent_xy(movie.shape)
    atoms = AtomTable.concat(map(AtomTable, parts.table("atoms", count)))
    defects = DefectTable.concat(map(DefectTable, parts.table("defects", count)))
    drift = dict.fromkeys(range(count), (0.0, 0.0)) | estimate_drift(atoms, config.link)
    atoms = link_atoms(atoms, drift, config.link)
    defects = link_defects(
        defects,
        drift,
        frames=range(count),
        extent_xy_A=extent,
        border_A=config.defects.border_A,
        options=config.link,
    )
    write_table(directory.atoms_path, atoms.data, ATOM_COLUMNS)
    moved = np.array([drift[i] for i in range(count)])
    searched = SearchedField(np.arange(count), moved, extent, config.defects.border_A)
    recorded = movie.acquisition
    beams = beams_on(material, recorded.usual_voltage_kV, recorded.dose_per_A2)
    tracks = track_table(defects, searched, material, beams, config.link)
    defects = with_beam_probability(defects, tracks)
    write_table(directory.defects_path, defects.data, DEFECT_COLUMNS)
    write_table(directory.tracks_path, tracks, TRACK_COLUMNS)
    told = parts.told(count)
    lattices = {i: lattice_from_json(one["lattice"], material) for i, one in told.items()}
    clock = Clock(recorded.frame_time_s, recorded.dose_per_A2)
    rates = transition_table(defects, lattices, drift, clock, config.link)
    write_table(directory.transitions_path, rates, TRANSITION_COLUMNS)
    return file_hash(*linked_paths(directory))


def linked_paths(directory: CampaignDirectory) -> tuple[Path, ...]:
    """Tables of the whole movie."""
    return (
        directory.atoms_path,
        directory.defects_path,
        directory.tracks_path,
        directory.transitions_path,
    )


def beams_on(material: Material, voltage_kV: float, dose_per_A2: float | None) -> tuple[Beam, ...]:
    """What the beam does to the atoms of a material, for each element with a known threshold.

    Parameters
    ----------
    material
        The crystal.
    voltage_kV
        Acceleration voltage, kV.
    dose_per_A2
        Electrons per Å² and frame; None if not known.
    """
    known = material.knock_on
    if known is None:
        return ()
    # Sites beside a foreign atom, or with fewer neighbours, are not those of a whole element.
    of: list[KnockOnData | SiteThreshold] = [known]
    of += [s for s in known.sites if not s.beside and not s.coordination]
    return tuple(_beam_of(each, voltage_kV, dose_per_A2) for each in of)


def _beam_of(
    known: KnockOnData | SiteThreshold, voltage_kV: float, dose_per_A2: float | None
) -> Beam:
    # Each threshold stands for an equal share of its normal distribution.
    shares = (np.arange(_THRESHOLDS) + 0.5) / _THRESHOLDS
    sections = [
        A2_PER_BARN
        * displacement_cross_section_barn(
            voltage_kV, known.element, float(threshold), known.mean_square_velocity_m2_s2
        )
        for threshold in known.threshold_eV + known.threshold_sd_eV * ndtri(shares)
    ]
    return Beam(known.element, np.array(sections), dose_per_A2)
