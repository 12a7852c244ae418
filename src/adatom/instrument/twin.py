"""A simulated microscope: a scanning or parked beam over a drifting specimen that it changes."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from adatom.core import BeamConditions, BeamRequest, DwellTrace, Frame, Material, ScanRequest
from adatom.core.arrays import BoolArray, FloatArray
from adatom.core.hops import HopModel
from adatom.instrument.protocol import Capabilities, StopWhen
from adatom.instrument.specimen import Hop, Loss, Lost, Specimen
from adatom.instrument.twin_options import TwinOptions

# Function of (positions in Å, species, request, random generator, frame index); returns a frame.
Render = Callable[[FloatArray, NDArray[np.int64], ScanRequest, np.random.Generator, int], Frame]
# Function of (place of the beam in Å, positions in Å, species); returns the expected number of
# detected counts per electron.
Signal = Callable[[FloatArray, FloatArray, NDArray[np.int64]], float]

_SMALLEST_FIELD_A = 2.0  # smallest field of view, Å: one or two bonds
# Fewest and most pixels along an edge: the smallest frame that adatom reads, and the usual limit of
# scan generators.
_PIXELS = (16, 4096)
_LONGEST_DWELL_S = 60.0  # s: nobody parks a beam longer without a look
_SLICE_S = 0.005  # s: a time slice of the trace of a parked beam


class Twin:
    """A sheet under an electron beam that moves its impurity atoms.

    Time is continuous: it passes while the beam scans, while it is parked, and in `wait`. The
    specimen drifts all the time. The scan goes pixel by pixel, so an atom can jump in the middle of
    a frame; the frame then shows both places. Drift within a frame is not drawn, and what gathers
    of contamination in a frame shows in the next one. See `Specimen` for what the beam does.

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
    specimen
        Its atoms.
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
        self._offset = np.zeros(2)
        self._aborted = threading.Event()
        self.taken = 0
        self.time_s = 0.0
        self.specimen = Specimen(
            material, sites_xy, options, self._rng, seed,
            site_species=site_species, impurity=impurity, losses=losses,
        )  # fmt: skip

    @property
    def sites_xy(self) -> FloatArray:
        """Sites, shape (site, 2), Å without drift."""
        return self.specimen.sites_xy

    @property
    def occupied(self) -> BoolArray:
        """Whether an atom is on each site, shape (site,)."""
        return self.specimen.occupied

    @property
    def species(self) -> NDArray[np.int64]:
        """Species on each site, shape (site,)."""
        return self.specimen.species

    @property
    def hops(self) -> list[Hop]:
        """Every hop so far."""
        return self.specimen.hops

    @property
    def lost(self) -> list[Lost]:
        """Every loss so far."""
        return self.specimen.lost

    @property
    def hop_model(self) -> HopModel:
        """The true rates."""
        return self.specimen.hop_model

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
        """Positions (atom, 2) in Å with drift, and species (atom,), without contamination."""
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
        frame = self._frame(request, self._rng)
        pixel, count = 0, request.pixels**2
        seconds = request.dose_per_A2 * request.field_of_view_A**2
        seconds /= self.conditions.electrons_per_s
        specimen, drift = self.specimen, self._offset
        knocked = specimen.knocked_out(request, drift)
        while True:
            event = specimen.next_in_scan(request, pixel, drift)
            if knocked and (event is None or knocked[0][0] < event[0]):
                pixel, site, loss = knocked.pop(0)
                if not specimen.lose(site, loss, self.time_s + seconds * pixel / count):
                    continue
            elif event is not None:
                pixel, site, other = event
                specimen.exchange(site, other, self.time_s + seconds * pixel / count)
            else:
                break
            after = self._frame(request, copy.deepcopy(noise))
            later = np.arange(count).reshape(frame.shape) >= pixel
            frame = replace(frame, data=np.where(later, after.data, frame.data))
        electrons = request.dose_per_A2 * request.field_of_view_A**2
        specimen.gather(
            electrons, request.to_specimen(np.zeros(2)) - drift, request.field_of_view_A
        )
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

    def turn(self, angle_rad: float) -> None:
        """Turn the scan around the middle of the sheet.

        Parameters
        ----------
        angle_rad
            Positive: the picture turns counter-clockwise on the screen.
        """
        c, s = np.cos(angle_rad), np.sin(angle_rad)
        turn = np.array([[c, s], [-s, c]])  # x right, y down
        self.specimen.turn(turn, np.asarray(self.center_xy_A))
        self._offset = turn @ self._offset

    def demonstration(self) -> list[Frame]:
        """Take `options.frames` frames of the middle of the sheet."""
        o = self.options
        request = ScanRequest(self.center_xy_A, o.field_of_view_A, o.pixels, o.dose_per_A2)
        return [self.acquire(request) for _ in range(o.frames)]

    def _frame(self, request: ScanRequest, rng: np.random.Generator) -> Frame:
        """Render what is there now."""
        xy, species = self.specimen.seen
        return self._render(xy + self._offset, species, request, rng, self.taken)

    def _slice(self, place: FloatArray) -> float:
        """Let one time slice pass under a parked beam; give its counts."""
        specimen, per_s = self.specimen, self.conditions.electrons_per_s
        expected, left, on = 0.0, _SLICE_S, place - self._offset
        while left > 0:
            seconds, event = specimen.next_parked(on, left)
            expected += self._signal_at(place) * seconds * per_s
            if event is not None:
                specimen.exchange(*event, self.time_s + _SLICE_S - left + seconds)
            left -= seconds
        specimen.knock_parked(on, per_s * _SLICE_S, self.time_s)
        specimen.gather(per_s * _SLICE_S, on, 0.0)
        self.wait(_SLICE_S)
        return float(self._rng.poisson(expected))

    def _signal_at(self, place: FloatArray) -> float:
        xy, species = self.specimen.near(place - self._offset)
        return self._signal(place, xy + self._offset, species)

    def _told(self, counts: FloatArray) -> FloatArray:
        """Give the trace, or NaN where the detector is not read while the beam is parked."""
        return counts if self.options.traces else np.full(len(counts), np.nan)
