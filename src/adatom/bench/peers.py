"""Other tools on the same frames, in a separate Python environment."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.core import GRAPHENE, Frame, LabelledFrame
from adatom.errors import StepFailed
from adatom.frames.simulate.synthesize import random_labelled
from adatom.training.scores import Tally, ToolResult

_SCRIPTS = Path(__file__).parent / "peer_scripts"
_TOOLS = {  # script of each tool, and the name of the tool there
    "AtomAI": ("atomai_peer.py", "atomai"),
    "Atomap": ("classical_peers.py", "atomap"),
    "trackpy": ("classical_peers.py", "trackpy"),
    "Laplacian of Gaussian": ("classical_peers.py", "log"),
}
_TRAINING_FRAMES = 60  # simulated frames that AtomAI's training crops are cut from
_TRAINING_SEED = 41_000_000  # far from those of the benchmark and of adatom's training
_TRAINING_FIELD_A = 40.0  # edge of a training frame, Å: holds several crops
_PROCESS_S = 3600  # time limit of one tool, s; AtomAI trains for about 15 minutes


def run_peers(
    python: Path, frames: list[list[LabelledFrame]], folder: Path, trained: Path
) -> dict[str, list[Tally]]:
    """Run every other tool on frames of several doses.

    Parameters
    ----------
    python
        Interpreter of an environment that has the tools.
    frames
        Frames of each dose.
    folder
        Directory for frames and results.
    trained
        Directory for the training frames of AtomAI and its networks; used again by later calls.

    Returns
    -------
    For every tool the scores at each dose; ``seconds`` is the mean time per frame.
    """
    flat = [f for part in frames for f in part]
    write_frames(folder / "frames", flat)
    write_frames(trained / "training", _training_frames(), labels=True)
    out = {}
    for tool in _TOOLS:
        results = run_tool(python, tool, folder / "frames", folder, trained)["frames"]
        tallies, k = [], 0
        for part in frames:
            tally = Tally()
            for truth in part:
                tally.add(truth, _tool_result(results[k]))
                tally.seconds += float(results[k]["seconds"]) / len(part)
                k += 1
            tallies.append(tally)
        out[tool] = tallies
    return out


def run_on_frames(
    python: Path, frames: list[Frame], folder: Path
) -> dict[str, list[NDArray[np.float64]]]:
    """Run every other tool on frames without truth.

    Parameters
    ----------
    python
        Interpreter of an environment that has the tools.
    frames
        Any frames.
    folder
        Directory for frames, networks and results.

    Returns
    -------
    For every tool the positions (atom, 2), Å, of each frame.
    """
    none = np.zeros((0, 2))
    bare = [
        LabelledFrame(f, none, np.zeros(0, dtype=np.int64), GRAPHENE.species, none) for f in frames
    ]
    write_frames(folder / "real", bare)
    write_frames(folder / "training", _training_frames(), labels=True)
    return {
        tool: [
            np.array(a["xy_A"], dtype=np.float64).reshape(-1, 2)
            for a in run_tool(python, tool, folder / "real", folder, folder)["frames"]
        ]
        for tool in _TOOLS
    }


def _training_frames() -> list[LabelledFrame]:
    """Simulate the training frames of AtomAI, with the simulator of adatom's own training."""
    return [
        random_labelled(
            GRAPHENE, np.random.default_rng([_TRAINING_SEED, i]), field_A=_TRAINING_FIELD_A
        )
        for i in range(_TRAINING_FRAMES)
    ]


def write_frames(folder: Path, frames: list[LabelledFrame], *, labels: bool = False) -> None:
    """Write frames, and their true atoms if `labels`, in the format that the scripts read."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = []
    for i, labelled in enumerate(frames):
        entry = {
            "file": f"{i:04d}.npy",
            "pixel_size_A": labelled.frame.calibration.pixel_size_A,
        }
        np.save(folder / f"{i:04d}.npy", labelled.frame.data)
        if labels:
            entry["labels"] = f"{i:04d}_labels.npy"
            truth = np.concatenate([labelled.xy, labelled.species[:, None]], axis=1)
            np.save(folder / f"{i:04d}_labels.npy", truth)
        manifest.append(entry)
    (folder / "manifest.json").write_text(json.dumps({"frames": manifest}), encoding="utf-8")


def run_tool(
    python: Path,
    tool: str,
    frames: Path,
    folder: Path,
    trained: Path,
    *,
    members: int = 5,
    steps: int = 200,
) -> Any:
    """Run one tool on a folder of frames, on one thread, and give the JSON object that it wrote.

    Raises
    ------
    StepFailed
        If the tool does not run, fails, or takes longer than an hour.
    """
    script, name = _TOOLS[tool]
    result = folder / f"{name}-{frames.name}.json"
    command = [
        str(python), str(_SCRIPTS / script), "--tool", name, "--frames", str(frames),
        "--out", str(result),
    ]  # fmt: skip
    if name == "atomai":
        command += ["--train", str(trained / "training"), "--model", str(trained / "atomai")]
        command += ["--members", str(members), "--steps", str(steps)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    try:
        done = subprocess.run(  # noqa: S603  # the interpreter is the user's own choice
            command, capture_output=True, text=True, timeout=_PROCESS_S, check=False,
            env={**os.environ, **threads},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StepFailed(
            tool,
            expected="answers for the benchmark's frames",
            got=str(error)[-400:],
            todo="Name the Python of an environment made as peer_scripts/README.md says.",
        ) from error
    if done.returncode != 0 or not result.exists():
        raise StepFailed(
            tool,
            expected="answers for the benchmark's frames",
            got=done.stderr.strip()[-400:] or f"exit code {done.returncode}",
            todo="Make its environment as peer_scripts/README.md says.",
        )
    return json.loads(result.read_text(encoding="utf-8"))


def _tool_result(plain: dict[str, Any]) -> ToolResult:
    xy = np.array(plain["xy_A"], dtype=np.float64).reshape(-1, 2)
    element = plain.get("element")
    sigma = plain.get("sigma_A")
    if sigma is not None:
        sigma = np.array(sigma, dtype=np.float64)
        sigma = np.repeat(sigma[:, None], 2, axis=1) if sigma.ndim == 1 else sigma
    return ToolResult(xy, None if element is None else np.array(element, dtype=np.str_), sigma)
