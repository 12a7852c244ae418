"""A survey as the command line runs it: instrument, networks, the record and the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from adatom.analysis.frame import analyse_frame
from adatom.campaign.acting import Approve
from adatom.campaign.arguments import ALONG_C, read_ensemble
from adatom.campaign.live import Mode
from adatom.campaign.survey import Surveyed, survey
from adatom.core import Material
from adatom.feedback.survey import SurveyOptions
from adatom.instrument.protocol import find_instrument, what_it_cannot
from adatom.store.atomic import atomic_file
from adatom.store.journal import Journal
from adatom.store.tables import write_json

RECORD, RESULT, COUNTS = "decisions.jsonl", "survey.json", "counts.npz"


def run_survey(
    name: str,
    material: Material,
    directory: Path,
    *,
    approve: Mapping[Mode, Approve],
    mode: Mode | None = None,
    seed: int = 0,
    instrument_options: BaseModel | None = None,
    options: SurveyOptions | None = None,
    tell: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Surveyed:
    """Survey a field of an instrument; write the record while it runs, then counts and result.

    Parameters
    ----------
    name
        Registered name of the instrument.
    material, options
        As of `adatom.campaign.survey.survey`.
    directory
        Where to write; it must not hold the record of another run.
    approve
        Who is asked in each mode before more dose is given.
    mode
        By default ``auto`` on a simulated instrument and ``watch`` on a real one.
    seed
        Seed of a simulated instrument.
    instrument_options
        As of the instrument; None for its defaults.
    tell
        Called with every line of the record.

    Raises
    ------
    BadInput
        As of `survey`; or if the instrument, its options or the directory cannot be used.
    StepFailed
        If the disk is full; the beam is off then.
    """
    instrument = find_instrument(name)
    chosen = instrument_options or instrument.options_type()
    ensemble = read_ensemble(material, ALONG_C, None)
    microscope = instrument.open(chosen, material, seed=seed)
    mode = mode or ("auto" if microscope.capabilities.simulated else "watch")
    options = options or SurveyOptions()
    with Journal(directory / RECORD) as journal:

        def record(line: dict[str, Any]) -> None:
            journal.write(line)
            tell(line)

        record({
            "time_s": 0.0, "action": "begin", "instrument": name, "material": material.name,
            "seed": seed, "mode": mode, "options": options.model_dump(),
            "notes": what_it_cannot(microscope.capabilities),
        })  # fmt: skip
        see = partial(analyse_frame, ensemble=ensemble, material=material)
        found = survey(
            microscope, see, material, options=options, approve=approve[mode], tell=record
        )
    if found.exposure is not None:
        with atomic_file(directory / COUNTS) as file:
            np.savez_compressed(
                file, counts=found.exposure.counts, dose_per_A2=found.exposure.dose,
                pixel_size_A=found.exposure.calibration.pixel_size_A,
            )  # fmt: skip
    write_json(directory / RESULT, summary(found))
    return found


def summary(found: Surveyed) -> dict[str, Any]:
    """Give the result in plain types, lengths in Å."""
    scans, anchors, patches = found.frames
    return {
        "status": found.status, "reason": found.reason, "sites": found.sites,
        "open_sites": found.open_sites,
        "others": [
            {"kind": o.kind or "vacancy", "x_A": o.xy_A[0], "y_A": o.xy_A[1], "p": o.p,
             "dose_per_A2": o.dose_per_A2}
            for o in found.others
        ],
        "scans": scans, "anchors": anchors, "patches": patches, "electrons": found.electrons,
        "seconds": round(found.seconds, 3),
    }  # fmt: skip
