"""Errors come before libraries; shared options, materials, export, hints."""

import json
import subprocess
import sys

import ase.io
import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from adatom.cli.main import app
from adatom.cli.options import config_of, error_with_options
from adatom.cli.screen import Screen, obey, say
from adatom.core import GRAPHENE
from adatom.errors import BadInput
from adatom.materials.library import load_material
from adatom.store import CampaignDirectory, write_structures, write_table
from adatom.structures import pristine_supercell
from adatom.training.train import train_options
from small import PIXEL_A, simulated_movie

HEAVY = ("torch", "pandas", "sklearn", "matplotlib", "scipy", "ase", "polars", "numpy")
runner = CliRunner()


@pytest.fixture(autouse=True)
def plain_output():
    yield
    obey(quiet=False, log=None)


def modules_after(*arguments: str) -> tuple[str, set[str]]:
    """Run a command in a fresh process; give its error and the heavy libraries that it loaded."""
    script = (
        "import sys; sys.argv = ['adatom', *sys.argv[1:]]\n"
        "from adatom.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60
    )
    return done.stderr, set(done.stdout.split()) & set(HEAVY)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("find", "missing.dm4"), "no such file"),
        (("resume", "nowhere"), "no such directory"),
        (("run",), "FRAMES"),
    ],
)
def test_a_wrong_path_is_said_before_libraries_are_loaded(arguments, words):
    error, loaded = modules_after(*arguments)
    assert words in error
    assert loaded == set()


def test_finding_atoms_loads_no_torch(tmp_path):
    frame = tmp_path / "frame.npy"
    np.save(frame, simulated_movie(1)[0])
    out = tmp_path / "out"
    given = ("find", str(frame), "-m", "graphene", "--pixel-size", str(PIXEL_A), "-o", str(out))
    error, loaded = modules_after(*given, "-q")
    assert (out / "atoms.parquet").exists(), error
    assert "torch" in HEAVY
    assert not loaded & {"torch", "matplotlib", "sklearn", "pandas"}


@pytest.mark.parametrize("command", ["run", "find", "adapt", "train", "resume", "demo", "export"])
def test_every_command_that_works_has_the_shared_options(command):
    text = runner.invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    assert "--quiet" in text
    assert "--log" in text


def test_quiet_commands_keep_progress_to_the_log(tmp_path, capsys):
    log = tmp_path / "a.log"
    obey(quiet=True, log=log)
    screen = Screen()
    screen.start("find", 2, 1)
    screen.finish("find")
    screen.warn("`pixel_size_A` is odd")
    screen.close()
    say("wrote it")
    shown = capsys.readouterr().err
    assert "--pixel-size is odd" in shown
    assert "find" not in shown
    assert "wrote" not in shown
    lines = [line.partition(" ")[2] for line in log.read_text("utf-8").splitlines()]
    assert lines[1:] == [
        "find: 2 to do, 1 known from before", "find: done", "warning: --pixel-size is odd",
        "wrote it",
    ]  # fmt: skip


def test_a_log_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(BadInput, match="--log"):
        obey(quiet=False, log=tmp_path / "no" / "a.log")


def test_options_go_before_the_file_of_config(tmp_path):
    (tmp_path / "frames.npy").write_bytes(b"")
    file = tmp_path / "mine.toml"
    file.write_text('seed = 4\n[input]\npaths = ["frames.npy"]\n[simulate]\ndraws = 2\n')
    config = config_of(file, draws=7)
    assert (config.seed, config.simulate.draws) == (4, 7)
    assert config.input.paths == (str((tmp_path / "frames.npy").resolve()),)
    assert config_of(file).simulate.draws == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = ", "TOML"),
        ("sed = 3\n[input]\npaths = ['f.npy']", "sed"),
        ("seed = 'x'\n[input]\npaths = ['f.npy']", "seed"),
        ("seed = 3", "FRAMES"),
        ("input = 3", "FRAMES"),
        ("[input]\npaths = ['lost.npy']", "no such file"),
    ],
)
def test_a_wrong_file_of_config_is_refused(tmp_path, text, words):
    (tmp_path / "f.npy").write_bytes(b"")
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(BadInput, match=words):
        config_of(tmp_path / "c.toml")


def test_errors_use_the_words_of_the_option(tmp_path):
    (tmp_path / "f.npy").write_bytes(b"")
    with pytest.raises(BadInput) as caught:
        config_of(frames=[tmp_path / "f.npy"], draws=0)
    assert caught.value.subject == "--draws"
    with pytest.raises(BadInput) as caught:
        train_options("graphene", steps=None, start=None, kind="shard")
    assert error_with_options(caught.value)["error"] == "--kind"
    assert caught.value.todo == "Did you mean 'shared'?"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("Mo-S2", "MoS2"),
        ("mo s2", "MoS2"),
        ("hBN", "h-BN"),
        ("grafene", "graphene"),
        ("graphen", "graphene"),
        ("MoTe2", None),
        ("WSe2", None),
        ("MoS3", None),
        ("Ag", None),
        ("Au-on-carbon", None),
        ("pt on carbon", "Pt-on-carbon"),
    ],
)
def test_another_compound_is_never_meant(given, meant):
    with pytest.raises(BadInput) as caught:
        load_material(given)
    hint = caught.value.todo
    assert ("Did you mean" in hint) == (meant is not None)
    if meant is not None:
        assert f"Did you mean {meant!r}".lower() in hint.lower()


def test_materials_lists_what_is_built_in():
    rows = json.loads(runner.invoke(app, ["materials", "--json"]).stdout)
    found = {row["name"]: row for row in rows}
    assert found["graphene"]["networks_ship"]
    assert found["graphene"]["simulated_by"] == ["gfn1-xtb", "lammps"]
    assert found["MoS2"]["lattice_constant_A"] == pytest.approx(3.16, abs=0.03)
    assert "graphene" in runner.invoke(app, ["materials"]).stdout


@pytest.fixture
def campaign(tmp_path):
    structure = pristine_supercell(GRAPHENE)
    with CampaignDirectory.open(tmp_path / "c", {"seed": 1}, "print", source=("f",)) as directory:
        write_structures(directory.structures / "a.extxyz", [structure])
        write_structures(directory.trajectories / "a-relax.extxyz", [structure, structure])
        table = pl.DataFrame({"frame": [0, 1], "atoms": [[1, 2], []]})
        write_table(directory.path / "defects.parquet", table)
    return tmp_path / "c", structure.atoms


@pytest.mark.parametrize(
    ("to", "suffix", "reader"),
    [("cif", ".cif", "cif"), ("poscar", ".vasp", "vasp"), ("xyz", ".xyz", "xyz"),
     ("lammps", ".data", "lammps-data")],
)  # fmt: skip
def test_structures_are_exported_whole(campaign, to, suffix, reader):
    path, atoms = campaign
    done = runner.invoke(app, ["export", str(path), "--to", to, "--json"])
    files = json.loads(done.stdout)
    assert [f.rpartition("/")[2] for f in files] == [
        f"a-relax{suffix}",
        f"graphene-pristine{suffix}",
    ]
    back = ase.io.read(files[0], format=reader)
    assert back.get_chemical_formula() == "C98"
    if to != "xyz":
        np.testing.assert_allclose(back.cell.lengths(), atoms.cell.lengths(), atol=1e-4)
    shortest = np.sort(atoms.get_all_distances(mic=True), axis=1)[:, 1]
    assert shortest == pytest.approx(1.42, abs=0.01)


def test_tables_are_exported_as_csv(campaign, tmp_path):
    path, _ = campaign
    runner.invoke(app, ["export", str(path), "--to", "csv", "-o", str(tmp_path / "out")])
    text = (tmp_path / "out" / "defects.csv").read_text()
    assert text.splitlines() == ["frame,atoms", "0,1 2", '1,""']


def test_an_export_that_cannot_be_made_is_refused(campaign, tmp_path):
    path, _ = campaign
    wrong = runner.invoke(app, ["export", str(path), "--to", "pdb"])
    assert isinstance(wrong.exception, BadInput)
    assert "cif or poscar" in wrong.exception.expected
    with CampaignDirectory.open(tmp_path / "e", {"seed": 1}, "print", source=("f",)):
        pass
    empty = runner.invoke(app, ["export", str(tmp_path / "e"), "--to", "cif"])
    assert "none yet" in str(empty.exception)
