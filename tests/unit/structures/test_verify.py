"""Fingerprints tell structures apart by their bonds, not by where they lie."""

from __future__ import annotations

import ase
import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.materials.library import load_material
from adatom.structures import SupercellOptions, fingerprint, pristine_supercell, same_structure


def test_fingerprints_ignore_positions_and_tell_bonds_and_sides_apart():
    flat = pristine_supercell(GRAPHENE).to_ase()
    moved = flat.copy()
    moved.translate((3.1, 1.7, 2.0))
    moved.rattle(0.02, seed=3)
    moved.wrap()
    shuffled = moved[np.random.default_rng(0).permutation(len(moved))]
    assert same_structure(flat, shuffled)
    one, two = flat.copy(), flat.copy()
    one[40].symbol = two[77].symbol = "Si"
    one[40].position += (0, 0, 1.4)
    two[77].position -= (0, 0, 1.4)
    assert same_structure(one, two)  # above or below: the same sheet from its other side
    assert fingerprint(one) != fingerprint(flat)
    planar = flat.copy()
    planar[40].symbol = "Si"
    assert not same_structure(one, planar)
    partner = int(np.argsort(flat.get_distances(40, range(len(flat)), mic=True))[20])
    cis, trans = one.copy(), one.copy()
    cis[partner].symbol = trans[partner].symbol = "Si"
    cis[partner].position += (0, 0, 1.4)
    trans[partner].position -= (0, 0, 1.4)
    assert not same_structure(cis, trans)
    vacancy = flat.copy()
    del vacancy[10]
    assert not same_structure(vacancy, flat)


def rectangle(n: int, m: int) -> ase.Atoms:
    """Graphene in a rectangle of n by m cells."""
    a, b = 2.46, 2.46 * 3**0.5
    at = [(0, 0), (0, 1 / 3), (0.5, 0.5), (0.5, 5 / 6)]
    unit = ase.Atoms(
        "C4", cell=[a, b, 20.0], pbc=True, positions=[(x * a, y * b, 10.0) for x, y in at]
    )
    return unit.repeat((n, m, 1))


def with_defect(atoms: ase.Atoms, kind: str, direction: int) -> ase.Atoms:
    """One defect at a bond in the middle, in one of three directions."""
    out = atoms.copy()
    middle = out.cell.array.sum(axis=0) / 2
    i = int(np.argmin(np.linalg.norm(out.positions - middle, axis=1)))
    order = np.argsort(out.get_distances(i, range(len(out)), mic=True))
    j = int(sorted(order[1:4], key=lambda k: np.arctan2(*(out.positions[k] - out.positions[i])[:2]))
            [direction])  # fmt: skip
    if kind == "divacancy":
        del out[[i, j]]
    elif kind == "vacancy":
        del out[i]
    elif kind == "silicon pair":
        out.symbols[i] = out.symbols[j] = "Si"
        out.positions[[i, j], 2] += (1.0, -1.0)
    else:
        part = out[[i, j]]
        part.rotate(90, "z", center=part.positions.mean(axis=0))
        out.positions[[i, j]] = part.positions
    return out


@pytest.mark.parametrize("kind", ["vacancy", "divacancy", "stone-wales", "silicon pair"])
def test_a_defect_has_one_fingerprint_however_it_lies_in_whatever_cell(kind):
    cells = [
        pristine_supercell(GRAPHENE).atoms,
        pristine_supercell(GRAPHENE, SupercellOptions(min_width_A=19.0)).atoms,
        rectangle(7, 4),
        rectangle(8, 5),
    ]
    found = {fingerprint(with_defect(c, kind, d)) for c in cells for d in range(3)}
    assert len(found) == 1
    turned = with_defect(cells[0], kind, 1)
    turned.rotate(37.0, "z", rotate_cell=True)
    mirrored = turned.copy()
    mirrored.positions[:, 0] *= -1.0
    mirrored.set_cell(mirrored.cell.array * (-1.0, 1.0, 1.0))
    assert {fingerprint(turned), fingerprint(mirrored)} == found
    assert fingerprint(cells[0]) == fingerprint(cells[2])
    assert fingerprint(cells[0]) not in found


def test_the_defects_differ_from_each_other():
    atoms = pristine_supercell(GRAPHENE).atoms
    kinds = ["vacancy", "divacancy", "stone-wales", "silicon pair"]
    found = [fingerprint(with_defect(atoms, kind, 0)) for kind in kinds]
    assert len({*found, fingerprint(atoms)}) == 5


def test_vacancies_of_the_upper_and_the_lower_sulfur_are_one_defect():
    sheet = pristine_supercell(load_material("MoS2")).atoms
    sulfur = np.flatnonzero(sheet.symbols == "S")
    top = sulfur[sheet.positions[sulfur, 2] > 10.0]
    bottom = sulfur[sheet.positions[sulfur, 2] < 10.0]
    cells = []
    for i in (top[7], top[3], bottom[9]):
        cells.append(sheet.copy())
        del cells[-1][int(i)]
    assert len({fingerprint(c) for c in cells}) == 1
    metal = sheet.copy()
    del metal[int(np.flatnonzero(sheet.symbols == "Mo")[4])]
    assert len({fingerprint(c) for c in (cells[0], metal, sheet)}) == 3
