"""Survey a field until what is on every site is known: dose goes where there is doubt."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from adatom.analysis.frame import FrameResult
from adatom.campaign.acting import Approve
from adatom.campaign.guarded import Fault, Guard, beam_off
from adatom.core import Frame, Material, ScanRequest
from adatom.core.arrays import FloatArray, IntArray
from adatom.errors import BadInput, InstrumentGone
from adatom.features.exposure import Exposure, Visit
from adatom.features.site_counts import Held, held_by, information, sheet_of
from adatom.features.site_places import moved_to_counts, shift_of
from adatom.feedback.dose_budget import DoseBudget
from adatom.feedback.survey import (
    Patch,
    SurveyOptions,
    doses_of,
    is_open,
    likeliest_two,
    missing_nats,
    patches_of,
)
from adatom.feedback.watch import Drift
from adatom.instrument.protocol import Microscope

See = Callable[[Frame], FrameResult]
Tell = Callable[[dict[str, Any]], None]
SurveyStatus = Literal["done", "limit", "stopped", "lost"]

_BORDER_A = 3.0  # Å: sites nearer to the border of the field are not asked
_FEWEST = 20  # likely atoms without which a frame has no lattice to speak of
_ANCHOR_SIGMA_A = 0.3  # Å: drift less certain than this is found by a larger frame first
_SURE_NATS = 3.0  # the place of an anchor frame is sure if it is 20 times likelier than another
_ANCHORS = 3  # anchor frames, each twice the dose of the last
_SPOT_A = 0.45  # Å: width of a spot, for the error of the place of a frame
_FAULTS = 5  # in a row, after which a survey is given up
_LEAST_ERROR_A = 0.03  # Å: the place of a frame is not known better than to a fifth of a pixel
_FIELD_SHARE = 0.9  # of the largest field that an instrument takes: the rest is for the drift
_SHORTEST_S = 0.05  # s: drift in less time than this teaches nothing of its rate
_BESIDE_A = 1.0  # Å: a spot this far outside a patch reaches into it


@dataclass(frozen=True, slots=True)
class OnSite:
    """A site that holds another kind than the crystal's.

    Parameters
    ----------
    kind
        ``""`` for nothing, else an element; two atoms of the crystal in one spot as ``C2``.
    xy_A
        Place in the first frame, x and y, Å.
    p
        Probability of this kind.
    dose_per_A2
        Electrons per Å² that the site got.
    """

    kind: str
    xy_A: tuple[float, float]
    p: float
    dose_per_A2: float


@dataclass(frozen=True, slots=True)
class Surveyed:
    """Result of a survey.

    Parameters
    ----------
    status
        ``done``; ``limit`` (a limit ended it); ``stopped`` (not approved, or by the user);
        ``lost`` (the instrument is gone or failed).
    reason
        Why, in words.
    others
        Sites that likely hold another kind than the crystal's.
    open_sites
        Sites whose kind is not known.
    sites
        Sites that were asked.
    frames
        Scans of the field, anchors and patches.
    electrons, seconds
        Of all of them; by the instrument's clock.
    exposure
        Counts and dose of every pixel; None if there is no frame.
    """

    status: SurveyStatus
    reason: str
    others: tuple[OnSite, ...]
    open_sites: int
    sites: int
    frames: tuple[int, int, int]
    electrons: float
    seconds: float
    exposure: Exposure | None


class _End(Exception):  # leaves the survey from any depth
    def __init__(self, status: SurveyStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def survey(
    microscope: Microscope,
    see: See,
    material: Material,
    *,
    options: SurveyOptions | None = None,
    approve: Approve = lambda _: True,
    tell: Tell = lambda _: None,
) -> Surveyed:
    """Scan a field, and give more dose to the places whose kind is not known.

    The first scan is analysed in full: it gives the lattice, the probe and the atoms. Then the
    counts of every site are weighed by Bayes' rule (`adatom.features.exposure`), and patches of a
    few Ångström around the doubtful sites are scanned again until none is left. The counts of all
    visits are added up at the places where they were taken: every patch tells its own drift.

    Parameters
    ----------
    microscope
        Open microscope that steers its scan.
    see
        Analysis of a frame.
    material
        A crystal.
    options
        Doses and limits.
    approve
        Asked before more dose is given, in words; by default it is.
    tell
        Called with every decision before it is carried out, and with what came of it.

    Raises
    ------
    BadInput
        If the material is no crystal, the instrument does not steer or cannot take the frames, or
        the first scan shows no lattice.
    """
    o = options or SurveyOptions()
    if not material.has_lattice or not microscope.capabilities.steers:
        raise BadInput(
            "survey",
            expected="a crystal, and an instrument that takes orders",
            got=f"{material.name} on {'one' if material.has_lattice else 'an instrument'}",
            todo="Use `adatom live` to watch what another program scans.",
        )
    o = o.model_copy(update={"field_A": min(o.field_A, _FIELD_SHARE * _largest(microscope))})
    for edge in (o.field_A, o.anchor_A, o.patch_A):
        microscope.capabilities.check(_request((0.0, 0.0), edge, 1.0, 60.0, o))
    with beam_off(microscope):
        return _Survey(microscope, see, material, o, approve, tell).run()


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """Counts and dose so far, and what they say."""

    exposure: Exposure
    held: Held

    @property
    def given(self) -> FloatArray:
        """Dose that each site got, shape (site,)."""
        return _at(self.exposure.dose, self.exposure.calibration.rc(self.held.sheet.xy))

    def again(self, exposure: Exposure) -> _Known:
        """Weigh all sites, and move them to where the counts say."""
        held = held_by(exposure, moved_to_counts(exposure, self.held).sheet)
        return _Known(exposure, held)

    def others(self) -> tuple[OnSite, ...]:
        """Sites that likely hold another kind than the crystal's."""
        held, given = self.held, self.given
        names, top, xy = held.names(), held.p.max(axis=1), held.sheet.xy.round(3)
        odd = np.flatnonzero(held.sheet.asked & (held.p.argmax(axis=1) > 0))
        return tuple(
            OnSite(names[i], (float(xy[i, 0]), float(xy[i, 1])), float(top[i]), float(given[i]))
            for i in odd.tolist()
        )

    def landmark(self, sure: float) -> FloatArray | None:
        """Place of the site that differs most from the crystal, shape (2,), Å; None without one."""
        p, sheet = self.held.p, self.held.sheet
        odd = sheet.asked & (p.argmax(axis=1) > 0) & (p.max(axis=1) >= sure)
        if not odd.any():
            return None
        usual = np.array([k.amplitude[0].mean() for k in sheet.kinds])[sheet.number]
        unlike = np.where(odd, np.abs(self.held.amplitude - usual), -1.0)
        out: FloatArray = sheet.xy[int(np.argmax(unlike))]
        return out

    def nats_per_dose(self, rows: IntArray) -> FloatArray:
        """Nats for one electron per Å² that tell the likeliest kind of sites from the next one."""
        memory: dict[tuple[int, int, int], float] = {}
        px = self.exposure.calibration.pixel_size_A
        out = np.zeros(len(rows))
        pairs = zip(rows.tolist(), *likeliest_two(self.held.p[rows]), strict=True)
        for n, (row, one, other) in enumerate(pairs):
            key = int(self.held.sheet.number[row]), int(one), int(other)
            if key not in memory:
                peak = self.held.sheet.kinds[key[0]].amplitude.mean(axis=1)
                memory[key] = information(self.held, px, float(peak[key[1]]), float(peak[key[2]]))
            out[n] = memory[key]
        return out


class _Survey:
    """The steps of a survey."""

    def __init__(
        self, microscope: Microscope, see: See, material: Material, o: SurveyOptions,
        approve: Approve, tell: Tell,
    ) -> None:  # fmt: skip
        self.microscope, self.see, self.material, self.o = microscope, see, material, o
        self.approve, self._tell = approve, tell
        self.budget = DoseBudget(o.most_electrons, o.most_dose_per_A2)
        self.guard = Guard(microscope, material, self.budget, o.longest_frame_s)
        self.start_s = self.seen_s = microscope.time_s
        self.drift = Drift.start(o.drift_A2_s)
        self.scans = self.anchors = self.patches = 0
        x, y = microscope.capabilities.center_xy_A
        self.voltage_kV = microscope.conditions.voltage_kV
        self.first = _request((x, y), o.field_A, o.dose_per_A2, self.voltage_kV, o)
        self.corner = self.first.to_specimen(np.zeros(2))
        self.known: _Known | None = None

    def run(self) -> Surveyed:
        """Survey until nothing is open, or a limit is reached."""
        try:
            known = self.begin()
            while True:
                self.known = known
                self.tell_known(known)
                open_ = known.held.sheet.asked & is_open(known.held.p, self.o)
                if not open_.any():
                    return self.result("done", "the kind of every site is known")
                rows = np.flatnonzero(open_)
                known = self.scan_again(known, rows) if self.o.uniform else self.visit(known, rows)
        except _End as end:
            return self.result(end.status, end.reason)
        except InstrumentGone as error:
            return self.result("lost", f"the instrument is gone: {error.got}")
        except KeyboardInterrupt:
            return self.result("stopped", "stopped by the user")

    def begin(self) -> _Known:
        """Scan the field for the first time: lattice, probe, atoms."""
        frame = self.take(self.first, "to see what is there")
        self.scans += 1
        result = self.see(frame)
        likely = result.atoms.is_likely & (result.atoms.elements == self.material.host)
        if result.lattice is None or likely.sum() < _FEWEST:
            raise BadInput(
                "first scan",
                expected=f"the lattice of {self.material.name}",
                got=f"{int(likely.sum())} likely atoms, and no lattice",
                todo="Ask for more dose, or for the right material.",
            )
        optics = result.found.refined.optics
        sheet = sheet_of(
            result.lattice, result.atoms.xy[likely], frame.calibration.extent_xy(frame.shape),
            _BORDER_A, self.o.share, optics.probe, optics.pixel_size_A,
        )  # fmt: skip
        none = Exposure.none(frame.shape, frame.calibration)
        exposure = none.plus(Visit(_counts(frame), self.o.dose_per_A2, (0.0, 0.0)))
        return _Known(exposure, held_by(exposure, sheet)).again(exposure)

    def scan_again(self, known: _Known, rows: IntArray) -> _Known:
        """Scan the whole field once more."""
        why = f"{len(rows)} sites are not known"
        self.ask(f"scan the whole field again: {why}")
        x, y = np.asarray(self.first.center_xy_A) + self.drift.shift_xy
        request = replace(self.first, center_xy_A=(float(x), float(y)))
        frame = self.take(request, why)
        self.scans += 1
        visit, _ = self.placed(known, request, frame)
        return known.again(known.exposure.plus(visit))

    def visit(self, known: _Known, rows: IntArray) -> _Known:
        """Give the open sites what they need, in patches; then weigh them again."""
        held, o = known.held, self.o
        wanted = doses_of(
            missing_nats(held.p[rows], o), known.nats_per_dose(rows), known.given[rows], o
        )
        patches = patches_of(held.sheet.xy[rows], wanted, o)
        if not patches:
            raise _End("limit", f"{len(rows)} sites are open and have the most dose allowed")
        doses = [p.dose_per_A2 for p in patches]
        why = (
            f"{len(rows)} sites are not known: {len(patches)} patches of {o.patch_A:g} Å with "
            f"{min(doses):.2g} to {max(doses):.2g} e⁻/Å²"
        )
        self.ask(f"give more dose: {why}")
        told = [[*np.round(p.center_xy_A, 3).tolist(), round(p.dose_per_A2)] for p in patches]
        self.tell("visit", why=why, patches=told)
        visits = self.anchored(known, patches[0])
        taken = []
        for patch in patches:
            x, y = self.corner + np.asarray(patch.center_xy_A) + self.later().shift_xy
            request = _request((x, y), o.patch_A, patch.dose_per_A2, self.voltage_kV, o)
            if refused := self.budget.why_not(request, self.shift):
                self.tell("refused", why=refused, center_xy_A=list(request.center_xy_A))
                continue
            visits.append(self.placed(known, request, self.take(request))[0])
            taken.append(patch)
        self.patches += len(taken)
        if not taken:
            raise _End("limit", f"{len(rows)} sites are open, and no place may get more dose")
        exposure = known.exposure.plus(*visits)
        return _Known(exposure, held_by(exposure, held.sheet, held, self._touched(held, taken)))

    def anchored(self, known: _Known, patch: Patch) -> list[Visit]:
        """Find the drift by a larger frame, where too much time has passed for a patch to tell.

        It is taken around the surest other atom or hole: a perfect lattice looks the same a lattice
        vector away.
        """
        visits: list[Visit] = []
        dose, half = self.o.dose_per_A2, self.o.anchor_A / 2
        odd = known.landmark(self.o.sure)
        middle = np.asarray(patch.center_xy_A) if odd is None else odd
        place = np.clip(middle, half, self.o.field_A - half)
        for _ in range(_ANCHORS):
            if self.later().sigma_A < _ANCHOR_SIGMA_A:
                break
            x, y = self.corner + place + self.later().shift_xy
            request = _request((x, y), self.o.anchor_A, dose, self.voltage_kV, self.o)
            frame = self.take(request, "to find the drift")
            self.anchors += 1
            visit, margin = self.placed(known, request, frame)
            visits.append(visit)
            if margin > _SURE_NATS:
                break
            dose *= 2.0
        return visits

    def take(self, request: ScanRequest, why: str = "") -> Frame:
        """Take a frame; one that cannot be used is taken again."""
        for _ in range(_FAULTS):
            if refused := self.budget.why_not(request, self.shift):
                raise _End("limit", refused)
            if self.microscope.time_s - self.start_s > self.o.longest_s:
                raise _End("limit", f"the limit of {self.o.longest_s:g} s is reached")
            if why:  # patches are told together
                self.tell("scan", why=why, request=asdict(request))
            try:
                return self.guard.acquire(request, self.shift)
            except Fault as fault:
                self.tell("fault", kind=fault.kind, what=fault.what)
        raise _End("lost", f"{_FAULTS} frames in a row cannot be used")

    def placed(self, known: _Known, request: ScanRequest, frame: Frame) -> tuple[Visit, float]:
        """Find where a frame was taken, and by how many nats that place is sure."""
        data, drift = _counts(frame), self.later()
        corner = request.to_specimen(np.zeros(2)) - self.corner
        guess = corner - drift.shift_xy
        found, margin = shift_of(
            known.held, known.exposure.calibration, data, request.dose_per_A2, guess,
            drift.sigma_A,
        )  # fmt: skip
        error = max(_SPOT_A / math.sqrt(max(float(data.sum()), 1.0)), _LEAST_ERROR_A)
        seconds = max(self.microscope.time_s - self.seen_s, _SHORTEST_S)
        self.drift = drift.seen(corner - found, error, seconds)
        self.seen_s = self.microscope.time_s
        return Visit(data, request.dose_per_A2, (float(found[0]), float(found[1]))), margin

    def ask(self, words: str) -> None:
        """Ask for approval of more dose."""
        if not self.approve(words):
            raise _End("stopped", f"not approved: {words}")

    @property
    def shift(self) -> tuple[float, float]:
        """Drift that is believed, x and y, Å."""
        x, y = self.drift.shift_xy.tolist()
        return x, y

    def later(self) -> Drift:
        """Drift by now."""
        return self.drift.later(max(self.microscope.time_s - self.seen_s, 0.0))

    def tell(self, action: str, **known: object) -> None:
        """Record a line."""
        time_s = round(self.microscope.time_s - self.start_s, 4)
        self._tell({"time_s": time_s, "action": action, **known})

    def tell_known(self, known: _Known) -> None:
        """Record what is known now."""
        asked = known.held.sheet.asked
        self.tell(
            "known", open=int((asked & is_open(known.held.p, self.o)).sum()),
            others=[[o.kind, *o.xy_A, round(o.p, 4)] for o in known.others()],
            electrons=self.budget.electrons, drift_xy_A=self.drift.shift_xy.round(3).tolist(),
        )  # fmt: skip

    def result(self, status: SurveyStatus, reason: str) -> Surveyed:
        """Sum up."""
        known, left, asked = self.known, 0, 0
        if known is not None:
            which = known.held.sheet.asked
            left, asked = int((which & is_open(known.held.p, self.o)).sum()), int(which.sum())
        self.tell("end", status=status, reason=reason)
        return Surveyed(
            status, reason, () if known is None else known.others(), left, asked,
            (self.scans, self.anchors, self.patches), self.budget.electrons,
            self.microscope.time_s - self.start_s, None if known is None else known.exposure,
        )  # fmt: skip

    def _touched(self, held: Held, patches: Sequence[Patch]) -> IntArray:
        """Rows of the sites in or beside patches."""
        xy = held.sheet.xy
        near = np.zeros(len(xy), dtype=bool)
        for patch in patches:
            away = np.abs(xy - np.asarray(patch.center_xy_A)).max(axis=1)
            near |= away < self.o.patch_A / 2 + _BESIDE_A
        return np.flatnonzero(near & held.sheet.asked)


def _largest(microscope: Microscope) -> float:
    return microscope.capabilities.field_of_view_A[1]


def _request(
    xy: tuple[float, float], field_A: float, dose: float, kV: float, o: SurveyOptions
) -> ScanRequest:
    """Frame of whole pixels."""
    pixels = max(round(field_A / o.pixel_size_A), 16)
    return ScanRequest((float(xy[0]), float(xy[1])), pixels * o.pixel_size_A, pixels, dose, kV)


def _counts(frame: Frame) -> FloatArray:
    return np.asarray(frame.data, dtype=np.float64)


def _at(image: FloatArray, rc: FloatArray) -> FloatArray:
    """Values of the pixels nearest to places, shape (site,)."""
    index = np.clip(np.round(rc).astype(int), 0, np.array(image.shape) - 1)
    out: FloatArray = image[index[:, 0], index[:, 1]]
    return out
