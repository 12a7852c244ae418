"""Frames to atoms, lattice and defects, one frame at a time, each recorded in the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.analysis.frame import (
    calibrator_of,
    conditions_of,
    has_few_confident_atoms,
    is_out_of_distribution,
    novelty_of,
)
from adatom.campaign.config import Config
from adatom.campaign.steps import Job, Steps
from adatom.core import (
    Affine,
    AtomTable,
    DefectTable,
    EmptySites,
    Frame,
    Lattice,
    Material,
    Movie,
    Prediction,
    content_hash,
)
from adatom.core.plugins import DEFECT_NAMERS, plugin
from adatom.features import estimate_drift, link_atoms, link_defects
from adatom.features.defects.base import DefectNamer
from adatom.features.defects.vacancy_test import site_evidence
from adatom.features.find import Found, find
from adatom.frames.lattice.fit import fit_lattice
from adatom.learning import weights
from adatom.learning.ensemble import map_shape, predict_tiles
from adatom.store import (
    CampaignDirectory,
    file_hash,
    open_frames,
    open_maps,
    read_json,
    read_table,
    write_json,
    write_table,
)

_SAME_SITE_A = 0.6
_MAPS = ("mean", "std", "entropy", "mutual_information")  # of the members, by `Prediction`
Box = tuple[float, float, float, float]  # left, top, right, bottom, Å


@dataclass(frozen=True, slots=True, eq=False)
class MovieResult:
    """What was found in a movie.

    Parameters
    ----------
    atoms, defects
        Of all frames, linked.
    lattices
        By frame; None where none was found.
    keys
        Ledger key of every frame's defects, by frame.
    key
        Ledger key of the linked tables.
    out_of_distribution
        Frames that are farther from the training conditions than nearly all training frames.
    unsure
        Frames of which hardly an atom is sure.
    unlike_regions
        By frame, the parts of it that lie beyond training: left, top, right and bottom, Å.
    """

    atoms: AtomTable
    defects: DefectTable
    lattices: dict[int, Lattice | None]
    keys: dict[int, str]
    key: str
    out_of_distribution: tuple[int, ...] = ()
    unsure: tuple[int, ...] = ()
    unlike_regions: dict[int, tuple[Box, ...]] = field(default_factory=dict)


def find_in_movie(
    movie: Movie, material: Material, config: Config, ensemble: weights.Ensemble, steps: Steps
) -> MovieResult:
    """Find atoms and defects in every frame and link them.

    Parameters
    ----------
    movie
        Calibrated frames.
    material
        What they show.
    config
        Options of all steps.
    ensemble
        The networks.
    steps
        The campaign's ledger.
    """
    directory = steps.directory
    atom_keys = _find(movie, material, config, ensemble, steps)
    defect_keys = _name_defects(movie, material, config, steps, atom_keys)
    link = Job(
        "link",
        "movie",
        [config.link],
        current=lambda: _hash_of(directory.atoms_path, directory.defects_path),
        make=partial(_link, directory, config, len(movie)),
        parents=tuple(defect_keys),
    )
    (key,) = steps.run([link])
    lattices = {
        i: lattice_from_json(read_json(_part(directory, i, "lattice.json")), material)
        for i in range(len(movie))
    }
    seen = {i: read_json(_part(directory, i, "conditions.json")) for i in range(len(movie))}
    regions = {i: _boxes(conditions) for i, conditions in seen.items()}
    return MovieResult(
        AtomTable(read_table(directory.atoms_path)),
        DefectTable(read_table(directory.defects_path)),
        lattices,
        dict(enumerate(defect_keys)),
        key,
        tuple(i for i, conditions in seen.items() if is_out_of_distribution(conditions)),
        tuple(i for i, conditions in seen.items() if has_few_confident_atoms(conditions)),
        {i: boxes for i, boxes in regions.items() if boxes},
    )


def _boxes(conditions: Mapping[str, Any]) -> tuple[Box, ...]:
    rows = conditions.get("unlike_regions", [])
    return tuple((left, top, right, bottom) for left, top, right, bottom, _ in rows)


def _find(
    movie: Movie, material: Material, config: Config, ensemble: weights.Ensemble, steps: Steps
) -> list[str]:
    assert movie.calibration is not None  # settled by sources.open_movie  # noqa: S101
    directory = steps.directory
    px = movie.calibration.pixel_size_A
    frames = open_frames(directory.frames_path, len(movie), movie.shape, px, replace=True)
    shape = map_shape(movie.shape, movie.calibration, ensemble.working)
    maps = open_maps(
        directory.maps_path,
        len(movie),
        ensemble.classes,
        shape,
        ensemble.working.pixel_size_A,
        replace=True,
    )
    calibrator, networks = calibrator_of(ensemble), ensemble.fingerprint()
    novelty, local = novelty_of(ensemble), novelty_of(ensemble, "novelty_of_regions")

    def current(i: int) -> str:
        part = _hash_of(
            *(_part(directory, i, f) for f in ("atoms.parquet", "vacancies.parquet")),
            _part(directory, i, "conditions.json"),
        )
        whole = (part, frames.hash(i), maps.hash(i))
        return content_hash(*whole) if all(whole) else ""

    def make(i: int) -> str:
        frame = movie[i]
        frames.write(i, frame.data)
        summary = {name: np.zeros((len(ensemble.classes), *shape), np.float32) for name in _MAPS}
        tiles = _summed_up(predict_tiles(frame, ensemble), summary)
        found = find(frame, tiles, material, calibrator, config.find)
        maps.write(i, **summary)
        write_table(_part(directory, i, "atoms.parquet"), found.atoms.data)
        write_table(_part(directory, i, "vacancies.parquet"), vacancy_table(found))
        write_json(_part(directory, i, "conditions.json"), conditions_of(found, novelty, local))
        return current(i)

    inputs = [movie.fingerprint, px, material, networks, config.find]
    return steps.run(
        [
            Job("find", f"frame {i}", [*inputs, i], partial(current, i), partial(make, i))
            for i in range(len(movie))
        ]
    )


def _name_defects(
    movie: Movie, material: Material, config: Config, steps: Steps, parents: list[str]
) -> list[str]:
    directory = steps.directory

    def files(i: int) -> tuple[Path, Path]:
        return _part(directory, i, "defects.parquet"), _part(directory, i, "lattice.json")

    def make(i: int) -> str:
        atoms = AtomTable(read_table(_part(directory, i, "atoms.parquet")))
        empty = read_table(_part(directory, i, "vacancies.parquet"))
        lattice, defects = frame_defects(movie[i], atoms, material, config, empty)
        write_table(files(i)[0], defects.data)
        write_json(files(i)[1], lattice_to_json(lattice))
        return file_hash(*files(i))

    inputs = [material, config.evidence, config.defects]
    return steps.run(
        [
            Job(
                "defects",
                f"frame {i}",
                inputs,
                current=lambda i=i: _hash_of(*files(i)),  # type: ignore[misc]
                make=partial(make, i),
                parents=(parent,),
            )
            for i, parent in enumerate(parents)
        ]
    )


def frame_defects(
    frame: Frame,
    atoms: AtomTable,
    material: Material,
    config: Config,
    vacancies: pl.DataFrame | None = None,
) -> tuple[Lattice | None, DefectTable]:
    """Fit the lattice to one frame's atoms, weigh its empty sites, name its defects.

    Parameters
    ----------
    frame
        The image.
    atoms
        Its atoms.
    material
        What it shows.
    config
        Options of all steps.
    vacancies
        What networks and counts together said of empty sites (`vacancy_table`); without it, the
        counts alone are asked.
    """
    extent = frame.calibration.extent_xy(frame.shape)
    sure = atoms.column("p_exists") > 0.5
    host = sure & (atoms.elements == material.host)
    variance = atoms.covariance.trace(axis1=1, axis2=2)
    weights_ = 1.0 / (variance[host] + 0.05**2)
    others = atoms.xy[sure & ~host]
    lattice = fit_lattice(atoms.xy[host], material, weights=weights_, others_xy=others)
    empty = EmptySites.none() if vacancies is None else EmptySites.from_table(vacancies)
    if material.sites_are_alike and lattice is not None:
        _, sites = lattice.sites_within(extent, margin_A=0.5)
        p = site_evidence(frame, atoms, sites, config.evidence)
        if vacancies is not None:
            p = _informed(sites, p, empty, config.find.lowest_p_exists)
        empty = EmptySites(sites, p)
    namer: DefectNamer = plugin(DEFECT_NAMERS, material.defect_namer)
    defects = namer.name_defects(
        atoms, lattice, material, extent, empty, frame.index, config.defects
    )
    return lattice, defects


def _summed_up(
    tiles: Iterable[Prediction], summary: dict[str, NDArray[np.float32]]
) -> Iterator[Prediction]:
    """Pass tiles on, and leave in `summary` what the members' maps say together.

    The members' own maps of a large frame do not fit in memory, those of a tile do.
    """
    for tile in tiles:
        rows, cols = tile.inner
        r, c = tile.origin
        there = slice(r + rows.start, r + rows.stop), slice(c + cols.start, c + cols.stop)
        for name, whole in summary.items():
            whole[:, there[0], there[1]] = getattr(tile, name)()[:, rows, cols]
        yield tile


def vacancy_table(found: Found) -> pl.DataFrame:
    """One row a lattice site that may be empty: position, Å, and probability."""
    xy = found.vacancies_xy
    return pl.DataFrame({"x_A": xy[:, 0], "y_A": xy[:, 1], "p": found.p_empty})


def _informed(
    sites: NDArray[np.float64], p: NDArray[np.float64], vacancies: EmptySites, least: float
) -> NDArray[np.float64]:
    """Take the calibrated probability; where none is listed it was less than any that is."""
    out = np.minimum(p, least)
    if len(vacancies) and len(sites):
        distance, nearest = cKDTree(vacancies.xy).query(sites)
        near = distance < _SAME_SITE_A
        out[near] = vacancies.p[nearest[near]]
    return out


def _link(directory: CampaignDirectory, config: Config, count: int) -> str:
    """Join the frames' parts into the two tables that a user reads."""
    atoms = AtomTable.concat(
        AtomTable(read_table(_part(directory, i, "atoms.parquet"))) for i in range(count)
    )
    defects = DefectTable.concat(
        DefectTable(read_table(_part(directory, i, "defects.parquet"))) for i in range(count)
    )
    drift = dict.fromkeys(range(count), (0.0, 0.0)) | estimate_drift(atoms, config.link)
    atoms = link_atoms(atoms, drift, config.link)
    defects = link_defects(defects, drift, frames=range(count), options=config.link)
    write_table(directory.atoms_path, atoms.data)
    write_table(directory.defects_path, defects.data)
    return file_hash(directory.atoms_path, directory.defects_path)


def lattice_table(lattices: dict[int, Lattice | None], pixel_size_A: float) -> pl.DataFrame:
    """One row a frame, for the report: scale, distortion, fit."""
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


def _part(directory: CampaignDirectory, frame: int, name: str) -> Path:
    return directory.parts / f"frame-{frame:05d}.{name}"


def _hash_of(*paths: Path) -> str:
    return file_hash(*paths) if all(p.exists() for p in paths) else ""
