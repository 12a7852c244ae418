"""From frames to atoms, with the networks that ship, against exact truth."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest
from scipy.spatial import cKDTree

from adatom.core import (
    GRAPHENE,
    Affine,
    AtomTable,
    Calibration,
    Frame,
    LabelledFrame,
    Lattice,
    Prediction,
)
from adatom.features.calibrate import Calibrator, Observation, fit_calibrator, match_truth
from adatom.features.evidence import site_evidence
from adatom.features.find import FindOptions, find_atoms, find_candidates
from adatom.features.locate import Candidates, locate
from adatom.features.refine import Refined, RefineOptions, refine
from adatom.features.ties import centroid_ties
from adatom.frames.calibrate import fit_lattice
from adatom.frames.specimen import Specimen, lattice_points
from adatom.frames.synthesize import Conditions, image_specimen, random_labelled
from adatom.learning import weights
from adatom.learning.ensemble import predict

NONE = np.zeros((0, 2))
SEED = 77_000_000  # far from the seeds of training and calibration


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    weights.threads(1)


@pytest.fixture(scope="module")
def ensemble():
    return weights.load_shipped("graphene")


@pytest.fixture(scope="module")
def find(ensemble):
    calibrator = Calibrator.model_validate(ensemble.card["calibration"])

    def run(frame: Frame) -> AtomTable:
        atoms = find_atoms(frame, predict(frame, ensemble), GRAPHENE, calibrator)
        return AtomTable(atoms.data.filter(pl.col("p_exists") > 0.5))

    return run


@dataclass(frozen=True)
class Seen:
    truth: LabelledFrame
    atoms: AtomTable
    located: np.ndarray
    refined: np.ndarray


@pytest.fixture(scope="module")
def seen(ensemble, find):
    """Six frames of random specimens at a high dose."""
    out = []
    for k in range(6):
        truth = random_labelled(
            GRAPHENE,
            np.random.default_rng(SEED + k),
            conditions=Conditions(pixel_size_A=0.12, counts=30.0),
        )
        candidates, refined = find_candidates(
            truth.frame, predict(truth.frame, ensemble), GRAPHENE, FindOptions()
        )
        out.append(Seen(truth, find(truth.frame), candidates.xy, refined.xy))
    return out


def inner(frame, xy, margin=0.8):
    return np.all((xy > margin) & (xy < np.subtract(frame_extent(frame), margin)), axis=1)


def frame_extent(frame):
    return frame.calibration.extent_xy(frame.shape)


def errors(truth: LabelledFrame, xy: np.ndarray) -> np.ndarray:
    match = match_truth(xy, truth.xy)
    keep = (match >= 0) & inner(truth.frame, xy)
    return xy[keep] - truth.xy[match[keep]]


def graphene_frame(
    seed, *, px=0.12, counts=30.0, field=(18.0, 18.0), missing=(), silicon=(), **conditions
):
    """A flat sheet without distortion; `missing` and `silicon` are places whose nearest site is."""
    rng = np.random.default_rng(SEED + seed)
    xy = lattice_points(GRAPHENE, field, 3.0, rng.uniform(0, 6)) + rng.uniform(-1, 1, 2)
    species = np.zeros(len(xy), dtype=np.int64)
    if silicon:
        species[cKDTree(xy).query(np.array(silicon))[1]] = 1
    gone = cKDTree(xy).query(np.array(missing))[1] if missing else []
    specimen = Specimen(np.delete(xy, gone, axis=0), np.delete(species, gone), xy[gone])
    shape = (round(field[1] / px) + 1, round(field[0] / px) + 1)
    taken = Conditions(pixel_size_A=px, counts=counts, **conditions)
    return image_specimen(specimen, shape, GRAPHENE, taken, rng)


def moved(a: AtomTable, b_xy: np.ndarray, frame: Frame, margin=0.8) -> np.ndarray:
    """Displacements from the atoms of `a` to their partners in `b_xy`; all must have one."""
    keep = inner(frame, a.xy, margin)
    distance, partner = cKDTree(b_xy).query(a.xy[keep])
    assert (distance < 0.6).all(), f"{(distance >= 0.6).sum()} of {keep.sum()} have no partner"
    return b_xy[partner] - a.xy[keep]


# ---------------------------------------------------------------- finding


def test_every_atom_is_found_and_no_other(seen):
    right = found = true = 0
    for s in seen:
        match = match_truth(s.atoms.xy, s.truth.xy)
        ours, theirs = inner(s.truth.frame, s.atoms.xy), inner(s.truth.frame, s.truth.xy)
        right += ((match >= 0) & ours).sum()
        found, true = found + ours.sum(), true + theirs.sum()
    assert true > 400
    assert 2 * right / (found + true) > 0.99


def test_silicon_is_found_and_none_is_invented(seen):
    assert sum((s.truth.species == 1).sum() for s in seen) >= 3
    for s in seen:
        true = s.truth.xy[s.truth.species == 1]
        found = s.atoms.xy[s.atoms.elements == "Si"]
        true, found = true[inner(s.truth.frame, true)], found[inner(s.truth.frame, found)]
        assert len(true) == len(found)
        if len(true):
            assert cKDTree(found).query(true)[0].max() < 0.3


def test_no_silicon_in_pure_carbon(find):
    atoms = find(graphene_frame(50, counts=10.0).frame)
    assert set(atoms.elements) == {"C"}


def test_refinement_comes_near_to_the_bound(seen):
    located = np.concatenate([errors(s.truth, s.located) for s in seen])
    refined = np.concatenate([errors(s.truth, s.refined) for s in seen])
    assert np.sqrt((refined**2).mean()) < 1.15 * np.sqrt((located**2).mean())
    # Isolated atom, Poisson noise, no background (Cramér-Rao): sigma / sqrt(detected electrons).
    electrons = 2 * np.pi * (0.42 / 0.12) ** 2 * 30.0
    bound = 0.42 / np.sqrt(electrons)
    assert np.sqrt((refined**2).mean()) < 2.6 * bound  # neighbours and background cost


def test_refinement_moves_to_the_image_where_counts_are_plenty(seen):
    """Starts that are off by 0.08 Å are drawn in: it is the image that decides."""
    truth = seen[0].truth
    start = truth.xy + np.random.default_rng(4).normal(0.0, 0.08, truth.xy.shape)
    refined = refine(truth.frame, start, RefineOptions(start_sigma_A=0.2))
    keep = inner(truth.frame, truth.xy)
    error = (refined.xy - truth.xy)[keep]
    assert np.sqrt((error**2).mean()) < 0.4 * 0.08
    assert refined.probe_sigma_A == pytest.approx(0.42, abs=0.02)
    host = keep & (truth.species == 0)
    assert np.median(refined.amplitude[host]) == pytest.approx(30.0, rel=0.15)
    heavy = keep & (truth.species == 1)
    if heavy.any():
        ratio = np.median(refined.amplitude[heavy]) / np.median(refined.amplitude[host])
        assert ratio == pytest.approx((14 / 6) ** 1.64, rel=0.15)


def test_peaks_are_read_between_the_pixels_with_votes_and_scatter():
    px, rng = Calibration(0.14), np.random.default_rng(1)
    xy = np.array([[2.03, 3.11], [4.4, 2.55], [5.0, 6.0], [7.21, 4.07]])
    moves = rng.normal(0.0, 0.05, (6, 4, 2))
    rows, cols = np.mgrid[:60, :66]

    def spot(at):
        r, c = px.rc(at[None])[0]
        return np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / (2 * (0.22 / 0.14) ** 2))

    maps = np.zeros((6, 2, 60, 66), dtype=np.float32)
    for m in range(6):
        for k in range(4):
            if (m, k) not in {(0, 2), (1, 2)}:  # two members miss the third atom
                maps[m, int(k == 3)] += spot(xy[k] + moves[m, k])
    found = locate(Prediction(maps, ("C", "Si"), px))
    order = cKDTree(found.xy).query(xy)[1]
    assert len(found.xy) == 4
    np.testing.assert_allclose(found.xy[order[[0, 1, 3]]], xy[[0, 1, 3]] + moves.mean(0)[[0, 1, 3]],
                               atol=0.01)  # fmt: skip
    np.testing.assert_allclose(found.votes[order], [1, 1, 4 / 6, 1])
    np.testing.assert_array_equal(found.class_share[order].argmax(axis=1), [0, 0, 0, 1])
    np.testing.assert_allclose(found.scatter[order[0]], np.cov(moves[:, 0].T), atol=0.15 * 0.05**2)


def test_the_images_own_error_bars_are_those_of_repeated_noise():
    """Without the prior, covariance is the Cramér-Rao bound, and the spread over draws meets it."""
    xy = np.array([[3.0, 3.1], [8.2, 3.0], [3.1, 8.0], [7.6, 8.1], [8.7, 8.1]])  # the last two near
    specimen = Specimen(xy, np.zeros(5, dtype=np.int64), NONE)
    conditions = Conditions(pixel_size_A=0.12, counts=20.0, tail_fraction=0.0, background=0.5)
    rng, places = np.random.default_rng(0), []
    for _ in range(60):
        frame = image_specimen(specimen, (95, 99), GRAPHENE, conditions, rng).frame
        refined = refine(frame, xy, RefineOptions(start_sigma_A=9.0))
        places.append(refined.xy)
    spread, said = (
        np.var(places, axis=0),
        np.stack([refined.covariance[:, k, k] for k in (0, 1)], 1),
    )
    assert np.mean(spread[:3] / said[:3]) == pytest.approx(1.0, abs=0.3)
    np.testing.assert_allclose(np.mean(places, axis=0), xy, atol=5 * np.sqrt(spread.max() / 60))
    assert (said[3:, 0] > 1.3 * said[3:, 1]).all()  # neighbours along x blur x


def test_error_bars_hold(seen):
    pulls = []
    for s in seen:
        match = match_truth(s.atoms.xy, s.truth.xy)
        keep = (match >= 0) & inner(s.truth.frame, s.atoms.xy)
        error = s.atoms.xy[keep] - s.truth.xy[match[keep]]
        variance = np.stack([s.atoms.covariance[keep, k, k] for k in range(2)], axis=1)
        pulls.append(error / np.sqrt(variance))
    pull = np.abs(np.concatenate(pulls))
    # One calibration serves all doses; at this high one it errs on the side of caution.
    assert 0.55 < (pull < 1).mean() < 0.93
    assert (pull < 2).mean() > 0.88


def test_covariances_are_covariances(seen):
    for s in seen:
        assert np.linalg.eigvalsh(s.atoms.covariance).min() > 0
        assert s.atoms.column("sigma_x_A").max() < 0.4


def test_less_dose_gives_wider_error_bars(find, seen):
    dark = find(graphene_frame(51, counts=1.0).frame)
    light = find(graphene_frame(51, counts=60.0).frame)
    assert dark.column("sigma_x_A").mean() > 1.5 * light.column("sigma_x_A").mean()


# ---------------------------------------------------------------- what must not matter


def test_atoms_rendered_where_they_were_found_are_found_there(find, seen):
    """A half-pixel or row-column mistake anywhere in the chain would walk away here."""
    shifts = []
    for k, s in enumerate(seen[:3]):
        species = (s.atoms.elements == "Si").astype(np.int64)
        again = image_specimen(
            Specimen(s.atoms.xy, species, NONE), s.truth.frame.shape, GRAPHENE,
            Conditions(pixel_size_A=0.12, counts=200.0), np.random.default_rng(k),
        )  # fmt: skip
        shifts.append(moved(s.atoms, find(again.frame).xy, again.frame, margin=1.5))
    mean_px = np.concatenate(shifts).mean(axis=0) / 0.12
    assert np.abs(mean_px).max() < 0.02


@pytest.mark.parametrize("px", [0.065, 0.1, 0.16, 0.21])
def test_no_scale_pulls_the_atoms_to_one_side(find, px):
    truth = graphene_frame(60, px=px, counts=3000 * px**2)
    error = errors(truth, find(truth.frame).xy)
    assert len(error) > 70
    assert np.abs(error.mean(axis=0)).max() < 0.012


def test_gain_and_offset_do_not_matter(find, seen):
    frame = seen[0].truth.frame
    other = find(replace(frame, data=frame.data * 41.0 + 1000.0))
    assert len(other) == len(seen[0].atoms)
    d = moved(seen[0].atoms, other.xy, frame, margin=-1.0)
    assert np.abs(d).max() < 0.005
    ratio = other.column("amplitude") / seen[0].atoms.column("amplitude")
    assert np.median(ratio) == pytest.approx(41.0, rel=0.01)


def test_a_hot_pixel_moves_no_atom(find, seen):
    frame = seen[1].truth.frame
    data = frame.data.copy()
    data[70, 81] = 1e5
    hot = find(replace(frame, data=data))
    assert abs(len(hot) - len(seen[1].atoms)) <= 1
    d = np.linalg.norm(moved(seen[1].atoms, hot.xy, frame), axis=1)
    assert np.median(d) < 0.005
    assert np.sort(d)[-4] < 0.05  # the few around it may feel it
    assert not (set(hot.elements) - set(seen[1].atoms.elements))


@pytest.mark.parametrize("name", ["90 degrees", "left-right", "up-down"])
def test_atoms_turn_with_their_frame(find, name):
    truth = graphene_frame(61, field=(18.0, 14.0), missing=[(9, 7)], silicon=[(5, 5)])
    frame, atoms = truth.frame, find(truth.frame)
    w, h = frame_extent(frame)
    x, y = atoms.xy.T
    data, there = {
        "90 degrees": (np.rot90(frame.data), (y, w - x)),
        "left-right": (frame.data[:, ::-1], (w - x, y)),
        "up-down": (frame.data[::-1], (x, h - y)),
    }[name]
    turned = find(replace(frame, data=data.copy()))
    expected = np.stack(there, axis=1)
    keep = inner(frame, atoms.xy)
    distance, partner = cKDTree(turned.xy).query(expected[keep])
    assert distance.max() < 0.4
    assert np.median(distance) < 0.05
    assert (turned.elements[partner] == atoms.elements[keep]).all()


def test_a_frame_of_a_movie_gives_what_it_gives_alone(find, seen):
    frame = seen[2].truth.frame
    find(seen[3].truth.frame)
    again = find(replace(frame, index=7))
    assert set(again.data["frame"]) == {7}
    alone = seen[2].atoms.data.drop("frame")
    assert again.data.drop("frame").equals(alone)


# ---------------------------------------------------------------- odd frames


def test_one_atom(find):
    specimen = Specimen(np.array([[4.03, 5.27]]), np.array([0]), NONE)
    conditions = Conditions(pixel_size_A=0.12, counts=50.0)
    rng = np.random.default_rng(0)
    atoms = find(image_specimen(specimen, (81, 90), GRAPHENE, conditions, rng).frame)
    near = np.linalg.norm(atoms.xy - (4.03, 5.27), axis=1)
    assert near.min() < 0.05
    assert len(atoms) <= 3


def test_noise_alone_gives_no_crystal(find):
    """The networks guess at atoms even in noise; hardly one may be called sure, and no lattice."""
    noise = np.random.default_rng(1).poisson(5.0, (150, 150)).astype(np.float32)
    atoms = find(Frame(noise, Calibration(0.12)))
    sites = 17.9**2 / GRAPHENE.site_area_A2
    assert (atoms.column("p_exists") > 0.95).sum() < 0.1 * sites
    lattice = fit_lattice(atoms.xy, GRAPHENE)
    assert lattice is None or lattice.rms_A > 0.12


def test_an_empty_patch_stays_empty(find):
    truth = graphene_frame(62, counts=20.0)
    away = np.linalg.norm(truth.xy - (9.0, 9.0), axis=1) > 4.0
    specimen = Specimen(truth.xy[away], truth.species[away], NONE)
    conditions = Conditions(pixel_size_A=0.12, counts=20.0)
    rng = np.random.default_rng(3)
    atoms = find(image_specimen(specimen, (151, 151), GRAPHENE, conditions, rng).frame)
    assert not (np.linalg.norm(atoms.xy - (9.0, 9.0), axis=1) < 3.4).any()


@pytest.mark.parametrize("shape", [(16, 16), (17, 61), (83, 41)])
def test_small_and_odd_frames(find, shape):
    truth = graphene_frame(63)
    frame = replace(truth.frame, data=truth.frame.data[: shape[0], : shape[1]].copy())
    atoms = find(frame)
    xy = truth.xy[np.all(truth.xy < frame_extent(frame), axis=1)]
    xy = xy[inner(frame, xy, 0.3)]
    if len(xy):
        assert len(atoms)
        assert (cKDTree(atoms.xy).query(xy)[0] < 0.4).mean() > 0.9


def test_sparse_counts_are_not_taken_for_hot_pixels(find):
    """A few electrons in a hundred pixels: each is signal."""
    truth = graphene_frame(64, px=0.065, counts=0.12)
    assert np.median(truth.frame.data) == 0
    atoms = find(truth.frame)
    sparse = errors(truth, atoms.xy)
    assert len(sparse) > 80
    assert np.sqrt((sparse**2).mean()) < 0.12
    # The amplitude is that of the counts that came, in counts per pixel.
    assert np.median(atoms.column("amplitude")) == pytest.approx(0.12, rel=0.3)


# ---------------------------------------------------------------- evidence, ties, calibration


@pytest.mark.parametrize("seed", range(3))
def test_an_empty_site_is_known_by_its_counts(find, seed):
    places = [(6.0, 6.0), (11.0, 8.0), (7.0, 12.5)]
    truth = graphene_frame(70 + seed, counts=5.0, missing=places)
    atoms = find(truth.frame)
    sites = np.concatenate([truth.vacancies_xy, truth.xy[inner(truth.frame, truth.xy)]])
    p = site_evidence(truth.frame, atoms, sites)
    assert len(truth.vacancies_xy) == 3
    assert p[:3].min() > 0.9
    assert p[3:].max() < 0.1


def test_an_atom_that_was_overlooked_is_no_vacancy(find):
    truth = graphene_frame(75, counts=5.0)
    atoms = find(truth.frame)
    middle = int(np.argmin(np.linalg.norm(atoms.xy - (9, 9), axis=1)))
    less = AtomTable(atoms.data.filter(pl.col("atom") != int(atoms.data["atom"][middle])))
    assert site_evidence(truth.frame, less, atoms.xy[[middle]])[0] < 0.1


def test_evidence_without_atoms_is_the_prior():
    frame = graphene_frame(76).frame
    np.testing.assert_array_equal(
        site_evidence(frame, AtomTable.empty(), np.array([[5.0, 5.0]])), [0.01]
    )


def bent_lattice():
    affine = Affine(((1.03, 0.01), (0.01, 0.98)))
    return Lattice(
        GRAPHENE, (10.0, 10.0), affine, np.full((2, 3), 5e-4), 0.4, (0.2, 0.1), 0.0, 1.0
    )  # fmt: skip


def test_ties_vanish_on_a_distorted_crystal_and_hold_its_inner_atoms():
    _, xy = bent_lattice().sites_within((20.0, 20.0))
    ties = centroid_ties(xy, np.ones(len(xy), dtype=bool), GRAPHENE)
    assert ties.shape[0] > 0.5 * len(xy)
    assert np.abs(ties @ xy).max() < 0.005
    np.testing.assert_allclose(np.asarray(ties.sum(axis=1)), 0.0, atol=1e-12)
    one = np.argmin(np.linalg.norm(xy - (10, 10), axis=1))
    pushed = xy.copy()
    pushed[one] += (0.3, 0.0)
    assert np.abs(ties @ pushed).max() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("defect", ["vacancy", "silicon"])
def test_ties_leave_defects_and_their_neighbours_free(defect):
    _, xy = bent_lattice().sites_within((20.0, 20.0))
    one = int(np.argmin(np.linalg.norm(xy - (10, 10), axis=1)))
    near = np.linalg.norm(xy - xy[one], axis=1)
    host = np.ones(len(xy), dtype=bool)
    if defect == "vacancy":
        xy, near, host = (np.delete(a, one, axis=0) for a in (xy, near, host))
    else:
        host[one] = False
    ties = centroid_ties(xy, host, GRAPHENE)
    tied_atoms = np.unique(ties.tocoo().col[ties.tocoo().data == 1.0])
    assert near[tied_atoms].min() > 2.6  # neither the defect nor a neighbour nor a second one
    assert len(tied_atoms) > 0.4 * len(xy)


def test_ties_of_few_atoms_are_none():
    for n in range(4):
        assert centroid_ties(np.zeros((n, 2)), np.ones(n, bool), GRAPHENE).shape == (0, n)


def candidates_of(peak, share):
    n = len(peak)
    return Candidates(
        np.zeros((n, 2)), np.tile(np.eye(2) * 1e-4, (n, 1, 1)), peak, np.ones(n),
        np.stack([1 - share, share], axis=1), np.full(n, 9.0),
    )  # fmt: skip


def refined_of(candidates, ref, amplitude):
    n = len(candidates.peak)
    return replace(
        ref, xy=candidates.xy, covariance=np.tile(np.eye(2) * 4e-4, (n, 1, 1)),
        amplitude=amplitude, amplitude_sd=np.full(n, 0.1),
    )  # fmt: skip


@pytest.fixture(scope="module")
def observations(ensemble):
    out = []
    for k in range(6):
        rng = np.random.default_rng(SEED + 200 + k)
        truth = random_labelled(
            GRAPHENE, rng, conditions=Conditions(pixel_size_A=0.14, counts=0.3 * 3**k)
        )
        prediction = predict(truth.frame, ensemble)
        out.append(
            Observation(*find_candidates(truth.frame, prediction, GRAPHENE, FindOptions()), truth)
        )
    return out


def test_calibrated_probabilities_are_probabilities_and_rise_with_the_evidence(
    ensemble, observations
):
    ref: Refined = observations[0].refined
    shipped = Calibrator.model_validate(ensemble.card["calibration"])
    for calibrator in (shipped, fit_calibrator(observations)):
        rising = np.linspace(0.0, 1.0, 50)
        flat = np.full(50, 0.5)
        one = candidates_of(rising, flat * 0)
        p = calibrator.p_exists(one, refined_of(one, ref, np.ones(50)))
        assert 0 <= p.min() <= p.max() <= 1
        assert (np.diff(p) >= 0).all()
        assert p[0] < 0.5 < 0.9 < p[-1]
        two = candidates_of(flat, rising)
        p = calibrator.p_foreign(two, refined_of(two, ref, np.ones(50)))
        assert 0 <= p.min() <= p.max() <= 1
        assert (np.diff(p) >= 0).all()
        assert p[0] < 0.01  # of a host's brightness: the networks alone do not make it foreign
        assert p[-1] > 10 * p[0]
        three = candidates_of(flat, flat)
        bright = calibrator.p_foreign(three, refined_of(three, ref, np.linspace(0.2, 4.0, 50)))
        assert (np.diff(bright) >= 0).all()


def test_a_covariance_is_the_weighted_sum_of_both_its_parts(observations):
    calibrator = Calibrator(exists=(0.0,), foreign=(0.0,), fisher=2.0, scatter=3.0)
    one = candidates_of(np.full(2, 0.5), np.zeros(2))
    covariance = calibrator.covariance(one, refined_of(one, observations[0].refined, np.ones(2)))
    np.testing.assert_allclose(covariance, np.tile(np.eye(2), (2, 1, 1)) * (4 * 4e-4 + 9 * 1e-4))


def test_a_fitted_calibrator_makes_error_bars_hold(observations):
    calibrator = fit_calibrator(observations)
    pulls = []
    for o in observations:
        match = match_truth(o.refined.xy, o.truth.xy)
        keep = (match >= 0) & inner(o.truth.frame, o.refined.xy)
        c = calibrator.covariance(o.candidates, o.refined)[keep]
        error = o.refined.xy[keep] - o.truth.xy[match[keep]]
        pulls.append(error / np.sqrt(np.stack([c[:, 0, 0], c[:, 1, 1]], axis=1)))
    within = (np.abs(np.concatenate(pulls)) < 1).mean()
    assert 0.58 < within < 0.8


def test_matching_is_one_to_one_and_near_first():
    truth = np.array([[0.0, 0.0], [5.0, 0.0]])
    found = np.array([[0.3, 0.0], [0.1, 0.0], [5.0, 0.49], [9.0, 9.0]])
    np.testing.assert_array_equal(match_truth(found, truth), [-1, 0, 1, -1])
    assert match_truth(np.zeros((0, 2)), truth).shape == (0,)
    np.testing.assert_array_equal(match_truth(found, np.zeros((0, 2))), [-1] * 4)
