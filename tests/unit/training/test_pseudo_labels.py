"""Labels of real frames, what is cut from them, what is learned from them, and whose they are."""

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from scipy import ndimage

from adatom.analysis.frame import calibrator_of
from adatom.core import GRAPHENE, VACANCY, AtomTable, Calibration, Frame, LabelledFrame, Prediction
from adatom.features.calibration.calibrator import match_truth
from adatom.features.find import find
from adatom.features.member_scores import MemberScore, choose_members, mean_scores, score_members
from adatom.features.refinement.image_model import Probe
from adatom.features.refinement.noise import Noise
from adatom.features.refinement.refine import Optics
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_points, lattice_sites
from adatom.frames.simulate.synthesize import expected_image
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.ensemble import predict
from adatom.learning.network import STRIDE, Network, with_heads
from adatom.learning.train import TrainOptions, fit, prepare, targets
from adatom.materials.library import load_material
from adatom.training.adapt.pseudo_labels import (
    compare_labels,
    cut_out,
    label_frame,
    with_fewer_counts,
)
from sheets import NONE, graphene_frame, inner


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    use_threads(1)
    yield
    use_threads(before)


@cache
def shipped():
    return weights.load_shipped("graphene")


@cache
def shown(seed=3, counts=8.0):
    """A frame with a vacancy and a Si, and its maps."""
    truth = graphene_frame(
        seed, counts=counts, field=(16.0, 15.0), missing=((5.0, 5.0),), silicon=((11.0, 10.0),)
    )
    return truth, predict(truth.frame, shipped())


@cache
def found(seed=3):
    truth, maps = shown(seed)
    return truth, find(truth.frame, [maps], GRAPHENE, calibrator_of(shipped()))


# --- labels -----------------------------------------------------------------------------------


def test_labels_of_a_clear_frame_are_its_truth():
    truth, seen = found()
    labels = label_frame(truth.frame, seen, GRAPHENE)
    assert labels.classes == ("C", "Si")
    inside = inner(truth.frame, truth.xy)
    match = match_truth(labels.xy, truth.xy)
    own = inner(truth.frame, labels.xy)
    assert (match[own] >= 0).all(), "a label without an atom"
    assert set(np.flatnonzero(inside)) <= set(match), "an atom without a label"
    right = match >= 0
    np.testing.assert_array_equal(labels.species[right], truth.species[match[right]])
    assert (labels.species == 1).sum() == 1
    off = labels.xy[right & own] - truth.xy[match[right & own]]
    assert np.sqrt(np.mean(off**2)) < 0.05
    assert len(labels.vacancies_xy) == 1
    assert np.linalg.norm(labels.vacancies_xy[0] - truth.vacancies_xy[0]) < 0.4
    # Where all is sure, all is learned.
    assert len(labels.doubt) == len(labels.doubtful_xy)
    near = np.linalg.norm(labels.doubtful_xy[:, None] - labels.xy[own][None], axis=2) < 0.1
    assert labels.doubt[near.any(axis=1)].max(initial=0.0) < 0.2


def changed(seen, atom, **values):
    """The same, with other values in one row of the table."""
    data = seen.atoms.data
    for name, value in values.items():
        column = data[name].to_list()
        column[atom] = value
        data = data.with_columns(pl.Series(name, column, dtype=data.schema[name]))
    p = seen.p_classes.copy()
    if "p_element" in values:
        p[atom] = values["p_element"], 1.0 - values["p_element"]
    return replace(seen, atoms=AtomTable(data), p_classes=p)


@pytest.mark.parametrize(("p_element", "taught"), [(0.95, (1.0, 0.0)), (0.7, (0.7, 0.3))])
def test_an_atom_without_a_sure_name_is_taught_with_the_odds_of_its_classes(p_element, taught):
    truth, seen = found()
    atom = middle_atom(truth.frame, seen)
    labels = label_frame(truth.frame, changed(seen, atom, p_element=p_element), GRAPHENE)
    own = int(np.argmin(np.linalg.norm(labels.xy - seen.atoms.xy[atom], axis=1)))
    np.testing.assert_allclose(labels.p_species[own], taught)
    np.testing.assert_allclose(labels.p_species.sum(axis=1), 1.0)
    working = Calibration(0.1)
    target = targets(labels, (160, 170), working, 0.25)
    r, c = np.round(working.rc(labels.xy[own])).astype(int)
    np.testing.assert_allclose(target[:2, r, c], taught, atol=0.03)
    # What has no name cannot be renamed.
    other = replace(labels, species=1 - labels.species)
    open_ones = int((labels.p_species.max(axis=1) < 1).sum())
    assert compare_labels([labels], [other]).renamed == len(labels.xy) - open_ones


def middle_atom(frame, seen):
    return int(np.argmin(np.linalg.norm(seen.atoms.xy - np.array([8.0, 4.0]), axis=1)))


@pytest.mark.parametrize(
    ("values", "labelled", "doubt"),
    [
        ({"p_exists": 1.0, "p_element": 1.0}, True, 0.0),
        ({"p_exists": 0.95, "p_element": 0.9}, True, 2 * (1 - 0.95 * 0.9)),
        ({"p_exists": 1.0, "p_element": 0.7}, True, 0.0),  # it is there, whatever it is
        # The networks doubt it, and the counts show it: it stays, the sight of it counts.
        ({"p_exists": 0.4, "p_element": 0.95}, True, 2 * (1 - 0.9 * 0.95)),
        ({"p_exists": 0.2, "p_element": 1.0}, False, 1.0),
    ],
)
def test_doubt_goes_with_the_probabilities(values, labelled, doubt):
    truth, seen = found()
    atom = middle_atom(truth.frame, seen)
    place = seen.atoms.xy[atom]
    labels = label_frame(truth.frame, changed(seen, atom, **values), GRAPHENE)
    assert (np.linalg.norm(labels.xy - place, axis=1) < 1e-9).any() == labelled
    at = np.linalg.norm(labels.doubtful_xy - place, axis=1) < 1e-9
    assert at.sum() == (doubt > 0.01)
    if doubt > 0.01:
        assert labels.doubt[at][0] == pytest.approx(doubt, abs=1e-6)


def test_an_atom_that_neither_networks_nor_counts_show_is_no_label():
    truth, seen = found()
    atom = middle_atom(truth.frame, seen)
    doubted = changed(seen, atom, p_exists=0.4, p_element=0.95)
    unclear = replace(doubted.refined, amplitude_sd=doubted.refined.amplitude / 4.0)
    kept, dropped = (
        label_frame(truth.frame, f, GRAPHENE) for f in (doubted, replace(doubted, refined=unclear))
    )
    place = seen.atoms.xy[atom]
    assert np.linalg.norm(kept.xy - place, axis=1).min() < 1e-9
    assert np.linalg.norm(dropped.xy - place, axis=1).min() > 0.5
    known = seen.atoms.xy[seen.atoms.column("p_exists") > 0.9]
    for xy in known[inner(truth.frame, known)]:  # what the networks know needs no counts
        if np.linalg.norm(xy - place) > 0.1:
            assert np.linalg.norm(dropped.xy - xy, axis=1).min() < 1e-9


@pytest.mark.parametrize(
    ("p", "labelled", "doubt"), [(0.97, True, 0.06), (0.5, False, 1.0), (0.02, False, None)]
)
def test_empty_sites_are_labels_doubts_or_nothing(p, labelled, doubt):
    truth, seen = found()
    place = np.array([[8.3, 6.1]])
    labels = label_frame(
        truth.frame, replace(seen, vacancies_xy=place, p_empty=np.array([p])), GRAPHENE
    )
    assert len(labels.vacancies_xy) == labelled
    at = np.linalg.norm(labels.doubtful_xy - place, axis=1) < 1e-9
    assert labels.doubt[at].tolist() == ([] if doubt is None else [pytest.approx(doubt)])


# --- changes ----------------------------------------------------------------------------------


def labelled_at(xy, species=None, px=0.1, shape=(200, 220)):
    data = np.random.default_rng(0).poisson(5.0, shape).astype(np.float32)
    kinds = np.zeros(len(xy), dtype=np.int64) if species is None else np.asarray(species)
    return LabelledFrame(Frame(data, Calibration(px)), np.asarray(xy), kinds, ("C", "Si"), NONE)


def test_changes_of_labels_are_counted():
    xy = np.stack(np.meshgrid(np.arange(2.0, 18, 2), np.arange(2.0, 18, 2)), -1).reshape(-1, 2)
    before = labelled_at(xy)
    species = np.zeros(60, dtype=int)
    species[:3] = 1
    moved = xy[4:] + np.array([0.03, 0.04])  # 0.05 Å, half a pixel; four are gone
    after = labelled_at(np.concatenate([moved, [[3.0, 3.0], [5.0, 5.0]]]), [*species, 0, 0])
    change = compare_labels([before], [after])
    assert (change.kept, change.dropped, change.added, change.renamed) == (60, 4, 2, 3)
    assert change.drift_px == change.scatter_px == pytest.approx(0.5)
    assert change.share == pytest.approx((4 + 2 + 3) / 62)
    same = compare_labels([before, after], [before, after])
    assert (same.kept, same.dropped, same.added, same.renamed) == (64 + 62, 0, 0, 0)
    assert same.share == same.drift_px == same.scatter_px == 0.0
    both = compare_labels([before, before], [after, before])
    assert (both.kept, both.dropped, both.added, both.renamed) == (124, 4, 2, 3)


def test_labels_that_scatter_do_not_drift():
    xy = np.stack(np.meshgrid(np.arange(2.0, 18, 2), np.arange(2.0, 18, 2)), -1).reshape(-1, 2)
    turn = np.arange(len(xy)) * np.pi / 2  # displacements that cancel
    moved = xy + 0.08 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    change = compare_labels([labelled_at(xy)], [labelled_at(moved)])
    assert change.drift_px == pytest.approx(0.0, abs=1e-9)
    assert change.scatter_px == pytest.approx(0.8)


def test_labels_of_nothing_can_be_compared():
    none = labelled_at(np.zeros((0, 2)))
    some = labelled_at(np.array([[3.0, 3.0], [9.0, 9.0]]))
    assert compare_labels([none], [none]).share == 0.0
    first = compare_labels([none], [some])
    assert (first.kept, first.added, first.dropped, first.share) == (0, 2, 0, 1.0)
    last = compare_labels([some], [none])
    assert (last.kept, last.added, last.dropped) == (0, 0, 2)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        compare_labels([some], [])


# --- parts of frames --------------------------------------------------------------------------


def spotted(shape, count=40, px=0.1, seed=1):
    """One bright pixel at every label and dim ones around it, at places without a symmetry."""
    rng = np.random.default_rng(seed)
    rc = rng.choice(shape[0] * shape[1], 2 * count, replace=False)
    rc = np.stack([rc // shape[1], rc % shape[1]], axis=1)
    data = np.zeros(shape, dtype=np.float32)
    atoms, empty = rc[:count], rc[count:]
    data[tuple(atoms.T)] = 100.0 + np.arange(count)  # each its own
    data[tuple(empty.T)] = -100.0 - np.arange(count)
    cal = Calibration(px)
    return LabelledFrame(
        Frame(data, cal, index=5, source="movie"), cal.xy(atoms.astype(float)),
        (np.arange(count) % 2).astype(np.int64), ("C", "Si"), cal.xy(empty.astype(float)),
        cal.xy(atoms[:7].astype(float)), np.linspace(0.1, 1.0, 7),
    )  # fmt: skip


def read(part, xy):
    """Values of the image at positions inside it, and which those are."""
    rc = part.frame.calibration.rc(xy)
    np.testing.assert_allclose(rc, np.round(rc), atol=1e-6)
    r, c = np.round(rc).astype(int).T
    inside = (r >= 0) & (c >= 0) & (r < part.frame.shape[0]) & (c < part.frame.shape[1])
    return part.frame.data[r[inside], c[inside]], inside


def test_after_any_turn_and_flip_the_labels_lie_on_their_own_spots():
    whole = spotted((90, 120))
    seen = set()
    for seed in range(60):
        part = cut_out(whole, 5.0, np.random.default_rng(seed))
        assert part.frame.shape == (51, 51)
        assert part.frame.calibration == whole.frame.calibration
        assert (part.frame.index, part.frame.source) == (5, "movie")
        value, inside = read(part, part.xy)
        np.testing.assert_array_equal(value, 100.0 + np.flatnonzero(inside))
        assert inside.sum() == (part.frame.data > 50).sum()  # none of those that show is lost
        empty, where = read(part, part.vacancies_xy)
        np.testing.assert_array_equal(empty, -100.0 - np.flatnonzero(where))
        doubted, where = read(part, part.doubtful_xy)
        np.testing.assert_array_equal(doubted, 100.0 + np.flatnonzero(where))
        np.testing.assert_array_equal(part.species, whole.species)
        np.testing.assert_array_equal(part.doubt, whole.doubt)
        two = part.xy[:3] - part.xy[3]  # a turn keeps distances, a flip changes the hand
        first = whole.xy[:3] - whole.xy[3]
        np.testing.assert_allclose(
            np.linalg.norm(two, axis=1), np.linalg.norm(first, axis=1), atol=1e-9
        )
        linear = np.linalg.lstsq(first, two, rcond=None)[0]
        seen.add(tuple(np.round(linear).astype(int).ravel().tolist()))
    assert len(seen) == 8, "four turns, each mirrored or not"


def test_every_part_of_a_frame_is_cut_out_sooner_or_later():
    whole = spotted((60, 56))
    number = np.arange(60 * 56, dtype=np.float32).reshape(60, 56)
    whole = replace(whole, frame=Frame(number, whole.frame.calibration))
    seen = np.zeros(number.shape, dtype=bool)
    firsts = set()
    for seed in range(300):
        part = cut_out(whole, 5.0, np.random.default_rng(seed)).frame.data.astype(int)
        seen.ravel()[part.ravel()] = True
        firsts.add(int(part.min()))
        np.testing.assert_array_equal(  # a square of the frame, not an assortment
            np.sort(part.ravel()), np.sort(number[firsts_rc(part)].ravel().astype(int))
        )
    assert seen.all()
    assert len(firsts) == 10 * 6  # every place that the square can have


def firsts_rc(part):
    row, col = divmod(int(part.min()), 56)
    return np.s_[row : row + 51, col : col + 51]


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (30, 45)])
def test_a_frame_smaller_than_the_field_is_used_whole(shape):
    whole = spotted(shape, count=20)
    for seed in range(12):
        part = cut_out(whole, 5.0, np.random.default_rng(seed))
        wanted = sorted(min(n, 51) for n in shape)
        assert sorted(part.frame.shape) == wanted
        value, inside = read(part, part.xy)
        np.testing.assert_array_equal(value, 100.0 + np.flatnonzero(inside))
        if max(shape) <= 51:
            assert inside.all()


def test_labels_of_a_sheet_stay_on_its_atoms():
    truth = graphene_frame(1, counts=400.0, field=(20.0, 24.0), tail_fraction=0.0)
    for seed in range(8):
        part = cut_out(truth, 12.0, np.random.default_rng(seed))
        near = inner(part.frame, part.xy, 0.2)
        rc = part.frame.calibration.rc(part.xy[near]).T
        at = ndimage.map_coordinates(part.frame.data, rc, order=1)
        assert near.sum() > 40
        assert at.min() > 1.15 * part.frame.data.mean()


def test_a_part_without_contrast_gives_another():
    data = np.zeros((200, 200), dtype=np.float32)
    data[3, 7] = 1.0
    blank = LabelledFrame(
        Frame(data, Calibration(0.1)), np.array([[0.7, 0.3]]), np.zeros(1, dtype=int), ("C",), NONE
    )
    for seed in range(10):
        assert cut_out(blank, 5.0, np.random.default_rng(seed)).frame.data.max() == 1.0


# --- fewer counts -----------------------------------------------------------------------------


def sheet_counts(px=0.12, counts=20.0, shape=(160, 160)):
    """Expected counts of a sheet, without noise."""
    edge = (shape[1] * px, shape[0] * px)
    xy = lattice_points(GRAPHENE, edge, 3.0, 0.4)
    specimen = Specimen(xy, np.zeros(len(xy), dtype=np.int64), NONE)
    taken = Conditions(pixel_size_A=px, counts=counts, background=0.5)
    return expected_image(specimen, shape, GRAPHENE, taken, np.random.default_rng(0))


def poisson_optics(gain=1.0, px=0.12, bins=1):
    """Optics whose noise is that of counts times a gain, in pixels binned so many to an edge."""
    probe = Probe(np.array([9.0, 0.0, 9.0]), np.zeros(2))
    return Optics(probe, Noise(0.0, gain / bins**2, 1.0, 1e-9), px * bins)


@pytest.mark.parametrize("factor", [0.5, 0.2])
@pytest.mark.parametrize(("gain", "bins"), [(1.0, 1), (7.0, 1), (1.0, 2), (7.0, 3)])
def test_fewer_counts_have_the_noise_of_a_real_frame_at_that_dose(factor, gain, bins):
    expected, rng = sheet_counts(), np.random.default_rng(5)
    px = 0.12
    optics = poisson_optics(gain, px, bins)
    made, real = [], []
    for _ in range(30):
        frame = Frame((gain * rng.poisson(expected)).astype(np.float32), Calibration(px))
        made.append(with_fewer_counts(frame, optics, factor, rng).data)
        real.append(gain * rng.poisson(expected * factor) / factor)
    made, real = np.array(made), np.array(real)
    np.testing.assert_allclose(made.mean(axis=0).mean(), gain * expected.mean(), rtol=0.01)
    wanted = gain**2 * expected / factor  # variance of Poisson counts, brought to the same level
    assert (real.var(axis=0, ddof=1) / wanted).mean() == pytest.approx(1.0, abs=0.02)
    assert (made.var(axis=0, ddof=1) / wanted).mean() == pytest.approx(1.0, abs=0.03)
    # Bright places are noisier than dim ones, as the counts there have it.
    for where in (expected > np.percentile(expected, 85), expected < np.percentile(expected, 15)):
        ratio = made.var(axis=0, ddof=1)[where].mean() / real.var(axis=0, ddof=1)[where].mean()
        assert ratio == pytest.approx(1.0, abs=0.08)
    d = made - made.mean(axis=0)
    assert abs((d[..., 1:] * d[..., :-1]).mean() / d.var()) < 0.01  # white, as counts are


@pytest.mark.parametrize("px", [0.12, 0.07])
def test_noise_learned_from_a_frame_serves_for_fewer_counts(px):
    """Refinement learns the noise from one frame, binned where pixels are fine."""
    truth = graphene_frame(2, px=px, counts=240.0 * px**2 / 0.12**2, field=(16.0, 16.0))
    seen = find(truth.frame, [predict(truth.frame, shipped())], GRAPHENE, calibrator_of(shipped()))
    assert seen.refined.optics.pixel_size_A >= px
    made = with_fewer_counts(truth.frame, seen.refined.optics, 0.1, np.random.default_rng(0))
    added = made.data - truth.frame.data
    mean = ndimage.gaussian_filter(truth.frame.data.astype(float), 2.0)
    assert (added**2).sum() / (mean * 9.0).sum() == pytest.approx(1.0, abs=0.12)
    assert made.calibration == truth.frame.calibration
    assert made.index == truth.frame.index


def test_as_many_counts_leave_the_frame_alone():
    frame = Frame(sheet_counts().astype(np.float32), Calibration(0.12))
    same = with_fewer_counts(frame, poisson_optics(), 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(same.data, frame.data)


# --- what is learned --------------------------------------------------------------------------

TINY = TrainOptions(steps=2, batch=2, side_px=64, width=4)  # 64 pixels of 0.2 Å, spots of 0.25 Å


def with_doubt(places, doubt, px=0.2, shape=(80, 80)):
    labelled = labelled_at(np.array([[4.0, 4.0], [8.0, 6.0]]), px=px, shape=shape)
    return replace(labelled, doubtful_xy=np.array(places), doubt=np.array(doubt))


def test_doubt_takes_the_weight_around_its_place_and_nowhere_else():
    # x = 5 Å, y = 2 Å: row 10, column 25; three spots are 3.75 pixels, taken as 4.
    _, _, weight = prepare(with_doubt([[5.0, 2.0]], [1.0]), TINY)
    assert weight.shape == (64, 64)
    rows, cols = np.indices(weight.shape)
    near = (rows - 10) ** 2 + (cols - 25) ** 2 <= 16
    np.testing.assert_array_equal(weight, np.where(near, 0.0, 1.0))
    assert near.sum() == 49


def test_doubts_differ_in_weight_and_the_greater_one_counts():
    _, _, weight = prepare(with_doubt([[5.0, 2.0], [9.0, 9.0], [9.4, 9.0]], [0.3, 0.25, 0.8]), TINY)
    assert weight[10, 25] == pytest.approx(0.7)
    assert weight[45, 42] == pytest.approx(0.75)  # near the first alone: 0.6 Å and 1 Å away
    assert weight[45, 46] == pytest.approx(0.2)
    rows, cols = np.indices(weight.shape)
    free = np.ones(weight.shape, dtype=bool)
    for row, col in ((10, 25), (45, 45), (45, 47)):
        free &= (rows - row) ** 2 + (cols - col) ** 2 > 16
    assert (weight[free] == 1).all()
    assert (weight[~free] < 1).all()


@pytest.mark.parametrize("place", [(-0.4, 3.0), (3.0, -0.4), (12.9, 5.0), (5.0, 12.9), (0.0, 0.0)])
def test_doubt_at_a_border_reaches_in_from_outside(place):
    _, _, weight = prepare(with_doubt([place], [1.0]), TINY)
    rows, cols = np.indices(weight.shape)
    row, col = round(place[1] / 0.2), round(place[0] / 0.2)
    near = (rows - row) ** 2 + (cols - col) ** 2 <= 16
    assert near.any()
    np.testing.assert_array_equal(weight, np.where(near, 0.0, 1.0))


@pytest.mark.parametrize("place", [(-3.0, 3.0), (3.0, -9.0), (40.0, 5.0), (5.0, 40.0)])
def test_doubt_far_outside_changes_nothing(place):
    _, _, weight = prepare(with_doubt([place], [1.0]), TINY)
    assert (weight == 1).all()


@pytest.mark.parametrize("shape", [(40, 80), (80, 37), (33, 50)])
def test_nothing_is_learned_where_a_small_frame_is_mirrored(shape):
    image, wanted, weight = prepare(with_doubt(NONE, [], shape=shape), TINY)
    assert image.shape == weight.shape == wanted.shape[1:] == (64, 64)
    rows, cols = (min(n, 64) for n in shape)
    assert (weight[:rows, :cols] == 1).all()
    assert weight.sum() == rows * cols
    if rows < 64:
        np.testing.assert_array_equal(image[rows], image[rows - 1])  # mirrored
        np.testing.assert_array_equal(image[rows + 3], image[rows - 4])
    if cols < 64:
        np.testing.assert_array_equal(image[:, cols + 2], image[:, cols - 3])


def test_a_frame_at_another_scale_has_its_doubt_in_the_same_place():
    _, _, weight = prepare(with_doubt([[5.0, 2.0]], [1.0], px=0.1, shape=(140, 140)), TINY)
    rows, cols = np.indices(weight.shape)
    np.testing.assert_array_equal(
        weight, np.where((rows - 10) ** 2 + (cols - 25) ** 2 <= 16, 0.0, 1.0)
    )


def test_a_label_in_full_doubt_teaches_nothing():
    """Two losses that differ by such a label alone are alike, without doubt they are not."""

    def first_loss(doubt, *, extra):
        labelled = with_doubt([[6.0, 9.0]], [doubt])
        if extra:
            labelled = replace(
                labelled, xy=np.vstack([labelled.xy, [[6.0, 9.0]]]), species=np.zeros(3, dtype=int)
            )
        torch.manual_seed(0)
        losses = []
        fit(
            Network(3, 4, heads=2), lambda _: [labelled], 1, TINY, steps=3, learning_rate=1e-3,
            progress=lambda _, loss: losses.append(loss),
        )  # fmt: skip
        return losses[0]

    learned = first_loss(0.0, extra=True) - first_loss(0.0, extra=False)
    blind = first_loss(1.0, extra=True) - first_loss(1.0, extra=False)
    half = first_loss(0.5, extra=True) - first_loss(0.5, extra=False)
    assert learned > 1e-3
    assert abs(blind) < 0.01 * learned
    assert half == pytest.approx(learned / 2, rel=0.02)


# --- members ----------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [[1, 4, 7], [0], [9], [5, 6, 8], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]])
def test_some_members_give_the_maps_that_they_give_among_all(keep):
    truth, maps = shown()
    some = shipped().with_members(keep)
    assert some.members == len(keep)
    assert some.classes == shipped().classes
    assert some.working == shipped().working
    assert some.card == shipped().card
    np.testing.assert_array_equal(
        predict(truth.frame, some).probabilities, maps.probabilities[keep]
    )


def test_an_ensemble_needs_a_member():
    with pytest.raises(ValueError, match="expected some of members"):
        shipped().with_members([])


@pytest.mark.parametrize("keep", [[2], [2, 0], [0, 1, 2]])
def test_heads_are_taken_in_the_order_asked_for(keep):
    torch.manual_seed(3)
    network = Network(3, 8, heads=3).eval()
    with torch.no_grad():  # make the heads differ in all that they have
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1.0)
    x = torch.rand(1, 1, 4 * STRIDE, 4 * STRIDE)
    part = with_heads(network, keep)
    assert part.heads == len(keep)
    assert not part.training
    with torch.no_grad():
        torch.testing.assert_close(part(x), network(x)[:, keep], rtol=1e-5, atol=1e-5)
        before = network(x)
        for p in part.parameters():
            p.zero_()
        torch.testing.assert_close(network(x), before)  # a copy: the first is left as it is


# --- artefacts --------------------------------------------------------------------------------


def corrupted(maps, member, change):
    own = maps.probabilities.copy()
    own[member] = change(own[member])
    return replace(maps, probabilities=own)


def shifted_by_half_a_bond(own):
    return np.roll(own, 4, axis=2)  # 0.8 Å of 1.42


def with_blobs(own):
    rng, out = np.random.default_rng(2), own.copy()
    rows, cols = np.indices(own.shape[1:])
    for _ in range(25):
        r, c = rng.uniform(0, own.shape[1]), rng.uniform(0, own.shape[2])
        spot = np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / (2 * 1.25**2))
        out[0] = np.maximum(out[0], spot)
    return out


def without_a_third(own):
    truth, maps = shown()
    out = own.copy()
    rows, cols = np.indices(own.shape[1:])
    gone = np.random.default_rng(4).permutation(len(truth.xy))[: len(truth.xy) // 3]
    for r, c in maps.calibration.rc(truth.xy[gone]):
        out[:, (rows - r) ** 2 + (cols - c) ** 2 < 4.5**2] = 0.0
    return out


ARTEFACTS = {
    # What is done to one member, and which scores can tell.
    "shift": (shifted_by_half_a_bond, {"agreement"}),
    "blobs": (with_blobs, {"spacing", "coordination", "angles", "density"}),
    "third": (without_a_third, {"coordination", "density", "agreement"}),
}


@pytest.mark.parametrize(("counts", "seed"), [(8.0, 3), (8.0, 4), (1.0, 3), (0.3, 5)])
def test_clean_members_are_all_kept(counts, seed):
    truth, maps = shown(seed, counts)
    scores = score_members([truth.frame], [maps], GRAPHENE, residuals=False)
    assert len(scores) == 10
    assert choose_members(scores) == (list(range(10)), {})


@pytest.mark.parametrize("name", ARTEFACTS)
@pytest.mark.parametrize("member", [0, 6])
def test_a_member_with_artefacts_is_dropped_alone_and_for_them(name, member):
    truth, maps = shown()
    change, reasons = ARTEFACTS[name]
    spoilt = corrupted(maps, member, change)
    scores = score_members([truth.frame], [spoilt], GRAPHENE, residuals=False)
    kept, dropped = choose_members(scores)
    assert list(dropped) == [member]
    assert kept == [m for m in range(10) if m != member]
    assert dropped[member].split()[0] in reasons
    assert "where the members' median is" in dropped[member]


def test_scores_of_artefacts_are_what_was_done():
    truth, maps = shown()
    clean = score_members([truth.frame], [maps], GRAPHENE, residuals=False)[6]
    assert clean.spacing > 0.95
    assert clean.agreement > 0.99
    assert abs(clean.density) < 0.02
    assert np.isnan(clean.residual)
    of = {
        name: score_members([truth.frame], [corrupted(maps, 6, change)], GRAPHENE, residuals=False)[
            6
        ]
        for name, (change, _) in ARTEFACTS.items()
    }
    assert of["shift"].agreement < 0.05  # everywhere wrong, and a perfect lattice
    assert of["shift"].spacing == pytest.approx(clean.spacing, abs=0.02)
    assert of["shift"].coordination == pytest.approx(clean.coordination, abs=0.06)
    assert of["third"].density == pytest.approx(np.log(2 / 3), abs=0.05)
    # Precision 1 and recall 2/3.
    assert of["third"].agreement == pytest.approx(0.8, abs=0.03)
    assert of["blobs"].density > 0.05
    assert of["blobs"].spacing < clean.spacing - 0.08


def test_the_frame_itself_speaks_against_atoms_in_the_wrong_places():
    """Half a bond aside the lattice is perfect, and explains nothing of the image."""
    truth = graphene_frame(3, counts=8.0, field=(9.0, 9.0))
    maps = predict(truth.frame, shipped().with_members([0, 1, 5]))
    alone = corrupted(maps, 1, shifted_by_half_a_bond)
    scores = score_members([truth.frame], [alone], GRAPHENE)
    assert scores[1].residual > 1.3
    for m in (0, 2):
        assert scores[m].residual == pytest.approx(1.0, abs=0.1)


def test_crystals_with_few_neighbours_are_scored_by_what_they_have():
    """Dumbbells have one neighbour each, dispersed atoms none that counts."""

    def scored(material, xy, extent):
        px = 0.2 * material.scale
        shape = (round(extent / px) + 1,) * 2
        rows, cols = np.indices(shape)
        rc = Calibration(px).rc(xy)
        own = np.max([np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / 3.1) for r, c in rc], axis=0)
        maps = np.zeros((3, 1 + len(material.species), *shape), dtype=np.float32)
        maps[:, 0] = own
        frame = Frame(own.astype(np.float32), Calibration(px))
        classes = (*material.species, VACANCY)
        seen = Prediction(maps, classes, Calibration(px), spot_A=0.25 * material.scale)
        return score_members([frame], [seen], material, residuals=False)[0]

    cdte = load_material("CdTe")
    sites = lattice_sites(cdte, (30.0, 30.0), 0.0, 0.5)[0]
    score = scored(cdte, sites, 30.0)
    assert score.spacing > 0.95
    assert score.coordination > 0.95
    lone = load_material("Pt-on-carbon")
    grid = np.stack(np.meshgrid(np.arange(6.0, 60, 6), np.arange(6.0, 60, 6)), -1).reshape(-1, 2)
    score = scored(lone, grid, 66.0)
    assert score.spacing == 1.0
    assert np.isnan(score.coordination)
    assert np.isnan(score.angles)


def usual(**change):
    values = {
        "spacing": 0.98, "coordination": 0.9, "angles": 0.95, "density": 0.0, "agreement": 0.99,
        "residual": 1.0,
    }  # fmt: skip
    return MemberScore(**(values | change))


@pytest.mark.parametrize(
    ("name", "worse", "better"),
    [
        ("spacing", 0.90, 1.0),
        ("coordination", 0.80, 1.0),
        ("angles", 0.80, 1.0),
        ("agreement", 0.94, 1.0),
        ("residual", 1.2, 0.8),
    ],
)
def test_each_score_drops_for_being_worse_and_not_for_being_better(name, worse, better):
    scores = [usual() for _ in range(9)]
    kept, dropped = choose_members([*scores[:4], usual(**{name: worse}), *scores[4:]])
    assert kept == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert dropped[4].startswith(f"{name} {worse:.3g} where the members' median is ")
    assert choose_members([*scores, usual(**{name: better})])[1] == {}


@pytest.mark.parametrize("density", [0.3, -0.3])
def test_too_many_and_too_few_atoms_are_both_wrong(density):
    scores = [usual() for _ in range(9)]
    assert choose_members([*scores, usual(density=density)])[1].keys() == {9}
    assert choose_members([*scores, usual(density=density / 10)])[1] == {}


def test_at_most_half_are_dropped_the_worst_first():
    """Of five members three are spoilt, each in its own way: two go."""
    scores = [usual(coordination=0.3), usual(spacing=0.5), usual(), usual(agreement=0.4), usual()]
    kept, dropped = choose_members(scores)  # 0.60 / 0.06, 0.48 / 0.04 and 0.59 / 0.03 of the least
    assert kept == [0, 2, 4]
    assert dropped[1].startswith("spacing 0.5 ")
    assert dropped[3].startswith("agreement 0.4 ")


def test_the_worst_of_several_reasons_is_named():
    scores = [usual(), usual(), usual(), usual(), usual(spacing=0.9, residual=3.0)]
    assert choose_members(scores)[1][4].startswith("residual 3 ")


def test_members_that_differ_by_chance_are_kept():
    rng = np.random.default_rng(1)
    noisy = [
        usual(spacing=0.8 + rng.normal(0, 0.03), coordination=0.5 + rng.normal(0, 0.05))
        for _ in range(10)
    ]
    assert choose_members(noisy)[1] == {}


def test_scores_of_several_frames_are_their_means_without_what_is_unknown():
    nan = float("nan")
    parts = [[usual(angles=nan, spacing=0.9)], [usual(angles=0.7, spacing=0.7)]]
    mean = mean_scores(parts)[0]
    assert mean.angles == pytest.approx(0.7)
    assert mean.spacing == pytest.approx(0.8)
    assert np.isnan(mean_scores([[usual(angles=nan)], [usual(angles=nan)]])[0].angles)
    # What nobody knows drops nobody.
    blank = [usual(angles=nan, coordination=nan) for _ in range(5)]
    assert choose_members(blank)[1] == {}


def test_a_square_without_one_electron_gives_the_whole_frame():
    """Labels stay on their atoms when the cut is given up."""
    data = np.zeros((60, 60), dtype=np.float32)
    data[40, 50] = 7.0
    frame = Frame(data, Calibration(0.1))
    lone = LabelledFrame(frame, np.array([[5.0, 4.0]]), np.zeros(1, dtype=np.int64), ("C",), NONE)
    given_up = 0
    for seed in range(30):
        part = cut_out(lone, 2.0, np.random.default_rng(seed))
        if part.frame.shape == (60, 60):
            given_up += 1
            col, row = np.round(part.xy[0] / 0.1).astype(int)
            assert part.frame.data[row, col] == 7.0
    assert given_up > 20
