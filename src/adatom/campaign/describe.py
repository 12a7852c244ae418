"""Describe the surroundings of a campaign's atoms, and group them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from adatom.core import AtomTable
from adatom.core.arrays import FloatArray, IntArray
from adatom.core.environments import COLUMNS, SCHEMA
from adatom.errors import BadInput
from adatom.features.descriptors import (
    EnvironmentOptions,
    Environments,
    GroupOptions,
    environments,
    fit_groups,
)
from adatom.store import CampaignDirectory, load_frames, read_table, write_table

_FEWEST = 30  # atoms of an element from which groups are looked for; fewer are one group


def describe_atoms(
    atoms: AtomTable,
    *,
    extent_xy_A: tuple[float, float] | None = None,
    environment: EnvironmentOptions | None = None,
    grouping: GroupOptions | None = None,
) -> pl.DataFrame:
    """Group atoms with like surroundings, for each element or kind of column separately.

    Parameters
    ----------
    atoms
        Atoms of one or more frames; those that exist with less than one half are left out.
    extent_xy_A
        Width and height of the field, Å; by default those of the box around the atoms.
    environment
        What describes the surroundings, see `EnvironmentOptions`.
    grouping
        How groups are found, see `GroupOptions`.

    Returns
    -------
    One row an atom with the columns of ``environments.parquet``.

    Raises
    ------
    BadInput
        If no frame has two atoms.

    Examples
    --------
    >>> import adatom as ad
    >>> frames, pixel_size_A = ad.example_frames(1)
    >>> atoms = ad.find(frames, material="graphene", pixel_size_A=pixel_size_A)
    >>> table = ad.describe(atoms)
    >>> sorted(table["group"].drop_nulls().unique())[0]
    'C1'
    """
    likely = AtomTable(atoms.data.filter(atoms.is_likely))
    found = environments(likely, environment, extent_xy_A=extent_xy_A)
    group = np.full(len(likely), None, dtype=object)
    p_group, p_odder = np.full(len(likely), np.nan), np.full(len(likely), np.nan)
    for element in found.elements:
        own = np.flatnonzero((likely.elements == element) & found.whole)
        if len(own):
            group[own], p_group[own], p_odder[own] = _grouped(element, found, own, grouping)
    return pl.DataFrame(
        {
            **{name: likely.data[name] for name in ("frame", "atom", "track")},
            "group": group.tolist(), "p_group": p_group, "p_odder": p_odder,
        },
        schema=SCHEMA,
    ).with_columns(pl.col("p_group", "p_odder").fill_nan(None))  # fmt: skip


def _grouped(
    element: str,
    found: Environments,
    own: IntArray,
    grouping: GroupOptions | None,
) -> tuple[list[str], FloatArray, FloatArray]:
    """Group, its probability, and the chance of an odder one, for the atoms of one element."""
    options = grouping or GroupOptions()
    if len(own) < _FEWEST:
        options = options.model_copy(update={"groups": 1})
    if len(own) < 2:
        return [f"{element}1"] * len(own), np.ones(len(own)), np.full(len(own), np.nan)
    vectors = found.vectors[own]
    groups = fit_groups(vectors, options, noise=found.noise)
    p, label = groups.p(vectors), groups.labels(vectors)
    names = [f"{element}{k + 1}" for k in label]
    return names, p[np.arange(len(own)), label], groups.p_odder(vectors)


def describe_campaign(
    path: Path,
    environment: EnvironmentOptions | None = None,
    grouping: GroupOptions | None = None,
) -> pl.DataFrame:
    """Describe the atoms of a campaign and write ``environments.parquet`` into its directory.

    Parameters
    ----------
    path
        Directory of the campaign.
    environment, grouping
        See `describe_atoms`.

    Raises
    ------
    BadInput
        If there is no campaign, or none with atoms.
    """
    with CampaignDirectory.existing(path) as directory:
        if not directory.atoms_path.exists():
            raise BadInput(
                str(directory.path),
                expected="a campaign with atoms",
                got="none yet",
                todo=f"Find them first: adatom resume {directory.path}",
            )
        frames = load_frames(directory.frames_path)
        _, rows, columns = frames.shape
        extent = ((columns - 1) * frames.pixel_size_A, (rows - 1) * frames.pixel_size_A)
        table = describe_atoms(
            AtomTable(read_table(directory.atoms_path)),
            extent_xy_A=extent, environment=environment, grouping=grouping,
        )  # fmt: skip
        write_table(directory.path / "environments.parquet", table, COLUMNS)
    return table
