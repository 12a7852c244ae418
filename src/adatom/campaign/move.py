"""Move impurity atoms along the sites of a sheet: look, aim, dwell, watch, decide."""

from __future__ import annotations

from typing import cast

import numpy as np

from adatom.campaign.acting import Approve, Dwell, Halt, Hands, See, Tell
from adatom.campaign.followed import Followed
from adatom.campaign.guarded import beam_off
from adatom.campaign.move_allowed import check_voltage, knock_cross_section_A2
from adatom.campaign.moved import Moved, MoveStatus
from adatom.core import BeamRequest, DwellTrace, Material
from adatom.core.arrays import FloatArray
from adatom.core.hops import HopModel
from adatom.errors import BadInput
from adatom.feedback.moving import (
    Aim,
    MoveOptions,
    aim_at,
    blind_dwell_s,
    dwell_times,
    exposure_of,
    knocks_of,
    why_hopeless,
)
from adatom.feedback.plans import Plan, Step
from adatom.feedback.watch import JumpWatch, Spots, places_around
from adatom.instrument.protocol import Microscope

_MARGIN_A = 2.0  # Å: the beam is not parked nearer to the border of the last frame
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
    """Move impurity atoms step by step, or knock one of the crystal out, until a frame shows it.

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
        Where to: `adatom.feedback.plans.Along` a way, `Away` by a number of sites, or `Together`;
        or `Vacancy`.
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
        does not allow it, or the instrument cannot park its beam. Nothing was moved.
    """
    o = options or MoveOptions()
    hands, beam = Hands(microscope, see, material, o, approve, tell), microscope.conditions
    cross_section_A2 = 0.0
    if plan.knocks:
        cross_section_A2 = knock_cross_section_A2(material, beam, o)
    else:
        check_voltage(beam, o)
    with beam_off(microscope):
        mover = _Mover(hands, material, plan, element, o, cross_section_A2)
        status, reason = "done", f"a frame shows {plan.done}"
        try:
            mover.follow()
        except Halt as halt:
            status, reason = halt.status, halt.reason
        mover.last_frames()
        return mover.moved(cast("MoveStatus", status), reason)


class _Mover(Followed):
    """The steps of the loop."""

    def __init__(
        self,
        hands: Hands,
        material: Material,
        plan: Plan,
        element: str,
        options: MoveOptions,
        cross_section_A2: float,
    ) -> None:
        super().__init__(hands, material, element, options)
        self.plan, self.cross_section_A2 = plan, cross_section_A2
        self.model = HopModel()
        self.chunks = 0
        self.approved: tuple[int, int] | None = None
        self.dwells: list[Dwell] = []
        self.look_first(needed=not plan.knocks)
        plan.begin(self.sites, self.where, self.closed, self.seen.center_xy_A)
        step = plan.step(self.where, self.closed)
        self.active = 0 if step is None else step.atom
        self.at = self.where[0] if step is None else step.way[0]

    def follow(self) -> None:
        """Go on with the plan until a frame shows that it is carried out."""
        told: tuple[int, ...] = ()
        while True:
            step = self._next_step()
            if step is None:
                if self.seen_there:
                    return
                self.look("to confirm the goal", wide=True)
                continue
            self.active, self.at = step.atom, step.way[0]
            if step.way[-1:] != told:  # another goal
                told = step.way[-1:]
                self._tell_plan(step)
            aim = self._aim(step)
            self._give_up_where_hopeless(aim, step.hops)
            self._ask(aim)
            if why := self._doubt(aim):
                self.look(why)
            elif self.hands.microscope.capabilities.traces:
                self._watched(aim)
            else:
                self._blind(aim)

    def _aim(self, step: Step) -> Aim:
        if step.knock:
            return Aim(step.way[0], step.way[0], self.sites.xy[step.way[0]])
        return aim_at(self.sites, step.way[0], step.way[1], self.model)

    def _next_step(self) -> Step | None:
        try:
            return self.plan.step(self.where, self.closed | self.lost)
        except BadInput:  # one frame may miss an atom: noise, or a jump in the middle of a scan
            self.look("because atoms on the way are gone")
        try:
            return self.plan.step(self.where, self.closed | self.lost)
        except BadInput as error:
            raise Halt("given up", f"no way is left: {error.got}") from error

    def last_frames(self) -> None:
        """Take the frames of the first one's field that the options ask for, within the limits."""
        first = self.hands.frames[0].request
        x, y = np.asarray(first.center_xy_A) + self.drift.shift_xy
        request = self.request(np.array([x, y]), self.options.first_field_A)
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
            until = f"the {self.element} changes places with its neighbour at ({u:.2f}, {v:.2f}) Å"
            if aim.site == aim.goal:
                until = f"it knocks the {self.material.host} out that is there"
            words = f"park the beam at ({x:.2f}, {y:.2f}) Å, until {until}"
            self.hands.ask(words)
            self.hands.tell("park", what=words, aim_xy_A=aim.xy.round(3).tolist())
            self.approved = aim.site, aim.goal

    def moved(self, status: MoveStatus, reason: str) -> Moved:
        """Sum up."""
        hands = self.hands
        trails = self.trails if self.active >= 0 else [*self.trails, [self.at]]
        paths = tuple(
            tuple((float(x), float(y)) for x, y in self.sites.xy[trail]) for trail in trails
        )
        hands.tell("end", status=status, reason=reason, rate=self.belief.mean)
        x, y = self.drift.shift_xy.tolist()
        return Moved(
            status, reason, paths, self.active, hands.seconds, hands.electrons, self.belief.mean,
            tuple(hands.frames), tuple(self.dwells), (x, y),
        )  # fmt: skip

    def _watched(self, aim: Aim) -> None:
        """Park the beam in short dwells, until the signal tells the jump or asks for a look."""
        around = places_around(self.sites.xy[aim.goal])
        spots = self.spots.near(self.sites.xy[aim.goal])
        before = self.spots.at(around)
        knocks = aim.site == aim.goal
        changed = (
            self.spots.after_losses([aim.goal], [])
            if knocks
            else self.spots.swapped(aim.site, aim.goal)
        )
        after = changed.at(around)
        electrons = self.hands.microscope.conditions.electrons_per_s
        while not (why := self._doubt(aim)):
            n, self.chunks = self.chunks % len(around), self.chunks + 1
            counts = electrons * self.hands.microscope.capabilities.slice_s * self.drift.scale
            watch = JumpWatch(counts * float(before[n]), counts * float(after[n]))
            if not watch.can_tell:
                self._blind(aim)
                return
            if self._dwell(aim, around[n], spots, watch):
                if knocks:
                    self.is_gone(aim.goal)
                else:
                    self.tell_jump(self.active, aim.goal)
                    self.is_at(self.active, aim.goal)
                self.seen_there, self.waited, self.unlike = False, 0.0, 0
                return
            self._give_up_where_hopeless(aim, 1)
        self.look(why)

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
        self.look("to see whether the atom jumped")

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
        beam = self.hands.microscope.conditions
        if aim.site == aim.goal:
            wide = float(np.hypot(sigma_A, np.sqrt(diffusion_A2_s * seconds / 2.0)))
            rate = knocks_of(self.cross_section_A2, self.probe_A, beam.electrons_per_s, wide)
            return rate * seconds
        return exposure_of(
            aim, self.sites, self.model, beam.current_pA, sigma_A, seconds, diffusion_A2_s
        )

    def _tell_plan(self, step: Step) -> None:
        aim = self._aim(step)
        per_s = self._exposure(aim, self.drift.sigma_A, 1.0) * self.belief.mean
        self.hands.tell(
            "plan",
            atom=step.atom,
            element=self.material.host if step.knock else self.element,
            knock=step.knock,
            way_xy_A=[self.place(site) for site in step.way],
            hops=step.hops,
            expected_s=round(step.hops / per_s, 2),
        )
