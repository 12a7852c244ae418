"""Ensembles, in memory and on disk (safetensors and a JSON model card; nothing is unpickled)."""

from __future__ import annotations

import json
import os
import shlex
import uuid
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise

from adatom.core import VACANCY, Calibration, Material, content_hash
from adatom.errors import BadInput, StepFailed
from adatom.learning.network import Network, fused, with_heads

FORMAT = 4  # version of the layout of weights and card; other versions are refused
SHIPPED = Path(__file__).parent / "shipped"  # the ensembles of the package, one per material
_TEMPORARY = ".adatom-tmp-"  # start of the names of files that are not whole yet
_TEST_PX = 32  # edge of the image of the self-test, pixels
# Largest difference of a mean probability in the self-test: half precision changes it by 1e-3.
_TEST_TOLERANCE = 0.02
_SPOT_A = 0.25  # width of the target spots of cards that do not state it, Å


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Trained networks with their model card.

    Parameters
    ----------
    networks
        Networks in evaluation mode; each head of a network is a member.
    classes
        Class of each probability map: chemical symbols, then `VACANCY`.
    working
        Pixel size of the input and of the maps.
    card
        Model card: recipe of the training data, seeds, version, scores, calibration.

    Examples
    --------
    >>> from adatom.learning.weights import load_shipped
    >>> ensemble = load_shipped("graphene")
    >>> ensemble.members, ensemble.species, ensemble.with_members([0, 7]).members
    (10, ('C', 'Si'), 2)
    """

    networks: tuple[Network, ...]
    classes: tuple[str, ...]
    working: Calibration
    card: dict[str, Any] = field(default_factory=dict)
    _fused: dict[torch.device, tuple[Network, ...]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __reduce__(self) -> tuple[Any, ...]:
        """Send everything but the fused copies to other processes."""
        return Ensemble, (self.networks, self.classes, self.working, self.card)

    @property
    def members(self) -> int:
        """Number of members."""
        return sum(n.heads for n in self.networks)

    @property
    def species(self) -> tuple[str, ...]:
        """Chemical symbols of the classes that are atoms."""
        return tuple(c for c in self.classes if c != VACANCY)

    @property
    def spot_A(self) -> float:
        """Gaussian width of the spot of one atom in the maps, Å."""
        return float(self.card.get("training", {}).get("target_sigma_A", _SPOT_A))

    def with_members(self, keep: Sequence[int]) -> Ensemble:
        """Give an ensemble of some members.

        Parameters
        ----------
        keep
            Numbers of the members, counted through all networks.

        Raises
        ------
        ValueError
            If `keep` is empty or names a member that does not exist.
        """
        if not len(keep) or min(keep) < 0 or max(keep) >= self.members:
            raise ValueError(f"expected some of members 0 to {self.members - 1}, got {list(keep)}")
        networks, first = [], 0
        for network in self.networks:
            heads = [k - first for k in keep if first <= k < first + network.heads]
            first += network.heads
            if heads:
                networks.append(with_heads(network, heads))
        return Ensemble(tuple(networks), self.classes, self.working, self.card)

    def blended(self, other: Ensemble, share: float) -> Ensemble:
        """Average the network weights of this ensemble and of one that was trained further.

        The average keeps most of the gain on new data and most of the performance on the old data
        (Wortsman et al., CVPR 2022, 7959).

        Parameters
        ----------
        other
            Ensemble of the same networks after further training.
        share
            Weight of `other` in the average, 0 to 1.
        """
        networks = []
        for own, new in zip(self.networks, other.networks, strict=True):
            network = deepcopy(new)
            state, old = new.state_dict(), own.state_dict()
            for name, value in state.items():
                if value.is_floating_point():
                    state[name] = torch.lerp(old[name], value, share)
            network.load_state_dict(state)
            networks.append(network.eval())
        return Ensemble(tuple(networks), self.classes, self.working, self.card)

    def fused_networks(self, device: torch.device) -> tuple[Network, ...]:
        """Give copies for fast prediction: batch normalisation folded in, channels last."""
        if device not in self._fused:
            copies = [fused(deepcopy(network).eval()).to(device) for network in self.networks]
            for copy in copies:
                copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._fused[device] = tuple(copies)
        return self._fused[device]

    def fingerprint(self) -> str:
        """Hash the weights and the calibration; part of the ledger key of steps that use them."""
        parts = [t.numpy() for n in self.networks for t in n.state_dict().values()]
        return content_hash(
            *parts,
            list(self.classes),
            self.working.pixel_size_A,
            self.card.get("calibration"),
            self.card.get("novelty"),
            self.card.get("novelty_of_regions"),
        )


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
        f"{i}.{name}": (t.half() if t.is_floating_point() else t).contiguous()
        for i, network in enumerate(ensemble.networks)
        for name, t in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
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


@torch.inference_mode()
def self_test(networks: Sequence[Network]) -> list[float]:
    """Compute the mean probability of each class that networks give for a fixed image.

    The card holds it, so that weights that were changed, or belong to another card, are recognised
    when they are loaded.

    Parameters
    ----------
    networks
        In evaluation mode, on the processor.
    """
    row = torch.arange(_TEST_PX, dtype=torch.float32)
    waves = torch.sin(0.9 * row)[:, None] * torch.sin(0.9 * row)[None] + 0.02 * (row - row.mean())
    image = ((waves - waves.mean()) / waves.std())[None, None]
    means = [torch.sigmoid(network(image)).mean(dim=(0, 3, 4)) for network in networks]
    return [round(float(value), 6) for value in torch.cat(means).mean(dim=0)]


def load(path: Path) -> Ensemble:
    """Read an ensemble.

    Parameters
    ----------
    path
        ``.safetensors`` file that `save` wrote, with its card beside it.

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
        tensors = load_file(str(path))
        networks = _networks(card, tensors)
        _check_response(card, networks)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadInput(
            str(path),
            expected=f"an ensemble's weights and a card that fits them (format {FORMAT})",
            got=str(error),
            todo=todo,
        ) from error
    # What `save` writes from the networks themselves is left out.
    own = {k: v for k, v in given.items() if k not in {*_OF_NETWORKS, "members"}}
    return Ensemble(networks, card.classes, Calibration(card.working_pixel_size_A), own)


def _check_response(card: _Card, networks: tuple[Network, ...]) -> None:
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

    target_sigma_A: float = Field(_SPOT_A, gt=0, allow_inf_nan=False)


class _Card(BaseModel):
    """Fields of a card that the networks need; all others are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: Literal[4]
    heads: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    width: int = Field(ge=1)
    classes: tuple[str, ...] = Field(min_length=1)
    self_test: tuple[float, ...] | None = None
    training: _Training = _Training()
    working_pixel_size_A: float = Field(gt=0, allow_inf_nan=False)


# Fields of a card that `save` writes from the networks.
_OF_NETWORKS = set(_Card.model_fields) - {"training"}


def _networks(card: _Card, tensors: dict[str, torch.Tensor]) -> tuple[Network, ...]:
    """Build the networks; ValueError or RuntimeError if card and tensors do not fit."""
    rest = dict(tensors)
    networks = tuple(_network(card, number, rest) for number in range(len(card.heads)))
    if rest:
        raise ValueError(f"tensors beyond the card's {len(card.heads)} networks: {min(rest)}")
    return networks


def _network(card: _Card, number: int, tensors: dict[str, torch.Tensor]) -> Network:
    """Build one network and remove its tensors from `tensors`; ValueError if they do not fit."""
    prefix = f"{number}."
    own = [name for name in tensors if name.startswith(prefix)]
    state = {name.removeprefix(prefix): tensors.pop(name) for name in own}
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    for name, value in state.items():
        _check_tensor(f"{prefix}{name}", value)
    network = Network(len(card.classes), card.width, card.heads[number])
    found = network.load_state_dict(state, strict=False)  # RuntimeError if shapes differ
    missing = [k for k in found.missing_keys if not k.endswith("num_batches_tracked")]
    if missing or found.unexpected_keys:
        raise ValueError(
            f"network {number} without {missing[:3]} and with {found.unexpected_keys[:3]}"
        )
    return network.eval()


def _check_tensor(name: str, value: torch.Tensor) -> None:
    """Raise ValueError for numbers that no training gives."""
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} with numbers that are not finite")
    if name.endswith("running_var") and (value < 0.0).any():
        raise ValueError(f"{name} with negative variances")
    # Kernels of convolutions; vectors may be zero, as biases are before a training.
    if value.ndim >= 2 and value.numel() > 1 and bool((value == value.flatten()[0]).all()):
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
    path = SHIPPED / f"{material}.safetensors"
    if not path.exists():
        have = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors"))) or "none"
        raise BadInput(
            f"networks for {material}",
            expected=f"a material with shipped networks ({have})",
            got=repr(material),
            todo=f"Train one in about ten minutes: `adatom train {called or material} "
            f"-o {shlex.quote(f'{material}.safetensors')}`; then name the file as `weights`.",
        )
    return load(path)
