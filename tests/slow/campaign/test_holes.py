"""A hole in the middle of a frame, and an edge, end in a page with flakes and not in an error."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from adatom.campaign.config import parse_config
from adatom.campaign.pipeline import run_campaign
from adatom.core import GRAPHENE, ScanRequest
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import lattice_points
from adatom.frames.simulate.synthesize import image_request
from adatom.store import read_structures
from adatom.structures import fingerprint, pristine_supercell

PIXELS, PIXEL_A = 224, 0.15


def frame(keep):
    """A clean sheet of which only some atoms are there."""
    rng = np.random.default_rng(1)
    edge = PIXELS * PIXEL_A
    xy = lattice_points(GRAPHENE, (edge, edge), 4.0, 0.3)
    xy = xy[keep(xy - edge / 2)]
    request = ScanRequest((edge / 2, edge / 2), edge, PIXELS, 1e6)
    conditions = Conditions(pixel_size_A=PIXEL_A, probe_sigma_A=(0.4, 0.4), counts=20.0)
    species = np.zeros(len(xy), dtype=np.int64)
    return image_request(xy, species, GRAPHENE, request, conditions, rng, index=0).data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keep", "what"),
    [
        (lambda d: np.linalg.norm(d, axis=1) > 6.5, "hole"),
        (lambda d: d[:, 0] > -2.0, "edge"),
    ],
)
def test_a_hole_or_an_edge_ends_in_a_page(keep, what, tmp_path):
    np.save(tmp_path / "frame.npy", frame(keep))
    config = parse_config(
        {
            "material": "graphene", "adapt": "never",
            "input": {"paths": [str(tmp_path / "frame.npy")], "pixel_size_A": PIXEL_A},
            "simulate": {"draws": 1, "max_structures": 1, "temperatures_K": [300.0],
                         "relax_engine": "lammps"},
            "dynamics": {"production_ps": 0.2, "equilibration_ps": 0.1},
        },
        "test",
    )  # fmt: skip
    outcome = run_campaign(config, tmp_path / "out")
    assert (tmp_path / "out" / "report.html").exists()
    made = list((tmp_path / "out" / "structures").glob("*.extxyz"))
    assert len(made) == 1, what
    structures = read_structures(made[0])
    perfect = fingerprint(pristine_supercell(GRAPHENE))
    for structure in structures:
        if structure.kind == "pristine":
            assert fingerprint(structure) == perfect
        else:
            assert structure.atoms.info["form"] == "flake"
    results = pl.read_parquet(tmp_path / "out" / "simulations.parquet")
    assert not any(s.startswith("failed") for s in results["status"]), results
    assert outcome.view is not None
