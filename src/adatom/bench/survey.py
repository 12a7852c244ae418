"""Dose until the kind of every site of a field is known: with doubt and without, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from adatom.analysis.frame import FrameResult, analyse_frame
from adatom.bench.rows import Row, row
from adatom.campaign.survey import OnSite, survey
from adatom.campaign.twin import make_twin
from adatom.core import GRAPHENE, Frame
from adatom.feedback.survey import SurveyOptions
from adatom.instrument.twin import Twin
from adatom.instrument.twin_options import TwinOptions
from adatom.learning.weights import load_shipped
from adatom.parallel.processes import cores, local_processes

_SEED = 7200  # of the first specimen
_FIELD_A, _OTHERS = 200.0, 10  # edge of the field, and Si and vacancies in it, each
_SHEET_A = 30.0  # Å: the sheet is so much larger, for the drift
_BORDER_A = 3.0  # Å: a defect nearer to the border of the field is not asked
_SAME_A = 0.7  # Å: half a bond
_COUNTS = 4.72  # at a carbon atom's peak in a pixel of 0.16 Å, at 2e5 e⁻/Å²: as of other twins
_DRIFT_A, _DRIFT_S = 0.25, 2.0  # drift in a time, 1 sigma an axis
_OVERHEAD_S = 0.15  # a frame's fly-back, and what is computed for it
_ANALYSIS_S = 10.0  # of the first scan of 200 Å, during which the specimen drifts
_RASTER_DOSE = 1e4  # electrons per Å² of a frame of the raster, so fine that it stops in time
_RATIO = 0.5  # target


@dataclass(frozen=True, slots=True)
class SurveyRun:
    """What became of one survey.

    Parameters
    ----------
    others
        Si and vacancies of the specimen that are asked.
    missed, false, unsure
        Of them, those that were not told or as another kind; sites that were told and are carbon;
        sites that are told with less than 95 %.
    dose_per_A2
        Electrons over the field's area.
    most_dose_per_A2
        Of a pixel.
    seconds
        By the twin's clock.
    first_right
        Electrons over the area when for the first time all was told, and told right; infinite if
        it never was.
    """

    others: int
    missed: int
    false: int
    unsure: int
    dose_per_A2: float
    most_dose_per_A2: float
    seconds: float
    first_right: float


def bench_survey(runs: int, *, field_A: float = _FIELD_A) -> list[Row]:
    """Survey fields with dose where there is doubt, and by whole frames.

    Parameters
    ----------
    runs
        Number of specimens.
    field_A
        Edge of the field, Å.
    """
    seeds = range(_SEED, _SEED + runs)
    with local_processes(cores()) as pool:
        own = list(pool.map(survey_run, seeds, [False] * runs, [field_A] * runs))
        raster = list(pool.map(survey_run, seeds, [True] * runs, [field_A] * runs))
    return survey_rows(own, raster, field_A)


def survey_rows(own: Sequence[SurveyRun], raster: Sequence[SurveyRun], field_A: float) -> list[Row]:
    """Compare surveys with dose where there is doubt with those by whole frames."""
    at = f"{field_A / 10:g} nm, every site to 95%"
    dose, whole = (float(np.mean([r.dose_per_A2 for r in runs])) for runs in (own, raster))
    errors = [sum(r.missed + r.false for r in runs) for runs in (own, raster)]
    best = float(np.mean([r.first_right for r in raster if np.isfinite(r.first_right)] or [np.nan]))
    return [
        row(
            f"{at}: dose over that of a uniform raster",
            f"{dose / whole:.2f} ({dose:.3g} over {whole:.3g} e⁻/Å² of the field)",
            f"at most {_RATIO:g}",
            met=dose <= _RATIO * whole,
        ),
        row(
            f"{at}: defects missed and false, with patches and by the raster",
            " and ".join(
                f"{sum(r.missed for r in runs)} + {sum(r.false for r in runs)} of "
                f"{sum(r.others for r in runs)}"
                for runs in (own, raster)
            ),
            "not more than the raster's",
            met=errors[0] <= errors[1],
        ),
        row(
            f"{at}: dose over that of a raster that is told when all is right",
            f"{dose / best:.2f} ({best:.3g} e⁻/Å²; "
            f"{sum(np.isfinite(r.first_right) for r in raster)} of {len(raster)} runs)",
            "shown",
            met=True,
        ),
        row(
            f"{at}: most dose on a pixel, time, with patches and by the raster",
            " and ".join(
                f"{max(r.most_dose_per_A2 for r in runs):.2g} e⁻/Å² in "
                f"{np.mean([r.seconds for r in runs]):.0f} s"
                for runs in (own, raster)
            ),
            "shown",
            met=True,
        ),
    ]


def survey_run(seed: int, uniform: bool, field_A: float) -> SurveyRun:
    """Make one survey.

    Parameters
    ----------
    seed
        Of the specimen.
    uniform
        By whole frames.
    field_A
        Edge of the field, Å.
    """
    twin = specimen(seed, field_A)
    ensemble = load_shipped("graphene")

    def see(frame: Frame) -> FrameResult:
        result = analyse_frame(frame, ensemble, GRAPHENE)
        twin.wait(_ANALYSIS_S * (field_A / _FIELD_A) ** 2)
        return result

    options = SurveyOptions(field_A=field_A)
    if uniform:
        options = options.model_copy(update={"uniform": True, "dose_per_A2": _RASTER_DOSE})
    true = _true(twin, field_A)
    told: list[tuple[float, tuple[OnSite, ...]]] = []

    def tell(line: dict[str, object]) -> None:
        if line["action"] == "known":
            others = tuple(OnSite(k, (x, y), p, 0.0) for k, x, y, p in line["others"])  # type: ignore[attr-defined]
            told.append((float(str(line["electrons"])), others))

    found = survey(twin, see, GRAPHENE, options=options, tell=tell)
    missed, false = _errors(found.others, true)
    right = [e for e, others in told if _all_right(others, true, options.sure)]
    return SurveyRun(
        len(true[0]), missed, false, sum(o.p < options.sure for o in found.others),
        found.electrons / field_A**2,
        0.0 if found.exposure is None else float(found.exposure.dose.max()), found.seconds,
        min(right, default=np.inf) / field_A**2,
    )  # fmt: skip


def specimen(seed: int, field_A: float) -> Twin:
    """Make a sheet with Si and vacancies in proportion to the area."""
    count = max(round(_OTHERS * (field_A / _FIELD_A) ** 2), 2)
    per_frame = 2e5 * field_A**2 / 3.1207e8  # s, at 50 pA and the twin's usual dose
    options = TwinOptions(
        sheet_A=field_A + _SHEET_A, field_of_view_A=field_A, pixels=round(field_A / 0.16),
        foreign=count, vacancies=count, counts=_COUNTS,
        drift_A=_DRIFT_A * (per_frame / _DRIFT_S) ** 0.5, overhead_s=_OVERHEAD_S,
    )  # fmt: skip
    return make_twin(options, GRAPHENE, seed)


_Truth = tuple[list[tuple[float, float]], list[str]]


def _true(twin: Twin, field_A: float) -> _Truth:
    """Places in the first frame and kinds of all that is no carbon, before the first scan."""
    xy = twin.sites_xy - (np.asarray(twin.center_xy_A) - field_A / 2)
    inside = np.minimum(xy, field_A - xy).min(axis=1) > _BORDER_A
    odd = np.flatnonzero(inside & (~twin.occupied | (twin.species == 1)))
    places = [(float(x), float(y)) for x, y in xy[odd]]
    return places, ["Si" if twin.occupied[i] else "" for i in odd]


def _errors(others: Sequence[OnSite], true: _Truth) -> tuple[int, int]:
    """Number of sites that were missed or told as another kind, and of those that are carbon."""
    places, kinds = true
    right: set[int] = set()
    false = 0
    tree = cKDTree(np.array(places).reshape(-1, 2))
    for other in others:
        away, near = tree.query(other.xy_A)
        if away > _SAME_A:
            false += 1
        elif kinds[int(near)] == other.kind:
            right.add(int(near))
    return len(places) - len(right), false


def _all_right(others: Sequence[OnSite], true: _Truth, sure: float) -> bool:
    return _errors(others, true) == (0, 0) and all(o.p >= sure for o in others)
