"""Specimens and frames of any material: consistent truth, brightness, supports."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_laplace, maximum_filter
from scipy.spatial import cKDTree

from adatom.core import GRAPHENE
from adatom.frames.lattice.fit import fit_lattice
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.crystal import draw_specimen
from adatom.frames.simulate.specimen import EMPTY_A, Specimen, lattice_sites
from adatom.frames.simulate.synthesize import expected_image, random_labelled
from adatom.frames.simulate.universal import random_material, universal_pair
from adatom.materials.library import load_material, material_names

STACKED = ("MoS2", "WS2", "MoSe2")  # materials with a stacked polytype
CRYSTALS = tuple(n for n in material_names() if load_material(n).has_lattice)


def field_of(material, bonds=16.0):
    return (bonds * material.bond_length_A, 0.9 * bonds * material.bond_length_A)


@pytest.mark.parametrize("name", [n for n in CRYSTALS if n != "graphene"])
def test_crystals_that_are_drawn_have_a_consistent_truth(name):
    """Graphene has specimens of its own, and tests of them."""
    m = load_material(name)
    unit = m.bond_length_A
    sites = {m.species.index(s) for s in m.site_species}
    vacancies = foreign = misplaced = 0
    for seed in range(40):
        whole = seed % 2 > 0
        s = draw_specimen(m, field_of(m), np.random.default_rng(seed), whole=whole)
        assert s.xy.shape == (len(s.species), 2)
        assert np.isfinite(s.xy).all()
        assert s.species.min() >= 0
        assert s.species.max() < len(m.species)
        assert s.brightness.shape == s.species.shape
        assert (s.brightness > 0).all()
        vacancies += len(s.vacancies_xy)
        foreign += int((~np.isin(s.species, list(sites))).sum())
        if len(s.vacancies_xy):
            gap = cKDTree(s.xy).query(s.vacancies_xy)[0]
            assert gap.min() > EMPTY_A * unit / 1.42, f"seed {seed}: a vacancy with an atom on it"
            apart = cKDTree(s.vacancies_xy).query(s.vacancies_xy, k=2)[0][:, 1]
            assert apart.min() > 0.5 * unit, f"seed {seed}: one empty site counted twice"
        near = cKDTree(s.xy).query_pairs(0.5 * unit, output_type="ndarray")
        if whole:
            # Only what lies on top, and one or two do in a seventh of the specimens, is so near.
            misplaced += len(near) > 0
            assert len(np.unique(near[:, 1])) <= 6, f"seed {seed}: columns in one place"
            for a, b in near:
                assert np.linalg.norm(s.xy[a] - s.xy[b]) > 0.2 * unit
            inside = np.all((s.xy > 0) & (s.xy < field_of(m)), axis=1).sum()
            empty = np.all((s.vacancies_xy > 0) & (s.vacancies_xy < field_of(m)), axis=1).sum()
            cells = np.prod(field_of(m)) / np.linalg.det(m.cell())
            columns = {2, 3} if name in STACKED else {len(m.basis)}  # 3R has three a cell
            assert any(inside + empty == pytest.approx(n * cells, rel=0.2) for n in columns)
    assert vacancies > 30
    assert misplaced <= 8
    if set(m.species) - set(m.site_species):
        assert foreign > 20


def test_a_site_below_an_ad_atom_is_not_a_vacancy():
    m, vacancies = load_material("h-BN"), 0
    for seed in range(400):
        s = draw_specimen(m, field_of(m), np.random.default_rng(seed), whole=True)
        if len(s.vacancies_xy):
            gap = cKDTree(s.xy).query(s.vacancies_xy)[0]
            assert gap.min() > EMPTY_A * m.bond_length_A / 1.42
        vacancies += len(s.vacancies_xy)
    assert vacancies > 1000


def test_sites_of_one_kind_are_about_equally_bright_and_a_wedge_is_smooth():
    m = load_material("SrTiO3")
    for seed in range(10):
        s = draw_specimen(m, field_of(m, 24.0), np.random.default_rng(seed), whole=True)
        near = cKDTree(s.xy).query_pairs(1.6 * m.bond_length_A, output_type="ndarray")
        same = s.species[near[:, 0]] == s.species[near[:, 1]]
        ratio = s.brightness[near[same, 0]] / s.brightness[near[same, 1]]
        assert np.median(np.abs(np.log(ratio))) < 0.1
        assert len(np.unique(s.brightness.round(9))) > 10  # a thickness that varies


def test_dispersed_atoms_keep_their_distance_and_differ_in_number():
    m = load_material("Pt-on-carbon")
    counts = []
    for seed in range(60):
        s = draw_specimen(m, (60.0, 50.0), np.random.default_rng(seed))
        counts.append(len(s.xy))
        assert not cKDTree(s.xy).query_pairs(m.bond_length_A * (1 - 1e-9))
        assert (s.species == 0).all()
        assert len(s.vacancies_xy) == 0
        assert (
            s.xy.min(initial=0.0) >= -3 * m.scale - 15
        )  # clusters reach a little beyond the margin
    assert min(counts) < 15
    assert max(counts) > 30  # 29 seeds, some of them clusters


def crystal_with_noise(m, seed, noise_bonds=0.03):
    """Sites of a turned and strained crystal, with noise: exact, measured, species, and map."""
    rng = np.random.default_rng(seed)
    extent = np.array(field_of(m))
    perfect, site = lattice_sites(m, tuple(extent), 6.0, rng.uniform(0, 2 * np.pi))
    strain = np.eye(2) + rng.normal(0.0, 0.02, (2, 2))
    exact = (perfect - extent / 2) @ strain.T + extent / 2 + rng.uniform(-1, 1, 2)
    measured = exact + rng.normal(0.0, noise_bonds * m.bond_length_A, exact.shape)
    inside = np.all((measured > 0) & (measured < extent), axis=1)
    species = np.array(m.site_species)[site]
    return exact[inside], measured[inside], species[inside], strain


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("seed", range(4))
def test_a_turned_and_strained_crystal_is_fitted_by_its_host_atoms(name, seed):
    """`fit_lattice` is given the host's atoms; their sites must come out, and the strain."""
    m = load_material(name)
    exact, measured, species, strain = crystal_with_noise(m, seed)
    host = species == m.host
    lattice = fit_lattice(measured[host], m)
    assert lattice is not None
    assert lattice.matched > 0.97
    assert lattice.rms_A == pytest.approx(0.03 * m.bond_length_A, rel=0.25)
    index, off = lattice.nearest_site(lattice.undistort(exact[host]))
    assert np.linalg.norm(off, axis=1).max() < 0.1 * m.bond_length_A
    assert len(np.unique(index, axis=0)) == host.sum(), "two atoms on one site"
    # The correction undoes the strain: what is left is a rotation.
    left = lattice.affine.array() @ strain
    np.testing.assert_allclose(np.linalg.svd(left, compute_uv=False), 1.0, atol=0.008)


@pytest.mark.parametrize("name", CRYSTALS)
def test_no_lattice_is_fitted_to_noise(name):
    m = load_material(name)
    extent = field_of(m)
    count = round(np.prod(extent) / m.site_area_A2)
    xy = np.random.default_rng(5).uniform(0, extent, (count, 2))
    lattice = fit_lattice(xy, m)
    # A third of a bond around every site covers this share of the plane.
    share = len(m.basis) * np.pi * (m.bond_length_A / 3) ** 2 / np.linalg.det(m.cell())
    assert lattice is None or lattice.matched < share + 0.25


@pytest.mark.parametrize("name", ["graphene", "MoS2", "Au", "Pt-on-carbon"])
def test_conditions_grow_with_the_pattern(name):
    m = load_material(name)
    drawn = [Conditions.random(np.random.default_rng(i), m) for i in range(300)]
    px = np.array([c.pixel_size_A for c in drawn]) / m.scale
    assert 0.065 <= px.min() < 0.07
    assert 0.2 < px.max() <= 0.22
    counts = np.array([c.counts_per_A2 for c in drawn]) * m.scale**2
    assert 2.5 <= counts.min() < 4
    assert 6000 < counts.max() <= 10_000
    gaussian = [c for c in drawn if c.optics is None]
    width = np.array([np.sqrt(np.prod(c.probe_sigma_A)) for c in gaussian])
    low, high = m.probe_sigma_A or (0.3, 0.56 * m.scale)
    assert low <= width.min() + 1e-9
    assert width.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < width.max() <= high + 1e-9
    assert len(gaussian) == (300 if m.probe_sigma_A else pytest.approx(180, abs=40))


def test_only_dispersed_atoms_lie_on_a_support():
    for name, under in (("MoS2", False), ("Au", False), ("Re-on-carbon", True)):
        m = load_material(name)
        for i in range(30):
            c = Conditions.random(np.random.default_rng(i), m)
            assert (c.support > 0) == under
            if under:
                assert 1.0 <= c.support <= 25.0
                assert 0.04 <= c.support_lumps <= 0.45
                assert c.slow_background == c.contamination == 0.0


def test_a_support_has_its_level_its_hills_and_its_speckle():
    m = load_material("Pt-on-carbon")
    nothing = Specimen(np.zeros((0, 2)), np.zeros(0, dtype=int), np.zeros((0, 2)))
    plain = Conditions(
        pixel_size_A=0.2, probe_sigma_A=(1.0, 1.0), counts=10.0, background=0.5, tail_fraction=0.0,
        support=2.0, support_speckle=0.0, support_hills=0.0,
    )  # fmt: skip

    def image(seed=0, **change):
        c = replace(plain, **change)
        return expected_image(nothing, (300, 300), m, c, np.random.default_rng(seed)) / 10.0

    np.testing.assert_allclose(image(), 2.5, rtol=1e-6)
    speckle = [image(s, support_speckle=0.1) for s in range(3)]
    for part in speckle:
        assert part.mean() == pytest.approx(2.5, rel=0.03)
        assert part.std() == pytest.approx(0.1 * 2.0, rel=0.15)
        # White noise through a Gaussian of σ has an autocorrelation of exp(-d² / 4 σ²); the probe
        # has σ = 1 Å, the lumps 1.8 Å, and the speckle is some of each.
        d = part - part.mean()
        at = (d[:, 10:] * d[:, :-10]).mean() / d.var()  # 2 Å
        assert np.exp(-1.0) - 0.12 < at < np.exp(-1.0 / 1.8**2) + 0.12
    hills = [image(s, support_hills=0.3, slow_length_A=8.0) for s in range(6)]
    assert np.mean([h.mean() for h in hills]) == pytest.approx(2.5, rel=0.1)
    assert np.mean([h.std() for h in hills]) == pytest.approx(0.3 * 2.0, rel=0.25)
    assert np.abs(np.diff(hills[0], axis=1)).max() < 0.1  # nothing in them is sharp


def test_lumps_of_a_support_are_bright_only_and_as_wide_as_atoms():
    m = load_material("Pt-on-carbon")
    nothing = Specimen(np.zeros((0, 2)), np.zeros(0, dtype=int), np.zeros((0, 2)))
    c = Conditions(
        pixel_size_A=0.3, probe_sigma_A=(1.0, 1.0), counts=10.0, background=0.0, tail_fraction=0.0,
        support=2.0, support_speckle=0.0, support_hills=0.0, support_lumps=0.3,
    )  # fmt: skip
    image = expected_image(nothing, (400, 400), m, c, np.random.default_rng(0)) / 10.0 - 2.0
    # 0.4 lumps in the area of a spot, a third each 1, 1.3 and 1.7 times as wide.
    mean_height = 0.3 * np.sqrt(2 / np.pi)
    wanted = 0.4 * mean_height * np.mean([w**2 for w in (1.0, 1.3, 1.7)])
    assert image.mean() == pytest.approx(wanted, rel=0.05)
    sharp = -gaussian_laplace(image, 1.0 / 0.3)
    bright, dark = (
        part[(part == maximum_filter(part, 9)) & (part > 3 * sharp.std())].size
        for part in (sharp, -sharp)
    )
    assert bright > 3 * max(dark, 1)


@pytest.mark.parametrize("name", ["MoS2", "Au", "CdTe", "SrTiO3", "Pt-on-carbon"])
def test_labels_lie_on_the_bright_spots(name):
    m = load_material(name)
    s = m.scale
    conditions = Conditions(
        pixel_size_A=0.1 * s, probe_sigma_A=(0.4 * s, 0.4 * s) if m.form == "atoms" else (0.4, 0.4),
        counts=400.0, tail_fraction=0.0, background=0.05,
    )  # fmt: skip
    labelled = random_labelled(
        m, np.random.default_rng(4), field_A=(20 if m.has_lattice else 40) * s,
        conditions=conditions, whole=True,
    )  # fmt: skip
    assert labelled.classes == m.species
    assert len(labelled.xy) > 10
    data, cal = labelled.frame.data, labelled.frame.calibration
    r, c = np.round(cal.rc(labelled.xy)).astype(int).T
    at = data[r, c]
    assert np.mean(at) > 1.5 * data.mean()
    assert np.mean(at) > 1.3 * np.mean(data[c, r])  # rows and columns not swapped
    if name == "MoS2":  # the brighter the species, the brighter its spots
        mo, s2 = (np.median(at[labelled.species == k]) for k in range(2))
        assert mo > 1.4 * s2


def test_universal_pairs_are_nameless_and_of_one_size():
    for seed in range(6):
        a, b = universal_pair(np.random.default_rng(seed), field_A=24.0)
        assert a.classes == b.classes == ("X",)
        assert (a.species == 0).all()
        np.testing.assert_array_equal(a.xy, b.xy)
        extent = a.frame.calibration.extent_xy(a.frame.shape)
        assert min(extent) >= 24.0
        assert max(extent) < 26.0
        assert 0.065 * 0.999 <= a.frame.calibration.pixel_size_A <= 0.22 * 1.001
        assert ((a.xy >= 0) & (a.xy <= extent)).all()


def test_random_materials_have_the_bond_length_that_they_state():
    for seed in range(40):
        m = random_material(np.random.default_rng(seed))
        points, _ = lattice_sites(m, (40.0, 40.0), 0.0, 0.3)
        apart = cKDTree(points).query(points, k=2)[0][:, 1]
        assert apart.min() == pytest.approx(1.42, abs=1e-6)
        assert set(m.site_species) == {"X"}
        assert GRAPHENE.bond_length_A == pytest.approx(m.bond_length_A, rel=1e-3)
