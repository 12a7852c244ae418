"""Real files of microscopes, with the scale that their publications give."""

import csv

import h5py
import numpy as np
import pytest

from adatom.errors import BadInput
from adatom.frames import read

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
    dose = read(shared_data / V / "Au_twin_velox.emd").acquisition.dose_per_A2
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
