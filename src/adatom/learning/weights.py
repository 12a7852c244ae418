"""Ensembles on disk: safetensors and a model card in JSON; nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from adatom.core import VACANCY, Calibration, Material, content_hash
from adatom.errors import BadInput
from adatom.learning.network import Network, fused, with_heads

FORMAT = 4  # version of the layout of weights and card; others are refused
SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Trained networks and what is known of them.

    Parameters
    ----------
    networks
        In evaluation mode; each has one member or several, its heads.
    classes
        What the maps show: chemical symbols, then `VACANCY`.
    working
        Pixel size at which they work.
    card
        The model card: data recipe, seeds, version, measured scores, calibration.
    """

    networks: tuple[Network, ...]
    classes: tuple[str, ...]
    working: Calibration
    card: dict[str, Any] = field(default_factory=dict)
    _fused: dict[torch.device, tuple[Network, ...]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __reduce__(self) -> tuple[Any, ...]:
        """Send to other processes what they cannot make themselves."""
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
        """Width of the spot that stands for one atom in the maps, Å."""
        return float(self.card.get("training", {}).get("target_sigma_A", 0.25))

    def with_members(self, keep: Sequence[int]) -> Ensemble:
        """Give an ensemble of some members, numbered through all networks, in their order.

        Raises
        ------
        ValueError
            If none is kept, or one that there is not.
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
        """Give the weighted mean of the weights of this ensemble and one tuned from it.

        What tuning gained mostly stays, and what it forgot mostly comes back (Wortsman et al.,
        CVPR 2022, 7959).

        Parameters
        ----------
        other
            Of the same networks, trained on.
        share
            Its weight, 0 to 1.
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
        """Give the networks as they run fastest: normalisation folded in, channels last."""
        if device not in self._fused:
            copies = [fused(deepcopy(network).eval()).to(device) for network in self.networks]
            for copy in copies:
                copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._fused[device] = tuple(copies)
        return self._fused[device]

    def fingerprint(self) -> str:
        """Hash of weights, calibration and novelty: part of the key of each step that uses them."""
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
        What to write.
    path
        A ``.safetensors`` file; its directory is made.
    """
    tensors = {
        f"{i}.{name}": (t.half() if t.is_floating_point() else t).contiguous()
        for i, network in enumerate(ensemble.networks)
        for name, t in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path))
    card = {
        "format": FORMAT,
        "members": ensemble.members,
        "heads": [n.heads for n in ensemble.networks],
        "width": ensemble.networks[0].width,
        "classes": list(ensemble.classes),
        "working_pixel_size_A": ensemble.working.pixel_size_A,
        **ensemble.card,
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Ensemble:
    """Read an ensemble.

    Parameters
    ----------
    path
        A ``.safetensors`` file that `save` wrote, with its card beside it.

    Raises
    ------
    BadInput
        If a file is missing, is no safetensors file, or the card does not fit it.
    """
    todo = "Name a .safetensors file made by `adatom train`, with its .json card beside it."
    try:
        text = path.with_suffix(".json").read_text(encoding="utf-8")
        card = _Card.model_validate_json(text)
        tensors = load_file(str(path))
        networks = _networks(card, tensors)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadInput(
            str(path),
            expected=f"an ensemble's weights and a card that fits them (format {FORMAT})",
            got=str(error),
            todo=todo,
        ) from error
    return Ensemble(networks, card.classes, Calibration(card.working_pixel_size_A), _kept(card))


def _kept(card: _Card) -> dict[str, Any]:
    """What the card says beyond its shape, which `save` writes anew."""
    return {k: v for k, v in (card.model_extra or {}).items() if k != "members"}


class _Card(BaseModel):
    """What a card must say; the rest of it is kept as it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: Literal[4]
    heads: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    width: int = Field(ge=1)
    classes: tuple[str, ...] = Field(min_length=1)
    working_pixel_size_A: float = Field(gt=0, allow_inf_nan=False)


def _networks(card: _Card, tensors: dict[str, torch.Tensor]) -> tuple[Network, ...]:
    """Build the networks; ValueError or RuntimeError where card and tensors don't fit."""
    left = dict(tensors)
    networks = tuple(_network(card, number, left) for number in range(len(card.heads)))
    if left:
        raise ValueError(f"tensors beyond the card's {len(card.heads)} networks: {min(left)}")
    return networks


def _network(card: _Card, number: int, tensors: dict[str, torch.Tensor]) -> Network:
    """Build one network and take its tensors out of `tensors`; ValueError where they don't fit."""
    prefix = f"{number}."
    own = [name for name in tensors if name.startswith(prefix)]
    state = {name.removeprefix(prefix): tensors.pop(name) for name in own}
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    network = Network(len(card.classes), card.width, card.heads[number])
    found = network.load_state_dict(state, strict=False)  # RuntimeError where shapes differ
    lost = [k for k in found.missing_keys if not k.endswith("num_batches_tracked")]
    if lost or found.unexpected_keys:
        raise ValueError(
            f"network {number} without {lost[:3]} and with {found.unexpected_keys[:3]}"
        )
    return network.eval()


def load_for(
    material: Material, path: Path | None = None, *, called: str | None = None
) -> Ensemble:
    """Load an ensemble for a material, from a file or the one that ships.

    Parameters
    ----------
    material
        What the frames show.
    path
        The ensemble's ``.safetensors``; by default the one that ships for the material.
    called
        How ``adatom train`` is told of the material; by default by its name.

    Raises
    ------
    BadInput
        If none ships for the material, or the networks see other species.
    """
    called = called or material.name
    ensemble = load_shipped(material.name, called=called) if path is None else load(path)
    if ensemble.species != material.species:
        raise BadInput(
            f"the networks that ship for {material.name}" if path is None else str(path),
            expected=f"networks for {material.name}, which see {', '.join(material.species)}",
            got=f"some that see {', '.join(ensemble.species)}",
            todo=f"Train them: adatom train {called}.",
        )
    return ensemble


def load_shipped(material: str, *, called: str | None = None) -> Ensemble:
    """Load the ensemble that ships for a material.

    Parameters
    ----------
    material
        Its name.
    called
        How ``adatom train`` is told of the material; by default by its name.

    Raises
    ------
    BadInput
        If none ships for it.
    """
    path = SHIPPED / f"{material}.safetensors"
    if not path.exists():
        have = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors"))) or "none"
        raise BadInput(
            f"networks for {material}",
            expected=f"a material with shipped networks ({have})",
            got=repr(material),
            todo=f"Train one in about ten minutes: adatom train {called or material} "
            f"-o {material}.safetensors; then name the file as `weights`.",
        )
    return load(path)
