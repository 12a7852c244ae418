"""Time from many atoms to their defects, with AtomAI's graph of the same atoms beside it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import numpy as np

from adatom.analysis.lattice import lattice_of
from adatom.bench.rows import Row, row
from adatom.core import GRAPHENE, AtomTable, EmptySites
from adatom.core.arrays import FloatArray
from adatom.errors import StepFailed
from adatom.features.defects.base import DefectOptions
from adatom.features.defects.bonded_sheet import NAMER
from adatom.features.defects.bonds import bond_graph
from adatom.features.defects.rings import rings
from adatom.features.neighbours import match
from adatom.frames.simulate.specimen import lattice_points

_SEED = 43_000_000  # far from those of training and calibration
_SIGMA_A = 0.05  # Å: error of a position
_VACANCIES, _FOREIGN = 0.002, 0.001  # shares of the sites
_BORDER_A = 4.0  # Å: defects nearer to the border are not counted
_SAME_A = 1.0  # Å: a vacancy is found if one is named this near
_RINGS = 8  # atoms of the largest ring that is counted
_SCRIPT = Path(__file__).parent / "peer_scripts" / "atomai_graph.py"
_PROCESS_S = 1800  # time limit of that script, s


def large_rows(atoms: int, peers: Path | None, folder: Path) -> list[Row]:
    """Name the defects of a noisy sheet.

    Parameters
    ----------
    atoms
        Number of atoms.
    peers
        Interpreter of an environment that has AtomAI.
    folder
        Directory for the positions that AtomAI reads.
    """
    table, empty, vacancies_xy, extent = _sheet(atoms)
    start = time.process_time()
    lattice = lattice_of(table, GRAPHENE)
    found = NAMER.name_defects(table, lattice, GRAPHENE, extent, empty, 0, DefectOptions())
    seconds = time.process_time() - start
    named = found.xy[found.data["kind"].str.starts_with("V").to_numpy()]
    inside = ((vacancies_xy > _BORDER_A) & (vacancies_xy < np.array(extent) - _BORDER_A)).all(
        axis=1
    )
    near = match(vacancies_xy[inside], named, _SAME_A) >= 0
    limit = 5.0 * atoms / 100_000
    name = f"{len(table):,} atoms"
    rows = [
        row(f"{name} to lattice and {len(found)} defects, s of a processor", f"{seconds:.2f}",
            f"at most {limit:g}", met=seconds <= limit),
        row(f"{name}: vacancies named", f"{near.sum()} of {len(near)}",
            "groups of neighbours count once", met=near.mean() >= 0.95),
    ]  # fmt: skip
    return rows + ([] if peers is None else [_against_atomai(table.xy, peers, folder)])


def _sheet(atoms: int) -> tuple[AtomTable, EmptySites, FloatArray, tuple[float, float]]:
    """Atoms of a noisy sheet, its tested sites, its vacancies (vacancy, 2), Å, and extent, Å."""
    rng = np.random.default_rng(_SEED)
    edge = float(np.sqrt(atoms * 2.62))  # Å; an atom of graphene has 2.62 Å²
    sites = lattice_points(GRAPHENE, (edge, edge), 0.0, 0.3)
    gone = rng.random(len(sites)) < _VACANCIES
    xy = sites[~gone] + rng.normal(0.0, _SIGMA_A, (int((~gone).sum()), 2))
    foreign = rng.random(len(xy)) < _FOREIGN
    n = len(xy)
    table = AtomTable.build(
        frame=0, xy=xy, covariance=np.tile(_SIGMA_A**2 * np.eye(2), (n, 1, 1)),
        p_exists=np.full(n, 0.999), element=np.where(foreign, "Si", "C").tolist(),
        p_element=np.full(n, 0.999), votes=np.ones(n), amplitude=np.ones(n),
    )  # fmt: skip
    return table, EmptySites(sites, np.where(gone, 0.99, 0.0)), sites[gone], (edge, edge)


def _against_atomai(xy: FloatArray, peers: Path, folder: Path) -> Row:
    """Time bonds and rings of the same atoms, all taken as carbon."""
    start = time.process_time()
    found = rings(bond_graph(xy, ["C"] * len(xy)), _RINGS)
    own = time.process_time() - start
    folder.mkdir(parents=True, exist_ok=True)
    positions, out = folder / "positions.npy", folder / "atomai_graph.json"
    np.save(positions, xy)
    try:
        subprocess.run(  # noqa: S603  # the interpreter is the user's own choice
            [str(peers), str(_SCRIPT), str(positions), str(out)],
            check=True, capture_output=True, timeout=_PROCESS_S,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise StepFailed(
            "AtomAI's graph",
            expected="its time for the same atoms",
            got=str(error)[-400:],
            todo="Name the Python of an environment made as peer_scripts/README.md says.",
        ) from error
    other = json.loads(out.read_text("utf-8"))
    share = own / float(other["cpu_seconds"])
    return row(
        f"bonds and {len(found):,} rings of the same atoms over AtomAI's graph ({other['rings']:,} "
        f"rings in {other['cpu_seconds']:.1f} s)",
        f"{share:.3f}", "at most 0.1", met=share <= 0.1,
    )  # fmt: skip
