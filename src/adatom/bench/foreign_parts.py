"""Random frames of which a part shows no specimen, with its true mask.

Programs write borders, bars and text into frames, turn and shift them; microscopes stop in the
middle of a scan or record the beam's way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from adatom.core import Frame, LabelledFrame
from adatom.core.arrays import BoolArray, FloatArray
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.synthesize import random_labelled
from adatom.materials.library import load_material

_MATERIALS = ("graphene", "graphene", "MoS2", "h-BN", "SrTiO3")  # graphene as often as the others
_PIXELS = (160, 288)  # least and largest edge of a frame, pixels
_PIXEL_A = (0.08, 0.2)  # range of pixel sizes at graphene's scale, Å
_COUNTS = (0.3, 20.0)  # range of counts at the peak of the host
_ANALOG, _EIGHT_BITS = 0.25, 0.2  # shares of the frames that are stored in these ways
_READOUT = 0.3  # standard deviation of the noise of an analog detector, counts
_WORDS = ("2 nm", "5 nm", "1 nm", "10 Å", "HAADF", "60 kV", "MAG 10 Mx", "0.5 nm", "ADF 80 kV")
_HALF = 0.5  # weight of the fill in an interpolated pixel from which it counts as fill

Parts = tuple[FloatArray, BoolArray]  # a frame and which of its pixels show no specimen
Spoil = Callable[[FloatArray, np.random.Generator], Parts]


@dataclass(frozen=True, slots=True, eq=False)
class SpoiledFrame:
    """A frame with a part that shows no specimen.

    Parameters
    ----------
    kind
        What the part is, in words.
    truth
        The frame with its atoms, of which those in the part are not to be seen.
    foreign
        True where a pixel shows no specimen, shape (row, col).
    counts
        Counts at the peak of the host.
    """

    kind: str
    truth: LabelledFrame
    foreign: BoolArray
    counts: float


def spoiled_frames(count: int, seed: int) -> Iterator[SpoiledFrame]:
    """Draw frames of random materials, doses and storage, each kind of part in turn.

    Parameters
    ----------
    count
        Number of frames.
    seed
        Seed of the first; frames do not depend on the number of others.
    """
    kinds = list(SPOILED)
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        kind = kinds[i % len(kinds)]
        truth, counts = _specimen(rng)
        image, foreign = SPOILED[kind](np.asarray(truth.frame.data, dtype=np.float64), rng)
        frame = Frame(
            np.asarray(_stored(image, rng), dtype=np.float32), truth.frame.calibration, index=i
        )
        yield SpoiledFrame(kind, replace(truth, frame=frame), foreign, counts)


def _specimen(rng: np.random.Generator) -> tuple[LabelledFrame, float]:
    material = load_material(_MATERIALS[int(rng.integers(len(_MATERIALS)))])
    px = float(rng.uniform(*_PIXEL_A)) * material.scale
    counts = float(np.exp(rng.uniform(*np.log(_COUNTS))))
    conditions = replace(Conditions.random(rng, material), pixel_size_A=px, counts=counts)
    edge = int(rng.integers(*_PIXELS))
    truth = random_labelled(material, rng, field_A=edge * px, conditions=conditions)
    if rng.random() < _ANALOG:
        image = truth.frame.data + rng.normal(0.0, _READOUT, truth.frame.shape)
        frame = Frame(np.asarray(image, dtype=np.float32), truth.frame.calibration)
        truth = replace(truth, frame=frame)
    return truth, counts


def _stored(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """As a file keeps it: as it is, or in eight bits."""
    if rng.random() >= _EIGHT_BITS:
        return image
    low, high = float(image.min()), float(image.max())
    return np.round(255.0 * (image - low) / max(high - low, 1e-12))


def _fill(image: FloatArray, rng: np.random.Generator) -> float:
    """A value that programs fill with: zero, an end of the range, a mean, or one far outside."""
    values = (0.0, image.min(), image.max(), image.mean(), np.median(image), 2.0 * image.max())
    return float(values[int(rng.integers(len(values)))])


def _border(image: FloatArray, rng: np.random.Generator) -> Parts:
    foreign = np.zeros(image.shape, dtype=np.bool_)
    for axis in (0, 1):
        for side in rng.permutation(2)[: int(rng.integers(1, 3))]:
            width = int(rng.integers(2, image.shape[axis] // 5))
            lines = np.moveaxis(foreign, axis, 0)
            lines[slice(0, width) if side else slice(-width, None)] = True
    return np.where(foreign, _fill(image, rng), image), foreign


def _half_scanned(image: FloatArray, rng: np.random.Generator) -> Parts:
    foreign = np.zeros(image.shape, dtype=np.bool_)
    line = int(image.shape[0] * rng.uniform(0.3, 0.9))
    foreign[line + 1 :] = True
    foreign[line, int(rng.integers(image.shape[1])) :] = True
    return np.where(foreign, _fill(image, rng), image), foreign


def _turned(image: FloatArray, rng: np.random.Generator, *, repeat: bool) -> Parts:
    degrees = float(rng.uniform(2.0, 43.0) * rng.choice([-1.0, 1.0]) + 90.0 * rng.integers(4))
    order = int(rng.choice([0, 1, 3]))
    how = {"reshape": False, "order": order}
    fill = {"mode": "nearest"} if repeat else {"cval": _fill(image, rng)}
    inside = ndimage.rotate(np.ones(image.shape), degrees, reshape=False, order=1)
    return ndimage.rotate(image, degrees, **how, **fill), inside < _HALF


def _edge_repeated(image: FloatArray, rng: np.random.Generator) -> Parts:
    shift = rng.uniform(2.0, 0.15 * min(image.shape), 2) * rng.choice([-1.0, 1.0], 2)
    if rng.random() < 0.5:
        shift = np.round(shift)
    order = int(rng.choice([0, 1]))
    inside = ndimage.shift(np.ones(image.shape), shift, order=1)
    return ndimage.shift(image, shift, order=order, mode="nearest"), inside < _HALF


def _sheared(image: FloatArray, rng: np.random.Generator) -> Parts:
    """A drift that was corrected line by line."""
    lines = np.arange(image.shape[0])
    slope = rng.uniform(0.02, 0.15) * rng.choice([-1.0, 1.0])
    at = np.stack(
        np.broadcast_arrays(lines[:, None], np.arange(image.shape[1]) + slope * lines[:, None])
    )
    inside = (at[1] >= 0) & (at[1] <= image.shape[1] - 1)
    value = _fill(image, rng)
    out = ndimage.map_coordinates(image, at, order=1, mode="constant", cval=value)
    return np.where(inside, out, value), ~inside


def _fly_back(image: FloatArray, rng: np.random.Generator) -> Parts:
    foreign = np.zeros(image.shape, dtype=np.bool_)
    foreign[:, : int(rng.integers(2, image.shape[1] // 12))] = True
    bright = rng.poisson(image.max() * rng.uniform(1.0, 3.0) + 0.5 * np.maximum(image, 0.0))
    return np.where(foreign, bright, image), foreign


def _annotated(image: FloatArray, rng: np.random.Generator, *, bar: bool, box: bool) -> Parts:
    """A scale bar with its label, or text alone, on the specimen or in a box."""
    rows, cols = image.shape
    size = int(np.clip(rows * rng.uniform(0.05, 0.1), 11, 28))
    font = ImageFont.load_default(size)
    word = _WORDS[int(rng.integers(len(_WORDS)))]
    wide = int(font.getlength(word))
    long = int(max(cols * rng.uniform(0.15, 0.35), wide)) if bar else wide
    thick = max(size // int(rng.integers(3, 6)), 2)
    tall = size + (thick + size // 2 if bar else 0)
    left = int(rng.integers(4, max(cols - long - 8, 5)))
    top = 4 if rng.random() < 0.3 else max(rows - tall - 12, 4)
    ink, field = Image.new("L", (cols, rows)), np.zeros(image.shape, dtype=np.bool_)
    draw = ImageDraw.Draw(ink)
    draw.text((left, top), word, fill=255, font=font)
    if bar:
        draw.rectangle([left, top + tall - thick, left + long, top + tall], fill=255)
    share = np.asarray(ink) / 255.0
    if rng.random() < 0.3:
        share = np.round(share)  # no smooth edges
    pad = int(rng.integers(3, 9))
    field[max(top - pad, 0) : top + tall + pad, max(left - pad, 0) : left + long + pad] = True
    dark, light = image.min(), image.max()
    # Dark ink on a frame whose usual value is the darkest is not to be seen, by nobody.
    if rng.random() < 0.3 and np.median(image) > dark + 0.1 * (light - dark):
        dark, light = light, dark
    under = np.where(field, dark, image) if box else image
    return under * (1.0 - share) + light * share, field if box else share > 0.0


SPOILED: dict[str, Spoil] = {
    "a border of one value": _border,
    "a half-scanned frame": _half_scanned,
    "turned, corners of one value": lambda image, rng: _turned(image, rng, repeat=False),
    "turned, the edge repeated": lambda image, rng: _turned(image, rng, repeat=True),
    "shifted, the edge repeated": _edge_repeated,
    "drift corrected line by line": _sheared,
    "columns of the fly-back": _fly_back,
    "a scale bar": lambda image, rng: _annotated(image, rng, bar=True, box=False),
    "a scale bar in a box": lambda image, rng: _annotated(image, rng, bar=True, box=True),
    "text": lambda image, rng: _annotated(image, rng, bar=False, box=False),
    "text in a box": lambda image, rng: _annotated(image, rng, bar=False, box=True),
    "nothing": lambda image, _: (image, np.zeros(image.shape, dtype=np.bool_)),
}
