"""Voltage, detector, times and dose of the files that carry them."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
import rsciio.hspy
import tifffile

from adatom.campaign.recording import recording_in_words, with_detector, with_recording
from adatom.core import GRAPHENE, Acquisition, Calibration, Movie
from adatom.core.acquisition import ASSUMED_KV
from adatom.frames import read
from adatom.frames.readers.recorded import recorded_in_tree, recorded_in_vendor_file
from adatom.materials.library import load_material
from frame_files import signal

IMAGES = np.random.default_rng(0).random((3, 40, 48)).astype(np.float32)
REAL = [  # file, options, voltage, detector, time of a frame, dwell, current
    ("vendor_formats/Au_twin_velox.emd", {}, 200.0, (72.88, 200.0), 22.589, 2e-5, 27.27),
    ("vendor_formats/SrTiO3_ncem.emd", {}, 200.0, None, None, 1e-6, None),
    ("cdte_twin_dm3/HAADF26.dm3", {}, 200.0, None, None, 6.36e-5, None),
    ("graphene_raw/G-GrainBoundary-4nm.hdf5", {}, 60.0, None, None, None, None),
    ("graphene_raw/G-dimSi.hdf5", {}, None, None, None, None, None),
    ("mos2/MoS2_stem_Exp-000-2.npy", {}, 60.0, None, None, None, 30.0),
    ("vendor_formats/BTO_crystal_1.dm4", {}, None, None, None, None, None),
]


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "options", "kV", "mrad", "frame_s", "dwell_s", "pA"), REAL)
def test_real_files(shared_data, name, options, kV, mrad, frame_s, dwell_s, pA):
    movie = read(shared_data / name, **options)
    found = movie.acquisition
    assert found.voltage_kV == kV
    assert found.detector_mrad == (None if mrad is None else pytest.approx(mrad, rel=1e-3))
    assert found.frame_time_s == (None if frame_s is None else pytest.approx(frame_s, rel=1e-3))
    assert found.dwell_s == (None if dwell_s is None else pytest.approx(dwell_s, rel=1e-3))
    assert found.current_pA == (None if pA is None else pytest.approx(pA, rel=1e-3))


@pytest.mark.realdata
def test_dose_of_a_real_file_is_current_times_dwell_over_the_pixel(shared_data):
    movie = read(shared_data / "vendor_formats/Au_twin_velox.emd")
    pixel = movie.calibration.pixel_size_A
    dose = 27.2698639833903e-12 * 2e-5 / 1.602176634e-19 / pixel**2
    assert movie.acquisition.dose_per_A2 == pytest.approx(dose)
    # A pixel size of the user's own makes another dose of the same electrons.
    other = read(shared_data / "vendor_formats/Au_twin_velox.emd", pixel_size_A=2 * pixel)
    assert other.acquisition.dose_per_A2 == pytest.approx(dose / 4)


def test_hyperspy_file_and_its_metadata(tmp_path):
    tem = {"beam_energy": 80.0, "beam_current": 0.02, "dwell_time": 1e-5}
    made = signal(IMAGES, scale=0.012, units="nm")
    made["metadata"]["Acquisition_instrument"] = {"TEM": tem}
    rsciio.hspy.file_writer(str(tmp_path / "made.hspy"), made)
    found = read(tmp_path / "made.hspy").acquisition
    assert (found.voltage_kV, found.current_pA, found.dwell_s) == (80.0, 20.0, 1e-5)
    assert found.dose_per_A2 == pytest.approx(20e-12 * 1e-5 / 1.602176634e-19 / 0.12**2)


def test_pynsid_nion_and_json_beside(tmp_path):
    with h5py.File(tmp_path / "nsid.h5", "w") as file:
        channel = file.create_group("Measurement_000/Channel_000/image")
        channel["image"] = IMAGES
        about = channel.create_group("metadata")
        about.attrs["experiment-acceleration_voltage"] = 6e4
        about.attrs["experiment-pixel_time"] = 4e-6
    found = read(tmp_path / "nsid.h5", pixel_size_A=0.12).acquisition
    assert (found.voltage_kV, found.dwell_s) == (60.0, 4e-6)
    nion = {
        "is_sequence": True, "datum_dimension_count": 2,
        "metadata": {"instrument": {"high_tension": 1e5},
                     "hardware_source": {"exposure": 2.1, "pixel_time_us": 16.0}},
    }  # fmt: skip
    with h5py.File(tmp_path / "nion.h5", "w") as file:
        file["data"] = IMAGES
        file["data"].attrs["properties"] = json.dumps(nion)
    found = read(tmp_path / "nion.h5", pixel_size_A=0.12).acquisition
    assert (found.voltage_kV, found.frame_time_s, found.dwell_s) == (100.0, 2.1, 1.6e-5)
    np.save(tmp_path / "beside.npy", IMAGES)
    (tmp_path / "beside.json").write_text(json.dumps({"voltage": "60 kV", "frame time": "500 ms"}))
    found = read(tmp_path / "beside.npy", pixel_size_A=0.12).acquisition
    assert (found.voltage_kV, found.frame_time_s) == (60.0, 0.5)


def test_times_of_imagej_and_ome(tmp_path):
    tifffile.imwrite(tmp_path / "imagej.tif", IMAGES, imagej=True,
                     metadata={"axes": "TYX", "finterval": 0.25, "unit": "nm"})  # fmt: skip
    assert read(tmp_path / "imagej.tif", pixel_size_A=0.12).acquisition.frame_time_s == 0.25
    about = {"axes": "TYX", "TimeIncrement": 40.0, "TimeIncrementUnit": "ms"}
    tifffile.imwrite(tmp_path / "made.ome.tif", IMAGES, ome=True, metadata=about)
    assert read(tmp_path / "made.ome.tif", pixel_size_A=0.12).acquisition.frame_time_s == 0.04


def test_detector_of_velox_is_the_one_that_took_the_image():
    def detector(name, begin, end):
        return {"DetectorName": name, "CollectionAngleRange": {"begin": begin, "end": end}}

    tags = {
        "BinaryResult": {"Detector": "HAADF"}, "Optics": {"AccelerationVoltage": "60000"},
        "Scan": {"DwellTime": "1e-5", "LineIntegrationCount": "2"},
        "Detectors": {"Detector-0": detector("DF-S", "0.02", "0.05"),
                      "Detector-1": detector("HAADF", "0.08", "0.2")},
    }  # fmt: skip
    found = recorded_in_vendor_file({"original_metadata": tags, "metadata": {}})
    assert found.detector_mrad == pytest.approx((80.0, 200.0))
    assert (found.voltage_kV, found.dwell_s) == (60.0, pytest.approx(2e-5))
    tags["BinaryResult"]["Detector"] = "BF"  # a disc, or one without angles
    assert recorded_in_vendor_file({"original_metadata": tags}).detector_mrad is None


@pytest.mark.parametrize(
    "value",
    ["NA", "", None, -60.0, 0.0, float("nan"), float("inf"), [60.0], "60 parsec", 1e9, True],
)
def test_what_is_no_voltage_is_not_known(value):
    assert recorded_in_tree({"voltage": value}).voltage_kV is None


def movie_of(acquisition, count=3):
    return Movie(
        lambda i: IMAGES[i], count, (40, 48), Calibration(0.1), "made", "made", acquisition
    )


def test_options_go_before_files_and_the_rest_is_assumed_and_said():
    told, notes = with_recording(movie_of(Acquisition(voltage_kV=80.0)), Acquisition(), GRAPHENE)
    assert told.acquisition.voltage_kV == 80.0
    assert not notes
    given = Acquisition(voltage_kV=100.0, dose_per_A2=500.0)
    told, notes = with_recording(movie_of(Acquisition(voltage_kV=80.0)), given, GRAPHENE)
    assert (told.acquisition.voltage_kV, told.acquisition.dose_per_A2) == (100.0, 500.0)
    told, (note,) = with_recording(movie_of(Acquisition(dwell_s=1e-4)), Acquisition(), GRAPHENE)
    assert told.acquisition.usual_voltage_kV == ASSUMED_KV
    assert "60 kV (`voltage_kV`)" in note
    assert "0.192 s from frame to frame" in note  # 40 x 48 pixels of 0.1 ms
    assert told.acquisition.frame_time_s == pytest.approx(0.192)
    # Without a threshold, nothing depends on the voltage.
    gold = load_material("Au")
    assert with_recording(movie_of(Acquisition(), 1), Acquisition(), gold)[1] == ()


def test_files_that_differ_are_told(tmp_path):
    for name, kV in (("a", 60), ("b", 80)):
        np.save(tmp_path / f"{name}.npy", IMAGES[0])
        (tmp_path / f"{name}.json").write_text(json.dumps({"voltage": f"{kV} kV"}))
    movie = read([tmp_path / "a.npy", tmp_path / "b.npy"], pixel_size_A=0.12)
    assert movie.acquisition.voltage_kV is None
    assert "differ in voltage_kV" in " ".join(movie.notes)


def test_the_detector_sets_the_contrast():
    narrow = with_detector(GRAPHENE, Acquisition(voltage_kV=60.0, detector_mrad=(50.0, 200.0)))
    wide = with_detector(GRAPHENE, Acquisition(voltage_kV=60.0, detector_mrad=(80.0, 200.0)))
    assert narrow.exponents[1] < wide.exponents[0] + 0.2
    assert wide.exponents == (1.87, 2.0)
    # The same angle scatters as a larger one would at 60 kV.
    faster = with_detector(GRAPHENE, Acquisition(voltage_kV=200.0, detector_mrad=(50.0, 200.0)))
    assert faster.exponents[0] > narrow.exponents[0]
    assert with_detector(GRAPHENE, Acquisition()) is GRAPHENE
    assert "detector 80 to 200 mrad" in recording_in_words(Acquisition(detector_mrad=(80, 200)))


def test_command_line_says_what_it_used(tmp_path):
    import adatom as ad

    frames, pixel = ad.example_frames(1)
    np.save(tmp_path / "frame.npy", frames)
    about = {"voltage": "80 kV", "pixel_size_A": pixel, "collection_angles_mrad": [80, 200]}
    (tmp_path / "frame.json").write_text(json.dumps(about))
    command = [
        sys.executable,
        "-m",
        "adatom",
        "find",
        str(tmp_path / "frame.npy"),
        "-m",
        "graphene",
    ]
    command += ["--adapt", "never", "--json"]
    told = subprocess.run(
        [*command, "-o", str(tmp_path / "a")], capture_output=True, text=True, check=True
    )
    summary = json.loads(told.stdout)
    assert summary["recording"]["voltage_kV"] == 80.0
    assert summary["recorded"] == "80 kV, detector 80 to 200 mrad"
    assert "assumed" not in told.stderr
    (tmp_path / "frame.json").write_text(json.dumps({"pixel_size_A": pixel}))
    told = subprocess.run(
        [*command, "-o", str(tmp_path / "b")], capture_output=True, text=True, check=True
    )
    assert "assumed: an acceleration voltage of 60 kV (--voltage)" in told.stderr
    given = [*command, "-o", str(tmp_path / "c"), "--voltage", "100", "--dose", "900"]
    told = subprocess.run(given, capture_output=True, text=True, check=True)
    assert json.loads(told.stdout)["recorded"] == "100 kV, 900 e⁻/Å² a frame"
    assert "assumed" not in told.stderr
