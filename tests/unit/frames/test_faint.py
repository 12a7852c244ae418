"""Frames too faint to show an atom: whether their lattice is there, and how they were taken."""

from dataclasses import replace

import numpy as np
import pytest

from adatom.core import GRAPHENE, Calibration, Frame
from adatom.frames.lattice.faint import estimate_faint, lattice_evidence
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_sites
from adatom.frames.simulate.synthesize import image_specimen
from adatom.materials.library import load_material
from sheets import NONE, graphene_frame

FAINT = 0.012  # counts at an atom's peak: half an electron an atom
SURE = 4.0


def faint(seed, **change):
    asked = {"px": 0.15, "counts": FAINT, "field": (38.0, 38.0)} | change
    return graphene_frame(seed, **asked).frame


def other_crystal(counts):
    """Squares whose first reflections lie as far out as graphene's."""
    d = 2.46 * 3**0.5 / 2
    square = replace(load_material("SrTiO3"), cell_A=((d, 0.0), (0.0, d)), bond_length_A=d / 2**0.5)
    xy, site = lattice_sites(square, (38.0, 38.0), 3.0, 0.3)
    sheet = Specimen(xy, np.zeros(len(site), dtype=np.int64), NONE)
    taken = Conditions(pixel_size_A=0.15, counts=counts)
    return image_specimen(sheet, (256, 256), GRAPHENE, taken, np.random.default_rng(0)).frame


def flat(seed, mean=0.0065):
    data = np.random.default_rng(seed).poisson(mean, (256, 256)).astype(np.float32)
    return Frame(data, Calibration(0.15))


def test_a_lattice_shows_in_the_spectrum_where_no_atom_shows():
    frames = [faint(seed) for seed in range(4)]
    assert lattice_evidence(frames, GRAPHENE) > SURE
    # Frames that are turned against each other add up.
    assert lattice_evidence(frames, GRAPHENE) > max(lattice_evidence([f], GRAPHENE) for f in frames)


def test_noise_has_no_lattice():
    evidence = [lattice_evidence([flat(4 * i + k) for k in range(4)], GRAPHENE) for i in range(20)]
    # One in a hundred reaches 2 if the chance is honest.
    assert max(evidence) < 2.5
    assert sum(e > 1.0 for e in evidence) <= 6


def test_another_crystal_is_no_graphene_though_two_of_its_reflections_fit():
    """Brighter than the faint frames by three, so that its own reflections are plain to see."""
    assert lattice_evidence([other_crystal(3 * FAINT)], GRAPHENE) < SURE


def test_at_a_wrong_scale_there_is_no_lattice():
    frames = [faint(seed).recalibrated(Calibration(0.15 * 1.2)) for seed in range(4)]
    assert lattice_evidence(frames, GRAPHENE) < SURE


def test_a_scan_stretched_by_three_per_cent_is_still_the_lattice():
    frames = [faint(seed).recalibrated(Calibration(0.15 * 1.03)) for seed in range(4)]
    assert lattice_evidence(frames, GRAPHENE) > SURE


@pytest.mark.parametrize("pixel_size", [0.001, 3.0])
def test_reflections_outside_of_the_spectrum_are_no_evidence(pixel_size):
    frame = flat(1).recalibrated(Calibration(pixel_size))
    assert lattice_evidence([frame], GRAPHENE) == 0.0


def test_dark_pixels_tell_the_dose_in_any_unit():
    frames = [faint(seed) for seed in range(6)]
    imaging = estimate_faint(frames, GRAPHENE)
    assert abs(imaging.counts.value - FAINT) < 1.5 * imaging.counts.sd
    assert imaging.counts.sd < 0.6 * imaging.counts.value
    exported = [replace(f, data=(37.0 * f.data - 5.0).astype(np.float32)) for f in frames]
    assert estimate_faint(exported, GRAPHENE) == imaging


def test_more_counts_give_a_higher_estimate():
    doses = [estimate_faint([faint(1, counts=c)], GRAPHENE).counts.value for c in (0.01, 0.02, 0.1)]
    assert doses[1] / doses[0] == pytest.approx(2.0, rel=0.25)
    assert doses[2] / doses[0] == pytest.approx(10.0, rel=0.25)


def test_a_bright_frame_gives_no_conditions_of_faint_frames():
    assert estimate_faint([faint(2), faint(1, counts=5.0)], GRAPHENE) is None
