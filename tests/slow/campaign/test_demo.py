"""The demonstration as a user runs it, and its page in a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

pytestmark = pytest.mark.slow
FILES = (
    *("campaign.toml", "ledger.sqlite", "frames.zarr", "maps.zarr", "atoms.parquet"),
    *("defects.parquet", "structures", "simulations.parquet", "trajectories", "advice.json"),
    *("report.html", "picture.png"),
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    "--window-size=1280,3000",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "campaign"
    done = subprocess.run(
        [sys.executable, "-m", "adatom", "demo", "-o", str(path), "--json"],
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout)


def test_finds_what_the_simulated_microscope_holds(demo):
    from adatom.campaign.demo import demo_config
    from adatom.campaign.sources import make_twin
    from adatom.core import GRAPHENE
    from adatom.features.calibration.calibrator import match_truth

    path, summary = demo
    options = demo_config(7).input.twin
    twin = make_twin(options, GRAPHENE, seed=7)
    corner = np.asarray(twin.center_xy_A) - options.field_of_view_A / 2
    atoms = pl.read_parquet(path / "atoms.parquet")
    from adatom.core import ScanRequest

    request = ScanRequest(
        twin.center_xy_A, options.field_of_view_A, options.pixels, options.dose_per_A2
    )
    for frame in range(options.frames):
        xy, species = twin.truth
        inside = np.all((xy - corner > 1.0) & (xy - corner < options.field_of_view_A - 1.1), axis=1)
        mine = atoms.filter((pl.col("frame") == frame) & (pl.col("p_exists") > 0.5))
        found = match_truth(xy[inside] - corner, mine.select("x_A", "y_A").to_numpy())
        assert (found >= 0).mean() > 0.99
        hops = len(twin.hops)
        twin.acquire(request)
        if len(twin.hops) > hops:  # it jumped during the scan: the frame shows it twice, or never
            continue
        silicon = mine.filter(pl.col("element") == "Si").select("x_A", "y_A").to_numpy() + corner
        assert len(silicon) == 1
        assert np.linalg.norm(silicon - xy[species == 1], axis=1).min() < 0.3
    assert summary["defect_frames"]["V1"] >= 10
    assert summary["defect_frames"]["Si1C3"] >= 10


def test_simulates_every_draw(demo):
    _, summary = demo
    assert {r["draws"] for r in summary["relaxed"]} == {4}
    assert all(r["energy_sd_eV"] is not None for r in summary["relaxed"])
    for row in summary["dynamics"]:
        assert row["runs"] == 8
        assert row["mean_temperature_K"] == pytest.approx(row["temperature_K"], rel=0.05)
    assert 1.36 < summary["bond_length_A"] < 1.46


def test_leaves_every_file_of_a_campaign(demo):
    path, summary = demo
    for name in [
        "campaign.toml",
        "ledger.sqlite",
        "frames.zarr",
        "maps.zarr",
        "atoms.parquet",
        "defects.parquet",
        "structures",
        "simulations.parquet",
        "trajectories",
        "advice.json",
        "report.html",
        "picture.png",
    ]:
        assert (path / name).exists(), name
    assert summary["report"] == str(path / "report.html")
    advice = json.loads((path / "advice.json").read_text("utf-8"))
    actions = {a["action"] for a in advice}
    assert "place_beam" in actions  # a Si that could be moved is in view
    assert "stop" not in actions
    assert all(a["reason"] for a in advice)


def test_page_opens_in_a_browser(demo, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    path, _ = demo
    picture = tmp_path / "page.png"
    base = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]
    url = (path / "report.html").as_uri()
    subprocess.run(
        [*base, f"--screenshot={picture}", url], check=True, capture_output=True, timeout=120
    )
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("L"), dtype=float)
    assert pixels.shape == (3000, 1280)
    assert pixels.std() > 10  # not a blank or an error page
    dom = subprocess.run(
        [*base, "--dump-dom", url], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    for section in (
        "What to do next",
        "relaxed structures",
        "molecular dynamics",
        "How it was made",
    ):
        assert section in dom
