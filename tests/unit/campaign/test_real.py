"""Real micrographs: what the shipped networks find against what others published of them."""

import csv
from collections import defaultdict

import h5py
import numpy as np
import polars as pl
import pytest
from scipy.spatial import cKDTree

from adatom.analysis.frame import calibrator_of
from adatom.analysis.lattice import lattice_of
from adatom.analysis.naming import name_defects
from adatom.core import GRAPHENE, AtomTable
from adatom.features.find import find as find_all
from adatom.frames import read
from adatom.frames.lattice.spectrum import TRUSTED_CONTRAST, estimate_scale
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.predict import predict_tiles
from adatom.materials.library import load_material

pytestmark = pytest.mark.realdata
NEAR_A = 0.6


@pytest.fixture(scope="module")
def find():
    use_threads(2)
    ensemble = weights.load_shipped("graphene")
    calibrator = calibrator_of(ensemble)

    def run(frame):
        atoms = find_all(frame, predict_tiles(frame, ensemble), GRAPHENE, calibrator).atoms
        return AtomTable(atoms.data.filter(pl.col("p_exists") > 0.5))

    return run


def silicon(atoms):
    return atoms.xy[atoms.elements == "Si"]


def inside(xy, low, high):
    return xy[np.all((xy > low) & (xy < np.asarray(high)), axis=1)]


def test_grain_boundary_agrees_with_its_published_atoms(shared_data, find):
    folder = shared_data / "graphene_raw"
    frame = read(folder / "G-GrainBoundary-4nm.hdf5")[0]
    rc = np.loadtxt(
        folder / "G-GrainBoundary-4nm_published_network_coordinates.csv", delimiter=",", skiprows=1
    )
    atoms = find(frame)
    # What one side has just inside of the border, the other may have just outside of it.
    border, far = 10 * frame.calibration.pixel_size_A, frame.calibration.extent_xy(frame.shape)
    published = frame.calibration.xy(rc)
    theirs, ours = (inside(xy, border, np.subtract(far, border)) for xy in (published, atoms.xy))
    recall = (cKDTree(atoms.xy).query(theirs)[0] < NEAR_A).mean()
    precision = (cKDTree(published).query(ours)[0] < NEAR_A).mean()
    f1 = 2 * precision * recall / (precision + recall)
    print(f"grain boundary: F1 {f1:.4f} of {len(ours)} found, {len(theirs)} published")
    assert len(theirs) > 500
    assert f1 > 0.97
    assert not len(silicon(atoms))


def library(shared_data, count):
    """Frames of the library in equal steps, with all silicon of each whose label can be trusted."""
    folder = shared_data / "graphene_si_library"
    keys = defaultdict(list)
    with (folder / "index.csv").open() as file:
        for row in csv.DictReader(file):
            if row["si_ok"] == "1":
                keys[row["file"]].append(row["defect_key"])
    names = sorted(keys)
    for name in names[:: len(names) // count][:count]:
        with h5py.File(folder / name) as file:
            rows = [r for key in keys[name] for r in file[key][:].tolist()]
        xy = np.array([[float(x), float(y)] for x, y, element in rows if element == b"Si"])
        yield name, read(folder / name)[0], xy


def test_silicon_of_the_library_is_found(shared_data, find):
    found = labelled = frames = 0
    for name, frame, px in library(shared_data, 20):
        atoms = find(frame)
        si, truth = silicon(atoms), px * frame.calibration.pixel_size_A
        hits = int((cKDTree(si).query(truth)[0] < NEAR_A).sum()) if len(si) else 0
        if hits < len(truth):
            print(f"{name}: {hits} of {len(truth)}, {len(si)} Si found")
        found, labelled, frames = found + hits, labelled + len(truth), frames + 1
    print(f"library: {found} of {labelled} silicon atoms in {frames} frames")
    assert frames == 20
    assert found / labelled >= 0.95


@pytest.mark.parametrize("number", [0, 13, 40])
def test_the_trimer_of_the_movie_is_found_and_named(shared_data, find, number):
    folder = shared_data / "graphene_si_movie"
    frame = read(folder / "si3c6_trimer_rotating.tif", pixel_size_A=0.078125)[number]
    with (folder / "si3c6_trimer_rotating_labels.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if int(r["stack_index"]) == number]
    truth = np.array([[float(r["x_px"]), float(r["y_px"])] for r in rows if r["element"] == "Si"])
    truth = truth * frame.calibration.pixel_size_A
    atoms = find(frame)
    assert len(truth) == 3
    assert cKDTree(silicon(atoms)).query(truth)[0].max() < NEAR_A
    lattice = lattice_of(atoms, GRAPHENE)
    defects = name_defects(frame, atoms, lattice, GRAPHENE)
    here = np.linalg.norm(defects.xy - truth.mean(axis=0), axis=1) < 1.5
    assert [k for k, h in zip(defects.kinds, here, strict=True) if h] == ["Si3C6"]
    assert lattice is not None
    carbon = lattice.undistort(atoms.xy[atoms.elements == "C"])
    # All bonds, since the nearest of three noisy neighbours is too near on average.
    i, j = cKDTree(carbon).query_pairs(1.85, output_type="ndarray").T
    bond = np.median(np.linalg.norm(carbon[i] - carbon[j], axis=1))
    assert 1.40 < bond < 1.44


@pytest.mark.parametrize(
    ("name", "material", "true_A"),
    [
        ("SrTiO3_tia.ser", "SrTiO3", 0.0965),
        ("SrTiO3_ncem.emd", "SrTiO3", 0.117),
        ("BTO_crystal_1.dm4", "BaTiO3", 0.304),
        ("BTO_crystal_2.dm4", "BaTiO3", 0.365),
        ("Au_twin_velox.emd", "Au", 0.0785),
    ],
)
def test_the_scale_of_other_crystals_is_read_near_the_file_s(shared_data, name, material, true_A):
    frame = read(shared_data / "vendor_formats" / name)[0]
    given = frame.calibration.pixel_size_A
    found = estimate_scale([frame.data], load_material(material), expected_A=given)
    assert found.contrast > TRUSTED_CONTRAST
    assert found.pixel_size_A == pytest.approx(true_A, rel=0.02)
    assert found.pixel_size_A == pytest.approx(given, rel=0.06)
