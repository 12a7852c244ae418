"""Decisions of a survey: which places of a field get more dose, how much, and when it is enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial import cKDTree

from adatom.core.arrays import BoolArray, FloatArray, IntArray

_CORE_A = 1.0  # Å: a site this far inside a patch has nearly all of its spot in it
_LEAST_SHARE = 0.25  # smallest dose of a patch, over that of the first scan
_MOST_GROWTH = 1.0  # largest dose of a patch, over what its site has


class SurveyOptions(BaseModel):
    """Limits and habits of a survey. No limit is exceeded, whatever is believed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field_A: float = Field(200.0, gt=20, description="largest edge of the field, Å")
    pixel_size_A: float = Field(0.16, gt=0.05, lt=0.25, description="pixel size, Å")
    dose_per_A2: float = Field(2e4, gt=0, description="electrons per Å² of a scan of the field")
    patch_A: float = Field(3.2, gt=2.4, description="edge of a patch, Å")
    anchor_A: float = Field(
        16.0, gt=8, description="edge of the frame that finds the drift after a long analysis, Å"
    )
    uniform: bool = Field(
        default=False, description="give all places the same dose: scan the whole field again"
    )
    sure: float = Field(
        0.95, gt=0.5, lt=1, description="probability from which a site's kind is known"
    )
    doubt: float = Field(
        0.0015,
        gt=0,
        lt=0.5,
        description="a site gets more dose where its kind is wrong with at least this probability: "
        "of thousands of sites few may err; with --uniform, 1 - sure counts",
    )
    share: float = Field(
        1e-3, gt=0, lt=0.1, description="share of the sites expected to hold each other kind"
    )
    most_dose_per_A2: float = Field(
        5e5, gt=0, description="most electrons per Å² on any atom, all visits together"
    )
    most_electrons: float = Field(1e11, gt=0, description="most electrons of all visits together")
    longest_s: float = Field(3600.0, gt=0, description="longest time, s")
    longest_frame_s: float = Field(
        60.0, gt=0, description="a frame that takes longer than this is stalled, s"
    )
    drift_A2_s: float = Field(
        0.05, gt=0, description="first guess of the drift: growth of its variance per axis, Å²/s"
    )

    @property
    def wanted(self) -> float:
        """Probability of its kind from which a site gets no more dose."""
        return self.sure if self.uniform else max(self.sure, 1.0 - self.doubt)


@dataclass(frozen=True, slots=True)
class Patch:
    """A small square that gets more dose.

    Parameters
    ----------
    center_xy_A
        Its middle in the field, without drift, Å.
    dose_per_A2
        Electrons per Å².
    """

    center_xy_A: tuple[float, float]
    dose_per_A2: float


def is_open(p: FloatArray, options: SurveyOptions) -> BoolArray:
    """Which sites are not known, shape (site,).

    Parameters
    ----------
    p
        Probability of each kind, shape (site, kind); the crystal's own kind is the first.
    options
        Thresholds.

    Examples
    --------
    >>> p = np.array([[0.9999, 0.0001], [0.97, 0.03], [0.3, 0.7], [0.01, 0.99]])
    >>> is_open(p, SurveyOptions()).tolist()
    [False, True, True, True]
    >>> is_open(p, SurveyOptions(uniform=True)).tolist()
    [False, False, True, False]
    """
    return np.asarray(p.max(axis=1) < options.wanted)


def missing_nats(p: FloatArray, options: SurveyOptions) -> FloatArray:
    """Log-odds that the likeliest kind of each site lacks, shape (site,)."""
    top = np.clip(p.max(axis=1), 1e-9, 1.0 - 1e-9)
    wanted = math.log(options.wanted / (1.0 - options.wanted))
    out: FloatArray = np.maximum(wanted - np.log(top / (1.0 - top)), 0.0)
    return out


def doses_of(missing: FloatArray, nats_per_dose: FloatArray, given: FloatArray,
             options: SurveyOptions) -> FloatArray:  # fmt: skip
    """Dose that each open site gets next, electrons per Å², shape (site,).

    It is what the likeliest kind needs on average to become sure, if it is the true one; at least
    a quarter of that of a scan, and at most as much as the site has, so that a wrong guess costs
    little.

    Parameters
    ----------
    missing
        See `missing_nats`, shape (site,).
    nats_per_dose
        Expected log-odds for one electron per Å², shape (site,).
    given
        Electrons per Å² that each site has, shape (site,).
    options
        Limits.
    """
    least = _LEAST_SHARE * options.dose_per_A2
    wanted = missing / np.maximum(nats_per_dose, 1e-12)
    room = np.maximum(options.most_dose_per_A2 - given, 0.0)
    dose = np.minimum(np.clip(wanted, least, np.maximum(_MOST_GROWTH * given, least)), room)
    return np.where(dose >= 0.5 * least, dose, 0.0)


def patches_of(xy: FloatArray, dose: FloatArray, options: SurveyOptions) -> list[Patch]:
    """Cover sites by patches; sites that are near to each other share one.

    Parameters
    ----------
    xy
        Open sites, shape (site, 2), Å in the field.
    dose
        Electrons per Å² that each one needs, shape (site,).
    options
        Edge of a patch.

    Examples
    --------
    >>> xy = np.array([[10.0, 10.0], [10.5, 10.0], [30.0, 10.0]])
    >>> [(p.center_xy_A, p.dose_per_A2) for p in
    ...  patches_of(xy, np.array([1e4, 2e4, 5e3]), SurveyOptions())]
    [((10.25, 10.0), 20000.0), ((30.0, 10.0), 5000.0)]
    """
    left = dose > 0
    inside = options.patch_A / 2 - _CORE_A
    out = []
    tree = cKDTree(xy) if len(xy) else None
    for i in np.argsort(-dose, kind="stable").tolist():
        if not left[i] or tree is None:
            continue
        near = np.array(tree.query_ball_point(xy[i], inside, p=np.inf))
        near = near[left[near]]
        middle = (xy[near].min(axis=0) + xy[near].max(axis=0)) / 2
        left[near] = False
        out.append(Patch((float(middle[0]), float(middle[1])), float(dose[near].max())))
    return _short_way(out)


def _short_way(patches: list[Patch]) -> list[Patch]:
    """Order patches row by row, so that the beam has short ways."""
    return sorted(patches, key=lambda p: (round(p.center_xy_A[1] / 20.0), p.center_xy_A[0]))


def likeliest_two(p: FloatArray) -> tuple[IntArray, IntArray]:
    """Likeliest kind of each site and the next one, both shape (site,)."""
    order = np.argsort(-p, axis=1)
    return order[:, 0], order[:, 1]
