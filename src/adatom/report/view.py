"""The parts of a campaign that the report shows; every part may be empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adatom.core import (
    Advice,
    AtomTable,
    Calibration,
    DefectTable,
    Frame,
    Material,
    SimulationResult,
    Structure,
)
from adatom.core.tracks import SCHEMA as TRACKS
from adatom.core.transitions import SCHEMA as TRANSITIONS
from adatom.errors import BadInput

# Columns of `CampaignView.lattice`, explained there.
LATTICE_SCHEMA = pl.Schema(
    {
        "frame": pl.Int32(),
        "pixel_size_A": pl.Float64(),
        "scale_x": pl.Float64(),
        "scale_y": pl.Float64(),
        "strain_1": pl.Float64(),
        "strain_2": pl.Float64(),
        "angle_deg": pl.Float64(),
        "rms_A": pl.Float64(),
        "matched": pl.Float64(),
    }
)


Shown = TypeVar("Shown")


class Loaded(Mapping[int, Shown]):
    """Values by frame, each read when it is asked for: a movie need not fit into memory.

    Parameters
    ----------
    numbers
        The frames, ascending.
    load
        Gives the value of a frame.

    Examples
    --------
    >>> squares = Loaded([1, 3], lambda n: n * n)
    >>> list(squares), squares[3]
    ([1, 3], 9)
    """

    def __init__(self, numbers: Sequence[int], load: Callable[[int], Shown]) -> None:
        self._numbers, self._load = tuple(numbers), load

    def __getitem__(self, number: int) -> Shown:
        if number not in self._numbers:
            raise KeyError(number)
        return self._load(number)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


@dataclass(frozen=True, slots=True, eq=False)
class FrameMaps:
    """The ensemble's maps of one frame.

    Parameters
    ----------
    frame
        Index of the frame.
    classes
        Chemical symbol of every class.
    mean
        Mean probability over the members, shape (class, row, col), 0 to 1.
    std
        Standard deviation between the members, shape (class, row, col).
    calibration
        Pixel size of the maps (the networks' working scale, not the frame's).

    Raises
    ------
    BadInput
        If the shapes of the maps and the number of classes do not agree.
    """

    frame: int
    classes: tuple[str, ...]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    calibration: Calibration

    def __post_init__(self) -> None:
        expected = (len(self.classes), *self.mean.shape[1:])
        if self.mean.ndim != 3 or self.mean.shape != expected or self.std.shape != expected:
            raise BadInput(
                f"maps of frame {self.frame}",
                expected=f"mean and std of one shape ({len(self.classes)} classes, row, col)",
                got=f"shapes {self.mean.shape} and {self.std.shape}",
                todo="Give one map a class.",
            )


@dataclass(frozen=True, slots=True)
class StepSummary:
    """Number of items and time of one step.

    Parameters
    ----------
    step
        Name of the step, such as ``find``.
    count
        Number of items that were processed.
    seconds
        Wall time of all items together, s.
    """

    step: str
    count: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class CampaignView:
    """A campaign as the report shows it.

    Parameters
    ----------
    title
        Headline.
    source
        File name or names of the movie.
    material
        Material of the specimen.
    frame_count
        Number of frames in the campaign, shown or not.
    frames
        The frames to show, by number.
    maps
        Maps of frames, by number.
    atoms
        Atoms of all frames.
    defects
        Defects of all frames, linked.
    tracks
        Each defect once, with what made it: the columns of ``tracks.parquet``.
    transitions
        Rates of the defects, with the columns of ``transitions.parquet``.
    lattice
        One row per frame with the columns of ``LATTICE_SCHEMA``: pixel size in Å; factors from
        measured to true lengths along x and y; principal stretches minus one; direction of the
        first lattice vector in degrees; root-mean-square distance from the sites in Å; share of
        matched atoms. Missing columns are filled with nulls.
    ood_regions
        By frame, boxes (left, top, right, bottom, Å) that are out of distribution.
    masked_regions
        By frame, boxes (left, top, right, bottom, Å) that do not show the specimen.
    missed_regions
        By frame, boxes (left, top, right, bottom, Å) where columns seem to be missed.
    structures
        Supercells: the most probable ones (draw -1) and the samples.
    results
        Results of the engines, with traces and trajectories.
    advice
        Actions, best first.
    steps
        Steps in the order in which they ran.
    warnings
        Sentences for the user.
    configuration
        The resolved configuration; may be nested.
    versions
        Version by name of program.
    directory
        The campaign's directory, as shown in commands.
    headline
        Sentence in the place of what was found, such as that the frames show another material.
    unfinished
        What is still to do, where the campaign has not ended.
    film
        Film of the move before these frames, as `adatom.report.film.film_data` gives it.

    Raises
    ------
    BadInput
        If the lattice table has no column ``frame``.
    """

    title: str
    source: str
    material: Material
    frame_count: int
    frames: Mapping[int, Frame] = field(default_factory=dict)
    maps: Mapping[int, FrameMaps] = field(default_factory=dict)
    atoms: AtomTable = field(default_factory=AtomTable.empty)
    defects: DefectTable = field(default_factory=DefectTable.empty)
    tracks: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TRACKS))
    transitions: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TRANSITIONS))
    lattice: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LATTICE_SCHEMA))
    ood_regions: Mapping[int, Sequence[tuple[float, float, float, float]]] = field(
        default_factory=dict
    )
    masked_regions: Mapping[int, Sequence[tuple[float, float, float, float]]] = field(
        default_factory=dict
    )
    missed_regions: Mapping[int, Sequence[tuple[float, float, float, float]]] = field(
        default_factory=dict
    )
    structures: Sequence[Structure] = ()
    results: Sequence[SimulationResult] = ()
    advice: Sequence[Advice] = ()
    steps: Sequence[StepSummary] = ()
    warnings: Sequence[str] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    directory: str = "DIR"
    headline: str = ""
    unfinished: str = ""
    film: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("structures", "results", "advice", "steps", "warnings"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "lattice", _parse_lattice(self.lattice))

    @property
    def frame_numbers(self) -> tuple[int, ...]:
        """Numbers of the frames that are shown, ascending."""
        return tuple(sorted(self.frames))

    def frame_name(self, number: int) -> str:
        """Name of a frame: its number, or its file where there is one frame."""
        return Path(self.source).name if self.frame_count == 1 else f"Frame {number}"

    def maps_of(self, frame: int) -> FrameMaps | None:
        """The maps of a frame; None if there are none."""
        return self.maps.get(frame)

    def structure_of(self, result: SimulationResult) -> Structure | None:
        """The supercell of a result, found by name and draw, else by name if that is unique."""
        named = [s for s in self.structures if s.name == result.structure]
        exact = [s for s in named if s.draw == result.draw]
        if exact:
            return exact[0]
        return named[0] if len(named) == 1 else None

    def element_order(self) -> tuple[str, ...]:
        """Elements of the material in its order, then any others that were found."""
        known = self.material.species
        seen = set(self.atoms.elements.tolist())
        for structure in self.structures:
            seen.update(structure.atoms.get_chemical_symbols())
        return known + tuple(sorted(seen - set(known)))


def _parse_lattice(table: pl.DataFrame) -> pl.DataFrame:
    if table.width == 0:
        return pl.DataFrame(schema=LATTICE_SCHEMA)
    if "frame" not in table.columns:
        raise BadInput(
            "lattice table",
            expected="a column 'frame' and any of " + ", ".join(list(LATTICE_SCHEMA)[1:]),
            got="columns " + ", ".join(table.columns),
            todo="Give one row a frame.",
        )
    columns = [
        (pl.col(name) if name in table.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in LATTICE_SCHEMA.items()
    ]
    return table.select(columns).sort("frame")
