"""Images from the microscope (Frame, Movie) and requests for new ones (ScanRequest)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adatom.core.arrays import Image
from adatom.core.calibration import Calibration
from adatom.errors import BadInput


def parse_image(data: ArrayLike, source: str) -> Image:
    """Check an image where it enters adatom; later code relies on it.

    Parameters
    ----------
    data
        Image, shape (row, col).
    source
        File and frame number, for error messages.

    Returns
    -------
    Image, shape (row, col), float32, read-only.

    Raises
    ------
    BadInput
        If the array is not two-dimensional, is empty or tiny, complex, not finite, or constant.
    """
    array = np.asarray(data)
    todo = "Give grey-scale frames of numbers, one (row, col) image each."
    if array.ndim != 2:
        raise BadInput(
            source, expected="an image of shape (row, col)", got=f"shape {array.shape}", todo=todo
        )
    if min(array.shape) < 16:
        raise BadInput(
            source,
            expected="at least 16 x 16 pixels",
            got=f"{array.shape[0]} x {array.shape[1]}",
            todo="Check that the file holds images and not spectra or a thumbnail.",
        )
    if array.dtype.kind not in "buif":
        raise BadInput(source, expected="real numbers", got=f"dtype {array.dtype}", todo=todo)
    image = np.ascontiguousarray(array, dtype=np.float32)
    bad = int(np.count_nonzero(~np.isfinite(image)))
    if bad:
        raise BadInput(
            source,
            expected="finite pixel values",
            got=f"{bad} NaN or infinite pixels of {image.size}",
            todo="Mask or interpolate them, or leave the frame out with `frames` START:STOP.",
        )
    if float(image.min()) == float(image.max()):
        raise BadInput(
            source,
            expected="an image with contrast",
            got=f"every pixel equal to {float(image.min()):g}",
            todo="The beam was blanked or the detector off: leave the frame out "
            "with `frames` START:STOP.",
        )
    image = image.copy() if image is data else image
    image.flags.writeable = False
    return image


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One calibrated image.

    Parameters
    ----------
    data
        Intensities, shape (row, col), float32, proportional to the signal.
    calibration
        Pixel size.
    index
        Position in its movie.
    source
        File name, for messages.
    dose_per_A2
        Electrons per Å², where known.
    """

    data: Image
    calibration: Calibration
    index: int = 0
    source: str = "array"
    dose_per_A2: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "data", parse_image(self.data, f"{self.source}, frame {self.index}")
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.data.shape[0], self.data.shape[1]

    def recalibrated(self, calibration: Calibration) -> Frame:
        """Give the same pixels at another scale."""
        return replace(self, calibration=calibration)


class _CachedFrames:
    """Load frames, and keep the first ones in memory; the memory is not sent to other processes.

    Parameters
    ----------
    load
        Gives frame i.
    most_bytes
        Most bytes of all frames in memory.
    """

    def __init__(self, load: Callable[[int], ArrayLike], most_bytes: int) -> None:
        self.load, self._most, self._held = load, most_bytes, 0
        self._frames: dict[int, NDArray[Any]] = {}

    def __call__(self, index: int) -> ArrayLike:
        if index in self._frames:
            return self._frames[index]
        image = np.asarray(self.load(index))
        if self._held + image.nbytes <= self._most:
            self._frames[index] = image
            self._held += image.nbytes
        return image

    def __reduce__(self) -> tuple[type[_CachedFrames], tuple[Any, ...]]:
        return _CachedFrames, (self.load, self._most)


@dataclass(frozen=True, slots=True, eq=False)
class Movie:
    """A sequence of frames of one shape and scale; each is loaded when it is accessed.

    Parameters
    ----------
    load
        Gives frame i as an array (row, col); called lazily.
    count
        Number of frames.
    shape
        Rows and columns of every frame.
    calibration
        Pixel size; None if the file has none.
    source
        File name or names, for messages.
    fingerprint
        Hash of the contents and the selection; two movies with one fingerprint are the same data.
    dose_per_A2
        Electrons per Å² and frame, where known.
    notes
        Assumptions made when reading, for the user.
    """

    load: Callable[[int], ArrayLike]
    count: int
    shape: tuple[int, int]
    calibration: Calibration | None
    source: str
    fingerprint: str
    dose_per_A2: float | None = None
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Frame:
        if not 0 <= index < self.count:
            raise IndexError(index)
        if self.calibration is None:
            raise BadInput(
                self.source,
                expected="a pixel size",
                got="none in the file",
                todo="Give `pixel_size_A`, in Å.",
            )
        return Frame(
            data=np.asarray(self.load(index)),
            calibration=self.calibration,
            index=index,
            source=self.source,
            dose_per_A2=self.dose_per_A2,
        )

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(self.count))

    def recalibrated(self, calibration: Calibration) -> Movie:
        """Give the same frames at another scale."""
        return replace(self, calibration=calibration)

    def cached(self, most_bytes: int) -> Movie:
        """Give the same movie with the first frames kept in memory, so that each is read once.

        Parameters
        ----------
        most_bytes
            Most bytes of all frames in memory.
        """
        return replace(self, load=_CachedFrames(self.load, most_bytes))

    def released(self) -> Movie:
        """Give the same frames, none of them kept in memory."""
        return replace(self, load=self.load.load) if isinstance(self.load, _CachedFrames) else self


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrame:
    """A frame and its labels: exact for a simulated frame, pseudo-labels for a real one.

    Parameters
    ----------
    frame
        The image.
    xy
        Positions, shape (atom, 2), x and y in Å.
    species
        Index into `classes` of every atom, shape (atom,).
    classes
        Chemical symbols.
    vacancies_xy
        Empty lattice sites, shape (vacancy, 2), Å.
    doubtful_xy
        Places where a label is uncertain, or may be missing, shape (place, 2), Å.
    doubt
        Reduction of the training weight at each place, shape (place,): 1 removes the place.
    p_species
        Probability of every class for every atom, shape (atom, class); None if `species` is
        certain.
    """

    frame: Frame
    xy: NDArray[np.float64]
    species: NDArray[np.int64]
    classes: tuple[str, ...]
    vacancies_xy: NDArray[np.float64]
    doubtful_xy: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    doubt: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    p_species: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """A request for an image.

    Parameters
    ----------
    center_xy_A
        Centre of the field of view, x and y in Å in the frame of the specimen.
    field_of_view_A
        Edge of the square field, Å.
    pixels
        Pixels along an edge.
    dose_per_A2
        Electrons per Å².
    voltage_kV
        Acceleration voltage.
    """

    center_xy_A: tuple[float, float]
    field_of_view_A: float
    pixels: int
    dose_per_A2: float
    voltage_kV: float = 60.0

    @property
    def calibration(self) -> Calibration:
        """Pixel size of the frame that this request would give."""
        return Calibration(self.field_of_view_A / self.pixels)
