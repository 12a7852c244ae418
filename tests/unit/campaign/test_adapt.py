"""Adaptation inside campaigns and on the command line, and crystals that are not graphene there."""

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from adatom.analysis.frame import analyse_frame
from adatom.campaign import adapt as adaptation
from adatom.campaign.adapt import needs_adaptation
from adatom.campaign.config import parse_config
from adatom.campaign.pipeline import run_campaign
from adatom.cli import main as cli
from adatom.core import GRAPHENE, VACANCY, Calibration, Frame
from adatom.errors import StepFailed
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_sites
from adatom.frames.simulate.synthesize import image_specimen
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.ensemble import Ensemble
from adatom.materials.library import load_material
from adatom.training.adapt import rounds
from adatom.training.adapt.options import AdaptOptions
from adatom.training.adapt.rounds import Adapted, adapt
from small import PIXEL_A, simulated_movie

TINY = AdaptOptions(rounds=1, frames=2, steps=4, calibration_frames=24, validation_frames=4)
TOML = """name = "MoSe2-plain"
[crystal]
cell_A = [[3.288, 0.0], [1.644, 2.84749]]
columns = [
  { is = "Mo", at = [0.3333333333, 0.3333333333] },
  { is = "Se2", at = [0.6666666667, 0.6666666667] },
]
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    use_threads(1)


def configured(path, **change):
    table = {
        "material": "graphene",
        "input": {"paths": (str(path),), "pixel_size_A": PIXEL_A},
        "adaptation": TINY.model_dump(),
    }
    return parse_config(table | change, "test")


def saved(folder, data):
    path = folder / "movie.npy"
    np.save(path, np.asarray(data, dtype=np.float32))
    return path


def crystal_frame(material, px, side=128, counts=40.0):
    rng = np.random.default_rng(4)
    far = Calibration(px).extent_xy((side, side))
    xy, site = lattice_sites(material, far, 3.0, 0.4)
    number = {s: k for k, s in enumerate(material.species)}
    kinds = np.array([number[s] for s in material.site_species])[site]
    conditions = Conditions(pixel_size_A=px, probe_sigma_A=(0.45, 0.45), counts=counts)
    specimen = Specimen(xy, kinds, np.zeros((0, 2)))
    return image_specimen(specimen, (side, side), material, conditions, rng)


@pytest.fixture(scope="module")
def square():
    """Strontium titanate, given as graphene."""
    return crystal_frame(load_material("SrTiO3"), PIXEL_A, side=192).frame.data


@pytest.fixture
def once(monkeypatch):
    """Count how often a campaign really adapts, and how often it looks."""
    seen = {"adapt": 0, "look": 0}

    def counted(name, call):
        def wrapped(*given, **more):
            seen[name] += 1
            return call(*given, **more)

        return wrapped

    monkeypatch.setattr(rounds, "adapt", counted("adapt", adapt))
    monkeypatch.setattr(adaptation, "needs_adaptation", counted("look", needs_adaptation))
    return seen


@pytest.mark.slow
def test_frames_of_another_crystal_are_told_of_and_the_campaign_goes_on(tmp_path, square, once):
    config = configured(saved(tmp_path, square[None]))
    done = run_campaign(config, tmp_path / "out", only_find=True)
    assert done.summary["headline"].startswith("not graphene: ")
    assert "SrTiO3" in done.summary["headline"]
    assert not (tmp_path / "out" / "adapted.safetensors").exists()
    assert (tmp_path / "out" / "report.html").exists()
    assert once == {"adapt": 0, "look": 0}, "there is nothing to adapt to"
    again = run_campaign(config, tmp_path / "out", only_find=True)
    assert again.summary["warnings"] == done.summary["warnings"]
    assert once == {"adapt": 0, "look": 0}


@pytest.mark.slow
def test_asked_for_always_such_frames_are_refused(tmp_path, square):
    config = configured(saved(tmp_path, square[None]), adapt="always")
    with pytest.raises(StepFailed, match="neighbours"):
        run_campaign(config, tmp_path / "out", only_find=True)


@pytest.mark.slow
def test_usual_frames_are_found_as_they_are(tmp_path, once):
    config = configured(saved(tmp_path, simulated_movie(2)))
    done = run_campaign(config, tmp_path / "out", only_find=True)
    assert once == {"adapt": 0, "look": 1}
    assert not any("adapted" in w for w in done.summary["warnings"])
    run_campaign(config, tmp_path / "out", only_find=True)
    assert once["look"] == 1


def test_never_means_that_nobody_looks(tmp_path, square, once):
    config = configured(saved(tmp_path, square[None]), adapt="never")
    run_campaign(config, tmp_path / "out", only_find=True)
    assert once == {"adapt": 0, "look": 0}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two members of the shipped ensemble, as a file."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    weights.save(weights.load_shipped("graphene").with_members([0, 5]), path)
    return path


def test_a_round_that_was_taken_back_is_not_called_an_adaptation(tmp_path, small, monkeypatch):
    def taken_back(frames, material, ensemble, options, **_):
        return Adapted(ensemble, [SimpleNamespace(accepted=False)], None, (1.0, 1.0))

    monkeypatch.setattr(rounds, "adapt", taken_back)
    change = {"adapt": "always", "weights": str(small)}
    config = configured(saved(tmp_path, simulated_movie(2)), **change)
    done = run_campaign(config, tmp_path / "out", only_find=True)
    assert any("the networks were not adapted" in w for w in done.summary["warnings"])
    assert not (tmp_path / "out" / "adapted.safetensors").exists()


def test_an_adapted_ensemble_that_was_lost_is_made_again(tmp_path, small, monkeypatch):
    made = []

    def prepared(frames, material, ensemble, options, **_):
        made.append(len(frames))
        return Adapted(ensemble, [SimpleNamespace(accepted=True)], None, (1.0, 1.0))

    monkeypatch.setattr(rounds, "adapt", prepared)
    change = {"adapt": "always", "weights": str(small)}
    config = configured(saved(tmp_path, simulated_movie(3)), **change)
    out = tmp_path / "out"
    for lost, times in ((None, 1), (None, 1), ("adapted.safetensors", 2), ("adapted.json", 3)):
        if lost:
            (out / lost).unlink()
        run_campaign(config, out, only_find=True)
        assert made == [2] * times, "the first two of three frames, each time that it was lost"


@pytest.mark.slow
def test_a_campaign_adapts_once_and_finds_with_what_it_learned(tmp_path, small, once):
    # With the few frames of TINY, chance decides whether a round is taken back.
    enough = TINY.model_copy(update={"calibration_frames": 96, "validation_frames": 16})
    change = {"adapt": "always", "weights": str(small), "adaptation": enough.model_dump()}
    config = configured(saved(tmp_path, simulated_movie(2)), **change)
    done = run_campaign(config, tmp_path / "out", only_find=True)
    assert any("were adapted" in w for w in done.summary["warnings"])
    made = weights.load(tmp_path / "out" / "adapted.safetensors")
    (told,) = made.card["adapted"]["rounds"]
    changed = made.fingerprint() != weights.load(small).fingerprint()
    assert changed == told["accepted"]
    assert sorted(done.summary["elements"]) == ["C", "Si"]
    run_campaign(config, tmp_path / "out", only_find=True)
    assert once["adapt"] == 1


@pytest.mark.slow
def test_the_command_writes_an_ensemble_and_says_what_it_did(tmp_path, small, monkeypatch):
    def shorter(frames, material, ensemble, options, **more):
        few = TINY.model_copy(update={"rounds": options.rounds})
        return adapt(frames, material, ensemble, few, **more)

    monkeypatch.setattr(rounds, "adapt", shorter)
    path, out = saved(tmp_path, simulated_movie(2)), tmp_path / "new.safetensors"
    words = ["adapt", str(path), "--pixel-size", str(PIXEL_A), "--weights", str(small), "-o",
             str(out), "--rounds", "1"]  # fmt: skip
    answer = CliRunner().invoke(cli.app, words)
    assert answer.exit_code == 0, answer.output
    rows = [line.split("│") for line in answer.output.splitlines() if "2 of 2" in line]
    assert [row[1].strip() for row in rows] == ["1"]  # one round, in which both members were kept
    assert "F1 of atoms is 0.95" in answer.output
    assert weights.load(out).species == GRAPHENE.species
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["adapted"]["imaging"]["pixel_size_A"]["value"] == pytest.approx(PIXEL_A, rel=0.02)


def test_another_crystal_goes_from_frames_to_a_page(tmp_path):
    """Networks of graphene see any honeycomb at its own scale: enough to go all the way.

    The host is a column, not an element: what is known of carbon's knock-on is not asked for it.
    """
    toml = tmp_path / "MoSe2-plain.toml"
    toml.write_text(TOML)
    material = load_material(str(toml))
    known = weights.load_shipped("graphene")
    working = Calibration(known.working.pixel_size_A * material.scale)
    card = dict(known.card)
    card["training"] = card["training"] | {"target_sigma_A": 0.25 * material.scale}
    path = tmp_path / "mose2.safetensors"
    classes = (*material.species, VACANCY)
    weights.save(Ensemble(known.networks, classes, working, card), path)
    truth = crystal_frame(material, 0.15)
    frames = saved(tmp_path, truth.frame.data[None])
    table = {"input": {"paths": (str(frames),), "pixel_size_A": 0.15}, "material": str(toml),
             "weights": str(path), "adapt": "never"}  # fmt: skip
    done = run_campaign(parse_config(table, "test"), tmp_path / "out")
    assert any("no engine simulates MoSe2-plain" in w for w in done.summary["warnings"])
    assert set(done.summary["elements"]) <= {"Mo", "Se2"}
    atoms = pl.read_parquet(tmp_path / "out" / "atoms.parquet")
    assert len(atoms) == pytest.approx(len(truth.xy), rel=0.15)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "MoSe2-plain" in page
    assert "adatom simulate" not in page, "the page promises what can't be done"
    assert (tmp_path / "out" / "advice.json").exists()


def test_far_means_most_of_the_frames(square):
    ensemble = weights.load_shipped("graphene")
    shown = [Frame(d, Calibration(PIXEL_A)) for d in (square, *simulated_movie(2))]
    far, *near = (analyse_frame(frame, ensemble, GRAPHENE) for frame in shown)
    assert needs_adaptation([far])
    assert not needs_adaptation(near)
    assert not needs_adaptation([*near, far])


def test_noise_is_far_and_told_of_though_its_description_is_like_training(tmp_path):
    noise = np.random.default_rng(2).poisson(0.3, (150, 150)).astype(np.float32)
    ensemble = weights.load_shipped("graphene")
    frame = Frame(noise, Calibration(0.12))
    result = analyse_frame(frame, ensemble, GRAPHENE)
    assert not result.flags.is_out_of_distribution
    assert needs_adaptation([result])
    table = {"material": "graphene",
             "input": {"paths": (str(saved(tmp_path, noise[None])),), "pixel_size_A": 0.12},
             "adapt": "never"}  # fmt: skip
    done = run_campaign(parse_config(table, "test"), tmp_path / "out", only_find=True)
    assert any("hardly an atom is sure in 1 of 1 frames" in w for w in done.summary["warnings"])
