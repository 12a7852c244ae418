"""`adatom bench alloys`: every shipped crystal, with columns brighter and dimmer than its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from adatom.analysis.flags import Region
from adatom.analysis.frame import analyse_frame
from adatom.bench.rows import Row, row
from adatom.core import LabelledFrame, Material
from adatom.core.arrays import BoolArray, FloatArray
from adatom.features.calibration.calibrator import MATCH_A, match_truth
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.crystal import draw_specimen
from adatom.frames.simulate.synthesize import image_specimen
from adatom.learning.weights import load_shipped
from adatom.materials.library import load_material, material_names

_SEED = 73_000_000  # far from those of training and calibration
_PIXELS = 256  # edge of a frame, pixels
_PIXEL_A = 0.15  # at graphene's scale, Å
_PROBE_A = 0.43  # standard deviation of the probe at graphene's scale, Å
_COUNTS = 20.0  # at the peak of the host
_SHARE = 0.3  # of the columns that are of the other element
# Brightness of such a column over its own: of a lighter and of a heavier element.
_OTHERS = {"lighter": (0.35, 0.7), "heavier": (1.4, 2.2)}
_SURE_P = 0.9
_BORDER_A = 2.0  # columns nearer to the border are not counted, at graphene's scale, Å
_MOST_SURE = 0.01  # largest share of the columns that may be invented and sure
_MOST_SILENT = 0.05  # largest share that may be missed where no warning says so


@dataclass(slots=True)
class Counts:
    """Columns of some frames: all inside the border, missed ones, and invented ones."""

    columns: int = 0
    missed: int = 0
    named: int = 0  # missed ones in a region that a warning names
    invented: int = 0
    sure: int = 0  # invented ones with p_exists above 0.9


def bench_alloys(options: Any, output: Path) -> list[Row]:  # noqa: ARG001 (as all benchmarks)
    """Count columns that are missed and invented in alloys, and whether warnings name them.

    Parameters
    ----------
    options
        See `BenchOptions`.
    output
        Not used: nothing is written.
    """
    crystals = [m for m in map(load_material, material_names()) if m.has_lattice]
    rows = []
    for material in crystals[:: 3 if options.quick else 1]:
        ensemble = load_shipped(material.name)
        for kind, factors in _OTHERS.items():
            total = Counts()
            for truth in alloys(material, factors):
                result = analyse_frame(truth.frame, ensemble, material)
                flags = result.flags
                regions = (*flags.missed_regions, *flags.unlike_regions, *flags.covered_regions)
                whole = flags.is_out_of_distribution
                count_columns(total, truth, result.atoms, regions, material.scale, whole=whole)
            rows.append(row_of(f"{material.name}, 30 % of a {kind} element", total))
    return rows


def alloys(
    material: Material, factors: tuple[float, float], count: int = 1
) -> Iterator[LabelledFrame]:
    """Simulate frames of a crystal, a third of whose columns have another brightness.

    Parameters
    ----------
    material
        A material with a lattice; stackings, boundaries and point defects are those of training.
    factors
        Least and largest brightness of such a column over its own.
    count
        Number of frames.
    """
    scale = material.scale
    pixel = _PIXEL_A * scale
    probe = _PROBE_A * scale if material.probe_sigma_A is None else np.mean(material.probe_sigma_A)
    conditions = Conditions(
        pixel_size_A=pixel,
        probe_sigma_A=(float(probe), float(probe)),
        counts=_COUNTS,
        background=0.1,
    )
    for i in range(count):
        rng = np.random.default_rng([_SEED, i])
        specimen = draw_specimen(material, (pixel * _PIXELS, pixel * _PIXELS), rng)
        own = np.ones(len(specimen.xy)) if specimen.brightness is None else specimen.brightness
        factor = np.where(rng.random(len(own)) < _SHARE, rng.uniform(*factors, len(own)), 1.0)
        changed = replace(specimen, brightness=own * factor)
        yield image_specimen(changed, (_PIXELS, _PIXELS), material, conditions, rng, index=i)


def count_columns(
    total: Counts, truth: LabelledFrame, atoms: Any, regions: Sequence[Region], scale: float,
    *, whole: bool,
) -> None:  # fmt: skip
    """Count the columns of a frame.

    Parameters
    ----------
    total
        What the frame is added to.
    truth
        The frame with its true columns.
    atoms
        What was found in it.
    regions
        Boxes that warnings name, Å.
    scale
        Length scale of the material.
    whole
        A warning names the whole frame.
    """
    far = np.asarray(truth.frame.calibration.extent_xy(truth.frame.shape))

    def inner(xy: FloatArray) -> BoolArray:
        border = _BORDER_A * scale
        out: BoolArray = np.all((xy > border) & (xy < far - border), axis=1)
        return out

    likely = atoms.is_likely
    xy, p = atoms.xy[likely], atoms.column("p_exists")[likely]
    true = truth.xy
    hit = match_truth(xy, true, MATCH_A * scale)
    found = np.zeros(len(true), dtype=bool)
    found[hit[hit >= 0]] = True
    missed = true[~found & inner(true)]
    # Columns that stand nearer together than a match cannot both be missed and invented.
    near = cKDTree(true).query(xy)[0] < MATCH_A * scale
    wrong = (hit < 0) & ~near & inner(xy)
    total.columns += int(inner(true).sum())
    total.missed += len(missed)
    total.named += len(missed) if whole else sum(_is_in(at, regions) for at in missed)
    total.invented += int(wrong.sum())
    total.sure += int((wrong & (p > _SURE_P)).sum())


def _is_in(xy: FloatArray, regions: Sequence[Region]) -> bool:
    x, y = xy
    return any(left <= x <= right and top <= y <= bottom for left, top, right, bottom, _ in regions)


def row_of(name: str, total: Counts) -> Row:
    """Make the row of a material and a kind of alloy."""
    text = (
        f"{total.missed} of {total.columns} missed, {total.named} of them in a region that a "
        f"warning names; {total.invented} invented, {total.sure} with p above {_SURE_P}"
    )
    silent = total.missed - total.named
    return row(
        name,
        text,
        f"at most {_MOST_SURE:.0%} invented and sure, {_MOST_SILENT:.0%} missed and not named",
        met=total.sure <= _MOST_SURE * total.columns and silent <= _MOST_SILENT * total.columns,
    )
