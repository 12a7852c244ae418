"""Find and link the atoms and defects of a movie; the ledger records every frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from adatom.analysis.flags import Box, FrameFlags
from adatom.analysis.frame import FrameResult, calibrator_of
from adatom.analysis.movie import frame_analysis
from adatom.campaign.config import Config
from adatom.campaign.lattices import lattice_from_json, lattice_to_json
from adatom.campaign.link import link_movie, linked_paths
from adatom.campaign.outputs import frame_outputs
from adatom.campaign.steps import Job, Steps
from adatom.core import AtomTable, DefectTable, Lattice, Material, Movie
from adatom.learning.ensemble import Ensemble
from adatom.store import (
    FrameParts,
    file_hash,
    read_table,
)


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

    @property
    def missed_regions(self) -> dict[int, tuple[Box, ...]]:
        """Where columns seem to be missed (left, top, right, bottom in Å) by frame number."""
        return {i: flags.missed_boxes for i, flags in self.flags.items() if flags.missed_boxes}


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
        [config.link, movie.acquisition],
        current=lambda: _hash_of(*linked_paths(directory)),
        make=partial(link_movie, directory, config, movie, material, parts),
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


def _hash_of(*paths: Path) -> str:
    return file_hash(*paths) if all(p.exists() for p in paths) else ""
