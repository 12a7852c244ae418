"""Values out of range are refused by the option's name, before anything is written."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from adatom.cli.main import app
from adatom.errors import BadInput


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--dose", "-3"), ("--dose", "nan"), ("--dose", "inf"), ("--field", "0"),
        ("--longest", "-1"), ("--longest", "nan"), ("--max-dose", "0"), ("--max-electrons", "inf"),
    ],
)  # fmt: skip
def test_live_names_the_limit_that_cannot_be(tmp_path: Path, option: str, value: str) -> None:
    words = ["live", option, value, "--frames", "1", "-o", str(tmp_path / "run")]
    with pytest.raises(BadInput, match=f"^{option}: expected a (finite number|value greater)"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert not (tmp_path / "run").exists()


def test_move_names_the_limit_that_cannot_be(tmp_path: Path) -> None:
    words = ["move", "1,0", "--longest", "-1", "-o", str(tmp_path / "run")]
    with pytest.raises(BadInput, match=r"^--longest: expected a value greater than 0, got -1\.0"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_threshold_names_its_option(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.xyz"
    sheet.write_text('2\nLattice="2.46 0 0 -1.23 2.13 0 0 0 16" pbc="T T T"\nC 0 0 8\nC 0 1.42 8\n')
    words = ["threshold", str(sheet), "--atom", "0", "--tolerance", "0"]
    with pytest.raises(BadInput, match=r"^--tolerance: expected a value greater than 0, got 0\.0"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_a_key_out_of_range_is_told_in_plain_words(tmp_path: Path) -> None:
    frame = tmp_path / "frame.npy"
    np.save(frame, np.ones((32, 32)))
    with pytest.raises(BadInput, match=r"expected greater than 0, got -1\.0"):
        CliRunner().invoke(app, ["find", str(frame), "--dose", "-1"], catch_exceptions=False)


def test_a_structure_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    words = ["vibrate", str(tmp_path / "no.cif")]
    with pytest.raises(BadInput, match=r"expected a structure file, got no such file"):
        CliRunner().invoke(app, words, catch_exceptions=False)


@pytest.mark.parametrize("option", ["--verify", "--resume"])
def test_a_directory_without_a_live_run_is_told(tmp_path: Path, option: str) -> None:
    with pytest.raises(BadInput, match="expected the directory of a live run, got no decisions"):
        CliRunner().invoke(app, ["live", option, "-o", str(tmp_path)], catch_exceptions=False)
