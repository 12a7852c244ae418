"""What programs and microscopes put into frames besides the specimen, with its true mask."""

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from adatom.core import GRAPHENE
from adatom.frames.simulate.specimen import lattice_points


def sheet(counts=20.0, *, background=0.15, px=0.12, edge=160, hole_A=0.0):
    """Expected counts of graphene, with a renderer of its own, shape (row, col)."""
    far = edge * px
    xy = lattice_points(GRAPHENE, (far, far), 2.0, 0.2)
    if hole_A:
        xy = xy[np.hypot(*(xy - far / 2).T) > hole_A]
    at = np.arange(edge) * px
    rows, cols = (np.exp(-0.5 * ((at - xy[:, k, None]) / 0.45) ** 2) for k in (1, 0))
    return counts * (rows.T @ cols + background)


def padded(image, value):
    """A border of one value on two sides."""
    mask = np.zeros(image.shape, dtype=bool)
    mask[:15] = mask[:, -11:] = True
    return np.where(mask, value, image), mask


def half_scanned(image, value):
    """A frame that ends in the middle of a line."""
    mask = np.zeros(image.shape, dtype=bool)
    mask[image.shape[0] // 2 + 1 :] = True
    mask[image.shape[0] // 2, 40:] = True
    return np.where(mask, value, image), mask


def turned(image, degrees, value, order=1):
    """A rotated frame with corners of a value, or of the nearest edge where that is None."""

    def turn(x, order, fill):
        how = {"mode": "nearest"} if fill is None else {"cval": fill}
        return ndimage.rotate(x, degrees, reshape=False, order=order, **how)

    return turn(image, order, value), turn(np.ones(image.shape), 1, 0.0) < 0.5


def repeated_edge(image, lines):
    """A shift that repeated the nearest line at the top and the left."""
    inner = image[lines:, lines:]
    mask = np.ones(image.shape, dtype=bool)
    mask[lines:, lines:] = False
    return np.pad(inner, ((lines, 0), (lines, 0)), mode="edge"), mask


def fly_back(image, columns):
    """Bright columns at the left."""
    mask = np.zeros(image.shape, dtype=bool)
    mask[:, :columns] = True
    bright = image.max() + 0.5 * image
    return np.where(mask, np.round(bright), image), mask


def annotated(image, *, box=None, bar=True, text="2 nm"):
    """A scale bar with its text in the highest value, in a box or on the specimen."""
    edge = image.shape[0]
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), edge // 12)
    ink, field = Image.new("L", image.shape[::-1]), Image.new("L", image.shape[::-1])
    draw, left, top = ImageDraw.Draw(ink), edge // 12, int(0.8 * edge)
    draw.text((left, top), text, fill=255, font=font)
    if bar:
        draw.rectangle([left, top + 20, left + edge // 3, top + 24], fill=255)
    ImageDraw.Draw(field).rectangle([left - 7, top - 7, left + edge // 3 + 7, top + 31], fill=255)
    share, mask = np.asarray(ink) / 255.0, np.asarray(field) > 0
    under = image if box is None else np.where(mask, box, image)
    out = under * (1.0 - share) + image.max() * share
    out = np.round(out) if np.array_equal(image, np.round(image)) else out
    return out, mask if box is not None else share > 0
