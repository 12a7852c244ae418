"""Frames and maps come back from OME-Zarr as written, and damage is noticed."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from adatom.errors import BadInput, StepFailed
from adatom.store import MAPS, load_frames, load_maps, open_frames, open_maps


def some_maps(i: int, shape=(2, 24, 32)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(i)
    return {name: rng.uniform(0, 0.6, shape).astype(np.float32) for name in MAPS}


def test_frames_and_maps_come_back(tmp_path):
    image = np.random.default_rng(0).normal(3, 1, (24, 32)).astype(np.float32)
    frames = open_frames(tmp_path / "frames.zarr", 4, (24, 32), 0.078125)
    output = frames.write(2, image)
    assert frames.hash(2) == output == frames.write(2, image)
    np.testing.assert_array_equal(load_frames(tmp_path / "frames.zarr").read(2), image)
    assert frames.hash(1) == ""
    with pytest.raises(StepFailed, match="frame 1"):
        frames.read(1)
    with pytest.raises(IndexError):
        frames.write(-1, image)
    with pytest.raises(ValueError, match="shape"):
        frames.write(0, image.T)

    maps = open_maps(tmp_path / "maps.zarr", 4, ("C", "Si"), (24, 32), 0.15)
    output = maps.write(3, **some_maps(3))
    again = load_maps(tmp_path / "maps.zarr")
    assert again.classes == ("C", "Si")
    assert again.pixel_size_A == 0.15
    assert again.shape == (4, 2, 24, 32)
    assert again.hash(3) == output
    for name, values in some_maps(3).items():
        back = again.read(3)[name]
        assert back.dtype == np.float32
        np.testing.assert_allclose(back, values, rtol=5e-4, atol=1e-7)
    for name in MAPS:  # the hash covers all four
        chunk = again.images[name].chunk(3)
        whole = chunk.read_bytes()
        chunk.write_bytes(whole[:-1])
        assert again.hash(3) not in ("", output)
        chunk.unlink()
        assert again.hash(3) == ""
        chunk.write_bytes(whole)
    assert again.hash(3) == output
    # A frame of zeros is a frame, not a missing one.
    assert maps.write(0, **dict.fromkeys(MAPS, np.zeros((2, 24, 32)))) == maps.hash(0) != ""
    assert maps.read(0)["mean"].max() == 0


def test_plain_zarr_reads_the_store_with_its_metadata(tmp_path):
    open_frames(tmp_path / "frames.zarr", 3, (24, 32), 0.078125).write(0, np.ones((24, 32)))
    open_maps(tmp_path / "maps.zarr", 3, ("C", "Si"), (24, 32), 0.15).write(1, **some_maps(1))
    for place, axes, scale, dtype in (
        ("frames.zarr", "tyx", [1, 0.078125, 0.078125], "float32"),
        *((f"maps.zarr/{name}", "tcyx", [1, 1, 0.15, 0.15], "float32") for name in MAPS),
    ):
        group = zarr.open(tmp_path / place, mode="r")
        ome = group.attrs["ome"]
        assert ome["version"] == "0.5"
        (image,) = ome["multiscales"]
        assert "".join(axis["name"] for axis in image["axes"]) == axes
        assert [axis["type"] for axis in image["axes"]][-2:] == ["space", "space"]
        assert {axis["unit"] for axis in image["axes"][-2:]} == {"angstrom"}
        (level,) = image["datasets"]
        assert level["coordinateTransformations"] == [{"type": "scale", "scale": scale}]
        array = group[level["path"]]
        assert array.metadata.zarr_format == 3
        assert array.metadata.dimension_names == tuple(axes)
        assert array.dtype == dtype
        assert array.chunks == (1, *array.shape[1:])
        assert np.isnan(array[2]).all()  # never written
    whole = zarr.open(tmp_path / "maps.zarr", mode="r")
    assert whole.attrs["ome"] == {"version": "0.5", "bioformats2raw.layout": 3}
    assert whole["OME"].attrs["ome"]["series"] == list(MAPS)
    channels = zarr.open(tmp_path / "maps.zarr" / "entropy", mode="r").attrs["ome"]["omero"]
    assert [c["label"] for c in channels["channels"]] == ["C", "Si"]
    np.testing.assert_allclose(
        zarr.open(tmp_path / "maps.zarr" / "std", mode="r")["0"][1], some_maps(1)["std"], atol=5e-4
    )


def test_a_torn_or_changed_chunk_is_noticed(tmp_path):
    frames = open_frames(tmp_path / "frames.zarr", 1, (64, 64), 0.1)
    output = frames.write(0, np.random.default_rng(0).normal(size=(64, 64)))
    chunk = frames.image.chunk(0)
    whole = chunk.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[:-7], whole[: len(whole) // 2], b"", bytes(flipped)):
        chunk.write_bytes(damaged)
        assert frames.hash(0) != output
        with pytest.raises(StepFailed, match="whole zarr chunk"):
            frames.read(0)
    chunk.write_bytes(whole)
    assert frames.hash(0) == output
    assert frames.read(0).shape == (64, 64)


def test_another_shape_is_refused_and_more_frames_are_appended(tmp_path):
    path = tmp_path / "maps.zarr"
    output = open_maps(path, 2, ("C", "Si"), (24, 32), 0.15).write(1, **some_maps(1))
    for classes, shape, pixel in (
        (("C", "Si"), (32, 24), 0.15),
        (("C", "Si"), (24, 32), 0.16),
        (("C",), (24, 32), 0.15),
        (("C", "N"), (24, 32), 0.15),
    ):
        with pytest.raises(BadInput, match="from an earlier run"):
            open_maps(path, 2, classes, shape, pixel)
    grown = open_maps(path, 5, ("C", "Si"), (24, 32), 0.15)
    assert grown.shape[0] == 5
    assert grown.hash(1) == output
    grown.write(4, **some_maps(4))
    assert open_maps(path, 2, ("C", "Si"), (24, 32), 0.15).shape[0] == 5
    assert open_maps(path, 2, ("C",), (24, 32), 0.15, replace=True).hash(1) == ""
    assert [p.name for p in tmp_path.iterdir()] == ["maps.zarr"]

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"meow")
    with pytest.raises(BadInput, match="OME-Zarr"):
        open_frames(tmp_path / "photos", 1, (8, 8), 0.1, replace=True)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"meow"


def test_the_time_between_frames_is_in_the_metadata(tmp_path):
    open_frames(tmp_path / "f.zarr", 3, (24, 32), 0.1, frame_time_s=0.4)
    (image,) = zarr.open(tmp_path / "f.zarr", mode="r").attrs["ome"]["multiscales"]
    assert image["axes"][0] == {"name": "t", "type": "time", "unit": "second"}
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == [0.4, 0.1, 0.1]
