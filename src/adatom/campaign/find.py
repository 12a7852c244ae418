"""Find and link the atoms and defects of a movie; the ledger records every frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.special import ndtri

from adatom.analysis.flags import Box, FrameFlags
from adatom.analysis.frame import FrameResult, calibrator_of
from adatom.analysis.movie import frame_analysis
from adatom.campaign.config import Config
from adatom.campaign.outputs import frame_outputs
from adatom.campaign.steps import Job, Steps
from adatom.core import Affine, AtomTable, DefectTable, Lattice, Material, Movie
from adatom.core.atoms import COLUMNS as ATOM_COLUMNS
from adatom.core.defects import COLUMNS as DEFECT_COLUMNS
from adatom.core.tracks import COLUMNS as TRACK_COLUMNS
from adatom.core.transitions import COLUMNS as TRANSITION_COLUMNS
from adatom.features import Clock, estimate_drift, link_atoms, link_defects, transition_table
from adatom.features.histories import SearchedField
from adatom.features.origin import Beam, track_table, with_beam_probability
from adatom.feedback.choose import A2_PER_BARN
from adatom.learning.ensemble import Ensemble
from adatom.simulation import displacement_cross_section_barn
from adatom.store import (
    CampaignDirectory,
    FrameParts,
    file_hash,
    read_table,
    write_table,
)

_THRESHOLDS = 16  # values of the displacement threshold that stand for its distribution


@dataclass(frozen=True, slots=True, eq=False)
class MovieResult:
    """Atoms and defects of a movie.

    Parameters
    ----------
    atoms, defects
        Tables of all frames, linked into tracks.
    tracks
        Each defect once, with what made it.
    transitions
        How often defects jump and change their kind.
    lattices
        Lattice of each frame by its number; None if none was found.
    flags
        Flags of each frame by its number.
    keys
        Ledger key of each frame by its number.
    key
        Ledger key of the linked tables.
    """

    atoms: AtomTable
    defects: DefectTable
    tracks: pl.DataFrame
    transitions: pl.DataFrame
    lattices: dict[int, Lattice | None]
    flags: dict[int, FrameFlags]
    keys: dict[int, str]
    key: str

    @property
    def masked_regions(self) -> dict[int, tuple[Box, ...]]:
        """What does not show the specimen (left, top, right, bottom in Å) by frame number."""
        return {i: flags.masked_boxes for i, flags in self.flags.items() if flags.masked_boxes}

    @property
    def unlike_regions(self) -> dict[int, tuple[Box, ...]]:
        """Out-of-distribution regions (left, top, right, bottom in Å) by frame number."""
        return {i: flags.boxes for i, flags in self.flags.items() if flags.boxes}


def find_in_movie(
    movie: Movie,
    material: Material,
    config: Config,
    ensemble: Ensemble,
    steps: Steps,
    known: Mapping[int, FrameResult] | None = None,
) -> MovieResult:
    """Find atoms and defects in every frame and link them.

    Parameters
    ----------
    movie
        Calibrated frames.
    material
        Material in the frames.
    config
        Options of all steps.
    ensemble
        The networks.
    steps
        The campaign's ledger.
    known
        Results of frames that this ensemble has already analysed with the options of `config`.
    """
    directory = steps.directory
    keys, parts = _find(movie, material, config, ensemble, steps, known or {})
    link = Job(
        "link",
        "movie",
        [config.link, config.voltage_kV, movie.frame_time_s, movie.dose_per_A2],
        current=lambda: _hash_of(*_linked_paths(directory)),
        make=partial(_link, directory, config, movie, material, parts),
        parents=tuple(keys),
    )
    (key,) = steps.run([link])
    told = parts.told(len(movie))
    return MovieResult(
        AtomTable(read_table(directory.atoms_path)),
        DefectTable(read_table(directory.defects_path)),
        read_table(directory.tracks_path),
        read_table(directory.transitions_path),
        {i: lattice_from_json(one["lattice"], material) for i, one in told.items()},
        {i: FrameFlags.model_validate(one["flags"]) for i, one in told.items()},
        dict(enumerate(keys)),
        key,
    )


def _find(
    movie: Movie,
    material: Material,
    config: Config,
    ensemble: Ensemble,
    steps: Steps,
    known: Mapping[int, FrameResult],
) -> tuple[list[str], FrameParts]:
    calibrator_of(ensemble)  # a card without one is refused before anything is written
    options = config.analysis()
    assert movie.calibration is not None  # settled by sources.open_movie  # noqa: S101
    inputs = [movie.calibration.pixel_size_A, material, ensemble.fingerprint(), options]
    with (
        frame_outputs(movie, ensemble, steps.directory) as outputs,
        frame_analysis(len(movie), ensemble, material, options) as (analyse, at_once),
    ):

        def make(i: int) -> str:
            frame = movie[i]
            result = known.get(i) or analyse(frame)
            return outputs.write(frame, result.maps, _tables(result), _told(result))

        jobs = [
            Job(
                "find",
                f"frame {i}",
                [movie.frame_hash(i), *inputs, i],
                partial(outputs.hash, i),
                partial(make, i),
            )
            for i in range(len(movie))
        ]
        return steps.run(jobs, at_once=at_once), outputs.parts


def _tables(result: FrameResult) -> dict[str, pl.DataFrame]:
    sites = result.atoms.empty_sites
    assert sites is not None  # analyse_frame tests them  # noqa: S101
    return {"atoms": result.atoms.data, "sites": sites, "defects": result.defects.data}


def _told(result: FrameResult) -> dict[str, Any]:
    return {"lattice": lattice_to_json(result.lattice), "flags": result.flags.model_dump()}


def _link(
    directory: CampaignDirectory,
    config: Config,
    movie: Movie,
    material: Material,
    parts: FrameParts,
) -> str:
    """Join the frames' parts into the tables that a user reads."""
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
    beam = beam_on(material, config.voltage_kV, movie.dose_per_A2)
    tracks = track_table(defects, searched, material, beam)
    defects = with_beam_probability(defects, tracks)
    write_table(directory.defects_path, defects.data, DEFECT_COLUMNS)
    write_table(directory.tracks_path, tracks, TRACK_COLUMNS)
    told = parts.told(count)
    lattices = {i: lattice_from_json(one["lattice"], material) for i, one in told.items()}
    clock = Clock(movie.frame_time_s, movie.dose_per_A2)
    rates = transition_table(defects, lattices, drift, clock)
    write_table(directory.transitions_path, rates, TRANSITION_COLUMNS)
    return file_hash(*_linked_paths(directory))


def _linked_paths(directory: CampaignDirectory) -> tuple[Path, ...]:
    """Tables of the whole movie."""
    return (
        directory.atoms_path,
        directory.defects_path,
        directory.tracks_path,
        directory.transitions_path,
    )


def beam_on(material: Material, voltage_kV: float, dose_per_A2: float | None) -> Beam | None:
    """What the beam does to the atoms of a material; None where no threshold is known.

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
        return None
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


def lattice_table(lattices: dict[int, Lattice | None], pixel_size_A: float) -> pl.DataFrame:
    """Make the report's table of lattices: scale, distortion and fit, one row per frame."""
    rows = []
    for frame, lattice in sorted(lattices.items()):
        row: dict[str, float | int | None] = {"frame": frame, "pixel_size_A": pixel_size_A}
        if lattice is not None:
            m = lattice.affine.array()
            first, second = lattice.affine.strain()
            row |= {
                "scale_x": float(m[0, 0]),
                "scale_y": float(m[1, 1]),
                "strain_1": first,
                "strain_2": second,
                "angle_deg": float(np.degrees(lattice.angle_rad)) % 60.0,
                "rms_A": lattice.rms_A,
                "matched": lattice.matched,
            }
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def lattice_to_json(lattice: Lattice | None) -> dict[str, Any]:
    """Plain values of a lattice."""
    if lattice is None:
        return {}
    return {
        "material": lattice.material.name,
        "center_xy_A": list(lattice.center_xy_A),
        "affine": lattice.affine.array().tolist(),
        "bend": lattice.bend.tolist(),
        "angle_rad": lattice.angle_rad,
        "origin_xy_A": list(lattice.origin_xy_A),
        "rms_A": lattice.rms_A,
        "matched": lattice.matched,
    }


def lattice_from_json(plain: dict[str, Any], material: Material) -> Lattice | None:
    """Read what `lattice_to_json` wrote."""
    if not plain:
        return None
    return Lattice(
        material=material,
        center_xy_A=(plain["center_xy_A"][0], plain["center_xy_A"][1]),
        affine=Affine.from_array(np.asarray(plain["affine"])),
        bend=np.asarray(plain["bend"]),
        angle_rad=plain["angle_rad"],
        origin_xy_A=(plain["origin_xy_A"][0], plain["origin_xy_A"][1]),
        rms_A=plain["rms_A"],
        matched=plain["matched"],
    )


def _hash_of(*paths: Path) -> str:
    return file_hash(*paths) if all(p.exists() for p in paths) else ""
