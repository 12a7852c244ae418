"""Stored shapes of reconstructed defects of graphene, and where a lattice has room for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from adatom.core import DefectKind
from adatom.core.arrays import FloatArray, IntArray
from adatom.features.defects.sites import Sites

_FILE = "graphene_shapes.json"


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The relaxed atoms around a defect.

    The axes are those of one bond of the perfect sheet: x along it, the origin in its middle or, if
    `at_site`, on its first atom.

    Parameters
    ----------
    kind
        What it is.
    at_site
        Whether the origin is an atom of the perfect sheet.
    xy
        Positions, shape (atom, 2), Å.
    sites
        Sites of the perfect sheet as far as the atoms reach, shape (site, 2), Å.
    prior
        Share of the places where it is expected.
    ways
        Number of places that one lattice site offers.
    mirrored
        Whether its mirror image is another shape.
    both_ways
        Whether it differs between the two directions of the bond.
    turns
        Whether, at a site, it differs between the three bonds.
    """

    kind: DefectKind
    at_site: bool
    xy: FloatArray
    sites: FloatArray
    prior: float
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
    """

    kind: DefectKind | None
    centre: FloatArray
    xy: FloatArray
    sites: FloatArray
    log_prior: float


@cache
def graphene_shapes() -> tuple[Shape, ...]:
    """Read the stored shapes; the file tells how they were made."""
    text = resources.files("adatom.features.defects").joinpath(_FILE).read_text(encoding="utf-8")
    return tuple(
        Shape(
            kind=DefectKind.parse(one["kind"]),
            at_site=one["at_site"],
            xy=np.array(one["xy_A"]),
            sites=np.array(one["sites_A"]),
            prior=one["prior"],
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


def bonds_for(shape: Shape, bonds: IntArray) -> IntArray:
    """Choose the directed bonds, shape (bond, 2), on which a shape differs."""
    if shape.at_site and not shape.turns:
        return bonds[np.unique(bonds[:, 0], return_index=True)[1]]
    if shape.at_site or shape.both_ways:
        return bonds
    return bonds[bonds[:, 0] < bonds[:, 1]]


def axes_of(shape: Shape, sites: FloatArray, bonds: IntArray) -> tuple[FloatArray, FloatArray]:
    """Origin, shape (bond, 2), Å, and axes, shape (bond, 2, 2), rows x and y, of each place."""
    first, second = sites[bonds[:, 0]], sites[bonds[:, 1]]
    along = second - first
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    axes = np.stack([along, np.stack([-along[:, 1], along[:, 0]], axis=1)], axis=1)
    return first if shape.at_site else (first + second) / 2.0, axes


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
    return turns * (2 if shape.both_ways and not shape.at_site else 1) * (1 + shape.mirrored)
