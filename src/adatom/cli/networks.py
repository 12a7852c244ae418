"""Commands that make networks: `train` and `adapt`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from adatom.cli.options import (
    Axes,
    ConfigFile,
    Dataset,
    Detector,
    FitScale,
    Frames,
    Json,
    Material,
    PixelSize,
    Range,
    Rounds,
    Seed,
    Weights,
    ZoneAxis,
    config_of,
    material_path,
    zone_axis_of,
)
from adatom.cli.screen import Screen, say, show_adaptation


def train(
    material: Annotated[
        str, typer.Argument(help="a material's name, its TOML file, or a structure file")
    ],
    zone_axis: ZoneAxis = None,
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            help="shared, scratch, baseline, swag, snapshot or dropout: how members differ",
        ),
    ] = "shared",
    members: Annotated[int, typer.Option("--members", min=2, help="members")] = 10,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=10, show_default="8000 from scratch, 1000 from universal",
            help="optimiser steps",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            show_default="universal; for graphene, which ships, scratch",
            help="ensemble whose trunks to start from, or scratch",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="seed of all random numbers")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", show_default="MATERIAL.safetensors", help="file to write"
        ),
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Train an ensemble on simulated frames and calibrate it on held-out ones."""
    from adatom.training.train import train_options, train_to_file

    path = output or Path(f"{Path(material).stem}.safetensors")
    options = train_options(material, kind=kind, members=members, steps=steps, start=start)
    screen = Screen()
    try:
        card = train_to_file(
            material_path(material), path, options=options, seed=seed, progress=screen,
            zone_axis=zone_axis_of(zone_axis or "0,0,1"),
        )  # fmt: skip
    finally:
        screen.close()
    if as_json:
        print(json.dumps(card))
    else:
        say(f"wrote {path}; scores on held-out frames in {path.with_suffix('.json')}")


def adapt(
    frames: Frames = None,
    material: Material = None,
    zone_axis: ZoneAxis = None,
    pixel_size: PixelSize = None,
    frame_range: Range = None,
    dataset: Dataset = None,
    axes: Axes = None,
    fit_scale: FitScale = None,
    detector: Detector = None,
    rounds: Rounds = None,
    weights: Weights = None,
    seed: Seed = None,
    config_file: ConfigFile = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="ensemble to write, for --weights")
    ] = Path("adapted.safetensors"),
    as_json: Json = False,
) -> None:
    """Retrain the networks on the first frames of an experiment, without a label."""
    from adatom.campaign.adapt import adapt_to_file

    config = config_of(
        frames=frames, material=material, zone_axis=zone_axis, pixel_size=pixel_size,
        frame_range=frame_range, dataset=dataset, axes=axes, fit_scale=fit_scale, detector=detector,
        rounds=rounds,
        weights=weights, seed=seed, config_file=config_file,
    )  # fmt: skip
    screen = Screen()
    try:
        card = adapt_to_file(config, output, screen)
    finally:
        screen.close()
    if as_json:
        print(json.dumps(card["adapted"]))
        return
    show_adaptation(card["adapted"])
    say(f"wrote {output}")
