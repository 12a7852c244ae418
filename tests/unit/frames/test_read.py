"""Frames are read right, lazily and with their scale; what is no frame is refused in words."""

import ast
import csv
import json
import shutil
import struct
import subprocess
import sys
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
import rsciio.emd
import rsciio.hspy
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from rsciio import IO_PLUGINS

from adatom.errors import BadInput
from adatom.frames import read
from adatom.frames.readers.pixel_size import (
    UNIT_A,
    check_range,
    from_axes,
    from_field_of_view,
    normal_unit,
)
from adatom.frames.readers.read import natural_key
from adatom.frames.readers.stack import is_image
from adatom.frames.readers.vendor import READERS, vendor_suffixes


def frames(count=3, rows=40, columns=56, seed=0):
    return np.random.default_rng(seed).integers(0, 4000, (count, rows, columns)).astype(np.uint16)


def signal(data, scale=0.01, units="nm"):
    names = ["t", "y", "x"][-data.ndim :]
    axes = [
        {
            "name": name,
            "size": size,
            "scale": scale,
            "offset": 0.0,
            "units": units,
            "navigate": name == "t",
            "index_in_array": i,
            "_type": "UniformDataAxis",
            "is_binned": False,
        }
        for i, (name, size) in enumerate(zip(names, data.shape, strict=True))
    ]
    return {
        "data": data,
        "axes": axes,
        "metadata": {"General": {"title": "one"}, "Signal": {"signal_type": ""}},
        "original_metadata": {},
        "learning_results": {},
        "attributes": {"_lazy": False},
        "package_info": {},
        "models": None,
        "tmp_parameters": {},
        "package": "",
        "package_version": "",
    }


def write_ser(path, data):
    """A TIA series as FEI documents it: header, dimension, offsets, then the elements."""
    n, rows, columns = data.shape
    head = 2 + 2 + 2 + 4 * 4 + 8 + 4
    dimension = struct.pack("<idd", n, 0.0, 1.0) + struct.pack("<iiii", 0, 0, 0, 0)
    table = head + len(dimension)
    first = table + 16 * n
    step = 50 + data[0].nbytes
    offsets = [first + i * (step + 8) for i in range(n)]
    with path.open("wb") as f:
        f.write(struct.pack("<HHHiiii", 0x4949, 0x0197, 0x0220, 0x4122, 0x4152, n, n))
        f.write(struct.pack("<qi", table, 1) + dimension)
        f.write(
            struct.pack(f"<{n}q", *offsets) + struct.pack(f"<{n}q", *(o + step for o in offsets))
        )
        for frame in data:
            f.write(struct.pack("<ddiddi", 0.0, 1e-11, 0, 0.0, 1e-11, 0))
            f.write(struct.pack("<hii", 2, columns, rows) + frame[::-1].tobytes())
            f.write(struct.pack("<hhi", 0x4152, 0, 0))


def write(path, data):
    """Write a movie in the format that the name says."""
    kind = path.name.partition(".")[2]
    if kind == "npy":
        np.save(path, data)
    elif kind in {"npz", "packed.npz"}:
        (np.savez if kind == "npz" else np.savez_compressed)(path, images=data)
    elif kind == "hdf5":
        with h5py.File(path, "w") as f:
            f.create_dataset("group/nn_input", data=data[..., None], chunks=(1, *data.shape[1:], 1))
    elif kind == "hspy":
        rsciio.hspy.file_writer(str(path), signal(data), chunks=(1, *data.shape[1:]))
    elif kind == "emd":
        rsciio.emd.file_writer(str(path), signal(data))
    elif kind == "ser":
        write_ser(path, data)
    else:
        assert kind in {"tif", "ij.tif", "packed.tif", "big.tif"}
        tifffile.imwrite(
            path,
            data,
            imagej=kind == "ij.tif",
            compression="zlib" if kind == "packed.tif" else None,
            byteorder=">" if kind == "big.tif" else None,
            photometric="minisblack",
        )
    return path


KINDS = [
    "npy", "npz", "packed.npz", "hdf5", "hspy", "emd", "ser", "tif", "ij.tif", "packed.tif",
    "big.tif",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_frames(tmp_path, kind):
    data = frames()
    movie = read(write(tmp_path / f"m.{kind}", data), pixel_size_A=0.1)
    assert (len(movie), movie.shape) == (3, (40, 56))
    for i, frame in enumerate(movie):
        assert np.array_equal(frame.data, data[i])
    assert movie[0].calibration.pixel_size_A == 0.1


@pytest.mark.parametrize("kind", ["hspy", "emd", "ser"])
def test_vendor_scale(tmp_path, kind):
    movie = read(write(tmp_path / f"m.{kind}", frames()))
    assert movie.calibration.pixel_size_A == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["npy", "hdf5", "emd", "tif", "npz"])
def test_one_frame(tmp_path, kind):
    data = frames(1)[0]
    if kind == "hdf5":
        data = data[None]
    movie = read(write(tmp_path / f"m.{kind}", data), pixel_size_A=0.1)
    assert len(movie) == 1
    assert np.array_equal(movie[0].data, data.reshape(40, 56))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_frame_that_is_asked_for_is_read(tmp_path, kind):
    data = frames(48, 256, 256)
    movie = read(write(tmp_path / f"m.{kind}", data), pixel_size_A=0.1)
    movie.load(1)
    frame_bytes = 256 * 256 * 4  # float32, as it is given
    tracemalloc.start()
    try:
        image = movie.load(40)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        read(tmp_path / f"m.{kind}", pixel_size_A=0.1)
        peak_open = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.array_equal(image, data[40])
    # raw pixels, their copy and a mask; the whole stack is 24 float32 frames
    assert peak < 5 * frame_bytes
    assert peak_open < max(5 * frame_bytes, 9 << 20)  # two blocks of 4 MiB while hashing


def test_opening_stays_small_on_a_file_of_many_blocks(tmp_path):
    path = tmp_path / "big.npy"
    big = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint16, shape=(96, 512, 512))
    big[0, :, ::2] = big[-1, ::2] = 7
    big.flush()
    del big
    tracemalloc.start()
    try:
        movie = read(path, pixel_size_A=0.1)
        movie.load(95)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 48 << 20
    assert peak < 10 << 20


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_grey_pictures(tmp_path, mode):
    data = frames(1)[0]
    data = data.astype(np.uint8) if mode == "L" else data
    Picture.fromarray(data).save(tmp_path / "m.png")
    assert np.array_equal(read(tmp_path / "m.png", pixel_size_A=0.1)[0].data, data)


def test_arrays():
    data = frames()
    movie = read(data, pixel_size_A=0.08)
    assert np.array_equal(movie[2].data, data[2])
    assert len(read(data[0], pixel_size_A=0.08)) == 1
    two = read([data[0], data[1:]], pixel_size_A=0.08)
    assert np.array_equal(two[2].data, data[2])
    assert read(data).calibration is None
    with pytest.raises(BadInput, match="`pixel_size_A`"):
        read(data)[0]


def test_files_in_natural_order(tmp_path):
    data = frames(12)
    for i in range(12):
        np.save(tmp_path / f"frame{i + 1}.npy", data[i])
    shuffled = sorted(str(p) for p in tmp_path.iterdir())
    for movie in (read(shuffled, pixel_size_A=0.1), read(tmp_path, pixel_size_A=0.1)):
        assert [int(np.array_equal(movie[i].data, data[i])) for i in range(12)] == [1] * 12
    assert [p.name for p in sorted(map(Path, ["a10", "a2", "b1", "a"]), key=natural_key)] == [
        "a", "a2", "a10", "b1",
    ]  # fmt: skip


def test_selection(tmp_path):
    data = frames(9)
    path = write(tmp_path / "m.tif", data)
    assert np.array_equal(read(path, pixel_size_A=0.1, frames="2:5")[0].data, data[2])
    assert len(read(path, pixel_size_A=0.1, frames=":4")) == 4
    assert np.array_equal(read(path, pixel_size_A=0.1, frames=slice(-2, None))[1].data, data[8])
    for bad in ("9:", "5:5", "a:b", "3", "0:5:2", "-2:", ""):
        with pytest.raises(BadInput, match="`frames`"):
            read(path, frames=bad)
    with pytest.raises(BadInput, match="`frames`"):
        read(path, frames=slice(None, None, -1))


@given(start=st.integers(0, 12) | st.none(), stop=st.integers(0, 12) | st.none())
@settings(max_examples=60, deadline=None)
def test_selection_is_pythons(start, stop):
    data = frames(7, 16, 16)
    text = f"{'' if start is None else start}:{'' if stop is None else stop}"
    expected = data[start:stop]
    if not len(expected):
        with pytest.raises(BadInput):
            read(data, frames=text)
        return
    movie = read(data, pixel_size_A=0.1, frames=text)
    assert np.array_equal([f.data for f in movie], expected)


def test_a_frame_knows_its_file(tmp_path):
    data = frames(3).astype(np.float32)
    data[2, 5, 5] = np.nan
    for i in range(3):
        np.save(tmp_path / f"f{i}.npy", data[i])
    movie = read(tmp_path, pixel_size_A=0.1)
    assert movie[0].shape == (40, 56)
    with pytest.raises(BadInput, match=r"f2\.npy, frame 0: .*1 NaN or infinite"):
        movie[2]
    constant = read(np.full((2, 32, 32), 3.0), pixel_size_A=0.1)
    with pytest.raises(BadInput, match=r"frame 1: .*equal to 3"):
        constant[1]


def test_fingerprint_is_of_the_contents(tmp_path):
    a, b = write(tmp_path / "a.npy", frames()), tmp_path / "b.npy"
    shutil.copy(a, b)
    one = read(a, pixel_size_A=0.1).fingerprint
    assert one == read(b, pixel_size_A=0.1).fingerprint
    others = {
        read(a, pixel_size_A=0.11).fingerprint,
        read(a, pixel_size_A=0.1, frames="1:").fingerprint,
        read(a).fingerprint,
        read(write(tmp_path / "c.npy", frames(seed=1)), pixel_size_A=0.1).fingerprint,
        read(frames(), pixel_size_A=0.1).fingerprint,
    }
    assert len(others | {one}) == 6


def test_frames_load_in_another_process(tmp_path):
    movie = read(write(tmp_path / "m.hspy", frames()), frames="1:")
    movie.load(0)
    with ProcessPoolExecutor(1) as pool:
        there = pool.submit(movie.load, 1).result(timeout=60)
    assert np.array_equal(there, frames()[2])


# ---- scale ----------------------------------------------------------------------------------


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
    with pytest.raises(BadInput, match=r"square pixels, got 0\.1 x 0\.11 Å"):
        from_axes((0.01, 0.011), ("nm", "nm"), "f")
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
        ({"imagej": True, "resolution": (128, 128), "metadata": {"unit": "nm"}}, 0.078125),
        ({"imagej": True, "resolution": (1e5, 1e5), "metadata": {"unit": "um"}}, 0.1),
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


# ---- what is no frame -----------------------------------------------------------------------


def picture(mode, *, grey=False):
    def make(path):
        ramp = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
        other = ramp if grey else ramp[:, ::-1]
        Picture.fromarray(np.stack([ramp, other, ramp], axis=2)).convert(mode).save(path)

    return make


def text(content):
    return lambda path: path.write_bytes(content)


def saved(array):
    return lambda path: np.save(path, array)


def h5_of(**datasets):
    def make(path):
        with h5py.File(path, "w") as f:
            for name, value in datasets.items():
                f[name] = value

    return make


def tif_of(array, **options):
    return lambda path: tifffile.imwrite(path, array, **options)


def hspy_of(array, navigate, units="nm"):
    def make(path):
        made = signal(np.zeros((20, 20, 20)))
        made["data"] = array
        axis = made["axes"][0]
        made["axes"] = [
            {
                **axis,
                "name": f"a{i}",
                "size": n,
                "navigate": nav,
                "index_in_array": i,
                "units": units,
            }
            for i, (n, nav) in enumerate(zip(array.shape, navigate, strict=True))
        ]
        rsciio.hspy.file_writer(str(path), made)

    return make


BAD = {
    "missing.tif": (lambda _: None, "no such file"),
    "empty.tif": (text(b""), "0 bytes"),
    "empty.npy": (text(b""), "0 bytes"),
    "noending": (text(b"\x7fELF" + bytes(500)), "without an ending"),
    "program.exe": (text(b"MZ" + bytes(500)), "a .exe file"),
    "table.csv": (text(b"x,y\n1,2\n"), "a .csv file, which holds no frames"),
    "notes.txt": (text(b"hello"), "a .txt file"),
    **{
        f"text{suffix}": (text(b"this is no image, only text " * 40), "expected a ")
        for suffix in (".tif", ".dm3", ".dm4", ".emd", ".ser", ".hspy", ".mrc", ".png", ".jpg",
                       ".npy", ".npz", ".h5", ".hdf5", ".blo", ".mib", ".nxs", ".bcf", ".unf")
    },
    **{
        f"program{suffix}": (text(b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 20), "expected a ")
        for suffix in (".tif", ".dm3", ".dm4", ".emd", ".ser", ".mrc", ".npy", ".h5", ".png")
    },
    "rgb.png": (picture("RGB"), "screenshot"),
    "grey-as-rgb.png": (picture("RGB", grey=True), "screenshot"),
    "rgba.png": (picture("RGBA"), "screenshot"),
    "palette.png": (picture("P"), "screenshot"),
    "rgb.jpg": (picture("RGB"), "screenshot"),
    "rgb.tif": (tif_of(np.zeros((40, 50, 3), np.uint8), photometric="rgb"), "screenshot"),
    "planar.tif": (tif_of(np.zeros((3, 40, 50), np.uint8), photometric="rgb"), "screenshot"),
    "rgb.npy": (saved(np.zeros((40, 50, 3), np.uint8)), "screenshot"),
    "movie-rgb.npy": (saved(np.zeros((5, 40, 50, 3), np.uint8)), "screenshot"),
    "complex.npy": (saved(np.ones((40, 40), complex)), "complex"),
    "complex.tif": (tif_of(np.ones((40, 40), np.complex64), photometric="minisblack"), "complex"),
    "complex.hdf5": (h5_of(wave=np.ones((40, 40), complex)), "complex"),
    "text-table.npy": (saved(np.full((40, 40), "1.0")), "<U3"),
    "records.npy": (saved(np.zeros((40, 40), [("a", "f4"), ("b", "f4")])), "fields a, b"),
    "none.npy": (saved(np.zeros((0, 40, 40))), "at least one frame, got an empty array"),
    "none.hdf5": (h5_of(nn_input=np.zeros((0, 40, 40))), "empty array"),
    "line.npy": (saved(np.zeros(4000)), "shape (4000,)"),
    "points.npy": (saved(np.zeros((4000, 2))), "shape (4000, 2)"),
    "tiny.npy": (saved(np.zeros((8, 8))), "at least 16 x 16"),
    "scalar.npy": (saved(np.float64(3)), "shape ()"),
    "cube.npy": (saved(np.zeros((6, 6, 20, 20), np.uint8)), "datacube"),
    "cube.hdf5": (h5_of(cube=np.zeros((6, 6, 20, 20), np.uint8)), "datacube"),
    "cube.hspy": (hspy_of(np.zeros((6, 6, 20, 20)), (1, 1, 0, 0)), "datacube"),
    "spectra.hspy": (hspy_of(np.zeros((20, 20, 30)), (1, 1, 0)), "spectra"),
    "diffraction.hspy": (hspy_of(np.zeros((20, 20)), (0, 0), "1/nm"), "diffraction pattern"),
    "nothing.hdf5": (h5_of(names=np.bytes_("abc")), "no array of two or three dimensions"),
    "nothing.npz": (np.savez, "no array of two or three dimensions"),
    "old.prz": (text(b"PK"), "may run code"),
    "old.mrcz": (text(b"PK"), "may run code"),
    "old.nc": (text(b"CDF"), "may run code"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(tmp_path, name):
    make, words = BAD[name]
    make(tmp_path / name)
    with pytest.raises(BadInput) as caught:
        read(tmp_path / name)
    error = caught.value
    assert words in str(error)
    assert name in error.subject
    assert error.expected
    assert error.got
    assert error.todo.endswith((".", ")"))
    assert error.exit_code == 2
    assert "\n" not in str(error)


def test_bad_calls(tmp_path):
    np.save(tmp_path / "a.npy", frames())
    (tmp_path / "sub").mkdir()
    for bad, words in (
        ([], "got nothing"),
        ([3], "got a int"),
        ([frames(), tmp_path / "a.npy"], "got both"),
        (tmp_path / "sub", "no file of a format"),
    ):
        with pytest.raises(BadInput, match=words):
            read(bad)
    tifffile.imwrite(tmp_path / "b.tif", frames(), photometric="minisblack")
    with pytest.raises(BadInput, match=r"several: 1 \.npy, 1 \.tif"):
        read(tmp_path)


@pytest.mark.parametrize("kind", [*KINDS, "png"])
def test_truncated(tmp_path, kind):
    whole = tmp_path / f"whole.{kind}"
    if kind == "png":
        Picture.fromarray(frames(1)[0].astype(np.uint8)).save(whole)
    else:
        write(whole, frames(6))
    content = whole.read_bytes()
    for share in (0.001, 0.02, 0.3, 0.6, 0.9, 0.97):
        cut = tmp_path / f"cut.{kind}"
        cut.write_bytes(content[: max(1, int(len(content) * share))])
        with pytest.raises(BadInput, match=r"cut\.") as caught:
            read(cut)
        assert caught.value.todo


def test_damage_inside_a_whole_file(tmp_path):
    """In the last frame it shows at once; in the middle it names its frame when that is loaded."""
    path = write(tmp_path / "m.packed.tif", frames(6))
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        starts = [page.dataoffsets[0] for page in tif.pages]
    for which in (5, 3):
        damaged = bytearray(content)
        damaged[starts[which] : starts[which] + 400] = bytes(400)
        path.write_bytes(damaged)
        if which == 5:
            with pytest.raises(BadInput, match=r"m\.packed\.tif, frame 5: expected a whole frame"):
                read(path)
            continue
        movie = read(path, pixel_size_A=0.1)
        assert np.array_equal(movie[4].data, frames(6)[4])
        with pytest.raises(BadInput, match=r"m\.packed\.tif, frame 3: .*copy it again") as caught:
            movie[3]
        assert caught.value.__cause__ is not None


class Evil:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize(
    "name",
    ["object.npy", "pickle.npy", "object.npz", "pickle.npz", "archive.npy", "p.hspy", "p.prz"],
)
def test_nothing_is_unpickled(tmp_path, name):
    trace, path = tmp_path / "trace", tmp_path / name
    evil = np.array([Evil(trace)] * 400, dtype=object).reshape(20, 20)
    with path.open("wb") as file:
        if name == "object.npy":
            np.save(file, evil, allow_pickle=True)
        elif name in {"object.npz", "archive.npy"}:
            np.savez(file, image=evil)
        else:
            file.write(evil.dumps())
    with pytest.raises(BadInput):
        read(path)
    assert not trace.exists()


def test_no_reader_that_runs_code_can_be_reached():
    """Read the source of every reader that is allowed: no unpickling, no evaluation of text."""
    found = [p for p in IO_PLUGINS if p["name"] in READERS]
    assert {p["name"] for p in found} == READERS
    sources = {Path(find_spec("rsciio").origin).parent / "_hierarchical.py"}
    for plugin in found:
        sources |= set(Path(find_spec(plugin["api"]).origin).parent.glob("*.py"))
    assert len(sources) > len(READERS)
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile"}, source
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), source
                assert node.value.value is False, source
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {m.partition(".")[0] for m in modules} & {
                "pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve",
            }, source  # fmt: skip
    assert not {".prz", ".mrcz", ".nc", ".zspy", ".npy"} & set(vendor_suffixes())


def test_a_table_is_no_image():
    assert is_image((1, 256, 256, 1), np.dtype("f4"))
    assert not is_image((606, 2), np.dtype("f4"))
    assert not is_image((60, 60), np.dtype("S3"))


# ---- real files -----------------------------------------------------------------------------

V = "vendor_formats"
REAL = [  # file, dataset, frames, shape, Å per pixel as published (shared data README)
    (f"{V}/Au_twin_velox.emd", None, 1, (1024, 1024), 0.08006),
    (f"{V}/BTO_crystal_1.dm4", None, 1, (413, 469), 0.2966),
    (f"{V}/BTO_crystal_2.dm4", None, 1, (465, 476), 0.3559),
    (f"{V}/SrTiO3_ncem.emd", None, 1, (1024, 1024), 0.12247),
    (f"{V}/SrTiO3_tia.ser", None, 1, (1024, 1024), 0.10013),
    (f"{V}/perovskite_abf_stack.hspy", None, 5, (512, 512), 0.09202),
    (f"{V}/perovskite_adf_atomap.hdf5", None, 1, (400, 380), 0.09326),
    (f"{V}/perovskite_uncalibrated.dm3", None, 1, (512, 512), None),
    ("cdte_twin_dm3/HAADF26.dm3", None, 1, (512, 512), 0.202),
    ("graphene_raw/G-GrainBoundary-4nm.hdf5", None, 1, (512, 512), 0.078125),
    ("graphene_raw/G-dimSi.hdf5", None, 1, (512, 512), None),
    ("graphene_raw/G-trimSi.hdf5", None, 1, (512, 512), None),
    ("graphene_si_library/raw/test-1.hdf5", None, 1, (256, 256), 0.078125),
    ("graphene_si_library/raw/test-3.hdf5", None, 1, (256, 256), 0.078125),
    ("graphene_si_movie/si3c6_trimer_rotating.tif", None, 44, (256, 256), 0.078125),
    ("mos2/MoS2_stem_Exp-000-2.npy", None, 1, (512, 512), 0.1758),
    ("mose2/GB_2H3R_MoSe2.tif", None, 1, (430, 430), None),
    ("mose2/MoSe2_80K_small_region.tif", None, 1, (512, 512), None),
    ("re_single_atoms/bpy_crop19.tif", None, 1, (512, 512), None),
    ("simulated/graphene_contaminated_1.npz", "image", 1, (512, 512), 0.078125),
    ("simulated/graphene_contaminated_2.npz", "image", 1, (512, 512), 0.0390625),
    ("simulated/1vacancy_MoS2_incostem_29_17_1_0.tif", "1", 1, (450, 450), None),
]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "dataset", "count", "shape", "size"), REAL)
def test_real_file(shared_data, name, dataset, count, shape, size):
    movie = read(shared_data / name, dataset=dataset)
    assert (len(movie), movie.shape) == (count, shape)
    found = movie.calibration and movie.calibration.pixel_size_A
    assert found == (pytest.approx(size, rel=2e-3) if size else None)
    assert movie.load(count - 1).shape == shape


@pytest.mark.realdata
def test_real_library_scales(shared_data):
    """All 122 files: the field of view in pm that their index gives, whatever their size."""
    folder = shared_data / "graphene_si_library"
    with (folder / "index.csv").open() as file:
        rows = {row["file"]: float(row["nominal_nm_per_px"]) * 10 for row in csv.DictReader(file)}
    assert len(rows) > 100
    for name, size in rows.items():
        movie = read(folder / name)
        assert movie.calibration.pixel_size_A == pytest.approx(size, rel=1e-3)
        assert "taken as pm" in movie.notes[0]


@pytest.mark.realdata
def test_real_labels_lie_on_bright_spots(shared_data):
    """X is the column and Y the row: stacked over all labels, the atom is in the middle."""
    right, swapped = [], []
    for labels in sorted((shared_data / "pt_single_atoms").glob("*_labels.csv")):
        (path,) = labels.parent.glob(f"{labels.name[:3]}_HAADF*.tif")
        movie = read(path)
        assert movie.calibration.pixel_size_A == pytest.approx(0.293, rel=1e-3)
        image = movie.load(0)
        xy = np.loadtxt(labels, delimiter=",", skiprows=1, usecols=(1, 2), dtype=int)
        for x, y in xy[((xy > 8) & (xy < 503)).all(axis=1)]:
            for patches, (row, col) in ((right, (y, x)), (swapped, (x, y))):
                patch = image[row - 8 : row + 9, col - 8 : col + 9]
                patches.append((patch - patch.mean()) / patch.std())
    error = 1 / np.sqrt(len(right))  # of the mean: every patch has unit variance
    stacked = np.mean(right, axis=0)
    assert stacked[8, 8] > 10 * error
    assert abs(np.mean(swapped, axis=0)[8, 8]) < 4 * error
    peak = np.unravel_index(stacked.argmax(), stacked.shape)
    assert max(abs(peak[0] - 8), abs(peak[1] - 8)) <= 1


@pytest.mark.realdata
def test_real_ser_frames_read_alone_as_the_reader_gives_them(shared_data):
    from rsciio.tia import file_reader

    from adatom.frames.readers.vendor import ser_frame_loader

    path = shared_data / V / "SrTiO3_tia.ser"
    whole = file_reader(str(path))[0]["data"]
    assert np.array_equal(ser_frame_loader(path, whole.dtype)(0), whole)


@pytest.mark.realdata
def test_real_ncem_rows_stay_rows(shared_data):
    path = shared_data / V / "SrTiO3_ncem.emd"
    with h5py.File(path) as f:
        assert f["data/single/dim1"].attrs["name"] == b"Y"
        assert np.array_equal(read(path).load(0), f["data/single/data"][()])


@pytest.mark.realdata
def test_real_velox_dose(shared_data):
    """27.27 pA x 20 µs on (0.08006 Å)²."""
    dose = read(shared_data / V / "Au_twin_velox.emd").dose_per_A2
    assert dose == pytest.approx(27.27e-12 * 20e-6 / 1.602177e-19 / 0.08006**2, rel=1e-3)


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name", ["perovskite_uncalibrated.dm3", "BTO_crystal_1.dm4", "SrTiO3_tia.ser",
             "SrTiO3_ncem.emd", "Au_twin_velox.emd", "perovskite_abf_stack.hspy",
             "perovskite_adf_atomap.hdf5"],
)  # fmt: skip
def test_real_truncated(shared_data, tmp_path, name):
    content = (shared_data / V / name).read_bytes()
    for share in (0.0002, 0.02, 0.5, 0.95):
        cut = tmp_path / name
        cut.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(BadInput, match=name):
            read(cut)


@pytest.mark.realdata
def test_real_tables_are_refused(shared_data):
    for name in ("simulated/BN-coordinates-clean.npy", "mose2/GB_2H3R_MoSe2_pts_xy.npy",
                 "graphene_si_library/index.csv", "cdte_twin_dm3/bicrystal.POSCAR.vasp",
                 "cdte_twin_dm3/image_credit.txt", "vendor_formats"):  # fmt: skip
        with pytest.raises(BadInput):
            read(shared_data / name)


def test_frames_that_are_kept_are_read_once_and_the_rest_each_time():
    from adatom.core import Calibration, Movie

    reads = []

    def load(i):
        reads.append(i)
        return np.random.default_rng(i).random((32, 32)).astype(np.float32)

    movie = Movie(load, 3, (32, 32), Calibration(0.1), "made", "made")
    kept = movie.cached(2 * 32 * 32 * 4)  # room for two
    for _ in range(3):
        for i, frame in enumerate(kept):
            np.testing.assert_array_equal(frame.data, movie.load(i))
            reads.pop()
    assert [reads.count(i) for i in range(3)] == [1, 1, 3]
    assert kept.recalibrated(Calibration(0.2)).released().load is load


def test_nothing_heavy_is_imported_for_an_array_file(tmp_path):
    np.save(tmp_path / "a.npy", frames())
    program = (
        "import sys; from adatom.frames import read; movie = read(sys.argv[1], pixel_size_A=0.1); "
        "movie[0]; print({'rsciio', 'torch', 'dask'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.npy"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "set()"
