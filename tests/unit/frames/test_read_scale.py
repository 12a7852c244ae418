"""The pixel size: units, fields of view, sidecars, and what cannot be right."""

import json

import h5py
import numpy as np
import pytest
import rsciio.hspy
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from adatom.errors import BadInput
from adatom.frames import read
from adatom.frames.readers.pixel_size import (
    UNIT_A,
    check_range,
    from_axes,
    from_field_of_view,
    normal_unit,
)
from frame_files import frames, signal, write


@given(
    size=st.floats(0.006, 1.9),
    unit=st.sampled_from(
        [
            ("m", "m"), ("nm", "nm"), ("n_m", "nm"), (" NM ", "nm"), ("µm", "µm"), ("um", "µm"),
            ("\u03bcm", "µm"), ("micron", "µm"), ("pm", "pm"), ("Å", "Å"), ("\u212b", "Å"),
            ("A", "Å"), ("angstrom", "Å"), (b"Angstroms", "Å"), ("\\u00c5", "Å"), ("meters", "m"),
        ]
    ),
)  # fmt: skip
def test_units(size, unit):
    spelled, normal = unit
    assert normal_unit(spelled) == normal
    value = size / UNIT_A[normal]
    assert from_axes((value, value), (spelled, spelled), "f").pixel_A == pytest.approx(size)


@pytest.mark.parametrize("unit", ["1/nm", "1 / nm", "nm^-1", "nm\u207b\u00b9", "1/A", "mrad"])
def test_a_diffraction_pattern_is_no_image(unit):
    with pytest.raises(BadInput, match="diffraction"):
        from_axes((0.1, 0.1), (unit, unit), "f")


def test_axes_without_a_unit():
    assert from_axes((1.0, 1.0), ("", None), "f").pixel_A is None
    assert from_axes((1.0, 1.0), ("px", "px"), "f").pixel_A is None
    assert from_axes((float("nan"), 1.0), ("nm", "nm"), "f").pixel_A is None
    only_nm = from_axes((0.0093, 0.0093), (None, None), "f")
    assert only_nm.pixel_A == pytest.approx(0.093)
    assert "taken as nm" in only_nm.notes[0]
    either = from_axes((0.03, 0.03), (None, None), "f")
    assert either.pixel_A is None
    assert "nm or Å" in either.notes[0]
    assert from_axes((0.01, 0.01), ("eV", "eV"), "f").pixel_A is None


def test_field_of_view_in_pm_or_nm():
    assert from_field_of_view(2000.0, "", (256, 256)).pixel_A == pytest.approx(0.078125)
    assert from_field_of_view("4.0", "", (512, 512)).pixel_A == pytest.approx(0.078125)
    assert from_field_of_view("9 nm", "", (512, 256)).pixel_A == pytest.approx(0.17578125)
    assert from_field_of_view(b"NA", "", (512, 512)).pixel_A is None
    assert from_field_of_view(1e9, "", (512, 512)).pixel_A is None


def test_pixels_that_are_not_square():
    rectangular = from_axes((0.01, 0.011), ("nm", "nm"), "f")
    assert (rectangular.pixel_A, rectangular.ratio) == pytest.approx((0.11, 0.1 / 0.11))
    assert from_axes((0.01, 0.01005), ("nm", "nm"), "f").ratio == 1
    assert from_axes((0.01, 0.01005), ("nm", "nm"), "f").pixel_A == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize(
    ("size", "given_by_user", "hint"),
    [
        (7.8, True, "in pm, it is 0.078 Å"),
        (0.0008, True, "in nm, it is 0.008 Å"),
        (78.0, False, "in pm where the file says nm, it is 0.078 Å"),
        (8e-5, False, "in nm where the file says pm, it is 0.08 Å"),
        (1e9, True, "Give the right one"),
    ],
)
def test_a_scale_that_cannot_be_right_names_the_one_that_can(size, given_by_user, hint):
    with pytest.raises(BadInput, match=r"0\.005 to 2 Å") as caught:
        check_range(size, "f", given=given_by_user)
    assert hint in str(caught.value)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf"), 7.8])
def test_pixel_size_argument_is_checked(size):
    with pytest.raises(BadInput, match="pixel size"):
        read(frames(), pixel_size_A=size)


def test_file_scale_in_the_wrong_unit(tmp_path):
    path = tmp_path / "m.hspy"
    rsciio.hspy.file_writer(str(path), signal(frames(), scale=7.8, units="nm"))
    with pytest.raises(BadInput, match=r"m\.hspy: .*got 78 Å.*`pixel_size_A` 0\.078"):
        read(path)
    movie = read(path, pixel_size_A=0.078)
    assert movie.calibration.pixel_size_A == 0.078
    assert "as given" in movie.notes[0]


def test_the_argument_overrides_the_file(tmp_path):
    path = write(tmp_path / "m.hspy", frames())  # 0.1 Å
    assert read(path, pixel_size_A=0.101).notes == ()
    movie = read(path, pixel_size_A=0.08)
    assert movie.calibration.pixel_size_A == 0.08
    assert "0.08 Å as given" in movie.notes[0]
    assert "says 0.1 Å (+25.0 %)" in movie.notes[0]


def test_sidecar_and_npz_scale(tmp_path):
    np.save(tmp_path / "a.npy", frames(2, 64, 64))
    space = {"scan": {"field_of_view_x": 9.0, "field_of_view_units": "nm"}}
    (tmp_path / "a.json").write_text(json.dumps(space))
    assert read(tmp_path / "a.npy").calibration.pixel_size_A == pytest.approx(90 / 64)
    axes = [{"scale": 0.02, "units": "nm"}] * 2
    (tmp_path / "a.json").write_text(json.dumps({"spatial_calibrations": axes}))
    assert read(tmp_path / "a.npy").calibration.pixel_size_A == pytest.approx(0.2)
    (tmp_path / "a.json").write_text("{broken")
    assert read(tmp_path / "a.npy").calibration is None
    np.savez(tmp_path / "b.npz", image=frames(2), sampling=0.05)
    assert read(tmp_path / "b.npz").calibration.pixel_size_A == pytest.approx(0.05)


def test_tiff_scales(tmp_path):
    data, path = frames(), tmp_path / "m.tif"
    cases = [
        (
            {"imagej": True, "resolution": (128, 128), "metadata": {"unit": "nm", "axes": "TYX"}},
            0.078125,
        ),
        (
            {"imagej": True, "resolution": (1e5, 1e5), "metadata": {"unit": "um", "axes": "TYX"}},
            0.1,
        ),
        ({"resolution": (34.1333, 34.1333), "software": "hyperspy"}, 0.29297),
        ({"resolution": (72, 72), "resolutionunit": 2}, None),
        ({"resolution": (1e9, 1e9), "resolutionunit": 3}, 0.1),
        ({"resolution": (107, 107), "resolutionunit": 1}, 0.0934579),
        (
            {
                "ome": True,
                "metadata": {
                    "axes": "TYX",
                    "PhysicalSizeX": 0.01,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 0.01,
                    "PhysicalSizeYUnit": "nm",
                },
            },
            0.1,
        ),
    ]
    for options, expected in cases:
        tifffile.imwrite(path, data, photometric="minisblack", **options)
        found = read(path).calibration
        size = found and found.pixel_size_A
        assert size == (pytest.approx(expected, rel=1e-4) if expected else None), options


def test_files_of_one_movie_agree(tmp_path):
    np.save(tmp_path / "a1.npy", frames()[0])
    np.save(tmp_path / "a2.npy", frames(1, 41, 56)[0])
    with pytest.raises(BadInput, match=r"a2\.npy: expected 40 x 56 .*a1\.npy, got 41 x 56"):
        read(tmp_path)
    for name, scale in (("b1", 0.01), ("b2", 0.012)):
        rsciio.hspy.file_writer(str(tmp_path / f"{name}.hspy"), signal(frames()[0], scale))
    both = [tmp_path / "b1.hspy", tmp_path / "b2.hspy"]
    with pytest.raises(BadInput, match=r"b2\.hspy: expected a pixel size of 0\.1 .* got 0\.12 Å"):
        read(both)
    assert len(read(both, pixel_size_A=0.1)) == 2


def test_datasets(tmp_path):
    data = frames(2)
    with h5py.File(tmp_path / "m.h5", "w") as f:
        f["a/image"], f["b/image"], f["table"] = data, data + 1, np.zeros((500, 3))
        f["a/image"].attrs["scan size"] = 5.6
    with pytest.raises(BadInput, match=r"2 of them \(0 a/image \(2, 40, 56\)"):
        read(tmp_path / "m.h5")
    for name in ("b/image", "/b/image"):
        assert np.array_equal(read(tmp_path / "m.h5", dataset=name).load(0), data[0] + 1)
    assert read(tmp_path / "m.h5", dataset="a/image").calibration.pixel_size_A == pytest.approx(1)
    with pytest.raises(BadInput, match="2 of that name"):
        read(tmp_path / "m.h5", dataset="image")
    with pytest.raises(BadInput, match=r"none of that name.*b/image"):
        read(tmp_path / "m.h5", dataset="c")
    with pytest.raises(BadInput, match="at least 16 x 16"):
        read(tmp_path / "m.h5", dataset="table")
    np.savez(tmp_path / "m.npz", image=data, density=data + 2, positions=np.zeros((90, 2)))
    with pytest.raises(BadInput, match=r"image.*density.*`dataset`"):
        read(tmp_path / "m.npz")
    assert np.array_equal(read(tmp_path / "m.npz", dataset="density").load(1), data[1] + 2)
    np.save(tmp_path / "m.npy", data)
    with pytest.raises(BadInput, match="Leave `dataset` out"):
        read(tmp_path / "m.npy", dataset="x")
