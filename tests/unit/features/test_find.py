"""From frames to atoms, with the networks that ship, against exact truth."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest
from scipy.spatial import cKDTree

from adatom.core import GRAPHENE, AtomTable, Calibration, Frame, LabelledFrame
from adatom.features.calibration.calibrator import Calibrator, match_truth
from adatom.features.defects.vacancy_test import site_evidence
from adatom.features.find import FoundAtoms
from adatom.features.find import find as find_all
from adatom.frames.lattice.fit import fit_lattice
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import image_specimen, random_labelled
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.predict import OVERLAP_PX, predict, predict_tiles
from sheets import NONE, SEED, errors, extent, graphene_frame, inner, moved, rms


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.fixture(scope="module")
def ensemble():
    return weights.load_shipped("graphene")


@pytest.fixture(scope="module")
def calibrator(ensemble):
    return Calibrator.model_validate(ensemble.card["calibration"])


@pytest.fixture(scope="module")
def find(ensemble, calibrator):
    def run(frame: Frame) -> AtomTable:
        atoms = find_all(frame, [predict(frame, ensemble)], GRAPHENE, calibrator).atoms
        return sure(atoms)

    return run


@pytest.fixture(scope="module")
def whole(ensemble, calibrator):
    def run(frame: Frame) -> FoundAtoms:
        return find_all(frame, predict_tiles(frame, ensemble), GRAPHENE, calibrator)

    return run


def sure(atoms: AtomTable) -> AtomTable:
    return AtomTable(atoms.data.filter(pl.col("p_exists") > 0.5))


@dataclass(frozen=True)
class ScoredFrame:
    truth: LabelledFrame
    found: FoundAtoms
    atoms: AtomTable


@pytest.fixture(scope="module")
def seen(whole):
    """Eight frames of random sheets with point defects, at a high dose."""
    out = []
    for k in range(8):
        truth = random_labelled(
            GRAPHENE,
            np.random.default_rng(SEED + k),
            conditions=Conditions(pixel_size_A=0.12, counts=30.0),
            whole=True,
        )
        found = whole(truth.frame)
        out.append(ScoredFrame(truth, found, sure(found.atoms)))
    return out


# ---------------------------------------------------------------- finding


def test_every_atom_is_found_and_no_other(seen):
    right = found = true = 0
    for s in seen:
        match = match_truth(s.atoms.xy, s.truth.xy)
        ours, theirs = inner(s.truth.frame, s.atoms.xy), inner(s.truth.frame, s.truth.xy)
        right += ((match >= 0) & ours).sum()
        found, true = found + ours.sum(), true + theirs.sum()
    assert true > 600
    assert 2 * right / (found + true) > 0.99


def test_silicon_is_found_where_it_is(seen):
    assert sum((s.truth.species == 1).sum() for s in seen) >= 6
    right = said = true = 0
    for s in seen:
        theirs = s.truth.xy[s.truth.species == 1]
        ours = s.atoms.xy[s.atoms.elements == "Si"]
        theirs, ours = theirs[inner(s.truth.frame, theirs)], ours[inner(s.truth.frame, ours)]
        right += (match_truth(ours, theirs) >= 0).sum()
        said, true = said + len(ours), true + len(theirs)
    assert 2 * right / (said + true) > 0.9


def test_no_silicon_is_invented_in_pure_carbon(find):
    atoms = 0
    for seed in range(8):
        table = find(
            graphene_frame(100 + seed, px=0.15, counts=(2.0, 10.0)[seed % 2], field=(28, 28)).frame
        )
        atoms += len(table)
        assert set(table.elements) == {"C"}
    assert atoms > 2000


def test_error_bars_hold(seen):
    pulls = []
    for s in seen:
        match = match_truth(s.atoms.xy, s.truth.xy)
        keep = (match >= 0) & inner(s.truth.frame, s.atoms.xy)
        error = s.atoms.xy[keep] - s.truth.xy[match[keep]]
        pulls.append(error / np.sqrt(np.einsum("nii->ni", s.atoms.covariance[keep])))
    pull = np.abs(np.concatenate(pulls))
    assert 0.58 < (pull < 1).mean() < 0.9
    assert (pull < 2).mean() > 0.9


def test_covariances_are_covariances(seen):
    for s in seen:
        assert np.linalg.eigvalsh(s.atoms.covariance).min() > 0
        assert s.atoms.column("sigma_x_A").max() < 0.4


def test_less_dose_gives_wider_error_bars(find):
    dark = find(graphene_frame(51, counts=1.0).frame)
    light = find(graphene_frame(51, counts=60.0).frame)
    assert dark.column("sigma_x_A").mean() > 1.5 * light.column("sigma_x_A").mean()


@pytest.mark.parametrize("seed", range(3))
def test_vacancies_are_found_and_none_is_invented(whole, seed):
    places = [(7.0, 7.0), (15.0, 9.0), (9.0, 16.5)]
    truth = graphene_frame(70 + seed, px=0.15, counts=5.0, field=(22, 22), missing=places)
    found = whole(truth.frame)
    empty = found.vacancies_xy[found.p_empty > 0.5]
    assert len(truth.vacancies_xy) == 3
    distance, which = cKDTree(truth.vacancies_xy).query(empty)
    assert sorted(which) == [0, 1, 2]
    assert distance.max() < 0.5
    # A site that is empty has no atom, and the other way round.
    atoms = sure(found.atoms)
    assert cKDTree(atoms.xy).query(truth.vacancies_xy)[0].min() > 0.7
    ours, theirs = (inner(truth.frame, xy, 0.5).sum() for xy in (atoms.xy, truth.xy))
    assert ours == pytest.approx(theirs, abs=1)


# ---------------------------------------------------------------- what must not matter


def test_atoms_rendered_where_they_were_found_are_found_there(find, seen):
    """A half-pixel or row-column mistake anywhere in the chain would walk away here."""
    shifts = []
    for k, s in enumerate(seen[:4]):
        species = (s.atoms.elements == "Si").astype(np.int64)
        again = image_specimen(
            Specimen(s.atoms.xy, species, NONE), s.truth.frame.shape, GRAPHENE,
            Conditions(pixel_size_A=0.12, counts=200.0), np.random.default_rng(k),
        )  # fmt: skip
        shifts.append(moved(s.atoms, find(again.frame).xy, again.frame, margin=2.0))
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
    w, h = extent(frame)
    x, y = atoms.xy.T
    data, there = {
        "90 degrees": (np.rot90(frame.data), (y, w - x)),
        "left-right": (frame.data[:, ::-1], (w - x, y)),
        "up-down": (frame.data[::-1], (x, h - y)),
    }[name]
    turned_frame = replace(frame, data=data.copy())
    turned = find(turned_frame)
    expected = np.stack(there, axis=1)
    keep = inner(frame, atoms.xy)
    assert abs(inner(turned_frame, turned.xy).sum() - keep.sum()) <= 1
    distance, partner = cKDTree(turned.xy).query(expected[keep])
    assert distance.max() < 0.15
    assert np.median(distance) < 0.03
    assert (turned.elements[partner] == atoms.elements[keep]).all()


def test_another_frame_or_a_hot_pixel_in_it_changes_no_atom_of_this_one(find, seen):
    frame, other = seen[2].truth.frame, seen[3].truth.frame
    alone = seen[2].atoms.data.drop("frame")
    data = other.data.copy()
    data[70, 81] = 1e6
    for between in (other, replace(other, data=data)):
        find(between)
        again = find(replace(frame, index=7))
        assert set(again.data["frame"]) == {7}
        assert again.data.drop("frame").equals(alone)


def test_shuffled_members_find_the_same(ensemble, calibrator, seen):
    frame = seen[4].truth.frame
    prediction = predict(frame, ensemble)
    order = np.random.default_rng(0).permutation(prediction.members)
    shuffled = replace(prediction, probabilities=prediction.probabilities[order])
    one, other = (find_all(frame, [p], GRAPHENE, calibrator).atoms for p in (prediction, shuffled))
    assert len(one) == len(other)
    np.testing.assert_allclose(one.xy, other.xy, atol=1e-4)
    assert (one.elements == other.elements).all()
    for name in ("p_exists", "p_element", "votes", "sigma_x_A", "sigma_y_A"):
        np.testing.assert_allclose(one.column(name), other.column(name), atol=1e-3)


def test_an_atom_that_three_members_miss_keeps_seven_votes(ensemble, calibrator):
    truth = graphene_frame(65, counts=20.0)
    prediction = predict(truth.frame, ensemble)
    middle = truth.xy[np.argmin(np.linalg.norm(truth.xy - 9.0, axis=1))]
    r, c = np.round(prediction.calibration.rc(middle[None])[0]).astype(int)
    maps = prediction.probabilities.copy()
    assert len(maps) == 10
    maps[:3, :2, r - 4 : r + 5, c - 4 : c + 5] = 0.0
    atoms = sure(
        find_all(truth.frame, [replace(prediction, probabilities=maps)], GRAPHENE, calibrator).atoms
    )
    distance, at = cKDTree(atoms.xy).query(middle)
    assert distance < 0.1
    assert atoms.column("votes")[at] == pytest.approx(0.7)
    assert atoms.elements[at] == "C"


# ---------------------------------------------------------------- odd frames


def test_a_lone_atom_is_no_crystal(whole):
    """Networks that learned sheets are unsure of it; it is the only place that they point at."""
    specimen = Specimen(np.array([[4.03, 5.27]]), np.array([0]), NONE)
    conditions = Conditions(pixel_size_A=0.12, counts=50.0)
    rng = np.random.default_rng(0)
    found = whole(image_specimen(specimen, (81, 90), GRAPHENE, conditions, rng).frame)
    far = np.linalg.norm(found.atoms.xy - (4.03, 5.27), axis=1) > 1.0
    assert not (found.atoms.column("p_exists")[far] > 0.2).any()
    assert np.linalg.norm(found.refined.xy - (4.03, 5.27), axis=1).min() < 0.05


def test_noise_alone_gives_no_crystal(find):
    """The networks may guess at atoms in noise; hardly one may be called sure, and no lattice."""
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
    xy = truth.xy[np.all(truth.xy < extent(frame), axis=1)]
    xy = xy[inner(frame, xy, 0.3)]
    if len(xy) < 3:  # one hexagon would not fit in
        assert len(atoms) <= 2
    else:
        assert (cKDTree(atoms.xy).query(xy)[0] < 0.4).mean() > 0.9


def test_sparse_counts_are_not_taken_for_hot_pixels(find):
    """A few electrons in a hundred pixels: each is signal."""
    truth = graphene_frame(64, px=0.065, counts=0.12)
    assert np.median(truth.frame.data) == 0
    atoms = find(truth.frame)
    sparse = errors(truth, atoms.xy)
    assert len(sparse) > 80
    assert rms(sparse) < 0.12
    # The amplitude is that of the counts that came, in counts per pixel.
    assert np.median(atoms.column("amplitude")) == pytest.approx(0.12, rel=0.3)


def test_tiles_find_what_the_whole_frame_shows(ensemble, calibrator):
    truth = graphene_frame(66, px=0.15, counts=10.0, field=(70, 60), silicon=[(20, 12)])
    whole = find_all(truth.frame, [predict(truth.frame, ensemble)], GRAPHENE, calibrator)
    tiles = list(predict_tiles(truth.frame, ensemble, tile_px=2 * OVERLAP_PX + 80))
    assert len(tiles) > 4
    tiled = find_all(truth.frame, iter(tiles), GRAPHENE, calibrator)
    assert len(tiled.atoms) == len(whole.atoms)
    distance, order = cKDTree(tiled.atoms.xy).query(whole.atoms.xy)
    assert distance.max() < 0.01
    assert (tiled.atoms.elements[order] == whole.atoms.elements).all()


# ---------------------------------------------------------------- evidence


@pytest.mark.parametrize("seed", range(3))
def test_an_empty_site_is_known_by_its_counts(find, seed):
    places = [(6.0, 6.0), (11.0, 8.0), (7.0, 12.5)]
    truth = graphene_frame(70 + seed, counts=5.0, missing=places)
    atoms = find(truth.frame)
    sites = np.concatenate([truth.vacancies_xy, truth.xy[inner(truth.frame, truth.xy)]])
    p = site_evidence(truth.frame, atoms, sites, np.full(len(sites), "C"))
    assert len(truth.vacancies_xy) == 3
    assert p[:3].min() > 0.9
    assert p[3:].max() < 0.1


def test_an_atom_that_was_overlooked_is_no_vacancy(find):
    truth = graphene_frame(75, counts=5.0)
    atoms = find(truth.frame)
    middle = int(np.argmin(np.linalg.norm(atoms.xy - (9, 9), axis=1)))
    less = AtomTable(atoms.data.filter(pl.col("atom") != int(atoms.data["atom"][middle])))
    assert site_evidence(truth.frame, less, atoms.xy[[middle]], np.array(["C"]))[0] < 0.1


def test_evidence_without_atoms_is_the_prior():
    frame = graphene_frame(76).frame
    np.testing.assert_array_equal(
        site_evidence(frame, AtomTable.empty(), np.array([[5.0, 5.0]]), np.array(["C"])), [0.01]
    )
