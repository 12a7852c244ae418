"""Frames that somebody else takes: a movie that is replayed, and a directory that fills."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from adatom.campaign.folder import FOLDER, FolderOptions
from adatom.campaign.replay import REPLAY, Replay, ReplayOptions
from adatom.conformance import check_instrument
from adatom.core import GRAPHENE, Acquisition, BeamConditions, ScanRequest
from adatom.errors import BadInput, DamagedFile, InstrumentGone, NoFrame, NoMoreFrames
from adatom.frames.readers.read import read

ANY = ScanRequest((0.0, 0.0), 16.0, 64, 1e5)


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 4000, (40, 56)).astype(np.uint16)


def write(path, seed=0, size_A=0.1):
    tifffile.imwrite(path, image(seed), imagej=True, resolution=(1 / size_A, 1 / size_A),
                     metadata={"unit": "angstrom"})  # fmt: skip


def folder(path, **options):
    given = {"settle_s": 0.02, "grace_s": 0.2, "poll_s": 0.01, "longest_wait_s": 0.5, **options}
    return FOLDER.open(FolderOptions(path=str(path), **given), GRAPHENE)


def test_replay_and_folder_conform(tmp_path):
    for k in range(4):
        write(tmp_path / f"scan_{k}.tif", seed=k)
    files = tuple(str(p) for p in sorted(tmp_path.iterdir()))
    check_instrument(REPLAY, options=ReplayOptions(paths=files, frames_per_s=50.0))
    watched = FolderOptions(path=str(tmp_path), existing=True, settle_s=0.0, poll_s=0.01)
    check_instrument(FOLDER, options=watched)


def test_a_replay_keeps_its_rate_skips_nothing_and_ends(tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", np.stack([image(k) for k in range(5)]))
    options = ReplayOptions(
        paths=(str(tmp_path / "movie.tif"),), pixel_size_A=0.1, frames_per_s=50.0, dose_per_A2=3e4
    )
    replay = REPLAY.open(options, GRAPHENE)
    time.sleep(0.05)
    frames = [replay.acquire(ANY) for _ in range(5)]
    assert replay.time_s >= 5 / 50
    assert [f.index for f in frames] == list(range(5))
    np.testing.assert_array_equal(frames[3].data, image(3))
    assert frames[0].dose_per_A2 == 3e4
    with pytest.raises(NoMoreFrames, match="after 5 frames"):
        replay.acquire(ANY)
    with pytest.raises(BadInput, match="paths"):
        REPLAY.open(ReplayOptions(), GRAPHENE)
    with pytest.raises(BadInput, match="pixel size"):
        REPLAY.open(options.model_copy(update={"pixel_size_A": None}), GRAPHENE)


def test_an_abort_ends_the_wait_and_nothing_is_lost(tmp_path):
    write(tmp_path / "one.tif")
    slow = ReplayOptions(paths=(str(tmp_path / "one.tif"),), frames_per_s=2.0)
    replay = REPLAY.open(slow, GRAPHENE)
    threading.Timer(0.05, replay.abort).start()
    with pytest.raises(NoFrame, match="abort"):
        replay.acquire(ANY)
    assert replay.acquire(ANY).index == 0


def test_a_half_written_file_is_waited_for_and_others_come_meanwhile(tmp_path):
    microscope = folder(tmp_path, grace_s=5.0, longest_wait_s=5.0)
    write(tmp_path / "done.tif", seed=7)
    whole = (tmp_path / "done.tif").read_bytes()
    (tmp_path / "done.tif").unlink()
    (tmp_path / "scan_1.tif").write_bytes(whole[:900])
    write(tmp_path / "scan_2.tif", seed=2)
    assert microscope.acquire(ANY).index == 2

    def finish():
        with (tmp_path / "scan_1.tif").open("ab") as file:
            file.write(whole[900:])

    threading.Timer(0.1, finish).start()
    late = microscope.acquire(ANY)
    assert late.index == 1
    np.testing.assert_array_equal(late.data, image(7))


def test_a_damaged_file_is_told_once_and_the_next_one_comes(tmp_path):
    write(tmp_path / "scan_0.tif", seed=1)
    microscope = folder(tmp_path)
    with pytest.raises(NoFrame, match="none"):  # it was there before
        microscope.acquire(ANY)
    (tmp_path / "scan_1.tif").write_bytes(b"II*\0" + b"\xff" * 300)
    with pytest.raises(DamagedFile, match="scan_1"):
        microscope.acquire(ANY)
    write(tmp_path / "scan_2.tif", seed=2)
    assert microscope.acquire(ANY).index == 2
    write(tmp_path / "scan_2.tif", seed=3)  # the program writes the same file again
    np.testing.assert_array_equal(microscope.acquire(ANY).data, image(3))


def test_a_file_of_several_frames_gives_them_in_turn(tmp_path):
    microscope = folder(tmp_path, pixel_size_A=0.1)
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([image(k) for k in range(3)]))
    frames = [microscope.acquire(ANY) for _ in range(3)]
    assert [f.index for f in frames] == [0, 1, 2]
    np.testing.assert_array_equal(frames[2].data, image(2))


def test_a_directory_that_goes_is_told(tmp_path):
    with pytest.raises(BadInput, match="a directory"):
        folder(tmp_path / "none")
    (tmp_path / "gone").mkdir()
    microscope = folder(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InstrumentGone, match="Mount"):
        microscope.acquire(ANY)


def test_a_replay_has_the_voltage_of_its_files_unless_told_otherwise(tmp_path):
    write(tmp_path / "one.tif")
    movie = replace(
        read(tmp_path / "one.tif"), acquisition=Acquisition(voltage_kV=80.0, current_pA=20.0)
    )
    assert Replay(movie, ReplayOptions()).conditions == BeamConditions(80.0, 20.0)
    assert Replay(movie, ReplayOptions(voltage_kV=60.0)).conditions == BeamConditions(60.0, 20.0)
    unknown = replace(movie, acquisition=Acquisition())
    assert Replay(unknown, ReplayOptions()).conditions == BeamConditions(60.0, 50.0)
