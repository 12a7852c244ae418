"""Fit the lattice, with the distortion of the scan, to the atoms of a frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from adatom.core import Affine, Lattice, Material
from adatom.core.arrays import FloatArray

_FIRST_A = 7.0  # radius of the atoms that give the first origin, Å: about 60 in graphene
# Growth of the radius within which atoms are assigned, and that beyond a radius, Å, within which
# thousands of atoms have fixed the map.
_GROWTH, _LATER_GROWTH, _SURE_A = 1.2, 1.7, 50.0
_PLACES = 100  # atoms whose surroundings are counted
_DENSE = 0.7  # share of the most atoms in that radius with which a place is not beside a hole


def fit_lattice(
    xy: FloatArray,
    material: Material,
    *,
    weights: FloatArray | None = None,
    others_xy: FloatArray | None = None,
) -> Lattice | None:
    """Fit the crystal and the scan's distortion to atoms.

    The lattice vectors come from the pair distances, the origin from the structure factor. Then
    atoms are assigned to sites from the middle of the atoms outwards, and the map from measured to
    undistorted positions (affine and quadratic) is refitted at every radius. In this way a drift of
    half a bond across the frame does not cause wrong assignments. Only atoms within a third of a
    bond of their site are used, so that defects have little weight.

    Parameters
    ----------
    xy
        Positions of the host's atoms, shape (atom, 2), Å, measured axes.
    material
        The crystal.
    weights
        Weights such as inverse variances, shape (atom,); equal by default.
    others_xy
        Positions of atoms of the crystal's other species, shape (atom, 2), Å. The host's sublattice
        often has rotational symmetries that the whole crystal does not have; these atoms decide
        between the orientations.

    Returns
    -------
    The lattice, or None for fewer than a dozen atoms or without a common direction.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import GRAPHENE
    >>> from adatom.frames.simulate.specimen import lattice_points
    >>> xy = lattice_points(GRAPHENE, (20.0, 20.0), 0.0, angle_rad=0.2)
    >>> lattice = fit_lattice(xy, GRAPHENE)
    >>> round(float(np.degrees(lattice.angle_rad)) % 60, 2), lattice.rms_A < 1e-6
    (11.46, True)
    """
    if len(xy) < 12 or not material.has_lattice:
        return None
    vectors = _pair_vectors(xy, material)
    if vectors is None:
        return None
    center = _start(xy)
    weight = np.ones(len(xy)) if weights is None else weights / np.mean(weights)
    lattice = _first_guess(xy, center, vectors, material)
    distance = np.linalg.norm(xy - center, axis=1)
    radius = min(6.0, float(distance.max()))
    while True:
        near = distance <= radius
        for _ in range(3):
            lattice = _refit(xy[near], weight[near], lattice, bend=radius > 8.0)
        if radius >= distance.max():
            break
        grown = radius * (_GROWTH if radius < _SURE_A else _LATER_GROWTH)
        radius = min(grown, float(distance.max()))
    for _ in range(3):
        lattice = _refit(xy, weight, lattice, bend=len(xy) > 60)
    return lattice if others_xy is None else _best_orientation(lattice, others_xy)


def follow_lattice(xy: FloatArray, lattice: Lattice, weights: FloatArray) -> Lattice:
    """Fit the lattice to the atoms of the next frame, which is the last one but for some drift.

    Parameters
    ----------
    xy
        Positions of the host's atoms, shape (atom, 2), Å; they have moved by less than a third of a
        bond against the lattice.
    lattice
        Of the last frame, moved by what is known of the drift.
    weights
        Shape (atom,).

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import GRAPHENE
    >>> from adatom.frames.simulate.specimen import lattice_points
    >>> xy = lattice_points(GRAPHENE, (20.0, 20.0), 0.0, angle_rad=0.2)
    >>> last = fit_lattice(xy, GRAPHENE)
    >>> follow_lattice(xy + 0.3, last, np.ones(len(xy))).rms_A < 1e-6
    True
    """
    weight = weights / np.mean(weights)
    for bend in (False, len(xy) > 60):
        lattice = _refit(xy, weight, lattice, bend=bend)
    return lattice


def _start(xy: FloatArray) -> FloatArray:
    """Place from which atoms are assigned: the middle of the atoms, or beside a hole in it.

    If far fewer atoms lie around the median than around other places, the nearest of these is
    taken.
    """
    middle: FloatArray = np.median(xy, axis=0)
    tree = cKDTree(xy)
    some = xy[:: max(len(xy) // _PLACES, 1)]
    around = tree.query_ball_point(some, _FIRST_A, return_length=True)
    enough = _DENSE * around.max()
    if tree.query_ball_point(middle, _FIRST_A, return_length=True) >= enough:
        return middle
    dense = some[around >= enough]
    out: FloatArray = dense[np.linalg.norm(dense - middle, axis=1).argmin()]
    return out


def _best_orientation(lattice: Lattice, others_xy: FloatArray) -> Lattice:
    """Of the rotations that map the host sublattice onto itself, choose the best for the rest."""
    material = lattice.material
    sites, basis = material.site_species, np.asarray(material.basis)
    host = np.array([s == material.host for s in sites])
    if host.all() or not len(others_xy):
        return lattice
    places = np.array(
        [lattice.site_xy(np.array([[i, j, k]]))[0] for k in np.flatnonzero(host)
         for i in (-1, 0, 1) for j in (-1, 0, 1)]
    )  # fmt: skip
    best, chosen = -1.0, lattice
    for turn in np.radians(np.arange(0, 360, 30)):
        rotated = replace(lattice, angle_rad=lattice.angle_rad + float(turn))
        for k in np.flatnonzero(host):
            start = places[0] - basis[k] @ rotated.vectors()
            tried = replace(rotated, origin_xy_A=(float(start[0]), float(start[1])))
            index, offset = tried.nearest_site(places)
            near = np.linalg.norm(offset, axis=1) < 0.1 * material.bond_length_A
            if not (near & host[index[:, 2]]).all():
                continue
            index, offset = tried.nearest_site(tried.undistort(others_xy))
            right = np.linalg.norm(offset, axis=1) < material.bond_length_A / 3
            score = float(np.mean(right & ~host[index[:, 2]]))
            if score > best + 1e-9:
                best, chosen = score, tried
    return chosen


def _pair_vectors(xy: FloatArray, material: Material) -> FloatArray | None:
    """Two lattice vectors (rows, Å, measured axes) from the differences of atom positions."""
    a = material.lattice_constant_A
    pairs = cKDTree(xy).query_pairs(1.15 * a, output_type="ndarray")
    d = xy[pairs[:, 1]] - xy[pairs[:, 0]]
    d = d[np.linalg.norm(d, axis=1) > 0.85 * a]
    d = np.concatenate([d, -d])
    if len(d) < 12:
        return None
    cell = material.cell()
    opening = float(np.arccos(cell[0] @ cell[1] / np.prod(np.linalg.norm(cell, axis=1))))
    if not _is_regular(cell, opening):
        return _rotated_cell(xy, cell)
    fold = round(2 * np.pi / opening)
    angle = np.arctan2(d[:, 1], d[:, 0])
    mean = np.exp(1j * fold * angle).mean()
    if abs(mean) < 0.15:
        return None
    first = float(np.angle(mean)) / fold
    out = np.empty((2, 2))
    for k in range(2):
        direction = first + k * opening
        away = np.angle(np.exp(1j * (angle - direction)))
        mine = d[np.abs(away) < opening / 3]
        if len(mine) < 3:
            return None
        out[k] = np.median(mine, axis=0)
    return out


def _is_regular(cell: FloatArray, opening: float) -> bool:
    """Tell whether the vectors have equal lengths and an angle of 60 or 90 degrees."""
    first, second = (float(n) for n in np.linalg.norm(cell, axis=1))
    off = min(abs(opening - np.pi / 3), abs(opening - np.pi / 2))
    return abs(first / second - 1) < 0.02 and off < np.radians(2)


def _rotated_cell(xy: FloatArray, cell: FloatArray) -> FloatArray | None:
    """Find the rotation at which most differences of atoms are cell vectors; then measure them."""
    reach = float(np.linalg.norm(cell, axis=1).max())
    pairs = cKDTree(xy).query_pairs(1.2 * reach, output_type="ndarray")
    d = xy[pairs[:, 1]] - xy[pairs[:, 0]]
    d = np.concatenate([d, -d])
    width = 0.1 * float(np.linalg.norm(cell, axis=1).min())
    best, vectors = 0.0, cell
    for angle in np.arange(0.0, 2 * np.pi, np.radians(1.5)):
        c, s = np.cos(angle), np.sin(angle)
        rotated = cell @ np.array([[c, s], [-s, c]])
        gap = np.linalg.norm(d[:, None] - rotated, axis=2)
        score = float(np.exp(-0.5 * (gap / width) ** 2).sum(axis=0).min())
        if score > best:
            best, vectors = score, rotated
    near = np.linalg.norm(d[:, None] - vectors, axis=2) < 2 * width
    if near.sum(axis=0).min() < max(3, 0.1 * len(xy)):
        return None
    return np.stack([np.median(d[near[:, k]], axis=0) for k in range(2)])


def _first_guess(
    xy: FloatArray, center: FloatArray, vectors: FloatArray, material: Material
) -> Lattice:
    """First lattice: affine map from the measured vectors, origin from two reflections' phases."""
    forward = np.linalg.solve(material.cell(), vectors).T  # measured = forward @ ideal
    u, s, vt = np.linalg.svd(forward)
    rotation = u @ vt
    stretch = u @ np.diag(s) @ u.T
    affine = np.linalg.inv(stretch)
    angle = float(np.arctan2(rotation[1, 0], rotation[0, 0]))
    ideal = (xy - center) @ affine.T
    near = np.linalg.norm(xy - center, axis=1) < _FIRST_A
    cell = material.cell() @ rotation.T
    phase = np.exp(2j * np.pi * (ideal[near] @ np.linalg.inv(cell)))
    host = [s == material.host for s in material.site_species]
    basis = np.exp(2j * np.pi * np.asarray(material.basis)[host]).sum(axis=0)
    shift = np.angle(phase.sum(axis=0) / basis) / (2 * np.pi)
    origin = shift @ cell
    return Lattice(
        material, (float(center[0]), float(center[1])), Affine.from_array(affine),
        np.zeros((2, 3)), angle, (float(origin[0]), float(origin[1])), np.inf, 0.0,
    )  # fmt: skip


def _refit(xy: FloatArray, weight: FloatArray, lattice: Lattice, *, bend: bool) -> Lattice:
    """Assign atoms to sites and refit the map from measured to ideal positions (least squares)."""
    material = lattice.material
    index, offset = lattice.nearest_site(lattice.undistort(xy))
    miss = np.linalg.norm(offset, axis=1)
    good = miss < material.bond_length_A / 3
    if good.sum() < 10:
        return lattice
    fractional = index[:, :2] + np.asarray(material.basis)[index[:, 2]]
    ideal = fractional @ material.cell()
    d = xy - np.asarray(lattice.center_xy_A)
    terms = [np.ones(len(d)), d[:, 0], d[:, 1]]
    if bend:
        terms += [d[:, 0] ** 2, d[:, 0] * d[:, 1], d[:, 1] ** 2]
    design = np.stack(terms, axis=1)
    w = np.sqrt(weight[good])[:, None]
    fit, *_ = np.linalg.lstsq(design[good] * w, ideal[good] * w, rcond=None)
    linear = fit[1:3].T  # ideal = linear @ measured + ...
    u, s, vt = np.linalg.svd(linear)
    rotation = (u @ vt).T  # ideal axes to image axes
    affine = vt.T @ np.diag(s) @ vt
    quadratic = rotation @ fit[3:6].T if bend else np.zeros((2, 3))
    origin = -(rotation @ fit[0])
    residual = (design[good] @ fit) - ideal[good]
    return Lattice(
        material, lattice.center_xy_A, Affine.from_array(affine), quadratic,
        float(np.arctan2(rotation[1, 0], rotation[0, 0])),
        (float(origin[0]), float(origin[1])),
        float(np.sqrt(np.mean(residual**2))), float(good.mean()),
    )  # fmt: skip
