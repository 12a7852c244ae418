"""Draw `find.png`: what is found in benchmark frames of three doses, beside the truth."""

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np

from adatom.bench.find import Finder
from adatom.bench.sets import convolution_set

finder = Finder(None)
scene = convolution_set(3, pixels=160)[1]
figure, axes = plt.subplots(2, 3, figsize=(12, 8), layout="constrained")
for column, dose in enumerate((0.3, 1.0, 20.0)):
    truth = scene.frame(dose, 5)
    found = finder(truth.frame)
    px = truth.frame.calibration.pixel_size_A
    for row in (0, 1):
        ax = axes[row, column]
        ax.imshow(truth.frame.data, cmap="gray", vmax=np.percentile(truth.frame.data, 99.7))
        ax.set_axis_off()
        ax.plot([8, 8 + 10 / px], [152, 152], color="white", lw=4, solid_capstyle="butt")
        ax.text(8, 148, "1 nm", color="white", fontsize=15, fontweight="bold", va="bottom")
    axes[0, column].set_title(f"{dose:g} counts at a carbon peak", fontsize=18)
    ax = axes[1, column]
    sure = found.atoms.column("p_exists") > 0.5
    silicon = found.atoms.elements == "Si"
    for mask, colour in ((sure & ~silicon, "tab:cyan"), (sure & silicon, "tab:orange")):
        ax.plot(*(found.atoms.xy[mask] / px).T, ".", color=colour, ms=4)
    empty = found.vacancies_xy[found.p_empty > 0.5] / px
    ax.plot(*empty.T, "x", color="tab:red", ms=7)
    ax.plot(*(truth.vacancies_xy / px).T, "s", mfc="none", color="yellow", ms=10)
    ax.plot(*(truth.xy[truth.species > 0] / px).T, "s", mfc="none", color="white", ms=10)
figure.supxlabel(
    "C (cyan), Si (orange), vacancies (×). Squares: true Si (white), true vacancies (yellow).",
    fontsize=16,
)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=70, pil_kwargs={"optimize": True})
