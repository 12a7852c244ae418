"""What becomes of defects in molecular dynamics, told by the names that images get."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atom, Atoms
from ase.build import graphene

import adatom as ad
from adatom.campaign.fate import defects_of
from adatom.core import GRAPHENE, SimulationResult
from adatom.materials.library import load_material
from adatom.simulation import DynamicsOptions
from adatom.simulation.scaling import reference_sheet


def noisy(atoms: Atoms) -> Atoms:
    """Shake as heat does at some hundred kelvin."""
    out = atoms.copy()
    out.positions += np.random.default_rng(5).normal(0.0, 0.06, out.positions.shape)
    return out


def sheet() -> Atoms:
    """In the lattice constant of SiC.tersoff, 3 % above that of graphene."""
    return graphene(size=(7, 7, 1), a=2.53, vacuum=8.0)


def test_defects_of_a_periodic_cell_have_the_names_of_images():
    vacancy, silicon, on_top, gone, both = (sheet() for _ in range(5))
    del vacancy[0], both[60]  # one of them in the corner of the cell
    silicon.symbols[60] = "Si"
    on_top.append(Atom("C", on_top.positions[60] + [0.7, 0.0, 1.4]))
    both.append(Atom("Si", both.positions[5] + [0.0, 0.0, 1.8]))
    gone.append(Atom("C", gone.positions[60] + [0.7, 0.0, 5.4]))
    for atoms, names in (
        (sheet(), ()),
        (vacancy, ("V1",)),
        (silicon, ("Si1C3",)),
        (on_top, ("ad-C",)),
        (both, ("V1", "ad-Si")),
        (gone, ("free-C",)),
    ):
        assert defects_of(noisy(atoms), GRAPHENE) == names


def test_columns_of_a_compound_are_named_too():
    material = load_material("MoS2")
    atoms = reference_sheet(material, 3.18, 6)
    assert defects_of(atoms, material) == ()
    metal = atoms.copy()
    del metal[[a.index for a in metal if a.symbol == "Mo"][20]]
    assert defects_of(metal, material) == ("vac_Mo",)


def test_an_ad_atom_that_heals_a_vacancy_is_followed_to_its_end():
    atoms = graphene(size=(6, 6, 1), a=2.46, vacuum=8.0)
    hole = atoms.positions[28].copy()
    del atoms[28]
    atoms.append(Atom("C", hole + [0.0, 0.0, 1.5]))
    short = DynamicsOptions(
        equilibration_ps=0.1, production_ps=0.3, sample_fs=10.0, trajectory_frames=30
    )
    results = ad.simulate(
        atoms, temperatures_K=[300.0], relax_engine="lammps", dynamics_engine="lammps",
        dynamics_options=short, allow_unfit=True, workers=1,
    )  # fmt: skip
    ran = results[-1]
    # The relaxation pulls it in: the run is told from the start that was given.
    whole = SimulationResult(
        ran.structure, ran.draw, ran.engine, ran.task, ran.temperature_K, ran.energy_eV,
        ran.energy_sd_eV, ran.status, ran.seconds, (atoms, *ran.trajectory),
    )  # fmt: skip
    found = ad.fate(whole)
    assert found.start != ()
    assert found.end == ()
    assert [event.after for event in found.events][-1] == ()
    assert str(found).startswith(" + ".join(found.start) + " becomes perfect crystal")


def test_no_change_is_said():
    atoms = graphene(size=(6, 6, 1), a=2.46, vacuum=8.0)
    other = noisy(atoms)
    other.info["time_fs"] = 2000.0
    ran = SimulationResult("p", 0, "e", "dynamics", 300.0, 0.0, 0.0, "done", 1.0, (atoms, other))
    assert str(ad.fate(ran)) == "perfect crystal stays in 2 ps"
    assert ad.fate(ran).length_fs == pytest.approx(2000.0)


def test_dynamics_from_python_say_what_became_of_the_defect():
    atoms = graphene(size=(6, 6, 1), a=2.46, vacuum=8.0)
    del atoms[28]
    short = DynamicsOptions(equilibration_ps=0.05, production_ps=0.1, trajectory_frames=3)
    *_, ran = ad.simulate(
        atoms, temperatures_K=[300.0], relax_engine="lammps", dynamics_engine="lammps",
        dynamics_options=short, workers=1,
    )  # fmt: skip
    assert ran.notes[-1] == "V1 stays in 0.1 ps"
