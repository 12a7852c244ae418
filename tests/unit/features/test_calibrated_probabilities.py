"""Calibrated probabilities of atoms, vacancies and elements."""

from dataclasses import replace

import numpy as np
import pytest

from adatom.core import GRAPHENE, VACANCY, Calibration, Frame, LabelledFrame, Prediction
from adatom.features.calibration.calibrator import (
    Calibrator,
    Observation,
    fit_calibrator,
    match_truth,
)
from adatom.features.calibration.occupancy import class_features, fit_exists, state_features
from adatom.features.candidates.locate import locate
from adatom.features.find import FindOptions, find_candidates
from adatom.features.scaled_lengths import material_in_units
from adatom.features.sublattices import with_sublattice_evidence
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.predict import predict_tiles
from adatom.materials.library import load_material
from calibrating import OPTIONS, candidates_of, observe_eight_frames, refined_of
from sheets import NONE, graphene_frame, inner


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture(scope="module")
def ensemble():
    return weights.load_shipped("graphene")


@pytest.fixture(scope="module")
def observations(ensemble):
    return observe_eight_frames(ensemble)


@pytest.fixture(scope="module")
def fitted(observations):
    return fit_calibrator(observations, OPTIONS)


@pytest.fixture(scope="module")
def shipped(ensemble):
    return Calibrator.model_validate(ensemble.card["calibration"])


def p_impurity(calibrator, sites, refined):
    """Probability of any class but the host, shape (site,)."""
    return 1.0 - calibrator.p_classes(sites, refined)[:, 0]


@pytest.mark.parametrize("which", ["shipped", "fitted"])
def test_probabilities_are_probabilities_and_rise_with_the_evidence(which, request):
    calibrator: Calibrator = request.getfixturevalue(which)
    rising, ones = np.linspace(0.0, 1.0, 50), np.ones(50)
    one = candidates_of(rising)
    p = calibrator.p_states(one, refined_of(one, rising))[0]
    assert 0 <= p.min() <= p.max() <= 1
    assert p[0] < 0.2 < 0.9 < p[-1]
    assert (np.diff(p) > -0.01).all()
    two = candidates_of(ones, rising)
    p = p_impurity(calibrator, two, refined_of(two, ones))
    assert 0 <= p.min() <= p.max() <= 1
    assert (np.diff(p) >= 0).all()
    assert p[0] < 0.01
    assert p[-1] > 10 * p[0]
    three = candidates_of(ones, 0.5 * ones)
    bright = p_impurity(calibrator, three, refined_of(three, np.geomspace(0.5, 4.0, 50)))
    assert bright[-1] > bright[0]
    four = candidates_of(1 - rising, vacant=rising)
    p = calibrator.p_states(four, refined_of(four, 1 - rising))[1]
    assert p[0] < 0.01 < p[-1]
    if which == "shipped":  # eight frames have a dozen empty sites
        assert (np.diff(p) > -0.01).all()
        assert p[-1] > 0.9
    both = calibrator.p_states(four, refined_of(four, 1 - rising))
    assert max(a + b for a, b in zip(*both, strict=True)) <= 1 + 1e-12


def test_probabilities_agree_with_the_shares_that_are_true(observations, fitted):
    p, right = [], []
    for o in observations:
        keep = inner(o.truth.frame, o.candidates.xy)
        p.append(fitted.p_states(o.candidates, o.refined)[0][keep])
        right.append((match_truth(o.candidates.xy, o.truth.xy) >= 0)[keep])
    p, right = np.concatenate(p), np.concatenate(right)
    assert (~right).sum() > 0
    assert p.mean() == pytest.approx(right.mean(), abs=0.02)
    assert p[right].mean() > 0.9
    assert np.median(p[~right]) < 0.3


def test_most_atoms_of_a_clear_frame_are_almost_certain(observations, shipped):
    """A hundred atoms of a supercell are drawn: 0.998 each, and every fifth draw lacks one."""
    seen = observations[-1]  # the most counts
    keep = inner(seen.truth.frame, seen.candidates.xy, 1.5)
    right = match_truth(seen.candidates.xy, seen.truth.xy) >= 0
    p = shipped.p_states(seen.candidates, seen.refined)[0][keep & right]
    assert len(p) > 80
    assert np.median(1 - p) < 3e-4


def test_existence_is_recalibrated_to_the_share_that_is_true():
    """Where the model says one in a hundred errs and none does, the table says so."""
    rng = np.random.default_rng(3)
    x = np.stack([np.ones(4000), np.repeat([4.6, -4.6], 2000)], axis=1)
    y = np.where(np.arange(4000) < 2000, 1, (rng.random(4000) < 0.2).astype(int))
    knots, values = fit_exists([(x, y)], ((0.0, 1.0), (-30.0, 0.0)))
    assert (np.diff(values) >= 0).all()
    said = 1 / (1 + np.exp(-np.interp([4.6, -4.6], knots, values)))
    assert 1 - said[0] < 0.005
    assert said[1] == pytest.approx(0.2, abs=0.08)


def test_without_impurity_classes_all_sites_are_alike(fitted):
    only = candidates_of(np.linspace(0.2, 1.0, 9))
    only = replace(only, mass=only.mass[:, [0, 2]])
    assert np.ptp(p_impurity(fitted, only, refined_of(only, np.ones(9)))) == 0


def sites_of_classes(species, rng, *, brightness=(3.0, 2.0, 1.0)):
    """Sites whose networks take them rather for what they are, and as bright as that."""
    n, classes = len(species), len(brightness)
    weight = rng.uniform(0.2, 1.0, (n, classes)) + 1.5 * np.eye(classes)[species]
    mass = np.concatenate([weight / weight.sum(axis=1, keepdims=True), np.zeros((n, 1))], axis=1)
    one = candidates_of(np.ones(n))
    sites = replace(one, mass=mass)
    amplitude = np.asarray(brightness)[species] * rng.normal(1.0, 0.1, n)
    return sites, refined_of(sites, amplitude)


def observation_of(species, seed):
    rng = np.random.default_rng(seed)
    sites, refined = sites_of_classes(species, rng)
    frame = Frame(rng.random((64, 64), dtype=np.float32), Calibration(0.2))
    truth = LabelledFrame(frame, sites.xy + 0.01, species, ("Mo", "S2", "S"), NONE)
    return Observation(sites, refined, truth)


def test_each_of_several_classes_is_told_from_the_others():
    rng = np.random.default_rng(5)
    calibrator = fit_calibrator(
        [observation_of(rng.choice(3, 200, p=(0.3, 0.6, 0.1)), k) for k in range(4)], OPTIONS
    )
    species = np.repeat([0, 1, 2], 60)
    sites, refined = sites_of_classes(species, rng)
    p = calibrator.p_classes(sites, refined)
    assert p.shape == (180, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert (np.argmax(p, axis=1) == species).mean() > 0.9
    assert Calibrator.model_validate_json(calibrator.model_dump_json()) == calibrator


def test_a_class_that_no_sample_has_is_improbable():
    calibrator = fit_calibrator([observation_of(np.arange(200) % 2, k) for k in range(4)], OPTIONS)
    species = np.arange(100) % 2
    p = calibrator.p_classes(*sites_of_classes(species, np.random.default_rng(9)))
    assert p[:, 2].max() < 0.05
    assert (np.argmax(p, axis=1) == species).mean() > 0.9
    alone = fit_calibrator([observation_of(np.zeros(200, dtype=int), 1)], OPTIONS)
    p = alone.p_classes(*sites_of_classes(species, np.random.default_rng(9)))
    assert np.argmax(p, axis=1).max() == 0


def test_one_impurity_class_is_a_logistic_model(shipped):
    sites = candidates_of(np.ones(20), np.linspace(0.0, 1.0, 20))
    refined = refined_of(sites, np.linspace(0.5, 4.0, 20))
    (row,) = shipped.foreign
    logits = class_features(sites, refined) @ np.array(row)
    p = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(p_impurity(shipped, sites, refined), p, atol=1e-12)


def test_an_atom_is_compared_with_its_own_class():
    """The dim class of a crystal of two is no less there than the bright one."""
    species = np.repeat([0, 1], 20)
    sites = candidates_of(np.ones(40), species)
    both = state_features(sites, refined_of(sites, np.where(species == 0, 5.0, 1.0)))
    same = state_features(sites, refined_of(sites, 1.0))
    own = slice(9)  # what follows is of the whole frame
    np.testing.assert_allclose(both[20:, own], same[20:, own])
    few = candidates_of(np.ones(40), np.arange(40) < 5)
    bright = refined_of(few, np.where(np.arange(40) < 5, 4.0, 1.0))
    np.testing.assert_allclose(state_features(few, bright)[5:, own], same[5:, own], atol=1e-9)


def counts_of(amplitude, *, sd=0.1):
    """What the counts say of each site, and how few they are."""
    sites = candidates_of(np.ones(len(amplitude)))
    refined = replace(refined_of(sites, amplitude), amplitude_sd=np.full(len(amplitude), sd))
    features = state_features(sites, refined)
    return features[:, 7], features[0, 9]


def test_a_dim_atom_says_more_where_the_others_are_alike():
    """Of equal error bars: what counts is how much the frame's own atoms scatter."""
    rng, dim = np.random.default_rng(4), np.append(np.ones(200), 0.25)
    alike = counts_of(dim * np.append(rng.normal(1.0, 0.1, 200), 1.0))[0]
    unlike = counts_of(dim * np.append(np.abs(rng.normal(1.0, 0.4, 200)), 1.0))[0]
    assert alike[-1] > 2.5 * unlike[-1] > 0
    # No atom and less than none are as good, and none is infinitely sure.
    none = counts_of(np.append(np.ones(200), [-3.0, 0.0]))[0]
    assert none[-2] == none[-1] == pytest.approx(5.0, abs=0.1)
    assert none[:-2] == pytest.approx(-5.0, abs=0.1)


def test_at_few_counts_networks_and_counts_have_their_own_weights():
    amplitude = np.array([1.0, 0.9, 1.1, 1.0, 0.2, 1.0, 1.05, 0.95, 1.0, 1.0])
    c = candidates_of(np.linspace(0.2, 0.9, 10), vacant=0.3)
    r = refined_of(c, amplitude)
    for relative, few in ((0.05, 0.0), (0.5, 1.0)):
        x = state_features(c, replace(r, amplitude_sd=np.full(10, relative)))
        np.testing.assert_allclose(x[:, -3], few, atol=1e-6)
        np.testing.assert_allclose(x[:, -2], few * x[:, 7], atol=1e-6)
        np.testing.assert_allclose(x[:, -1], few * x[:, 3], atol=1e-6)


def test_few_counts_are_known_by_the_errors_of_amplitudes():
    few = [counts_of(np.ones(50), sd=sd)[1] for sd in (0.01, 0.05, 0.2, 0.5, 5.0)]
    np.testing.assert_allclose(few, [0.0, 0.0, np.log10(4.0), 1.0, 1.2])


def test_vacancies_are_found_at_one_count_and_doubted_at_a_third(ensemble, shipped):
    """Expected and true numbers agree; at one count hardly one of them is missed."""
    expected, true, found = {}, {}, {}
    for dose in (0.3, 1.0):
        for k in range(6):
            gone = ((5.0, 5.0), (13.0, 6.0), (8.0, 13.0))
            truth = graphene_frame(400 + k, px=0.13, counts=dose, missing=gone)
            tiles = predict_tiles(truth.frame, ensemble)
            seen = find_candidates(truth.frame, tiles, GRAPHENE, FindOptions())
            p = shipped.p_states(*seen)[1]
            right = match_truth(seen[0].xy, truth.vacancies_xy) >= 0
            for counts, value in (
                (expected, p.sum()), (true, len(truth.vacancies_xy)), (found, p[right].sum()),
            ):  # fmt: skip
                counts[dose] = counts.get(dose, 0.0) + value
        assert 0.7 * true[dose] < expected[dose] < 1.4 * true[dose]
    assert found[1.0] > 0.9 * true[1.0]
    assert 0.4 * true[0.3] < found[0.3] < 0.9 * true[0.3]


def test_sites_of_a_coarser_map_are_found_at_its_own_scale():
    """All lengths twice as long: the same sites, the same masses, positions twice as far."""
    rng = np.random.default_rng(2)
    maps = np.zeros((2, 2, 60, 60), dtype=np.float32)
    r, c = np.indices((60, 60))
    for at in (
        8.0 + 7.1 * np.stack(np.divmod(np.arange(36), 6), axis=1) + rng.normal(0, 0.5, (36, 2))
    ):
        maps[:, 0] += np.exp(-((r - at[0]) ** 2 + (c - at[1]) ** 2) / (2 * 1.25**2))
    maps[1] *= 0.9
    fine = locate(Prediction(maps, ("C", VACANCY), Calibration(0.2)))
    coarse = locate(Prediction(maps, ("C", VACANCY), Calibration(0.4), spot_A=0.5))
    assert len(fine.xy) == 36
    np.testing.assert_allclose(coarse.xy, 2 * fine.xy)
    np.testing.assert_allclose(coarse.mass, fine.mass)
    np.testing.assert_allclose(coarse.scatter, 4 * fine.scatter)


def test_the_lattice_order_names_columns_that_the_networks_confuse(fitted):
    material = load_material("CdTe")
    alike = material_in_units(material, material.scale)
    k = np.arange(-8, 9)
    cells = np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1).reshape(-1, 2)
    xy = np.concatenate([(cells + b) @ alike.cell() for b in alike.basis])
    te = np.repeat([1.0, 0.0], len(cells))  # the networks' evidence is weak and noisy
    foreign = np.clip(
        0.45 - 0.1 * te + np.random.default_rng(0).normal(0, 0.1, len(te)), 0.05, 0.95
    )
    sites = replace(candidates_of(np.full(len(xy), 0.95), foreign), xy=xy)
    refined = refined_of(sites, np.ones(len(xy)))
    right = []
    for order in ((1.0, 0.0), (0.5, 20.0)):
        p = with_sublattice_evidence(sites.xy, fitted.p_classes(sites, refined), alike, order)
        element, p = np.array(material.species)[p.argmax(axis=1)], p.max(axis=1)
        right.append(np.mean((element == "Te") == (te > 0)))
        assert 0 <= p.min() <= p.max() <= 1
    assert right[1] > max(0.9, right[0] + 0.1)


@pytest.mark.parametrize(
    ("name", "hosts"), [("graphene", (0,)), ("CdTe", (0, 1)), ("MoS2", (0, 1, 2)), ("h-BN", (0, 1))]
)
def test_a_calibration_knows_what_its_crystal_is_made_of(name, hosts, observations):
    material = load_material(name)
    assert fit_calibrator(observations[:2], OPTIONS, material).hosts == hosts
