"""`adatom bench real`: published micrographs; the training used none of their labels."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.analysis.frame import analyse_frame
from adatom.bench.find import Finder
from adatom.bench.peers import run_on_frames
from adatom.bench.rows import Row, row
from adatom.core import GRAPHENE, Calibration, Frame
from adatom.core.arrays import FloatArray
from adatom.errors import BadInput
from adatom.frames import read
from adatom.frames.readers.hdf5 import published_defects
from adatom.training.scores import f1_within

_NEAR_A = 0.6  # largest distance between a label and its atom, Å
_MATCH_A = 0.5  # the same for simulated frames and for two results of one tool, Å
_BORDER_PX = 10  # atoms nearer to the border are not counted, pixels
_BORDER_A = 0.5  # the same for simulated frames, Å
# Density in the file's unit above which a place is contaminated; the centre of an atom has 0.95.
_CONTAMINATED = 1.5
_NOISE_FACTORS = (2.0, 4.0)  # factors by which the signal-to-noise ratio is lowered
_RAW = ("G-GrainBoundary-4nm.hdf5", "G-dimSi.hdf5", "G-trimSi.hdf5")
_RAW_PIXEL_A = {"G-dimSi.hdf5": 0.0385, "G-trimSi.hdf5": 0.0385}


def bench_real(options: Any, output: Path) -> list[Row]:
    """Run the benchmark.

    Parameters
    ----------
    options
        See `BenchOptions`.
    output
        Directory for the frames that other tools read.

    Raises
    ------
    BadInput
        If `options.data` does not have the micrographs.
    """
    data: Path | None = options.data
    if data is None or not (data / "graphene_si_library" / "index.csv").exists():
        raise BadInput(
            "bench real",
            expected="--data DIR with the published micrographs in it",
            got=str(data),
            todo="Name their directory.",
        )
    finder = Finder(options.weights)
    rows = _library(finder, data / "graphene_si_library", 4 if options.quick else 1)
    rows += [_grain_boundary(finder, data / "graphene_raw")]
    rows += [_contaminated(finder, data / "simulated")]
    rows += _noisier(finder, data / "graphene_raw", options.peers, output)
    return rows


def _likely_atoms(finder: Finder, frame: Frame) -> tuple[FloatArray, NDArray[np.str_]]:
    table = finder(frame).atoms
    return table.xy[table.is_likely], table.elements[table.is_likely]


def _library(finder: Finder, folder: Path, every: int) -> list[Row]:
    """Recall of the labelled Si whose label lies on a bright spot, and names of their defects."""
    kinds: dict[str, dict[str, str]] = defaultdict(dict)
    with (folder / "index.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["si_ok"] == "1":
                kinds[line["file"]][line["defect_key"]] = line["defect_type"]
    found = labelled = named = 0
    for name in sorted(kinds)[::every]:
        frame = read(folder / name)[0]
        result = analyse_frame(frame, finder.ensemble, GRAPHENE)
        silicon = result.atoms.xy[result.atoms.is_likely & (result.atoms.elements == "Si")]
        for key, kind in kinds[name].items():
            labels = published_defects(folder / name, [key])
            truth = frame.calibration.pixel_size_A * labels
            if len(silicon):
                found += int((cKDTree(silicon).query(truth)[0] < _NEAR_A).sum())
            labelled += len(truth)
            away = np.hypot(*(result.defects.xy - truth.mean(axis=0)).T)
            at = [own for own, d in zip(result.defects.kinds, away, strict=True) if d < _NEAR_A]
            named += at == [kind]
    share = found / max(labelled, 1)
    of = sum(len(kinds[name]) for name in sorted(kinds)[::every])
    return [
        row(
            f"Si library: Si within {_NEAR_A} Å of the labels",
            f"{found} of {labelled} ({100 * share:.1f} %)",
            "at least 99 %",
            met=share >= 0.99,
        ),
        row(
            f"Si library: defects with the name of the label, within {_NEAR_A} Å of it",
            f"{named} of {of} ({100 * named / max(of, 1):.1f} %)",
            "at least 95 %",
            met=named >= 0.95 * of,
        ),
    ]


def _grain_boundary(finder: Finder, folder: Path) -> Row:
    """F1 against the published positions of the 4 nm grain boundary."""
    frame = read(folder / _RAW[0])[0]
    table = folder / "G-GrainBoundary-4nm_published_network_coordinates.csv"
    published = frame.calibration.xy(np.loadtxt(table, delimiter=",", skiprows=1))
    xy, _ = _likely_atoms(finder, frame)
    margin = _BORDER_PX * frame.calibration.pixel_size_A
    far = np.asarray(frame.calibration.extent_xy(frame.shape))
    score = f1_within(xy, published, far, margin, _NEAR_A)
    return row(
        "grain boundary: F1 against the published positions",
        f"{score:.4f}",
        "at least 0.995",
        met=score >= 0.995,
    )


def _contaminated(finder: Finder, folder: Path) -> Row:
    """F1 on simulated contaminated graphene, outside of the contamination."""
    scores, asked = [], 0
    for path in sorted(folder.glob("graphene_contaminated_*.npz")):
        with np.load(path, allow_pickle=False) as kept:
            image = np.asarray(kept["image"], dtype=np.float32)
            rc = np.asarray(kept["positions"], dtype=np.float64)
            dirty = np.asarray(kept["density"]) > _CONTAMINATED
            px = float(kept["sampling"])
        frame = Frame(image, Calibration(px), source=path.name)
        xy, _ = _likely_atoms(finder, frame)
        truth = frame.calibration.xy(rc)
        far = np.asarray(frame.calibration.extent_xy(frame.shape))
        clean = _clean(dirty, px)
        scores.append(f1_within(xy, truth, far, _BORDER_A, _MATCH_A, keep=clean))
        inside = truth[np.all((truth > _BORDER_A) & (truth < far - _BORDER_A), axis=1)]
        asked += int(clean(inside).sum())
    return row(
        "simulated contaminated graphene: F1 outside of the contamination",
        " / ".join(f"{s:.3f}" for s in scores) + f" ({asked} true atoms)",
        "at least 0.98 each",
        met=bool(scores) and min(scores) >= 0.98,
    )


def _clean(dirty: NDArray[np.bool_], px: float) -> Any:
    """Make a function that tells which positions, shape (atom, 2), Å, are not contaminated."""

    def keep(xy: FloatArray) -> NDArray[np.bool_]:
        r = np.clip(np.round(xy[:, 1] / px).astype(int), 0, dirty.shape[0] - 1)
        c = np.clip(np.round(xy[:, 0] / px).astype(int), 0, dirty.shape[1] - 1)
        out: NDArray[np.bool_] = ~dirty[r, c]
        return out

    return keep


def _noisier(finder: Finder, folder: Path, peers: Path | None, output: Path) -> list[Row]:
    """Add noise to real frames and compare with the result without added noise."""
    clean = [read(folder / name, pixel_size_A=_RAW_PIXEL_A.get(name))[0] for name in _RAW]
    found = [finder(frame) for frame in clean]
    likely = [f.atoms.xy[f.atoms.is_likely] for f in found]
    frames, truths = [], []
    for factor in _NOISE_FACTORS:
        for k, (frame, seen) in enumerate(zip(clean, found, strict=True)):
            noise = seen.refined.optics.noise
            # The noise is that of binned pixels; raw pixels have a variance larger by their number.
            binned = seen.refined.optics.pixel_size_A / frame.calibration.pixel_size_A
            variance = noise.variance(frame.data) * binned**2
            rng = np.random.default_rng([7, k])
            extra = rng.normal(0.0, 1.0, frame.shape) * np.sqrt(variance * (factor**2 - 1))
            noisy = (frame.data + extra).astype(np.float32)
            frames.append(Frame(noisy, frame.calibration, index=k, source=frame.source))
            truths.append(likely[k])
    answers = {"adatom": [_likely_atoms(finder, f)[0] for f in frames]}
    if peers is not None:
        answers |= run_on_frames(peers, clean + frames, output)
    rows = []
    for tool, found_xy in answers.items():
        # Another tool is compared with its own result on the frame without added noise.
        own = found_xy[: len(clean)] if tool != "adatom" else None
        noisy_xy = found_xy[len(clean) :] if own is not None else found_xy
        scores = []
        for i, xy in enumerate(noisy_xy):
            truth = truths[i] if own is None else own[i % len(clean)]
            frame = frames[i]
            far = np.asarray(frame.calibration.extent_xy(frame.shape))
            margin = _BORDER_PX * frame.calibration.pixel_size_A
            scores.append(f1_within(xy, truth, far, margin, _MATCH_A))
        parts = np.array(scores).reshape(len(_NOISE_FACTORS), -1)
        text = "; ".join(" / ".join(f"{v:.3f}" for v in part) for part in parts)
        rows.append(
            row(
                f"{tool}: F1 against its undegraded result at 1/2 and 1/4 of the signal-to-noise "
                "(boundary / dimer / trimer)",
                text,
                "a curve",
                met=True,
            )
        )
    return rows
