"""`adatom describe` groups the atoms of a campaign."""

import json

import numpy as np
import polars as pl
from typer.testing import CliRunner

from adatom.cli.main import app
from adatom.core.environments import SCHEMA
from adatom.errors import BadInput
from small import PIXEL_A, simulated_movie

runner = CliRunner()


def test_atoms_of_a_campaign_are_grouped(tmp_path):
    movie = tmp_path / "movie.npy"
    out = tmp_path / "campaign"
    np.save(movie, simulated_movie(2))
    done = runner.invoke(
        app, ["find", str(movie), "-m", "graphene", "--pixel-size", str(PIXEL_A), "-o", str(out)]
    )
    assert done.exit_code == 0, done.output
    described = runner.invoke(app, ["describe", str(out), "--json"])
    assert described.exit_code == 0, described.output
    table = pl.read_parquet(out / "environments.parquet")
    assert table.schema == SCHEMA
    atoms = pl.read_parquet(out / "atoms.parquet").filter(pl.col("p_exists") > 0.5)
    assert table.select("frame", "atom").rows() == atoms.select("frame", "atom").rows()
    sizes = {row["group"]: row["count"] for row in json.loads(described.stdout)["groups"]}
    assert sum(sizes.values()) == table["group"].drop_nulls().len()
    assert max(sizes, key=sizes.__getitem__) == "C1"


def test_without_a_campaign_the_error_says_what_to_do(tmp_path):
    failed = runner.invoke(app, ["describe", str(tmp_path)])
    assert isinstance(failed.exception, BadInput)
