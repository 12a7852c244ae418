"""Dim columns beside bright ones: found by their own brightness, and not invented."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from adatom.analysis.frame import analyse_frame
from adatom.bench.alloys import alloys
from adatom.features.dim_columns import p_by_brightness
from adatom.features.refinement.binning import bin_frame
from adatom.features.refinement.fit import Fit
from adatom.features.refinement.optics import RefineOptions
from adatom.features.refinement.probe_and_noise import settle_probe
from adatom.features.refinement.refine import refine
from adatom.features.residual import hollows
from adatom.features.scaled_lengths import frame_in_units
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_sites
from adatom.frames.simulate.synthesize import image_specimen
from adatom.learning.weights import load_shipped
from adatom.materials.library import load_material
from sheets import NONE, inner

WS2 = load_material("WS2")
TWO_H, THREE_R = (replace(m, species=WS2.species) for m in WS2.arrangements()[1:])
BOND = WS2.bond_length_A / WS2.scale


def stacked(material, counts):
    """A frame of two layers without defects."""
    xy, site = lattice_sites(material, (30.0, 30.0), 3.0, 0.3)
    species = np.array([WS2.species.index(s) for s in material.site_species])[site]
    conditions = Conditions(pixel_size_A=0.19, probe_sigma_A=(0.55, 0.55), counts=counts)
    rng = np.random.default_rng(4)
    return image_specimen(Specimen(xy, species, NONE), (158, 158), material, conditions, rng)


def doubted(truth):
    """Probabilities by brightness of the hollows of the bright columns, which stand for sure."""
    frame = frame_in_units(truth.frame, WS2.scale)
    bright = truth.xy[truth.species != WS2.species.index("S2")] / WS2.scale
    binned = bin_frame(frame)
    places = hollows(binned, bright, BOND)
    xy = np.concatenate([bright, places])
    fit = refine(frame, xy, settle=True)
    p = np.concatenate([np.full(len(bright), 0.99), np.full(len(places), 0.3)])
    typical = float(np.median(fit.amplitude[: len(bright)]))
    found = p_by_brightness(binned, fit, p, frame.border_distance_A(xy), typical, BOND)
    within = frame.border_distance_A(places) > 2.0
    return places[within] * WS2.scale, found[len(bright) :][within]


@pytest.mark.parametrize("counts", [5.0, 20.0])
def test_empty_hollows_get_no_column(counts):
    places, p = doubted(stacked(TWO_H, counts))
    assert len(places) > 30
    assert (p > 0.5).mean() < 0.03


def test_the_analysis_finds_them_with_their_element():
    """Two layers of WS2 with other elements and vacancies, as of `adatom bench alloys`."""
    (truth,) = alloys(WS2, (0.35, 0.7))
    atoms = analyse_frame(truth.frame, load_shipped("WS2"), WS2).atoms
    is_sulphur = truth.species == WS2.species.index("S2")
    sulphur = truth.xy[is_sulphur & inner(truth.frame, truth.xy, 3)]
    assert len(sulphur) > 100
    likely = np.flatnonzero(atoms.is_likely)
    away, nearest = cKDTree(atoms.xy[likely]).query(sulphur)
    assert (away < 0.6).mean() > 0.85
    elements = atoms.elements[likely[nearest[away < 0.6]]]
    assert np.isin(elements, ("S2", "S")).mean() > 0.9


def test_the_probe_settles_where_the_image_is_explained_better():
    truth = stacked(THREE_R, 20.0)
    frame = frame_in_units(truth.frame, WS2.scale)
    binned = bin_frame(frame)
    optics = refine(frame, truth.xy / WS2.scale).optics
    rc = binned.rc(truth.xy / WS2.scale)
    fit = Fit(binned.data, rc, np.zeros(len(rc), dtype=bool), optics, RefineOptions())
    fit.run(4)
    before = fit.objective()
    settle_probe(fit)
    assert fit.objective() < before
