"""Built-in materials: names and scales."""

import numpy as np
import pytest

from adatom.frames.lattice.fit import fit_lattice
from adatom.materials.library import load_material


@pytest.mark.parametrize("name", ["Pt-on-carbon", "Re-on-carbon"])
def test_dispersed_atoms_have_no_lattice(name):
    m = load_material(name)
    assert (m.form, m.coordination, m.bond_length_A) == ("atoms", 0, 2.4)
    assert m.species == (name[:2],)
    assert m.probe_sigma_A == (0.6, 1.5)
    assert fit_lattice(np.random.default_rng(0).uniform(0, 50, (200, 2)), m) is None


@pytest.mark.parametrize("typed", ["MOS2", " mos2 ", "MoS2"])
def test_names_are_found_in_any_case_and_with_spaces(typed):
    assert load_material(typed) == load_material("MoS2")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("graphene", 1.0),
        ("CdTe", 6.482 / 4 / 1.42),
        ("MoS2", 3.16 / 3**0.5 / 1.42),
        ("Au", 1.5),  # long bonds, but the probe has to be sampled all the same
        ("Pt-on-carbon", (0.6 + 1.5) / 2 / 0.43),  # the probe is wider than any bond
    ],
)
def test_the_scale_follows_the_bond_or_the_probe(name, wanted):
    assert load_material(name).scale == pytest.approx(wanted, rel=1e-3)
