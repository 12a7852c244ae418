"""The configuration: one place for each fact, a description of each key, and what it refuses."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from adatom.campaign.batch import resume
from adatom.campaign.config import Config, parse_config
from adatom.campaign.pipeline import run_campaign
from adatom.campaign.reference import reference
from adatom.errors import BadInput
from small import PIXEL_A, simulated_movie

# Facts of the experiment: whoever states one twice can state it in two ways.
FACTS = ("seed", "material", "voltage", "zone_axis", "pixel_size", "weights", "temperatures")
# The same word for different things, each with what it means in each place.
SAME_WORD = {
    "frames": "those to read; how many the twin takes; how many adaptation learns from",
    "field_of_view_A": "of the twin's demonstration; of a scan that is advised",
    "voltage_kV": "of the frames, beside what their files say; of the twin",
    "dose_per_A2": "of the frames; of a frame that the twin takes",
    "pixels": "of the twin's demonstration; of a scan that is advised",
    "max_seconds": "of a relaxation; of a dynamics run",
    "trajectory_frames": "of a relaxation; of a dynamics run",
    "drift_A": "a random walk of the twin's stage, 1 sigma; the largest that linking expects",
    "minimum_p": "of a defect to be named; of one to be simulated",
    "border_A": "where defects are not named; where supercells call no site empty",
}


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def keys(model: type[BaseModel], where: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key that holds a value, nested ones with their path."""
    for name, field in model.model_fields.items():
        inner = list(models_in(field.annotation))
        for nested in inner:
            yield from keys(nested, f"{where}{name}.")
        if not inner:
            yield f"{where}{name}", field


def test_each_fact_of_the_experiment_has_one_key():
    for fact in FACTS:
        # The twin is a microscope: it says of its frames what a file would.
        given = [key for key, _ in keys(Config) if not key.startswith("input.twin.")]
        found = [key for key in given if fact in key.rsplit(".", 1)[-1]]
        assert len(found) == 1, f"{fact} is stated by {found}"


def test_no_two_keys_share_a_name_unless_they_mean_different_things():
    places = defaultdict(list)
    for key, _ in keys(Config):
        places[key.rsplit(".", 1)[-1]].append(key)
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert twice.keys() == SAME_WORD.keys(), twice


def test_every_key_has_a_description():
    lacking = [key for key, field in keys(Config) if not field.description]
    assert not lacking


def test_the_reference_explains_every_key_once():
    text = reference()
    for key, field in keys(Config):
        section, _, name = key.rpartition(".")
        part = text.split(f"## [{section}]\n")[1] if section else text
        (row,) = [r for r in part.split("## [")[0].splitlines() if r.startswith(f"| `{name}` ")]
        assert len(row.replace("\\|", "").split("|")) == 7, row
        unit = row.split("|")[-3].strip()
        assert field.description.removesuffix(f", {unit}") in row
        if name.endswith("_A"):
            assert unit in ("Å", "eV/Å")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("voltage_kV", ("number", "not set", "kV")),
        ("fmax_eV_A", ("`0.05`", "eV/Å")),
        ("temperatures_K", ("list: number", "`[300.0, 900.0]`", "K")),
        ("hop_cross_section_A2", ("Å²",)),
        ("thermostat", ('`"rescaling"` or `"none"`',)),
        ("weights", ("text", "not set")),
    ],
)
def test_the_reference_has_types_defaults_and_units(key, says):
    row = next(r for r in reference().splitlines() if r.startswith(f"| `{key}` "))
    cells = [cell.strip() for cell in row.split("|")]
    assert set(says) <= set(cells)


def test_facts_are_written_once(tmp_path):
    """`run` with a seed, a material and a voltage: campaign.toml has each once."""
    source = tmp_path / "frames.npy"
    np.save(source, simulated_movie(1))
    table = {
        "input": {"paths": [str(source)], "pixel_size_A": PIXEL_A},
        "material": "Graphene", "seed": 5, "voltage_kV": 81.0, "adapt": "never",
    }  # fmt: skip
    run_campaign(parse_config(table, "test"), tmp_path / "out", only_find=True)
    written = tomllib.loads((tmp_path / "out" / "campaign.toml").read_text("utf-8"))
    assert dict(_named(written, ("seed", "material", "voltage_kV"))) == {
        "seed": 5, "material": "Graphene", "voltage_kV": 81.0,
    }  # fmt: skip
    resume(tmp_path / "out", only_find=True, mu=("Si-rich",))  # `adatom simulate --mu`
    again = tomllib.loads((tmp_path / "out" / "campaign.toml").read_text("utf-8"))
    assert again.pop("simulate")["mu"] == ["Si-rich"]
    assert again == {k: v for k, v in written.items() if k != "simulate"}
    with pytest.raises(BadInput):
        resume(tmp_path / "out", mu=("Xx-rich",))


def test_options_without_a_calibration_are_told_of(tmp_path):
    source = tmp_path / "frames.npy"
    np.save(source, simulated_movie(1))
    table = {
        "material": "graphene",
        "input": {"paths": [str(source)], "pixel_size_A": PIXEL_A},
        "adapt": "never", "find": {"locate": {"threshold": 0.11}},
    }  # fmt: skip
    outcome = run_campaign(parse_config(table, "test"), tmp_path / "out", only_find=True)
    (told,) = [w for w in outcome.summary["warnings"] if "calibrated" in w]
    assert "find.locate.threshold is 0.11 here and was 0.08" in told


def _named(table: dict[str, Any], names: tuple[str, ...], where: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in table.items():
        if isinstance(value, dict):
            found += _named(value, names, f"{where}{key}.")
        elif key in names:
            found.append((where + key, value))
    return found


@pytest.mark.parametrize("section", ["relax", "dynamics"])
def test_a_fact_in_the_wrong_place_is_refused(section):
    table = {"input": {"paths": ["a.npy"]}, section: {"material": "MoS2"}}
    with pytest.raises(BadInput, match=rf"{section}\.material"):
        parse_config(table, "campaign.toml")
