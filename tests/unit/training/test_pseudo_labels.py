"""Pseudo-labels: what is labelled, with which doubt, and how labels change between rounds."""

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch

from adatom.analysis.frame import calibrator_of
from adatom.core import GRAPHENE, AtomTable, Calibration, Frame, LabelledFrame
from adatom.features.calibration.calibrator import match_truth
from adatom.features.find import find
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.predict import predict
from adatom.learning.train import targets
from adatom.training.adapt.pseudo_labels import (
    compare_labels,
    label_frame,
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


def test_labels_of_a_clear_frame_are_its_truth():
    truth, seen = found()
    labels = label_frame(seen, GRAPHENE)
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
    labels = label_frame(changed(seen, atom, p_element=p_element), GRAPHENE)
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
    labels = label_frame(changed(seen, atom, **values), GRAPHENE)
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
    kept, dropped = (label_frame(f, GRAPHENE) for f in (doubted, replace(doubted, refined=unclear)))
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
    _, seen = found()
    place = np.array([[8.3, 6.1]])
    labels = label_frame(replace(seen, vacancies_xy=place, p_empty=np.array([p])), GRAPHENE)
    assert len(labels.vacancies_xy) == labelled
    at = np.linalg.norm(labels.doubtful_xy - place, axis=1) < 1e-9
    assert labels.doubt[at].tolist() == ([] if doubt is None else [pytest.approx(doubt)])


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
