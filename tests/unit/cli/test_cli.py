"""The command line: what it prints, what it writes, and what it does not do twice."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
import sys
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import typer
import zarr
from typer.testing import CliRunner

import adatom as ad
from adatom.cli import main as cli
from adatom.cli.options import SETTINGS, config_of, error_with_options
from adatom.core import atoms, defects
from adatom.errors import BadInput, StepFailed
from adatom.simulation import Status, engine_status
from adatom.simulation.engines.lammps import LammpsEngine
from adatom.store import RESULTS_SCHEMA, read_structures, read_trajectory
from small import PIXEL_A, PIXELS, QUICK, adatom, make_quick, simulated_movie

COMMANDS = ("run", "find", "simulate", "resume", "demo", "train", "adapt", "doctor", "bench")
FOUND = {"atoms.parquet", "defects.parquet", "transitions.parquet",
         "frames.zarr", "maps.zarr", "campaign.toml",
         "ledger.sqlite", "advice.json", "report.html"}  # fmt: skip
QUICK_OPTIONS = ("--draws", "1", "--max-structures", "1", "--temperatures", "300",
                 "--picoseconds", "0.5")  # fmt: skip


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "movie.npy"
    np.save(path, simulated_movie(3))
    return path


@pytest.fixture(scope="module")
def found(movie: Path) -> tuple[Path, dict[str, Any]]:
    """A directory that `adatom find` made, and what it printed."""
    campaign = movie.parent / "found"
    done = adatom(
        "find", movie, "-m", "graphene", "--pixel-size", PIXEL_A, "-o", campaign, "--json"
    )
    assert done.returncode == 0, done.stderr
    return campaign, json.loads(done.stdout)


@pytest.fixture(scope="module")
def simulated(found: tuple[Path, dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """The same, after `adatom simulate`."""
    campaign = found[0].parent / "simulated"
    shutil.copytree(found[0], campaign)
    make_quick(campaign)
    done = adatom("simulate", campaign, "--json")
    assert done.returncode == 0, done.stderr
    return campaign, json.loads(done.stdout)


def ledger(campaign: Path) -> dict[str, tuple[str, ...]]:
    with closing(sqlite3.connect(campaign / "ledger.sqlite")) as base:
        rows = base.execute("SELECT key, step, item, status, started, finished FROM steps")
        return {row[0]: row[1:] for row in rows}


def results(campaign: Path) -> dict[str, tuple[int, str]]:
    """Time and hash of every file that a step made."""
    kept = [p for p in campaign.rglob("*") if p.is_file()]
    made_at_the_end = ("report.html", "advice.json", "simulations.parquet", "zarr.json")
    return {
        str(p.relative_to(campaign)): (
            p.stat().st_mtime_ns,
            hashlib.sha256(p.read_bytes()).hexdigest(),
        )
        for p in kept
        if p.name not in made_at_the_end and ".adatom" not in p.name and "ledger" not in p.name
    }


# --- what it prints -------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command):
    done = CliRunner(env={"COLUMNS": "160", "NO_COLOR": "1"}).invoke(
        cli.app, [*([command] if command else []), "--help"]
    )
    assert done.exit_code == 0
    assert "Usage" in done.output
    if not command:
        assert all(re.search(rf"\b{name}\b", done.output) for name in COMMANDS)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run", ("pixel size in Å", "temperatures of the dynamics in K", "300,900", "in ps", "10.0",
                 "voltage in kV", "the file's, else 60", "by lattice and scale", "START:STOP",
                 "adatom-campaign")),
        ("find", ("pixel size in Å", "lattice and scale", "default: (all)", "adatom-campaign")),
        ("demo", ("default: demo", "default: 7")),
        ("train", ("default: shared", "default: 10", "universal", "dropout")),
        ("bench", ("--quick", "--peers", "--weights", "find, speed")),
    ],
)  # fmt: skip
def test_help_shows_units_and_defaults(command, words):
    runner = CliRunner(env={"COLUMNS": "160", "NO_COLOR": "1"})
    text = " ".join(runner.invoke(cli.app, [command, "--help"]).output.split())
    for word in words:
        assert word in text


def test_the_version_is_the_packages():
    done = CliRunner().invoke(cli.app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"adatom {ad.__version__}\n")


def options_of(command: str) -> dict[str, Any]:
    found = typer.main.get_command(cli.app).commands[command]
    return {p.name: p for p in found.params}


@pytest.mark.parametrize("command", ["run", "find", "adapt"])
def test_options_set_keys_that_the_configuration_has_and_show_its_defaults(command):
    source = {"frames": [Path(__file__)]}
    whole = config_of(**source).table()
    as_given = {"weights", "material", "detector", "engine", "dynamics_engine"}
    settings = {n: SETTINGS[n] for n in options_of(command) if n in SETTINGS}
    assert set(options_of(command)) - set(settings) <= {
        "output", "as_json", "config_file", "quiet", "log",
    }  # fmt: skip
    for name, setting in settings.items():
        parameter, value = options_of(command)[name], whole
        assert setting.option in (*parameter.opts, "FRAMES")
        for part in setting.key.split("."):
            value = value[part]
        shown = parameter.show_default if name != "frames" else False
        if not isinstance(shown, str):  # nothing is shown where nothing is the default
            assert name == "frames" or not value
        elif setting.read and name not in as_given:
            assert list(setting.read(shown)) == value
        elif value is not None:
            assert shown == str(value)


def test_an_option_that_is_given_is_set_and_no_other(tmp_path):
    (tmp_path / "a.npy").touch()
    table = config_of(frames=[tmp_path / "a.npy"], voltage=81.0, seed=None).table()
    plain = config_of(frames=[tmp_path / "a.npy"]).table()
    assert table.pop("voltage_kV") == 81.0
    assert plain.pop("voltage_kV") is None
    assert table == plain


def test_messages_name_options_on_the_command_line_and_arguments_in_python(tmp_path):
    np.save(tmp_path / "a.npy", simulated_movie(1))
    with pytest.raises(BadInput, match="`pixel_size_A`") as refused:
        ad.find(tmp_path / "a.npy")
    todo = error_with_options(refused.value)["to do"]
    assert "--pixel-size" in todo
    assert "pixel_size_A" not in todo
    with pytest.raises(BadInput, match="`material` grafene"):
        ad.find(tmp_path / "a.npy", material="grafene")


def test_no_command_shows_the_help():
    assert "Usage" in CliRunner().invoke(cli.app, []).output


def test_doctor():
    done = adatom("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {row["name"]: row for row in found["engines"]}
    for name in ("gfn1-xtb", "lammps"):
        assert rows[name]["installed"]
        assert re.match(r"\d+\.\d+", rows[name]["version"])
    assert all(row["install"] for row in rows.values())
    assert [row["name"] for row in found["instruments"]] == [
        *("folder", "nion", "replay", "tango", "twin")
    ]
    assert ".dm4" in next(r for r in found["readers"] if r["name"] == "vendor")["suffixes"]
    assert found["failed"] == []
    assert found["device"]


@pytest.mark.parametrize("columns", ["80", "200"])
def test_doctor_says_how_to_install_what_is_missing(columns, monkeypatch):
    monkeypatch.setattr(LammpsEngine, "status", lambda _: Status(installed=False))
    text = CliRunner(env={"COLUMNS": columns}).invoke(cli.app, ["doctor"]).output
    rows = {row.name: row for row in engine_status()}
    assert not rows["lammps"].installed
    for row in rows.values():
        assert row.name[:12] in text
        if not row.installed:  # in one line, to be copied
            (line,) = [x for x in text.splitlines() if x.strip().startswith(f"{row.name}:")]
            assert line.endswith(row.install)


def test_a_failed_step_has_exit_code_1(monkeypatch, capsys):
    from adatom import simulation

    def fail() -> None:
        raise StepFailed("relax [a]", expected="a minimum", got="none", todo="Try another.")

    monkeypatch.setattr(simulation, "engine_status", fail)
    monkeypatch.setattr(sys, "argv", ["adatom", "doctor"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    err = capsys.readouterr().err
    assert "error: relax [a]" in err
    assert "a minimum" in err


# --- what it writes -------------------------------------------------------------------------


@pytest.mark.slow
def test_find_writes_what_it_found(found):
    campaign, summary = found
    assert {p.name for p in campaign.iterdir()} >= FOUND
    assert not (campaign / "simulations.parquet").exists()
    table = pl.read_parquet(campaign / "atoms.parquet")
    assert table.schema == atoms.SCHEMA
    assert summary["frames"] == 3
    assert summary["atoms"] == len(table)
    assert sum(summary["elements"].values()) == len(table)
    assert table["frame"].unique().sort().to_list() == [0, 1, 2]
    kinds = pl.read_parquet(campaign / "defects.parquet")
    assert kinds.columns == list(defects.SCHEMA)
    assert kinds.schema["atoms"] == pl.String
    assert summary["pixel_size_A"] == PIXEL_A
    assert summary["bond_length_A"] == pytest.approx(1.42, abs=0.04)
    assert summary["report"] == str(campaign / "report.html")
    assert summary["relaxed"] == summary["dynamics"] == []


@pytest.mark.slow
def test_find_finds_the_silicon(found):
    table = pl.read_parquet(found[0] / "atoms.parquet").filter(pl.col("p_exists") > 0.5)
    middle = PIXELS * PIXEL_A / 2
    silicon = table.filter(pl.col("element") == "Si")
    assert silicon["frame"].to_list() == [0, 1, 2]
    xy = silicon.select("x_A", "y_A").to_numpy()
    assert np.linalg.norm(xy - middle, axis=1).max() < 1.5  # the site nearest to the middle
    assert (xy.max(axis=0) - xy.min(axis=0)).max() < 0.3
    assert silicon["track"].n_unique() == 1
    kinds = pl.read_parquet(found[0] / "defects.parquet")
    assert kinds["kind"].to_list() == ["Si1C3"] * 3


@pytest.mark.slow
def test_find_writes_frames_and_maps(found, movie):
    frames = zarr.open_group(found[0] / "frames.zarr", mode="r")["0"]
    np.testing.assert_array_equal(frames[:], np.load(movie))
    maps = zarr.open_group(found[0] / "maps.zarr", mode="r")
    for name in ("mean", "std", "entropy", "mutual_information"):
        array = maps[f"{name}/0"]
        assert array.shape[:2] == (3, 3)  # frames, classes C, Si and vacancy
        assert np.isfinite(array[:]).all()
        assert float(array[:].max()) > 0


@pytest.mark.slow
def test_simulate_goes_on_from_find(simulated, found):
    campaign, summary = simulated
    names = {p.name for p in campaign.iterdir()}
    assert names >= FOUND | {"structures", "simulations.parquet", "trajectories"}
    for key, row in ledger(found[0]).items():  # perception was not repeated
        assert ledger(campaign)[key] == row
    table = pl.read_parquet(campaign / "simulations.parquet")
    assert table.schema == RESULTS_SCHEMA
    assert table["status"].to_list() == ["done"] * 6
    assert table["task"].to_list() == ["relax"] * 4 + ["dynamics"] * 2
    assert table["draw"].to_list() == [-1, 0, 1, -1, 0, 1]  # and the perfect crystal
    assert table["temperature_K"].to_list() == [0.0, 0.0, 0.0, 0.0, 300.0, 300.0]
    assert np.isfinite(table["energy_eV"].to_numpy()).all()
    # One row a composition: once in a hundred draws an atom is taken not to exist.
    assert sum(row["draws"] for row in summary["relaxed"]) == 2
    assert all((row["energy_sd_eV"] is None) == (row["draws"] == 1) for row in summary["relaxed"])
    assert summary["dynamics"][0]["runs"] == 2


@pytest.mark.slow
def test_simulate_writes_structures_and_motion(simulated):
    campaign, _ = simulated
    (path,) = (campaign / "structures").iterdir()
    structures = read_structures(path)
    assert [s.draw for s in structures] == [-1, 0, 1]
    assert all("Si" in s.atoms.get_chemical_symbols() for s in structures)
    assert all(s.sigma_A.shape == (len(s.atoms), 3) for s in structures)
    table = pl.read_parquet(campaign / "simulations.parquet")
    for name in table.filter(pl.col("draw") >= 0)["structure"].unique():
        for task in ("relax", "300K"):
            motion = read_trajectory(campaign / "trajectories" / f"{name}-{task}.extxyz")
            assert len(motion) >= 2
            assert np.isfinite(motion[-1].get_positions()).all()


@pytest.mark.slow
def test_every_action_of_the_advice_says_why(simulated):
    advice = json.loads((simulated[0] / "advice.json").read_text())
    actions = advice if isinstance(advice, list) else advice["actions"]
    assert len(actions) == simulated[1]["advice"] >= 1
    assert all(action["reason"] for action in actions)


@pytest.mark.slow
def test_the_report_is_one_page_that_needs_nothing_else(simulated):
    text = (simulated[0] / "report.html").read_text("utf-8")
    assert "<html" in text
    assert "Si1C3" in text
    assert not re.search(r"""(?:src|href)=["']https?:""", text)


@pytest.mark.slow
def test_every_step_is_in_the_ledger(simulated):
    rows = ledger(simulated[0]).values()
    count = {step: sum(r[0] == step for r in rows) for step in {r[0] for r in rows}}
    assert count == {
        "adapt": 1,
        "find": 3,
        "link": 1,
        "supercells": 1,
        "relax": 4,  # the most probable structure, two draws, the perfect crystal
        "dynamics": 2,
        "advice": 2,
        "report": 2,  # of `find`, and of `simulate`
    }
    assert {r[2] for r in rows} == {"done"}


@pytest.mark.slow
def test_the_configuration_is_whole(simulated):
    table = tomllib.loads((simulated[0] / "campaign.toml").read_text())
    assert table["input"]["pixel_size_A"] == PIXEL_A
    for name, options in QUICK.items():
        for key, value in options.items():
            assert table[name][key] == value
    for name in ("find", "evidence", "defects", "link", "advice"):
        assert table[name]


# --- what it does not do twice --------------------------------------------------------------


@pytest.mark.slow
def test_a_second_simulate_does_nothing(simulated):
    campaign, summary = simulated
    records, files = ledger(campaign), results(campaign)
    tables = {n: (campaign / n).read_bytes() for n in ("simulations.parquet", "advice.json")}
    done = adatom("simulate", campaign, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == summary
    assert ledger(campaign) == records
    assert results(campaign) == files
    for name, before in tables.items():
        assert (campaign / name).read_bytes() == before


@pytest.mark.slow
def test_run_does_each_thing_once_and_after_a_change_what_depends_on_it(movie, found, tmp_path):
    campaign = tmp_path / "campaign"
    shutil.copytree(found[0], campaign)
    words = (
        "run",
        movie,
        "-m",
        "graphene",
        "--pixel-size",
        PIXEL_A,
        "-o",
        campaign,
        "--json",
        *QUICK_OPTIONS,
    )
    once = adatom(*words)
    assert once.returncode == 0, once.stderr
    records, files = ledger(campaign), results(campaign)
    assert {r[0] for r in records.values()} >= {"find", "relax", "dynamics"}
    again = adatom(*words)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(once.stdout)
    assert ledger(campaign) == records
    assert results(campaign) == files
    changed = adatom(*words, "--temperatures", "300,600")
    assert changed.returncode == 0, changed.stderr
    now = ledger(campaign)
    assert all(now[key] == row for key, row in records.items())
    new = {now[key][:2] for key in now.keys() - records.keys()}
    old_run = next(row[1] for row in records.values() if row[0] == "dynamics")
    assert new - {("advice", "movie"), ("report", "movie")} == {
        ("dynamics", old_run.replace("300", "600"))
    }
    assert ("report", "movie") in new
    assert (
        results(campaign).items()
        >= {k: v for k, v in files.items() if k != "campaign.toml"}.items()
    )


@pytest.mark.slow
def test_an_option_of_linking_leaves_perception_alone(found, tmp_path):
    campaign = tmp_path / "campaign"
    shutil.copytree(found[0], campaign)
    path = campaign / "campaign.toml"
    path.write_text(path.read_text().replace("gap_frames = 3", "gap_frames = 1"))
    before = ledger(campaign)
    from adatom.campaign.pipeline import resume_campaign

    resume_campaign(campaign, only_find=True)
    after = ledger(campaign)
    assert all(after[key] == row for key, row in before.items())
    new = sorted(after[k][0] for k in after.keys() - before.keys())
    assert new == ["advice", "link", "report"]


@pytest.mark.slow
def test_a_campaign_may_be_moved(found, movie, tmp_path):
    campaign = tmp_path / "moved"
    shutil.copytree(found[0], campaign)
    before = ledger(campaign)
    done = adatom("find", movie, "-m", "graphene", "--pixel-size", PIXEL_A, "-o", campaign)
    assert done.returncode == 0, done.stderr
    assert "3 known from before" in done.stderr
    assert ledger(campaign) == before


@pytest.mark.slow
def test_defect_too_wide_for_its_cell_is_refused_before_anything_is_done(found, tmp_path):
    from adatom.campaign.pipeline import resume_campaign

    campaign = tmp_path / "campaign"
    shutil.copytree(found[0], campaign)
    make_quick(campaign)
    path = campaign / "campaign.toml"
    path.write_text(path.read_text().replace("defect_radius_A = 3.0", "defect_radius_A = 8.0"))
    before = ledger(campaign)
    with pytest.raises(BadInput, match="Make min_width_A larger"):
        resume_campaign(campaign)
    assert ledger(campaign) == before
