"""`adatom identify` names the likeliest candidate, and ends with 3 where no lattice is seen."""

import json

import numpy as np
from typer.testing import CliRunner

import adatom as ad
from adatom.cli.main import app
from adatom.cli.options import error_with_options
from adatom.errors import NoMaterial


def run(*words):
    return CliRunner().invoke(app, ["identify", *map(str, words)])


def test_the_command_says_what_python_says(tmp_path):
    frames, px = ad.example_frames(1)
    np.save(tmp_path / "frame.npy", frames)
    given = ["-c", "MoS2", "-c", "graphene", "--scale-error", "0.02"]
    done = run(tmp_path / "frame.npy", "--pixel-size", px, *given, "--json")
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    found = ad.identify(frames, ["MoS2", "graphene"], pixel_size_A=px, scale_error=0.02)
    assert [one["name"] for one in said] == [c.name for c in found] == ["graphene", "MoS2"]
    assert said[0]["probability"] == found[0].probability > 0.9


def test_no_lattice_is_an_error_of_its_own(tmp_path):
    noise = np.random.default_rng(0).poisson(4.0, (160, 160)).astype(float)
    np.save(tmp_path / "noise.npy", noise)
    done = run(tmp_path / "noise.npy", "--pixel-size", "0.15", "-c", "graphene")
    assert isinstance(done.exception, NoMaterial)
    assert done.exception.exit_code == 3
    assert "graphene" in done.stdout


def test_errors_name_the_options(tmp_path):
    np.save(tmp_path / "frame.npy", np.random.default_rng(0).poisson(4.0, (64, 64)).astype(float))
    for given, option in (
        (["--scale-error", "0.5"], "--scale-error"),
        (["-c", "graphene", "-c", "graphene"], "--candidate"),
    ):
        error = run(tmp_path / "frame.npy", "--pixel-size", "0.15", *given).exception
        assert error_with_options(error)["error"] == option


def test_missing_frames_are_said():
    assert "FRAMES" in str(run().exception)
    assert "no such file" in str(run("nowhere.tif").exception)
