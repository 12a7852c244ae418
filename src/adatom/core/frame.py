"""Images from the microscope: Frame, and Movie, which reads its frames when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adatom.core.acquisition import UNKNOWN, Acquisition
from adatom.core.arrays import FloatArray, Image
from adatom.core.calibration import Calibration
from adatom.core.pixels import Pixels
from adatom.core.record import content_hash
from adatom.errors import BadInput, BlankFrame, StepFailed

_LEAVE_OUT = (
    "The beam was blanked or the detector off: leave the frame out with `frames`, such as :3,4:."
)
# Largest pixel value, and the reciprocal of the least difference: their squares are numbers in
# single precision, which ends at 3e38 and 1e-38.
_LARGEST = 1e18
# Range of an image over its largest value, below which float32 (24 bits) leaves less than 12 bits.
_LEAST_SPREAD = 2.0**-12


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
        If the array is not two-dimensional, is empty or tiny, complex, not finite, or too large
        or small for single precision.
    BlankFrame
        If all pixels are equal, or none is a number.

    Notes
    -----
    An offset that single precision cannot carry (1e10 under counts of a few) is taken off before.
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
    image = _single_precision(array, source)
    bad = int(np.count_nonzero(~np.isfinite(image)))
    if bad == image.size:
        raise BlankFrame(source, expected="finite pixel values", got="none", todo=_LEAVE_OUT)
    if bad:
        raise BadInput(
            source,
            expected="finite pixel values",
            got=f"{bad} NaN or infinite pixels of {image.size}",
            todo="Mask or interpolate them, or leave the frame out with `frames` START:STOP.",
        )
    if float(image.min()) == float(image.max()):
        raise BlankFrame(
            source,
            expected="an image with contrast",
            got=f"every pixel equal to {float(image.min()):g}",
            todo=_LEAVE_OUT,
        )
    low, high = float(image.min()), float(image.max())
    if max(abs(low), abs(high)) > _LARGEST:
        raise _out_of_range(source, f"values up to {max(abs(low), abs(high)):g}", "Divide")
    if high - low < 1 / _LARGEST:
        raise _out_of_range(source, f"differences of {high - low:g}", "Multiply")
    image = image.copy() if image is data else image
    image.flags.writeable = False
    return image


def _out_of_range(source: str, got: str, what: str) -> BadInput:
    return BadInput(
        source,
        expected=f"pixel values up to {_LARGEST:g} that differ by {1 / _LARGEST:g} or more",
        got=got,
        todo=f"{what} the frames by a constant.",
    )


def _single_precision(array: NDArray[Any], source: str) -> Image:
    """Convert to float32; an offset that would hide the differences of the pixels is taken off."""
    if array.dtype.itemsize <= (4 if array.dtype.kind == "f" else 2):  # float32 holds them exactly
        return np.ascontiguousarray(array, dtype=np.float32)
    wide = array.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    if finite.size == 0:
        return np.full(array.shape, np.nan, dtype=np.float32)
    low, high = float(finite.min()), float(finite.max())
    largest = max(abs(low), abs(high))
    if largest > _LARGEST:
        raise _out_of_range(source, f"values up to {largest:g}", "Divide")
    if 0 < high - low < _LEAST_SPREAD * largest:
        wide -= low
    return np.ascontiguousarray(wide, dtype=np.float32)


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
    pixels
        Which pixels show the specimen; None until somebody looked.
    """

    data: Image
    calibration: Calibration
    index: int = 0
    source: str = "array"
    dose_per_A2: float | None = None
    pixels: Pixels | None = None

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

    def border_distance_A(self, xy: FloatArray) -> FloatArray:
        """Distance from where the specimen's pixels end: the frame's border, or masked pixels.

        Parameters
        ----------
        xy
            Shape (point, 2), Å.

        Returns
        -------
        Shape (point,), Å; negative outside.
        """
        far = np.asarray(self.calibration.extent_xy(self.shape))
        border = np.minimum(xy, far - xy).min(axis=1, initial=np.inf)
        if self.pixels is None or not self.pixels.any_masked or not len(xy):
            return np.asarray(border, dtype=np.float64)
        away = self.pixels.distance_px(self.calibration.rc(xy))
        nearest: FloatArray = np.minimum(border, away * self.calibration.pixel_size_A)
        return nearest


class _CheckedFrames:
    """Load frames of a movie; each must stay what it was when it was first read.

    Parameters
    ----------
    load
        Gives frame i.
    positions
        Which frames of `load` are those of the movie, in order.
    source
        File name, for messages.
    most_bytes
        Most bytes of frames kept in memory; the memory is not sent to other processes.
    hashes
        Hash of the pixels of every frame that was read, by its position.
    """

    def __init__(
        self,
        load: Callable[[int], ArrayLike],
        positions: Sequence[int],
        source: str,
        most_bytes: int,
        hashes: dict[int, str] | None = None,
    ) -> None:
        self.load, self.positions, self.source = load, positions, source
        self._most, self._held = most_bytes, 0
        self._hashes: dict[int, str] = {} if hashes is None else hashes
        self._frames: dict[int, Image] = {}

    def __call__(self, index: int) -> Image:
        position = self.positions[index]
        if position in self._frames:
            return self._frames[position]
        subject = f"{self.source}, frame {position}"
        image = parse_image(self.load(position), subject)
        found = content_hash(image)
        if self._hashes.setdefault(position, found) != found:
            raise StepFailed(
                subject,
                expected="the pixels that were read at the start",
                got="others: the file was changed during the run",
                todo="Run again when the file is as it should be; frames of it are done again.",
            )
        if self._held + image.nbytes <= self._most:
            self._frames[position] = image
            self._held += image.nbytes
        return image

    def hash(self, index: int) -> str:
        """Hash of the pixels of a frame."""
        if self.positions[index] not in self._hashes:
            self(index)
        return self._hashes[self.positions[index]]

    def selected(self, indices: Sequence[int]) -> _CheckedFrames:
        """Give some of the frames; those in memory stay there."""
        positions = [self.positions[i] for i in indices]
        out = _CheckedFrames(self.load, positions, self.source, self._most, self._hashes)
        out._frames, out._held = self._frames, self._held
        return out

    def released(self) -> _CheckedFrames:
        """Give the same frames, none of them kept in memory."""
        return _CheckedFrames(self.load, self.positions, self.source, 0, self._hashes)

    def __reduce__(self) -> tuple[type[_CheckedFrames], tuple[Any, ...]]:
        parts = (self.load, self.positions, self.source, self._most, dict(self._hashes))
        return _CheckedFrames, parts


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
    acquisition
        How the frames were recorded, as far as it is known.
    notes
        Assumptions made when reading, for the user.
    """

    load: Callable[[int], ArrayLike]
    count: int
    shape: tuple[int, int]
    calibration: Calibration | None
    source: str
    fingerprint: str
    acquisition: Acquisition = UNKNOWN
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
            dose_per_A2=self.acquisition.dose_per_A2,
        )

    def __iter__(self) -> Iterator[Frame]:
        return (self[i] for i in range(self.count))

    def recalibrated(self, calibration: Calibration) -> Movie:
        """Give the same frames at another scale."""
        return replace(self, calibration=calibration)

    def cached(self, most_bytes: int) -> Movie:
        """Give the same movie with the first frames kept in memory, so that each is read once.

        A frame that is read again, and has other pixels than before, is refused.

        Parameters
        ----------
        most_bytes
            Most bytes of all frames in memory.
        """
        frames = _CheckedFrames(self.load, range(self.count), self.source, most_bytes)
        return replace(self, load=frames)

    def released(self) -> Movie:
        """Give the same frames, none of them kept in memory."""
        if isinstance(self.load, _CheckedFrames):
            return replace(self, load=self.load.released())
        return self

    def selected(self, indices: Sequence[int]) -> Movie:
        """Give some of the frames, in the order of their numbers in `indices`."""
        kept = self.load if isinstance(self.load, _CheckedFrames) else self.cached(0).load
        assert isinstance(kept, _CheckedFrames)  # noqa: S101 (cached makes one)
        return replace(
            self,
            load=kept.selected(indices),
            count=len(indices),
            fingerprint=content_hash(self.fingerprint, list(indices)),
        )

    def frame_hash(self, index: int) -> str:
        """Hash of the pixels of one frame, as they were read."""
        if isinstance(self.load, _CheckedFrames):
            return self.load.hash(index)
        return content_hash(parse_image(self.load(index), f"{self.source}, frame {index}"))


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
