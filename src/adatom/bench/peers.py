"""Other tools on the same frames, each in an environment of its own."""

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
_TOOLS = {
    "AtomAI": ("atomai_peer.py", "atomai"),
    "Atomap": ("classical_peers.py", "atomap"),
    "trackpy": ("classical_peers.py", "trackpy"),
    "Laplacian of Gaussian": ("classical_peers.py", "log"),
}
_TRAINING_FRAMES = 60
_PROCESS_S = 3600


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
        Where frames and answers are written.
    trained
        Where the frames that AtomAI learns from, and its networks, are kept between calls.

    Returns
    -------
    For every tool the scores of each dose; ``seconds`` of each is the mean time of a frame.
    """
    flat = [f for part in frames for f in part]
    write_frames(folder / "frames", flat)
    write_frames(trained / "training", _training(), labels=True)
    out = {}
    for tool in _TOOLS:
        answers = run_tool(python, tool, folder / "frames", folder, trained)["frames"]
        tallies, k = [], 0
        for part in frames:
            tally = Tally()
            for truth in part:
                tally.add(truth, _answer(answers[k]))
                tally.seconds += float(answers[k]["seconds"]) / len(part)
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
        Where frames, networks and answers are written.

    Returns
    -------
    For every tool the positions (atom, 2), Å, of each frame.
    """
    none = np.zeros((0, 2))
    bare = [
        LabelledFrame(f, none, np.zeros(0, dtype=np.int64), GRAPHENE.species, none) for f in frames
    ]
    write_frames(folder / "real", bare)
    write_frames(folder / "training", _training(), labels=True)
    return {
        tool: [
            np.array(a["xy_A"], dtype=np.float64).reshape(-1, 2)
            for a in run_tool(python, tool, folder / "real", folder, folder)["frames"]
        ]
        for tool in _TOOLS
    }


def _training() -> list[LabelledFrame]:
    """Frames that AtomAI learns from: the same simulator as for adatom's networks."""
    return [
        random_labelled(GRAPHENE, np.random.default_rng([41_000_000, i]), field_A=40.0)
        for i in range(_TRAINING_FRAMES)
    ]


def write_frames(folder: Path, frames: list[LabelledFrame], *, labels: bool = False) -> None:
    """Write frames, and their truth, for another tool to read."""
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
    """Run one tool on a folder of frames, on one thread; gives what it wrote."""
    script, name = _TOOLS[tool]
    answer = folder / f"{name}-{frames.name}.json"
    command = [
        str(python), str(_SCRIPTS / script), "--tool", name, "--frames", str(frames),
        "--out", str(answer),
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
    if done.returncode != 0 or not answer.exists():
        raise StepFailed(
            tool,
            expected="answers for the benchmark's frames",
            got=done.stderr.strip()[-400:] or f"exit code {done.returncode}",
            todo="Make its environment as peer_scripts/README.md says.",
        )
    return json.loads(answer.read_text(encoding="utf-8"))


def _answer(plain: dict[str, Any]) -> ToolResult:
    xy = np.array(plain["xy_A"], dtype=np.float64).reshape(-1, 2)
    element = plain.get("element")
    sigma = plain.get("sigma_A")
    if sigma is not None:
        sigma = np.array(sigma, dtype=np.float64)
        sigma = np.repeat(sigma[:, None], 2, axis=1) if sigma.ndim == 1 else sigma
    return ToolResult(xy, None if element is None else np.array(element, dtype=np.str_), sigma)
