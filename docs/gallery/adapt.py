"""Draw `adapt-NAME.png`: a real frame before and after iterative training, without its labels.

    python docs/gallery/adapt.py NAME MATERIAL PIXEL_SIZE_A ADAPTED.safetensors FRAME

PIXEL_SIZE_A may be 0 for the file's own; `adatom adapt` makes the adapted ensemble. Two scores need
no label: the relative width of the nearest distances between atoms, and the share of atoms with the
expected number of neighbours.
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from adatom.analysis.frame import find_atoms
from adatom.bench.adapt_real import ensemble_for
from adatom.features.member_scores import FAR, coordinations
from adatom.frames import read
from adatom.learning import weights

SHOWN_PX = 200


def label_free(found, material, far):
    xy = found.atoms.xy[found.atoms.column("p_exists") > 0.5]
    if len(xy) < 5:
        return f"{len(xy)} atoms"
    nearest = cKDTree(xy).query(xy, k=2)[0][:, 1]
    width = 1.4826 * np.median(np.abs(nearest - np.median(nearest))) / np.median(nearest)
    text = f"{len(xy)} atoms, nearest {np.median(nearest):.2f} Å ± {100 * width:.1f} %"
    if material.coordination:
        bond = material.bond_length_A
        inner = np.all((xy > 1.5 * bond) & (xy < far - 1.5 * bond), axis=1)
        around = cKDTree(xy).query_ball_point(xy[inner], FAR * bond, return_length=True)
        expected = coordinations(material)
        right = np.mean(np.isin(np.asarray(around) - 1, expected)) if inner.any() else 0
        text += f", {100 * right:.1f} % with {' or '.join(map(str, expected))} neighbours"
    return text


def draw_bar(ax, pixel_size_A, shape):
    goal = shape[1] * pixel_size_A / 4
    length = max(n for n in (1, 2, 5, 10, 20, 50, 100) if n <= max(goal, 1))
    x, y = 0.04 * shape[1], 0.95 * shape[0]
    ax.plot([x, x + length / pixel_size_A], [y, y], color="white", lw=5, solid_capstyle="butt")
    text = f"{length / 10:g} nm" if length >= 10 else f"{length} Å"
    ax.text(x, 0.935 * shape[0], text, color="white", fontsize=15, fontweight="bold")


def main(name, material_name, pixel_size, adapted, path):
    material, start = ensemble_for(material_name)
    frame = read(path, pixel_size_A=float(pixel_size) or None)[0]
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.4), layout="constrained")
    middle = [slice(max(n // 2 - SHOWN_PX // 2, 0), n // 2 + SHOWN_PX // 2) for n in frame.shape]
    part = frame.data[middle[0], middle[1]]
    corner = np.array([middle[1].start, middle[0].start])
    titles = [name, "before", "after"]
    far = np.asarray(frame.calibration.extent_xy(frame.shape))
    for k, ax in enumerate(axes):
        ax.imshow(part, cmap="gray", vmin=np.percentile(part, 1), vmax=np.percentile(part, 99.7))
        ax.set_axis_off()
        draw_bar(ax, frame.calibration.pixel_size_A, part.shape)
        if k:
            ensemble = start if k == 1 else weights.load(Path(adapted))
            found = find_atoms(frame, ensemble, material)
            titles[k] += f": {label_free(found, material, far)}"
            sure = found.atoms.column("p_exists") > 0.5
            for i, species in enumerate(material.species):
                rows = sure & (found.atoms.elements == species)
                xy = found.atoms.xy[rows] / frame.calibration.pixel_size_A - corner
                inside = np.all((xy >= 0) & (xy < part.shape[::-1]), axis=1)
                ax.plot(*xy[inside].T, "o", mfc="none", ms=6, color=f"C{i}", label=species)
            ax.legend(loc="lower right", fontsize=12)
        ax.set_title(titles[k].replace(", ", "\n", 1), fontsize=15)
    path = Path(__file__).with_name(f"adapt-{name}.png")
    figure.savefig(path, dpi=58)
    with Image.open(path) as image:  # a palette is a third of the size
        image.convert("RGB").quantize(
            192, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        ).save(path, optimize=True)
    print(titles)


if __name__ == "__main__":
    main(*sys.argv[1:])
