"""Pixels that show no specimen, clipped pixels, and the unit of the intensity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from adatom.bench.foreign_parts import spoiled_frames
from adatom.core import Calibration, Frame
from adatom.frames import read
from adatom.frames.specimen.examine import examine
from artefacts import annotated, fly_back, half_scanned, padded, repeated_edge, sheet, turned


def counts(seed=0, **given):
    return np.random.default_rng(seed).poisson(sheet(**given)).astype(float)


def analog(seed=0):
    return sheet() + np.random.default_rng(seed).normal(0.0, 3.0, (160, 160))


def pixels(image):
    return examine(Frame(image, Calibration(0.12))).pixels


def eight_bits(image):
    low, high = np.percentile(image, (1, 99))
    return np.round(255 * np.clip((image - low) / (high - low), 0, 1))


ARTEFACTS = {
    "zeros": lambda x: padded(x, 0.0),
    "a mean": lambda x: padded(x, np.round(x.mean())),
    "a high value": lambda x: padded(x, 3 * x.max()),
    "half a frame": lambda x: half_scanned(x, 0.0),
    "half a frame of another value": lambda x: half_scanned(x, x.mean()),
    "turned": lambda x: turned(x, 10.0, 0.0),
    "turned with splines": lambda x: turned(x, 30.0, x.mean(), 3),
    "turned by half a quarter": lambda x: turned(x, 45.0, x.min(), 0),
    "turned, the edge repeated": lambda x: turned(x, 25.0, None),
    "the edge repeated": lambda x: repeated_edge(x, 9),
    "fly-back": lambda x: fly_back(x, 4),
    "a bar": annotated,
    "a box": lambda x: annotated(x, box=0.0),
    "a grey box": lambda x: annotated(x, box=np.round(np.median(x))),
    "text": lambda x: annotated(x, bar=False, text="HAADF 60 kV"),
}


@pytest.mark.parametrize("name", ARTEFACTS)
@pytest.mark.parametrize("make", [counts, analog], ids=["counts", "analog"])
def test_what_is_no_specimen_is_masked(name, make):
    image, true = ARTEFACTS[name](make())
    found = pixels(image)
    written = name in ("a bar", "text")  # thin letters with soft edges, masked by rectangles
    assert found.masked[true].mean() > (0.8 if written else 0.97)
    around = ndimage.binary_dilation(true, iterations=5)
    assert found.masked[~around].mean() < (0.04 if written else 0.005)
    assert sum(a.pixels for a in found.areas) == found.masked.sum()


def masked_shares(kind, seed, count=12):
    """Shares of the foreign pixels, and of the others, that are masked in random frames."""
    frames = (one for one in spoiled_frames(12 * count, seed) if one.kind == kind)
    for one in frames:
        masked = examine(one.truth.frame).pixels.masked
        around = ndimage.binary_dilation(one.foreign, iterations=4)
        yield (masked[one.foreign].mean() if one.foreign.any() else 1.0), masked[~around].mean()


@pytest.mark.parametrize("kind", ["text", "a scale bar", "turned, the edge repeated", "nothing"])
def test_parts_of_any_frame_are_masked(kind):
    part, specimen = np.array(list(masked_shares(kind, seed=31))).T
    assert (part > 0.8).sum() >= 11
    assert specimen.mean() < 0.01


SPECIMENS = {
    "counts": counts,
    "few counts": lambda: counts(counts=0.5),
    "fewer counts": lambda: counts(counts=0.1, background=0.05),
    "hardly any count": lambda: counts(counts=0.03, background=0.02),
    "a hole without a count": lambda: counts(counts=5.0, background=0.0, hole_A=5.0),
    "a hole in few counts": lambda: counts(counts=0.5, background=0.0, hole_A=5.0),
    "analog": analog,
    "smoothed": lambda: ndimage.gaussian_filter(counts(counts=5.0), 1.5),
    "smoothed, eight bits": lambda: eight_bits(ndimage.gaussian_filter(counts(counts=5.0), 1.5)),
    "stretched": lambda: eight_bits(analog()),
    "clipped": lambda: np.minimum(counts(counts=50.0), 40.0),
    "no noise": lambda: sheet(background=0.0, hole_A=5.0),
}


@pytest.mark.parametrize("name", SPECIMENS)
def test_specimens_are_not_masked(name):
    assert not pixels(SPECIMENS[name]()).any_masked


@pytest.mark.parametrize("share", [0.5, 5.0, 20.0])
@pytest.mark.parametrize("store", [np.asarray, lambda x: x * 1e-10 - 3e-8, eight_bits])
def test_clipping_from_above_is_found(share, store):
    image = counts(counts=100.0)
    limit = np.percentile(image, 100 - share)
    clipped = np.minimum(image, limit)
    clipped = np.round(255 * clipped / limit) if store is eight_bits else store(clipped)
    assert np.array_equal(pixels(clipped).clipped == 1, clipped == clipped.max())


def test_clipping_from_below_is_found_and_zeros_of_counts_are_none():
    low = np.maximum(np.round(4 * analog()), 30.0)
    assert np.array_equal(pixels(low).clipped == -1, low == 30.0)
    for dose in (0.03, 0.3, 3.0, 30.0):
        assert not pixels(counts(counts=dose)).any_clipped
    assert not pixels(analog()).any_clipped


@given(
    scale=st.floats(1e-12, 1e12),
    offset=st.floats(-1e3, 1e3),
    single=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_counts_are_the_same_in_every_unit(scale, offset, single):
    image = counts(counts=5.0, edge=48)
    stored = scale * (image + offset)
    seen = examine(Frame(stored.astype(np.float32) if single else stored, Calibration(0.12)))
    assert np.array_equal(seen.data, image - image.min())
    assert seen.pixels.unit == pytest.approx(scale, rel=1e-4)
    # float32 keeps an offset of 1000 steps to less than a hundredth of one
    assert seen.pixels.zero_of_file == pytest.approx(-offset - image.min(), abs=0.1)


def test_a_continuum_is_the_same_in_every_unit():
    image = analog()
    seen = [
        examine(Frame(s * image + o, Calibration(0.12))).data for s, o in ((1, 0), (1e-9, 2e-6))
    ]
    assert np.abs(seen[0] - seen[1]).max() < 1e-4


def test_an_examined_frame_is_left_alone():
    seen = examine(Frame(counts(), Calibration(0.12)))
    assert examine(seen) is seen


def test_masked_pixels_are_covered_by_few_boxes():
    found = pixels(turned(counts(), 10.0, 0.0)[0])
    cover = np.zeros(found.masked.shape, dtype=bool)
    boxes = found.boxes_px()
    for left, top, right, bottom in boxes:
        cover[top:bottom, left:right] = True
    assert len(boxes) < 60
    assert cover[found.masked].mean() > 0.95
    assert (cover & ~found.masked).mean() < 0.01


@pytest.mark.realdata
def test_no_part_of_a_real_frame_is_masked(shared_data):
    files = sorted(shared_data.glob("graphene_si_library/Si*/*.hdf5"))[::10]
    files += [*shared_data.glob("graphene_raw/*.hdf5"), *shared_data.glob("pt_single_atoms/*.tif")]
    files += [shared_data / "mos2" / "MoS2_stem_Exp-000-2.npy"]
    for path in files:
        movie = read(path)
        frame = movie.recalibrated(movie.calibration or Calibration(0.1))[0]
        assert not examine(frame).pixels.any_masked, path
