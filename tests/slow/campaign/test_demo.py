"""The demonstration as a user runs it, and its page in a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial

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


def test_moves_the_silicon_and_finds_it_where_the_microscope_has_it(demo):
    from adatom.analysis.frame import analyse_frame
    from adatom.campaign.demo import DEMO_MOVE, DEMO_SITES, DEMO_TWIN
    from adatom.campaign.move import move_atoms
    from adatom.campaign.twin import make_twin
    from adatom.core import GRAPHENE
    from adatom.features.calibration.calibrator import match_truth
    from adatom.feedback.plans import Away
    from adatom.learning.weights import load_shipped

    path, summary = demo
    told = json.loads((path / "move" / "move.json").read_text("utf-8"))
    assert told["status"] == "done"
    assert told["hops"] >= DEMO_SITES
    # The same seed makes the same move: its twin holds the truth of the last frames.
    twin = make_twin(DEMO_TWIN, GRAPHENE, 7)
    drifts, acquire = [], twin.acquire

    def watched(request):
        drifts.append(twin.drift_xy_A)
        return acquire(request)

    twin.acquire = watched
    see = partial(analyse_frame, ensemble=load_shipped("graphene"), material=GRAPHENE)
    moved = move_atoms(twin, see, GRAPHENE, Away(DEMO_SITES), options=DEMO_MOVE)
    np.testing.assert_allclose(moved.path_xy_A, told["path_xy_A"], atol=1e-3)
    assert len(twin.hops) == told["hops"]
    xy, species = twin.sites_xy[twin.occupied], twin.species[twin.occupied]
    edge = DEMO_MOVE.first_field_A
    atoms = pl.read_parquet(path / "atoms.parquet")
    for frame, drift in enumerate(drifts[-DEMO_MOVE.last_frames :]):
        corner = moved.frames[-1].request.to_specimen(np.zeros(2)) - drift
        inside = np.all((xy - corner > 1.0) & (xy - corner < edge - 1.1), axis=1)
        mine = atoms.filter((pl.col("frame") == frame) & (pl.col("p_exists") > 0.5))
        found = match_truth(xy[inside] - corner, mine.select("x_A", "y_A").to_numpy())
        assert (found >= 0).mean() > 0.99
        silicon = mine.filter(pl.col("element") == "Si").select("x_A", "y_A").to_numpy() + corner
        assert len(silicon) == 1
        assert np.linalg.norm(silicon - xy[species == 1], axis=1).min() < 0.3
    assert summary["defect_frames"] == {"V1": DEMO_MOVE.last_frames, "Si1C3": DEMO_MOVE.last_frames}


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
        "move/decisions.jsonl",
        "move/film.json",
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
        "The move",
        "It jumped to",
        "What to do next",
        "relaxed structures",
        "molecular dynamics",
        "How it was made",
    ):
        assert section in dom
