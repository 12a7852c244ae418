"""Frames are read right and lazily."""

import shutil
import subprocess
import sys
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from adatom.errors import BadInput
from adatom.frames import read
from adatom.frames.readers.read import natural_key
from frame_files import KINDS, frames, write


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
    released = kept.recalibrated(Calibration(0.2)).released()
    for _ in range(2):
        released.load(0)
    assert reads.count(0) == 3


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
