"""Files of a campaign in the programs that users have; each test needs the extra ``viewers``."""

from __future__ import annotations

import importlib
from pathlib import Path

import ase.build
import ase.units
import numpy as np
import polars as pl
import pytest

from adatom.core import AtomTable, DefectTable
from adatom.core.atoms import COLUMNS as ATOM_COLUMNS
from adatom.core.defects import COLUMNS as DEFECT_COLUMNS
from adatom.store import open_frames, open_maps, write_table, write_trajectory
from adatom.viewers import hyperspy as reader
from views import lattice_xy, make_atoms, make_defects

pytestmark = pytest.mark.slow
_CLASSES = ("C", "Si", "vacancy")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory) -> Path:
    """The files of a campaign of four frames, 0.4 s apart."""
    root = tmp_path_factory.mktemp("viewers") / "my-campaign"
    root.mkdir()
    (root / "campaign.toml").write_text("[campaign]\n")
    rng = np.random.default_rng(0)
    frames = open_frames(root / "frames.zarr", 4, (24, 32), 0.1, frame_time_s=0.4)
    maps = open_maps(root / "maps.zarr", 4, _CLASSES, (12, 16), 0.2, frame_time_s=0.4)
    for i in range(4):
        frames.write(i, rng.random((24, 32)) + i)
        one = rng.random((3, 12, 16))
        maps.write(i, mean=one, std=one / 2, entropy=one / 2, mutual_information=one / 4)
    frames.pack()
    maps.pack()
    atoms = AtomTable.concat(make_atoms(f, lattice_xy(), 30) for f in range(4)).data
    atoms = AtomTable(atoms.with_columns(track=pl.col("atom"))).data
    write_table(root / "atoms.parquet", atoms, ATOM_COLUMNS)
    write_table(root / "defects.parquet", DefectTable(make_defects(4).data).data, DEFECT_COLUMNS)
    return root


def layers_of(program: str, read) -> dict[str, object]:
    """Layers of napari by name, made by napari itself."""
    layers = importlib.import_module("napari.layers")
    made = [layers.Layer.create(*one) for one in read]
    assert made, program
    return {layer.name: layer for layer in made}


def test_napari_opens_a_campaign_with_its_plug_in(campaign):
    pytest.importorskip("napari")
    npe2 = pytest.importorskip("npe2")
    manager = npe2.PluginManager.instance()
    manager.discover()  # by the entry point
    read, used = npe2.io_utils.read_get_reader([str(campaign)], stack=False, plugin_name="adatom")
    assert used.plugin_name == "adatom"
    layers = layers_of("plug-in", read)
    frames, atoms, mean = layers["frames"], layers["atoms"], layers["mean Si"]
    assert frames.data.shape == (4, 24, 32)
    np.testing.assert_allclose(frames.scale, [0.4, 0.1, 0.1])
    assert mean.data.shape == (4, 12, 16)
    assert np.asarray(mean.data[1]).shape == (12, 16)
    # Atom 30 is Si, at the same place in Å in the image and among the points.
    x, y = lattice_xy()[30]
    np.testing.assert_allclose(atoms.data[30] * atoms.scale, [0.0, y, x])
    assert atoms.features["element"][30] == "Si"
    assert atoms.features["sigma_x_A"][30] == pytest.approx(0.1)
    assert layers["2σ"].size[0] == pytest.approx(4 * np.sqrt(0.016 / 2))
    assert list(layers["defects"].features["kind"]) == ["Si1C3"] * 4
    assert len(layers["tracks of defects"].data) == 4
    assert len(layers["tracks of atoms"].data) == 4 * len(lattice_xy())


def test_ome_zarr_viewers_open_maps_and_frames_from_their_paths(campaign):
    plugin = pytest.importorskip("napari_ome_zarr._reader")
    for name, images in (("frames.zarr", 1), ("maps.zarr", 4)):
        read = plugin.napari_get_reader(str(campaign / name))
        assert read is not None, name
        found = [one for one in read(str(campaign / name)) if len(one) > 0]
        assert len(found) >= images, name


def test_hyperspy_opens_frames_with_axes_in_one_line(campaign):
    hs = pytest.importorskip("hyperspy.api")
    signal = hs.load(str(campaign / "campaign.toml"), file_format=reader)
    assert signal.data.shape == (4, 24, 32)
    (time,) = signal.axes_manager.navigation_axes
    x, y = signal.axes_manager.signal_axes
    assert (time.name, time.scale, time.units) == ("time", 0.4, "s")
    assert (x.name, x.scale, x.units, x.size) == ("x", 0.1, "Å", 32)
    assert (y.name, y.scale, y.size) == ("y", 0.1, 24)
    lazy = hs.load(str(campaign / "campaign.toml"), file_format=reader, lazy=True)
    np.testing.assert_array_equal(lazy.inav[2].data, signal.inav[2].data)


def test_ovito_reads_velocities_and_even_times(tmp_path):
    io = pytest.importorskip("ovito.io")
    path = []
    for k in range(3):
        atoms = ase.build.graphene(size=(2, 2, 1), vacuum=6.0)
        atoms.set_velocities(np.full((8, 3), 0.01 * k))
        atoms.info["time_fs"] = 25.0 * k
        path.append(atoms)
    write_trajectory(tmp_path / "run.extxyz", path)
    pipeline = io.import_file(str(tmp_path / "run.extxyz"))
    assert pipeline.source.num_frames == 3
    data = pipeline.compute(2)
    np.testing.assert_allclose(data.particles["Velocity"], 0.02 * ase.units.fs, rtol=1e-6)
    assert data.attributes["time_fs"] == 50.0
