# /// script
# requires-python = ">=3.11"
# dependencies = ["atomai==0.8.1", "numpy", "scipy", "six", "torch>=2.6"]
# ///
"""AtomAI's deep ensemble on a directory of frames, for `adatom bench find --peers`.

The script runs in another Python environment, where adatom is not installed. AtomAI is
used as its documentation recommends: `EnsembleTrainer` with the U-Net, members trained from
scratch, `EnsemblePredictor`, and its `Locator` on the mean map. Its conventions are converted
where they would lose atoms that it found:

- Each frame is scaled to 0..1 on its own; AtomAI scales a whole stack by its brightest pixel.
- Frames are reflected at the bottom and the right to sides that are multiples of 8; the map is
  cropped to the frame.
- `Locator` gives (row, column) and by default drops atoms within 5 pixels of an edge. Here x is the
  column, and no atom is dropped.
- The label discs are drawn here around the exact positions; AtomAI's own functions shift them by a
  pixel.
- `ensemble_locate` keeps only atoms that were found at least ten times, so none of fewer than ten
  members. Here sigma is the same statistic, the scatter of the members' `Locator` positions, around
  the atoms of the mean map; null if fewer than two members found the atom.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import sys
import tempfile
import time
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

# Every tool is timed on one core; the variables must be set before numpy is imported.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[Any]

ELEMENTS = ("C", "Si")
BACKGROUND = len(ELEMENTS)  # AtomAI uses the last class for the background
CLASSES = len(ELEMENTS) + 1
DISC_A = 0.4  # radius of a label: discs of neighbours 1.42 Å apart do not touch
CROP = 256  # edge of a training crop, pixels
CROPS = 256  # largest number of different training crops
SAME_ATOM_A = 0.5  # largest distance between the positions of one atom by two members, Å
WEIGHTS = "ensemble.pt"  # files of the kept ensemble
ABOUT = "ensemble.json"


def main() -> None:
    """Train or load the ensemble, find the atoms of every frame, write one JSON file."""
    parser = argparse.ArgumentParser(description="Find atoms with AtomAI.")
    parser.add_argument("--tool", choices=["atomai"], default="atomai")
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--train", type=Path, help="labelled frames")
    parser.add_argument("--model", type=Path, help="directory that keeps the trained ensemble")
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4, help="crops per step")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    torch, atomai = import_atomai()
    weights, about = ensemble_of(args, torch, atomai)
    predictor = make_predictor(weights, atomai)
    frames = read_frames(args.frames)
    if frames:  # the first pass allocates; it is not timed
        find(frames[0][0][:64, :64], frames[0][1], predictor, atomai)
    rows = [find(image, px, predictor, atomai) for image, px, _ in frames]
    result = {
        "tool": args.tool,
        "version": atomai.__version__,
        "train_seconds": about["train_seconds"],
        "peak_memory_MB": peak_memory_MB(),
        "threads": 1,
        "members": len(weights),
        "steps": about["steps"],
        "frames": rows,
    }
    args.out.write_text(json.dumps(result), encoding="utf-8")


def import_atomai() -> tuple[Any, Any]:
    """Import torch and AtomAI, with an empty torchvision instead of the real one.

    AtomAI imports torchvision only for backbones and image grids that are not used here, and a
    torchvision that does not match torch fails to import. The modules are imported at run time
    because they are not installed in adatom's environment.
    """
    for name, members in {
        "torchvision": (),
        "torchvision.models": ("mobilenet_v2", "resnet50", "vgg16"),
        "torchvision.utils": ("make_grid",),
    }.items():
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        for member in members:
            setattr(module, member, None)
        sys.modules[name] = module
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    with quiet():
        atomai = importlib.import_module("atomai")
    return torch, atomai


def ensemble_of(
    args: argparse.Namespace, torch: Any, atomai: Any
) -> tuple[dict[int, Any], dict[str, Any]]:
    """Read the ensemble in ``--model``, or train one and save it there.

    Returns
    -------
    Weights of every member, and the time and the number of steps of their training.
    """
    if args.model is not None and (args.model / ABOUT).exists():
        about = json.loads((args.model / ABOUT).read_text(encoding="utf-8"))
        weights = torch.load(args.model / WEIGHTS, weights_only=True)
        kept = (about["members"], about["steps"], about["batch"])
        if kept != (args.members, args.steps, args.batch):
            print(f"kept ensemble used: members, steps, batch {kept}", file=sys.stderr)
        return weights, about
    if args.train is None:
        raise SystemExit("no trained ensemble in --model: give labelled frames with --train")
    images, labels = training_crops(read_frames(args.train), args.steps, args.batch)
    began = time.perf_counter()
    weights = train(images, labels, args, atomai)
    about = {
        "members": args.members,
        "steps": args.steps,
        "batch": args.batch,
        "train_seconds": time.perf_counter() - began,
    }
    if args.model is not None:
        args.model.mkdir(parents=True, exist_ok=True)
        torch.save(weights, args.model / WEIGHTS)
        (args.model / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    return weights, about


def training_crops(
    frames: list[tuple[Array, float, Array | None]], steps: int, batch: int
) -> tuple[Array, Array]:
    """Make random crops, rotated and mirrored at random; every second one contains an Si atom.

    Returns
    -------
    Images and labels, the last ``batch`` of them for AtomAI's own test loss.
    """
    rng = np.random.default_rng(1)
    padded = []
    for image, px, atoms in frames:
        if atoms is None:
            raise SystemExit("a training frame has no labels")
        more = [(0, max(0, CROP - side)) for side in image.shape]
        padded.append(
            (
                np.pad(scale(image), more, mode="reflect"),
                np.pad(label_map(image.shape, px, atoms), more, mode="reflect"),
                atoms[atoms[:, 2] == 1, 1::-1] / px,  # row and column of every Si
            )
        )
    with_si = [one for one in padded if len(one[2])]
    if not with_si:
        raise SystemExit("no Si in the training frames: AtomAI's class of Si would be empty")
    images: list[Array] = []
    labels: list[Array] = []
    for i in range(min(steps * batch, CROPS) + batch):
        pool = with_si if i % 2 == 0 else padded
        image, label, si_rc = pool[rng.integers(len(pool))]
        room = np.array(image.shape) - CROP
        corner = rng.integers(room + 1)
        if i % 2 == 0:
            away = rng.integers(CROP // 8, CROP - CROP // 8, 2)
            corner = np.clip(si_rc[rng.integers(len(si_rc))].astype(int) - away, 0, room)
        window = (slice(corner[0], corner[0] + CROP), slice(corner[1], corner[1] + CROP))
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        for source, kept in ((image, images), (label, labels)):
            one = np.rot90(source[window], turns)
            kept.append(one[:, ::-1] if mirrored else one)
    return np.stack(images).astype(np.float32), np.stack(labels).astype(np.int64)


def label_map(shape: tuple[int, ...], px: float, atoms: Array) -> Array:
    """Class of every pixel: a disc of its element about each atom, background elsewhere."""
    rows, cols = np.indices(shape)
    pixels = np.stack([cols.ravel(), rows.ravel()], axis=1) * px
    distance, nearest = cKDTree(atoms[:, :2]).query(pixels)
    # At coarse pixels the disc must still cover a few.
    inside = distance <= max(DISC_A, 1.5 * px)
    classes = np.where(inside, atoms[nearest, 2].astype(np.int64), BACKGROUND)
    out: Array = classes.reshape(shape)
    return out


def train(images: Array, labels: Array, args: argparse.Namespace, atomai: Any) -> dict[int, Any]:
    """Train the members from scratch with AtomAI's own trainer and its defaults."""
    with tempfile.TemporaryDirectory() as scratch, quiet():
        trainer = atomai.trainers.EnsembleTrainer(
            "Unet", batch_norm=True, nb_classes=CLASSES, with_dilation=False
        )
        trainer.compile_ensemble_trainer(
            training_cycles=args.steps,
            batch_size=args.batch,
            plot_training_history=False,
            filename=str(Path(scratch) / "member"),
        )
        held = args.batch
        # AtomAI computes a test loss after every step but does not use it: a small set is enough.
        test = (slice(-held, None), slice(64), slice(64))
        _, weights = trainer.train_ensemble_from_scratch(
            images[:-held], labels[:-held], images[test], labels[test], n_models=args.members
        )
    return dict(weights)


def make_predictor(weights: dict[int, Any], atomai: Any) -> Any:
    """Wrap the members in AtomAI's predictor."""
    skeleton, _ = atomai.nets.init_fcnn_model("Unet", CLASSES, batch_norm=True, with_dilation=False)
    return atomai.predictors.EnsemblePredictor(skeleton, weights, nb_classes=CLASSES, use_gpu=False)


def find(image: Array, px: float, predictor: Any, atomai: Any) -> dict[str, Any]:
    """Find the atoms of one frame.

    Returns
    -------
    Positions, elements, sigma and the seconds from the raw frame to them.
    """
    began, cpu = time.perf_counter(), time.process_time()
    rows, cols = image.shape
    padded = np.pad(scale(image), ((0, -rows % 8), (0, -cols % 8)), mode="reflect")
    with quiet():
        data = predictor.preprocess(padded, norm=False)
        maps = predictor.ensemble_forward(data, (1, CLASSES, *padded.shape))
    maps = maps.transpose(0, 1, 3, 4, 2)[:, :, :rows, :cols]
    locator = atomai.predictors.Locator(dist_edge=0)
    atoms = locator.run(maps.mean(axis=0))[0]
    members = [locator.run(one)[0] for one in maps]
    sigma_px = scatter(atoms, members, SAME_ATOM_A / px)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "xy_A": (atoms[:, 1::-1] * px).tolist(),
        "element": [ELEMENTS[int(c)] for c in atoms[:, 2]],
        "sigma_A": [float(s) * px if np.isfinite(s) else None for s in sigma_px],
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


def scatter(atoms: Array, members: list[Array], radius: float) -> Array:
    """Scatter of the members' positions around each atom, per axis; NaN for fewer than two."""
    near = np.full((len(members), len(atoms), 2), np.nan)
    for i, found in enumerate(members):
        if len(found) and len(atoms):
            distance, nearest = cKDTree(found[:, :2]).query(atoms[:, :2])
            seen = distance <= radius
            near[i, seen] = found[nearest[seen], :2]
    count = np.isfinite(near[..., 0]).sum(axis=0)
    center = np.nansum(near, axis=0) / np.maximum(count, 1)[:, None]
    square = np.nansum((near - center) ** 2, axis=(0, 2)) / (2 * np.maximum(count, 1))
    out: Array = np.where(count >= 2, np.sqrt(square), np.nan)
    return out


def scale(image: Array) -> Array:
    """Scale a frame to 0..1, as AtomAI does to a stack; a constant one is all zeros."""
    low, span = float(image.min()), float(np.ptp(image))
    out: Array = ((image - low) / (span or 1.0)).astype(np.float32)
    return out


def read_frames(folder: Path) -> list[tuple[Array, float, Array | None]]:
    """Read the frames of a manifest: image, pixel size in Å, labels if it names them."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return [
        (
            np.load(folder / one["file"]).astype(np.float32),
            float(one["pixel_size_A"]),
            np.load(folder / one["labels"]) if "labels" in one else None,
        )
        for one in manifest["frames"]
    ]


def quiet() -> contextlib.redirect_stdout[io.StringIO]:
    """Discard the progress output of the tool."""
    return contextlib.redirect_stdout(io.StringIO())


def peak_memory_MB() -> float:
    """Largest resident memory of this process so far; NaN on Windows, which does not tell."""
    try:
        import resource
    except ImportError:
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main()
