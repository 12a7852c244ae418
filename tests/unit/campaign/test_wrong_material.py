"""Frames that are not of the material, or of none: exit code 3, the reason, and no advice."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import adatom as ad
from adatom.bench import BenchOptions
from adatom.bench.foreign_frames import foreign_frames
from adatom.bench.wrong import bench_wrong
from adatom.campaign.choose import choose_material
from adatom.cli import main as cli
from adatom.errors import NoMaterial, WrongMaterialWarning
from small import make_quick


@pytest.fixture
def face(monkeypatch, capfd):
    """The command line in this process: code, output, messages."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["adatom", *map(str, words)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return SimpleNamespace(
            code=code, **dict(zip(("out", "err"), capfd.readouterr(), strict=True))
        )

    return call


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    path = tmp_path_factory.mktemp("noise") / "noise.npy"
    np.save(path, np.random.default_rng(3).poisson(4.0, (112, 112)).astype(np.float32))
    return path


def test_noise_given_as_graphene_has_that_as_its_headline(face, noise, tmp_path):
    words = ("--material", "graphene", "--pixel-size", 0.12, "--adapt", "never", "--json")
    answer = face("find", noise, *words, "-o", tmp_path / "out")
    assert answer.code == 3, answer.err
    summary = json.loads(answer.out)
    assert summary["headline"].startswith("not graphene: ")
    assert summary["headline"] in summary["warnings"]
    assert summary["advice"] == 0
    assert json.loads((tmp_path / "out" / "advice.json").read_text()) == []
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.index("<h1") < page.index("not graphene: ") < page.index("</h1>")
    assert "take more counts" not in page


def test_python_warns_of_it_in_a_class_of_its_own(noise):
    with pytest.warns(WrongMaterialWarning, match="not graphene"):
        ad.find(noise, material="graphene", pixel_size_A=0.12)


def test_spots_at_other_distances_than_bonds_are_not_the_crystal():
    given = next(one for one in foreign_frames(None, 20) if one.name.endswith("checked pattern"))
    px = given.movie.calibration.pixel_size_A
    with pytest.warns(WrongMaterialWarning, match="not graphene: hardly an atom is sure"):
        ad.find(given.movie[0].data, material="graphene", pixel_size_A=px)


def test_one_sure_atom_in_a_frame_with_room_for_hundreds_is_not_enough():
    given = next(one for one in foreign_frames(None, 20) if one.name == "bright field of graphene")
    with pytest.warns(WrongMaterialWarning, match="not graphene: hardly an atom is sure"):
        ad.find(given.movie[0].data, material="graphene", pixel_size_A=0.12)


def test_without_a_material_noise_stops_before_anything_is_written(face, noise, tmp_path):
    answer = face("find", noise, "--pixel-size", 0.12, "-o", tmp_path / "out")
    assert answer.code == 3
    assert "none that is clearly likely" in answer.err
    assert "--material" in answer.err
    assert not (tmp_path / "out").exists()
    with pytest.raises(NoMaterial):
        ad.find(noise, pixel_size_A=0.12)


@pytest.mark.slow
def test_without_a_material_graphene_is_found_and_said(face, tmp_path):
    path = tmp_path / "movie.npy"
    frames, px = ad.example_frames(1)
    np.save(path, frames)
    answer = face("find", path, "--pixel-size", px, "-o", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out)
    assert summary["material"] == "graphene"
    assert any("no material was named: taken as graphene" in w for w in summary["warnings"])
    make_quick(tmp_path / "out")  # `resume` simulates as well
    again = face("resume", tmp_path / "out", "--json")
    # What was said of the frames stands; that the quick cells are small comes on top.
    assert set(summary["warnings"]) < set(json.loads(again.out)["warnings"])


@pytest.mark.slow
@pytest.mark.realdata
def test_foreign_frames_are_told_of_and_graphene_is_not_refused(shared_data):
    foreign, real, *_ = bench_wrong(BenchOptions(shared_data, quick=True), Path())
    assert foreign["met"], foreign
    assert real["met"], real


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["Si1C4/8", "Si2C6/1", "Si3C6/16"])
def test_graphene_without_a_visible_lattice_is_chosen_by_its_networks(shared_data, name):
    """Networks of other materials would be as sure of these frames."""
    movie = ad.read(shared_data / "graphene_si_library" / f"{name}.hdf5")
    chosen, screening = choose_material(movie)
    assert chosen == "graphene"
    assert screening.clear is None
