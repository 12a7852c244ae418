"""Reconstructions are told by the likelihood of the counts, and their atoms stay where they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from adatom.analysis.frame import analyse_frame
from adatom.analysis.naming import name_defects
from adatom.core import GRAPHENE
from adatom.features.defects import hypotheses
from adatom.features.defects.shapes import graphene_shapes
from adatom.features.refinement.image_model import Probe
from adatom.features.refinement.local_fit import Ascent, ChosenAtoms
from adatom.features.refinement.local_pixels import LocalPixels
from adatom.features.refinement.noise import Noise
from adatom.features.refinement.optics import Optics
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_points
from adatom.frames.simulate.synthesize import image_specimen
from adatom.learning.weights import load_shipped

FIELD_A, PIXEL_A = 26.0, 0.15
STONE_WALES, DIVACANCY, TURNED_DIVACANCY = 0, 1, 2


@pytest.fixture(scope="module")
def ensemble():
    return load_shipped("graphene")


def sheet_with(shape, seed):
    """A sheet with one shape near its middle whose atoms are all off by 0.03 Å; and its place."""
    rng = np.random.default_rng([5_300, seed])
    xy = lattice_points(GRAPHENE, (FIELD_A, FIELD_A), 3.0, rng.uniform(0, 6))
    xy = xy + rng.uniform(-1, 1, 2)
    first = int(np.argmin(np.hypot(*(xy - FIELD_A / 2).T)))
    second = int(np.argsort(np.hypot(*(xy - xy[first]).T))[1 + seed % 3])
    along = (xy[second] - xy[first]) / np.linalg.norm(xy[second] - xy[first])
    axes = np.array([along, [-along[1], along[0]]])
    centre = (xy[first] + xy[second]) / 2
    if shape.origin == "ring":
        centre = 2 * xy[first] - xy[second]
    far = cKDTree(centre + shape.sites @ axes).query(xy)[0] > 0.3
    moved = np.concatenate([xy[far], centre + shape.xy @ axes])
    return moved + rng.normal(0.0, 0.03, moved.shape), centre, rng


def image_of(xy, counts, rng):
    shape = (round(FIELD_A / PIXEL_A) + 1,) * 2
    specimen = Specimen(xy, np.zeros(len(xy), dtype=np.int64), np.zeros((0, 2)))
    conditions = Conditions(pixel_size_A=PIXEL_A, counts=counts)
    return image_specimen(specimen, shape, GRAPHENE, conditions, rng)


@pytest.mark.parametrize(
    ("number", "counts"), [(STONE_WALES, 1.0), (DIVACANCY, 2.0), (TURNED_DIVACANCY, 2.0)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_reconstruction_is_named_and_its_atoms_are_where_they_are(ensemble, number, counts, seed):
    shape = graphene_shapes()[number]
    xy, centre, rng = sheet_with(shape, seed)
    truth = image_of(xy, counts, rng)
    found = analyse_frame(truth.frame, ensemble, GRAPHENE)
    assert found.defects.kinds == [str(shape.kind)]
    assert np.hypot(*(found.defects.xy[0] - centre)) < 0.3
    near = np.hypot(*(truth.xy - centre).T) < 4.0
    likely = found.atoms.xy[found.atoms.is_likely]
    # As many atoms as there are, each within 0.3 Å of its own.
    distance, own = cKDTree(likely).query(truth.xy[near])
    assert (np.hypot(*(likely - centre).T) < 4.0).sum() == near.sum()
    assert len(set(own)) == near.sum()
    assert distance.max() < 0.3
    named = name_defects(truth.frame, found.atoms, found.lattice, GRAPHENE)
    assert named.data.equals(found.defects.data)


def test_a_shape_is_not_added_to_the_misfit_that_it_made_itself(ensemble):
    """Atoms at the rim of what is fitted show their own displacement, and not more."""
    shape = graphene_shapes()[DIVACANCY]
    site = shape.sites[cKDTree(shape.sites).query(shape.xy)[1]]
    away = np.hypot(*shape.xy.T)
    rim = (away > 3.4) & (away < 4.4)
    along = whole = 0.0
    for seed in range(4):
        xy, centre, rng = sheet_with(shape, 20 + seed)
        placed = xy[-len(shape.xy) :] - centre
        axes = np.linalg.lstsq(shape.xy, placed, rcond=None)[0]
        found = analyse_frame(image_of(xy, 1.0, rng).frame, ensemble, GRAPHENE)
        assert found.defects.kinds[0].startswith("V")
        likely = found.atoms.xy[found.atoms.is_likely]
        own = likely[cKDTree(likely).query(centre + placed[rim])[1]]
        moved = (shape.xy - site)[rim] @ axes
        along += float(((own - centre - site[rim] @ axes) * moved).sum())
        whole += float((moved**2).sum())
    assert 0.85 < along / whole < 1.15


def test_hypotheses_that_are_given_up_would_have_lost(ensemble, monkeypatch):
    xy, _, rng = sheet_with(graphene_shapes()[DIVACANCY], 2)
    frame = image_of(xy, 1.0, rng).frame
    short = analyse_frame(frame, ensemble, GRAPHENE).defects
    monkeypatch.setattr(hypotheses, "_BEHIND", (np.inf, np.inf))
    whole = analyse_frame(frame, ensemble, GRAPHENE).defects
    assert short.kinds == whole.kinds == ["V2"]
    p = [table.data["p"].to_numpy() for table in (short, whole)]
    np.testing.assert_allclose(*p, atol=0.001)
    np.testing.assert_allclose(short.xy, whole.xy, atol=0.001)


@pytest.mark.parametrize("counts", [0.3, 1.0, 20.0])
def test_a_perfect_sheet_has_no_reconstruction(ensemble, counts):
    rng = np.random.default_rng([5_301, round(10 * counts)])
    xy = lattice_points(GRAPHENE, (FIELD_A, FIELD_A), 3.0, rng.uniform(0, 6))
    truth = image_of(xy + rng.normal(0.0, 0.03, xy.shape), counts, rng)
    found = analyse_frame(truth.frame, ensemble, GRAPHENE)
    assert len(found.defects) == 0
    assert found.atoms.weighed is None


@pytest.mark.parametrize(("disorder_A", "counts"), [(0.1, 1.0), (0.1, 5.0), (0.0, 5.0)])
def test_error_bars_hold_on_a_disordered_sheet(ensemble, disorder_A, counts):
    within, errors = [], []
    for seed in range(2):
        rng = np.random.default_rng([5_302, seed, round(100 * disorder_A), round(counts)])
        xy = lattice_points(GRAPHENE, (FIELD_A, FIELD_A), 3.0, rng.uniform(0, 6))
        truth = image_of(xy + rng.normal(0.0, disorder_A, xy.shape), counts, rng)
        atoms = analyse_frame(truth.frame, ensemble, GRAPHENE).atoms
        inner = ((truth.xy > 1.0) & (truth.xy < FIELD_A - 1.0)).all(axis=1)
        distance, own = cKDTree(atoms.xy).query(truth.xy[inner])
        good = distance < 0.6
        error = (atoms.xy[own] - truth.xy[inner])[good]
        sd = np.sqrt(np.einsum("nii->ni", atoms.covariance[own]))[good]
        within.append(np.abs(error) < sd)
        errors.append(error)
    assert 0.55 < np.concatenate(within).mean() < 0.8  # half of it without the tie by region
    assert np.sqrt((np.concatenate(errors) ** 2).mean()) < 0.095


def test_equally_probable_widths_of_a_prior_all_count():
    probe = Probe(np.array([9.0, 0.0, 9.0]), np.zeros(2))
    rc = np.argwhere(np.ones((25, 25))).astype(float)
    data = np.random.default_rng(3).poisson(1.0 + 4.0 * probe.value_at(rc - [12.5, 12.0]))
    pixels = LocalPixels(
        rc, data.astype(float), Optics(probe, Noise(1.0, 0.0, 1.0, 1.0), 0.15), 1.0, 1.0, 1.0
    )
    one = np.ones(1)
    atoms = ChosenAtoms(np.array([[12.0, 12.0]]), 0.3 * one, 4.0 * one, one)
    alone = [Ascent(pixels, atoms, (s,)).finish() for s in (0.5, 2.0)]
    both = Ascent(pixels, atoms, (0.5, 2.0)).finish()
    evidence = np.exp([fit.log_evidence - both.log_evidence for fit in alone])
    assert evidence.mean() == pytest.approx(1.0, rel=0.05)
    variance = [float(np.trace(fit.covariance[0])) for fit in (*alone, both)]
    assert variance[0] < variance[2]
    assert alone[0].rc[0, 0] < both.rc[0, 0] < alone[1].rc[0, 0]
