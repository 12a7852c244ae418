"""Structures from the user: what is refused does not take the results of the others."""

import subprocess
import sys
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor

import numpy as np
import pytest
from ase.build import graphene, mx2
from ase.constraints import FixedPlane

import adatom as ad
from adatom.campaign import given
from adatom.errors import BadInput
from adatom.simulation import DynamicsOptions, RelaxOptions
from silicon_sheets import sheet

SHORT = DynamicsOptions(equilibration_ps=0.02, production_ps=0.05)


@pytest.fixture(autouse=True)
def in_threads(monkeypatch):
    monkeypatch.setattr(given, "local_processes", lambda workers: ThreadPoolExecutor(1))


def simulate(structures, temperatures=(300.0,), **more):
    return ad.simulate(
        structures, temperatures_K=list(temperatures), relax_engine="lammps",
        dynamics_options=SHORT, **more,
    )  # fmt: skip


def molybdenite():
    atoms = mx2(size=(3, 3, 1), vacuum=8.0)
    atoms.pbc = True
    return atoms


def test_refused_structures_leave_the_results_of_the_others():
    held = sheet()
    held.set_constraint(FixedPlane(0, (0, 0, 1)))
    strange = sheet()
    strange.symbols[0] = "U"
    broken = sheet()
    broken.positions[3] = np.nan
    found = simulate([molybdenite(), sheet(), held, strange, broken], material="graphene")
    status = [r.status for r in found if r.task == "relax"]
    assert [s == "done" for s in status] == [False, True, False, False, False]
    assert "expected a sheet of graphene" in status[0]
    assert "FixedPlane" in status[2]
    assert "got C+U" in status[3]
    assert [r.status for r in found if r.task == "dynamics"] == ["done"]


def test_relaxations_are_kept_where_dynamics_are_refused():
    atoms = sheet(3, 1)
    atoms.symbols[0] = "B"
    one_step = RelaxOptions(max_steps=1, prepare=False)
    with pytest.warns(UserWarning, match="Γ point alone"):
        found = ad.simulate(
            [atoms, sheet(3, 1)], temperatures_K=[300], dynamics_options=SHORT,
            relax_options=one_step, dynamics_engine="lammps",
        )  # fmt: skip
    assert [(r.task, r.status.startswith("failed")) for r in found] == [
        ("relax", False), ("relax", False), ("dynamics", True), ("dynamics", False),
    ]  # fmt: skip
    assert np.isfinite([r.energy_eV for r in found[:2]]).all()
    assert "got B+C" in found[2].status


@pytest.mark.parametrize(
    ("atoms", "material", "words"),
    [
        (molybdenite(), "graphene", "of graphene, of C"),
        (mx2("WTe2", a=3.55, size=(3, 3, 1), vacuum=8.0), None, "got .*Te"),
        (graphene("SiC", a=3.1, size=(3, 3, 1), vacuum=8.0), None, "Name its `material`"),
    ],
)
def test_a_single_structure_that_cannot_be_simulated_is_an_error(atoms, material, words):
    with pytest.raises(BadInput, match=words):
        simulate(atoms, (), material=material)


def test_a_process_that_ends_takes_only_its_own_structure(monkeypatch):
    class Fragile:
        """A pool that ends at structure `bad`, and then does nothing more."""

        def __init__(self, workers):
            self.broken = False

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def submit(self, call, work, task):
            future = Future()
            self.broken |= task.structure.name == "bad"
            if self.broken:
                future.set_exception(BrokenExecutor())
            else:
                future.set_result(call(work, task))
            return future

    monkeypatch.setattr(given, "local_processes", Fragile)
    cells = [sheet(), sheet(), sheet()]
    cells[0].info["name"], cells[1].info["name"] = "bad", "good"
    found = simulate(cells, ())
    assert [r.status == "done" for r in found] == [False, True, True]
    assert "worker process" in found[0].status


def test_given_structures_have_formation_energies_over_reservoirs():
    """7.6 eV in LCBOP for the vacancy, 1.9 eV in Tersoff for Si beside diamond Si."""
    sheet = graphene(size=(5, 5, 1), a=2.46, vacuum=8.0)
    vacancy, silicon = sheet.copy(), sheet.copy()
    del vacancy[25]
    silicon.symbols[25] = "Si"
    silicon.positions[25, 2] += 1.0
    found = ad.simulate(
        [vacancy, silicon], temperatures_K=[], relax_engine="lammps", mu=["Si-rich"], workers=1
    )
    assert found[0].formation_energy_eV == pytest.approx(7.6, abs=0.1)
    assert found[1].formation_energy_eV == pytest.approx(1.9, abs=0.1)
    assert "Si-rich: of diamond Si" in found[1].reference
    (without,) = ad.simulate(silicon, temperatures_K=[], relax_engine="lammps", workers=1)
    assert without.reference == "none (μ(Si) not chosen)"


SCRIPT = """
import adatom as ad
from ase.build import graphene
print("once")
sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
print(ad.simulate(sheet, temperatures_K=[], relax_engine="lammps")[0].status)
"""


@pytest.mark.parametrize("stdin", [True, False])
def test_a_script_needs_no_guard(tmp_path, stdin):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-" if stdin else "script.py"]
    done = subprocess.run(
        command, input=SCRIPT if stdin else "", cwd=tmp_path, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["once", "done"], done.stderr
