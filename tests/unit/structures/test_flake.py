"""Flakes of edges and wide holes, and the places of a frame that are perfect."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from adatom.core import GRAPHENE, SimulationTask
from adatom.errors import BadInput
from adatom.simulation import RelaxOptions, relax
from adatom.structures import (
    NoPeriodicCell,
    bonds,
    build_flake,
    build_supercell,
    perfect_place,
)
from lattices import CENTER, EXTENT, make_lattice, sites_of, substituted, table

COMMON = {"kind": "V1", "frame": 0, "defect": 0}


def sheet(hole_A=0.0, edge_A=0.0):
    """A frame with a round hole in its middle, or with nothing left of an edge."""
    lattice = make_lattice(stretch=(0, 0, 0))
    _, xy = sites_of(lattice)
    keep = (np.linalg.norm(xy - CENTER, axis=1) >= hole_A) & (xy[:, 0] >= edge_A)
    return lattice, table(xy[keep])


def neighbours(atoms):
    return np.bincount(bonds(atoms)[0].ravel(), minlength=len(atoms))


def check_rim(flake):
    """No dangling bond at the rim, and hydrogen atoms apart."""
    atoms = flake.atoms
    hydrogen = atoms.symbols == "H"
    assert hydrogen.any()
    assert flake.fixed[hydrogen].all()
    assert 0 < (flake.fixed & ~hydrogen).sum() < (~hydrogen).sum() / 2
    assert pdist(atoms.positions[hydrogen]).min() > 1.5
    count = neighbours(atoms)
    assert set(count[hydrogen]) == {1}
    assert set(count[flake.fixed & ~hydrogen]) == {3}
    size = np.ptp(atoms.positions, axis=0)
    assert (atoms.cell.lengths() - size >= 15.0 - 1e-6).all()
    return count


@pytest.mark.parametrize("hole_A", [4.0, 6.0, 8.0])
def test_a_hole_becomes_a_flake_with_bare_edges_inside(hole_A):
    lattice, atoms = sheet(hole_A=hole_A)
    flake = build_flake(atoms, lattice, EXTENT, center_xy_A=CENTER, **COMMON)
    count = check_rim(flake)
    inside = np.linalg.norm((flake.atoms.positions - flake.atoms.cell.lengths() / 2)[:, :2], axis=1)
    bare = (flake.atoms.symbols == "C") & (count < 3)
    assert bare.any()
    assert (inside[bare] < hole_A + 3.0).all()  # nothing is bare but the hole
    assert flake.atoms.info["changes"][0].endswith("H added on cut bonds of the rim")


def test_a_wide_hole_has_no_periodic_cell_and_a_small_one_has():
    lattice, atoms = sheet(hole_A=6.5)
    with pytest.raises(NoPeriodicCell, match="goes on beyond"):
        build_supercell(atoms, lattice, EXTENT, center_xy_A=CENTER, **COMMON)
    rim = (CENTER[0] + 6.0, CENTER[1])
    with pytest.raises(NoPeriodicCell):
        build_supercell(atoms, lattice, EXTENT, center_xy_A=rim, **COMMON)
    lattice, atoms = sheet(hole_A=3.0)
    small = build_supercell(atoms, lattice, EXTENT, center_xy_A=CENTER, **COMMON)
    assert len(small.atoms) < 120


def test_an_edge_is_a_flake_and_the_sheet_goes_on_where_the_frame_ends():
    lattice, atoms = sheet(edge_A=20.0)
    edge = (20.5, 18.0)
    flake = build_flake(atoms, lattice, EXTENT, center_xy_A=edge, **COMMON)
    count = check_rim(flake)
    bare = flake.atoms[(flake.atoms.symbols == "C") & (count < 3)]
    assert 4 <= len(bare) <= 20
    corner = build_flake(sheet()[1], lattice, EXTENT, center_xy_A=(1.0, 1.0), **COMMON)
    count = check_rim(corner)
    assert set(count[corner.atoms.symbols == "C"]) == {3}
    assert (corner.source_atom < 0).sum() > 40  # beyond the frame


def test_samples_differ_in_what_is_uncertain():
    lattice, atoms = sheet(hole_A=6.0)
    rng = np.random.default_rng(0)
    likeliest = build_flake(atoms, lattice, EXTENT, center_xy_A=CENTER, **COMMON)
    one, two = (
        build_flake(atoms, lattice, EXTENT, center_xy_A=CENTER, draw=k, rng=rng, **COMMON)
        for k in (0, 1)
    )
    assert len(one.atoms) == len(two.atoms) == len(likeliest.atoms)
    assert 0.01 < np.abs(one.atoms.positions - two.atoms.positions).std() < 0.2
    assert two.name == "V1-f000-d01"


def test_a_flake_relaxes_and_its_rim_stays():
    lattice, atoms = sheet(hole_A=5.0)
    flake = build_flake(atoms, lattice, EXTENT, center_xy_A=CENTER, **COMMON)
    result = relax(SimulationTask(flake, "relax", "lammps", material=GRAPHENE), RelaxOptions())
    assert result.status == "done"
    first, last = result.trajectory[0], result.trajectory[-1]
    step = np.linalg.norm(last.positions - first.positions, axis=1)
    assert step[flake.fixed].max() < 1e-6
    assert step.max() > 0.01


def test_perfect_crystal_is_found_beside_what_is_not():
    lattice, atoms = sheet(hole_A=6.0)
    place = perfect_place(atoms, lattice, EXTENT)
    cell = build_supercell(atoms, lattice, EXTENT, center_xy_A=place, **COMMON)
    assert len(cell.atoms) == 98
    assert cell.atoms.info["changes"] == []
    whole = perfect_place(sheet()[1], lattice, EXTENT)
    assert np.linalg.norm(np.subtract(whole, CENTER)) < 1.5
    _, xy = sites_of(lattice)
    full = table(xy, substituted(xy, range(0, len(xy), 3)))
    assert perfect_place(full, lattice, EXTENT) is None


def test_nothing_near_and_other_sheets_are_refused_in_words():
    lattice, atoms = sheet(hole_A=14.0)
    with pytest.raises(BadInput, match="expected atoms within 12 Å"):
        build_flake(atoms, lattice, EXTENT, center_xy_A=CENTER, **COMMON)
