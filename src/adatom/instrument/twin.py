"""A simulated microscope: a sheet with vacancies and impurity atoms that the beam moves."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial import cKDTree

from adatom.core import BeamConditions, BeamRequest, DwellTrace, Frame, Material, ScanRequest
from adatom.core.arrays import FloatArray
from adatom.core.hops import HopModel
from adatom.instrument.protocol import Capabilities, StopWhen

# Function of (positions in Å, species, request, random generator, frame index); returns a frame.
Render = Callable[[FloatArray, NDArray[np.int64], ScanRequest, np.random.Generator, int], Frame]
# Function of (place of the beam in Å, positions in Å, species); returns the expected number of
# detected counts per electron.
Signal = Callable[[FloatArray, FloatArray, NDArray[np.int64]], float]

# Cross section, Å², of the published rates (`adatom.core.hops.HopModel`) at graphene's bond length.
PUBLISHED_HOPS_A2 = 2.8e-9
# 570 times that: twelve frames of a demonstration then show several hops.
FAST_HOPS_A2 = 1.6e-6
_SMALLEST_FIELD_A = 2.0  # smallest field of view, Å: one or two bonds
# Fewest and most pixels along an edge: the smallest frame that adatom reads, and the usual limit of
# scan generators.
_PIXELS = (16, 4096)
_LONGEST_DWELL_S = 60.0  # s: nobody parks a beam longer without a look
_SLICE_S = 0.005  # s: a time slice of the trace of a parked beam
_REACH_A = 4.5  # Å: beyond this from an impurity atom, a beam does not move it (rate below 1e-9)
_PROBE_A = 0.42  # Å: Gaussian width of the probe whose flux knocks atoms out
_NEAR_A = 8.0  # Å: atoms farther from a parked beam add nothing to its signal


class TwinOptions(BaseModel):
    """The simulated specimen, beam and stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: int = Field(12, ge=1, description="frames of the demonstration")
    sheet_A: float = Field(48.0, gt=20, description="edge of the sheet, Å")
    vacancies: int = Field(1, ge=0, description="single vacancies in the field of view")
    foreign: int = Field(1, ge=0, description="substitutional impurity atoms in the field of view")
    field_of_view_A: float = Field(20.0, gt=8, description="field of view, Å")
    pixels: int = Field(192, ge=32, description="pixels along an edge")
    counts: float = Field(2.0, gt=0, description="detected counts at a host atom's peak, per pixel")
    dose_per_A2: float = Field(2e5, gt=0, description="electrons per Å² and frame")
    current_pA: float = Field(50.0, gt=0, description="probe current, pA")
    hop_cross_section_A2: float = Field(
        PUBLISHED_HOPS_A2,
        ge=0,
        le=1e-4,
        description="cross section of an impurity atom's hop to a neighbour, Å²",
    )
    voltage_kV: float = Field(60.0, gt=0, description="acceleration voltage, kV")
    loss_cross_section_A2: float | None = Field(
        None,
        ge=0,
        le=1e-4,
        description="cross section of the loss of an atom of the crystal's dimmest column, Å²; by "
        "default that of knock-on at the voltage, where the material's threshold is known",
    )
    drift_A: float = Field(
        0.25, ge=0, description="drift in the time of such a frame, Å (1 sigma an axis)"
    )
    overhead_s: float = Field(0.0, ge=0, description="time that a frame takes beside its pixels, s")
    traces: bool = Field(default=True, description="the detector is read while the beam is parked")


@dataclass(frozen=True, slots=True)
class Loss:
    """How the beam takes an atom out of a column.

    Parameters
    ----------
    species, after
        Species of the column before, and after; None where nothing is left.
    cross_section_A2
        Cross section, Å².
    """

    species: int
    after: int | None
    cross_section_A2: float


@dataclass(frozen=True, slots=True)
class Lost:
    """A column lost an atom.

    Parameters
    ----------
    time_s
        When, s after the start.
    site
        Number of the site.
    """

    time_s: float
    site: int


@dataclass(frozen=True, slots=True)
class Hop:
    """An impurity atom changed places with a neighbour.

    Parameters
    ----------
    time_s
        When, s after the start.
    start, end
        Numbers of the sites.
    """

    time_s: float
    start: int
    end: int


class Twin:
    """A sheet under an electron beam that moves its impurity atoms.

    Time is continuous: it passes while the beam scans, while it is parked, and in `wait`. The
    specimen drifts all the time. An impurity atom changes places with a neighbour at a rate that
    depends on the place of the beam (`adatom.core.hops.HopModel`), as Si does in graphene under
    60 keV electrons (Susi et al., Phys. Rev. Lett. 113, 115501 (2014)). The scan goes pixel by
    pixel, so an atom can jump in the middle of a frame; the frame then shows both places. Drift
    within a frame is not drawn. Atoms are knocked out by the dose that their place gets: that
    of the frame, or the flux of a parked beam in a Gaussian probe. An atom beside a vacancy is as
    hard to knock out as another one.

    Parameters
    ----------
    material
        The sheet.
    sites_xy
        Its sites, shape (site, 2), Å, covering `options.sheet_A` and centred on half of it.
    render
        Renders the noisy frame.
    signal
        Signal of a parked beam.
    options
        See `TwinOptions`.
    seed
        Seed of the specimen, its hops and the noise.
    site_species
        Species of each site of the perfect crystal, shape (site,); the first by default.
    impurity
        Species of the impurity atoms.
    losses
        How the beam takes atoms out.

    Attributes
    ----------
    sites_xy, occupied, species
        Shape (site, 2), Å without drift; (site,): whether an atom is there; (site,): its species.
    hops, lost
        Every hop and every loss so far.
    time_s
        The clock, s.
    taken
        Number of frames so far.
    """

    def __init__(
        self,
        material: Material,
        sites_xy: FloatArray,
        render: Render,
        signal: Signal,
        options: TwinOptions,
        seed: int,
        *,
        site_species: NDArray[np.int64] | None = None,
        impurity: int = 1,
        losses: tuple[Loss, ...] = (),
    ) -> None:
        self.material, self.options = material, options
        self._render, self._signal = render, signal
        self._rng = np.random.default_rng(seed)
        self._events = np.random.default_rng([seed, 1])  # hops, apart from the noise of frames
        self.sites_xy = sites_xy
        self.occupied = np.ones(len(sites_xy), dtype=bool)
        self.species = np.zeros(len(sites_xy), dtype=np.int64)
        if site_species is not None:
            self.species[:] = site_species
        self._impurity, self._losses = impurity, losses
        self._host = material.species.index(material.host)
        self._knocks = np.random.default_rng([seed, 2])  # losses, apart from the rest
        self._tree = cKDTree(sites_xy)
        self._offset = np.zeros(2)
        self._aborted = threading.Event()
        self.taken = 0
        self.time_s = 0.0
        self.hops: list[Hop] = []
        self.lost: list[Lost] = []
        self._place_defects()
        self.hop_model = self._true_rates()

    @property
    def center_xy_A(self) -> tuple[float, float]:
        """Middle of the sheet, Å."""
        return self.options.sheet_A / 2, self.options.sheet_A / 2

    @property
    def capabilities(self) -> Capabilities:
        """Any field of view on the sheet; a beam that can be parked, traced and blanked."""
        return Capabilities(
            simulated=True,
            center_xy_A=self.center_xy_A,
            field_of_view_A=(_SMALLEST_FIELD_A, self.options.sheet_A),
            pixels=_PIXELS,
            longest_dwell_s=_LONGEST_DWELL_S,
            slice_s=_SLICE_S if self.options.traces else 0.0,
            blanks=True,
        )

    @property
    def conditions(self) -> BeamConditions:
        """Voltage and current of the options; the rates of hops are those at 60 kV."""
        return BeamConditions(self.options.voltage_kV, self.options.current_pA)

    @property
    def truth(self) -> tuple[FloatArray, NDArray[np.int64]]:
        """Present positions (atom, 2) in Å with drift, and species (atom,)."""
        here = self.occupied
        return self.sites_xy[here] + self._offset, self.species[here]

    @property
    def drift_xy_A(self) -> FloatArray:
        """Drift of the specimen since the start, shape (2,), Å."""
        return self._offset.copy()

    def acquire(self, request: ScanRequest) -> Frame:
        """Take a frame; atoms jump while the beam scans.

        Raises
        ------
        BadInput
            If the request is outside `capabilities`.
        """
        self.capabilities.check(request)
        self._aborted.clear()
        noise = copy.deepcopy(self._rng)
        frame = self._render(*self.truth, request, self._rng, self.taken)
        pixel, count = 0, request.pixels**2
        seconds = request.dose_per_A2 * request.field_of_view_A**2
        seconds /= self.conditions.electrons_per_s
        knocked = self._knocked_out(request)
        while True:
            event = self._next_in_scan(request, pixel)
            if knocked and (event is None or knocked[0][0] < event[0]):
                pixel, site, loss = knocked.pop(0)
                if not self._lose(site, loss, self.time_s + seconds * pixel / count):
                    continue
            elif event is not None:
                pixel, site, other = event
                self._exchange(site, other, self.time_s + seconds * pixel / count)
            else:
                break
            after = self._render(*self.truth, request, copy.deepcopy(noise), self.taken)
            later = np.arange(count).reshape(frame.shape) >= pixel
            frame = replace(frame, data=np.where(later, after.data, frame.data))
        self.taken += 1
        self.wait(seconds + self.options.overhead_s)
        return frame

    def place_beam(self, request: BeamRequest, stop_when: StopWhen | None = None) -> DwellTrace:
        """Park the beam; the specimen drifts under it, and atoms jump.

        Raises
        ------
        BadInput
            If the request is outside `capabilities`.
        """
        self.capabilities.check_beam(request, stop_when)
        self._aborted.clear()
        place = np.asarray(request.place_xy_A)
        slices = max(1, round(request.dwell_s / _SLICE_S))
        counts = np.full(slices, np.nan)
        for i in range(slices):
            counts[i] = self._slice(place)
            seen = counts[: i + 1]
            if self._aborted.is_set() or (stop_when is not None and stop_when(seen)):
                return DwellTrace(request, self._told(seen), _SLICE_S, stopped=True)
        return DwellTrace(request, self._told(counts), _SLICE_S, stopped=False)

    def abort(self) -> None:
        """End a dwell after its present time slice."""
        self._aborted.set()

    def wait(self, seconds: float) -> None:
        """Let time pass with the beam off: the specimen drifts.

        Parameters
        ----------
        seconds
            How long, s.
        """
        o = self.options
        frame_s = o.dose_per_A2 * o.field_of_view_A**2 / self.conditions.electrons_per_s
        self.time_s += seconds
        sigma_A = o.drift_A * np.sqrt(seconds / frame_s)  # a random walk
        self._offset = self._offset + self._rng.normal(0.0, sigma_A, 2)

    def demonstration(self) -> list[Frame]:
        """Take `options.frames` frames of the middle of the sheet."""
        o = self.options
        request = ScanRequest(self.center_xy_A, o.field_of_view_A, o.pixels, o.dose_per_A2)
        return [self.acquire(request) for _ in range(o.frames)]

    def _place_defects(self) -> None:
        """Place the defects in the field of view, 5 Å apart and 4 Å from the border."""
        o = self.options
        half = o.field_of_view_A / 2 - 4.0
        away = np.abs(self.sites_xy - np.asarray(self.center_xy_A)).max(axis=1)
        free = self._rng.permutation(np.nonzero(away < half)[0])
        placed: list[int] = []
        for site in free:
            if len(placed) == o.foreign + o.vacancies:
                break
            if len(placed) < o.foreign and self.species[site] != self._host:
                continue
            if all(np.linalg.norm(self.sites_xy[site] - self.sites_xy[p]) > 5.0 for p in placed):
                placed.append(int(site))
        for site in placed[: o.foreign]:
            self.species[site] = self._impurity
        for site in placed[o.foreign :]:
            self.occupied[site] = False

    def _true_rates(self) -> HopModel:
        """Rates by the cross section of the options, which three neighbours share."""
        o, model = self.options, HopModel()
        # A beam that scans with a dose D (1/Å²) makes an exchange D σ / 3 times: the rate of a
        # parked beam, integrated over all places, is its flux times σ / 3.
        area_A2 = 2.0 * np.pi * model.variance_bonds2 * self.material.bond_length_A**2
        rate = self.conditions.electrons_per_s * o.hop_cross_section_A2 / 3.0 / area_A2
        return replace(model, rate_per_s=float(rate), current_pA=o.current_pA)

    def _partners(self, site: int) -> NDArray[np.int64]:
        """Neighbouring sites whose atom can change places with the impurity atom."""
        near = self._tree.query_ball_point(self.sites_xy[site], 1.25 * self.material.bond_length_A)
        return np.array(
            [
                i
                for i in near
                if i != site and self.occupied[i] and self.species[i] != self._impurity
            ],
            dtype=np.int64,
        )

    def _is_host(self, site: int) -> bool:
        return bool(self.species[site] != self._impurity)

    def _rates(self, places: FloatArray, site: int, partners: NDArray[np.int64]) -> FloatArray:
        """Rates of exchange (place, partner), 1/s."""
        here = self.sites_xy + self._offset
        return self.hop_model.rates_per_s(
            places, here[site], here[partners], self.options.current_pA
        )

    def _next_in_scan(self, request: ScanRequest, start: int) -> tuple[int, int, int] | None:
        """Draw the first hop at or after a pixel: (pixel after it, site, partner)."""
        size = request.calibration.pixel_size_A
        seconds = request.dose_per_A2 * size**2 / self.conditions.electrons_per_s
        corner = request.to_specimen(np.zeros(2))
        first: tuple[int, int, int] | None = None
        for site in np.flatnonzero(self.species == self._impurity).tolist():
            partners = self._partners(site)
            middle = (self.sites_xy[site] + self._offset - corner) / size
            reach = _REACH_A / size
            low = np.clip(np.ceil(middle - reach), 0, request.pixels).astype(int)
            high = np.clip(np.floor(middle + reach) + 1, 0, request.pixels).astype(int)
            rows, cols = np.mgrid[low[1] : high[1], low[0] : high[0]]
            order = (rows * request.pixels + cols).ravel()
            places = corner + size * np.stack([cols.ravel(), rows.ravel()], axis=1)
            places, order = places[order >= start], order[order >= start]
            if not len(order) or not len(partners):
                continue
            rates = self._rates(places, site, partners)
            hazard = np.cumsum(rates.sum(axis=1)) * seconds
            at = int(np.searchsorted(hazard, self._events.exponential()))
            if at < len(order) and (first is None or order[at] + 1 < first[0]):
                chance = rates[at] / rates[at].sum()
                other = int(self._events.choice(partners, p=chance))
                first = int(order[at]) + 1, int(site), other
        return first

    def _slice(self, place: FloatArray) -> float:
        """Let one time slice pass under a parked beam; give its counts."""
        expected, left = 0.0, _SLICE_S
        while left > 0:
            seconds, event = self._next_parked(place, left)
            expected += self._signal_at(place) * seconds * self.conditions.electrons_per_s
            if event is not None:
                self._exchange(*event, self.time_s + _SLICE_S - left + seconds)
            left -= seconds
        self._knock_parked(place)
        self.wait(_SLICE_S)
        return float(self._rng.poisson(expected))

    def _knocked_out(self, request: ScanRequest) -> list[tuple[int, int, Loss]]:
        """Draw what a scan knocks out: (pixel at which the beam is there, site, how), in order."""
        size, out = request.calibration.pixel_size_A, []
        corner = request.to_specimen(np.zeros(2))
        place = np.round((self.sites_xy + self._offset - corner) / size).astype(int)
        inside = np.all((place >= 0) & (place < request.pixels), axis=1) & self.occupied
        for loss in self._losses:
            sites = np.flatnonzero(inside & (self.species == loss.species))
            chance = -np.expm1(-request.dose_per_A2 * loss.cross_section_A2)
            for site in sites[self._knocks.random(len(sites)) < chance].tolist():
                col, row = place[site].tolist()
                out.append((row * request.pixels + col, site, loss))
        return sorted(out, key=lambda event: event[0])

    def _knock_parked(self, place: FloatArray) -> None:
        """Knock atoms out under the parked beam in the present time slice."""
        electrons = self.conditions.electrons_per_s * _SLICE_S
        for loss in self._losses:
            near = self._tree.query_ball_point(place - self._offset, _REACH_A)
            sites = [i for i in near if self.occupied[i] and self.species[i] == loss.species]
            away2 = np.sum((self.sites_xy[sites] + self._offset - place) ** 2, axis=1)
            density = np.exp(-0.5 * away2 / _PROBE_A**2) / (2 * np.pi * _PROBE_A**2)
            chance = -np.expm1(-electrons * density * loss.cross_section_A2)
            for i in np.flatnonzero(self._knocks.random(len(sites)) < chance):
                self._lose(sites[i], loss, self.time_s)

    def _lose(self, site: int, loss: Loss, time_s: float) -> bool:
        """Take an atom out; False where the column is another by now."""
        if not self.occupied[site] or self.species[site] != loss.species:
            return False
        if loss.after is None:
            self.occupied[site] = False
        else:
            self.species[site] = loss.after
        self.lost.append(Lost(time_s, site))
        return True

    def _next_parked(
        self, place: FloatArray, longest_s: float
    ) -> tuple[float, tuple[int, int] | None]:
        """Draw the time to the next hop under a parked beam, and the sites that it exchanges."""
        best: tuple[float, tuple[int, int] | None] = (longest_s, None)
        for site in np.flatnonzero(self.species == self._impurity).tolist():
            partners = self._partners(site)
            away = np.linalg.norm(self.sites_xy[site] + self._offset - place)
            if not len(partners) or away > _REACH_A:
                continue
            rates = self._rates(place, site, partners)
            seconds = float(self._events.exponential() / max(rates.sum(), 1e-300))
            if seconds < best[0]:
                other = int(self._events.choice(partners, p=rates / rates.sum()))
                best = seconds, (int(site), other)
        return best

    def _signal_at(self, place: FloatArray) -> float:
        near = self._tree.query_ball_point(place - self._offset, _NEAR_A)
        near = [i for i in near if self.occupied[i]]
        return self._signal(place, self.sites_xy[near] + self._offset, self.species[near])

    def _exchange(self, site: int, other: int, time_s: float) -> None:
        self.species[other], self.species[site] = self.species[site], self.species[other]
        self.hops.append(Hop(time_s, site, other))

    def _told(self, counts: FloatArray) -> FloatArray:
        """Give the trace, or NaN where the detector is not read while the beam is parked."""
        return counts if self.options.traces else np.full(len(counts), np.nan)
