"""Ensembles on disk: safetensors and a model card in JSON; nothing is ever unpickled."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from adatom.core import Calibration, content_hash
from adatom.errors import BadInput
from adatom.learning.network import UNet

FORMAT = 1
SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Trained networks and what is known of them.

    Parameters
    ----------
    members
        The networks, in evaluation mode.
    classes
        Chemical symbol of every class.
    working
        Pixel size at which they work.
    card
        The model card: data recipe, seeds, version, measured scores, calibration.
    """

    members: tuple[UNet, ...]
    classes: tuple[str, ...]
    working: Calibration
    card: dict[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Hash of weights and calibration: part of the key of each step that uses them."""
        parts = [t.numpy() for m in self.members for t in m.state_dict().values()]
        return content_hash(
            *parts, list(self.classes), self.working.pixel_size_A, self.card.get("calibration")
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
        for i, member in enumerate(ensemble.members)
        for name, t in member.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path))
    card = {
        "format": FORMAT,
        "members": len(ensemble.members),
        "width": ensemble.members[0].width,
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
        members = _members(card, tensors)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadInput(
            str(path),
            expected=f"an ensemble's weights and a card that fits them (format {FORMAT})",
            got=str(error),
            todo=todo,
        ) from error
    return Ensemble(
        members, card.classes, Calibration(card.working_pixel_size_A), card.model_extra or {}
    )


class _Card(BaseModel):
    """What a card must say; the rest of it is kept as it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: Literal[1]
    members: int = Field(ge=1)
    width: int = Field(ge=1)
    classes: tuple[str, ...] = Field(min_length=1)
    working_pixel_size_A: float = Field(gt=0, allow_inf_nan=False)


def _members(card: _Card, tensors: dict[str, torch.Tensor]) -> tuple[UNet, ...]:
    """Build the networks; ValueError or RuntimeError where card and tensors don't fit."""
    left = dict(tensors)
    members = tuple(_member(card, number, left) for number in range(card.members))
    if left:
        raise ValueError(f"tensors beyond the card's {card.members} members: {min(left)}")
    return members


def _member(card: _Card, number: int, tensors: dict[str, torch.Tensor]) -> UNet:
    """Build one member and take its tensors out of `tensors`; ValueError where they don't fit."""
    prefix = f"{number}."
    own = [name for name in tensors if name.startswith(prefix)]
    state = {name.removeprefix(prefix): tensors.pop(name) for name in own}
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    member = UNet(len(card.classes), card.width)
    found = member.load_state_dict(state, strict=False)  # RuntimeError where shapes differ
    lost = [k for k in found.missing_keys if not k.endswith("num_batches_tracked")]
    if lost or found.unexpected_keys:
        raise ValueError(f"member {number} without {lost[:3]} and with {found.unexpected_keys[:3]}")
    return member.eval()


def load_shipped(material: str) -> Ensemble:
    """Load the ensemble that ships for a material.

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
            todo=f"Train one: adatom train {material}.",
        )
    return load(path)


def threads(count: int) -> None:
    """Set the number of CPU threads that networks use in this process."""
    torch.set_num_threads(max(count, 1))
