"""Movies of a sheet whose atoms are known in every frame: drift, hops, vacancies, lost frames.

The truth serves tests and benchmarks of tracking: every atom has a number that it keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial import cKDTree

from adatom.core import AtomTable, Material
from adatom.core.arrays import FloatArray, IntArray
from adatom.frames.simulate.specimen import MARGIN_A, Specimen, lattice_points

_APART_A = 6.0  # Å: smallest distance of two impurity atoms at the start


class MotionOptions(BaseModel):
    """What happens in a simulated movie. Rates are per frame."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: int = Field(24, ge=1, description="frames, lost ones included")
    extent_A: float = Field(20.0, gt=8, description="edge of the field of view, Å")
    foreign: int = Field(1, ge=0, description="impurity atoms in the field at the start")
    vacancies: int = Field(0, ge=0, description="vacancies in the field at the start")
    hops: float = Field(0.0, ge=0, description="jumps of each impurity atom to a neighbour")
    knocked_out: float = Field(0.0, ge=0, description="vacancies that the beam makes in the field")
    evaporated: float = Field(0.0, ge=0, description="vacancies that heat makes in the field")
    drift_A: float = Field(0.0, ge=0, description="longest random drift, Å; even over a disc")
    velocity_xy_A: tuple[float, float] = Field((0.0, 0.0), description="steady drift, Å")
    lost: float = Field(0.0, ge=0, lt=1, description="share of lost frames; never the first")
    disorder_A: float = Field(0.02, ge=0, description="lasting displacements, Å per axis (1 sigma)")


@dataclass(frozen=True, slots=True, eq=False)
class SheetFrame:
    """The sheet while one frame is taken.

    Parameters
    ----------
    number
        Number of the frame.
    xy
        Positions of atoms in the image and a little beyond, shape (atom, 2), Å.
    species
        Index into the material's species, shape (atom,).
    identity
        Number of each atom, the same in all frames, shape (atom,).
    drift_xy_A
        Shift of the specimen since frame 0, shape (2,), Å.
    vacancies_xy
        Positions of the vacant sites, shape (vacancy, 2), Å.
    vacancies
        Numbers of these vacancies, the same in all frames, shape (vacancy,).
    """

    number: int
    xy: FloatArray
    species: IntArray
    identity: IntArray
    drift_xy_A: FloatArray
    vacancies_xy: FloatArray
    vacancies: IntArray

    @property
    def specimen(self) -> Specimen:
        """The atoms, to be imaged."""
        return Specimen(self.xy, self.species, self.vacancies_xy)


@dataclass(frozen=True, slots=True, eq=False)
class MovingSheet:
    """The truth of a simulated movie.

    Parameters
    ----------
    frames
        The frames that were not lost, in order.
    jumps
        Jumps of each impurity atom before each frame of the movie (lost ones too), shape
        (frame, impurity).
    causes
        What made each vacancy: ``before``, ``beam`` or ``heat``, by its number.
    """

    frames: tuple[SheetFrame, ...]
    jumps: IntArray
    causes: tuple[str, ...]


def moving_sheet(
    material: Material, options: MotionOptions, rng: np.random.Generator
) -> MovingSheet:
    """Simulate a sheet that drifts while its impurity atoms jump and atoms are lost.

    A jump exchanges an impurity atom with a neighbour of the host, as Si in graphene does (Susi et
    al., Phys. Rev. Lett. 113, 115501 (2014)); their number in a frame is drawn from a Poisson
    distribution. A jump to a vacant site or to another impurity does not happen.

    Parameters
    ----------
    material
        A sheet whose second species is the impurity.
    options
        See `MotionOptions`.
    rng
        Source of randomness.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> movie = moving_sheet(GRAPHENE, MotionOptions(frames=3), np.random.default_rng(0))
    >>> [frame.number for frame in movie.frames], movie.jumps.shape
    ([0, 1, 2], (3, 1))
    """
    o, steps = options, np.zeros((options.frames, 2))
    length = o.drift_A * np.sqrt(rng.random(o.frames - 1))
    turn = rng.uniform(0.0, 2.0 * np.pi, o.frames - 1)
    steps[1:] = length[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    steps[1:] += np.asarray(o.velocity_xy_A)
    drift = np.cumsum(steps, axis=0)
    sheet = _Sheet(material, o, float(np.abs(drift).max()), rng)
    jumps = np.zeros((o.frames, o.foreign), dtype=np.int64)
    kept = []
    for number in range(o.frames):
        if number:
            jumps[number] = sheet.jump(rng.poisson(o.hops, o.foreign))
            sheet.lose(rng.poisson(o.knocked_out), "beam", drift[number])
            sheet.lose(rng.poisson(o.evaporated), "heat", drift[number])
            if rng.random() < o.lost:
                continue
        kept.append(sheet.frame(number, drift[number]))
    return MovingSheet(tuple(kept), jumps, tuple(sheet.causes))


def atom_table(
    movie: MovingSheet,
    material: Material,
    extent_A: float,
    rng: np.random.Generator,
    *,
    sigma_A: float = 0.05,
    missed: float = 0.0,
    mistaken: float = 0.0,
) -> tuple[AtomTable, IntArray]:
    """Make the atom table that a finder with known errors would give.

    Parameters
    ----------
    movie
        The truth.
    material
        Its material.
    extent_A
        Edge of the field of view, Å.
    rng
        Source of the errors.
    sigma_A
        Standard deviation of the positions, Å per axis.
    missed
        Share of the atoms that are not found.
    mistaken
        Share of the host atoms that are called impurities, with ``p_element`` of 0.6.

    Returns
    -------
    The table, and the true number of every atom in it, shape (atom,).
    """
    tables, identity = [], []
    for frame in movie.frames:
        xy = frame.xy + rng.normal(0.0, sigma_A, frame.xy.shape)
        inside = ((xy >= 0.0) & (xy <= extent_A)).all(axis=1) & (rng.random(len(xy)) >= missed)
        wrong = (rng.random(len(xy)) < mistaken) & (frame.species == 0)
        label = np.where(wrong, 1, frame.species)[inside]
        n, one = int(inside.sum()), np.ones(int(inside.sum()))
        tables.append(
            AtomTable.build(
                frame=frame.number,
                xy=xy[inside],
                covariance=np.tile(np.eye(2) * sigma_A**2, (n, 1, 1)),
                p_exists=0.999 * one,
                element=[material.species[k] for k in label],
                p_element=np.where(wrong[inside], 0.6, 0.999),
                votes=one,
                amplitude=material.brightness()[frame.species[inside]],
            )
        )
        identity.append(frame.identity[inside])
    return AtomTable.concat(tables), np.concatenate(identity)


class _Sheet:
    """Occupation of the sites, which changes from frame to frame."""

    def __init__(
        self, material: Material, o: MotionOptions, drift_A: float, rng: np.random.Generator
    ) -> None:
        self._extent, self._rng = o.extent_A, rng
        extent, margin = (o.extent_A, o.extent_A), MARGIN_A + 3.0 + drift_A
        sites = lattice_points(material, extent, margin, rng.uniform(0, 2 * np.pi))
        self._tree = cKDTree(sites)
        self._bond = 1.25 * material.bond_length_A
        self._sites = sites + rng.normal(0.0, o.disorder_A, sites.shape)
        self._atom = np.arange(len(sites))  # atom on every site, -1 for none
        self._vacancy = np.full(len(sites), -1)  # number of the vacancy on every site
        self._at = self._choose(o.foreign, 4.0)  # site of each impurity atom
        self.causes: list[str] = []
        for site in self._choose(o.foreign + o.vacancies, 4.0, taken=self._at)[: o.vacancies]:
            self._empty(int(site), "before")
        outside = np.flatnonzero(~self._inside(np.zeros(2), 0.0))
        beyond = rng.poisson(o.vacancies * len(outside) / max(len(sites) - len(outside), 1))
        for site in rng.permutation(outside)[:beyond]:  # as many on the same area, for the drift
            self._empty(int(site), "before")

    def _choose(self, count: int, border_A: float, taken: IntArray | None = None) -> IntArray:
        """Sites in the field, away from its border, from each other and from those taken."""
        chosen: list[int] = []
        others = [] if taken is None else list(self._sites[taken])
        for site in self._rng.permutation(np.flatnonzero(self._inside(np.zeros(2), border_A))):
            near = [p for p in others if np.hypot(*(p - self._sites[site])) < _APART_A]
            if len(chosen) < count and not near:
                chosen.append(int(site))
                others.append(self._sites[site])
        return np.array(chosen[:count], dtype=np.int64)

    def _inside(self, drift: FloatArray, border_A: float) -> np.ndarray:
        xy = self._sites + drift
        return np.asarray(((xy > border_A) & (xy < self._extent - border_A)).all(axis=1))

    def _empty(self, site: int, cause: str) -> None:
        self._atom[site], self._vacancy[site] = -1, len(self.causes)
        self.causes.append(cause)

    def jump(self, counts: IntArray) -> IntArray:
        """Let each impurity atom jump so often; how often it did, shape (impurity,)."""
        done = np.zeros(len(self._at), dtype=np.int64)
        for k in self._rng.permutation(np.repeat(np.arange(len(counts)), counts)):
            here = int(self._at[k])
            near = [
                s for s in self._tree.query_ball_point(self._tree.data[here], self._bond)
                if s != here
            ]  # fmt: skip
            there = int(self._rng.choice(near))
            if self._atom[there] >= 0 and there not in self._at:
                self._atom[[here, there]] = self._atom[[there, here]]
                self._at[k] = there
                done[k] += 1
        return done

    def lose(self, count: int, cause: str, drift: FloatArray) -> None:
        """Lose host atoms of the field; what made the vacancy is remembered."""
        free = self._inside(drift, 0.0) & (self._atom >= 0)
        free[self._at] = False
        for site in self._rng.permutation(np.flatnonzero(free))[:count]:
            self._empty(int(site), cause)

    def frame(self, number: int, drift: FloatArray) -> SheetFrame:
        """The sheet in the field of view."""
        near, here = self._inside(drift, -MARGIN_A), self._atom >= 0
        species = np.zeros(len(self._sites), dtype=np.int64)
        species[self._at] = 1
        atoms, empty = near & here, near & ~here & (self._vacancy >= 0)
        return SheetFrame(
            number,
            self._sites[atoms] + drift,
            species[atoms],
            self._atom[atoms],
            drift,
            self._sites[empty] + drift,
            self._vacancy[empty],
        )
