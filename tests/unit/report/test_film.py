"""The film of a move: what it holds, and that a browser shows it."""

import shutil
import subprocess

import numpy as np
import pytest

from adatom.core import Calibration, Frame
from adatom.report.film import Decision, Film, FilmFrame, film_data
from adatom.report.report import move_page

RNG = np.random.default_rng(5)


def film(signal=True, seconds=4.0):
    frame = Frame(RNG.poisson(3.0, (64, 64)).astype(np.float32), Calibration(0.2))
    atoms = np.array([[14.0, 14.0], [15.4, 14.0]])
    shots = [
        FilmFrame(0.0, 0.5, frame, (10.0, 10.0), atoms, ["C", "Si"]),
        FilmFrame(3.0, 0.5, frame, (10.2, 10.0), np.zeros((0, 2)), []),
    ]  # fmt: skip
    times = np.arange(0.505, 3.0, 0.005)
    counts = np.where(times > 2.9, 300.0, 100.0) if signal else np.full(len(times), np.nan)
    beam = np.stack([times, counts, np.full_like(times, 14.1), np.full_like(times, 14.0)], axis=1)
    told = [
        Decision(0.5, "plan", "Plans 1 hop"),
        Decision(2.9, "jump", "It jumped </script><b>"),
        Decision(seconds, "end", "Done"),
    ]
    ways = [(0.5, np.array([[15.4, 14.0], [14.0, 14.0]]))]
    places = [(0.5, 0, 15.4, 14.0), (2.9, 0, 14.0, 14.0)]
    return Film("The Si was moved", "Si", shots, beam, 0.005, ways, places, told, seconds)


def test_a_film_keeps_counts_places_and_times():
    data = film_data(film())
    assert data["stage"] == [9.9, 9.9, 12.8, 12.8]
    assert data["frames"][1]["box"][0] == pytest.approx(10.1)
    signal = data["signal"]
    assert np.median(signal["c"]) == pytest.approx(100.0)
    assert max(signal["c"]) == pytest.approx(300.0)
    assert np.diff(signal["t"]).max() == pytest.approx(0.01, abs=1e-3)
    assert data["elements"][-1][0] == "Si"
    assert data["speed"] == 1.0
    assert film_data(film(seconds=100.0))["speed"] == 5.0
    assert film_data(film(signal=False))["signal"]["c"] == []


def test_words_of_a_record_cannot_become_markup():
    page = move_page("Move", "Done.", film_data(film()))
    assert "</script><b>" not in page
    assert "https:" not in page


def test_a_browser_draws_the_film(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    page = tmp_path / "page.html"
    page.write_text(move_page("Move", "Done.", film_data(film())), "utf-8")
    dom = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        check=True, capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    assert 'class="film live"' in dom
    for mark in ("beam", "here", "route", "goal"):  # it begins where the beam is parked first
        assert f'class="{mark}"' in dom.split("<output", 1)[0]
    assert ">beam parked</output>" in dom
    assert dom.count('class="plan current"') == 1
