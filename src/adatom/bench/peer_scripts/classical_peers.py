# /// script
# requires-python = ">=3.11"
# dependencies = ["atomap", "numpy", "scikit-image", "scipy", "trackpy"]
# ///
"""Atomap, trackpy and scikit-image's LoG on a directory of frames, for `adatom bench find --peers`.

The script runs in another Python environment, where adatom is not installed. No labels are used.
The parameters of each tool follow from lengths in Å, chosen once for graphene, and the pixel size.
One rule decides for all three tools which candidates are atoms (`strong`). The tools know no
elements, so a second rule names the Si for all three (`elements`). Frames are reflected at the
edges for tools that drop atoms near an edge.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

# Every tool is timed on one core; the variables must be set before numpy is imported.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]
Found = tuple[Array, Array | None]  # x and y, and sigma where the tool gives one, in pixels
Locate = Callable[
    [Array, Array, float], Found
]  # of the raw frame, the flattened one, the Å of a px

SMOOTH_A = 0.3  # Gaussian width of the smoothing, Å; a little less than a probe
HOLLOW_A = 3.0  # window of the background, Å; wider than a hexagon, so that it contains a hollow
PEAKS_APART_A = 0.4  # smallest distance along rows and columns, Å, also of strained neighbours
SPOTS_APART_A = 0.8  # smallest distance of atoms for trackpy, Å; a bond is 1.42 Å
DIAMETER_A = 1.3  # diameter of an atom for trackpy, Å
BLOB_SIGMA_A = (0.4, 0.6)  # widths of the LoG, Å; at 0.3 noise makes blobs at low doses
ATOM_SHARE = 0.5  # an atom has more than this share of the third quartile, see `strong`
SEEN = 6.0  # standard deviations of the noise; lower heights are noise only, see `strong`
SI_CONTRAST = 2.0  # height of Si over that of C; between 1 and the true ratio of about 4
FIT_SECONDS = 30.0  # time limit for Atomap's fit of one frame, s
FIT_TRIAL = 20  # atoms after which the time of the fit is estimated
FEW = 10  # Atomap's lists of neighbours need more atoms than this


def main() -> None:
    """Find the atoms of every frame with one tool and write one JSON file."""
    parser = argparse.ArgumentParser(description="Find atoms with a classical tool.")
    parser.add_argument("--tool", choices=sorted(TOOLS), required=True)
    parser.add_argument("--frames", type=Path, required=True)
    for unused in ("--train", "--model", "--members", "--steps"):
        parser.add_argument(unused, help="of the trained peers; ignored here")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    warnings.simplefilter("ignore")
    package, make = TOOLS[args.tool]
    with quiet():
        locate = make()
    frames = read_frames(args.frames)
    if frames:  # the first call compiles and loads; it is not timed
        find(frames[0][0][:96, :96], frames[0][1], locate)
    rows = [find(image, px, locate) for image, px in frames]
    result = {
        "tool": args.tool,
        "version": metadata.version(package),
        "train_seconds": 0.0,
        "peak_memory_MB": peak_memory_MB(),
        "threads": 1,
        "frames": rows,
    }
    args.out.write_text(json.dumps(result), encoding="utf-8")


def find(image: Array, px: float, locate: Locate) -> dict[str, Any]:
    """Find the atoms of one frame.

    Returns
    -------
    Positions, elements, sigma where the tool gives one, and the seconds from the raw frame to them.
    """
    began, cpu = time.perf_counter(), time.process_time()
    flat = flattened(image, px)
    with quiet():
        xy, sigma = locate(image, flat, px)
    kept = inside(xy, image.shape)
    xy, sigma = xy[kept], None if sigma is None else sigma[kept]
    element = elements(xy, flat)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "xy_A": (xy * px).tolist(),
        "element": element,
        "sigma_A": None
        if sigma is None
        else [float(s) * px if np.isfinite(s) and s > 0 else None for s in sigma],
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


def flattened(image: Array, px: float) -> Array:
    """Smooth the frame and subtract the background, which is that of the hollows."""
    smooth = ndimage.gaussian_filter(image.astype(np.float64), SMOOTH_A / px)
    hollow = ndimage.minimum_filter(smooth, size=max(3, round(HOLLOW_A / px)))
    level = ndimage.gaussian_filter(hollow, HOLLOW_A / 2 / px)
    out: Array = np.maximum(smooth - level, 0.0)
    return out


def strong(values: Array, heights: Array, noise: float) -> Array:
    """Decide which candidates are atoms: those above half the third quartile of `values`.

    Most candidates are C atoms, so the third quartile is the value of a C atom at any dose; noise
    peaks are below half of it. If the third quartile of the heights is less than six times the
    noise of a smoothed pixel, the frame contains only noise, and no candidate is an atom.
    """
    if not len(values) or np.quantile(heights, 0.75) < SEEN * noise:
        return np.zeros(len(values), dtype=bool)
    out: Array = values > ATOM_SHARE * np.quantile(values, 0.75)
    return out


def noise_of(image: Array, px: float) -> float:
    """Noise of a pixel of the smoothed frame, from the mixed second differences of the raw one."""
    mixed = np.diff(np.diff(image, axis=0), axis=1)
    averaged = 2 * np.sqrt(np.pi) * max(SMOOTH_A / px, 0.5)
    return float(mixed.std() / (2 * averaged))


def elements(xy: Array, flat: Array) -> list[str]:
    """Name every atom Si that is more than twice as high as the median atom."""
    if not len(xy):
        return []
    heights = at(flat, xy)
    limit = SI_CONTRAST * np.median(heights)
    return ["Si" if height > limit else "C" for height in heights]


def inside(xy: Array, shape: tuple[int, ...]) -> Array:
    """Tell which positions lie on a pixel of the frame."""
    out: Array = np.all((xy >= -0.5) & (xy < (shape[1] - 0.5, shape[0] - 0.5)), axis=1)
    return out


def at(image: Array, xy: Array) -> Array:
    """Values of an image at positions between pixels."""
    out: Array = ndimage.map_coordinates(image, xy[:, ::-1].T, order=1, mode="nearest")
    return out


def make_atomap() -> Locate:
    """Atomap as in its guide: peaks, centre of mass, then a 2-D Gaussian for each atom."""
    api = importlib.import_module("atomap.api")  # its parts import each other: this comes first
    finding = importlib.import_module("atomap.atom_finding_refining")
    hyperspy = importlib.import_module("hyperspy.api")
    hyperspy.set_log_level("CRITICAL")

    def locate(image: Array, flat: Array, px: float) -> Found:
        apart = max(1, int(PEAKS_APART_A / px))
        edge = apart + 1
        padded = np.pad(flat, edge, mode="reflect")
        xy = finding.get_atom_positions(
            hyperspy.signals.Signal2D(padded), separation=apart, threshold_rel=0.0
        )
        xy = xy - edge
        xy = xy[inside(xy, flat.shape)]
        heights = at(flat, xy)
        xy = xy[strong(heights, heights, noise_of(image, px))]
        if len(xy) < FEW:  # too few for its lists of neighbours
            return xy.astype(np.float64), None
        lattice = api.Sublattice(xy, image=flat)
        lattice.find_nearest_neighbors()
        lattice.refine_atom_positions_using_center_of_mass(
            percent_to_nn=0.4, show_progressbar=False
        )
        center = np.column_stack([lattice.x_position, lattice.y_position])
        if not fit_gaussians(lattice, flat):
            return center, None
        return np.column_stack([lattice.x_position, lattice.y_position]), None

    return locate


def fit_gaussians(lattice: Any, image: Array) -> bool:
    """Refine by Atomap's 2-D Gaussians; False if the estimated time exceeds the limit."""
    began = time.perf_counter()
    atoms = lattice.atom_list
    for i, atom in enumerate(atoms):
        if i >= FIT_TRIAL and (time.perf_counter() - began) * len(atoms) / i > FIT_SECONDS:
            return False
        atom.refine_position_using_2d_gaussian(image, percent_to_nn=0.4)
    return True


def make_trackpy() -> Locate:
    """Trackpy's Crocker-Grier finder; its own estimate of the error is the sigma."""
    trackpy = importlib.import_module("trackpy")
    trackpy.quiet()

    def locate(image: Array, flat: Array, px: float) -> Found:
        diameter = 2 * max(1, int(np.ceil((DIAMETER_A / px - 1) / 2))) + 1
        table = trackpy.locate(
            np.pad(image, diameter, mode="reflect"),
            diameter=diameter,
            separation=SPOTS_APART_A / px,
            noise_size=SMOOTH_A / px,
            percentile=0,
        )
        if not len(table):  # it then lacks some columns
            return np.zeros((0, 2)), np.zeros(0)
        xy = table[["x", "y"]].to_numpy() - diameter
        mass = table["mass"].to_numpy()
        kept = strong(mass, at(flat, xy), noise_of(image, px))
        return xy[kept], table["ep"].to_numpy()[kept]

    return locate


def make_log() -> Locate:
    """scikit-image's Laplacian of Gaussian, its whole pixels refined by a parabola."""
    feature = importlib.import_module("skimage.feature")

    def locate(image: Array, flat: Array, px: float) -> Found:
        low, high = (sigma / px for sigma in BLOB_SIGMA_A)
        blobs = feature.blob_log(
            image.astype(np.float64), min_sigma=low, max_sigma=high, num_sigma=4, threshold=0.0
        )
        xy = blobs[:, 1::-1]
        heights = at(flat, xy)
        return parabola(flat, xy[strong(heights, heights, noise_of(image, px))]), None

    return locate


def parabola(image: Array, xy: Array) -> Array:
    """Refine pixel positions to the maximum of the parabola through their neighbours."""
    rows, cols = image.shape
    x = np.clip(xy[:, 0].astype(int), 1, cols - 2)
    y = np.clip(xy[:, 1].astype(int), 1, rows - 2)
    here = image[y, x]
    shift = []
    for before, after in ((image[y, x - 1], image[y, x + 1]), (image[y - 1, x], image[y + 1, x])):
        bend = np.minimum(before - 2 * here + after, -1e-12)
        shift.append(np.clip((before - after) / (2 * bend), -0.5, 0.5))
    out: Array = xy + np.stack(shift, axis=1)
    return out


def read_frames(folder: Path) -> list[tuple[Array, float]]:
    """Read the frames of a manifest: image and pixel size in Å."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return [
        (np.load(folder / one["file"]).astype(np.float32), float(one["pixel_size_A"]))
        for one in manifest["frames"]
    ]


def quiet() -> contextlib.redirect_stdout[io.StringIO]:
    """Discard the progress output of the tools."""
    return contextlib.redirect_stdout(io.StringIO())


def peak_memory_MB() -> float:
    """Largest resident memory of this process so far; NaN on Windows, which does not tell."""
    try:
        import resource
    except ImportError:
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


TOOLS: dict[str, tuple[str, Callable[[], Locate]]] = {
    "atomap": ("atomap", make_atomap),
    "trackpy": ("trackpy", make_trackpy),
    "log": ("scikit-image", make_log),
}

if __name__ == "__main__":
    main()
