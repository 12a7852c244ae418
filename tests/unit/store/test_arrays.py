"""Frames and maps come back from OME-Zarr as written, and damage is noticed."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from adatom.errors import BadInput, StepFailed
from adatom.store import MAPS, load_frames, load_maps, open_frames, open_maps
from adatom.store.chunks import codecs

STEPS = {"mean": 256, "std": 256, "entropy": 128, "mutual_information": 2048}


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
        np.testing.assert_allclose(back, values, rtol=0, atol=0.5 / STEPS[name] + 1e-7)
    for name in MAPS:  # the hash covers all four
        chunk = again.images[name].waiting(3)
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
    frames = open_frames(tmp_path / "frames.zarr", 3, (24, 32), 0.078125)
    maps = open_maps(tmp_path / "maps.zarr", 3, ("C", "Si"), (24, 32), 0.15)
    frames.write(0, np.ones((24, 32)))
    maps.write(1, **some_maps(1))
    frames.pack()
    maps.pack()
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
        zarr.open(tmp_path / "maps.zarr" / "std", mode="r")["0"][1],
        some_maps(1)["std"],
        atol=0.5 / STEPS["std"] + 1e-7,
    )


def test_a_torn_or_changed_chunk_is_noticed(tmp_path):
    frames = open_frames(tmp_path / "frames.zarr", 1, (64, 64), 0.1)
    output = frames.write(0, np.random.default_rng(0).normal(size=(64, 64)))
    chunk = frames.image.waiting(0)
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


def test_frames_in_shards_are_the_same_and_are_replaced_one_by_one(tmp_path):
    images = np.random.default_rng(0).normal(size=(7, 8, 9)).astype(np.float32)
    frames = open_frames(tmp_path / "f.zarr", 5, (8, 9), 0.1, together=2)
    hashes = [frames.write(i, images[i]) for i in range(5)]
    frames.pack(1)  # frames 2 and 3
    array = zarr.open(tmp_path / "f.zarr", mode="r")["0"]
    assert (array.shards, array.chunks) == ((2, 8, 9), (1, 8, 9))
    np.testing.assert_array_equal(array[2:4], images[2:4])
    assert np.isnan(array[:2]).all()
    assert [load_frames(tmp_path / "f.zarr").hash(i) for i in range(5)] == hashes
    frames.pack()
    assert [frames.hash(i) for i in range(5)] == hashes
    np.testing.assert_array_equal(array[:], images[:5])

    grown = open_frames(tmp_path / "f.zarr", 7, (8, 9), 0.1, together=2)
    for i, image in ((5, 5), (6, 6), (1, 0)):  # one frame anew in a shard that has two
        grown.write(i, images[image])
    grown.pack()
    array = zarr.open(tmp_path / "f.zarr", mode="r")["0"]
    np.testing.assert_array_equal(array[:], images[[0, 0, 2, 3, 4, 5, 6]])
    shards = sorted(p for p in (tmp_path / "f.zarr").rglob("*") if p.is_file())
    assert len(shards) == 4 + 2  # and two zarr.json
    assert [p.name for p in tmp_path.iterdir()] == ["f.zarr"]


def test_damage_in_a_shard_is_noticed_for_its_frames_alone(tmp_path):
    images = np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)
    frames = open_frames(tmp_path / "f.zarr", 3, (16, 16), 0.1, together=4)
    hashes = [frames.write(i, images[i]) for i in range(3)]
    frames.pack()
    shard = frames.image.shard(0)
    whole = shard.read_bytes()
    shard.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert [frames.hash(i) == hashes[i] for i in range(3)] == [False, True, True]
    with pytest.raises(StepFailed, match="whole zarr chunk of frame 0"):
        frames.read(0)
    frames.write(0, images[0])
    frames.pack()
    assert shard.read_bytes() == whole
    shard.write_bytes(whole[:-1])  # a torn index: no frame can be told from another
    assert [frames.hash(i) for i in range(3)] == ["", "", ""]


def test_a_store_with_one_file_a_frame_is_read_and_made_anew(tmp_path):
    frames = open_frames(tmp_path / "f.zarr", 2, (8, 9), 0.1)
    frames.write(0, np.ones((8, 9)))
    group = zarr.open(tmp_path / "f.zarr", mode="r+")
    chunk = {"chunks": (1, 8, 9), "compressors": codecs(), "fill_value": np.nan}
    group.create_array("0", shape=(2, 8, 9), dtype="float32", overwrite=True, **chunk)
    group["0"][1] = np.full((8, 9), 2.0)
    (tmp_path / ".f.zarr" / "0").unlink()
    assert load_frames(tmp_path / "f.zarr").read(1).max() == 2
    with pytest.raises(BadInput, match=r"shards with frames: 512, got none from an earlier run"):
        open_frames(tmp_path / "f.zarr", 2, (8, 9), 0.1)
    assert open_frames(tmp_path / "f.zarr", 2, (8, 9), 0.1, replace=True).hash(1) == ""


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
    assert [p.name for p in tmp_path.iterdir()] == ["maps.zarr"]  # nor is anything left beside it

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
