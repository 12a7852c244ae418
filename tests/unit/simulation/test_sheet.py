"""Sheets are laid flat and whole before they are simulated, or refused in words."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene, mx2
from ase.constraints import FixAtoms, FixCartesian, FixedPlane

from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.errors import BadInput
from adatom.materials.library import load_material
from adatom.simulation import DynamicsOptions, RelaxOptions, caution, dynamics, relax
from adatom.simulation.sheet import check_sheet_of, lay_flat
from silicon_sheets import sheet, with_silicon

CASES = Path(__file__).parents[4] / "shared" / "cases"


def plain() -> Atoms:
    """Four by four cells with a raised Si, in the middle of the cell."""
    atoms = graphene(size=(4, 4, 1), a=2.46, vacuum=6.0)
    atoms.pbc = True
    atoms.symbols[16] = "Si"
    atoms.positions[16, 2] += 1.0
    atoms.positions += np.random.default_rng(2).normal(0, 0.02, (32, 3))
    return atoms


def wrapped() -> Atoms:
    atoms = plain()
    atoms.positions[:, 2] -= 6.0
    atoms.wrap()
    return atoms


def permuted(order: tuple[int, int, int]) -> Atoms:
    atoms = plain()
    return Atoms(
        atoms.numbers, cell=atoms.cell.array[:, order][list(order)],
        positions=atoms.positions[:, order], pbc=True,
    )  # fmt: skip


def turned() -> Atoms:
    atoms = wrapped()
    atoms.rotate(37.0, (1.0, 2.0, 3.0), rotate_cell=True)
    return atoms


def slanted() -> Atoms:
    atoms = plain()
    cell = atoms.cell.array.copy()
    cell[2] += 0.7 * cell[0]
    atoms.positions[:, 2] -= 6.0
    atoms.set_cell(cell)
    atoms.wrap()
    return atoms


def upside_down() -> Atoms:
    atoms = plain()
    cell = atoms.cell.array.copy()
    cell[2] *= -1.0
    atoms.set_cell(cell)
    return atoms


def without_third_vector() -> Atoms:
    atoms = graphene(size=(4, 4, 1), a=2.46)
    given = plain()
    atoms.numbers, atoms.positions = given.numbers, given.positions
    return atoms


ODD = {
    "wrapped": wrapped(),
    "in xz": permuted((0, 2, 1)),
    "in yz": permuted((2, 0, 1)),
    "turned": turned(),
    "slanted": slanted(),
    "left-handed": upside_down(),
    "without a third vector": without_third_vector(),
}


def flat(atoms: Atoms) -> Structure:
    return lay_flat(Structure.from_ase(atoms))


@pytest.mark.parametrize("name", ODD)
def test_an_odd_sheet_is_the_same_sheet(name):
    out = flat(ODD[name]).atoms
    assert np.abs(out.cell.array[:2, 2]).max() < 1e-9
    assert np.linalg.det(out.cell.array) > 0.0
    assert np.ptp(out.positions[:, 2]) < 1.5  # of one piece
    np.testing.assert_array_equal(out.numbers, plain().numbers)
    want = plain().get_all_distances(mic=True)
    np.testing.assert_allclose(out.get_all_distances(mic=True), want, atol=1e-6)


def test_a_flat_sheet_is_left_alone():
    structure = Structure.from_ase(plain())
    assert lay_flat(structure) is structure
    once = flat(turned())
    assert lay_flat(once) is once
    moved = plain()
    moved.positions[:, 2] -= 20.0  # outside of the cell, of one piece
    assert lay_flat(s := Structure.from_ase(moved)) is s


def energies(atoms: Atoms) -> tuple[float, float]:
    def task(kind, **more):
        structure = Structure.from_ase(atoms)
        return SimulationTask(structure, kind, "lammps", material=GRAPHENE, **more)

    short = DynamicsOptions(equilibration_ps=0.05, production_ps=0.05)
    cold = relax(task("relax"), RelaxOptions())
    hot = dynamics(task("dynamics", temperature_K=300.0, seed=1), short)
    assert cold.status == "done"
    return cold.energy_eV, hot.trace["energy_eV"][0]


def test_odd_sheets_have_the_energies_of_the_plain_one():
    cold, hot = energies(plain())
    for name in ("wrapped", "in xz"):
        found = energies(ODD[name])
        assert found[0] == pytest.approx(cold, abs=2e-3)
        assert found[1] == pytest.approx(hot, abs=0.3)


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (Atoms("C4", positions=np.eye(4, 3)), "no cell"),
        (Atoms("C4", positions=np.eye(4, 3), cell=[9.0, 0, 0], pbc=True), "one vector"),
        (Atoms(cell=[9.0, 9.0, 9.0], pbc=True), "expected atoms"),
        (bulk("Si", cubic=True), "all through the cell"),
        (graphene(size=(4, 4, 1), vacuum=1.0).repeat((1, 1, 3)), "all through the cell"),
    ],
)
def test_what_is_no_sheet_is_refused_in_words(atoms, words):
    atoms.pbc = True
    with pytest.raises(BadInput, match=words):
        flat(atoms)


def test_constraints_of_whole_atoms_are_kept_and_others_refused():
    atoms = wrapped()
    atoms.set_constraint([FixAtoms([1, 2]), FixCartesian(5), FixCartesian(7, (1, 1, 1))])
    structure = flat(atoms)
    assert np.flatnonzero(structure.fixed).tolist() == [1, 2, 5, 7]
    assert isinstance(structure.to_ase().constraints[0], FixAtoms)
    again = Structure.from_ase(structure.to_ase())
    np.testing.assert_array_equal(again.fixed, structure.fixed)
    for partial in (FixedPlane(3, (0, 0, 1)), FixCartesian(5, (1, 1, 0))):
        atoms.set_constraint([FixAtoms([1]), partial])
        with pytest.raises(BadInput, match=type(partial).__name__):
            flat(atoms)


def test_fixed_atoms_stay_in_relaxation_and_dynamics():
    atoms = with_silicon(noise=0.03)
    atoms.set_constraint(FixAtoms([0, 3, 4]))
    structure = Structure.from_ase(atoms)
    cold = relax(SimulationTask(structure, "relax", "lammps", material=GRAPHENE), RelaxOptions())
    hot = dynamics(
        SimulationTask(structure, "dynamics", "lammps", 900.0, 1, material=GRAPHENE),
        DynamicsOptions(equilibration_ps=0.05, production_ps=0.1),
    )
    for result in (cold, hot):
        first, last = result.trajectory[0], result.trajectory[-1]
        step = np.linalg.norm(last.positions - first.positions, axis=1)
        assert step[[0, 3, 4]].max() < 1e-9
        assert np.delete(step, [0, 3, 4]).max() > 0.01
        assert last.constraints[0].get_indices().tolist() == [0, 3, 4]


def test_a_structure_of_another_material_is_refused():
    check_sheet_of(flat(plain()), GRAPHENE)
    mos2 = mx2(size=(3, 3, 1), vacuum=8.0)
    mos2.pbc = True
    with pytest.raises(BadInput, match="of graphene, of C"):
        check_sheet_of(flat(mos2), GRAPHENE)
    check_sheet_of(flat(mos2), load_material("MoS2"))
    wide = sheet()
    wide.set_cell(wide.cell * [1.25, 1.25, 1.0], scale_atoms=True)
    with pytest.raises(BadInput, match=r"got 1\.78 Å"):
        check_sheet_of(flat(wide), GRAPHENE)


def test_small_cells_at_the_gamma_point_are_said():
    def said(cells, engine="gfn1-xtb"):
        atoms = graphene(size=(*cells, 1), a=2.46, vacuum=6.0)
        return caution(engine, flat(atoms), GRAPHENE)

    assert "8.5 Å wide" in said((4, 4))
    assert "14.9" not in said((7, 7))
    assert said((7, 7)) == said((8, 8)) == said((4, 4), "lammps") == ""
    assert "Dirac" in said((9, 9))
    assert said((9, 8)) == ""


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.skipif(not CASES.exists(), reason="the small inputs are not here")
@pytest.mark.parametrize(
    "name", ["sheet_wrapped_in_z.extxyz", "sheet_wrapped_in_z.POSCAR", "sheet_in_xz.extxyz"]
)
def test_the_cases_have_the_energies_of_the_plain_sheet(name):
    structure = Structure.from_ase(ase.io.read(CASES / name))
    cold = relax(SimulationTask(structure, "relax", "gfn1-xtb", material=GRAPHENE), RelaxOptions())
    assert cold.status == "done"
    assert cold.energy_eV == pytest.approx(-1839.4, abs=0.1)
    hot = dynamics(
        SimulationTask(structure, "dynamics", "lammps", 300.0, 1, material=GRAPHENE),
        DynamicsOptions(production_ps=1.0),
    )
    assert hot.energy_eV == pytest.approx(-230.8, abs=0.5)
