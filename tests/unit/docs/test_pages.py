"""The pages of docs say what is true: Python runs, commands exist, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest
import typer

import adatom
from adatom.cli.main import app
from adatom.core.columns import schema_of
from adatom.store.results import TRACE_COLUMNS

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(
    p for p in DOCS.rglob("*.md") if not {"_build", "_generated", "decisions"} & set(p.parts)
)
# A comment before a block says what it needs: a package, or minutes that a test does not have.
BLOCK = re.compile(r"(?:<!-- needs: (\w+) -->\n)?```(python|sh)\n(.*?)```", re.DOTALL)
COMMANDS = typer.main.get_command(app).commands


def runnable(page: Path) -> list[tuple[str, str]]:
    """Language and text of every block that can run here, in the order of the page."""
    found = BLOCK.findall(page.read_text("utf-8"))
    return [(kind, text) for needs, kind, text in found if not needs or find_spec(needs)]


def command_lines(page: Path) -> list[list[str]]:
    """Words of every line of a shell block that calls adatom, from its name on."""
    out = []
    for _, kind, text in BLOCK.findall(page.read_text("utf-8")):
        for line in text.replace("\\\n", " ").splitlines() if kind == "sh" else ():
            words = line.split("#")[0].split()
            names = [i for i, word in enumerate(words) if re.fullmatch(r"(.*/)?adatom", word)]
            if names and len(words) > names[0] + 1:
                out.append(words[names[0] :])
    return out


def run_page(page: Path, folder: Path, *, commands: bool) -> str:
    """Run a page from its top to its end in one script; give what it printed."""
    parts = ["import subprocess, sys"]
    for kind, text in runnable(page):
        if kind == "python":
            parts.append(text)
        elif commands:
            parts += [
                f"subprocess.run([sys.executable, '-m', 'adatom', *{line.split()[1:]!r}], "
                "check=True)"
                for line in text.splitlines()
            ]
    script = folder / "page.py"
    body = textwrap.indent("\n".join(parts), "    ")  # guarded, as every use of processes must be
    script.write_text(f'if __name__ == "__main__":\n{body}\n', "utf-8")
    done = subprocess.run(
        [sys.executable, "-u", str(script)],
        capture_output=True, text=True, cwd=folder, timeout=540, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_first_frame_goes_from_an_array_to_tables(tmp_path):
    out = run_page(DOCS / "tutorials" / "first-frame.md", tmp_path, commands=True)
    assert "(1, 192, 192) 0.1042 Å a pixel" in out  # as the page shows it
    assert re.search(r"1 frames, 1[56]\d atoms \(1[56]\d C, 1 Si\)", out)  # 160 on the page
    assert "Si1C3: seen once" in out
    assert (tmp_path / "first" / "report.html").exists()


@pytest.mark.slow
def test_barriers_vibrations_and_fates_run_as_the_page_says(tmp_path):
    out = run_page(DOCS / "how-to" / "barriers-and-damage.md", tmp_path, commands=False)
    assert "10.2 eV, 1 negative mode" in out
    assert "V1 stays in 0.2 ps" in out


@pytest.mark.slow
def test_the_movie_runs_as_the_page_says(tmp_path):
    out = run_page(DOCS / "tutorials" / "a-movie.md", tmp_path, commands=True)
    assert "4 frames" in out
    assert "dynamics at 300 K: 2 runs" in out
    made = tmp_path / "my-movie" / "trajectories"
    # Draws are relaxed and heated; the most probable structure and the perfect crystal are relaxed,
    # and three more cells, by LAMMPS, say how much a wider cell would change the energy.
    for task, pattern, number in (("relax", "*-relax", 7), ("dynamics", "*-300K", 2)):
        traces = list(made.glob(f"{pattern}.trace.parquet"))
        assert len(traces) == number
        assert pl.read_parquet_schema(traces[0]) == schema_of(TRACE_COLUMNS[task])


@pytest.mark.slow
def test_every_step_runs_from_python(tmp_path):
    out = run_page(DOCS / "tutorials" / "from-python.md", tmp_path, commands=False)
    assert "atoms in 2 frames" in out
    assert "Si1C3" in out
    assert re.search(r" relax -\d+\.\d+ eV done", out)
    assert "a pixel size" in out


@pytest.mark.slow
def test_signals_and_structures_go_out_and_come_back(tmp_path):
    out = run_page(DOCS / "tutorials" / "hyperspy-and-ase.md", tmp_path, commands=False)
    assert "1 0.1041" in out  # one frame with its scale in Å, from nm
    assert out.rstrip().endswith("True")
    assert (tmp_path / "slab.vasp").exists()


def test_every_room_is_explained():
    page = (DOCS / "explanation" / "architecture.md").read_text("utf-8")
    named = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)  # first cells of the table
    explained = set(re.findall(r"`(\w+)`", " ".join(named)))
    source = Path(adatom.__file__).parent
    rooms = {p.stem for p in source.iterdir() if p.name[0].isalpha() and p.suffix in ("", ".py")}
    assert rooms == explained


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda p: p.name)
def test_commands_and_their_options_exist(page):
    for words in command_lines(page):
        assert words[1] in COMMANDS, words
        known = {o for p in COMMANDS[words[1]].params for o in p.opts} | {"-h", "--help"}
        used = {w.split("=")[0] for w in words if re.match(r"-{1,2}[a-z]", w)}
        assert used <= known, words


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
