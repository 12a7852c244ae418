"""Ad-atoms on graphene in GFN1-xTB; classical engines are refused for them."""

from __future__ import annotations

import json

import pytest
from ase.build import graphene
from ase.io import write
from typer.testing import CliRunner

import adatom as ad
from adatom.cli.main import app
from adatom.errors import BadInput
from adatom.store import read_trajectory


@pytest.mark.slow
def test_carbon_ends_at_the_bridge(tmp_path):
    # Lehtinen et al., Phys. Rev. Lett. 91, 017202 (2003): the bridge is the equilibrium position.
    path, out = tmp_path / "sheet.extxyz", tmp_path / "states.extxyz"
    write(path, graphene(size=(4, 4, 1), a=2.46, vacuum=8.0))
    words = [
        "adsorb",
        str(path),
        "--element",
        "C",
        "--engine",
        "gfn1-xtb",
        "--json",
        "-o",
        str(out),
    ]
    with pytest.warns(UserWarning, match=r"9\.8 Å wide|8\.5 Å wide"):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
    told = json.loads(done.stdout)
    best = told["states"][0]
    assert best["end"] == "bridge"
    assert best["bonds_A"] == pytest.approx([1.46] * 2, abs=0.05)
    assert best["adsorption_eV"] < -1.0
    assert [s["energy_eV"] for s in told["states"]] == sorted(
        s["energy_eV"] for s in told["states"]
    )
    assert len(read_trajectory(out)[0]) == 33


def test_classical_engines_and_unknown_words_are_refused(tmp_path):
    sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    with pytest.raises(BadInput, match="allow_unfit"):
        ad.adsorb(sheet, "C", engine="lammps")
    with pytest.raises(BadInput, match="'Xx'"):
        ad.adsorb(sheet, "Xx", engine="gfn1-xtb")
    with pytest.raises(BadInput, match="hollow, bridge, top"):
        ad.adsorb(sheet, "H", engine="gfn1-xtb", sites=[])
    path = tmp_path / "sheet.extxyz"
    write(path, sheet)
    for words, told in ((["--near", "1"], "--near 1"), (["--near", "a,b"], "--near a,b")):
        with pytest.raises(BadInput, match=told):
            CliRunner().invoke(
                app, ["adsorb", str(path), "--element", "H", *words], catch_exceptions=False
            )


def test_an_unfit_engine_runs_where_it_is_allowed_and_says_so():
    sheet = graphene(size=(4, 4, 1), a=2.46, vacuum=8.0)
    found = ad.adsorb(sheet, "C", engine="lammps", sites=["bridge"], allow_unfit=True)
    assert any(note.startswith("not fit") for note in found.notes)
    assert found.states[0].end == "free"  # why it is refused: LCBOP binds no ad-atom
    assert found.states[0].height_A > 2.5
