"""Files of the kinds in public bug reports: read right, or refused with what settles it."""

import json

import h5py
import numpy as np
import pytest
from scipy.spatial import cKDTree

import adatom as ad
from adatom.campaign.sources import checked_frames
from adatom.errors import BadInput
from adatom.frames import read
from adatom.parallel.progress import Silent
from small import adatom


@pytest.fixture(scope="module")
def cases(shared_data):
    path = shared_data.parent / "cases"
    if not path.is_dir():
        pytest.skip("the small inputs of ../shared/cases are not here")
    return path


READ = [  # file, options of read, frames, shape, words in the notes
    ("nsid_x_y.h5", {}, 1, (150, 220), "x is read as columns"),
    ("two_detectors_haadf_maadf.tif", {"dataset": "0"}, 1, (224, 224), "channel 0 is read"),
    ("imagej_TCYX.tif", {"dataset": "channel 1"}, 3, (224, 224), "channel 1 is read"),
    ("square_field_rect_pixels.npy", {}, 1, (200, 200), "0.12 Å high and 0.1 Å wide"),
    ("stack_y_x_4.npy", {"axes": "yxt"}, 4, (224, 224), ""),
    ("stack_y_x_20.npy", {}, 20, (120, 120), "20 frames of 120 x 120"),
    ("one_frame_of_another_size.tif", {}, 3, (224, 224), "left out: frame 2 (200 x 224)"),
    ("emdfile_y_x_5.h5", {}, 1, (160, 224), "HAADF is read"),
    ("emdfile_y_x_5.h5", {"axes": "yxt"}, 5, (160, 224), ""),
    ("blank_in_middle.npz", {}, 5, (200, 200), "left out of 6 frames"),
    ("blank_in_middle.npz", {"frames": ":3,4:"}, 5, (200, 200), ""),
]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "options", "count", "shape", "words"), READ)
def test_cases_that_are_read(cases, name, options, count, shape, words):
    read_movie = read(cases / name, **options)
    movie, left_out = checked_frames(read_movie, Silent())
    assert (len(movie), movie.shape) == (count, shape)
    assert words in " ".join((*movie.notes, *left_out))
    if movie.calibration is not None:
        assert movie.calibration.pixel_size_A == pytest.approx(0.12)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("two_detectors_haadf_maadf.tif", r"0 channel 0 .*1 channel 1 .*`dataset`"),
        ("imagej_TCYX.tif", r"0 channel 0 .*1 channel 1 .*`dataset`"),
        ("stack_y_x_4.npy", r"4 frames of \(row, col, frame\).*`axes` yxt"),
    ],
)
def test_cases_that_ask(cases, name, words):
    with pytest.raises(BadInput, match=words):
        read(cases / name)


@pytest.mark.realdata
def test_rows_of_the_nsid_case_are_its_y(cases):
    with h5py.File(cases / "nsid_x_y.h5") as file:
        data = file["Measurement_000/Channel_000/HAADF/HAADF"][()]
    assert np.array_equal(read(cases / "nsid_x_y.h5").load(0), data.T)


@pytest.mark.slow
@pytest.mark.realdata
def test_rectangular_pixels_lose_no_vacancy(cases, tmp_path):
    """The same from Python and from the command line: the vacancy, and positions in Å."""
    path = cases / "square_field_rect_pixels.npy"
    with np.load(cases / "square_field_truth.npz") as truth:
        xy, vacancy = truth["xy"], truth["vac"][0]
    with pytest.warns(UserWarning, match="rectangular pixels"):
        atoms = ad.find(path)
    defects = ad.find_defects(path, atoms)
    near = cKDTree(xy).query(atoms.xy[atoms.is_likely])[0]
    assert np.median(near) < 0.1
    assert (near < 0.5).mean() > 0.99
    row = defects.data.filter(defects.data["kind"] == "V1").row(0, named=True)
    assert (row["x_A"], row["y_A"]) == pytest.approx(tuple(vacancy), abs=0.5)
    done = adatom("find", path, "-m", "graphene", "--json", "-o", tmp_path / "out")
    assert json.loads(done.stdout)["defect_frames"]["V1"] == 1
    assert "rectangular pixels" in done.stderr


@pytest.mark.slow
@pytest.mark.realdata
def test_a_blank_frame_does_not_stop_the_others(cases, tmp_path):
    done = adatom(
        "find", cases / "blank_in_middle.npz", "-m", "graphene", "--json", "-o", tmp_path / "out"
    )
    assert json.loads(done.stdout)["frames"] == 5
    assert "left out of 6 frames" in done.stderr
    asked = adatom("find", cases / "imagej_TCYX.tif", "-o", tmp_path / "other")
    assert asked.returncode == 2
    assert "--dataset" in asked.stderr
