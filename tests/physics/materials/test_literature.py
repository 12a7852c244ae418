"""Built-in materials against lattice constants and contrast in the literature."""

import numpy as np
import pytest

from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import expected_image
from adatom.materials.library import load_material, material_names

# Bond (Å), neighbours, area of the cell (Å²), sites and further species: from the lattice constants
# in the literature, by hand.
_ROOT3 = 3.0**0.5
TRUTH = {
    "graphene": (2.46 / _ROOT3, 3, 2.46**2 * _ROOT3 / 2, {"C"}, {"Si"}),
    "h-BN": (2.504 / _ROOT3, 3, 2.504**2 * _ROOT3 / 2, {"N", "B"}, {"C", "O"}),
    "MoS2": (3.16 / _ROOT3, 3, 3.16**2 * _ROOT3 / 2, {"Mo", "S2"}, {"S", "W", "V"}),
    "WS2": (3.153 / _ROOT3, 3, 3.153**2 * _ROOT3 / 2, {"W", "S2"}, {"S", "Mo"}),
    "MoSe2": (3.288 / _ROOT3, 3, 3.288**2 * _ROOT3 / 2, {"Mo", "Se2"}, {"Se", "W"}),
    "MoSSe": (3.22 / _ROOT3, 3, 3.22**2 * _ROOT3 / 2, {"Mo", "SSe"}, {"S2", "Se2", "W"}),
    "SrTiO3": (3.905 / 2**0.5, 4, 3.905**2, {"Sr", "TiO"}, {"Ti"}),
    "BaTiO3": (4.005 / 2**0.5, 4, 4.005**2, {"Ba", "TiO"}, {"Ti"}),
    # Along [110] of an fcc lattice: a centred rectangle a x a/√2 with two columns or dumbbells.
    "Au": (4.078 * (3 / 8) ** 0.5, 4, 4.078**2 / 8**0.5, {"Au"}, set()),
    "CdTe": (6.482 / 4, 1, 6.482**2 / 8**0.5, {"Cd", "Te"}, set()),
}
Z = {"Mo": 42, "S": 16, "W": 74, "V": 23, "Sr": 38, "Ti": 22, "O": 8, "Se": 34}
# Columns of two layers over each other.
STACKED = {"MoS2": {"MoS2"}, "WS2": {"WS2"}, "MoSe2": {"MoSe2"}}
CRYSTALS = tuple(TRUTH)


def intensity(label, exponent=1.64):
    """Σ Zⁿ of labels of the form used here: symbols with an optional 2."""
    parts = {
        "S2": "S S", "Se2": "Se Se", "SSe": "S Se", "TiO": "Ti O", "MoS2": "Mo S S",
        "WS2": "W S S", "MoSe2": "Mo Se Se",
    }.get(label, label).split()  # fmt: skip
    return sum(Z[s] ** exponent for s in parts)


def test_every_built_in_material_is_known_here():
    assert set(material_names()) == {*TRUTH, "Pt-on-carbon", "Re-on-carbon"}


@pytest.mark.parametrize("name", CRYSTALS)
def test_built_in_crystals_are_as_in_the_literature(name):
    m = load_material(name)
    bond, neighbours, area, sites, extra = TRUTH[name]
    assert m.name == name
    assert m.bond_length_A == pytest.approx(bond, abs=2e-3)
    assert m.coordination == neighbours
    assert np.linalg.det(m.cell()) == pytest.approx(area, rel=1e-4)  # right-handed, too
    assert set(m.site_species) == sites
    assert set(m.species) == sites | extra | STACKED.get(name, set())
    assert m.species[0] == m.host
    assert len(set(m.species)) == len(m.species)
    assert m.form == ("columns" if name in ("SrTiO3", "BaTiO3", "Au", "CdTe") else "sheet")
    assert m.brightness()[0] == 1.0
    brightest = max(m.brightness()[: len(sites)])
    assert m.brightness()[0] == brightest, "the host is the brightest column of the crystal"


@pytest.mark.parametrize("name", ["MoS2", "WS2", "MoSe2", "MoSSe", "SrTiO3"])
@pytest.mark.parametrize("exponent", [None, 1.4, 2.0])
def test_brightness_is_the_sum_of_the_powers_of_the_charges(name, exponent):
    m = load_material(name)
    value = m.brightness(exponent)
    power = 1.64 if exponent is None else exponent
    wanted = [intensity(s, power) / intensity(m.host, power) for s in m.species]
    np.testing.assert_allclose(value, wanted, rtol=1e-12)


def test_a_column_of_two_is_twice_as_bright_in_the_image():
    m = load_material("MoS2")
    image = {}
    for label in ("S2", "S", "Mo"):
        lone = Specimen(
            np.array([[4.0, 4.0]]), np.array([m.species.index(label)]), np.zeros((0, 2))
        )
        conditions = Conditions(background=0.0)
        image[label] = expected_image(lone, (81, 81), m, conditions, np.random.default_rng(0))
    here = np.s_[30:51, 30:51]
    np.testing.assert_allclose(image["S2"][here], 2 * image["S"][here], rtol=1e-5)
    np.testing.assert_allclose(image["Mo"][here], image["S"][here] * (42 / 16) ** 1.64, rtol=1e-5)
