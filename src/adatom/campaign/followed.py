"""What frames say of the atoms that are followed: where they are, what is lost, how all drifts."""

from __future__ import annotations

import numpy as np

from adatom.analysis.frame import FrameResult
from adatom.campaign.acting import Halt, Hands
from adatom.campaign.move_frame import atoms_of, spots_of
from adatom.core import Material, ScanRequest
from adatom.core.arrays import BoolArray, FloatArray
from adatom.errors import BadInput
from adatom.feedback.hop_rate import RateBelief
from adatom.feedback.matching import assigned
from adatom.feedback.moving import MoveOptions
from adatom.feedback.sites import Sites
from adatom.feedback.watch import Drift

_LOOK_SIGMA_A = 0.03  # Å per axis: error of the shift of a frame, from tens of atoms
_REACH_SD = 4.0  # a specimen drifts no farther than so many standard deviations
_INSIDE_A = 1.5  # Å: an atom nearer to the border of a frame may be missed
_LOOKS = 3  # frames without the atom after which it is lost
_LOST_S = 0.3  # s: a beam that lost its atom is found out in this time
_HOP_NATS = 3.0  # an unseen hop is taken for 20 times less likely than none
# The beam is led astray by a lattice vector between two frames in one of 400 cases; shifts up to
# this are tried, Å: the shortest lattice vector of a sheet and some drift.
_SLIP_NATS, _SLIP_REACH_A = 6.0, 2.8
_STRANGE_NATS = 5.0  # in one of 150 cases an atom is missed, or seen where none is


class Followed:
    """The sheet as the frames show it, and the atoms of one element on it.

    Parameters
    ----------
    hands
        Take frames.
    material
        The sheet.
    element
        Element of the atoms that are followed.
    options
        Fields and doses.

    Attributes
    ----------
    sites, spots
        Of the first frame, without drift; the spots follow jumps and losses.
    where, trails
        Site of each atom now, and all of them in turn.
    active, at
        The atom that a look must show, -1 for none, and the site that it is centred on.
    closed, lost
        Sites of other impurity atoms, and those that had an atom and have none.
    drift, belief
        What is known of the drift and of the rate.
    first, seen, seen_there, looked_s
        Requests of the first frame and the last, whether nothing happened since, and when that was
        taken, s.
    waited, unlike
        Hops that were expected since the last frame or jump; dwells in a row that were not
        understood.
    """

    def __init__(
        self, hands: Hands, material: Material, element: str, options: MoveOptions
    ) -> None:
        self.hands, self.material, self.element, self.options = hands, material, element, options
        self.belief, self.drift = RateBelief(), Drift.start(options.drift_A2_s)
        self.waited, self.unlike = 0.0, 0
        self.active, self.at = 0, 0

    def look_first(self, *, needed: bool) -> None:
        """Take the first frame: sites, atoms of the element, and the signal of a parked beam.

        Raises
        ------
        BadInput
            If there is no atom of the element, and one is needed.
        """
        center = np.asarray(self.hands.microscope.capabilities.center_xy_A)
        request = self.request(center, self.options.first_field_A)
        words = "to find the atom and its surroundings"
        for _ in range(_LOOKS):  # an atom that jumps in the middle of a scan is half in two places
            result = self.hands.acquire(request, np.zeros(2), words)
            there, mine, xy = atoms_of(result, request, self.element)
            if mine.any() or not needed:
                break
            words = f"again, because the last one shows no {self.element}"
        else:
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
        optics = result.found.refined.optics
        self.probe_A = optics.probe.sigma() * optics.pixel_size_A
        self.first, self.seen, self.seen_there = request, request, True
        self.looked_s = self.hands.seconds
        self.trails = [[site] for site in self.where]
        self.tell_seen(result, there, xy)

    def look(self, why: str, *, wide: bool = False) -> None:
        """Take a frame around the atom; learn the drift, and where the atoms are.

        Parameters
        ----------
        why
            Reason, in words.
        wide
            Take the field of the first frame: other defects in it tell whether the drift that is
            believed is off by a lattice vector.
        """
        place = np.asarray(self.first.center_xy_A) if wide else self.sites.xy[self.at]
        field_A = self.options.first_field_A if wide else self.options.look_field_A
        request = self.request(place + self.drift.shift_xy, field_A)
        since, words = self.hands.seconds, why
        for _ in range(_LOOKS):  # one frame may miss it: noise, or a jump in the middle of a scan
            result = self.hands.acquire(request, self.drift.shift_xy, words)
            there, mine, xy = atoms_of(result, request, self.element)
            drift = self.drift.later(self.hands.seconds - since)
            shift, where = self._where(xy[there], xy[mine], request, drift)
            if self.active < 0 or where[self.active] is not None:
                break
            words = f"again, because the last one shows no {self.element}"
        else:
            raise Halt("given up", f"no {self.element} is in {_LOOKS} frames")
        self.drift = drift.seen(shift, _LOOK_SIGMA_A, self.hands.seconds - self.looked_s)
        self.seen, self.looked_s, self.waited = request, self.hands.seconds, 0.0
        self.unlike, self.seen_there = 0, True
        self.tell_seen(result, there, xy)
        self._see_losses(xy[there] - shift, request.to_specimen(np.zeros(2)) - shift)
        for atom, site in enumerate(where):
            if site is not None and site != self.where[atom]:
                self.belief = self.belief.after(0.0, 1)
                self.tell_jump(atom, site)
                self.is_at(atom, site)

    def _see_losses(self, xy: FloatArray, corner: FloatArray) -> None:
        """Close sites that lost their atom, and open those that have one again."""
        low, high = corner + _INSIDE_A, corner + self.seen.field_of_view_A - _INSIDE_A
        shown = np.all((self.sites.xy > low) & (self.sites.xy < high), axis=1)
        bare = self.sites.empty(xy, low, high)
        if gone := bare - self.lost:
            self.hands.tell("lost", xy_A=[self.place(site) for site in sorted(gone)])
        back = {site for site in self.lost - bare if shown[site]}
        self.spots = self.spots.after_losses(gone, back)
        self.lost = (self.lost | bare) - back

    def _where(
        self, xy: FloatArray, mine_xy: FloatArray, request: ScanRequest, drift: Drift
    ) -> tuple[FloatArray, list[int | None]]:
        """Find the shift and the atoms' sites that are the likeliest together.

        Shifts by lattice vectors look alike. A shift costs what the drift says, or what it costs
        that the beam was led astray by a lattice vector and the atoms are as far from where they
        were believed; each hop that nobody saw costs a factor, and each site that is empty or atom
        that is on none.
        """
        variance = drift.sigma_A**2 + drift.diffusion_A2_s * _LOST_S
        guess = drift.shift_xy
        reach = max(_REACH_SD * float(np.sqrt(variance)), _SLIP_REACH_A)
        half = request.field_of_view_A / 2 - _INSIDE_A
        best: tuple[float, FloatArray, list[int | None]] | None = None
        for shift in self.sites.shifts_of(xy, guess, reach):
            away = np.abs(self.sites.xy[self.where] + shift - np.asarray(request.center_xy_A))
            inside = (away.max(axis=1) < half).tolist()
            seen = [self.sites.closest(place) for place in mine_xy - shift]
            strange = _STRANGE_NATS * self._strange(xy - shift, request, shift)
            off = float(np.sum((shift - guess) ** 2)) / (2.0 * variance)
            slipped = [self.sites.closest(self.sites.xy[s] + guess - shift) for s in self.where]
            for cost, sites in ((off, self.where), (_SLIP_NATS, slipped)):
                steps = [self.sites.distances(site) for site in sites]
                where, hops = assigned(steps, inside, seen)
                total = cost + _HOP_NATS * hops + strange
                if best is None or total < best[0]:
                    best = total, shift, where
        assert best is not None  # noqa: S101  # `shifts_of` gives one at least
        return best[1], best[2]

    def _strange(self, xy: FloatArray, request: ScanRequest, shift: FloatArray) -> int:
        """Count sites without an atom and atoms without a site, where both frames show them.

        Parameters
        ----------
        xy
            Atoms without a shift, shape (atom, 2), Å.
        request, shift
            Frame, and its shift.
        """
        corner = request.to_specimen(np.zeros(2)) - shift
        low = np.maximum(corner, self.sites.xy.min(axis=0)) + _INSIDE_A
        high = np.minimum(corner + request.field_of_view_A, self.sites.xy.max(axis=0)) - _INSIDE_A
        bare = self.sites.empty(xy, low, high) - self.lost
        there = np.all((xy > low) & (xy < high), axis=1)
        return len(bare) + self.sites.beside(xy[there])

    def is_gone(self, site: int) -> None:
        """Take the atom of a site as knocked out; a frame will tell."""
        self.hands.tell("knocked", xy_A=self.place(site), element=self.material.host)
        self.spots = self.spots.after_losses([site], [])
        self.lost = self.lost | {site}

    def is_at(self, atom: int, site: int) -> None:
        """Take a site as that of an atom."""
        self.spots = self.spots.swapped(self.where[atom], site)
        self.where[atom] = site
        self.trails[atom].append(site)

    def tell_jump(self, atom: int, site: int) -> None:
        """Record a jump, with what is believed."""
        low, high = (self.belief.quantile(q) for q in (0.05, 0.95))
        self.hands.tell(
            "jump",
            atom=atom,
            start_xy_A=self.place(self.where[atom]),
            end_xy_A=self.place(site),
            drift_xy_A=self.drift.shift_xy.round(3).tolist(),
            drift_sigma_A=round(self.drift.sigma_A, 3),
            rate_ratio=round(self.belief.mean, 3),
            rate_ratio_90=[round(low, 3), round(high, 3)],
        )

    def tell_seen(self, result: FrameResult, there: BoolArray, xy: FloatArray) -> None:
        """Record what a frame showed; positions without drift."""
        self.hands.tell(
            "seen",
            frame=len(self.hands.frames) - 1,
            drift_xy_A=self.drift.shift_xy.round(3).tolist(),
            element=self.element,
            elements=result.atoms.elements[there].tolist(),
            xy_A=(xy[there] - self.drift.shift_xy).round(2).tolist(),
        )

    def place(self, site: int) -> list[float]:
        """Place of a site for the record, x and y, Å."""
        out: list[float] = self.sites.xy[site].round(3).tolist()
        return out

    def request(self, center_xy: FloatArray, field_A: float) -> ScanRequest:
        """Frame of a field around a place, shape (2,), Å."""
        pixels = round(field_A / self.options.pixel_size_A)
        x, y = float(center_xy[0]), float(center_xy[1])
        voltage = self.hands.microscope.conditions.voltage_kV
        return ScanRequest((x, y), field_A, pixels, self.options.look_dose_per_A2, voltage)
