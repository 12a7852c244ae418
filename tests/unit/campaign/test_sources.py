"""The reading step: blank frames are left out and said, others stay what they were when read."""

import numpy as np
import pytest

from adatom.campaign.sources import checked_frames
from adatom.errors import BadInput, BlankFrame, StepFailed
from adatom.frames import read
from adatom.parallel.progress import Silent
from frame_files import frames


def test_a_blank_frame_is_left_out_and_said():
    data = frames(5, 32, 32).astype(float)
    data[1], data[3] = 7.0, np.nan
    movie, notes = checked_frames(read(data, pixel_size_A=0.1), Silent())
    assert [np.array_equal(f.data, data[i]) for f, i in zip(movie, (0, 2, 4), strict=True)] == [
        True
    ] * 3
    assert [frame.index for frame in movie] == [0, 1, 2]
    assert "left out of 5 frames" in notes[0]
    assert "frame 1, 3 (every pixel equal to 7)" in notes[0]
    by_hand = read(data, pixel_size_A=0.1, frames="0:1,2:3,4:")
    assert checked_frames(by_hand, Silent())[1] == ()
    assert by_hand.frame_hash(1) == movie.frame_hash(1)
    with pytest.raises(BlankFrame, match="every pixel equal to 7"):
        checked_frames(read(np.full((2, 32, 32), 7.0), pixel_size_A=0.1), Silent())
    data[2, 0, 0] = np.inf
    with pytest.raises(BadInput, match=r"frame 2: .*1 NaN or infinite"):
        checked_frames(read(data, pixel_size_A=0.1), Silent())


def test_a_file_that_changes_during_the_run_is_noticed_and_no_result_takes_its_name(tmp_path):
    data = frames(3, 32, 32)
    np.save(tmp_path / "a.npy", data)
    movie, _ = checked_frames(read(tmp_path / "a.npy", pixel_size_A=0.1), Silent())
    kept, before = movie.released(), [movie.frame_hash(i) for i in range(3)]
    changed = data.copy()
    changed[1] += 1
    np.save(tmp_path / "a.npy", changed)
    assert np.array_equal(movie[1].data, data[1])  # in memory
    assert np.array_equal(kept[2].data, data[2])  # the same in both
    with pytest.raises(StepFailed, match=r"a\.npy, frame 1: .*changed during the run"):
        kept[1]
    again, _ = checked_frames(read(tmp_path / "a.npy", pixel_size_A=0.1), Silent())
    assert [again.frame_hash(i) == before[i] for i in range(3)] == [True, False, True]
