"""An engine that another package registers is the one that runs, and is reported so."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from ase.build import graphene

import adatom as ad
from adatom.campaign.pool import relaxed_structure, run_or_report
from adatom.core import GRAPHENE, SimulationTask, Structure
from adatom.core.plugins import ENGINES, plugin, plugins
from adatom.errors import BadInput, EngineMissing
from adatom.materials.library import load_material
from adatom.simulation import DynamicsOptions, RelaxOptions, dynamics, engine_status, relax, require
from adatom.store import read_result, write_result
from packages import installed

SPRINGS = '''
from contextlib import nullcontext

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from adatom.simulation.engines.calculator import CalculatorEngine
from adatom.simulation.molecular_dynamics import Samples


class Springs(Calculator):
    """Every atom on a spring to a plane at 10 Å."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        away = atoms.positions - [0.0, 0.0, 10.0]
        away[:, :2] = 0.0
        self.results = {"energy": 2.0 * (away**2).sum(), "forces": -4.0 * away}


class SpringEngine(CalculatorEngine):
    name = "springs"
    elements = "C"
    boundary = "any"
    not_for = "physics"
    install = "pip install springs"
    covers = frozenset({"C"})
    distribution = "springs"
    lattice_constants_A = {"graphene": 2.5}

    def calculator(self, atoms, options):
        return nullcontext(Springs())


class HotSprings(SpringEngine):
    name = "hot-springs"
    tasks = ("dynamics",)

    def dynamics(self, task, options):
        samples = Samples([1.0], [task.temperature_K], [2.0], [3.0], [])
        return samples.result(
            task, engine=self.label(()), start=task.structure.to_ase(), status="done", seconds=0.0
        )


class Absent(SpringEngine):
    name = "absent"

    def version(self):
        raise ImportError("no module named absent")


class Faulty(SpringEngine):
    name = "faulty"

    def status(self):
        raise RuntimeError("a bug")


SPRING, HOT, ABSENT, FAULTY, NONSENSE = SpringEngine(), HotSprings(), Absent(), Faulty(), 7
'''
PARTS = {
    "springs": "SPRING",
    "hot-springs": "HOT",
    "absent": "ABSENT",
    "faulty": "FAULTY",
    "nonsense": "NONSENSE",
    "lost": "NOT_THERE",
    "other-name": "SPRING",
    "lammps": "SPRING",
}


@pytest.fixture
def springs(tmp_path):
    with installed(tmp_path, "springs", SPRINGS, engines=PARTS):
        yield


def task(kind, engine, **more):
    atoms = graphene(size=(2, 2, 1), a=2.46, vacuum=5.0)
    atoms.positions[0, 2] += 0.7
    return SimulationTask(Structure.from_ase(atoms), kind, engine, **more, material=GRAPHENE)


def test_exactly_the_named_engine_relaxes(springs):
    given = task("relax", "springs")
    before = given.structure.to_ase().get_positions()
    result = relax(given, RelaxOptions(fmax_eV_A=1e-6))
    assert result.engine == "springs 1.5"
    assert result.status == "done"
    assert result.energy_eV == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(result.trajectory[-1].positions[:, 2], 10.0, atol=1e-5)
    first, last = result.trajectory[0], result.trajectory[-1]
    np.testing.assert_allclose(last.positions[:, :2], first.positions[:, :2])
    assert first.cell.lengths()[0] == pytest.approx(5.0)  # at its own lattice constant
    np.testing.assert_array_equal(given.structure.to_ase().get_positions(), before)


def test_exactly_the_named_engine_does_dynamics(springs):
    result = dynamics(task("dynamics", "hot-springs", temperature_K=321.0), DynamicsOptions())
    assert result.engine == "hot-springs 1.5"
    assert result.energy_eV == 2.0
    assert result.trace["temperature_K"].tolist() == [321.0]


def test_simulate_takes_engines_of_other_packages(springs):
    sheet = task("relax", "springs").structure
    results = ad.simulate(
        [sheet],
        temperatures_K=(500.0,),
        relax_engine="springs",
        dynamics_engine="hot-springs",
        workers=1,
    )
    assert [r.engine for r in results] == ["springs 1.5", "hot-springs 1.5"]
    assert results[1].temperature_K == 500.0


def test_a_draw_that_an_engine_refuses_is_a_failed_result(springs, tmp_path):
    atoms = graphene(size=(2, 2, 1), a=2.46, vacuum=5.0)
    atoms.symbols[0] = "Si"
    given = SimulationTask(Structure.from_ase(atoms), "relax", "springs", material=GRAPHENE)
    result = run_or_report(partial(relax, options=RelaxOptions()), given)
    assert result.status == "failed: elements for springs: expected C, got Si"
    write_result(tmp_path / "kept", result)
    kept = read_result(tmp_path / "kept")
    assert (kept.status, kept.engine) == (result.status, "springs 1.5")
    assert np.isnan(kept.energy_eV)
    assert len(kept.trajectory) == 1


def test_a_relaxed_structure_comes_back_to_the_scale_of_its_material():
    for engine in ("lammps", "gfn1-xtb"):
        given = task("relax", engine)
        result = relax(given, RelaxOptions(max_steps=1))
        back = relaxed_structure(given.structure, result).atoms
        lengths = given.structure.atoms.cell.lengths()[:2]
        assert back.cell.lengths()[:2] == pytest.approx(lengths, abs=1e-9)
        assert result.trajectory[-1].cell.lengths()[0] != pytest.approx(lengths[0], abs=1e-4)


def test_an_engine_runs_only_its_own_tasks(springs):
    with pytest.raises(EngineMissing, match="sevennet, hot-springs") as caught:
        dynamics(task("dynamics", "springs", temperature_K=300.0), DynamicsOptions())
    assert caught.value.got == "springs, which does relax"
    with pytest.raises(EngineMissing, match="which does dynamics"):
        relax(task("relax", "hot-springs"), RelaxOptions())


def test_elements_that_it_does_not_cover_are_refused(springs):
    atoms = graphene(size=(2, 2, 1), a=2.46, vacuum=5.0)
    atoms.symbols[0] = "Si"
    structure = Structure.from_ase(atoms)
    with pytest.raises(BadInput, match="expected C, got Si"):
        relax(SimulationTask(structure, "relax", "springs", material=GRAPHENE), RelaxOptions())


def test_an_engine_that_is_not_installed_says_how_to_get_it(springs):
    with pytest.raises(EngineMissing, match=r"no module named absent.*pip install springs"):
        require("absent", "relax")


def test_doctor_sees_them_and_faulty_ones_hide_nothing(springs):
    rows = {row.name: row for row in engine_status()}
    assert rows["springs"].installed
    assert rows["springs"].package == "springs 1.5"
    assert rows["lammps"].package.startswith("adatom ")
    assert not rows["faulty"].installed
    assert rows["faulty"].note == "RuntimeError: a bug"
    assert not {"nonsense", "lost", "other-name"} & set(rows)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nonsense", "int is no ListedEngine"),
        ("lost", "AttributeError"),
        ("other-name", "named 'other-name', the object 'springs'"),
    ],
)
def test_what_is_no_engine_says_why(springs, name, why):
    with pytest.raises(BadInput, match=why) as caught:
        require(name, "relax")
    assert "springs 1.5" in caught.value.got


def test_a_name_that_is_taken_stays_with_the_first(springs):
    assert type(plugin(ENGINES, "lammps")).__name__ == "LammpsEngine"
    (second,) = [p for p in plugins(ENGINES) if p.name == "lammps" and not p.is_own]
    assert second.error.startswith("the name lammps is taken by adatom ")


def test_a_material_of_the_users_own_is_simulated_at_a_measured_lattice_constant():
    """The engine's table does not have the material: the constant is measured on its sheet."""
    engine, own = require("lammps", "relax"), replace(GRAPHENE, name="my-graphene")
    shipped = engine.lattice_constant_A(GRAPHENE, {"C"})
    assert engine.lattice_constant_A(own, {"C"}) == pytest.approx(shipped, abs=3e-4)
    sheet = Structure.from_ase(graphene(size=(4, 4, 1), a=2.46, vacuum=5.0))
    result = relax(SimulationTask(sheet, "relax", "lammps", material=own), RelaxOptions())
    assert result.status == "done"


def test_an_engine_without_a_minimum_for_a_material_says_so(springs):
    own = replace(GRAPHENE, name="my-graphene")
    with pytest.raises(BadInput, match=r"minimum of the energy near 2\.460 Å, got none"):
        require("springs", "relax").lattice_constant_A(own, {"C"})


def test_the_lattice_constant_of_what_is_no_sheet_is_refused_in_words(springs):
    with pytest.raises(BadInput, match=r"SrTiO3: expected a sheet .*, got columns of .*Sr"):
        require("springs", "relax").lattice_constant_A(load_material("SrTiO3"), {"C"})
