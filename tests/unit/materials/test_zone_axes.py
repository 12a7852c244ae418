"""Elements of cubic lattices, named alone, along their main directions: columns by geometry."""

import numpy as np
import pytest
from ase.data import chemical_symbols, reference_states

from adatom.materials.library import load_material

CUBIC = {
    chemical_symbols[z]: (known["symmetry"], known["a"])
    for z, known in enumerate(reference_states)
    if known and known["symmetry"] in ("sc", "fcc", "bcc", "diamond")
}
# Of each lattice along each axis: distance of the nearest columns over a, and area of a column over
# a², by hand: the area is the volume of an atom over the distance of atoms along the column.
ROOT = np.sqrt
GEOMETRY = {
    ("sc", (1, 0, 0)): (1, 1),
    ("sc", (1, 1, 0)): (1 / ROOT(2), 1 / ROOT(2)),
    ("sc", (1, 1, 1)): (ROOT(2 / 3), 1 / ROOT(3)),
    ("fcc", (1, 0, 0)): (1 / 2, 1 / 4),
    ("fcc", (1, 1, 0)): (ROOT(3 / 8), 1 / ROOT(8)),
    ("fcc", (1, 1, 1)): (1 / ROOT(6), 1 / ROOT(48)),
    ("bcc", (1, 0, 0)): (1 / ROOT(2), 1 / 2),
    ("bcc", (1, 1, 0)): (1 / 2, 1 / ROOT(8)),
    ("bcc", (1, 1, 1)): (ROOT(2 / 3), 1 / ROOT(3)),
    ("diamond", (1, 0, 0)): (1 / ROOT(8), 1 / 8),
    ("diamond", (1, 1, 0)): (1 / 4, 1 / ROOT(32)),
    ("diamond", (1, 1, 1)): (1 / ROOT(6), 1 / ROOT(48)),
}


@pytest.mark.parametrize("axis", [(1, 0, 0), (1, 1, 0), (1, 1, 1)])
def test_cubic_elements_named_alone_are_seen_along_axes_of_the_cube(tmp_path, axis):
    assert len(CUBIC) > 35
    path = tmp_path / "m.toml"
    for element, (lattice, a) in CUBIC.items():
        path.write_text(
            f'name = "m"\nform = "columns"\n[structure]\nbulk = {{ name = "{element}" }}\n'
            f"zone_axis = {list(axis)}\n"
        )
        seen = load_material(str(path))
        nearest, area = GEOMETRY[lattice, axis]
        assert seen.bond_length_A == pytest.approx(a * nearest, rel=1e-6), (element, lattice)
        assert seen.site_area_A2 == pytest.approx(a**2 * area, rel=1e-6), (element, lattice)
        assert set(seen.site_species) == {element}


def test_tetragonal_elements_are_seen_along_axes_of_the_tetragonal_cell(tmp_path):
    path = tmp_path / "m.toml"
    path.write_text(
        'name = "m"\nform = "columns"\n[structure]\nbulk = { name = "In" }\nzone_axis = [0, 0, 1]\n'
    )
    a = reference_states[chemical_symbols.index("In")]["a"]
    assert load_material(str(path)).bond_length_A == pytest.approx(a / 2**0.5, rel=1e-6)
