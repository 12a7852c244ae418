"""Which pixels of a frame show the specimen, and which of them the detector clipped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adatom.core.arrays import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class MaskedArea:
    """One kind of pixels that do not show the specimen.

    Parameters
    ----------
    kind
        What they are, in words: "constant values at the border", "a burnt-in scale bar".
    pixels
        How many.
    """

    kind: str
    pixels: int


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """What is known of the pixels of a frame before any atom is found.

    Parameters
    ----------
    masked
        True where a pixel does not show the specimen, shape (row, col).
    clipped
        -1 where the intensity was cut off from below, 1 from above, else 0, shape (row, col).
    areas
        What is masked.
    unit, zero
        Intensity of the file in one unit of the frame's data, and where that is zero.

    Examples
    --------
    >>> import numpy as np
    >>> masked = np.zeros((4, 6), dtype=bool)
    >>> masked[:, :2] = True
    >>> pixels = Pixels(masked, np.zeros((4, 6), dtype=np.int8))
    >>> round(pixels.masked_share, 3), pixels.any_masked, pixels.any_clipped
    (0.333, True, False)
    >>> pixels.distance_px(np.array([[1.0, 4.0], [1.0, 0.0]])).tolist()  # rows and columns
    [2.5, -1.5]
    """

    masked: BoolArray
    clipped: np.ndarray
    areas: tuple[MaskedArea, ...] = ()
    unit: float = 1.0
    zero: float = 0.0

    @classmethod
    def all_seen(cls, shape: tuple[int, int]) -> Pixels:
        """Pixels that all show the specimen, none of them clipped."""
        return cls(np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.int8))

    @property
    def zero_of_file(self) -> float:
        """The zero of the file in the unit of the frame's data."""
        return -self.zero / self.unit

    @property
    def any_masked(self) -> bool:
        """Whether any pixel is masked."""
        return bool(self.masked.any())

    @property
    def any_clipped(self) -> bool:
        """Whether any pixel is clipped."""
        return bool(self.clipped.any())

    @property
    def masked_share(self) -> float:
        """Share of the frame that is masked."""
        return float(self.masked.mean())

    def boxes_px(self) -> tuple[tuple[int, int, int, int], ...]:
        """Rectangles that cover the masked pixels: left, top, right and bottom edge, pixels.

        A slanted part is covered in steps.
        """
        step = max(self.masked.shape[1] // 64, 2)
        open_runs: list[list[int]] = []  # left, top, right of a rectangle that may grow
        out: list[tuple[int, int, int, int]] = []
        for r, row in enumerate(np.pad(self.masked, ((0, 1), (1, 1)))):
            edges = np.flatnonzero(np.diff(row.astype(np.int8)))
            runs = [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
            still = []
            for left, top, right in open_runs:
                same = [q for q in runs if abs(q[0] - left) + abs(q[1] - right) <= step]
                if same:
                    runs.remove(same[0])
                    still.append([left, top, right])
                else:
                    out.append((left, top, right, r))
            open_runs = still + [[a, r, b] for a, b in runs]
        return tuple(out)

    def distance_px(self, rc: FloatArray) -> FloatArray:
        """Distance of positions from the masked pixels, negative inside them.

        Parameters
        ----------
        rc
            Rows and columns, shape (point, 2), pixels.

        Returns
        -------
        Shape (point,), pixels; infinite if nothing is masked.
        """
        if not self.any_masked:
            return np.full(len(rc), np.inf)
        from scipy import ndimage  # takes long to import, and few frames are masked

        # The edge between two pixels is half a pixel from the centre of either.
        away = ndimage.distance_transform_edt(~self.masked) - 0.5
        inside = ndimage.distance_transform_edt(self.masked) - 0.5
        signed = np.where(self.masked, -inside, away)
        out: FloatArray = ndimage.map_coordinates(signed, rc.T, order=1, mode="nearest")
        return out
