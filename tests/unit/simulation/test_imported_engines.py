"""An ASE calculator by its import path is an engine like any other."""

import sys

import numpy as np
import pytest
from ase.calculators.calculator import Calculator

import adatom as ad
from adatom.campaign.given import Engines, simulate_given
from adatom.cli.options import config_of
from adatom.conformance import check_engine
from adatom.errors import BadInput, EngineMissing
from adatom.simulation import DynamicsOptions, RelaxOptions, find_engine, relax, require
from goldene import EMT_PATH, GOLDENE, gold, gold_task

MODULE = """
from ase.calculators.emt import EMT

def make_calculator():
    return EMT(asap_cutoff=True)

def broken():
    raise OSError("no licence server")

number = 7
"""


@pytest.fixture
def my_module(tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("my_module", None)


def rattled():
    atoms = gold()
    atoms.positions += np.random.default_rng(0).normal(0.0, 0.05, (len(atoms), 3))
    return atoms


def test_an_imported_calculator_conforms():
    check_engine(require(EMT_PATH, "dynamics"), rattled(), material=GOLDENE)


def test_it_relaxes_to_the_same_energy_as_the_calculator_alone():
    from ase.calculators import emt

    result = relax(gold_task(rattled(), "relax"), RelaxOptions(fmax_eV_A=0.01))
    assert result.status == "done"
    assert result.engine.startswith(f"{EMT_PATH} 3.")
    alone = result.trajectory[-1].copy()
    alone.calc = emt.EMT()
    assert alone.get_potential_energy() == pytest.approx(result.energy_eV, abs=1e-9)
    assert np.abs(alone.get_forces()).max() < 0.01


def test_python_takes_a_path_for_both_tasks():
    short = DynamicsOptions(equilibration_ps=0.1, production_ps=0.1)
    results = ad.simulate(
        gold(), material=GOLDENE, temperatures_K=[300.0], dynamics_options=short, workers=1,
        relax_engine=EMT_PATH, dynamics_engine=EMT_PATH,
    )  # fmt: skip
    assert [(r.task, r.status) for r in results] == [("relax", "done"), ("dynamics", "done")]
    assert all(r.engine.startswith(EMT_PATH) for r in results)


def test_the_command_line_takes_a_module_of_the_working_directory(my_module, tmp_path):
    with pytest.raises(EngineMissing, match="No module named 'my_module'"):
        require("my_module:make_calculator", "relax")
    config = config_of(frames=[tmp_path], engine="my_module:make_calculator")
    assert config.simulate.relax_engine == "my_module:make_calculator"
    options = RelaxOptions(max_steps=2)
    engines = Engines(config.simulate.relax_engine, EMT_PATH, options, DynamicsOptions())
    given = [gold_task(rattled(), "relax").structure]
    (result,) = simulate_given(given, GOLDENE, engines, [], first_seed=1, workers=1)
    assert result.status in {"done", "not converged"}  # in a process of its own


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("my_module:absent", "has no attribute 'absent'"),
        ("my_module:number", "int, which cannot be called"),
        ("no_such_module:make", "No module named 'no_such_module'"),
    ],
)
def test_a_path_that_leads_nowhere_says_so(my_module, path, why):
    sys.path.append(".")
    with pytest.raises(EngineMissing, match=why):
        require(path, "relax")


def test_what_a_calculator_raises_is_the_status_of_its_result(my_module):
    sys.path.append(".")
    task = gold_task(gold(), "relax", "my_module:broken")
    with pytest.raises(ad.AdatomError, match="OSError: no licence server"):
        relax(task, RelaxOptions())  # the lattice constant comes first
    atoms = gold()
    atoms.symbols[3] = "W"
    result = relax(gold_task(atoms, "relax"), RelaxOptions())
    assert result.status.startswith("failed: ")
    assert "W" in result.status


def test_a_name_with_a_colon_that_is_no_path_is_an_unknown_engine():
    with pytest.raises(BadInput, match=r"expected one of .*gfn1-xtb"):
        find_engine("http://lammps")


class Closing(Calculator):
    """A calculator that says when it was closed."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012
    closed = 0

    def calculate(self, atoms=None, properties=None, system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}

    def close(self):
        type(self).closed += 1


def test_a_calculator_is_closed_also_after_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "closing", sys.modules[__name__])
    engine = find_engine("closing:Closing")
    with engine.calculator(gold(), RelaxOptions()):
        pass
    assert Closing.closed == 1
    with pytest.raises(ad.AdatomError), engine.calculator(gold(), RelaxOptions()):
        raise KeyError("Au")
    assert Closing.closed == 2
