"""Fingerprints tell structures apart by their bonds, not by where they lie."""

from __future__ import annotations

import numpy as np

from adatom.core import GRAPHENE
from adatom.structures import fingerprint, pristine_supercell, same_structure


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
