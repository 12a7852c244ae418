"""Identify the element of columns from all columns of the same sublattice.

Along a zone axis, two columns may differ by ten per cent in brightness, less than the noise of one
column. All columns that are connected by lattice vectors form a sublattice and hold the same
element, so their log-likelihoods can be averaged. Different sublattices hold different site
species.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import uniform_filter
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from adatom.core import Material
from adatom.core.arrays import FloatArray, IntArray

_STRAIN = 0.12  # largest relative change of the length of a lattice vector
_TOLERANCE = 0.3  # largest distance of a column from the end of a lattice vector, bond lengths
_STRICT = 0.2  # the same after the local distortion is known, bond lengths
# Half widths of neighbourhoods, in square cells of one lattice constant:
_REACH = 4  # columns whose log-likelihoods are averaged
_NEAR = 2  # must contain all sublattices
_LOCAL = 3  # the distortion of the scan is constant there
_FEWEST = 8  # least number of columns of a sublattice in a neighbourhood
_DIRECTIONS = 720  # bins of the histogram of directions: half a degree
_GRAINS = 4  # most grains that are searched for in a frame
_MOST_SUBLATTICES = 24  # largest sublattices that are kept, over all grains: bounds memory
_LEAST_P = 1e-4  # probabilities below this count as this: no column has a veto
_MOST_SITES = 4  # most sites of a cell: 4! = 24 assignments of species are compared


def has_distinct_sublattices(material: Material) -> bool:
    """Whether the columns of a material can be identified by their sublattices.

    This needs sites of at least two species, at most four sites per cell (all assignments of
    species are compared), and no polytypes: a change of the stacking changes the species of a
    sublattice.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> has_distinct_sublattices(GRAPHENE)  # both sublattices hold carbon
    False
    """
    sites = material.site_species
    several = len(set(sites)) > 1 and len(sites) <= _MOST_SITES
    return several and material.has_lattice and not material.polytypes


def sublattice_log_likelihood(xy: FloatArray, p: FloatArray, material: Material) -> FloatArray:
    """Log-likelihood of each host species for each column, from the columns around it.

    Parameters
    ----------
    xy
        Positions of the columns, shape (atom, 2), Å.
    p
        Probability of each class, shape (atom, class); the classes are `material.species`.
    material
        A crystal with `has_distinct_sublattices`.

    Returns
    -------
    Shape (atom, class): the largest mean log-likelihood over all assignments of species to
    sublattices that put this class on the sublattice of the column. It is zero for classes that are
    not hosts, and for columns without a clear lattice.
    """
    out = np.zeros(p.shape)
    n, sites = len(xy), len(material.site_species)
    kind, grain = sublattices(xy, material)
    kinds = int(kind.max(initial=-1)) + 1
    if n < _FEWEST * sites or kinds < sites:
        return out
    member = (kind[:, None] == np.arange(kinds)).astype(np.float64)
    of_grain = grain[member.argmax(axis=0)]
    step = material.lattice_constant_A
    count, near = (
        _neighbourhood_sums(xy, member, step, _REACH),
        _neighbourhood_sums(xy, member, step, _NEAR),
    )
    near[grain[:, None] != of_grain[None, :]] = 0.0
    log_likelihood = np.log(np.maximum(p, _LEAST_P))
    means = np.stack(
        [
            _neighbourhood_sums(xy, member * log_likelihood[:, k : k + 1], step, _REACH)
            for k in range(p.shape[1])
        ],
        axis=-1,
    )
    means /= np.maximum(count, 1.0)[..., None]  # (atom, kind, class)
    number = {label: k for k, label in enumerate(material.species)}
    hosts = [number[s] for s in material.site_species]
    orders = np.array(sorted(set(permutations(hosts))))
    there = np.argsort(-near, axis=1)[:, :sites]  # the sublattices of the same cell
    enough = (np.take_along_axis(near, there, axis=1) > 0.5).all(axis=1)
    enough &= (np.take_along_axis(count, there, axis=1) > _FEWEST - 0.5).all(axis=1)
    own = there == kind[:, None]
    clear = np.flatnonzero(enough & own.any(axis=1))
    mean = np.take_along_axis(means[clear], there[clear][:, :, None], axis=1)
    score = np.stack([mean[:, np.arange(sites), order].sum(axis=1) for order in orders], axis=1)
    at = own[clear].argmax(axis=1)
    for host in set(hosts):
        fits = np.equal(orders[:, at].T, host)  # (atom, order)
        out[clear, host] = np.where(fits, score, -np.inf).max(axis=1)
    return out


def _neighbourhood_sums(xy: FloatArray, values: FloatArray, step: float, reach: int) -> FloatArray:
    """Sum values over the square cells around each position, without its own value.

    Parameters
    ----------
    xy
        Shape (atom, 2), Å.
    values
        Shape (atom, value).
    step
        Edge of a cell, Å.
    reach
        Number of cells to either side.

    Returns
    -------
    Shape (atom, value). Time and memory grow with the area, and do not depend on the reach.
    """
    cell = np.floor((xy - xy.min(axis=0)) / step).astype(np.int64)
    rows, cols = (int(n) for n in cell.max(axis=0) + 1)
    flat = cell[:, 0] * cols + cell[:, 1]
    size = 2 * reach + 1
    out = np.empty_like(values)
    for k in range(values.shape[1]):
        grid = np.bincount(flat, values[:, k], rows * cols).reshape(rows, cols)
        out[:, k] = (uniform_filter(grid, size, mode="constant") * size**2).ravel()[flat]
    out -= values
    return out


def with_sublattice_evidence(
    xy: FloatArray, p: FloatArray, material: Material, weights: tuple[float, float]
) -> FloatArray:
    """Combine the probabilities of each column with those of its sublattice.

    Parameters
    ----------
    xy, p, material
        See `sublattice_log_likelihood`.
    weights
        Weights of the log-likelihoods of the column and of its sublattice, from
        `fit_sublattice_weights`.

    Returns
    -------
    Probability of each class, shape (atom, class). Classes that are not hosts keep theirs.
    """
    if not has_distinct_sublattices(material) or weights == (1.0, 0.0):
        return p
    return _combined(p, sublattice_log_likelihood(xy, p, material), _hosts(material), weights)


def fit_sublattice_weights(
    parts: list[tuple[FloatArray, FloatArray, IntArray]], material: Material
) -> tuple[float, float]:
    """Fit the weights of a column and of its sublattice by maximum likelihood.

    Parameters
    ----------
    parts
        Positions, probabilities and true classes of the columns of each frame.
    material
        Material of the frames.

    Returns
    -------
    The two weights; 1 and 0, which change nothing, if there are too few columns.
    """
    hosts = _hosts(material)
    if not has_distinct_sublattices(material):
        return 1.0, 0.0
    kept = [
        (p, sublattice_log_likelihood(xy, p, material), true) for xy, p, true in parts if len(xy)
    ]
    if not kept:
        return 1.0, 0.0
    p, log_likelihood, true = (np.concatenate(part) for part in zip(*kept, strict=True))
    clear = log_likelihood.any(axis=1) & np.isin(true, np.flatnonzero(hosts))
    if clear.sum() < _FEWEST:
        return 1.0, 0.0
    p, log_likelihood, true = p[clear], log_likelihood[clear], true[clear]

    def loss(w: FloatArray) -> float:
        joined = _combined(p, log_likelihood, hosts, (float(w[0]), float(w[1])))
        return float(-np.log(np.maximum(joined[np.arange(len(true)), true], 1e-9)).mean())

    bounds = [(0.0, 2.0), (0.0, 60.0)]
    best = minimize(loss, np.array([0.8, 4.0]), bounds=bounds, method="Nelder-Mead")
    own, others = (float(v) for v in best.x)
    return own, others


def sublattices(xy: FloatArray, material: Material) -> tuple[IntArray, IntArray]:
    """Assign columns to grains and sublattices.

    Grains are found one after the other. The orientation of a grain is the direction with the most
    pairs of columns that are one lattice vector apart. Columns are joined if four of them form a
    parallelogram of lattice vectors.

    Parameters
    ----------
    xy
        Shape (atom, 2), Å.
    material
        Gives the lattice vectors.

    Returns
    -------
    Number of the sublattice and of the grain of each column, both (atom,); -1 without a grain.
    """
    kind, grain = np.full((2, len(xy)), -1, dtype=np.int64)
    tree = cKDTree(xy)
    left = np.ones(len(xy), dtype=bool)
    first = 0
    for number in range(_GRAINS):
        if left.sum() < _FEWEST * len(material.basis):
            break
        vectors = _lattice_vectors_in_frame(xy[left], material)
        if vectors is None:
            break
        joined = _parallelogram_edges(xy, tree, vectors, material.bond_length_A)
        _, label = connected_components(joined, directed=False)
        mine = left & (np.bincount(label)[label] >= _FEWEST)
        if not mine.any():
            break
        kind[mine] = first + np.unique(label[mine], return_inverse=True)[1]
        grain[mine] = number
        first = int(kind.max()) + 1
        left &= ~mine
    names, count = np.unique(kind[kind >= 0], return_counts=True)
    large = np.sort(names[np.argsort(-count, kind="stable")[:_MOST_SUBLATTICES]])
    kept = np.isin(kind, large)
    kind[kept] = np.searchsorted(large, kind[kept])
    kind[~kept] = grain[~kept] = -1
    return kind, grain


def _hosts(material: Material) -> NDArray[np.bool_]:
    return np.array([s in material.site_species for s in material.species])


def _combined(
    p: FloatArray,
    log_likelihood: FloatArray,
    hosts: NDArray[np.bool_],
    weights: tuple[float, float],
) -> FloatArray:
    """Combine both log-likelihoods; the sum of the probabilities of the hosts is kept."""
    out = p.copy()
    clear = log_likelihood.any(axis=1)
    own = weights[0] * np.log(np.maximum(p[np.ix_(clear, hosts)], _LEAST_P))
    logit = own + weights[1] * log_likelihood[np.ix_(clear, hosts)]
    odds = np.exp(logit - logit.max(axis=1, keepdims=True))
    total = p[np.ix_(clear, hosts)].sum(axis=1, keepdims=True)
    out[np.ix_(clear, hosts)] = total * odds / odds.sum(axis=1, keepdims=True)
    return out


def _lattice_vectors_in_frame(xy: FloatArray, material: Material) -> FloatArray | None:
    """The two lattice vectors in the frame, rows of (2, 2), Å; None if they are not found."""
    cell = material.cell()
    longest = (1 + _STRAIN) * float(np.linalg.norm(cell, axis=1).max())
    pairs = cKDTree(xy).query_pairs(longest, output_type="ndarray")
    if not len(pairs):
        return None
    d = xy[pairs[:, 1]] - xy[pairs[:, 0]]
    d = np.concatenate([d, -d])
    length, angle = np.linalg.norm(d, axis=1), np.arctan2(d[:, 1], d[:, 0])
    best: tuple[float, FloatArray] | None = None
    for flipped in (False, True):
        own = cell * (1.0, -1.0) if flipped else cell
        seen = np.zeros(_DIRECTIONS)
        for vector in own:
            size = float(np.linalg.norm(vector))
            close = np.abs(length / size - 1.0) < _STRAIN
            turn = (angle[close] - np.arctan2(vector[1], vector[0])) % (2 * np.pi)
            bins = np.floor(turn / (2 * np.pi) * _DIRECTIONS).astype(int) % _DIRECTIONS
            seen += np.bincount(bins, minlength=_DIRECTIONS)
        wide = int(np.degrees(_TOLERANCE * material.bond_length_A / longest) / 360 * _DIRECTIONS)
        kernel = np.ones(2 * max(wide, 1) + 1)
        smooth = np.real(np.fft.ifft(np.fft.fft(seen) * np.fft.fft(kernel, _DIRECTIONS)))
        top = int(smooth.argmax())
        if best is None or smooth[top] > 1.02 * best[0]:
            rotation = (top - max(wide, 1) + 0.5) / _DIRECTIONS * 2 * np.pi
            c, s = np.cos(rotation), np.sin(rotation)
            best = float(smooth[top]), own @ np.array([[c, s], [-s, c]])
    assert best is not None  # two tries were made  # noqa: S101
    tree = cKDTree(d)
    vectors = best[1]
    for part in (0.5, 0.25):  # search radius, bond lengths: refine the vectors by medians
        near = tree.query_ball_point(vectors, part * material.bond_length_A)
        if min(len(k) for k in near) < _FEWEST:
            return None
        vectors = np.stack([np.median(d[k], axis=0) for k in near])
    return vectors


def _parallelogram_edges(
    xy: FloatArray, tree: cKDTree, vectors: FloatArray, bond: float
) -> sparse.csr_array:
    """Pairs of columns that are edges of a parallelogram of lattice vectors, (atom, atom).

    Scans are distorted, so the local lattice vectors are measured from the columns around.
    """
    n = len(xy)
    step = float(np.linalg.norm(vectors, axis=1).max())
    ahead = []
    for vector in vectors:
        distance, index = tree.query(xy + vector, distance_upper_bound=_TOLERANCE * bond)
        seen = np.isfinite(distance)
        led = np.zeros((n, 3))
        led[seen, 0] = 1.0
        led[seen, 1:] = xy[index[seen]] - xy[seen]
        total = _neighbourhood_sums(xy, led, step, _LOCAL) + led
        local = total[:, 1:] / np.maximum(total[:, :1], 0.5)
        distance, index = tree.query(xy + local, distance_upper_bound=_STRICT * bond)
        ahead.append(np.where(np.isfinite(distance) & (total[:, 0] > 0.5), index, -1))
    a, b = ahead
    first = np.flatnonzero((a >= 0) & (b >= 0))
    over = np.where(a[b[first]] >= 0, a[b[first]], -2)
    whole = over == np.where(b[a[first]] >= 0, b[a[first]], -3)
    first, over = first[whole], over[whole]
    right, down = a[first], b[first]
    rows = np.concatenate([first, first, right, down])
    cols = np.concatenate([right, down, over, over])
    return sparse.csr_array((np.ones(len(rows)), (rows, cols)), shape=(n, n))
