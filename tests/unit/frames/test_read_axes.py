"""Labels, units and order of the axes decide what is a frame, a row, a column and a channel."""

import json

import dask.array
import h5py
import numpy as np
import pytest
import rsciio.hspy
import tifffile
import zarr

from adatom.errors import BadInput
from adatom.frames import read
from adatom.store import open_frames
from frame_files import frames, signal

STEP_NM = 0.012


def image(rows=24, columns=36, seed=0):
    return frames(1, rows, columns, seed)[0]


def write_nsid(path, data, dims, kinds=("SPATIAL", "SPATIAL")):
    """A data set with the dimension scales and attributes of pyNSID 0.0.7."""
    with h5py.File(path, "w") as file:
        group = file.create_group("Measurement_000/Channel_000/HAADF")
        main = group.create_dataset("HAADF", data=data)
        main.attrs["data_type"] = "IMAGE"
        for i, (name, kind, size) in enumerate(zip(dims, kinds, data.shape, strict=True)):
            scale = group.create_dataset(name, data=np.arange(size) * STEP_NM)
            scale.attrs.update({"name": name, "units": "nm", "dimension_type": kind})
            scale.make_scale(name)
            main.dims[i].label = name
            main.dims[i].attach_scale(scale)


@pytest.mark.parametrize("dims", ["xy", "yx"])
def test_dimension_labels_of_pynsid(tmp_path, dims):
    data = image()
    write_nsid(tmp_path / "a.h5", data.T if dims == "xy" else data, dims)
    movie = read(tmp_path / "a.h5")
    assert np.array_equal(movie[0].data, data)
    assert movie.calibration.pixel_size_A == pytest.approx(0.12)
    said = ("the file's axes are x, y: x is read as columns, y as rows",)
    assert movie.notes == (said if dims == "xy" else ())


def test_a_stack_of_pynsid_with_time_last(tmp_path):
    data = frames(5, 24, 36)
    kinds = ("SPATIAL", "SPATIAL", "TEMPORAL")
    write_nsid(tmp_path / "a.h5", data.transpose(2, 1, 0), ("x", "y", "frame"), kinds)
    assert [np.array_equal(f.data, data[i]) for i, f in enumerate(read(tmp_path / "a.h5"))] == [
        True
    ] * 5
    write_nsid(tmp_path / "b.h5", data, ("x", "y", "energy"), ("SPATIAL", "SPATIAL", "SPECTRAL"))
    with pytest.raises(BadInput, match="spectra"):
        read(tmp_path / "b.h5")


def write_emdfile(path, data):
    with h5py.File(path, "w") as file:
        group = file.create_group("root/vdf")
        group.create_dataset("data", data=data)
        for i, name in enumerate(("Rx", "Ry")):
            dim = group.create_dataset(f"dim{i}", data=[0.0, STEP_NM])
            dim.attrs.update({"name": name, "units": "nm"})
        labels = group.create_dataset("dim2", data=[b"HAADF", b"BF", b"c", b"d", b"e"])
        labels.attrs["name"] = "_labels_"


def test_labelled_slices_of_emdfile_are_detectors(tmp_path):
    data = frames(5, 24, 36)
    write_emdfile(tmp_path / "a.h5", data.transpose(1, 2, 0))
    movie = read(tmp_path / "a.h5")  # HAADF is what adatom is for
    assert np.array_equal(movie[0].data, data[0])
    assert "HAADF, BF, c, d, e, HAADF is read" in movie.notes[0]
    assert np.array_equal(read(tmp_path / "a.h5", dataset="BF")[0].data, data[1])
    assert np.array_equal(read(tmp_path / "a.h5", axes="yxt")[4].data, data[4])


def test_channels_of_imagej_are_detectors(tmp_path):
    data = frames(6, 24, 36).reshape(3, 2, 24, 36)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata={"axes": "TCYX"})
    with pytest.raises(BadInput, match=r"2 of them \(0 channel 0 .*`dataset`"):
        read(tmp_path / "a.tif")
    for compression in (None, "zlib"):
        tifffile.imwrite(
            tmp_path / "a.tif",
            data,
            imagej=True,
            metadata={"axes": "TCYX"},
            compression=compression,
        )
        movie = read(tmp_path / "a.tif", dataset="1", pixel_size_A=0.1)
        assert np.array_equal([f.data for f in movie], data[:, 1])
    tifffile.imwrite(tmp_path / "b.tif", data[0], imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(BadInput, match="2 of them"):
        read(tmp_path / "b.tif")
    assert len(read(tmp_path / "b.tif", axes="tyx")) == 2
    many = frames(9, 24, 36)
    tifffile.imwrite(tmp_path / "c.tif", many, imagej=True, metadata={"axes": "CYX"})
    movie = read(tmp_path / "c.tif")
    assert len(movie) == 9
    assert "'C' is taken as the frames" in movie.notes[0]


def test_named_channels_of_ome(tmp_path):
    data = frames(2, 24, 36)
    names = {"axes": "CYX", "Channel": {"Name": ["HAADF", "MAADF"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata=names, photometric="minisblack")
    assert np.array_equal(read(tmp_path / "a.ome.tif", pixel_size_A=0.1)[0].data, data[0])
    assert np.array_equal(read(tmp_path / "a.ome.tif", dataset="MAADF").load(0), data[1])


@pytest.mark.parametrize("count", [3, 4])
def test_three_or_four_frames_of_a_tiff_are_no_colours(tmp_path, count):
    data = frames(count, 24, 36)
    tifffile.imwrite(tmp_path / "a.tif", data)  # tifffile writes the planes of a picture
    movie = read(tmp_path / "a.tif", pixel_size_A=0.1)
    assert np.array_equal([f.data for f in movie], data)
    assert f"the {count} planes" in movie.notes[0]
    last = np.ascontiguousarray(data.transpose(1, 2, 0))
    tifffile.imwrite(tmp_path / "b.tif", last)
    with pytest.raises(BadInput, match=r"screenshot.*`axes`"):
        read(tmp_path / "b.tif")
    assert np.array_equal(read(tmp_path / "b.tif", axes="yxt").load(1), data[1])


def test_a_page_of_another_size_is_named(tmp_path):
    data = frames(4, 24, 36)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for i in range(4):
            file.write(data[i][:20] if i == 2 else data[i], photometric="minisblack")
    movie = read(tmp_path / "a.tif", pixel_size_A=0.1)
    assert np.array_equal([f.data for f in movie], data[[0, 1, 3]])
    assert "left out: frame 2 (20 x 36)" in movie.notes[0]


def test_a_detector_axis_of_hyperspy(tmp_path):
    made = signal(frames(2, 24, 36))
    made["axes"][0]["name"] = "detector"
    rsciio.hspy.file_writer(str(tmp_path / "a.hspy"), made)
    with pytest.raises(BadInput, match="2 of them"):
        read(tmp_path / "a.hspy")
    assert np.array_equal(read(tmp_path / "a.hspy", dataset="1").load(0), made["data"][1])


@pytest.mark.parametrize(
    ("sequence", "collection", "datum", "outcome"),
    [
        (True, 0, 2, "frames"),
        (False, 1, 2, "channels"),
        (False, 2, 1, "spectra"),
        (True, 1, 1, "spectra"),
    ],
)  # fmt: skip
def test_collections_of_nion_swift(tmp_path, sequence, collection, datum, outcome):
    data = frames(3, 24, 36)
    np.save(tmp_path / "a.npy", data)
    about = {
        "is_sequence": sequence,
        "collection_dimension_count": collection,
        "datum_dimension_count": datum,
    }
    (tmp_path / "a.json").write_text(json.dumps(about))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data/one", data=data).attrs["properties"] = json.dumps(about)
    for path in (tmp_path / "a.npy", tmp_path / "a.h5"):
        if outcome == "frames":
            assert len(read(path)) == 3
        else:
            with pytest.raises(BadInput, match="3 of them" if outcome == "channels" else "spectra"):
                read(path)


def test_arrays_without_labels(tmp_path):
    square = frames(6, 32, 32)
    movie = read(np.moveaxis(square, 0, 2), pixel_size_A=0.1)
    assert np.array_equal(movie[5].data, square[5])
    assert "6 frames of 32 x 32" in movie.notes[0]
    few = frames(5, 24, 36)
    np.save(tmp_path / "a.npy", np.moveaxis(few, 0, 2))
    assert np.array_equal(read(tmp_path / "a.npy").load(2), few[2])
    np.savez(tmp_path / "a.npz", image=np.moveaxis(few, 0, 2))
    assert np.array_equal(read(tmp_path / "a.npz").load(2), few[2])
    with pytest.raises(BadInput, match=r"colour picture.*or 4 frames.*`axes` yxt"):
        read(np.zeros((40, 50, 4), np.uint8))
    two_ways = np.zeros((60, 64, 20))
    with pytest.raises(BadInput, match=r"60 frames of 64 x 20, or 20 frames of 60 x 64.*`axes`"):
        read(two_ways)
    assert [len(read(two_ways, axes=axes)) for axes in ("tyx", "yxt")] == [60, 20]
    cube = frames(12, 24, 36).reshape(4, 3, 24, 36)
    with pytest.raises(BadInput, match=r"datacube.*`axes`"):
        read(cube)
    assert np.array_equal(read(cube, axes="tcyx", dataset="2").load(3), cube[3, 2])


@pytest.mark.parametrize("axes", ["yx", "tyy", "abc", "tyxc", "", "txz"])
def test_an_order_that_does_not_fit(axes):
    with pytest.raises(BadInput, match="`axes`: expected one letter for each of 3 axes"):
        read(frames(), axes=axes)


def test_rectangular_pixels_are_averaged_to_square_ones(tmp_path):
    """Bright spots stay where they are, whichever edge is the longer one, and it is said."""
    y, x = np.mgrid[:100, :120] * [[[0.12]], [[0.1]]]
    spots = [(3.0, 4.0), (9.0, 2.5), (6.1, 8.2)]
    data = sum(np.exp(-((y - v) ** 2 + (x - u) ** 2) / 0.2) for v, u in spots)
    for name, array, fields in (("a", data, (12.0, 12.0)), ("b", data.T, (12.0, 12.0))):
        np.save(tmp_path / f"{name}.npy", array)
        about = {"field_of_view_x": fields[0], "field_of_view_y": fields[1], "fov_units": "A"}
        about["field_of_view_units"] = "A"
        (tmp_path / f"{name}.json").write_text(json.dumps(about))
        movie = read(tmp_path / f"{name}.npy")
        frame = movie[0]
        assert frame.calibration.pixel_size_A == pytest.approx(0.12)
        assert frame.shape == (100, 100)
        assert any("rectangular pixels" in note and "0.1 Å" in note for note in movie.notes)
        for v, u in spots:
            row, col = (v, u) if name == "a" else (u, v)
            rows, cols = np.mgrid[:100, :100] * 0.12
            near = np.hypot(rows - row, cols - col) < 1.2
            weight = frame.data[near] / frame.data[near].sum()
            assert (weight @ rows[near], weight @ cols[near]) == pytest.approx((row, col), abs=0.01)
    np.save(tmp_path / "c.npy", data)
    (tmp_path / "c.json").write_text(json.dumps({"field_of_view_x": 12.0, "fov_y": 1}))
    assert read(tmp_path / "c.npy").shape == data.shape  # one edge alone: square pixels
    narrow = {"field_of_view_x": 12.0, "field_of_view_y": 80.0, "field_of_view_units": "A"}
    (tmp_path / "c.json").write_text(json.dumps(narrow))
    with pytest.raises(BadInput, match=r"pixels 0\.8 Å high and 0\.1 Å wide"):
        read(tmp_path / "c.npy")


def test_our_own_frames_and_any_ome_zarr_are_read(tmp_path):
    data = frames(3, 24, 36).astype(np.float32)
    store = open_frames(tmp_path / "frames.zarr", 3, (24, 36), 0.12)
    for i in range(3):
        store.write(i, data[i])
    store.pack()
    movie = read(tmp_path / "frames.zarr")
    assert np.array_equal([f.data for f in movie], data)
    assert movie.calibration.pixel_size_A == pytest.approx(0.12)
    axes = [{"name": n, "type": k} for n, k in (("c", "channel"), ("y", "space"), ("x", "space"))]
    axes[1]["unit"] = axes[2]["unit"] = "nanometer"
    steps = [{"type": "scale", "scale": [1, 0.01, 0.01]}]
    levels = [{"path": p, "coordinateTransformations": steps} for p in ("s0", "s1")]
    about = {"multiscales": [{"version": "0.4", "axes": axes, "datasets": levels}]}
    about["omero"] = {"channels": [{"label": n} for n in ("BF", "DF", "iDPC")]}
    group = zarr.open_group(tmp_path / "other", mode="w", zarr_format=2, attributes=about)
    group.create_array("s0", data=data)
    group.create_array("s1", data=data[:, ::2, ::2])
    with pytest.raises(BadInput, match=r"0 BF .*1 DF .*2 iDPC"):
        read(tmp_path / "other")
    movie = read(tmp_path / "other", dataset="iDPC")
    assert np.array_equal(movie[0].data, data[2])
    assert movie.calibration.pixel_size_A == pytest.approx(0.1)
    (tmp_path / "campaign.toml").write_text("")
    with pytest.raises(BadInput, match=r"got a campaign directory.*frames\.zarr"):
        read(tmp_path)


class Signal:
    """What HyperSpy's Signal2D has: data, and axes in an axes manager."""

    class Axis:
        def __init__(self, i, name, size, *, navigate):
            self.index_in_array, self.name, self.size, self.navigate = i, name, size, navigate
            self.scale, self.units = (1.0, None) if navigate else (STEP_NM, "nm")

    def __init__(self, data, first):
        self.data, self.axes_manager = data, self
        self.navigation_axes = (self.Axis(0, first, data.shape[0], navigate=True),)
        self.signal_axes = (
            self.Axis(2, "x", data.shape[2], navigate=False),
            self.Axis(1, "y", data.shape[1], navigate=False),
        )
        self.signal_dimension = 2


def test_lazy_arrays_and_signals():
    data = frames(3, 24, 36)
    lazy = dask.array.from_array(data, chunks=(1, 24, 36))
    for given in (lazy, zarr.array(data)):
        movie = read(given, pixel_size_A=0.1)
        assert np.array_equal([f.data for f in movie], data)
    assert movie.fingerprint == read(zarr.array(data), pixel_size_A=0.1).fingerprint
    movie = read(Signal(lazy, "time"))
    assert np.array_equal(movie[2].data, data[2])
    assert movie.calibration.pixel_size_A == pytest.approx(0.12)
    with pytest.raises(BadInput, match="3 of them"):
        read(Signal(lazy, "detector"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.array(3.0), r"shape \(\)"),
        (np.float64(3), r"shape \(\)"),
        (5, "got a int"),
        (np.ma.masked_greater(frames(1)[0], 2000), "masked of 2240"),
        (type("Tensor", (), {"__module__": "torch", "shape": (9, 9), "dtype": "float32",
                             "__array__": lambda self: None})(), "torch Tensor.*numpy.asarray"),
    ],
)  # fmt: skip
def test_what_is_no_array_of_frames(given, words):
    with pytest.raises(BadInput, match=words):
        read(given)


def test_an_offset_does_not_hide_the_counts():
    data = frames(1)[0].astype(float)
    assert np.array_equal(read(data + 1e10, pixel_size_A=0.1)[0].data, data - data.min())
    assert np.array_equal(read(data - 3000, pixel_size_A=0.1)[0].data, data - 3000)
    for factor, word in ((1e18, "Divide"), (1e-24, "Multiply")):
        with pytest.raises(BadInput, match=f"{word} the frames by a constant"):
            read(data * factor, pixel_size_A=0.1)[0]
