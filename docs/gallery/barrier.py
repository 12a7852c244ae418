"""Draw `barrier.png`: the band of a Stone-Wales rotation in LCBOP, free and held flat."""

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from ase.build import graphene

import adatom as ad
from adatom.simulation import BarrierOptions

CELLS = 7
sheet = graphene(size=(CELLS, CELLS, 1), a=2.46, vacuum=10.0)
i = CELLS // 2 * (CELLS + 1) * 2
j = int(np.argsort(sheet.get_distances(i, range(len(sheet)), mic=True))[1])
bond = sheet.get_distance(i, j, mic=True, vector=True)
side = 0.5 * np.array([-bond[1], bond[0], 0.0])
turned = sheet.copy()
turned.positions[[i, j]] = sheet.positions[i] + 0.5 * bond + [-side, side]

figure = plt.figure(figsize=(11, 7), layout="constrained")
grid = figure.add_gridspec(2, 3, height_ratios=(2, 1.4))
axes = figure.add_subplot(grid[0, :])
for flat, colour, label in ((True, "tab:gray", "flat sheet"), (False, "tab:blue", "free sheet")):
    band = ad.barrier(sheet, turned, engine="lammps", options=BarrierOptions(flat=flat, images=11))
    share = band.way_A / band.way_A[-1]
    axes.plot(share, band.energy_eV, "o-", color=colour, label=label)
    axes.axhline(band.barrier_eV, color=colour, ls="--", lw=1)
    told = f"saddle {band.barrier_eV:.2f} eV, {band.negative_modes} negative mode"
    where = 0.0 if flat else 0.66
    axes.text(where, band.barrier_eV, told, color=colour, va="bottom", fontsize=12)
axes.set_xlabel("share of the way", fontsize=13)
axes.set_ylabel("energy (eV)", fontsize=13)
axes.set_ylim(top=10.8)
axes.legend(fontsize=12, loc="lower right")
middle = sheet.positions[i] + 0.5 * bond
shown = ((0, "before", band.images[0]), (1, "saddle", band.saddle), (2, "after", band.images[-1]))
for column, label, atoms in shown:
    ax = figure.add_subplot(grid[1, column])
    xy = atoms.positions[:, :2] - middle[:2]
    xy -= np.median(atoms.positions[:, :2] - band.images[0].positions[:, :2], axis=0)
    near = np.flatnonzero(np.linalg.norm(xy, axis=1) < 6.5)
    for a in near:
        for b in near[near > a]:
            if np.linalg.norm(atoms.positions[a] - atoms.positions[b]) < 1.85:
                ax.plot(*xy[[a, b]].T, color="0.6", lw=2, zorder=1)
    points = ax.scatter(
        *xy[near].T, c=atoms.positions[near, 2] - np.median(atoms.positions[:, 2]),
        cmap="coolwarm", vmin=-0.8, vmax=0.8, s=70, edgecolors="k", zorder=2,
    )  # fmt: skip
    ax.set(xlim=(-5.2, 5.2), ylim=(-3.6, 3.6), aspect="equal")
    ax.set_axis_off()
    ax.set_title(label, fontsize=13)
figure.colorbar(points, ax=figure.axes[1:], shrink=0.8, label="height (Å)")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=75, pil_kwargs={"optimize": True})
