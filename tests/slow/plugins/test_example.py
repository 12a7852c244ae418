"""The example package is installed, as a user would, and adatom uses its parts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[3] / "examples" / "plugin"
PACKAGE = "adatom-example 0.1.0"

USE = """
import sys
import adatom as ad
from adatom.conformance import rattled_graphene
from adatom.core import GRAPHENE, SimulationTask, Structure, ScanRequest
from adatom.instrument import find_instrument
from adatom.simulation import RelaxOptions, relax
from adatom.simulation.classical import POTENTIALS
from adatom.simulation.engines.lammps import potential_energy_eV

movie = ad.read(sys.argv[1])
print(len(movie), movie.shape, movie.calibration.pixel_size_A, movie[1].data[3, 7])
sheet, material = Structure.from_ase(rattled_graphene()), GRAPHENE
task = SimulationTask(sheet, "relax", "ase-tersoff", material=material)
result = relax(task, RelaxOptions())
print(result.engine, result.status)
(tersoff,) = [p for p in POTENTIALS if p.name == "tersoff"]
print(result.energy_eV - potential_energy_eV(result.trajectory[-1], tersoff))
camera = find_instrument("lattice-camera")
microscope = camera.open(camera.options_type(), GRAPHENE)
print(microscope.acquire(ScanRequest((0.0, 0.0), 12.8, 128, 1e5)).shape)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Environment in which the example is installed beside adatom."""
    directory = tmp_path_factory.mktemp("example")
    # A copy: building writes into the directory that it builds.
    shutil.copytree(EXAMPLE, directory / "source")
    site = directory / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site)]
    done = subprocess.run(
        [*pip, str(directory / "source")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(site)}


def python(environment, *arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, env=environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def write(path, frames):
    count, rows, columns = frames.shape
    with path.open("w", encoding="utf-8") as file:
        file.write(f"framestext {count} {rows} {columns} 0.0125 nm\n")
        np.savetxt(file, frames.reshape(-1, columns), fmt="%d")
    return path


def test_doctor_lists_its_parts_with_its_name(environment):
    found = json.loads(python(environment, "-m", "adatom", "doctor", "--json"))
    for group, name in (
        ("engines", "ase-tersoff"),
        ("instruments", "lattice-camera"),
        ("readers", "framestext"),
        ("defect_namers", "stray-atoms"),
    ):
        (row,) = [row for row in found[group] if row["package"] == PACKAGE]
        assert row["name"] == name
    assert found["failed"] == []


def test_its_reader_engine_and_instrument_are_used(environment, tmp_path):
    frames = np.random.default_rng(0).integers(0, 99, (3, 40, 50))
    path = write(tmp_path / "movie.framestext", frames)
    read, engine, apart_eV, shape = python(environment, "-c", USE, path).splitlines()
    assert read == f"3 (40, 50) 0.125 {float(frames[1, 3, 7])}"
    assert engine.startswith("ase-tersoff 3.")
    assert engine.endswith(" done")
    assert abs(float(apart_eV)) < 1e-4  # the same potential, the same energy
    assert shape == "(128, 128)"


def test_its_own_tests_pass(environment):
    tests = EXAMPLE / "tests"
    quiet = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tests]
    assert "4 passed" in python(environment, "-m", "pytest", *quiet, tests)
