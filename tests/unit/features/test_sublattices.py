"""Columns that a lattice vector leads to speak for each other."""

from dataclasses import replace

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.features.sublattices import (
    fit_sublattice_weights,
    has_distinct_sublattices,
    sublattices,
    with_sublattice_evidence,
)
from adatom.materials.library import load_material

WEIGHTS = (0.5, 6.0)


def crystal(name, *, angle=0.3, cells=9, noise=0.05, seed=0):
    """Columns of a square patch of a crystal: positions and species."""
    material = load_material(name)
    k = np.arange(-2 * cells, 2 * cells + 1)
    grid = np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1).reshape(-1, 2)
    c, s = np.cos(angle), np.sin(angle)
    number = {label: i for i, label in enumerate(material.species)}
    xy = np.concatenate([(grid + b) @ material.cell() for b in material.basis])
    xy = xy @ np.array([[c, s], [-s, c]])
    species = np.repeat([number[x] for x in material.site_species], len(grid))
    near = np.abs(xy).max(axis=1) < cells * material.lattice_constant_A / 2
    rng = np.random.default_rng(seed)
    return material, xy[near] + rng.normal(0.0, noise, (int(near.sum()), 2)), species[near]


def doubtful(material, species, seed=1, strength=0.6):
    """Probabilities that are right for two columns of three."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0.0, 1.0, (len(species), len(material.species)))
    logit[np.arange(len(species)), species] += strength
    hosts = [s in material.site_species for s in material.species]
    p = np.exp(logit) * hosts + 1e-3
    return p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", ["CdTe", "SrTiO3", "h-BN"])
@pytest.mark.parametrize("angle", [0.0, 0.3, 2.5])
def test_lattice_vectors_lead_to_the_same_species(name, angle):
    material, xy, species = crystal(name, angle=angle)
    kind, grain = sublattices(xy, material)
    assert (kind >= 0).mean() > 0.9
    assert set(grain[kind >= 0]) == {0}
    groups = [species[kind == k] for k in np.unique(kind[kind >= 0])]
    assert len(groups) == 2
    assert all(np.ptp(group) == 0 for group in groups)
    assert groups[0][0] != groups[1][0]


def test_a_stretched_and_bent_scan_does_not_break_a_kind():
    material, xy, _ = crystal("CdTe", noise=0.03)
    bent = xy @ np.array([[1.03, 0.02], [0.0, 0.97]]) + 2e-4 * xy**2
    kind, _ = sublattices(bent, material)
    assert len(np.unique(kind[kind >= 0])) == 2
    assert (kind >= 0).mean() > 0.9


@pytest.mark.parametrize("name", ["CdTe", "SrTiO3", "h-BN"])
def test_together_they_know_what_one_does_not(name):
    material, xy, species = crystal(name)
    p = doubtful(material, species)
    alone = (p.argmax(axis=1) == species).mean()
    q = with_sublattice_evidence(xy, p, material, WEIGHTS)
    assert alone < 0.75
    assert (q.argmax(axis=1) == species).mean() > 0.97
    np.testing.assert_allclose(q.sum(axis=1), p.sum(axis=1), atol=1e-12)


def test_two_grains_are_kept_apart():
    material, left, first = crystal("CdTe", angle=0.1)
    _, right, second = crystal("CdTe", angle=0.8, seed=5)
    # The second crystal is named the other way round, as a twin may be.
    right = right + (left[:, 0].max() - right[:, 0].min() + 2.0, 0.0)
    xy, species = np.concatenate([left, right]), np.concatenate([first, second])
    kind, grain = sublattices(xy, material)
    sides = np.arange(len(xy)) < len(left)
    assert not set(kind[sides & (kind >= 0)]) & set(kind[~sides & (kind >= 0)])
    assert len(set(grain[kind >= 0])) == 2
    q = with_sublattice_evidence(xy, doubtful(material, species), material, WEIGHTS)
    assert (q.argmax(axis=1) == species).mean() > 0.95


def test_one_kind_takes_what_the_other_leaves():
    # All columns look like Te, those of one kind more so: the others must be Cd.
    material, xy, species = crystal("CdTe")
    p = np.where(species[:, None] == 0, [0.8, 0.2], [0.6, 0.4])
    assert (p.argmax(axis=1) == 0).all()
    q = with_sublattice_evidence(xy, p, material, WEIGHTS)
    assert (q.argmax(axis=1) == species).mean() > 0.97


def test_what_is_no_host_keeps_its_probability_and_a_sure_column_its_name():
    material, xy, species = crystal("h-BN")
    p = doubtful(material, species)
    middle = int(np.argmin(np.linalg.norm(xy, axis=1)))
    carbon = material.species.index("C")
    p[middle] = np.eye(len(material.species))[carbon] * 0.97 + 0.01
    q = with_sublattice_evidence(xy, p / p.sum(axis=1, keepdims=True), material, WEIGHTS)
    assert q[middle].argmax() == carbon
    other = material.species.index("N" if species[middle] == material.species.index("B") else "B")
    p[middle] = np.eye(len(material.species))[other] * 0.9997 + 1e-4
    sure = with_sublattice_evidence(xy, p / p.sum(axis=1, keepdims=True), material, (1.0, 3.0))
    assert sure[middle].argmax() == other  # an antisite defect is not voted away


def test_the_order_of_columns_does_not_matter():
    material, xy, species = crystal("CdTe")
    p = doubtful(material, species)
    turn = np.random.default_rng(3).permutation(len(xy))
    np.testing.assert_allclose(
        with_sublattice_evidence(xy[turn], p[turn], material, WEIGHTS),
        with_sublattice_evidence(xy, p, material, WEIGHTS)[turn],
        atol=1e-9,
    )  # fmt: skip


def test_materials_whose_columns_say_nothing_of_each_other_are_left_alone():
    xy = np.random.default_rng(0).uniform(0, 30, (100, 2))
    p = np.random.default_rng(1).dirichlet([1, 1], 100)
    for material in (GRAPHENE, load_material("MoS2"), load_material("Pt-on-carbon")):
        assert not has_distinct_sublattices(material)
        assert with_sublattice_evidence(xy, p, material, WEIGHTS) is p
        assert fit_sublattice_weights([(xy, p, np.zeros(100, dtype=int))], material) == (1.0, 0.0)


def test_a_cell_of_many_sites_is_not_tried_in_all_orders():
    """Twelve sites stand in 479 million orders."""
    cdte = load_material("CdTe")
    basis = tuple((x + k / 6, y) for k in range(6) for x, y in cdte.basis)
    large = replace(cdte, basis=basis, site_species=cdte.site_species * 6)
    assert not has_distinct_sublattices(large)
    p = np.full((len(basis), 2), 0.5)
    assert with_sublattice_evidence(np.array(basis) @ large.cell(), p, large, WEIGHTS) is p


@pytest.mark.parametrize("count", [0, 1, 2, 20, 300])
def test_columns_without_a_lattice_keep_their_own_word(count):
    material = load_material("CdTe")
    xy = np.random.default_rng(count).uniform(0, 100, (count, 2))
    p = np.random.default_rng(1).dirichlet([1, 1], count)
    q = with_sublattice_evidence(xy, p, material, WEIGHTS)
    assert np.isclose(q, p).all(axis=1).mean() > 0.9 if count else len(q) == 0


def test_how_much_they_count_is_learned_from_truth():
    parts = []
    for seed in range(4):
        material, xy, species = crystal("CdTe", seed=seed, angle=0.2 * seed)
        parts.append((xy, doubtful(material, species, seed=10 + seed), species))
    own, others = fit_sublattice_weights(parts, material)
    assert others > 1.0
    xy, p, species = parts[0]
    before = -np.log(p[np.arange(len(p)), species]).mean()
    q = with_sublattice_evidence(xy, p, material, (own, others))
    assert -np.log(q[np.arange(len(q)), species]).mean() < 0.5 * before
    # Where the probabilities were drawn by lot, neighbours are not believed either.
    lots = [(xy, np.random.default_rng(k).dirichlet([1, 1], len(xy)), s) for k, (xy, _, s) in
            enumerate(parts)]  # fmt: skip
    own, others = fit_sublattice_weights(lots, material)
    q = with_sublattice_evidence(xy, lots[0][1], material, (own, others))
    assert np.abs(q - 0.5).mean() < 0.2  # four crystals only: chance has a say
    larger = replace(material, cell_A=tuple(tuple(2 * v for v in row) for row in material.cell_A),
                     bond_length_A=2 * material.bond_length_A)  # fmt: skip
    np.testing.assert_array_equal(sublattices(2 * xy, larger)[0], sublattices(xy, material)[0])
