"""The image against the columns: invented and missed columns, and contamination."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial import Voronoi, cKDTree

from adatom.analysis.flags import FrameFlags
from adatom.campaign.warn import image_warnings
from adatom.core import GRAPHENE, Frame
from adatom.features.candidates.beyond_border import atoms_beyond_border
from adatom.features.candidates.locate import Candidates
from adatom.features.image_check import check_image
from adatom.features.refinement.refine import refine
from adatom.features.scaled_lengths import frame_in_units, material_in_units
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_sites
from adatom.frames.simulate.synthesize import image_specimen
from adatom.materials.library import load_material
from sheets import NONE, graphene_frame, inner

SURE = 0.97
WS2 = load_material("WS2")


def checked(frame, xy, kind, material):
    """Check columns at given positions that the networks are sure of, over the whole frame."""
    scale, n = material.scale, len(xy)
    mass = np.zeros((n, len(material.species) + 1))
    mass[np.arange(n), kind] = SURE
    scaled = frame_in_units(frame, scale)
    far = scaled.calibration.extent_xy(scaled.shape)
    candidates = Candidates(
        xy / scale, np.tile(np.eye(2) * 1e-4, (n, 1, 1)), np.full(n, 0.9), mass, np.zeros(n),
        np.ones(n), np.full(n, 5.0),
    )  # fmt: skip
    unscaled = material_in_units(material, scale)
    fit = refine(
        scaled,
        candidates.xy,
        None,
        atoms_beyond_border(candidates.xy, scaled.border_distance_A, unscaled),
    )
    boxes = np.array([(0.0, 0.0, *far)])
    p0 = np.full(n, SURE)
    return check_image(scaled, candidates, fit, p0, unscaled, boxes)


@pytest.fixture(scope="module")
def sheet():
    """WS2: the labelled frame, the species of its columns, and the centres of its hexagons."""
    rng = np.random.default_rng(0)
    xy, site = lattice_sites(WS2, (26.0, 26.0), 3.0, 0.3)
    label = np.array(WS2.site_species)[site]
    species = np.array([WS2.species.index(each) for each in label])
    conditions = Conditions(pixel_size_A=0.15, counts=20.0)
    truth = image_specimen(Specimen(xy, species, NONE), (174, 174), WS2, conditions, rng)
    corner = Voronoi(xy).vertices
    distance = cKDTree(xy).query(corner)[0]
    hollow = corner[(distance > 1.7) & (distance < 2.0) & inner(truth.frame, corner, 0.0)]
    first = [min(near) for near in cKDTree(hollow).query_ball_point(hollow, 0.5)]  # found twice
    return truth, hollow[np.unique(first)]


def test_true_columns_keep_their_probability(sheet):
    truth, _ = sheet
    p, check = checked(truth.frame, truth.xy, truth.species, WS2)
    assert np.median(p) == pytest.approx(SURE)
    assert (p > 0.5).mean() > 0.99
    assert check.unsupported.sum() <= 1
    assert check.missed.sum() == 0


def test_columns_invented_in_hollows_are_not_sure(sheet):
    truth, hollow = sheet
    xy = np.concatenate([truth.xy, hollow])
    kind = np.concatenate([truth.species, np.full(len(hollow), WS2.species.index("S2"))])
    p, check = checked(truth.frame, xy, kind, WS2)
    invented = p[len(truth.xy) :]
    assert np.median(invented) < 0.9
    assert np.median(p[: len(truth.xy)]) > 0.95
    assert check.unsupported.sum() > 0.2 * len(hollow)


def test_columns_that_are_not_in_the_table_are_missed(sheet):
    truth, _ = sheet
    tungsten = np.flatnonzero(truth.species == 0)
    inside = tungsten[inner(truth.frame, truth.xy[tungsten], 3.0)]
    kept = np.delete(np.arange(len(truth.xy)), inside[[3, 20]])
    _, check = checked(truth.frame, truth.xy[kept], truth.species[kept], WS2)
    assert check.missed.sum() >= 2


def test_dim_columns_in_all_hollows_speak_though_the_fit_hides_them(sheet):
    truth, hollow = sheet
    xy = np.concatenate([truth.xy, hollow])
    kind = np.concatenate([truth.species, np.full(len(hollow), WS2.species.index("S2"))])
    conditions = Conditions(pixel_size_A=0.15, counts=20.0)
    rng = np.random.default_rng(3)
    filled = image_specimen(Specimen(xy, kind, NONE), (174, 174), WS2, conditions, rng)
    _, check = checked(filled.frame, truth.xy, truth.species, WS2)
    inside = inner(truth.frame, hollow, 3.0).sum()
    assert 0.3 * inside < check.missed.sum() <= len(hollow)
    assert check.hidden.brightness > 5 * check.hidden.error
    _, check = checked(truth.frame, truth.xy, truth.species, WS2)
    assert abs(check.hidden.brightness) < 0.03
    assert check.missed.sum() == 0


def test_what_lies_on_contamination_is_not_sure():
    truth = graphene_frame(40, px=0.15, field=(26.0, 26.0), counts=10.0)
    rng = np.random.default_rng(1)
    rows, cols = np.indices(truth.frame.shape) * 0.15
    dirt = gaussian_filter(rng.normal(size=truth.frame.shape), 3.0)
    dirt = 12.0 * (1.0 + dirt / dirt.std() / 3.0) * (np.hypot(rows - 13.0, cols - 13.0) < 5.0)
    data = truth.frame.data + rng.poisson(np.maximum(dirt, 0.0))
    frame = Frame(data.astype(np.float32), truth.frame.calibration)
    # Atoms beside the true ones, as the networks may see them on dirt.
    on = np.linalg.norm(truth.xy - 13.0, axis=1) < 3.5
    beside = truth.xy[on][::3] + (0.75, 0.1)
    xy = np.concatenate([truth.xy, beside])
    p, check = checked(frame, xy, np.zeros(len(xy), dtype=int), GRAPHENE)
    clean = np.linalg.norm(xy - 13.0, axis=1) > 8.0
    assert p[clean].min() > 0.95
    assert np.median(p[len(truth.xy) :]) < 0.8
    assert 0.03 < check.covered[0] < 0.25
    p, check = checked(truth.frame, truth.xy, np.zeros(len(truth.xy), dtype=int), GRAPHENE)
    assert check.covered[0] == 0
    assert check.missed.sum() == check.unsupported.sum() == 0
    assert np.median(p) == pytest.approx(SURE)


def test_warnings_name_frame_place_and_what_to_do():
    plain = FrameFlags(
        probe_sigma_A=0.4, probe_ellipticity=1.0, jitter_A=0.0, noise_correlation=1.0,
        reduced_chi2=1.0, ood_score=None, share_farther=None, share_sure=1.0, unlike_regions=(),
    )  # fmt: skip
    assert image_warnings({0: plain}) == ()
    box = (0.0, 10.0, 11.0, 21.0)
    dirty = plain.model_copy(
        update={"covered_regions": ((*box, 0.4),), "missed_regions": ((*box, 3.0),)}
    )
    covered, missed = image_warnings({0: plain, 1: dirty})
    assert covered.startswith("contamination covers parts of 1 of 2 frames (frame 1: 1")
    assert "x 0 to 11, y 10 to 21 Å" in covered
    assert "not in the table" in missed
    assert "1 with about 3 columns or more" in missed
    filled = dirty.model_copy(update={"covered_regions": (), "hollows": (0.08, 0.01, 235)})
    _, hollows = image_warnings({0: filled})
    assert "235 of them have 0.08 ± 0.01 of a bright column's brightness" in hollows
