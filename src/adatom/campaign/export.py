"""Export a campaign's structures and tables to the formats of other programs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import ase.io
import polars as pl

from adatom.errors import BadInput
from adatom.store import CampaignDirectory, read_table, read_trajectory
from adatom.store.atomic import atomic_file

# Suffix, and ASE's name and options of each format of structures.
_STRUCTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "cif": (".cif", "cif", {}),
    "poscar": (".vasp", "vasp", {"sort": True, "vasp5": True, "direct": True}),
    "lammps": (".data", "lammps-data", {"masses": True, "atom_style": "atomic"}),
    "xyz": (".xyz", "xyz", {}),
}
FORMATS = (*_STRUCTURES, "csv")


def export_campaign(path: Path, to: str, output: Path | None = None) -> list[Path]:
    """Write what a campaign found and simulated in the format of another program.

    Parameters
    ----------
    path
        Directory of the campaign.
    to
        ``cif``, ``poscar``, ``lammps`` (data file) or ``xyz``: one file for each supercell, and one
        for each geometry that a simulation ended with. ``csv``: one file for each table.
    output
        Directory to write to; by default ``export-<format>`` beside the campaign's files.

    Returns
    -------
    The files, in the order of their names.

    Raises
    ------
    BadInput
        If there is no campaign, nothing to export, or the format is not known.
    """
    if to not in FORMATS:
        raise BadInput(
            "`to`", expected=" or ".join(FORMATS), got=repr(to), todo="Name one of these."
        )
    with CampaignDirectory.existing(path, read_only=True) as directory:
        root = directory.path
        target = root / f"export-{to}" if output is None else output.expanduser().absolute()
        written = _tables(root, target) if to == "csv" else _structures(root, target, to)
    if not written:
        raise BadInput(
            str(root),
            expected="a campaign with " + ("tables" if to == "csv" else "structures"),
            got="none yet",
            todo=f"Make them first: adatom resume {root}",
        )
    return sorted(written)


def _structures(root: Path, target: Path, to: str) -> list[Path]:
    suffix, name, options = _STRUCTURES[to]
    geometries = {}
    for file in sorted((root / "structures").glob("*.extxyz")):
        for atoms in read_trajectory(file):
            geometries[str(atoms.info.get("name", file.stem))] = atoms
    for file in sorted((root / "trajectories").glob("*.extxyz")):
        for atoms in read_trajectory(file)[-1:]:
            geometries[file.stem] = atoms
    written = []
    for stem, atoms in geometries.items():
        text: io.StringIO | io.BytesIO = io.BytesIO() if to == "cif" else io.StringIO()
        bare = atoms.copy()
        bare.info.clear()
        ase.io.write(text, bare, format=name, **options)
        content = text.getvalue()
        out = target / f"{stem}{suffix}"
        with atomic_file(out) as stream:
            stream.write(content if isinstance(content, bytes) else content.encode())
        written.append(out)
    return written


def _tables(root: Path, target: Path) -> list[Path]:
    written = []
    for file in sorted(root.glob("*.parquet")):
        table = read_table(file)
        flat = table.with_columns(
            pl.col(name).cast(pl.List(pl.String)).list.join(" ")
            for name, kind in table.schema.items()
            if isinstance(kind, pl.List)
        )
        out = target / f"{file.stem}.csv"
        with atomic_file(out) as stream:
            stream.write(flat.write_csv().encode())
        written.append(out)
    return written
