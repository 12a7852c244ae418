"""Surroundings of each atom as a vector that rotations and reflections leave unchanged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from adatom.core import AtomTable
from adatom.core.arrays import BoolArray, FloatArray, IntArray
from adatom.errors import BadInput
from adatom.features.neighbours import border_distance

_REACH = 2.2  # cutoff in nearest-neighbour distances: the third shell of a honeycomb lies at 2.0
_CHUNK = 4096  # atoms whose pairs are in memory at a time


class EnvironmentOptions(BaseModel):
    """What a vector of an environment holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cutoff_A: float | None = Field(
        None, gt=0, description="atoms nearer than this count, Å; by default 2.2 nearest distances"
    )
    radial: int = Field(4, ge=1, le=12, description="radial functions")
    angular: int = Field(6, ge=0, le=12, description="largest order of rotation")
    seed: int = Field(0, ge=0, description="seed of the draw that measures the noise")


@dataclass(frozen=True, slots=True, eq=False)
class Environments:
    """Environments of atoms.

    Parameters
    ----------
    vectors
        One row an atom, shape (atom, feature). The elements of the atom
        itself, then the magnitudes for element, distance and order.
    noise
        Standard deviation of every feature by what is not known of the atoms, shape (feature,).
    whole
        Whether the environment lies within the field, shape (atom,): vectors of atoms nearer to
        its border than the cutoff lack neighbours.
    cutoff_A
        Distance up to which neighbours count, Å.
    elements
        Elements or columns that are told apart, in the order of the features.
    """

    vectors: FloatArray
    noise: FloatArray
    whole: BoolArray
    cutoff_A: float
    elements: tuple[str, ...]


def environments(
    atoms: AtomTable,
    options: EnvironmentOptions | None = None,
    *,
    extent_xy_A: tuple[float, float] | None = None,
) -> Environments:
    """Describe the surroundings of every atom by a vector.

    The neighbours within the cutoff are a density over distance and direction for each element.
    Each neighbour counts with its probability to exist, and for each element with the probability
    of it, so doubtful atoms change a vector little. The density is expanded in Gaussians of the
    distance and in ``exp(i m θ)``. The magnitudes of the coefficients are the vector: the
    bond-orientational order of Steinhardt, Nelson & Ronchetti, Phys. Rev. B 28, 784 (1983), in the
    plane of the image and resolved by distance. They are linear in the number of neighbours, so
    noise of positions moves them by amounts that are nearly normal; products of coefficients, as
    in a power spectrum, are skewed, and mixtures of Gaussians then find groups in noise alone.

    How much the features scatter by uncertainty alone is measured: positions and elements are drawn
    once from theirs, and described again. Differences count in units of that noise.

    Parameters
    ----------
    atoms
        Atoms of one or more frames; frames are described separately.
    options
        See `EnvironmentOptions`.
    extent_xy_A
        Width and height of the field, Å; by default those of the box around each frame's atoms.

    Returns
    -------
    One vector for each row of the table.

    Raises
    ------
    BadInput
        If there are fewer than two atoms in every frame, or the cutoff reaches no neighbour.

    Examples
    --------
    A square with a centre: its four corners have the same surroundings.

    >>> xy = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0], [1.0, 1.0]])
    >>> atoms = AtomTable.build(
    ...     frame=0, xy=xy, covariance=np.tile(0.01 * np.eye(2), (5, 1, 1)), p_exists=np.ones(5),
    ...     element=["C"] * 5, p_element=np.ones(5), votes=np.ones(5), amplitude=np.ones(5))
    >>> found = environments(atoms)
    >>> bool(np.allclose(found.vectors[0], found.vectors[3]))
    True
    >>> bool(np.allclose(found.vectors[0], found.vectors[4]))
    False
    """
    options = options or EnvironmentOptions()
    frame = atoms.data["frame"].to_numpy()
    rows = [np.flatnonzero(frame == f) for f in np.unique(frame)]
    xy = atoms.xy
    nearest = _nearest_distance(xy, rows)
    cutoff = options.cutoff_A or _REACH * nearest
    if cutoff < nearest:
        raise BadInput(
            f"cutoff {cutoff:g} Å",
            expected=f"at least the distance of neighbours, {nearest:.2f} Å",
            got=f"{cutoff:g} Å", todo="Widen it, or leave it out.",
        )  # fmt: skip
    elements = tuple(sorted(set(atoms.elements.tolist())))
    share, (drawn_xy, drawn_share) = _shares(atoms, elements), _drawn(atoms, elements, options.seed)
    vectors = np.zeros((len(xy), _size(len(elements), options)))
    squared = np.zeros(vectors.shape[1])
    whole = np.zeros(len(xy), dtype=np.bool_)
    for own in rows:
        vectors[own] = _magnitudes(xy[own], share[own], cutoff, options)
        again = _magnitudes(drawn_xy[own], drawn_share[own], cutoff, options)
        squared += ((again - vectors[own]) ** 2).sum(axis=0)
        low = np.zeros(2) if extent_xy_A else xy[own].min(axis=0)
        width, height = extent_xy_A or np.ptp(xy[own], axis=0)
        whole[own] = border_distance(xy[own] - low, (float(width), float(height))) >= cutoff
    noise = np.sqrt(squared / len(xy))
    return Environments(vectors, noise, whole, float(cutoff), elements)


def _nearest_distance(xy: FloatArray, rows: list[IntArray]) -> float:
    """Distance to the nearest atom, Å: the median over all atoms."""
    nearest = [cKDTree(xy[own]).query(xy[own], k=2)[0][:, 1] for own in rows if len(own) > 1]
    if not nearest:
        raise BadInput(
            "atoms",
            expected="at least two in a frame",
            got=f"{len(xy)} in {len(rows)} frames",
            todo="Take a frame with more atoms.",
        )
    return float(np.median(np.concatenate(nearest)))


def _shares(atoms: AtomTable, elements: tuple[str, ...]) -> FloatArray:
    """How much of each element stands at each atom, shape (atom, element).

    What is not the named element is one of the others, each alike.
    """
    named = atoms.elements[:, None] == np.array(elements)[None, :]
    p = atoms.column("p_element")[:, None]
    others = (1.0 - p) / max(len(elements) - 1, 1)
    share = np.where(named, p if len(elements) > 1 else 1.0, others)
    out: FloatArray = share * atoms.column("p_exists")[:, None]
    return out


def _drawn(atoms: AtomTable, elements: tuple[str, ...], seed: int) -> tuple[FloatArray, FloatArray]:
    """One draw of the positions (atom, 2), Å, and of the shares (atom, element)."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(atoms.covariance + 1e-12 * np.eye(2))
    xy = atoms.xy + np.einsum("aij,aj->ai", root, rng.standard_normal((len(atoms), 2)))
    p = _shares(atoms, elements)
    total = p.sum(axis=1, keepdims=True)
    steps = np.cumsum(p, axis=1) / np.maximum(total, 1e-12)
    chosen = np.minimum((rng.random((len(p), 1)) > steps).sum(axis=1), len(elements) - 1)
    return xy, np.eye(len(elements))[chosen] * total


def _size(elements: int, options: EnvironmentOptions) -> int:
    return elements + elements * options.radial * (options.angular + 1)


def _magnitudes(
    xy: FloatArray, share: FloatArray, cutoff_A: float, options: EnvironmentOptions
) -> FloatArray:
    """Vectors of the atoms of one frame, shape (atom, feature)."""
    tree = cKDTree(xy)
    n = len(xy)
    out = np.empty((n, _size(share.shape[1], options)))
    out[:, : share.shape[1]] = share  # the atom itself
    for start in range(0, n, _CHUNK):
        part = slice(start, min(start + _CHUNK, n))
        coefficients = _coefficients(xy, share, tree, part, cutoff_A, options)
        out[part, share.shape[1] :] = np.abs(coefficients).reshape(len(coefficients), -1)
    return out


def _coefficients(
    xy: FloatArray,
    share: FloatArray,
    tree: cKDTree,
    part: slice,
    cutoff_A: float,
    options: EnvironmentOptions,
) -> np.ndarray[tuple[int, int, int], np.dtype[np.complex128]]:
    """Density around some atoms, shape (atom, element and radial function, order)."""
    found = tree.query_ball_point(xy[part], cutoff_A)
    count = np.array([len(f) for f in found], dtype=np.int64)
    centre = np.repeat(np.arange(part.start, part.stop), count)
    other = np.concatenate([np.asarray(f, dtype=np.int64) for f in found])
    centre, other = centre[centre != other], other[centre != other]
    way = xy[other] - xy[centre]
    distance = np.hypot(*way.T)
    turn = np.exp(1j * np.arctan2(way[:, 1], way[:, 0]))[:, None] ** np.arange(options.angular + 1)
    places = cutoff_A * (np.arange(options.radial) + 1.0) / (options.radial + 1.0)
    width = cutoff_A / (options.radial + 1.0)
    fade = 0.5 + 0.5 * np.cos(np.pi * distance / cutoff_A)  # no step where a neighbour leaves
    radial = fade[:, None] * np.exp(-0.5 * ((distance[:, None] - places) / width) ** 2)
    value = (share[other][:, :, None] * radial[:, None, :]).reshape(len(other), -1)
    rows = part.stop - part.start
    adding = csr_matrix(
        (np.ones(len(other)), (centre - part.start, np.arange(len(other)))),
        shape=(rows, len(other)),
    )
    terms = (value[:, :, None] * turn[:, None, :]).reshape(len(other), -1)
    return np.asarray(adding @ terms).reshape(rows, value.shape[1], turn.shape[1])
