"""Stored shapes of defects of graphene, ad-atoms among them, and where a lattice has room."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import numpy as np

from adatom.core import DefectKind
from adatom.core.arrays import FloatArray, IntArray
from adatom.features.defects.sites import Sites

_FILE = "graphene_shapes.json"
_SAME_A = 0.1  # Å: bonds of a lattice whose vectors differ by less are parallel


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The relaxed atoms around a defect.

    The axes are those of one bond of the perfect sheet: x along it.

    Parameters
    ----------
    kind
        What it is.
    origin
        The middle of the bond, its first atom (``site``), or the middle of the ring opposite to the
        bond at its first atom.
    xy
        Positions, shape (atom, 2), Å.
    sites
        Sites of the perfect sheet as far as the atoms reach, shape (site, 2), Å.
    prior
        Share of the places where it is expected.
    added
        Elements of the last atoms: those that the perfect sheet does not have.
    breathes_A
        Standard deviation, Å, of the shift that the atoms around the origin make together, away
        from it or towards it: by as much engines differ.
    mirrored
        Whether its mirror image is another shape.
    both_ways
        Whether it differs between the two directions of the bond.
    turns
        Whether, at a site, it differs between the three bonds.
    """

    kind: DefectKind
    origin: Literal["bond", "site", "ring"]
    xy: FloatArray
    sites: FloatArray
    prior: float
    added: tuple[str, ...] = ()
    breathes_A: float = 0.0
    mirrored: bool = False
    both_ways: bool = False
    turns: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A shape at a place of a lattice, in undistorted axes.

    Parameters
    ----------
    kind
        What it is; None for the perfect sheet.
    centre
        Its origin, shape (2,), Å.
    xy, sites
        As of `Shape`, in the axes of the lattice.
    log_prior
        Logarithm of the prior of this shape at this place against the perfect sheet.
    added, breathes_A
        As of `Shape`.
    """

    kind: DefectKind | None
    centre: FloatArray
    xy: FloatArray
    sites: FloatArray
    log_prior: float
    added: tuple[str, ...] = ()
    breathes_A: float = 0.0

    @property
    def own(self) -> int:
        """Number of the first added atom."""
        return len(self.xy) - len(self.added)


@cache
def graphene_shapes() -> tuple[Shape, ...]:
    """Read the stored shapes; the file tells how they were made."""
    text = resources.files("adatom.features.defects").joinpath(_FILE).read_text(encoding="utf-8")
    return tuple(
        Shape(
            kind=DefectKind.parse(one["kind"]),
            origin=one["origin"],
            xy=np.array(one["xy_A"]),
            sites=np.array(one["sites_A"]),
            prior=one["prior"],
            added=tuple(one["added"]),
            breathes_A=one["breathes_A"],
            mirrored=one["mirrored"],
            both_ways=one["both_ways"],
            turns=one["turns"],
        )
        for one in json.loads(text)["shapes"]
    )


def directed_bonds(sites: Sites) -> IntArray:
    """List the bonds of a lattice in both directions, shape (bond, 2)."""
    pairs = [(a, b) for a, near in enumerate(sites.neighbours) for b in near]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def bonds_for(shape: Shape, bonds: IntArray, sites: FloatArray) -> IntArray:
    """Choose the directed bonds, shape (bond, 2), on which a shape differs.

    Parameters
    ----------
    shape
        The shape.
    bonds
        From `directed_bonds`.
    sites
        Sites of the lattice, shape (site, 2), Å, undistorted.
    """
    if shape.origin == "ring" and len(bonds):
        # Every ring lies opposite to one bond of each direction, and one of the other sublattice.
        along = sites[bonds[:, 1]] - sites[bonds[:, 0]]
        if shape.both_ways:
            along *= np.sign(along @ along[0])[:, None]
        return np.asarray(bonds[np.hypot(*(along - along[0]).T) < _SAME_A])
    if shape.origin == "site" and not shape.turns:
        return bonds[np.unique(bonds[:, 0], return_index=True)[1]]
    if shape.origin == "site" or shape.both_ways:
        return bonds
    return bonds[bonds[:, 0] < bonds[:, 1]]


def axes_of(shape: Shape, sites: FloatArray, bonds: IntArray) -> tuple[FloatArray, FloatArray]:
    """Origin, shape (bond, 2), Å, and axes, shape (bond, 2, 2), rows x and y, of each place."""
    first, second = sites[bonds[:, 0]], sites[bonds[:, 1]]
    origin = {"bond": (first + second) / 2.0, "site": first, "ring": 2.0 * first - second}
    along = second - first
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    axes = np.stack([along, np.stack([-along[:, 1], along[:, 0]], axis=1)], axis=1)
    return origin[shape.origin], axes


def images(shape: Shape) -> list[tuple[FloatArray, FloatArray]]:
    """Atoms and sites of a shape, and of its mirror image if that differs."""
    out = [(shape.xy, shape.sites)]
    if shape.mirrored:
        flip = np.array([1.0, -1.0])
        out.append((shape.xy * flip, shape.sites * flip))
    return out


def number_of_ways(shape: Shape) -> int:
    """Number of places of a shape that share its prior, per site or per bond."""
    turns = 3 if shape.turns else 1
    both = 2 if shape.both_ways and shape.origin != "site" else 1
    return turns * both * (1 + shape.mirrored)
