"""A reader that another package registers is used; one with a fault is told of."""

import json

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import adatom as ad
from adatom.cli import main as cli
from adatom.core.plugins import plugins
from adatom.errors import AdatomError, BadInput
from adatom.frames.readers.base import find_reader
from packages import installed

RAW = '''
import numpy as np

from adatom.frames.readers.pixel_size import Scale
from adatom.frames.readers.stack import Stack


class Raw:
    """Square frames of 32 pixels."""

    name = "raw32"
    summary = "Frames of 32 x 32 numbers"
    endings = (".raw32", ".tif")
    shape = 32, 32

    def suffixes(self):
        return self.endings

    def read(self, path, dataset):
        count, rest = divmod(path.stat().st_size, 4096)
        if rest:
            raise ValueError(f"{rest} bytes too many")

        def load(i):
            return np.fromfile(path, np.float32, 1024, offset=4096 * i).reshape(self.shape)

        return Stack(count, (32, 32), load, Scale(0.1))


class Shouting(Raw):
    name = "shouting"
    endings = ("TXT",)


class Crashing(Raw):
    name = "crashing"

    def suffixes(self):
        return self.nothing


class Flat(Raw):
    name = "flat"
    endings = (".flat",)
    shape = 16, 64


RAW, SHOUTING, CRASHING, FLAT = Raw(), Shouting(), Crashing(), Flat()
'''
PARTS = {"raw32": "RAW", "shouting": "SHOUTING", "crashing": "CRASHING", "flat": "FLAT"}


@pytest.fixture
def raw(tmp_path):
    with installed(tmp_path, "rawfiles", RAW, readers=PARTS):
        yield tmp_path / "frames"


@pytest.fixture
def frames(raw):
    raw.mkdir()
    numbers = np.random.default_rng(0).random((3, 32, 32)).astype(np.float32)
    numbers.tofile(raw / "a.raw32")
    return numbers


def test_a_file_and_a_directory_of_a_new_format_are_read(raw, frames):
    for given in (raw / "a.raw32", raw):
        movie = ad.read(given)
        assert movie.calibration.pixel_size_A == 0.1
        assert movie.notes == ()
        np.testing.assert_array_equal([frame.data for frame in movie], frames)


def test_a_damaged_file_is_refused_in_words(raw, frames):
    path = raw / "b.raw32"
    path.write_bytes(b"1" * 5000)
    with pytest.raises(BadInput, match=r"b\.raw32.*904 bytes too many"):
        ad.read(path)


def test_frames_of_another_shape_than_announced_are_refused(raw, frames):
    path = (raw / "a.raw32").rename(raw / "a.flat")
    with pytest.raises(BadInput, match=r"shape \(16, 64\) in place of \(32, 32\)"):
        ad.read(path)


def test_it_goes_before_our_own_reader_and_says_so(raw, frames):
    (raw / "a.raw32").rename(raw / "a.tif")
    movie = ad.read(raw / "a.tif")
    assert len(movie) == 3
    assert movie.notes == ("read by raw32 of rawfiles 1.5, not by adatom's own reader",)


def test_without_the_package_the_format_is_unknown(tmp_path):
    path = tmp_path / "a.raw32"
    path.write_bytes(b"1" * 4096)
    with pytest.raises(BadInput, match=r"got a \.raw32 file"):
        ad.read(path)
    tifffile.imwrite(tmp_path / "a.tif", np.eye(32))
    assert find_reader(".tif")[0].name == "tiff"


def test_doctor_says_what_is_wrong_with_a_package(raw):
    found = json.loads(CliRunner().invoke(cli.app, ["doctor", "--json"]).stdout)
    assert {row["name"] for row in found["readers"]} >= {"raw32", "flat", "tiff"}
    failed = {row["name"]: row for row in found["failed"]}
    assert set(failed) == {"shouting", "crashing"}
    assert failed["shouting"]["package"] == "rawfiles 1.5"
    assert "lower-case" in failed["shouting"]["error"]
    assert "AttributeError" in failed["crashing"]["error"]
    text = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["doctor"]).stdout
    assert "rawfiles 1.5: adatom.readers crashing cannot be used: suffixes(): Attr" in text


def test_an_installation_without_entry_points_is_told_of(monkeypatch):
    monkeypatch.setattr("adatom.core.plugins.entry_points", lambda group: ())
    plugins.cache_clear()
    with pytest.raises(AdatomError, match="Install it again"):
        find_reader(".npy")
