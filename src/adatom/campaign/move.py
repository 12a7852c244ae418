"""Move an impurity atom along the sites of a sheet: look, aim, dwell, watch, decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from adatom.analysis.frame import FrameResult
from adatom.campaign.acting import Approve, Halt, Hands, See, Seen, Tell
from adatom.core import BeamRequest, DwellTrace, Material, ScanRequest
from adatom.core.arrays import BoolArray, FloatArray
from adatom.core.hops import HopModel
from adatom.errors import BadInput
from adatom.feedback.hop_rate import RateBelief
from adatom.feedback.moving import (
    Aim,
    MoveOptions,
    aim_at,
    blind_dwell_s,
    dwell_times,
    exposure_of,
    why_hopeless,
)
from adatom.feedback.sites import Sites
from adatom.feedback.watch import Drift, JumpWatch, Spots, places_around
from adatom.instrument.protocol import Microscope

_SURE = 0.5  # p_exists and p_element from which an atom is taken as there
_LOOK_SIGMA_A = 0.03  # Å per axis: error of the shift of a frame, from tens of atoms
_REACH_SD = 4.0  # a specimen drifts no farther than so many standard deviations
_MARGIN_A = 2.0  # Å: the beam is not parked nearer to the border of the last frame
_LOOKS = 3  # frames without the atom after which it is lost
_LOST_S = 0.3  # s: a beam that lost its atom is found out in this time
_HOP_NATS = 3.0  # an unseen hop is taken for 20 times less likely than none
_UNLIKE_DWELLS = 2  # dwells in a row
_UNLIKE_SD = 6.0  # a dwell whose counts are farther off than this is not understood


@dataclass(frozen=True, slots=True)
class Moved:
    """Result of a move.

    Parameters
    ----------
    status
        ``done``; ``given up`` (out of reach, or a limit); ``stopped`` by the user.
    reason
        Why, in words.
    path_xy_A
        Sites of the atom in turn, Å, in the axes of the specimen at the first frame.
    seconds
        Time from the first frame to the last, s.
    looks
        Number of frames.
    electrons
        Electrons of frames and parked beams.
    rate
        Learned rate over that of the prior.
    first, last
        The first and the last frame.
    drift_xy_A
        Drift of the specimen at the last frame, x and y, Å.
    trace
        Shape (slice, 2): time, s, and counts of each time slice of parked beams.
    """

    status: Literal["done", "given up", "stopped"]
    reason: str
    path_xy_A: tuple[tuple[float, float], ...]
    seconds: float
    looks: int
    electrons: float
    rate: float
    first: Seen
    last: Seen
    drift_xy_A: tuple[float, float]
    trace: FloatArray


def move_atom(
    microscope: Microscope,
    see: See,
    material: Material,
    by_A: Sequence[tuple[float, float]],
    *,
    element: str = "Si",
    options: MoveOptions | None = None,
    approve: Approve = lambda _: True,
    tell: Tell = lambda _: None,
) -> Moved:
    """Move an impurity atom step by step, until a frame shows it on the last of its goals.

    The beam is parked between the atom and the neighbour that it should change places with. Where
    the detector is read meanwhile, its signal tells the jump, and the dwell ends at once; three
    places in turn tell the drift. Where it is not, a dwell of the best length is followed by a
    frame. Every dwell and every jump teach the rate.

    Parameters
    ----------
    microscope
        Open microscope.
    see
        Analysis of a frame: `adatom.analysis.frame.analyse_frame` with networks and material.
    material
        The sheet.
    by_A
        Goals in turn: displacements from the atom's first site, x and y, Å.
    element
        The impurity's element; that nearest to the middle of the first frame is moved.
    options
        Limits.
    approve
        Asked before each step, in words; by default everything is done. Frames need no approval.
    tell
        Called with every decision when it is made.

    Raises
    ------
    BadInput
        If the first frame has no such atom, a goal is no site, there is no way to it, the voltage
        is not that of the known rates, or the instrument cannot park its beam. Nothing was moved.
    """
    o = options or MoveOptions()
    hands = Hands(microscope, see, o, approve, tell)
    try:
        mover = _Mover(hands, material, element, o)
        goals = mover.goals(by_A)
        try:
            mover.follow(goals)
        except Halt as halt:
            status = cast("Literal['given up', 'stopped']", halt.status)
            return mover.moved(status, halt.reason)
        return mover.moved("done", "a frame shows the atom on its goal")
    finally:
        microscope.abort()  # whatever happened, the beam is off


class _Mover:
    """What the loop knows, and its steps; the first frame is taken when it is made."""

    def __init__(
        self, hands: Hands, material: Material, element: str, options: MoveOptions
    ) -> None:
        self.hands, self.material, self.element, self.options = hands, material, element, options
        self.model, self.belief = HopModel(), RateBelief()
        self.drift = Drift.start(options.drift_A2_s)
        self.chunks, self.unlike = 0, 0
        self.approved: tuple[int, int] | None = None
        self.waited = 0.0  # hops that the belief expected since the last frame or jump
        self._first_look()
        self.trail = [self.site]

    def goals(self, by_A: Sequence[tuple[float, float]]) -> list[int]:
        """Find the sites of the goals, and make sure that there is a way."""
        start = self.sites.xy[self.site]
        goals = [self.sites.nearest(start + np.asarray(by)) for by in by_A]
        for one, other in zip([self.site, *goals], goals, strict=False):
            self.sites.route(one, other, self.closed)
        return goals

    def follow(self, goals: Sequence[int]) -> None:
        """Go from goal to goal."""
        at = 0
        while at < len(goals):
            if self.site == goals[at]:
                if at == len(goals) - 1 and not self.seen_there:
                    self._look("to confirm the goal")
                else:
                    at += 1
                continue
            way = self.sites.route(self.site, goals[at], self.closed)
            aim = aim_at(self.sites, way[0], way[1], self.model)
            self._give_up_where_hopeless(aim, len(way) - 1 + len(goals) - 1 - at)
            self._ask(aim)
            if why := self._doubt(aim):
                self._look(why)
            elif self.hands.microscope.capabilities.traces:
                self._watched(aim)
            else:
                self._blind(aim)

    def _ask(self, aim: Aim) -> None:
        """Ask for approval of a step, once."""
        if (aim.site, aim.goal) != self.approved:
            (x, y), (u, v) = aim.xy, self.sites.xy[aim.goal]
            self.hands.ask(
                f"park the beam at ({x:.2f}, {y:.2f}) Å, until the {self.element} changes places "
                f"with its neighbour at ({u:.2f}, {v:.2f}) Å"
            )
            self.approved = aim.site, aim.goal

    def moved(self, status: Literal["done", "given up", "stopped"], reason: str) -> Moved:
        """Sum up."""
        hands = self.hands
        path = tuple((float(x), float(y)) for x, y in self.sites.xy[self.trail])
        hands.tell("end", status=status, reason=reason, rate=self.belief.mean)
        first, last = hands.first, hands.last
        assert first is not None  # noqa: S101  # a move begins with a frame
        assert last is not None  # noqa: S101
        x, y = self.drift.shift_xy.tolist()
        return Moved(
            status, reason, path, hands.seconds, hands.looks, hands.electrons, self.belief.mean,
            first, last, (x, y), _series(hands.traces),
        )  # fmt: skip

    def _first_look(self) -> None:
        center = np.asarray(self.hands.microscope.capabilities.center_xy_A)
        request = self._request(center, self.options.first_field_A)
        result = self.hands.acquire(request, "to find the atom and its surroundings")
        there, mine, xy = self._atoms(result, request)
        if not mine.any():
            raise BadInput(
                "first frame",
                expected=f"a {self.element} atom",
                got=f"{int(there.sum())} atoms, none of them surely {self.element}",
                todo="Move the field of view to one.",
            )
        away = np.where(mine, np.linalg.norm(xy - center, axis=1), np.inf)
        number = np.cumsum(there) - 1  # of each atom among those that are there
        foreign = there & (result.atoms.elements != self.material.host)
        self.sites = Sites.of(xy[there], self.material.bond_length_A)
        self.site = int(number[np.argmin(away)])
        self.closed = {int(i) for i in number[foreign]} - {self.site}
        self.spots = self._spots(result, there, request)
        self.seen, self.seen_there, self.looked_s = request, True, self.hands.seconds

    def _look(self, why: str) -> None:
        """Take a frame around the atom; learn the drift, and where the atom is."""
        expected = self.sites.xy[self.site] + self.drift.shift_xy
        request = self._request(expected, self.options.look_field_A)
        since, words = self.hands.seconds, why
        for _ in range(_LOOKS):  # one frame may miss it: noise, or a jump in the middle of a scan
            there, mine, xy = self._atoms(self.hands.acquire(request, words), request)
            if mine.any():
                break
            words = f"again, because the last one shows no {self.element}"
        else:
            raise Halt("given up", f"no {self.element} is in {_LOOKS} frames")
        self.drift = self.drift.later(self.hands.seconds - since)
        away = np.where(mine, np.linalg.norm(xy - expected, axis=1), np.inf)
        shift, site = self._where(xy[there], xy[np.argmin(away)])
        self.drift = self.drift.seen(shift, _LOOK_SIGMA_A, self.hands.seconds - self.looked_s)
        self.seen, self.looked_s, self.waited = request, self.hands.seconds, 0.0
        self.unlike, self.seen_there = 0, True
        if site != self.site:
            self.belief = self.belief.after(0.0, 1)
            self._tell("jump", self.site, site)
            self._is_at(site)

    def _where(self, xy: FloatArray, atom_xy: FloatArray) -> tuple[FloatArray, int]:
        """Find the shift and the atom's site that are the likeliest together.

        Shifts by lattice vectors look alike. A shift costs what the drift says, each hop that
        nobody saw costs a factor.
        """
        variance = self.drift.sigma_A**2 + self.drift.diffusion_A2_s * _LOST_S
        guess, reach = self.drift.shift_xy, _REACH_SD * float(np.sqrt(variance))
        best: tuple[float, FloatArray, int] | None = None
        for shift in self.sites.shifts_of(xy, guess, reach):
            near = np.linalg.norm(self.sites.xy - (atom_xy - shift), axis=1)
            site = int(np.argmin(near))
            off = float(np.sum((shift - guess) ** 2)) / (2.0 * variance)
            cost = off + _HOP_NATS * self.sites.steps_between(self.site, site)
            if best is None or cost < best[0]:
                best = cost, shift, site
        assert best is not None  # noqa: S101  # `shifts_of` gives one at least
        return best[1], best[2]

    def _watched(self, aim: Aim) -> None:
        """Park the beam in short dwells, until the signal tells the jump or asks for a look."""
        after = self.spots.swapped(aim.site, aim.goal)
        around = places_around(self.sites.xy[aim.goal])
        electrons = self.hands.microscope.conditions.electrons_per_s
        while not (why := self._doubt(aim)):
            place = around[self.chunks % len(around)]
            self.chunks += 1
            counts = electrons * self.hands.microscope.capabilities.slice_s * self.drift.scale
            watch = JumpWatch(counts * float(self.spots.at(place)), counts * float(after.at(place)))
            if not watch.can_tell:
                self._blind(aim)
                return
            if self._dwell(aim, place, watch):
                self._tell("jump", aim.site, aim.goal)
                self._is_at(aim.goal)
                self.seen_there, self.waited, self.unlike = False, 0.0, 0
                return
            self._give_up_where_hopeless(aim, 1)
        self._look(why)

    def _dwell(self, aim: Aim, place: FloatArray, watch: JumpWatch) -> bool:
        """Park the beam for a short time; learn the drift, or that the atom jumped."""
        sigma, since = self.drift.sigma_A, self.hands.seconds
        trace = self._park(place, self.options.chunk_s, watch)
        exposure = self._exposure(aim, sigma, trace.dwell_s)
        self.drift = self.drift.later(self.hands.seconds - since)
        self.belief = self.belief.after(exposure, int(watch.jumped))
        if not watch.jumped:
            self.waited += exposure * self.belief.mean
            electrons = trace.dwell_s * self.hands.microscope.conditions.electrons_per_s
            told = self.spots, place + self.drift.shift_xy, float(trace.counts.sum()), electrons
            # One dwell may hold half of a jump: the next one tells.
            unlike = abs(self.drift.surprise_sd(*told)) > _UNLIKE_SD
            self.unlike = self.unlike + 1 if unlike else 0
            if not unlike:
                self.drift = self.drift.measured(*told)
        return watch.jumped

    def _blind(self, aim: Aim) -> None:
        """Park the beam for the best time, then look."""
        times = dwell_times(self.hands.left_s - self.hands.look_s)
        sigma, growth = self.drift.sigma_A, self.drift.diffusion_A2_s
        exposure = np.array([self._exposure(aim, sigma, float(t), growth) for t in times])
        seconds = blind_dwell_s(exposure, times, self.hands.look_s, self.belief)
        since = self.hands.seconds
        self._park(aim.xy, seconds, None)
        self.drift = self.drift.later(self.hands.seconds - since)
        self.belief = self.belief.after(self._exposure(aim, sigma, seconds, growth), 0)
        self._look("to see whether the atom jumped")

    def _park(self, place: FloatArray, seconds: float, watch: JumpWatch | None) -> DwellTrace:
        """Park the beam on a place, Å without drift."""
        xy = place + self.drift.shift_xy - self.seen.to_specimen(np.zeros(2))
        request = BeamRequest(self.seen, (float(xy[0]), float(xy[1])), seconds)
        return self.hands.park(request, watch)

    def _doubt(self, aim: Aim) -> str:
        """Say why a frame is worth its dose now; an empty string if it is not."""
        xy = aim.xy + self.drift.shift_xy - self.seen.to_specimen(np.zeros(2))
        edge = self.seen.field_of_view_A
        if not np.all((xy > _MARGIN_A) & (xy < edge - _MARGIN_A)):
            return "because the atom leaves the last frame"
        if self.drift.sigma_A > self.options.max_sigma_A:
            return "because the place of the beam is not known well enough"
        if self.waited > self.options.patience:
            return "because the atom should have jumped by now"
        if self.unlike >= _UNLIKE_DWELLS:
            return "because the signal is not understood"
        return ""

    def _give_up_where_hopeless(self, aim: Aim, hops: int) -> None:
        per_s = self._exposure(aim, self.drift.sigma_A, 1.0)
        if why := why_hopeless(self.belief, hops, per_s, self.hands.left_s):
            raise Halt("given up", why)

    def _exposure(
        self, aim: Aim, sigma_A: float, seconds: float, diffusion_A2_s: float = 0.0
    ) -> float:
        current = self.hands.microscope.conditions.current_pA
        return exposure_of(aim, self.sites, self.model, current, sigma_A, seconds, diffusion_A2_s)

    def _is_at(self, site: int) -> None:
        """Take a site as that of the atom."""
        if site != self.site:
            self.spots = self.spots.swapped(self.site, site)
            self.site = site
            self.trail.append(site)

    def _tell(self, action: str, start: int, end: int) -> None:
        """Record what is believed."""
        low, high = (self.belief.quantile(q) for q in (0.05, 0.95))
        self.hands.tell(
            action,
            start_xy_A=self.sites.xy[start].round(3).tolist(),
            end_xy_A=self.sites.xy[end].round(3).tolist(),
            drift_xy_A=self.drift.shift_xy.round(3).tolist(),
            drift_sigma_A=round(self.drift.sigma_A, 3),
            rate_ratio=round(self.belief.mean, 3),
            rate_ratio_90=[round(low, 3), round(high, 3)],
        )

    def _request(self, center_xy: FloatArray, field_A: float) -> ScanRequest:
        pixels = round(field_A / self.options.pixel_size_A)
        x, y = float(center_xy[0]), float(center_xy[1])
        voltage = self.hands.microscope.conditions.voltage_kV
        return ScanRequest((x, y), field_A, pixels, self.options.look_dose_per_A2, voltage)

    def _atoms(
        self, result: FrameResult, request: ScanRequest
    ) -> tuple[BoolArray, BoolArray, FloatArray]:
        """Which atoms are there, which may be the one, and their places in the specimen, Å."""
        atoms = result.atoms
        there = atoms.column("p_exists") >= _SURE
        mine = there & (atoms.elements == self.element)
        mine &= atoms.column("p_element") >= _SURE
        return there, mine, request.to_specimen(atoms.xy)

    def _spots(self, result: FrameResult, there: BoolArray, request: ScanRequest) -> Spots:
        """Take the signal of parked beams from the fit to a frame."""
        refined = result.found.refined
        per_pixel = request.dose_per_A2 * request.calibration.pixel_size_A**2
        pixels = result.found.frame.pixels
        unit = (1.0 if pixels is None else pixels.unit) / per_pixel
        peak = result.atoms.column("amplitude")[there] / per_pixel
        # One host atom is as bright as another; the mean of all of them has less noise.
        host = result.atoms.elements[there] == self.material.host
        peak = np.where(host, np.median(peak[host]), peak)
        probe, size = refined.optics.probe, refined.optics.pixel_size_A
        return Spots(
            self.sites.xy,
            peak,
            lambda step: probe.value_at(step[..., ::-1] / size),
            float(np.median(refined.background)) * unit,
        )


def _series(traces: Sequence[tuple[float, DwellTrace]]) -> FloatArray:
    """Time and counts of all time slices, shape (slice, 2)."""
    parts = [
        np.stack([start + t.slice_s * np.arange(1, len(t.counts) + 1), t.counts], axis=1)
        for start, t in traces
    ]
    return np.concatenate([np.zeros((0, 2)), *parts])
