"""The demonstration: move a Si on the simulated microscope, then find, relax and heat it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from adatom.campaign.config import Config, InputOptions, SimulateOptions
from adatom.campaign.move_run import LAST_FRAMES, RECORD, RESULT, run_move
from adatom.campaign.pipeline import Outcome
from adatom.core import GRAPHENE
from adatom.feedback.moving import MoveOptions
from adatom.feedback.plans import Away
from adatom.instrument.twin_options import TwinOptions
from adatom.report.picture import write_picture
from adatom.simulation import DynamicsOptions
from adatom.store.directory import MOVE
from adatom.structures import SupercellOptions

DEMO_SITES = 2  # the Si is moved so far
DEMO_TWIN = TwinOptions(
    drift_A=0.09, overhead_s=0.15
)  # 0.25 Å in 2 s, as in `adatom bench manipulate`
# The frames after the move: 2 counts at the peak of a carbon, a usual frame at 60 kV.
DEMO_MOVE = MoveOptions(
    first_field_A=DEMO_TWIN.field_of_view_A,
    pixel_size_A=DEMO_TWIN.field_of_view_A / DEMO_TWIN.pixels,
    look_dose_per_A2=DEMO_TWIN.dose_per_A2,
    last_frames=8,
)


def demo_move(
    directory: Path, seed: int, *, tell: Callable[[dict[str, Any]], None] = lambda _: None
) -> Path:
    """Move the Si; a move that is complete in the directory is not repeated.

    Parameters
    ----------
    directory
        Of the demonstration; the record of the move is written to a folder in it.
    seed
        Seed of the specimen and its noise: the same seed gives the same move.
    tell
        Called with every decision.

    Returns
    -------
    The frames after the move.
    """
    move = directory / MOVE
    if not (move / RESULT).exists():
        (move / RECORD).unlink(missing_ok=True)  # a move that was killed is made again, the same
        run_move(
            "twin", GRAPHENE, Away(DEMO_SITES), move, approve=lambda _: True, seed=seed,
            instrument_options=DEMO_TWIN, options=DEMO_MOVE, tell=tell,
        )  # fmt: skip
    return move / LAST_FRAMES


def demo_config(seed: int, frames: Path) -> Config:
    """Configure the campaign on the frames after the move."""
    return Config(
        material="graphene",
        seed=seed,
        voltage_kV=DEMO_TWIN.voltage_kV,
        input=InputOptions(paths=(str(frames.absolute()),), dose_per_A2=DEMO_MOVE.look_dose_per_A2),
        supercell=SupercellOptions(min_width_A=12.0, min_separation_A=8.0, defect_radius_A=4.5),
        simulate=SimulateOptions(draws=4, max_structures=2),
        dynamics=DynamicsOptions(production_ps=5.0),
    )


def write_demo_picture(outcome: Outcome, directory: Path) -> None:
    """Write ``picture.png``, the whole campaign in one wide figure, beside the report."""
    if outcome.view is not None:
        write_picture(outcome.view, directory / "picture.png")
