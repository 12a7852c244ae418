"""Commands that run a campaign: `run`, `find`, `simulate`, `resume` and `demo`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from adatom.cli.options import (
    Adapt,
    AllowUnfit,
    Axes,
    ConfigFile,
    Dataset,
    Detector,
    Dose,
    Draws,
    DynamicsEngine,
    Engine,
    FitScale,
    Frames,
    FrameTime,
    Json,
    Material,
    MaxStructures,
    Mu,
    Output,
    Picoseconds,
    PixelSize,
    Range,
    Seed,
    Temperatures,
    Voltage,
    Weights,
    ZoneAxis,
    config_of,
    reservoirs_of,
)
from adatom.cli.screen import Screen, say, show_summary
from adatom.errors import WRONG_MATERIAL, BadInput
from adatom.parallel.interrupt import noted_interrupt

_OUTPUT = Path("adatom-campaign")  # default directory of a campaign
_Directory = Annotated[Path, typer.Argument(help="campaign directory")]


def run(
    frames: Frames = None,
    material: Material = None,
    zone_axis: ZoneAxis = None,
    pixel_size: PixelSize = None,
    frame_range: Range = None,
    dataset: Dataset = None,
    axes: Axes = None,
    fit_scale: FitScale = None,
    detector: Detector = None,
    frame_time: FrameTime = None,
    dose: Dose = None,
    output: Output = _OUTPUT,
    draws: Draws = None,
    max_structures: MaxStructures = None,
    engine: Engine = None,
    dynamics_engine: DynamicsEngine = None,
    allow_unfit: AllowUnfit = None,
    mu: Mu = None,
    temperatures: Temperatures = None,
    picoseconds: Picoseconds = None,
    voltage: Voltage = None,
    weights: Weights = None,
    adapt: Adapt = None,
    seed: Seed = None,
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Do the main job: find atoms and defects, build supercells, relax and heat them, advise."""
    config = config_of(
        frames=frames, material=material, zone_axis=zone_axis, pixel_size=pixel_size,
        frame_range=frame_range, dataset=dataset, axes=axes, fit_scale=fit_scale, detector=detector,
        frame_time=frame_time, dose=dose, draws=draws, max_structures=max_structures,
        engine=engine, dynamics_engine=dynamics_engine, allow_unfit=allow_unfit, mu=mu,
        temperatures=temperatures, picoseconds=picoseconds,
        voltage=voltage, weights=weights, adapt=adapt, seed=seed, config_file=config_file,
    )  # fmt: skip
    _run(config, output, as_json=as_json)


def find(
    frames: Frames = None,
    material: Material = None,
    zone_axis: ZoneAxis = None,
    pixel_size: PixelSize = None,
    frame_range: Range = None,
    dataset: Dataset = None,
    axes: Axes = None,
    fit_scale: FitScale = None,
    detector: Detector = None,
    frame_time: FrameTime = None,
    dose: Dose = None,
    output: Output = _OUTPUT,
    voltage: Voltage = None,
    weights: Weights = None,
    adapt: Adapt = None,
    seed: Seed = None,
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Find atoms and defects only: tables, maps and a page; `adatom simulate` goes on from it."""
    config = config_of(
        frames=frames, material=material, zone_axis=zone_axis, pixel_size=pixel_size,
        frame_range=frame_range, dataset=dataset, axes=axes, fit_scale=fit_scale, detector=detector,
        frame_time=frame_time, dose=dose, voltage=voltage,
        weights=weights, adapt=adapt, seed=seed, config_file=config_file,
    )  # fmt: skip
    _run(config, output, as_json=as_json, only_find=True)


def simulate(directory: _Directory, mu: Mu = None, as_json: Json = False) -> None:
    """Build, relax and heat supercells of what `adatom find` found."""
    _resume(directory, mu=None if mu is None else reservoirs_of(mu), as_json=as_json)


def resume(directory: _Directory, as_json: Json = False) -> None:
    """Carry on a campaign that was interrupted; finished steps are not repeated."""
    _resume(directory, as_json=as_json)


def demo(
    output: Output = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", help="seed of specimen, noise and draws")] = 7,
    as_json: Json = False,
) -> None:
    """Move a Si on the simulated microscope, then find, relax and heat what was made; a report."""
    from adatom.campaign.demo import demo_config, demo_move, write_demo_picture
    from adatom.cli.microscope import say_decision

    frames = demo_move(output, seed, tell=say_decision)
    outcome = _run(demo_config(seed, frames), output, as_json=as_json)
    write_demo_picture(outcome, output)


def _run(config: Any, output: Path, *, as_json: bool, only_find: bool = False) -> Any:
    from adatom.campaign.batch import run

    outcome = _watched(
        lambda screen: run(config, output, only_find=only_find, progress=screen), output
    )
    _finish(outcome.summary, as_json=as_json)
    return outcome


def _resume(directory: Path, *, mu: tuple[str, ...] | None = None, as_json: bool) -> None:
    if not directory.expanduser().is_dir():  # said before networks and libraries are loaded
        raise BadInput(
            str(directory.expanduser().absolute()),
            expected="the directory of a campaign",
            got="no such directory",
            todo="Name the directory that adatom run -o DIR made.",
        )
    from adatom.campaign.batch import resume

    outcome = _watched(lambda screen: resume(directory, mu=mu, progress=screen), directory)
    _finish(outcome.summary, as_json=as_json)


def _finish(summary: dict[str, Any], *, as_json: bool) -> None:
    """Show the summary; exit code 3 if the frames do not show the material."""
    show_summary(summary, as_json=as_json)
    if summary["headline"] is not None:
        raise typer.Exit(WRONG_MATERIAL)


def _watched(work: Callable[[Screen], Any], directory: Path) -> Any:
    """Show the progress of a campaign; if the user stops it, say how to resume it."""
    with noted_interrupt() as stopped:
        screen = Screen(stopped.is_set)
        return _until_stopped(work, screen, directory)


def _until_stopped(work: Callable[[Screen], Any], screen: Screen, directory: Path) -> Any:
    try:
        return work(screen)
    except KeyboardInterrupt:  # here, because typer would answer it with a bare "Aborted!"
        screen.close()
        say(f"stopped; `adatom resume {directory}` carries on from the last finished step")
        raise typer.Exit(1) from None
    finally:
        screen.close()
