"""One file of weights serves several materials; cards say so."""

import json
import shutil

import numpy as np
import pytest

from adatom.errors import BadInput
from adatom.learning import weights
from adatom.materials.library import material_names


def test_every_built_in_material_ships_and_no_weights_ship_twice():
    assert all(weights.ships_for(name) for name in material_names())
    files = list(weights.SHIPPED.glob("*.safetensors"))
    assert len({path.read_bytes() for path in files}) == len(files)
    assert all(path.with_suffix(".json").is_file() for path in files)


def test_platinum_and_rhenium_share_their_networks_and_not_their_names():
    pt, re = weights.load_shipped("Pt-on-carbon"), weights.load_shipped("Re-on-carbon")
    assert (pt.classes[0], re.classes[0]) == ("Pt", "Re")
    for one, other in zip(pt.networks, re.networks, strict=True):
        for name, value in one.tensors.items():
            np.testing.assert_array_equal(value, other.tensors[name])


@pytest.mark.parametrize("name", ["../graphene.safetensors", "/etc/passwd", "graphene.json", ""])
def test_a_card_names_weights_beside_it_and_nothing_else(tmp_path, name):
    source = weights.SHIPPED / "graphene.safetensors"
    shutil.copy(source, tmp_path / "graphene.safetensors")
    card = json.loads(source.with_suffix(".json").read_text("utf-8"))
    (tmp_path / "other.json").write_text(json.dumps({**card, "weights": "graphene.safetensors"}))
    assert weights.load(tmp_path / "other.safetensors").members == 10
    (tmp_path / "other.json").write_text(json.dumps({**card, "weights": name}))
    with pytest.raises(BadInput, match="weights"):
        weights.load(tmp_path / "other.safetensors")


def test_adapted_networks_are_saved_with_weights_of_their_own(tmp_path):
    re = weights.load_shipped("Re-on-carbon")
    weights.save(re, tmp_path / "mine.safetensors")
    assert "weights" not in json.loads((tmp_path / "mine.json").read_text("utf-8"))
    assert weights.load(tmp_path / "mine.safetensors").classes == re.classes
