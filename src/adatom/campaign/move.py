"""Move impurity atoms along the sites of a sheet: look, aim, dwell, watch, decide."""

from __future__ import annotations

from typing import cast

import numpy as np

from adatom.analysis.frame import FrameResult
from adatom.campaign.acting import Approve, Dwell, Halt, Hands, See, Tell
from adatom.campaign.guarded import beam_off
from adatom.campaign.move_frame import atoms_of, spots_of
from adatom.campaign.moved import Moved, MoveStatus
from adatom.core import BeamRequest, DwellTrace, Material, ScanRequest
from adatom.core.arrays import BoolArray, FloatArray
from adatom.core.hops import HopModel
from adatom.errors import BadInput
from adatom.feedback.hop_rate import RateBelief
from adatom.feedback.matching import assigned
from adatom.feedback.moving import (
    Aim,
    MoveOptions,
    aim_at,
    blind_dwell_s,
    dwell_times,
    exposure_of,
    why_hopeless,
)
from adatom.feedback.plans import Plan, Step
from adatom.feedback.sites import Sites
from adatom.feedback.watch import Drift, JumpWatch, Spots, places_around
from adatom.instrument.protocol import Microscope

_LOOK_SIGMA_A = 0.03  # Å per axis: error of the shift of a frame, from tens of atoms
_REACH_SD = 4.0  # a specimen drifts no farther than so many standard deviations
_MARGIN_A = 2.0  # Å: the beam is not parked nearer to the border of the last frame
_INSIDE_A = 1.5  # Å: an atom nearer to the border of a frame may be missed
_LOOKS = 3  # frames without the atom after which it is lost
_LOST_S = 0.3  # s: a beam that lost its atom is found out in this time
_HOP_NATS = 3.0  # an unseen hop is taken for 20 times less likely than none
_UNLIKE_DWELLS = 2  # dwells in a row
_UNLIKE_SD = 6.0  # a dwell whose counts are farther off than this is not understood


def move_atoms(
    microscope: Microscope,
    see: See,
    material: Material,
    plan: Plan,
    *,
    element: str = "Si",
    options: MoveOptions | None = None,
    approve: Approve = lambda _: True,
    tell: Tell = lambda _: None,
) -> Moved:
    """Move impurity atoms step by step, until a frame shows them on their goals.

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
    plan
        Where to: `adatom.feedback.plans.Along` a way, `Away` by a number of sites, or `Together`.
    element
        The impurities' element; of one atom, that nearest to the middle of the first frame is
        moved.
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
    hands = Hands(microscope, see, material, o, approve, tell)
    with beam_off(microscope):
        mover = _Mover(hands, material, plan, element, o)
        status, reason = "done", f"a frame shows {plan.done}"
        try:
            mover.follow()
        except Halt as halt:
            status, reason = halt.status, halt.reason
        mover.last_frames()
        return mover.moved(cast("MoveStatus", status), reason)


class _Mover:
    """What the loop knows, and its steps; the first frame is taken when it is made."""

    def __init__(
        self, hands: Hands, material: Material, plan: Plan, element: str, options: MoveOptions
    ) -> None:
        self.hands, self.material, self.element, self.options = hands, material, element, options
        self.plan = plan
        self.model, self.belief = HopModel(), RateBelief()
        self.drift = Drift.start(options.drift_A2_s)
        self.chunks, self.unlike = 0, 0
        self.approved: tuple[int, int] | None = None
        self.waited = 0.0  # hops that the belief expected since the last frame or jump
        self.dwells: list[Dwell] = []
        self._first_look()
        self.trails = [[site] for site in self.where]
        plan.begin(self.sites, self.where, self.closed)
        step = plan.step(self.where, self.closed)
        self.active = 0 if step is None else step.atom

    def follow(self) -> None:
        """Go on with the plan until a frame shows that it is carried out."""
        told: tuple[int, ...] = ()
        while True:
            step = self._next_step()
            if step is None:
                if self.seen_there:
                    return
                self._look("to confirm the goal")
                continue
            self.active = step.atom
            if step.way[-1:] != told:  # another goal
                told = step.way[-1:]
                self._tell_plan(step)
            aim = aim_at(self.sites, step.way[0], step.way[1], self.model)
            self._give_up_where_hopeless(aim, step.hops)
            self._ask(aim)
            if why := self._doubt(aim):
                self._look(why)
            elif self.hands.microscope.capabilities.traces:
                self._watched(aim)
            else:
                self._blind(aim)

    def _next_step(self) -> Step | None:
        try:
            return self.plan.step(self.where, self.closed | self.lost)
        except BadInput:  # one frame may miss an atom: noise, or a jump in the middle of a scan
            self._look("because atoms on the way are gone")
        try:
            return self.plan.step(self.where, self.closed | self.lost)
        except BadInput as error:
            raise Halt("given up", f"no way is left: {error.got}") from error

    def last_frames(self) -> None:
        """Take the frames of the first one's field that the options ask for, within the limits."""
        first = self.hands.frames[0].request
        x, y = np.asarray(first.center_xy_A) + self.drift.shift_xy
        request = self._request(np.array([x, y]), self.options.first_field_A)
        try:
            count = self.options.last_frames
            for n in range(count):
                self.hands.take(
                    request, self.drift.shift_xy, f"to keep, after the move ({n + 1} of {count})"
                )
        except Halt as halt:
            self.hands.tell("limit", reason=halt.reason)

    def _ask(self, aim: Aim) -> None:
        """Ask for approval of a step, once."""
        if (aim.site, aim.goal) != self.approved:
            (x, y), (u, v) = aim.xy, self.sites.xy[aim.goal]
            words = (
                f"park the beam at ({x:.2f}, {y:.2f}) Å, until the {self.element} changes places "
                f"with its neighbour at ({u:.2f}, {v:.2f}) Å"
            )
            self.hands.ask(words)
            self.hands.tell("park", what=words, aim_xy_A=aim.xy.round(3).tolist())
            self.approved = aim.site, aim.goal

    def moved(self, status: MoveStatus, reason: str) -> Moved:
        """Sum up."""
        hands = self.hands
        paths = tuple(
            tuple((float(x), float(y)) for x, y in self.sites.xy[trail]) for trail in self.trails
        )
        hands.tell("end", status=status, reason=reason, rate=self.belief.mean)
        x, y = self.drift.shift_xy.tolist()
        return Moved(
            status, reason, paths, self.active, hands.seconds, hands.electrons, self.belief.mean,
            tuple(hands.frames), tuple(self.dwells), (x, y),
        )  # fmt: skip

    def _first_look(self) -> None:
        center = np.asarray(self.hands.microscope.capabilities.center_xy_A)
        request = self._request(center, self.options.first_field_A)
        result = self.hands.acquire(request, np.zeros(2), "to find the atom and its surroundings")
        there, mine, xy = atoms_of(result, request, self.element)
        if not mine.any():
            raise BadInput(
                "first frame",
                expected=f"a {self.element} atom",
                got=f"{int(there.sum())} atoms, none of them surely {self.element}",
                todo="Move the field of view to one.",
            )
        number = np.cumsum(there) - 1  # of each atom among those that are there
        self.sites = Sites.of(xy[there], self.material.bond_length_A)
        order = np.argsort(np.linalg.norm(xy[mine] - center, axis=1))
        self.where = number[mine][order].tolist()
        foreign = there & ~mine & (result.atoms.elements != self.material.host)
        self.closed = {int(i) for i in number[foreign]}
        self.lost: frozenset[int] = frozenset()  # sites that had an atom and have none
        self.spots = spots_of(result, there, request, self.sites, self.material)
        self.seen, self.seen_there, self.looked_s = request, True, self.hands.seconds
        self._tell_seen(result, there, xy)

    def _look(self, why: str) -> None:
        """Take a frame around the atom; learn the drift, and where the atoms are."""
        expected = self.sites.xy[self.where[self.active]] + self.drift.shift_xy
        request = self._request(expected, self.options.look_field_A)
        since, words = self.hands.seconds, why
        for _ in range(_LOOKS):  # one frame may miss it: noise, or a jump in the middle of a scan
            result = self.hands.acquire(request, self.drift.shift_xy, words)
            there, mine, xy = atoms_of(result, request, self.element)
            drift = self.drift.later(self.hands.seconds - since)
            shift, where = self._where(xy[there], xy[mine], request, drift)
            if where[self.active] is not None:
                break
            words = f"again, because the last one shows no {self.element}"
        else:
            raise Halt("given up", f"no {self.element} is in {_LOOKS} frames")
        self.drift = drift.seen(shift, _LOOK_SIGMA_A, self.hands.seconds - self.looked_s)
        self.seen, self.looked_s, self.waited = request, self.hands.seconds, 0.0
        self.unlike, self.seen_there = 0, True
        self._tell_seen(result, there, xy)
        self._see_losses(xy[there] - shift, request.to_specimen(np.zeros(2)) - shift)
        for atom, site in enumerate(where):
            if site is not None and site != self.where[atom]:
                self.belief = self.belief.after(0.0, 1)
                self._tell_jump(atom, site)
                self._is_at(atom, site)

    def _see_losses(self, xy: FloatArray, corner: FloatArray) -> None:
        """Close sites that lost their atom, and open those that have one again."""
        low, high = corner + _INSIDE_A, corner + self.options.look_field_A - _INSIDE_A
        shown = np.all((self.sites.xy > low) & (self.sites.xy < high), axis=1)
        bare = self.sites.empty(xy, low, high)
        if gone := bare - self.lost:
            self.hands.tell("lost", xy_A=[self._xy(site) for site in sorted(gone)])
        back = {site for site in self.lost - bare if shown[site]}
        self.spots = self.spots.after_losses(gone, back)
        self.lost = (self.lost | bare) - back

    def _where(
        self, xy: FloatArray, mine_xy: FloatArray, request: ScanRequest, drift: Drift
    ) -> tuple[FloatArray, list[int | None]]:
        """Find the shift and the atoms' sites that are the likeliest together.

        Shifts by lattice vectors look alike. A shift costs what the drift says, each hop that
        nobody saw costs a factor.
        """
        variance = drift.sigma_A**2 + drift.diffusion_A2_s * _LOST_S
        guess, reach = drift.shift_xy, _REACH_SD * float(np.sqrt(variance))
        steps = [self.sites.distances(site) for site in self.where]
        half = request.field_of_view_A / 2 - _INSIDE_A
        best: tuple[float, FloatArray, list[int | None]] | None = None
        for shift in self.sites.shifts_of(xy, guess, reach):
            away = np.abs(self.sites.xy[self.where] + shift - np.asarray(request.center_xy_A))
            inside = (away.max(axis=1) < half).tolist()
            seen = [self.sites.closest(place) for place in mine_xy - shift]
            where, hops = assigned(steps, inside, seen)
            off = float(np.sum((shift - guess) ** 2)) / (2.0 * variance)
            if best is None or off + _HOP_NATS * hops < best[0]:
                best = off + _HOP_NATS * hops, shift, where
        assert best is not None  # noqa: S101  # `shifts_of` gives one at least
        return best[1], best[2]

    def _watched(self, aim: Aim) -> None:
        """Park the beam in short dwells, until the signal tells the jump or asks for a look."""
        around = places_around(self.sites.xy[aim.goal])
        spots = self.spots.near(self.sites.xy[aim.goal])
        before = self.spots.at(around)
        after = self.spots.swapped(aim.site, aim.goal).at(around)
        electrons = self.hands.microscope.conditions.electrons_per_s
        while not (why := self._doubt(aim)):
            n, self.chunks = self.chunks % len(around), self.chunks + 1
            counts = electrons * self.hands.microscope.capabilities.slice_s * self.drift.scale
            watch = JumpWatch(counts * float(before[n]), counts * float(after[n]))
            if not watch.can_tell:
                self._blind(aim)
                return
            if self._dwell(aim, around[n], spots, watch):
                self._tell_jump(self.active, aim.goal)
                self._is_at(self.active, aim.goal)
                self.seen_there, self.waited, self.unlike = False, 0.0, 0
                return
            self._give_up_where_hopeless(aim, 1)
        self._look(why)

    def _dwell(self, aim: Aim, place: FloatArray, spots: Spots, watch: JumpWatch) -> bool:
        """Park the beam for a short time; learn the drift, or that the atom jumped."""
        sigma, since = self.drift.sigma_A, self.hands.seconds
        trace = self._park(place, self.options.chunk_s, watch)
        exposure = self._exposure(aim, sigma, trace.dwell_s)
        self.drift = self.drift.later(self.hands.seconds - since)
        self.belief = self.belief.after(exposure, int(watch.jumped))
        if not watch.jumped:
            self.waited += exposure * self.belief.mean
            beam = place + self.dwells[-1].drift_xy_A
            electrons = trace.dwell_s * self.hands.microscope.conditions.electrons_per_s
            after, off = self.drift.measured(spots, beam, float(trace.counts.sum()), electrons)
            # One dwell may hold half of a jump: the next one tells.
            unlike = abs(off) > _UNLIKE_SD
            self.unlike = self.unlike + 1 if unlike else 0
            self.drift = self.drift if unlike else after
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
        start, (u, v) = self.hands.seconds, self.drift.shift_xy.tolist()
        trace = self.hands.park(request, watch)
        self.dwells.append(Dwell(start, (float(place[0]), float(place[1])), (u, v), trace))
        return trace

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

    def _is_at(self, atom: int, site: int) -> None:
        """Take a site as that of an atom."""
        self.spots = self.spots.swapped(self.where[atom], site)
        self.where[atom] = site
        self.trails[atom].append(site)

    def _tell_jump(self, atom: int, site: int) -> None:
        """Record a jump, with what is believed."""
        low, high = (self.belief.quantile(q) for q in (0.05, 0.95))
        self.hands.tell(
            "jump",
            atom=atom,
            start_xy_A=self._xy(self.where[atom]),
            end_xy_A=self._xy(site),
            drift_xy_A=self.drift.shift_xy.round(3).tolist(),
            drift_sigma_A=round(self.drift.sigma_A, 3),
            rate_ratio=round(self.belief.mean, 3),
            rate_ratio_90=[round(low, 3), round(high, 3)],
        )

    def _tell_plan(self, step: Step) -> None:
        aim = aim_at(self.sites, step.way[0], step.way[1], self.model)
        per_s = self._exposure(aim, self.drift.sigma_A, 1.0) * self.belief.mean
        self.hands.tell(
            "plan",
            atom=step.atom,
            element=self.element,
            way_xy_A=[self._xy(site) for site in step.way],
            hops=step.hops,
            expected_s=round(step.hops / per_s, 2),
        )

    def _tell_seen(self, result: FrameResult, there: BoolArray, xy: FloatArray) -> None:
        """Record what a frame showed; positions without drift."""
        self.hands.tell(
            "seen",
            frame=len(self.hands.frames) - 1,
            drift_xy_A=self.drift.shift_xy.round(3).tolist(),
            element=self.element,
            elements=result.atoms.elements[there].tolist(),
            xy_A=(xy[there] - self.drift.shift_xy).round(2).tolist(),
        )

    def _xy(self, site: int) -> list[float]:
        out: list[float] = self.sites.xy[site].round(3).tolist()
        return out

    def _request(self, center_xy: FloatArray, field_A: float) -> ScanRequest:
        pixels = round(field_A / self.options.pixel_size_A)
        x, y = float(center_xy[0]), float(center_xy[1])
        voltage = self.hands.microscope.conditions.voltage_kV
        return ScanRequest((x, y), field_A, pixels, self.options.look_dose_per_A2, voltage)
