"""One rectangular frame with oblong pixels in six formats gives one table of atoms."""

import json

import h5py
import numpy as np
import polars as pl
import pytest
import rsciio.hspy
import tifffile
import zarr
from scipy.spatial import cKDTree

from frame_files import signal
from sheets import graphene_frame
from small import adatom

pytestmark = pytest.mark.slow
ROW_NM, COLUMN_NM = 0.012, 0.018  # pixels are binned from squares of 0.006 nm


@pytest.fixture(scope="module")
def image():
    counts = graphene_frame(7, px=0.06, counts=8.0, field=(32.34, 23.94)).frame.data
    rows, columns = counts.shape[0] // 2, counts.shape[1] // 3
    return counts.reshape(rows, 2, columns, 3).sum(axis=(1, 3)).astype(np.float32)


def write_imagej(path, data):
    tifffile.imwrite(
        path, data, imagej=True, resolution=(1 / COLUMN_NM, 1 / ROW_NM),
        metadata={"axes": "YX", "unit": "nm"},
    )  # fmt: skip


def write_ome(path, data):
    sizes = {"PhysicalSizeX": COLUMN_NM, "PhysicalSizeY": ROW_NM}
    units = {"PhysicalSizeXUnit": "nm", "PhysicalSizeYUnit": "nm"}
    tifffile.imwrite(path, data, metadata={"axes": "YX", **sizes, **units})


def write_hspy(path, data):
    made = signal(data)
    for axis, step in zip(made["axes"], (ROW_NM, COLUMN_NM), strict=True):
        axis["scale"] = step
    rsciio.hspy.file_writer(str(path), made)


def write_nsid(path, data):
    """As pyNSID 0.0.7 writes an image: x first."""
    with h5py.File(path, "w") as file:
        group = file.create_group("Measurement_000/Channel_000/HAADF")
        main = group.create_dataset("HAADF", data=data.T)
        main.attrs["data_type"] = "IMAGE"
        for i, (name, step) in enumerate((("x", COLUMN_NM), ("y", ROW_NM))):
            scale = group.create_dataset(name, data=np.arange(main.shape[i]) * step)
            scale.attrs.update({"name": name, "units": "nm", "dimension_type": "SPATIAL"})
            scale.make_scale(name)
            main.dims[i].label = name
            main.dims[i].attach_scale(scale)


def write_npz(path, data):
    rows, columns = data.shape
    about = {
        "field_of_view_x": columns * COLUMN_NM, "field_of_view_y": rows * ROW_NM,
        "field_of_view_units": "nm",
    }  # fmt: skip
    np.savez(path, images=data, **about)


def write_zarr(path, data):
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "yx"]
    scale = [{"type": "scale", "scale": [ROW_NM, COLUMN_NM]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    about = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": levels}]}
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=data)
    group.attrs.update(about)


WRITERS = {
    "a.tif": write_imagej, "a.ome.tif": write_ome, "a.hspy": write_hspy, "a.h5": write_nsid,
    "a.npz": write_npz, "a.zarr": write_zarr,
}  # fmt: skip


def test_all_formats_give_the_same_atoms(image, tmp_path):
    assert image.shape == (200, 180)
    tables = {}
    for name, write in WRITERS.items():
        write(tmp_path / name, image)
        out = tmp_path / f"{name}.out"
        done = adatom("find", tmp_path / name, "-m", "graphene", "--adapt", "never", "--json",
                      "-o", out)  # fmt: skip
        assert done.returncode == 0, (name, done.stderr)
        assert json.loads(done.stdout)
        tables[name] = pl.read_parquet(out / "atoms.parquet")
    first = tables["a.tif"].select("x_A", "y_A").to_numpy()
    assert len(first) > 200
    # The graphene is there at its true size, so rows and columns were not taken for each other.
    bonds = cKDTree(first).query(first, k=2)[0][:, 1]
    assert np.median(bonds) == pytest.approx(1.42, abs=0.05)
    for name, table in tables.items():
        xy = table.select("x_A", "y_A").to_numpy()
        assert len(xy) == len(first), name
        assert cKDTree(first).query(xy)[0].max() < 1e-3, name
