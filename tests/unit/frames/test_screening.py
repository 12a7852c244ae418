"""Materials told by lattice, scale and pattern; noise, stripes and dark atoms are none of them."""

import numpy as np
import pytest
from scipy import ndimage

from adatom.core import GRAPHENE, Calibration
from adatom.frames.lattice.screening import screen
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_sites
from adatom.frames.simulate.synthesize import expected_image
from adatom.materials.library import load_material

LIBRARY = [GRAPHENE, *map(load_material, ("h-BN", "MoS2", "WS2", "SrTiO3", "Au", "CdTe"))]
PX = 0.16


def perfect(material, pixels=160, px=PX, angle=0.3):
    """Counts of a perfect crystal, before noise, at most about 40."""
    shape = (pixels, pixels)
    xy, site = lattice_sites(material, Calibration(px).extent_xy(shape), 3.0, angle)
    number = {s: k for k, s in enumerate(material.species)}
    kinds = np.array([number[s] for s in material.site_species])[site]
    conditions = Conditions(pixel_size_A=px, probe_sigma_A=(0.42, 0.42), counts=40.0)
    specimen = Specimen(xy, kinds, np.zeros((0, 2)))
    return expected_image(specimen, shape, material, conditions, np.random.default_rng(0))


def counted(image, seed=1):
    return np.random.default_rng(seed).poisson(np.maximum(image, 0.0)).astype(np.float32)


def screened(image, px=PX):
    return screen([image], px, LIBRARY)


@pytest.mark.parametrize("name", ["graphene", "Au", "CdTe"])
def test_a_crystal_is_told_at_its_scale(name):
    material = next(m for m in LIBRARY if m.name == name)
    seen = screened(counted(perfect(material)))
    assert seen.clear is not None
    assert seen.clear.name == name
    assert seen.clear.pixel_size_A == pytest.approx(PX, rel=0.03)


def test_equal_lattices_are_told_by_their_pattern_or_named_together():
    seen = screened(counted(perfect(load_material("h-BN"))))
    assert seen.best.name == "h-BN"
    both = screened(counted(perfect(load_material("MoS2"))))
    assert {m.name for m in both.matches[:2]} == {"MoS2", "WS2"}
    assert both.excludes("graphene")
    assert not both.excludes("MoS2")


def test_noise_and_a_rough_film_are_none_of_them():
    rng = np.random.default_rng(2)
    film = ndimage.gaussian_filter(rng.normal(size=(160, 160)), 2.5)
    for image in (rng.poisson(4.0, (160, 160)), 60.0 + 200.0 * film):
        seen = screened(image.astype(np.float32))
        assert seen.none > 0.99
        assert not seen.excludes("graphene")


def test_stripes_are_one_reflection_and_no_lattice():
    stripes = 20.0 + 10.0 * np.sin(2 * np.pi * np.arange(160) * PX / 2.13)[:, None]
    assert screened(counted(np.broadcast_to(stripes, (160, 160)))).none > 0.9


def test_dark_atoms_have_the_lattice_and_not_the_pattern():
    bright = perfect(GRAPHENE)
    dark = counted(1.5 * bright.max() - bright)
    graphene = next(m for m in screened(dark).matches if m.name == "graphene")
    assert graphene.evidence > 20.0
    assert graphene.probability < 0.05


def test_a_scale_that_is_far_off_fits_nothing():
    image = counted(perfect(GRAPHENE))
    assert (
        next(m for m in screened(image, 1.4 * PX).matches if m.name == "graphene").probability
        < 0.01
    )


def test_the_answer_does_not_depend_on_the_unit_of_the_intensity():
    image = counted(perfect(GRAPHENE))
    one, other = screened(image), screened((image * 1e-10 - 3e-8).astype(np.float32))
    assert one.best.probability == pytest.approx(other.best.probability, abs=1e-3)
