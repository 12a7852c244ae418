"""Ensembles, in memory and on disk (safetensors and a JSON model card; nothing is unpickled)."""

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

FORMAT = 4  # version of the layout of weights and card; other versions are refused
SHIPPED = Path(__file__).parent / "shipped"  # the ensembles of the package, one per material
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
        ``.safetensors`` file that `save` wrote, with its card beside it.

    Raises
    ------
    BadInput
        If a file is missing or broken, or if weights and card do not fit.
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
    return Ensemble(
        networks, card.classes, Calibration(card.working_pixel_size_A), _own_fields(card)
    )


def _own_fields(card: _Card) -> dict[str, Any]:
    """Give the fields of the card that `save` does not write from the networks."""
    return {k: v for k, v in (card.model_extra or {}).items() if k != "members"}


class _Card(BaseModel):
    """Required fields of a card; all others are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: Literal[4]
    heads: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    width: int = Field(ge=1)
    classes: tuple[str, ...] = Field(min_length=1)
    working_pixel_size_A: float = Field(gt=0, allow_inf_nan=False)


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
    network = Network(len(card.classes), card.width, card.heads[number])
    found = network.load_state_dict(state, strict=False)  # RuntimeError if shapes differ
    missing = [k for k in found.missing_keys if not k.endswith("num_batches_tracked")]
    if missing or found.unexpected_keys:
        raise ValueError(
            f"network {number} without {missing[:3]} and with {found.unexpected_keys[:3]}"
        )
    return network.eval()


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
            todo=f"Train them: adatom train {called}.",
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
            todo=f"Train one in about ten minutes: adatom train {called or material} "
            f"-o {material}.safetensors; then name the file as `weights`.",
        )
    return load(path)
