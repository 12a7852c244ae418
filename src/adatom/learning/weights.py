"""Ensembles, in memory and on disk (safetensors and a JSON model card; nothing is unpickled)."""

from __future__ import annotations

import json
import os
import shlex
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as serialise

from adatom.core import Calibration, Material
from adatom.errors import BadInput, StepFailed
from adatom.learning.ensemble import SPOT_A, Ensemble, NetworkWeights
from adatom.learning.graph import Runner
from adatom.learning.layout import CONTEXT, FOLD, HIDDEN, LEVELS

FORMAT = 4  # version of the layout of weights and card; other versions are refused
SHIPPED = Path(__file__).parent / "shipped"  # the ensembles of the package, one per material
_TEMPORARY = ".adatom-tmp-"  # start of the names of files that are not whole yet
_TEST_PX = 32  # edge of the image of the self-test, pixels
# Largest difference of a mean probability in the self-test: half precision changes it by 1e-3.
_TEST_TOLERANCE = 0.02


def save(ensemble: Ensemble, path: Path) -> None:
    """Write the weights (safetensors, half precision) and their card beside them (``.json``).

    Parameters
    ----------
    ensemble
        Ensemble to write.
    path
        ``.safetensors`` file; its directory is made.
    """
    tensors = {
        f"{i}.{name}": value.astype(np.float16)
        for i, network in enumerate(ensemble.networks)
        for name, value in network.tensors.items()
    }
    card = {
        "format": FORMAT,
        "members": ensemble.members,
        "heads": [n.heads for n in ensemble.networks],
        "width": ensemble.networks[0].width,
        "classes": list(ensemble.classes),
        "working_pixel_size_A": ensemble.working.pixel_size_A,
        "self_test": self_test(ensemble.networks),
        **{key: value for key, value in ensemble.card.items() if key != "self_test"},
    }
    text = json.dumps(card, indent=1) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The card first: where there are weights, there is a card.
        _write_whole(path.with_suffix(".json"), text.encode())
        _write_whole(path, serialise(tensors))
    except OSError as error:
        raise StepFailed(
            str(path),
            expected="room on the disk, and a directory that may be written",
            got=error.strerror or str(error),
            todo="Free some space, or name another file with -o.",
        ) from error


def check_output(path: Path) -> None:
    """Check, before a training, that an ensemble can be written to a file.

    Parameters
    ----------
    path
        ``.safetensors`` file; its directory is made.

    Raises
    ------
    BadInput
        If the name has another suffix or is a directory, or if nothing can be written there.
    """
    todo = "Name a file such as mine.safetensors in a directory that may be written."
    expected = "the name of a .safetensors file to write"
    if path.suffix != ".safetensors" or path.is_dir():
        raise BadInput(str(path), expected=expected, got=f"{path.name!r}", todo=todo)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}.check"), b"").unlink()
    except OSError as error:
        got = error.strerror or str(error)
        raise BadInput(str(path), expected=expected, got=got, todo=todo) from error


def _write_whole(path: Path, content: bytes) -> Path:
    """Write a file completely, or leave what was there."""
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def self_test(networks: Sequence[NetworkWeights]) -> list[float]:
    """Compute the mean probability of each class that networks give for a fixed image.

    The card holds it, so that weights that were changed, or belong to another card, are recognised
    when they are loaded.

    Parameters
    ----------
    networks
        Their weights.
    """
    row = np.arange(_TEST_PX, dtype=np.float32)
    waves = np.sin(0.9 * row)[:, None] * np.sin(0.9 * row)[None] + 0.02 * (row - row.mean())
    image = ((waves - waves.mean()) / waves.std(ddof=1)).astype(np.float32)
    maps = Runner.of(networks, 1)(image)
    return [round(float(value), 6) for value in maps.mean(axis=(0, 2, 3))]


def load(path: Path) -> Ensemble:
    """Read an ensemble.

    Parameters
    ----------
    path
        ``.safetensors`` file that `save` wrote, with its card beside it. The card may name another
        file of that directory that holds the weights.

    Raises
    ------
    BadInput
        If a file is missing or broken, if weights and card do not fit, or if the weights are not
        those of a trained network: not finite, all zero, or unlike the card's self-test.
    """
    todo = "Name a .safetensors file made by `adatom train`, with its .json card beside it."
    try:
        text = path.with_suffix(".json").read_text(encoding="utf-8")
        given = json.loads(text)
        card = _Card.model_validate(given)
        tensors = load_file(str(path.with_name(card.weights or path.name)))
        networks = _networks(card, tensors)
        _check_response(card, networks)
    except (OSError, ValueError, SafetensorError) as error:
        raise BadInput(
            str(path),
            expected=f"an ensemble's weights and a card that fits them (format {FORMAT})",
            got=str(error),
            todo=todo,
        ) from error
    # What `save` writes from the networks themselves is left out.
    own = {k: v for k, v in given.items() if k not in {*_OF_NETWORKS, "members"}}
    return Ensemble(networks, card.classes, Calibration(card.working_pixel_size_A), own)


def _check_response(card: _Card, networks: tuple[NetworkWeights, ...]) -> None:
    """Compare with the card's self-test, where it has one; ValueError if they differ."""
    if card.self_test is None:
        return
    found = self_test(networks)
    pairs = zip(found, card.self_test, strict=True)
    if not all(abs(a - b) < _TEST_TOLERANCE for a, b in pairs):  # NaN is not less
        raise ValueError(
            f"weights that answer the card's test image with {found} in place of "
            f"{list(card.self_test)}: they were changed, or belong to another card"
        )


class _Training(BaseModel):
    """Field of the options of a training that the use of the networks needs."""

    model_config = ConfigDict(frozen=True, extra="allow")

    target_sigma_A: float = Field(SPOT_A, gt=0, allow_inf_nan=False)


class _Card(BaseModel):
    """Fields of a card that the networks need; all others are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: Literal[4]
    heads: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    width: int = Field(ge=1)
    classes: tuple[str, ...] = Field(min_length=1)
    self_test: tuple[float, ...] | None = None
    # File beside the card with the weights, where several materials share them.
    weights: Annotated[str, Field(pattern=r"^[\w-][\w.-]*\.safetensors$")] | None = None
    training: _Training = _Training()
    working_pixel_size_A: float = Field(gt=0, allow_inf_nan=False)


# Fields of a card that `save` writes from the networks.
_OF_NETWORKS = set(_Card.model_fields) - {"training"}


def _networks(card: _Card, tensors: dict[str, NDArray[Any]]) -> tuple[NetworkWeights, ...]:
    """Read the networks; ValueError if card and tensors do not fit."""
    rest = dict(tensors)
    networks = tuple(_network(card, number, rest) for number in range(len(card.heads)))
    if rest:
        raise ValueError(f"tensors beyond the card's {len(card.heads)} networks: {min(rest)}")
    return networks


def _network(card: _Card, number: int, tensors: dict[str, NDArray[Any]]) -> NetworkWeights:
    """Read one network and remove its tensors from `tensors`; ValueError if they do not fit."""
    prefix = f"{number}."
    own = [name for name in tensors if name.startswith(prefix)]
    state = {name.removeprefix(prefix): tensors.pop(name).astype(np.float32) for name in own}
    for name, value in state.items():
        _check_tensor(f"{prefix}{name}", value)
    shapes = shapes_of(len(card.classes), card.width, card.heads[number])
    missing, more = sorted(shapes.keys() - state.keys()), sorted(state.keys() - shapes.keys())
    if missing or more:
        raise ValueError(f"network {number} without {missing[:3]} and with {more[:3]}")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            got = state[name].shape
            raise ValueError(f"{prefix}{name} of shape {got} in place of {shape}")
    return NetworkWeights(state, len(card.classes), card.width, card.heads[number])


def shapes_of(classes: int, width: int, heads: int) -> dict[str, tuple[int, ...]]:
    """Give the shape of each tensor of a network.

    Parameters
    ----------
    classes, width, heads
        As of `NetworkWeights`.
    """
    w1, w2, w3 = (width * k for k in LEVELS)
    hidden, maps = HIDDEN * heads, classes * FOLD**2 * heads
    blocks = {
        "trunk.down1.0": (w1, 1, 3 * FOLD),
        "trunk.down1.1": (w1, w1, 3),
        "trunk.down2.0": (w2, w1, 3),
        "trunk.down2.1": (w2, w2, 3),
        "trunk.bottom": (w3, w2, 3),
        **{f"trunk.context.{k}.{i}": (w3, w3, 3) for k in range(CONTEXT) for i in range(2)},
        **{f"trunk.up2.{i}": (w2, w2, 3) for i in range(2)},
        **{f"trunk.up1.{i}": (w1, w1, 3) for i in range(2)},
        "hidden": (hidden, w1, 3),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs, kernel) in blocks.items():
        shapes[f"{name}.0.weight"] = (outputs, inputs, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.1.{part}"] = (outputs,)
    single = {"trunk.narrow2": (w2, w3), "trunk.narrow1": (w1, w2), "out": (maps, HIDDEN)}
    for name, (outputs, inputs) in single.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, 1, 1), (outputs,)
    return shapes


def _check_tensor(name: str, value: NDArray[np.float32]) -> None:
    """Raise ValueError for numbers that no training gives."""
    if not np.isfinite(value).all():
        raise ValueError(f"{name} with numbers that are not finite")
    if name.endswith("running_var") and (value < 0.0).any():
        raise ValueError(f"{name} with negative variances")
    # Kernels of convolutions; vectors may be zero, as biases are before a training.
    if value.ndim >= 2 and value.size > 1 and bool((value == value.flat[0]).all()):
        raise ValueError(f"{name} with equal numbers only, as no training gives")


def load_for(
    material: Material, path: Path | None = None, *, called: str | None = None
) -> Ensemble:
    """Load an ensemble for a material, from a file or the one that ships.

    Parameters
    ----------
    material
        Material that the frames show.
    path
        ``.safetensors`` file; by default the ensemble that ships for the material.
    called
        Argument that names the material for ``adatom train``; by default its name.

    Raises
    ------
    BadInput
        If none ships for the material, or if the ensemble was trained for other species.
    """
    called = called or material.name
    ensemble = load_shipped(material.name, called=called) if path is None else load(path)
    if ensemble.species != material.species:
        raise BadInput(
            f"the networks that ship for {material.name}" if path is None else str(path),
            expected=f"networks for {material.name}, which see {', '.join(material.species)}",
            got=f"some that see {', '.join(ensemble.species)}",
            todo=f"Train them: `adatom train {called}`.",
        )
    return ensemble


def load_shipped(material: str, *, called: str | None = None) -> Ensemble:
    """Load the ensemble that ships for a material.

    Parameters
    ----------
    material
        Name of the material.
    called
        Argument that names the material for ``adatom train``; by default its name.

    Raises
    ------
    BadInput
        If none ships for the material.
    """
    if not ships_for(material):
        have = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.json"))) or "none"
        raise BadInput(
            f"networks for {material}",
            expected=f"a material with shipped networks ({have})",
            got=repr(material),
            todo=f"Train one in about ten minutes: `adatom train {called or material} "
            f"-o {shlex.quote(f'{material}.safetensors')}`; then name the file as `weights`.",
        )
    return load(SHIPPED / f"{material}.safetensors")


def ships_for(material: str) -> bool:
    """Whether networks ship for the material of this name: whether their card does."""
    return (SHIPPED / f"{material}.json").is_file()
