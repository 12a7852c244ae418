"""Rate of jumps between lattice sites from positions in frames, by a hidden Markov model.

Between two frames a defect may jump any number of times, so counting the steps that are seen gives
too low a rate. The hidden state is the site. Jumps are a Poisson process, and each leads to one of
the z nearest sites of the same kind. The chance to go from site to site in time t is then the
matrix exponential of the generator, summed over the number of jumps (uniformisation: Jensen, Skand.
Aktuarietidskr. 36, 87 (1953))::

    P(i to j) = sum over n of Poisson(n; rate t) * (share of walks of n jumps from i that end in j)

The likelihood of a rate is that of all positions, by the forward algorithm (Rabiner, Proc. IEEE 77,
257 (1989)), and its posterior is summed up on a grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from scipy.special import gammaln, xlogy

from adatom.core import Lattice, Material
from adatom.core.arrays import FloatArray, IntArray

# Rates on the grid, jumps a frame: a thousandth of the rarest that a movie shows, and beyond the
# highest at which frames still tell anything.
_RATES = np.geomspace(1e-4, 20.0, 160)
_PRIOR = 0.5  # exponent of Jeffreys' prior of a Poisson rate: rate**-0.5
_LONGEST = 8  # frames; over a longer gap nothing is concluded
_REACH = 20  # cells: walks that leave this neighbourhood of their start are not followed
_NEAREST = 1.15  # sites up to this many times the distance of the nearest are its neighbours
_LEAST_SIGMA_A = 0.2  # Å: a defect lies beside its site by relaxation
_NEAR_A = 1.5  # Å: a defect is on a site no farther away


@dataclass(frozen=True, slots=True, eq=False)
class SitePath:
    """A defect on lattice sites: what the positions in its frames allow.

    Parameters
    ----------
    frames
        Numbers of the frames, shape (frame,), ascending.
    sites
        Possible sites in each of them, shape (site, 3), as `Lattice.nearest_site` numbers them.
    weights
        Likelihood of the position from each site, shape (site,).
    """

    frames: IntArray
    sites: tuple[IntArray, ...]
    weights: tuple[FloatArray, ...]

    @property
    def likeliest(self) -> IntArray:
        """Site that is nearest in each frame, shape (frame, 3)."""
        pairs = zip(self.sites, self.weights, strict=True)
        return np.array([sites[np.argmax(w)] for sites, w in pairs], dtype=np.int64).reshape(-1, 3)


@dataclass(frozen=True, slots=True, eq=False)
class RatePosterior:
    """What positions say of a rate, jumps a frame.

    Parameters
    ----------
    rate
        The grid, shape (rate,).
    log_likelihood
        Shape (rate,).
    """

    rate: FloatArray
    log_likelihood: FloatArray

    @property
    def probability(self) -> FloatArray:
        """Posterior on the grid with Jeffreys' prior, shape (rate,), sum 1."""
        # On a grid of even ratios, a step of the rate is proportional to the rate.
        log = self.log_likelihood + _PRIOR * np.log(self.rate)
        p = np.exp(log - log.max())
        out: FloatArray = p / p.sum()
        return out

    def quantile(self, *shares: float) -> tuple[float, ...]:
        """Rates below which the true one lies with these probabilities, jumps a frame.

        Examples
        --------
        >>> none = RatePosterior(_RATES, -10.0 * _RATES)  # no jump in ten frames
        >>> round(none.quantile(0.95)[0], 2)
        0.2
        """
        cumulative = np.cumsum(self.probability)
        middle = cumulative - self.probability / 2.0
        log = np.interp(shares, middle, np.log(self.rate))
        return tuple(float(r) for r in np.exp(log))


def site_path(
    lattice: Lattice, frames: IntArray, xy: FloatArray, sigma_A: FloatArray, species: str
) -> SitePath:
    """Find the sites on which a defect may have been.

    Parameters
    ----------
    lattice
        Lattice of the frame to which the drift refers.
    frames
        Frames in which the defect was seen, shape (frame,), ascending.
    xy
        Its positions without the drift, shape (frame, 2), Å.
    sigma_A
        Their standard deviation per axis, shape (frame,), Å.
    species
        Element or column of the sites on which it may be.
    """
    flat = lattice.undistort(xy)
    same = np.array([s == species for s in lattice.material.site_species])
    index, _ = lattice.nearest_site(flat)
    around = np.array([(i, j, b) for i in (-1, 0, 1) for j in (-1, 0, 1) for b in range(len(same))])
    around = around[same[around[:, 2]]]
    sites, weights = [], []
    for here, at, sigma in zip(index, flat, np.maximum(sigma_A, _LEAST_SIGMA_A), strict=True):
        near = np.column_stack([here[:2] + around[:, :2], around[:, 2]])
        squared = ((lattice.site_xy(near) - at) ** 2).sum(axis=1)
        near, squared = near[squared <= _NEAR_A**2], squared[squared <= _NEAR_A**2]
        sites.append(near)
        weights.append(np.exp(-squared / (2.0 * sigma**2)))
    on = [k for k, w in enumerate(weights) if w.size and w.max() > 0.0]
    return SitePath(frames[on], tuple(sites[k] for k in on), tuple(weights[k] for k in on))


def jump_rate(material: Material, species: str, paths: Iterable[SitePath]) -> RatePosterior:
    """Posterior of the rate of jumps that defects of one kind have in common.

    Parameters
    ----------
    material
        The crystal.
    species
        Element or column of the sites.
    paths
        Paths of the defects.

    Examples
    --------
    A defect that changes its site in one of twenty steps:

    >>> from adatom.core import GRAPHENE
    >>> sites = [np.array([[0, 0, int(f >= 10)]]) for f in range(21)]
    >>> path = SitePath(np.arange(21), tuple(sites), (np.ones(1),) * 21)
    >>> low, high = jump_rate(GRAPHENE, "C", [path]).quantile(0.05, 0.95)
    >>> low < 1 / 20 < high
    True
    """
    walks = walks_on(material, species)
    log = np.zeros(len(_RATES))
    for path in paths:
        log += walks.log_likelihood(path)
    return RatePosterior(_RATES, log)


class Walks:
    """Walks on the sites of one species of a crystal.

    Parameters
    ----------
    material
        The crystal.
    species
        Element or column of the sites.
    """

    def __init__(self, material: Material, species: str) -> None:
        self._basis = [b for b, s in enumerate(material.site_species) if s == species]
        self.steps = [_neighbours(material, b, self._basis) for b in self._basis]
        self._place = {b: k for k, b in enumerate(self._basis)}
        self._kernel = cache(self._kernel_of)
        squared = [(v**2).sum(axis=1) for v in self.jump_vectors(material)]
        self.jump_length_A2 = float(np.mean(np.concatenate(squared)))

    def jump_vectors(self, material: Material) -> list[FloatArray]:
        """Vectors of the jumps from each site of the basis, shape (neighbour, 2), Å."""
        where, cell = np.asarray(material.basis), material.cell()
        return [
            (steps[:, :2] + where[steps[:, 2]] - where[b]) @ cell
            for b, steps in zip(self._basis, self.steps, strict=True)
        ]

    def log_likelihood(self, path: SitePath) -> FloatArray:
        """Log-likelihood of every rate of the grid, shape (rate,)."""
        out = np.zeros(len(_RATES))
        alpha: FloatArray | None = None
        for k in range(1, len(path.frames)):
            gap = int(path.frames[k] - path.frames[k - 1])
            if gap > _LONGEST:
                alpha = None
                continue
            if alpha is None:
                start = path.weights[k - 1]
                alpha = np.tile(start / start.sum(), (len(_RATES), 1))
            step = self._between(path.sites[k - 1], path.sites[k], gap)
            alpha = np.einsum("gi,gij->gj", alpha, step) * path.weights[k]
            total = np.maximum(alpha.sum(axis=1), 1e-300)
            out += np.log(total)
            alpha = alpha / total[:, None]
        return out

    def _between(self, old: IntArray, new: IntArray, gap: int) -> FloatArray:
        """Chance to go from site to site, shape (rate, old, new)."""
        out = np.zeros((len(_RATES), len(old), len(new)))
        for i, site in enumerate(old):
            kernel = self._kernel(self._place[int(site[2])], gap)
            cell = new[:, :2] - site[:2] + _REACH
            inside = ((cell >= 0) & (cell <= 2 * _REACH)).all(axis=1)
            basis = [self._place[int(b)] for b in new[inside, 2]]
            out[:, i, inside] = kernel[:, cell[inside, 0], cell[inside, 1], basis]
        return out

    def _kernel_of(self, start: int, gap: int) -> FloatArray:
        """Chance to be at each site around the start, shape (rate, cell, cell, basis)."""
        mean = _RATES * gap
        most = int(mean[-1] + 6.0 * np.sqrt(mean[-1]) + 6.0)
        size = 2 * _REACH + 1
        walk = np.zeros((size, size, len(self._basis)))
        walk[_REACH, _REACH, start] = 1.0
        walks = [walk.ravel()]
        for _ in range(most):
            walk = self._jumped(walk)
            walks.append(walk.ravel())
        number, expected = np.arange(most + 1), mean[:, None]
        poisson = np.exp(xlogy(number, expected) - expected - gammaln(number + 1))
        chance = poisson @ np.array(walks)
        out: FloatArray = chance.reshape(len(_RATES), *walk.shape)
        return out

    def _jumped(self, walk: FloatArray) -> FloatArray:
        out = np.zeros_like(walk)
        for b, steps in enumerate(self.steps):
            for i, j, other in steps:
                moved = np.roll(walk[:, :, b], (int(i), int(j)), axis=(0, 1))
                out[:, :, self._place[int(other)]] += moved / len(steps)
        return out


@lru_cache(maxsize=8)
def walks_on(material: Material, species: str) -> Walks:
    """Walks on the sites of one species of a crystal; chances are kept for later calls."""
    return Walks(material, species)


def _neighbours(material: Material, site: int, among: Sequence[int]) -> IntArray:
    """Steps from a site of the basis to the nearest ones, shape (neighbour, 3): cells and basis."""
    steps = np.array(
        [(i, j, b) for i in (-2, -1, 0, 1, 2) for j in (-2, -1, 0, 1, 2) for b in among]
    )
    where = np.asarray(material.basis)
    far = np.hypot(*((steps[:, :2] + where[steps[:, 2]] - where[site]) @ material.cell()).T)
    least = far[far > 1e-6].min()
    out: IntArray = steps[(far > 1e-6) & (far <= _NEAREST * least)].astype(np.int64)
    return out
