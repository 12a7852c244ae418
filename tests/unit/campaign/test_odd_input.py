"""Odd names and edited files of a campaign: one clear error, and text that a terminal can show."""

import sqlite3
import sys
from contextlib import closing

import numpy as np
import pytest

from adatom.cli import main as cli
from adatom.cli.screen import Screen
from adatom.core import Record
from adatom.errors import BadInput, printable
from adatom.frames import read
from adatom.store import CampaignDirectory, load_frames, open_frames
from frame_files import frames


def answer(monkeypatch, capfd, *words):
    monkeypatch.setattr(sys, "argv", ["adatom", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return end.value.code, err


def test_a_name_that_steers_the_terminal_is_shown_and_not_obeyed(tmp_path, monkeypatch, capfd):
    name = "a\x1b[2J\x07b\u202e.tif"
    code, err = answer(monkeypatch, capfd, "find", tmp_path / name)
    assert code == 2
    assert r"a\x1b[2J\x07b\u202e.tif" in err.replace("\n", "")
    assert not {"\x1b[2J", "\x07", "\u202e"} & {
        err[i : i + n] for i in range(len(err)) for n in (1, 4)
    }
    screen = Screen()
    screen.warn("from a file: \x1b]0;title\x07")
    screen.close()
    assert "\x1b]0" not in capfd.readouterr().err
    np.savez(tmp_path / "b.npz", **{"x\x1b[31m": frames(), "y": frames()})
    with pytest.raises(BadInput) as caught:
        read(tmp_path / "b.npz")
    assert "\x1b" not in str(caught.value)
    assert printable("Å, 3 µm, 中文, é") == "Å, 3 µm, 中文, é"


def test_links_in_a_circle(tmp_path, monkeypatch, capfd):
    (tmp_path / "one.tif").symlink_to(tmp_path / "two.tif")
    (tmp_path / "two.tif").symlink_to(tmp_path / "one.tif")
    code, err = answer(monkeypatch, capfd, "find", tmp_path / "one.tif")
    assert (code, "a link that leads nowhere" in err) == (2, True)


def test_a_name_with_two_colons_is_a_name(tmp_path):
    np.save(tmp_path / "a::b.npy", frames())
    assert len(read(tmp_path / "a::b.npy")) == 3
    store = open_frames(tmp_path / "c::d.zarr", 1, (40, 56), 0.1)
    store.write(0, frames(1)[0])
    assert np.array_equal(load_frames(tmp_path / "c::d.zarr").read(0), frames(1)[0])
    assert len(read(tmp_path / "c::d.zarr")) == 1


@pytest.fixture
def campaign(tmp_path):
    with CampaignDirectory.open(tmp_path / "made", {"seed": 1}, "print", source=["a.tif"]) as made:
        made.ledger.finish(Record("key", "find", "frame 0", ("a",), -1, "0.1", 1.0, "out"))
    return made


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('source = [\n    "a.tif",\n]', "source = 5"),
        ("seed = 1", "seed = " + "[" * 2000 + "]" * 2000),
        ("seed = 1", ".".join(["a"] * 3000) + " = 1"),
    ],
    ids=["source", "lists", "keys"],
)
def test_an_edited_configuration(campaign, old, new):
    text = campaign.config_path.read_text("utf-8")
    assert old in text
    campaign.config_path.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(BadInput, match=r"campaign\.toml"):
        CampaignDirectory.existing(campaign.path)


@pytest.mark.parametrize("parents", ["{oops", "5", "[1]", "[" * 9000])
def test_an_edited_ledger(campaign, parents):
    with closing(sqlite3.connect(campaign.ledger_path)) as connection:
        connection.execute("UPDATE steps SET parents = ?", (parents,))
        connection.commit()
    with (
        CampaignDirectory.existing(campaign.path) as again,
        pytest.raises(BadInput, match=r"ledger\.sqlite: expected a ledger whose rows adatom wrote"),
    ):
        again.ledger.find("key")
