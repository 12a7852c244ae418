"""Probes against tables and theory: wavelength, transfer function, aberrations."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from adatom.core import GRAPHENE
from adatom.features.refinement.refine import refine
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.probe import Optics, gaussian_transfer, optics_transfer, wavelength_A
from adatom.frames.simulate.specimen import Specimen
from adatom.frames.simulate.synthesize import expected_image
from sheets import NONE, errors, graphene_frame, rms

PX = 0.05
SIZE = 256
LONE = Specimen(np.array([[4.0, 4.0]]), np.zeros(1, dtype=np.int64), NONE)
FREQUENCIES = (np.fft.rfftfreq(SIZE, PX)[None, :], np.fft.fftfreq(SIZE, PX)[:, None])


def probe_of(optics: Optics) -> np.ndarray:
    """The probe (row, col) about the middle of a box of 12.8 Å."""
    image = np.fft.irfft2(optics_transfer(FREQUENCIES, optics), s=(SIZE, SIZE))
    return np.fft.fftshift(image)


def widths(image):
    """Second moments about the centre of mass along x, y, and xy, within 3 Å; and that centre."""
    y, x = (np.mgrid[:SIZE, :SIZE] - SIZE // 2) * PX
    w = np.where(np.hypot(x, y) < 3.0, image, 0.0)
    w = w / w.sum()
    cx, cy = (w * x).sum(), (w * y).sum()
    xx, yy = (w * (x - cx) ** 2).sum(), (w * (y - cy) ** 2).sum()
    return xx, yy, (w * (x - cx) * (y - cy)).sum(), (cx, cy)


@pytest.mark.parametrize(
    ("kV", "expected"), [(60, 0.0487), (80, 0.0418), (100, 0.0370), (300, 0.0197)]
)
def test_wavelengths_are_those_of_the_tables(kV, expected):
    assert wavelength_A(kV) == pytest.approx(expected, abs=6e-5)
    assert Optics(voltage_kV=kV).wavelength_A == wavelength_A(kV)


ABERRATED = Optics(defocus_A=40.0, astigmatism_A=20.0, astigmatism_rad=0.4, coma_A=600.0,
                   coma_rad=1.0, star_A=500.0, star_rad=0.3, spherical_A=4e3)  # fmt: skip


@pytest.mark.parametrize("optics", [Optics(), ABERRATED, Optics(voltage_kV=100.0, coma_A=900.0)])
def test_a_transfer_function_is_one_at_zero_and_less_elsewhere(optics):
    transfer = optics_transfer(FREQUENCIES, optics)
    assert transfer[0, 0] == pytest.approx(1.0, abs=1e-9)
    assert np.abs(transfer).max() <= 1.0 + 1e-9
    probe = probe_of(optics)
    assert probe.sum() == pytest.approx(1.0, abs=1e-6)
    assert probe.min() > -0.01 * probe.max()  # an intensity


def test_the_transfer_function_ends_at_twice_the_aperture():
    optics = Optics(semiangle_mrad=31.0)
    k = np.hypot(*FREQUENCIES)
    cut = 2 * 31e-3 / optics.wavelength_A
    transfer = np.abs(optics_transfer(FREQUENCIES, optics))
    assert transfer[k > 1.06 * cut].max() < 1e-6
    assert transfer[(k > 0.3 * cut) & (k < 0.5 * cut)].min() > 0.3
    # In focus: the chat function of a round pupil (Born and Wolf).
    q = k[k < 0.95 * cut] / cut
    chat = 2 / np.pi * (np.arccos(q) - q * np.sqrt(1 - q**2))
    np.testing.assert_allclose(transfer[k < 0.95 * cut], chat, atol=0.02)


def test_defocus_and_astigmatism_widen_the_probe():
    sharp, blurred = (probe_of(Optics(defocus_A=c)) for c in (0.0, 60.0))
    assert blurred.max() < 0.8 * sharp.max()
    wide, narrow = widths(blurred), widths(sharp)
    assert wide[0] > 1.1 * narrow[0]
    assert wide[0] == pytest.approx(wide[1], rel=0.02)  # still round
    np.testing.assert_allclose(probe_of(Optics(defocus_A=-60.0)), blurred, atol=1e-6)
    # With defocus, astigmatism makes it long in one direction and short in the other.
    long = widths(probe_of(Optics(defocus_A=50.0, astigmatism_A=30.0)))
    assert long[0] > 1.2 * long[1]
    turned = widths(probe_of(Optics(defocus_A=50.0, astigmatism_A=30.0, astigmatism_rad=np.pi / 2)))
    assert turned[1] == pytest.approx(long[0], rel=0.02)
    diagonal = widths(
        probe_of(Optics(defocus_A=50.0, astigmatism_A=30.0, astigmatism_rad=np.pi / 4))
    )
    assert diagonal[2] > 0.1 * diagonal[0]


@pytest.mark.parametrize("direction", [0.0, 0.7, np.pi / 2])
def test_coma_draws_a_tail_and_leaves_the_core_at_the_origin(direction):
    probe = probe_of(Optics(coma_A=500.0, coma_rad=direction))
    _, _, _, centre = widths(probe)
    assert np.linalg.norm(centre) > 0.03  # the tail has weight
    smooth = ndimage.gaussian_filter(probe, 0.5 / PX)
    middle = SIZE // 2
    assert np.unravel_index(smooth.argmax(), smooth.shape) == (middle, middle)
    r, c = (smooth[middle - 1 : middle + 2, middle], smooth[middle, middle - 1 : middle + 2])
    for low, mid, high in (r, c):  # a parabola through the peak
        assert abs(0.5 * (low - high) / (low - 2 * mid + high)) * PX < 0.005


@pytest.mark.parametrize("direction", [0.4, 2.5])
def test_atoms_lie_where_a_symmetric_probe_finds_them(direction):
    """Nothing but the image tells where an atom is: a frame's positions must not all be shifted."""
    aberrated = Optics(coma_A=400.0, coma_rad=direction, voltage_kV=80.0)
    truth = graphene_frame(
        5, px=0.1, counts=400.0, optics=aberrated, probe_sigma_A=(0.3, 0.3), tail_fraction=0.0
    )
    found = refine(truth.frame, truth.xy)
    off = errors(truth, found.xy, margin=1.5)
    assert np.abs(off.mean(axis=0)).max() < 0.01
    assert rms(off) < 0.02


def test_a_gaussian_transfer_is_that_of_its_widths():
    transfer = gaussian_transfer(FREQUENCIES, (0.5, 0.3), 0.0, 0.0)
    image = np.fft.fftshift(np.fft.irfft2(transfer, s=(SIZE, SIZE)))
    xx, yy, _, _ = widths(image)
    np.testing.assert_allclose(np.sqrt([xx, yy]), [0.5, 0.3], rtol=1e-3)
    less = gaussian_transfer(FREQUENCIES, (0.5, 0.3), 0.0, 0.3)
    assert less[0, 0] == 1
    np.testing.assert_allclose(less[:, 0], 1.0)  # along y, all of its width is there already


def lone(conditions, shape=(161, 161), seed=0):
    rng = np.random.default_rng(seed)
    return expected_image(LONE, shape, GRAPHENE, conditions, rng)


CLEAN = Conditions(pixel_size_A=PX, background=0.0, tail_fraction=0.0, counts=100.0)


def test_a_wave_optical_spot_peaks_at_its_counts_where_the_atom_is():
    sharp = replace(CLEAN, probe_sigma_A=(0.25, 0.25), optics=Optics())
    blurred = replace(sharp, optics=Optics(defocus_A=60.0))
    for conditions in (sharp, blurred, replace(sharp, optics=Optics(coma_A=200.0))):
        image = lone(conditions)
        assert image.max() == pytest.approx(100.0, rel=0.01)
    assert np.unravel_index(lone(sharp).argmax(), (161, 161)) == (80, 80)
    # Of the same height: wider means more.
    assert lone(blurred).sum() > 1.1 * lone(sharp).sum()
