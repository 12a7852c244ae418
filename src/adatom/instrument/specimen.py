"""The specimen of the simulated microscope: what the beam does to its atoms.

All places are without drift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.core import BeamConditions, Material, ScanRequest
from adatom.core.arrays import FloatArray
from adatom.core.hops import HopModel
from adatom.instrument.twin_options import TwinOptions

_REACH_A = 4.5  # Å: beyond this from an impurity atom, a beam does not move it (rate below 1e-9)
_PROBE_A = 0.42  # Å: Gaussian width of the probe whose flux knocks atoms out
_GATHERS_A = 2.0  # Å: Gaussian width of what gathers around the beam
_NEAR_A = 8.0  # Å: atoms farther from a parked beam add nothing to its signal


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


class Specimen:
    """A sheet with vacancies, impurity atoms and contamination, under a beam.

    An impurity atom changes places with a neighbour at a rate that depends on the place of the beam
    (`adatom.core.hops.HopModel`), as Si does in graphene under 60 keV electrons (Susi et al., Phys.
    Rev. Lett. 113, 115501 (2014)). Atoms are knocked out by the dose that their place gets: that
    of the frame, or the flux of a parked beam in a Gaussian probe. An atom beside a vacancy is as
    hard to knock out as another one. Carbon atoms gather where the beam is, and stay.

    Parameters
    ----------
    material
        The sheet.
    sites_xy
        Its sites, shape (site, 2), Å.
    options
        See `TwinOptions`.
    rng
        Places the defects.
    seed
        Seed of hops, losses and contamination.
    site_species
        Species of each site of the perfect crystal, shape (site,); the first by default.
    impurity
        Species of the impurity atoms.
    losses
        How the beam takes atoms out.

    Attributes
    ----------
    occupied, species
        Shape (site,): whether an atom is there, and its species.
    deposit_xy
        Places of the contamination, shape (atom, 2), Å.
    hops, lost
        Every hop and every loss so far.
    hop_model
        The true rates.
    """

    def __init__(
        self,
        material: Material,
        sites_xy: FloatArray,
        options: TwinOptions,
        rng: np.random.Generator,
        seed: int,
        *,
        site_species: NDArray[np.int64] | None = None,
        impurity: int = 1,
        losses: tuple[Loss, ...] = (),
    ) -> None:
        self.options, self._bond_A = options, material.bond_length_A
        self.sites_xy = sites_xy
        self.occupied = np.ones(len(sites_xy), dtype=bool)
        self.species = np.zeros(len(sites_xy), dtype=np.int64)
        if site_species is not None:
            self.species[:] = site_species
        self.deposit_xy: FloatArray = np.zeros((0, 2))
        self.hops: list[Hop] = []
        self.lost: list[Lost] = []
        self._impurity, self._losses = impurity, losses
        self._host = material.species.index(material.host)
        # Apart from the noise of frames, so that one does not change the other.
        parts = (np.random.default_rng([seed, n]) for n in (1, 2, 3))
        self._events, self._knocks, self._dirt = parts
        self._tree = cKDTree(sites_xy)
        self._beam = BeamConditions(options.voltage_kV, options.current_pA)
        self._place_defects(rng)
        self.hop_model = self._true_rates()

    @property
    def seen(self) -> tuple[FloatArray, NDArray[np.int64]]:
        """Places (atom, 2), Å, and species (atom,) of all atoms, contamination included."""
        xy = np.concatenate([self.sites_xy[self.occupied], self.deposit_xy])
        dirt = np.full(len(self.deposit_xy), self._host)
        return xy, np.concatenate([self.species[self.occupied], dirt])

    def near(self, place: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
        """The same of the atoms that add to the signal of a beam on a place, shape (2,), Å."""
        near = self._tree.query_ball_point(place, _NEAR_A)
        near = [i for i in near if self.occupied[i]]
        dirt = self.deposit_xy
        dirt = dirt[np.linalg.norm(dirt - place, axis=1) < _NEAR_A]
        species = np.concatenate([self.species[near], np.full(len(dirt), self._host)])
        return np.concatenate([self.sites_xy[near], dirt]), species

    def turn(self, turn: FloatArray, middle: FloatArray) -> None:
        """Turn everything around a place.

        Parameters
        ----------
        turn
            Rotation, shape (2, 2), of x and y.
        middle
            The place, shape (2,), Å.
        """
        self.sites_xy = (self.sites_xy - middle) @ turn.T + middle
        self.deposit_xy = (self.deposit_xy - middle) @ turn.T + middle
        self._tree = cKDTree(self.sites_xy)

    def gather(self, electrons: float, corner_xy: FloatArray, edge_A: float) -> None:
        """Let contamination gather.

        Parameters
        ----------
        electrons
            Electrons of a scan or of a parked beam.
        corner_xy, edge_A
            Corner and edge of the square that they were spread over; the edge of a parked beam
            is 0. Å.
        """
        count = self._dirt.poisson(electrons * self.options.deposited_per_electron)
        if count:
            places = corner_xy + edge_A * self._dirt.random((count, 2))
            places += self._dirt.normal(0.0, _GATHERS_A, (count, 2))
            self.deposit_xy = np.concatenate([self.deposit_xy, places])

    def _place_defects(self, rng: np.random.Generator) -> None:
        """Place the defects in the field of view, 5 Å apart and 4 Å from the border."""
        o = self.options
        half = o.field_of_view_A / 2 - 4.0
        away = np.abs(self.sites_xy - o.sheet_A / 2).max(axis=1)
        free = rng.permutation(np.nonzero(away < half)[0])
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
        area_A2 = 2.0 * np.pi * model.variance_bonds2 * self._bond_A**2
        rate = self._beam.electrons_per_s * o.hop_cross_section_A2 / 3.0 / area_A2
        return replace(model, rate_per_s=float(rate), current_pA=o.current_pA)

    def _partners(self, site: int) -> NDArray[np.int64]:
        """Neighbouring sites whose atom can change places with the impurity atom."""
        near = self._tree.query_ball_point(self.sites_xy[site], 1.25 * self._bond_A)
        return np.array(
            [
                i
                for i in near
                if i != site and self.occupied[i] and self.species[i] != self._impurity
            ],
            dtype=np.int64,
        )

    def _rates(self, places: FloatArray, site: int, partners: NDArray[np.int64]) -> FloatArray:
        """Rates of exchange (place, partner), 1/s."""
        here = self.sites_xy
        return self.hop_model.rates_per_s(
            places, here[site], here[partners], self.options.current_pA
        )

    def next_in_scan(
        self, request: ScanRequest, start: int, drift_xy: FloatArray
    ) -> tuple[int, int, int] | None:
        """Draw the first hop at or after a pixel: (pixel after it, site, partner)."""
        size = request.calibration.pixel_size_A
        seconds = request.dose_per_A2 * size**2 / self._beam.electrons_per_s
        corner = request.to_specimen(np.zeros(2)) - drift_xy
        first: tuple[int, int, int] | None = None
        for site in np.flatnonzero(self.species == self._impurity).tolist():
            partners = self._partners(site)
            middle = (self.sites_xy[site] - corner) / size
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

    def knocked_out(
        self, request: ScanRequest, drift_xy: FloatArray
    ) -> list[tuple[int, int, Loss]]:
        """Draw what a scan knocks out: (pixel at which the beam is there, site, how), in order."""
        size, out = request.calibration.pixel_size_A, []
        corner = request.to_specimen(np.zeros(2)) - drift_xy
        place = np.round((self.sites_xy - corner) / size).astype(int)
        inside = np.all((place >= 0) & (place < request.pixels), axis=1) & self.occupied
        for loss in self._losses:
            sites = np.flatnonzero(inside & (self.species == loss.species))
            chance = -np.expm1(-request.dose_per_A2 * loss.cross_section_A2)
            for site in sites[self._knocks.random(len(sites)) < chance].tolist():
                col, row = place[site].tolist()
                out.append((row * request.pixels + col, site, loss))
        return sorted(out, key=lambda event: event[0])

    def knock_parked(self, place: FloatArray, electrons: float, time_s: float) -> None:
        """Knock atoms out under a parked beam in a time slice."""
        for loss in self._losses:
            near = self._tree.query_ball_point(place, _REACH_A)
            sites = [i for i in near if self.occupied[i] and self.species[i] == loss.species]
            away2 = np.sum((self.sites_xy[sites] - place) ** 2, axis=1)
            density = np.exp(-0.5 * away2 / _PROBE_A**2) / (2 * np.pi * _PROBE_A**2)
            chance = -np.expm1(-electrons * density * loss.cross_section_A2)
            for i in np.flatnonzero(self._knocks.random(len(sites)) < chance):
                self.lose(sites[i], loss, time_s)

    def lose(self, site: int, loss: Loss, time_s: float) -> bool:
        """Take an atom out; False where the column is another by now."""
        if not self.occupied[site] or self.species[site] != loss.species:
            return False
        if loss.after is None:
            self.occupied[site] = False
        else:
            self.species[site] = loss.after
        self.lost.append(Lost(time_s, site))
        return True

    def next_parked(
        self, place: FloatArray, longest_s: float
    ) -> tuple[float, tuple[int, int] | None]:
        """Draw the time to the next hop under a parked beam, and the sites that it exchanges."""
        best: tuple[float, tuple[int, int] | None] = (longest_s, None)
        for site in np.flatnonzero(self.species == self._impurity).tolist():
            partners = self._partners(site)
            away = np.linalg.norm(self.sites_xy[site] - place)
            if not len(partners) or away > _REACH_A:
                continue
            rates = self._rates(place, site, partners)
            seconds = float(self._events.exponential() / max(rates.sum(), 1e-300))
            if seconds < best[0]:
                other = int(self._events.choice(partners, p=rates / rates.sum()))
                best = seconds, (int(site), other)
        return best

    def exchange(self, site: int, other: int, time_s: float) -> None:
        """Let an impurity atom and its neighbour change places."""
        self.species[other], self.species[site] = self.species[site], self.species[other]
        self.hops.append(Hop(time_s, site, other))
