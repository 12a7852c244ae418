"""Small simulated movies and the command line, for the tests of the whole way."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import tomli_w
from numpy.typing import NDArray

from adatom.core import GRAPHENE, ScanRequest
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import lattice_points
from adatom.frames.simulate.synthesize import image_request

PIXEL_A = 0.12
PIXELS = 128
# Options with which two cores simulate a defect in seconds.
QUICK = {
    "supercell": {"min_width_A": 9.0, "min_separation_A": 6.0, "defect_radius_A": 3.0},
    "simulate": {"draws": 2, "max_structures": 1, "temperatures_K": [300.0]},
    "relax": {"fmax_eV_A": 0.1},
    "dynamics": {"production_ps": 0.5, "equilibration_ps": 0.2},
}


def simulated_movie(frames: int = 3, *, seed: int = 0, foreign: int = 1) -> NDArray[np.float32]:
    """Frames of a clean sheet with Si in its middle, shape (frame, row, col), counts."""
    rng = np.random.default_rng(seed)
    edge = PIXELS * PIXEL_A
    xy = lattice_points(GRAPHENE, (edge, edge), 4.0, 0.3)
    species = np.zeros(len(xy), dtype=np.int64)
    species[np.argsort(np.linalg.norm(xy - edge / 2, axis=1))[:foreign]] = 1
    request = ScanRequest((edge / 2, edge / 2), edge, PIXELS, 1e6)
    conditions = Conditions(pixel_size_A=PIXEL_A, probe_sigma_A=(0.45, 0.45), counts=10.0)
    return np.stack(
        [
            image_request(xy, species, GRAPHENE, request, conditions, rng, index=i).data
            for i in range(frames)
        ]
    )


def make_quick(campaign: Path) -> None:
    """Edit ``campaign.toml``, as a user may, so that the simulations take seconds."""
    path = campaign / "campaign.toml"
    table = tomllib.loads(path.read_text("utf-8"))
    for name, options in QUICK.items():
        table[name] |= options
    path.write_text(tomli_w.dumps(table), "utf-8")


def adatom(*words: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the real command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "adatom", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,  # type: ignore[call-overload]
    )
