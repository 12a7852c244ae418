"""The scale of a frame by its lattice, before any atom is found; and the lattice by its atoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from adatom.core import Affine, Lattice, Material

FloatArray = NDArray[np.float64]
_LOG_STEP = 0.006  # of scale and of spatial frequency
_ANGLE_STEP = np.pi / 240
_LOWEST_K = 0.004  # cycles per pixel
_USUAL_ERROR = 0.12  # of a file's pixel size, relative
_DOUBLE = 0.4  # by so much a scale farther off must fit better, in mean logarithms of power
TRUSTED_CONTRAST = 6.5  # noise alone reaches 5, seldom 6


@dataclass(frozen=True, slots=True)
class ScaleEstimate:
    """Pixel size by the lattice's reflections.

    Parameters
    ----------
    pixel_size_A
        Å.
    contrast
        How far the best fit stands out from all other scales and rotations, in standard
        deviations of theirs.
    angle_rad
        Direction of the first reflection.
    """

    pixel_size_A: float
    contrast: float
    angle_rad: float


def estimate_scale(
    images: Sequence[NDArray[np.float32]],
    material: Material,
    *,
    expected_A: float | None = None,
    limits_A: tuple[float, float] = (0.02, 0.5),
) -> ScaleEstimate:
    """Find the pixel size at which the material's reflections fit the frames' power spectrum.

    The spectra of all frames are averaged, whitened by their radial median, and searched over
    scale and rotation for the first two rings of reflections together, so that one ring is not
    mistaken for the other.

    Parameters
    ----------
    images
        A few frames of one scale and rotation, each of shape (row, col).
    material
        The crystal.
    expected_A
        The file's pixel size; between two equally good answers the nearer one wins.
    limits_A
        Smallest and largest pixel size looked for, Å.

    Returns
    -------
    The best fit; its contrast says how far to trust it.
    """
    polar = _polar_spectrum(images)
    reflections, rings = _reflections(material)
    weight = np.where(rings == 0, 1.0, 0.5)
    shift = np.round(np.log(np.linalg.norm(reflections, axis=1)) / _LOG_STEP).astype(int)
    turn = np.round(np.arctan2(reflections[:, 1], reflections[:, 0]) / _ANGLE_STEP).astype(int)
    scales = np.arange(
        int(np.log(limits_A[0]) / _LOG_STEP), int(np.log(limits_A[1]) / _LOG_STEP) + 1
    )
    # log k = log |g| + log pixel size: a scale is a shift, a rotation a roll.
    log_k0 = round(np.log(_LOWEST_K) / _LOG_STEP)
    row = scales[:, None] + shift[None, :] - log_k0
    usable = (row >= 0) & (row < polar.shape[0])
    score = np.zeros((len(scales), polar.shape[1]))
    for j in range(len(reflections)):
        part = np.roll(polar, -turn[j], axis=1)[np.clip(row[:, j], 0, polar.shape[0] - 1)]
        score += weight[j] * np.where(usable[:, j, None], part, 0.0)
    score /= weight.sum()
    score[~usable[:, rings == 0].all(axis=1)] = -np.inf
    plain = score
    # The further rings of a clean sheet lie as its first two do, and outshine them where the probe
    # is fine: a whole ring inside the first one speaks against a scale.
    score = score - _inside(polar, row[:, rings == 0], turn[rings == 0])
    if expected_A is not None:
        distance = np.abs(scales * _LOG_STEP - np.log(expected_A))
        # Of a square lattice the rings at 1, sqrt(2) and 2 look alike, and which of them are
        # bright depends on the columns: then the file is right, if it is right to a tenth or so.
        apart = np.clip((distance - _USUAL_ERROR) / 0.1, 0.0, 1.0)
        score = score - (0.03 * distance + _DOUBLE * apart)[:, None]
    best_scale, best_angle = np.unravel_index(int(np.argmax(score)), score.shape)
    coarse = float(np.exp(scales[best_scale] * _LOG_STEP))
    angle = float(best_angle * _ANGLE_STEP)
    others = plain[np.isfinite(plain)]
    spread = 1.4826 * float(np.median(np.abs(others - np.median(others))))
    contrast = float((plain[best_scale, best_angle] - np.median(others)) / max(spread, 1e-9))
    return ScaleEstimate(_sharpen(images, reflections[rings == 0], coarse, angle), contrast, angle)


def _inside(polar: FloatArray, row: NDArray[np.int64], turn: NDArray[np.int64]) -> FloatArray:
    """Give what stands out where a crystal sqrt(3) or 2 times larger would have its reflections.

    A scale too large by that factor takes reflections farther out for the first ring, and finds the
    true first ring in these places, which the crystal leaves empty. The weakest of the ring counts,
    so that noise in one place is no ring.
    """
    worst = np.zeros((len(row), polar.shape[1]))
    for factor, angle in ((3.0**0.5, np.pi / 6), (2.0, 0.0)):
        down, more = round(np.log(factor) / _LOG_STEP), round(angle / _ANGLE_STEP)
        ring = np.full_like(worst, np.inf)
        for j in range(len(turn)):
            at = row[:, j] - down
            part = np.roll(polar, -turn[j] - more, axis=1)[np.clip(at, 0, polar.shape[0] - 1)]
            ring = np.minimum(ring, np.where((at >= 0)[:, None], part, 0.0))
        worst = np.maximum(worst, ring)
    return worst


def _spectrum(images: Sequence[NDArray[np.float32]]) -> FloatArray:
    """Mean power spectrum of the frames' middles, zero-padded, centred, shape (k, k)."""
    side = min(512, *(min(i.shape) for i in images))
    window = np.hanning(side)[:, None] * np.hanning(side)[None, :]
    total = np.zeros((2 * side, 2 * side))
    for image in images:
        r0, c0 = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        part = np.clip(image, *np.percentile(image, (0.1, 99.9)))[r0 : r0 + side, c0 : c0 + side]
        part = (part - part.mean()) / max(float(part.std()), 1e-12)
        total += np.abs(np.fft.fftshift(np.fft.fft2(part * window, s=total.shape))) ** 2
    return total


def _polar_spectrum(images: Sequence[NDArray[np.float32]]) -> FloatArray:
    """Logarithm of the whitened power spectrum on a grid of log k and angle (half a turn).

    Each row is divided by its median over angles, so that only what stands out in direction
    counts; then a maximum over a few per cent and degrees lets each reflection be found near its
    place, as a distorted scan leaves it.
    """
    power = _spectrum(images)
    middle = power.shape[0] // 2
    log_k = np.arange(np.log(_LOWEST_K), np.log(0.48), _LOG_STEP)
    angle = np.arange(0.0, np.pi, _ANGLE_STEP)
    radius = np.exp(log_k)[:, None] * power.shape[0]
    smooth = ndimage.gaussian_filter(power, 1.0)
    polar = ndimage.map_coordinates(
        smooth, [middle + radius * np.sin(angle), middle + radius * np.cos(angle)], order=1
    )
    polar /= np.maximum(np.median(polar, axis=1, keepdims=True), 1e-30)
    polar[radius[:, 0] < 7.0] = 1.0  # closer to the middle than two periods a frame: shading
    polar = ndimage.maximum_filter(polar, size=(9, 5), mode=("nearest", "wrap"))
    # No single reflection, however bright, may make up for ones that are missing; and the maximum
    # over more bins, as far reflections have, is higher in noise too: compare within the row.
    out: FloatArray = np.log(np.clip(polar, 0.5, 300.0))
    return out - np.median(out, axis=1, keepdims=True)


def _sharpen(
    images: Sequence[NDArray[np.float32]], reflections: FloatArray, coarse_A: float, angle: float
) -> float:
    """Pixel size from the centres of mass of the first ring's peaks: their mean area scale."""
    power = _spectrum(images)
    n = power.shape[0]
    c, s = np.cos(angle), np.sin(angle)
    turned = reflections @ np.array([[c, s], [-s, c]])
    seen = np.empty_like(turned)
    for k, g in enumerate(turned):
        col, row = n / 2 + g * coarse_A * n
        half = max(int(0.06 * np.linalg.norm(g) * coarse_A * n), 3)
        r0, c0 = round(row) - half, round(col) - half
        part = power[r0 : r0 + 2 * half + 1, c0 : c0 + 2 * half + 1]
        part = np.maximum(part - np.percentile(part, 70), 0.0) ** 2
        y, x = np.indices(part.shape)
        total = max(float(part.sum()), 1e-30)
        seen[k] = (c0 + (x * part).sum() / total - n / 2, r0 + (y * part).sum() / total - n / 2)
    linear, *_ = np.linalg.lstsq(turned, seen / n, rcond=None)
    return float(np.sqrt(abs(np.linalg.det(linear))))


def _reflections(material: Material) -> tuple[FloatArray, NDArray[np.int64]]:
    """Half of the first two rings of reflections (each has its opposite), 1/Å, and their ring."""
    reciprocal = np.linalg.inv(material.cell()).T
    h, k = np.meshgrid(np.arange(-3, 4), np.arange(-3, 4), indexing="ij")
    index = np.stack([h.ravel(), k.ravel()], axis=1)
    index = index[np.any(index != 0, axis=1)]
    phase = np.exp(-2j * np.pi * index @ np.asarray(material.basis).T)
    index = index[np.abs(phase.sum(axis=1)) > 0.2]
    g = index @ reciprocal
    g = g[(g[:, 1] > 1e-9) | ((np.abs(g[:, 1]) < 1e-9) & (g[:, 0] > 0))]
    length = np.round(np.linalg.norm(g, axis=1), 6)
    rings = np.unique(length)[:2]
    keep = np.isin(length, rings)
    return g[keep], np.searchsorted(rings, length[keep])


def first_ring(material: Material) -> FloatArray:
    """Half of a first ring of reflections (each has its opposite), shape (reflection, 2), 1/Å."""
    reflections, rings = _reflections(material)
    out: FloatArray = reflections[rings == 0]
    return out


def fit_lattice(
    xy: FloatArray,
    material: Material,
    *,
    weights: FloatArray | None = None,
    others_xy: FloatArray | None = None,
) -> Lattice | None:
    """Fit the crystal and the scan's distortion to atoms.

    The lattice vectors come from the pair distances, the origin from the structure factor; then
    atoms are assigned to sites from the middle of the frame outwards, and the map from measured to
    undistorted positions (affine and quadratic) is refitted at every radius, so that a drift of
    half a bond across the frame does not lead the assignment astray. Defects are outvoted: only
    atoms within a third of a bond of their site take part.

    Parameters
    ----------
    xy
        Positions of the host's atoms, shape (atom, 2), Å, measured axes.
    material
        The crystal.
    weights
        Shape (atom,): inverse variances, say; equal by default.
    others_xy
        Positions of atoms of the crystal's other species, shape (atom, 2), Å. The host's sites
        alone often look the same after a turn that the whole crystal does not.

    Returns
    -------
    The lattice, or None where fewer than a dozen atoms or no common direction was found.
    """
    if len(xy) < 12 or material.form == "atoms":
        return None
    vectors = _pair_vectors(xy, material)
    if vectors is None:
        return None
    center = np.median(xy, axis=0)
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
        radius = min(radius * 1.2, float(distance.max()))
    for _ in range(3):
        lattice = _refit(xy, weight, lattice, bend=len(xy) > 60)
    return lattice if others_xy is None else _turned_right(lattice, others_xy)


def _turned_right(lattice: Lattice, others_xy: FloatArray) -> Lattice:
    """Of the turns that leave the host's sites where they are, take the one that suits the rest."""
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
        turned = replace(lattice, angle_rad=lattice.angle_rad + float(turn))
        for k in np.flatnonzero(host):
            start = places[0] - basis[k] @ turned.vectors()
            tried = replace(turned, origin_xy_A=(float(start[0]), float(start[1])))
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
    """Two measured lattice vectors (rows, Å) from the differences between atoms."""
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
        return _turned_cell(xy, cell)
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
    """Tell whether equal vectors stand at 60 or 90 degrees, so that all directions are alike."""
    first, second = (float(n) for n in np.linalg.norm(cell, axis=1))
    off = min(abs(opening - np.pi / 3), abs(opening - np.pi / 2))
    return abs(first / second - 1) < 0.02 and off < np.radians(2)


def _turned_cell(xy: FloatArray, cell: FloatArray) -> FloatArray | None:
    """Turn the cell until its vectors are differences of most atoms; then measure them."""
    reach = float(np.linalg.norm(cell, axis=1).max())
    pairs = cKDTree(xy).query_pairs(1.2 * reach, output_type="ndarray")
    d = xy[pairs[:, 1]] - xy[pairs[:, 0]]
    d = np.concatenate([d, -d])
    width = 0.1 * float(np.linalg.norm(cell, axis=1).min())
    best, vectors = 0.0, cell
    for angle in np.arange(0.0, 2 * np.pi, np.radians(1.5)):
        c, s = np.cos(angle), np.sin(angle)
        turned = cell @ np.array([[c, s], [-s, c]])
        gap = np.linalg.norm(d[:, None] - turned, axis=2)
        score = float(np.exp(-0.5 * (gap / width) ** 2).sum(axis=0).min())
        if score > best:
            best, vectors = score, turned
    near = np.linalg.norm(d[:, None] - vectors, axis=2) < 2 * width
    if near.sum(axis=0).min() < max(3, 0.1 * len(xy)):
        return None
    return np.stack([np.median(d[near[:, k]], axis=0) for k in range(2)])


def _first_guess(
    xy: FloatArray, center: FloatArray, vectors: FloatArray, material: Material
) -> Lattice:
    """Affine from the measured vectors, origin from the phases of two reflections."""
    forward = np.linalg.solve(material.cell(), vectors).T  # measured = forward @ ideal
    u, s, vt = np.linalg.svd(forward)
    rotation = u @ vt
    stretch = u @ np.diag(s) @ u.T
    affine = np.linalg.inv(stretch)
    angle = float(np.arctan2(rotation[1, 0], rotation[0, 0]))
    ideal = (xy - center) @ affine.T
    near = np.linalg.norm(xy - center, axis=1) < 7.0
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
    """Assign atoms to sites and fit the map from measured to ideal positions again."""
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
