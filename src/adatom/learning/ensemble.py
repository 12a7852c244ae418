"""Ensembles of networks in memory: NumPy arrays, without a library that computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adatom.core import VACANCY, Calibration, content_hash
from adatom.core.arrays import Image

SPOT_A = 0.25  # width of the target spots of cards that do not state it, Å
_OF_HEADS = ("hidden.", "out.")  # tensors whose first axis is grouped by head


@dataclass(frozen=True, slots=True, eq=False)
class NetworkWeights:
    """Weights of one network: a trunk with one head per member.

    Parameters
    ----------
    tensors
        Arrays by name, as torch names the parameters of `adatom.learning.network.Network`.
    classes
        Number of probability maps of each member.
    width
        Channels of the finest level of the trunk.
    heads
        Number of members on this trunk.
    """

    tensors: Mapping[str, NDArray[np.float32]]
    classes: int
    width: int
    heads: int

    def with_heads(self, keep: Sequence[int]) -> NetworkWeights:
        """Give a network with some of the heads.

        Parameters
        ----------
        keep
            Numbers of the heads, in the wanted order; at least one.
        """
        tensors = dict(self.tensors)
        for name, value in self.tensors.items():
            if name.startswith(_OF_HEADS):
                grouped = value.reshape(self.heads, -1, *value.shape[1:])
                tensors[name] = grouped[list(keep)].reshape(-1, *value.shape[1:])
        return replace(self, tensors=tensors, heads=len(keep))


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Trained networks with their model card.

    Parameters
    ----------
    networks
        Weights of the networks; each head of a network is a member.
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

    networks: tuple[NetworkWeights, ...]
    classes: tuple[str, ...]
    working: Calibration
    card: dict[str, Any] = field(default_factory=dict)
    runners: dict[str, Callable[[Image], NDArray[np.float32]]] = field(
        default_factory=dict, init=False, repr=False
    )  # networks that are ready to run, by where and how: see `learning.predict`

    def __reduce__(self) -> tuple[Any, ...]:
        """Send everything but the runners to other processes."""
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
        return float(self.card.get("training", {}).get("target_sigma_A", SPOT_A))

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
                networks.append(network.with_heads(heads))
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
        networks = tuple(
            replace(
                new,
                tensors={
                    # Computed so that a share of 0 gives the old numbers, and one of 1 the new.
                    name: ((1.0 - share) * own.tensors[name] + share * value).astype(np.float32)
                    for name, value in new.tensors.items()
                },
            )
            for own, new in zip(self.networks, other.networks, strict=True)
        )
        return Ensemble(networks, self.classes, self.working, self.card)

    def fingerprint(self) -> str:
        """Hash the weights and the calibration; part of the ledger key of steps that use them."""
        parts = [n.tensors[name] for n in self.networks for name in sorted(n.tensors)]
        return content_hash(
            *parts,
            list(self.classes),
            self.working.pixel_size_A,
            self.card.get("calibration"),
            self.card.get("novelty"),
            self.card.get("novelty_of_regions"),
        )
