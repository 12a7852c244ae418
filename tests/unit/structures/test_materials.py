"""Supercells of sheets with several layers of atoms, and of crystals seen along a zone axis."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase import Atoms

from adatom.core import Affine, Lattice
from adatom.errors import BadInput
from adatom.materials.library import load_material
from adatom.structures import (
    SupercellOptions,
    build_supercell,
    pristine_like,
    pristine_supercell,
    sample_structures,
)
from lattices import CENTER, EXTENT, table

LATTICES = ["h-BN", "MoS2", "WS2", "MoSe2", "MoSSe", "SrTiO3", "BaTiO3", "CdTe", "Au"]


def frame_of(name, angle=0.4):
    """A lattice, the sites' places in a frame, and their labels."""
    material = load_material(name)
    affine = Affine(((1.02, 0.01), (0.01, 0.99)))
    lattice = Lattice(material, CENTER, affine, np.zeros((2, 3)), angle, (0.3, -0.4), 0.05, 1.0)
    index, xy = lattice.sites_within(EXTENT)
    return lattice, xy, [material.site_species[i] for i in index[:, 2]]


def near(xy, labels, label):
    """The site of a label that is nearest to the middle."""
    away = np.linalg.norm(xy - CENTER, axis=1)
    return int(np.argmin(np.where(np.array(labels) == label, away, np.inf)))


def supercell(name, change, *, draws=0, **options):
    """Change the labels of one frame, and build around the site that was changed."""
    lattice, xy, labels = frame_of(name)
    (old, new), *_ = change.items()
    at = near(xy, labels, old)
    centre = tuple(xy[at])
    if new:
        labels[at] = new
    else:
        xy, labels = np.delete(xy, at, axis=0), labels[:at] + labels[at + 1 :]
    common = {
        "center_xy_A": centre, "kind": "x", "frame": 0, "defect": 0,
        "options": SupercellOptions(**options),
    }  # fmt: skip
    atoms = table(xy, labels, sigma=0.02)
    cell = build_supercell(atoms, lattice, EXTENT, **common)
    rng = np.random.default_rng(3)
    return cell, sample_structures(atoms, lattice, EXTENT, count=draws, rng=rng, **common)


def difference(cell, name):
    """Atoms more and fewer than in the perfect cell of the same size."""
    perfect = pristine_supercell(load_material(name))
    np.testing.assert_allclose(cell.atoms.cell, perfect.atoms.cell)
    count = Counter(cell.atoms.symbols)
    count.subtract(Counter(perfect.atoms.symbols))
    return {s: n for s, n in count.items() if n}


def neighbours(atoms, reach):
    d = atoms.get_all_distances(mic=True)
    return ((d > 0.1) & (d < reach)).sum(axis=1)


@pytest.mark.parametrize("name", LATTICES)
def test_a_perfect_cell_is_the_crystal_again(name):
    material = load_material(name)
    cell = pristine_supercell(material).atoms
    unit = material.crystal.to_ase()
    assert np.linalg.det(cell.cell) > 0
    assert cell.pbc.all()
    share = len(cell) / len(unit)
    assert Counter(cell.symbols) == {s: n * share for s, n in Counter(unit.symbols).items()}
    if material.crystal.is_sheet:
        heights = np.sort(cell.positions[:, 2])
        assert cell.cell[2, 2] - np.ptp(heights) >= 15.0
        assert len(cell) // len(unit) % 3
    else:
        assert cell.get_volume() / len(cell) == pytest.approx(unit.get_volume() / len(unit))
        assert cell.cell[2, 2] >= 10.0
    block = unit.repeat((7, 7, 1 if material.crystal.is_sheet else 7))
    np.testing.assert_array_equal(
        np.unique(neighbours(cell, 4.3)), np.unique(neighbours(block, 4.3))
    )
    steps = [i * cell.cell[0] + j * cell.cell[1] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    assert np.sort(np.linalg.norm(steps, axis=1))[1] >= 15.5


def test_titanium_oxide_columns_have_the_distances_of_the_perovskite():
    cell = pristine_supercell(load_material("SrTiO3")).atoms
    d = cell.get_all_distances(mic=True)
    titanium, oxygen = cell.symbols == "Ti", cell.symbols == "O"
    for row in d[titanium][:, oxygen]:
        assert np.sort(row)[:7] == pytest.approx([3.905 / 2] * 6 + [4.366], abs=1e-3)


def test_a_column_of_one_sulfur_lacks_the_other_one_above_or_below():
    cell, draws = supercell("MoS2", {"S2": "S"}, draws=40)
    assert difference(cell, "MoS2") == {"S": -1}
    assert cell.atoms.info["changes"] == ["S missing at 0.0 0.0 p 1.000"]
    perfect = pristine_supercell(load_material("MoS2")).atoms
    tops = [int((c.atoms.positions[:, 2] > 11.0).sum()) for c in draws]
    whole = int((perfect.positions[:, 2] > 11.0).sum())
    assert {whole - n for n in tops} == {0, 1}
    assert all(difference(c, "MoS2") == {"S": -1} for c in draws)
    assert 10 < sum(whole - n for n in tops) < 30  # 40 fair draws


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("MoS2", {"S2": ""}, {"S": -2}),
        ("MoS2", {"Mo": ""}, {"Mo": -1}),
        ("MoS2", {"Mo": "W"}, {"Mo": -1, "W": 1}),
        ("MoS2", {"S2": "Mo"}, {"S": -2, "Mo": 1}),
        ("MoS2", {"Mo": "S2"}, {"S": 2, "Mo": -1}),
        ("WS2", {"S2": "S"}, {"S": -1}),
        ("h-BN", {"B": ""}, {"B": -1}),
        ("h-BN", {"N": "C"}, {"N": -1, "C": 1}),
        ("MoSSe", {"SSe": "Se2"}, {"S": -1, "Se": 1}),
        ("MoSSe", {"SSe": "S2"}, {"S": 1, "Se": -1}),
        ("SrTiO3", {"TiO": "Ti"}, {"O": -3}),
        ("SrTiO3", {"Sr": ""}, {"Sr": -3}),
        ("CdTe", {"Te": ""}, {"Te": -3}),
        ("Au", {"Au": ""}, {"Au": -4}),
    ],
)
def test_the_atoms_of_a_label_stand_in_its_column(name, change, expected):
    cell, draws = supercell(name, change, draws=6)
    assert difference(cell, name) == expected
    assert len(cell.atoms.info["changes"]) == sum(abs(n) for n in expected.values())
    d = cell.atoms.get_all_distances(mic=True)
    assert d[d > 0].min() > 1.2
    for drawn in draws:
        found = difference(drawn, name)
        assert set(found) == set(expected)
        if load_material(name).form == "sheet":
            assert found == expected
        else:  # of a column, some periods or all of them
            assert all(expected[s] <= n <= -1 for s, n in found.items())


def test_a_doubtful_column_is_drawn_as_what_the_layer_may_hold():
    lattice, xy, labels = frame_of("MoS2")
    at = near(xy, labels, "S2")
    sure = np.ones(len(xy))
    sure[at] = 0.2
    draws = sample_structures(
        table(xy, labels, p_element=sure), lattice, EXTENT, center_xy_A=tuple(xy[at]), kind="x",
        frame=0, defect=0, count=60, rng=np.random.default_rng(1),
    )  # fmt: skip
    found = Counter(tuple(sorted(difference(c, "MoS2").items())) for c in draws)
    lost = ("S", -2)
    assert set(found) == {
        (), (("S", -1),), (("Mo", 1), lost), (lost, ("V", 1)), (lost, ("W", 1)),
    }  # fmt: skip
    assert 4 < found[()] < 22  # of 60 with probability 0.2


def test_a_foreign_atom_is_in_the_plane_of_the_atom_that_it_replaces():
    for name, change, symbol in (("MoS2", {"Mo": "W"}, "W"), ("h-BN", {"N": "C"}, "C")):
        cell, _ = supercell(name, change)
        (i,) = np.flatnonzero(cell.atoms.symbols == symbol)
        assert cell.atoms.positions[i, 2] == pytest.approx(cell.atoms.cell[2, 2] / 2)


def test_the_crystal_is_not_mirrored(tmp_path):
    """A chiral crystal, written with its handedness, has the same one in a supercell."""
    x = 0.2633
    unit = Atoms(
        "Te3", cell=[4.46, 4.46, 5.93, 90, 90, 120], pbc=True,
        scaled_positions=[(x, 0, 1 / 3), (0, x, 2 / 3), (-x, -x, 0)],
    )  # fmt: skip
    unit.write(tmp_path / "Te.cif")
    cell = pristine_supercell(load_material(str(tmp_path / "Te.cif"))).atoms

    def turns(atoms):
        """Sign of the screw along z: from each atom to its bonded one above it."""
        found = set()
        for i in range(len(atoms)):
            v = atoms.get_distances(i, range(len(atoms)), mic=True, vector=True)
            bonded = np.flatnonzero((np.linalg.norm(v, axis=1) < 3.0) & (v[:, 2] > 0.5))
            for j in bonded:
                w = atoms.get_distances(j, range(len(atoms)), mic=True, vector=True)
                for k in np.flatnonzero((np.linalg.norm(w, axis=1) < 3.0) & (w[:, 2] > 0.5)):
                    found.add(int(np.sign(np.cross(v[j], w[k])[2])))
        return found

    assert len(turns(cell)) == 1
    assert turns(cell) == turns(unit.repeat((3, 3, 3)))


def test_other_defects_in_the_box_are_listed_and_left_out():
    lattice, xy, labels = frame_of("MoS2")
    at = near(xy, labels, "S2")
    away = np.linalg.norm(xy - xy[at], axis=1)
    far = np.flatnonzero((away > 5.5) & (away < 6.5) & (np.array(labels) == "S2"))[0]
    labels[at], labels[far] = "S", "S"
    cell = build_supercell(
        table(xy, labels), lattice, EXTENT, center_xy_A=tuple(xy[at]), kind="S_S2", frame=0,
        defect=0,
    )  # fmt: skip
    assert difference(cell, "MoS2") == {"S": -1}
    assert cell.atoms.info["left_as_crystal"] == ["1 S on S2"]


def test_the_cell_grows_with_the_defect():
    lattice, xy, labels = frame_of("h-BN")
    at = near(xy, labels, "B")
    away = np.linalg.norm(xy - xy[at], axis=1)
    other = int(np.argmax(np.where((away < 4.6) & (np.array(labels) == "B"), away, 0.0)))
    opposite = int(np.argmin(np.linalg.norm(xy - (2 * xy[at] - xy[other]), axis=1)))
    for k in (other, opposite):
        labels[k] = "C"
    small, large = (
        build_supercell(
            table(xy, which), lattice, EXTENT, center_xy_A=tuple(xy[at]), kind="x", frame=0,
            defect=0,
        )
        for which in (frame_of("h-BN")[2], labels)
    )  # fmt: skip
    assert len(small.atoms) == 98
    assert len(large.atoms) == 128  # 8.7 Å wide and 10 Å apart: eight cells
    carbon = large.atoms[large.atoms.symbols == "C"]
    wide = carbon.get_distance(0, 1)
    assert large.atoms.cell.lengths()[0] - wide >= 10.0


def test_a_material_without_heights_is_refused_in_words(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(
        'name = "X"\n[crystal]\ncell_A = [[3.2, 0.0], [1.6, 2.77]]\n'
        'columns = [{ is = "S2", at = [0.0, 0.0] }]\n'
    )
    for material in (load_material(str(path)), load_material("Pt-on-carbon")):
        with pytest.raises(BadInput, match="expected the heights of its atoms"):
            pristine_supercell(material)


@pytest.mark.parametrize("name", ["graphene", *LATTICES])
@pytest.mark.parametrize("width_A", [15.5, 19.0, 23.3])
def test_the_perfect_crystal_is_built_in_the_cell_of_a_structure(name, width_A):
    material = load_material(name)
    wide = pristine_supercell(material, SupercellOptions(min_width_A=width_A))
    perfect = pristine_like(wide, material)
    np.testing.assert_allclose(perfect.atoms.cell.array, wide.atoms.cell.array, atol=1e-9)
    assert perfect.atoms.get_chemical_formula() == wide.atoms.get_chemical_formula()
    assert perfect.name == f"reference-{wide.atoms.get_chemical_formula()}"


def test_the_reference_has_the_vacuum_of_its_structure():
    cell = pristine_supercell(load_material("graphene"), SupercellOptions(cell_height_A=30.0))
    made = pristine_like(cell, load_material("graphene"))
    assert made is not None
    np.testing.assert_allclose(made.atoms.cell.array, cell.atoms.cell.array, atol=1e-6)
