"""adatom's own parts pass the tests that other packages run on theirs; wrong ones do not."""

from contextlib import nullcontext
from dataclasses import replace

import h5py
import numpy as np
import pytest
import rsciio.hspy
import tifffile
import zarr
from ase.calculators.lj import LennardJones
from pydantic import BaseModel

from adatom.campaign.twin import TWIN, TwinInstrument
from adatom.conformance import check_engine, check_instrument, check_reader, rattled_graphene
from adatom.core import Calibration
from adatom.errors import BadInput
from adatom.frames.readers.base import find_reader, registered_readers
from adatom.frames.readers.pixel_size import Scale
from adatom.frames.readers.stack import Stack
from adatom.instrument import find_instrument, registered_instruments
from adatom.simulation import DynamicsOptions, require
from adatom.simulation.engines.calculator import CalculatorEngine

# --- engines -------------------------------------------------------------------------------------


def test_lammps_conforms():
    check_engine(require("lammps", "dynamics"), rattled_graphene(), uncovered="U")
    with_silicon = rattled_graphene()
    with_silicon.symbols[5] = "Si"
    check_engine(require("lammps", "relax"), with_silicon, uncovered="B")


@pytest.mark.slow
def test_tblite_conforms():
    few = DynamicsOptions(equilibration_ps=0.005, production_ps=0.01, sample_fs=2.0)
    engine = require("gfn1-xtb", "dynamics")
    check_engine(engine, rattled_graphene(0.01), uncovered="U", dynamics_options=few)


class Liar(CalculatorEngine):
    """A Lennard-Jones engine with a fault of one's choice."""

    name = "liar"
    elements = "C"
    boundary = "periodic in three directions"
    not_for = "physics"
    install = "pip install ase"
    covers = frozenset({"C"})
    distribution = "ase"
    lattice_constants_A = {"graphene": 2.46}  # noqa: RUF012

    def __init__(self, fault):
        self.fault = fault

    def calculator(self, atoms, options):
        fault = self.fault

        class Calculator(LennardJones):
            count = 0

            def calculate(self, atoms=None, properties=None, system_changes=()):
                super().calculate(atoms, properties or ["energy", "forces"], ["positions"])
                if fault == "units":
                    self.results["forces"] = self.results["forces"] * 0.0367
                if fault == "place":
                    self.results["energy"] += 0.01 * atoms.positions[0, 0]
                if fault == "drift":
                    self.results["forces"] = self.results["forces"] + 0.1
                if fault == "hands":
                    atoms.positions[0, 0] += 1e-3
                if fault == "noise":
                    self.results["energy"] += np.random.default_rng().normal()

        return nullcontext(Calculator(sigma=1.27, epsilon=0.3, rc=3.5, smooth=True))

    def check_elements(self, symbols):
        if self.fault != "elements":
            super().check_elements(symbols)

    def relax(self, task, options):
        result = super().relax(task, options)
        return replace(result, engine="lammps") if self.fault == "label" else result


def test_an_engine_without_a_fault_conforms():
    check_engine(Liar("none"), rattled_graphene())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("units", "force along a random direction"),
        ("place", "energy of shifted atoms"),
        ("drift", "turned atoms|sum of the forces"),
        ("hands", "atoms that it evaluates: expected unchanged"),
        ("noise", "energy when asked again"),
        ("elements", "a structure with X: expected BadInput"),
        ("label", "liar: engine: expected 'liar"),
    ],
)
def test_a_faulty_engine_is_told_of(fault, words):
    with pytest.raises(AssertionError, match=words):
        check_engine(Liar(fault), rattled_graphene())


# --- instruments ---------------------------------------------------------------------------------


def test_every_instrument_of_adatom_conforms():
    own = {found.name: found.value for found in registered_instruments() if found.is_own}
    # Two need files: tests/unit/instrument/test_given_frames.py. Two need an extra:
    # tests/slow/instruments.
    assert set(own) == {"twin", "replay", "folder", "nion", "tango"}
    check_instrument(own["twin"])


class Faulty(TwinInstrument):
    """The simulated microscope with a fault of one's choice."""

    def __init__(self, fault):
        self.fault, self.opened = fault, 0

    def open(self, options, material, *, seed=0):
        if self.fault == "options" and not hasattr(options, "sheet_A"):
            return None
        self.opened += 1
        seed = self.opened if self.fault == "seed" else 7
        twin = super().open(options, material, seed=seed)
        scan, fault = twin.acquire, self.fault

        def faulty(request):
            if fault == "range":
                request = replace(request, field_of_view_A=min(request.field_of_view_A, 40.0))
            if fault == "size":
                return replace(scan(request), calibration=Calibration(0.1))
            if fault == "lattice":
                return scan(
                    replace(request, field_of_view_A=0.8 * request.field_of_view_A)
                ).recalibrated(request.calibration)
            if fault == "dose":
                return replace(scan(request), dose_per_A2=1.0)
            return scan(request)

        twin.acquire = faulty
        place_beam = twin.place_beam

        def parked(request, stop_when=None):
            if fault == "endless":
                stop_when = None
            if fault == "hasty" and request.dwell_s < 1:
                request = replace(request, dwell_s=request.dwell_s / 2)
            if fault == "eager" and request.dwell_s > 60:
                request = replace(request, dwell_s=1.0)
            return place_beam(request, stop_when)

        twin.place_beam = parked
        return twin


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("options", "wrong options: expected BadInput"),
        ("size", "pixel size: expected 0.12 Å, got 0.1 Å"),
        ("lattice", "by the lattice of graphene: expected 0.12"),
        ("dose", "dose: expected"),
        ("range", "too wide: expected BadInput"),
        ("seed", "the same frames when opened again"),
        ("endless", "stopped after 3 slices"),
        ("hasty", "dwell: expected 0.05 s, got 0.025 s"),
        ("eager", "a dwell that is too long"),
    ],
)
def test_a_faulty_instrument_is_told_of(fault, words):
    with pytest.raises(AssertionError, match=words):
        check_instrument(Faulty(fault))


def test_an_unknown_instrument_is_refused_with_the_nearest():
    with pytest.raises(BadInput, match=r"^instrument tween: .*Did you mean 'twin'"):
        find_instrument("tween")


class Other(BaseModel):
    """Options of something else."""


def test_the_twin_refuses_other_options():
    with pytest.raises(BadInput, match="TwinOptions"):
        TWIN.open(Other(), None)


# --- readers -------------------------------------------------------------------------------------

PIXEL_A = 0.1


def frames():
    return np.random.default_rng(0).integers(0, 4000, (9, 250, 240)).astype(np.uint16)


def write_hspy(path, data):
    names = ("t", "y", "x")
    axes = [
        {
            "name": name,
            "size": size,
            "scale": PIXEL_A / 10,
            "offset": 0.0,
            "units": "nm",
            "navigate": name == "t",
            "index_in_array": i,
            "_type": "UniformDataAxis",
            "is_binned": False,
        }
        for i, (name, size) in enumerate(zip(names, data.shape, strict=True))
    ]
    signal = {
        "data": data,
        "axes": axes,
        "metadata": {"General": {"title": "one"}, "Signal": {"signal_type": ""}},
        "original_metadata": {},
        "learning_results": {},
        "attributes": {"_lazy": False},
        "package_info": {},
        "models": None,
        "tmp_parameters": {},
        "package": "",
        "package_version": "",
    }
    rsciio.hspy.file_writer(str(path), signal, chunks=(1, *data.shape[1:]))


def write_hdf5(path, data):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("images", data=data, chunks=(1, *data.shape[1:]))
        made.attrs["pixel_size_A"] = PIXEL_A


def write_tiff(path, data):
    tifffile.imwrite(
        path,
        data,
        imagej=True,
        resolution=(10 / PIXEL_A, 10 / PIXEL_A),
        metadata={"unit": "nm", "axes": "TYX"},
    )


def write_zarr(path, data):
    scale = [{"type": "scale", "scale": [1.0, PIXEL_A, PIXEL_A]}]
    axes = [{"name": n, "type": "space", "unit": "angstrom"} for n in "yx"]
    image = {
        "axes": [{"name": "t", "type": "time"}, *axes],
        "datasets": [{"path": "0", "coordinateTransformations": scale}],
    }
    group = zarr.open_group(path, mode="w", attributes={"ome": {"multiscales": [image]}})
    group.create_array("0", shape=data.shape, chunks=(1, *data.shape[1:]), dtype=data.dtype)[:] = (
        data
    )


WRITERS = {
    "npy": (".npy", np.save, None),
    "npz": (".npz", lambda p, d: np.savez(p, images=d, pixel_size_A=PIXEL_A), PIXEL_A),
    "hdf5": (".hdf5", write_hdf5, PIXEL_A),
    "tiff": (".tif", write_tiff, PIXEL_A),
    "vendor": (".hspy", write_hspy, PIXEL_A),
    "zarr": (".zarr", write_zarr, PIXEL_A),
}


def test_every_reader_of_adatom_is_tried_here():
    assert {found.name for found in registered_readers() if found.is_own} == set(WRITERS)


@pytest.mark.parametrize("name", WRITERS)
def test_readers_conform(name, tmp_path):
    suffix, write, size = WRITERS[name]
    write(tmp_path / f"movie{suffix}", frames())
    reader, note = find_reader(suffix)
    assert (reader.name, note) == (name, "")
    check_reader(reader, tmp_path / f"movie{suffix}", frames(), size)


class FaultyReader:
    """Reads ``.raw16`` files, with a fault of one's choice."""

    name = "raw16"
    summary = "16-bit numbers"

    def __init__(self, fault):
        self.fault = fault

    def suffixes(self):
        return ("raw16",) if self.fault == "suffix" else (".raw16",)

    def read(self, path, dataset):
        shape = (240, 250) if self.fault == "axes" else (250, 240)
        count = path.stat().st_size // 120_000
        if self.fault != "damage" and count < 9:
            raise ValueError(f"{count} of 9 frames")
        held = np.fromfile(path, np.uint16) if self.fault == "greed" else None

        def load(i):
            numbers = np.fromfile(path, np.uint16, 60_000, offset=120_000 * i)
            turned = held[60_000 * i :][:60_000] if held is not None else numbers
            return np.reshape(turned, shape)

        if self.fault == "first":
            return Stack(count, shape, lambda _: load(0), Scale(PIXEL_A))
        return Stack(count, shape, load, Scale(PIXEL_A * (10 if self.fault == "unit" else 1)))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("suffix", "lower-case endings with the dot"),
        ("axes", "rows and columns, got"),
        ("first", "frame 8: expected the values of the file"),
        ("unit", "pixel size: expected 0.1 Å, got 1.0"),
        ("greed", "half of the movie"),
        ("damage", "a file cut off: expected BadInput"),
    ],
)
def test_a_faulty_reader_is_told_of(fault, words, tmp_path):
    path = tmp_path / "movie.raw16"
    frames().tofile(path)
    with pytest.raises(AssertionError, match=words):
        check_reader(FaultyReader(fault), path, frames(), PIXEL_A)


def test_frames_that_show_nothing_are_refused(tmp_path):
    with pytest.raises(BadInput, match="differ in number"):
        check_reader(FaultyReader("none"), tmp_path / "a.raw16", np.zeros((2, 20, 20)), None)
