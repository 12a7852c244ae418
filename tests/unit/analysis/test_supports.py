"""Atoms on a support are told from noise and from texture, with the networks that ship."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from adatom.analysis.flags import flags_of
from adatom.analysis.frame import find_atoms
from adatom.core import Calibration, Frame
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.synthesize import random_labelled
from adatom.learning.device import use_threads
from adatom.learning.weights import load_shipped
from adatom.materials.library import load_material

PX = 0.29


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


@pytest.mark.parametrize("name", ["Pt-on-carbon", "Re-on-carbon"])
def test_frames_with_atoms_have_confident_ones_and_noise_and_texture_have_not(name):
    material, ensemble = load_material(name), load_shipped(name)
    rng = np.random.default_rng(0)
    support = Conditions(
        pixel_size_A=PX, probe_sigma_A=(1.0, 1.0), counts=100.0, tail_fraction=0.1, support=6.0,
        support_speckle=0.02, support_lumps=0.2, support_hills=0.3, slow_length_A=15.0,
    )  # fmt: skip
    atoms = random_labelled(
        material, np.random.default_rng(3), field_A=70.0, conditions=support
    ).frame
    texture = gaussian_filter(rng.normal(size=(240, 240)), 3.5) * 50 + rng.normal(size=(240, 240))
    for image, few in ((atoms.data, False), (rng.poisson(5.0, (240, 240)), True), (texture, True)):
        frame = Frame(np.asarray(image, dtype=np.float32), Calibration(PX))
        found = find_atoms(frame, ensemble, material)
        assert flags_of(found, ensemble.card).has_few_confident_atoms == few
