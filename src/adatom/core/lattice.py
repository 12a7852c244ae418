"""The crystal lattice in one frame, with the distortion of the scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adatom.core.arrays import FloatArray
from adatom.core.calibration import Affine
from adatom.core.material import Material

_CLOSE_A = 1e-9  # Å: iterations end where positions change by less
_CHUNK = 16384  # positions compared with the sites around them at once; limits memory
# Steps from a corner of the cell to itself and to the eight corners around it.
_CORNERS = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """Sites of the perfect crystal in a frame, and the correction of the scan's distortion.

    With ``d = xy - center_xy_A``, the undistorted position is
    ``d @ affine.T + (dx², dx dy, dy²) @ bend.T``. In these axes the sites are exactly
    ``origin_xy_A + (cell index + basis) @ vectors()``: the material's own cell, rotated.
    All axes are those of the image, x right and y down.

    Parameters
    ----------
    material
        The crystal.
    center_xy_A
        Point about which the distortion is expanded, Å, measured axes.
    affine
        Linear part of the correction (stretch and shear, no rotation).
    bend
        Shape (2, 3): quadratic part of the correction, 1/Å.
    angle_rad
        Direction of the first lattice vector, from x towards y (downwards).
    origin_xy_A
        A lattice point in undistorted axes, Å.
    rms_A
        Root-mean-square distance per axis of matched atoms from their sites, Å.
    matched
        Share of the atoms given that lie on a site.
    """

    material: Material
    center_xy_A: tuple[float, float]
    affine: Affine
    bend: FloatArray
    angle_rad: float
    origin_xy_A: tuple[float, float]
    rms_A: float
    matched: float

    def vectors(self) -> FloatArray:
        """Lattice vectors in undistorted axes, the rows of a (2, 2) array, Å."""
        c, s = np.cos(self.angle_rad), np.sin(self.angle_rad)
        rotation = np.array([[c, s], [-s, c]])
        out: FloatArray = self.material.cell() @ rotation
        return out

    def undistort(self, xy: FloatArray) -> FloatArray:
        """Undistorted positions (N, 2) in Å of measured ones."""
        d = np.asarray(xy, dtype=np.float64) - np.asarray(self.center_xy_A)
        out: FloatArray = self.affine.apply(d) + _quadratic(d) @ self.bend.T
        return out

    def distort(self, xy: FloatArray) -> FloatArray:
        """Measured positions (N, 2) in Å of undistorted ones (the inverse, by iteration)."""
        target = np.asarray(xy, dtype=np.float64)
        back, bend = np.linalg.inv(self.affine.array()).T, self.bend.T
        d = target @ back
        for _ in range(8):
            before, d = d, (target - _quadratic(d) @ bend) @ back
            if np.abs(d - before).max(initial=0.0) < _CLOSE_A:
                break
        out: FloatArray = d + np.asarray(self.center_xy_A)
        return out

    def nearest_site(self, undistorted_xy: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        """Find the lattice site nearest to each undistorted position.

        Parameters
        ----------
        undistorted_xy
            Shape (N, 2), Å.

        Returns
        -------
        Site index (N, 3): two cell indices and the number in the basis; and the vector from the
        site to the position, shape (N, 2), Å.
        """
        xy = np.asarray(undistorted_xy, dtype=np.float64).reshape(-1, 2)
        index, offset = np.empty((len(xy), 3), dtype=np.int64), np.empty((len(xy), 2))
        for start in range(0, len(xy), _CHUNK):
            part = slice(start, start + _CHUNK)
            index[part], offset[part] = self._nearest_site(xy[part])
        return index, offset

    def _nearest_site(self, xy: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        vectors, basis = self.vectors(), np.asarray(self.material.basis, dtype=np.float64)
        fractional = (xy - np.asarray(self.origin_xy_A)) @ np.linalg.inv(vectors)
        from_basis = fractional[:, None] - basis  # (N, basis, 2)
        # In a skew cell the rounded corner may not be the nearest, so its neighbours are tried.
        cell = np.round(from_basis)[:, :, None] + _CORNERS  # (N, basis, 9, 2)
        offset = (from_basis[:, :, None] - cell) @ vectors
        squared = (offset**2).sum(axis=-1).reshape(len(xy), -1)
        best, row = np.argmin(squared, axis=1), np.arange(len(xy))
        index = np.empty((len(xy), 3), dtype=np.int64)
        index[:, :2] = cell.reshape(len(xy), -1, 2)[row, best]
        index[:, 2] = best // len(_CORNERS)
        return index, offset.reshape(len(xy), -1, 2)[row, best]

    def site_xy(self, index: NDArray[np.int64]) -> FloatArray:
        """Undistorted positions (N, 2) in Å of sites (N, 3) as `nearest_site` numbers them."""
        index = np.asarray(index, dtype=np.int64)
        fractional = index[:, :2] + np.asarray(self.material.basis)[index[:, 2]]
        out: FloatArray = np.asarray(self.origin_xy_A) + fractional @ self.vectors()
        return out

    def sites_within(
        self, extent_xy_A: tuple[float, float], margin_A: float = 0.0
    ) -> tuple[NDArray[np.int64], FloatArray]:
        """List every site in the measured rectangle from (0, 0) to `extent_xy_A`.

        Parameters
        ----------
        extent_xy_A
            Far corner x, y, Å, measured axes (`Calibration.extent_xy`).
        margin_A
            Leave out sites nearer than this to the border; negative to go beyond it.

        Returns
        -------
        Site indices (N, 3) and their measured positions (N, 2), Å.
        """
        w, h = extent_xy_A
        corners = self.undistort(np.array([[0.0, 0.0], [w, 0.0], [0.0, h], [w, h]]))
        f = (corners - np.asarray(self.origin_xy_A)) @ np.linalg.inv(self.vectors())
        pad = 3 + int(max(-margin_A, 0.0) / self.material.lattice_constant_A * 1.5)
        low = np.floor(f.min(axis=0)).astype(int) - pad
        high = np.ceil(f.max(axis=0)).astype(int) + pad
        grid = np.meshgrid(
            np.arange(low[0], high[0] + 1),
            np.arange(low[1], high[1] + 1),
            np.arange(len(self.material.basis)),
            indexing="ij",
        )
        index = np.stack([g.ravel() for g in grid], axis=1).astype(np.int64)
        xy = self.distort(self.site_xy(index))
        inside = (
            (xy[:, 0] >= margin_A)
            & (xy[:, 1] >= margin_A)
            & (xy[:, 0] <= w - margin_A)
            & (xy[:, 1] <= h - margin_A)
        )
        return index[inside], xy[inside]


def _quadratic(d: FloatArray) -> FloatArray:
    """Terms x², xy, y² of displacements (N, 2), shape (N, 3)."""
    return np.stack([d[:, 0] ** 2, d[:, 0] * d[:, 1], d[:, 1] ** 2], axis=1)
