"""A live run as the command line starts it: instrument, networks, record, frames and page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adatom.analysis.live import LiveAnalysis
from adatom.campaign.acting import Approve
from adatom.campaign.arguments import ALONG_C, read_ensemble
from adatom.campaign.config import Config, InputOptions
from adatom.campaign.instrument_options import instrument_options
from adatom.campaign.keep import keeper
from adatom.campaign.live import Lived, Mode, State, check_possible, run_loop
from adatom.campaign.live_simulate import SimulationsBeside
from adatom.campaign.pipeline import run_campaign
from adatom.core import Material, ScanRequest
from adatom.errors import AdatomError, BadInput
from adatom.feedback.dose_budget import DoseBudget
from adatom.feedback.live import Knowledge, LiveOptions, Question
from adatom.instrument.protocol import Microscope, find_instrument
from adatom.materials.library import load_material
from adatom.parallel.progress import Progress
from adatom.store.journal import Journal, read_journal
from adatom.store.tables import write_json
from adatom.version import __version__

RECORD, RESULT, CAMPAIGN = "decisions.jsonl", "live.json", "campaign"
Line = dict[str, Any]


def run_live(
    name: str,
    material: str,
    directory: Path,
    *,
    mode: Mode | None = None,
    approve: Approve = lambda _: False,
    seed: int = 0,
    options_file: Path | None = None,
    instrument_more: Mapping[str, Any] | None = None,
    options: LiveOptions | None = None,
    simulate: bool = False,
    tell: Callable[[Line], None] = lambda _: None,
) -> Lived:
    """Run the live loop on an instrument; frames and decisions are on the disk as they come.

    Parameters
    ----------
    name
        Registered name of the instrument.
    material
        Name of a material, or its file.
    directory
        Where to write; it must not hold the record of another run.
    mode
        See `adatom.campaign.live.run_loop`; by default ``auto`` on a simulated instrument, else
        ``watch``.
    approve, options, tell
        As of `run_loop`.
    seed
        Seed of a simulated instrument.
    simulate
        Simulate each kind of sure defect once, in a process beside the loop.
    options_file, instrument_more
        TOML file with the instrument's options, and options that replace those of the file.

    Raises
    ------
    BadInput
        As of `run_loop`; or if the instrument, its options or the directory cannot be used.
    StepFailed
        If the disk is full; the beam is off then.
    """
    instrument, specimen = find_instrument(name), load_material(material)
    chosen = instrument_options(instrument, options_file, instrument_more)
    microscope = instrument.open(chosen, specimen, seed=seed)
    if mode is None:
        mode = "auto" if microscope.capabilities.simulated else "watch"
    check_possible(microscope.capabilities, mode, options or LiveOptions())
    with Journal(directory / RECORD) as journal:
        journal.write({
            "action": "run", "version": __version__, "instrument": name, "seed": seed,
            "material": material, "instrument_options": chosen.model_dump(mode="json"),
            "simulate": simulate,
        })  # fmt: skip
        return _live(
            microscope, specimen, directory, journal, mode, options or LiveOptions(), approve,
            tell, None, simulate=simulate,
        )  # fmt: skip


def resume_live(
    directory: Path,
    *,
    approve: Approve = lambda _: False,
    tell: Callable[[Line], None] = lambda _: None,
) -> Lived:
    """Go on with an interrupted run, its instrument, its mode and its limits.

    What it spent is spent.

    Parameters
    ----------
    directory
        Of the run.
    approve, tell
        As of `run_loop`.

    Raises
    ------
    BadInput
        If there is no record of a run that began, or the instrument cannot be used.
    StepFailed
        If the disk is full; the beam is off then.
    """
    lines = _record_of(directory)
    begun = _starts(directory, lines)[-1]
    instrument, specimen = (
        find_instrument(lines[0]["instrument"]),
        load_material(lines[0]["material"]),
    )
    chosen = instrument_options(instrument, None, lines[0]["instrument_options"])
    options = LiveOptions(**lines[begun]["options"])
    microscope = instrument.open(chosen, specimen, seed=lines[0]["seed"])
    with Journal(directory / RECORD, resume=True) as journal:
        return _live(
            microscope, specimen, directory, journal, lines[begun]["mode"], options, approve, tell,
            state_of(lines, options), simulate=lines[0].get("simulate", False),
        )  # fmt: skip


def _live(
    microscope: Microscope, material: Material, directory: Path, journal: Journal, mode: Mode,
    options: LiveOptions, approve: Approve, tell: Callable[[Line], None], start: State | None,
    *, simulate: bool,
) -> Lived:  # fmt: skip
    analysis = analysis_of(material, options)

    def write(line: Line) -> None:
        journal.write(line)
        tell(line)

    lived = run_loop(
        microscope, analysis.see, material, mode=mode, options=options, approve=approve,
        tell=write, keep=keeper(directory), meanwhile=analysis.check, start=start,
        simulations=SimulationsBeside(material, options.sure) if simulate else None,
    )  # fmt: skip
    write_json(directory / RESULT, summary(lived))
    return lived


def _record_of(directory: Path) -> list[Line]:
    """Read the record of a live run."""
    if not (directory / RECORD).exists():
        raise BadInput(
            str(directory), expected="the directory of a live run", got=f"no {RECORD} in it",
            todo="Name the directory that adatom live -o DIR made.",
        )  # fmt: skip
    return read_journal(directory / RECORD)


def _starts(directory: Path, lines: Sequence[Line]) -> list[int]:
    """Numbers of the lines with which a run began or went on."""
    starts = [i for i, line in enumerate(lines) if line["action"] in {"begin", "resume"}]
    if not starts:
        raise BadInput(
            str(directory / RECORD), expected="the record of a live run",
            got="none that began", todo="Name the directory that adatom live -o DIR made.",
        )  # fmt: skip
    return starts


def analysis_of(material: Material, options: LiveOptions) -> LiveAnalysis:
    """Prepare the analysis of the loop, by the material's networks."""
    ensemble = read_ensemble(material, ALONG_C, None)
    return LiveAnalysis(ensemble, material, full_every=options.full_every)


def summary(lived: Lived) -> Line:
    """Give the result in plain types, lengths in Å."""
    return asdict(lived)


def write_page(directory: Path, progress: Progress) -> Path | None:
    """Analyse the frames of the field once more, in full, and write tables and page of them.

    Parameters
    ----------
    directory
        Of a live run.
    progress
        Receives the progress.

    Returns
    -------
    The page; None if there is no frame.
    """
    lines = read_journal(directory / RECORD)
    scans = {line["n"] for line in lines if line["action"] == "scan"}
    names = [x["file"] for x in lines if x["action"] == "frame" and x["n"] in scans]
    if not names:
        return None
    begin = next(line for line in lines if line["action"] == "begin")
    config = Config(
        material=lines[0]["material"],
        seed=lines[0]["seed"],
        voltage_kV=begin["conditions"]["voltage_kV"],
        input=InputOptions(paths=tuple(str((directory / name).absolute()) for name in names)),
        adapt="never",
    )
    run_campaign(config, directory / CAMPAIGN, only_find=True, progress=progress)
    return directory / CAMPAIGN / "report.html"


def state_of(lines: Sequence[Line], options: LiveOptions) -> State:
    """Give what a run knew and had spent when it was interrupted.

    Parameters
    ----------
    lines
        Its record. A frame that was asked for and did not come counts as taken.
    options
        Limits of the run that goes on.
    """
    state = State(None, DoseBudget(options.most_electrons, options.most_dose_per_A2))
    drift, steers = (0.0, 0.0), True
    for line in lines:
        action = line["action"]
        if action in {"begin", "resume"}:
            steers = line["capabilities"]["steers"]
        if "known" in line:
            state.known = _knowledge(line["known"])
            drift = state.known.drift_xy_A
        if action in {"scan", "look"}:
            state.acts = line["n"] + 1
            if steers:
                state.budget.spend(_scan_request(line["request"]), drift)
        if action == "frame":
            state.last_index = line["index"]
            if not steers:
                state.budget.spend(_scan_request(line["request"]), drift)
        state.faults += action == "fault"
    return state


def _scan_request(told: Mapping[str, Any]) -> ScanRequest:
    return ScanRequest(**{**told, "center_xy_A": tuple(told["center_xy_A"])})


def _knowledge(told: Mapping[str, Any]) -> Knowledge:
    questions = tuple(Question(**{**q, "xy_A": tuple(q["xy_A"])}) for q in told["questions"])
    places = {k: tuple(told[k]) for k in ("center_xy_A", "drift_xy_A")}
    simulated = tuple((kind, limit) for kind, limit in told.get("simulated", ()))
    return Knowledge(**{**told, **places, "questions": questions, "simulated": simulated})


def verify_live(directory: Path, tell: Callable[[Line], None] = lambda _: None) -> int:
    """Run the loop once more on the stored frames; every line must come out as it is recorded.

    Parameters
    ----------
    directory
        Of a live run.
    tell
        Called with every line that agrees.

    Returns
    -------
    Number of lines that agree: all of them.

    Raises
    ------
    BadInput
        If there is no record.
    StepFailed
        At the first line that differs: what the record says, and what came now.
    """
    from adatom.campaign.live_again import Again, same_or_fail

    lines = _record_of(directory)
    starts = _starts(directory, lines)
    material = load_material(lines[0]["material"])
    for first, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        options = LiveOptions(**lines[first]["options"])
        start = state_of(lines[:first], options) if lines[first]["action"] == "resume" else None
        again, analysis = Again(directory, lines[first:end], tell), analysis_of(material, options)
        try:
            run_loop(
                again.microscope, again.seen(analysis.see), material, mode=lines[first]["mode"],
                options=options, approve=again.approve, tell=again.compare, keep=again.keep,
                meanwhile=analysis.check, simulations=again, start=start,
            )  # fmt: skip
        except EOFError:  # the run was killed here
            continue
        except AdatomError as error:
            same_or_fail(directory, None, {"error": str(error)})
        again.finish()
    return len(lines)
