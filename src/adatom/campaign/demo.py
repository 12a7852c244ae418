"""The demonstration: a whole campaign on the simulated microscope."""

from __future__ import annotations

from pathlib import Path

from adatom.campaign.config import Config, InputOptions, SimulateOptions
from adatom.campaign.pipeline import Outcome
from adatom.instrument.twin import FAST_HOPS_A2, TwinOptions
from adatom.report.picture import write_picture
from adatom.simulation import DynamicsOptions
from adatom.structures import SupercellOptions


def demo_config(seed: int) -> Config:
    """Configure a campaign that two cores finish within three minutes."""
    return Config(
        material="graphene",
        seed=seed,
        input=InputOptions(twin=TwinOptions(hop_cross_section_A2=FAST_HOPS_A2)),
        supercell=SupercellOptions(min_width_A=12.0, min_separation_A=8.0, defect_radius_A=4.5),
        simulate=SimulateOptions(draws=4, max_structures=2),
        dynamics=DynamicsOptions(production_ps=5.0),
    )


def write_demo_picture(outcome: Outcome, directory: Path) -> None:
    """Write ``picture.png``, the whole campaign in one wide figure, beside the report."""
    if outcome.view is not None:
        write_picture(outcome.view, directory / "picture.png")
