"""Conformance of a defect namer: perfect sheets, a removed atom, order, axes, names."""

from __future__ import annotations

import numpy as np

from adatom.core import (
    GRAPHENE,
    Affine,
    AtomTable,
    DefectTable,
    EmptySites,
    Lattice,
    Material,
    Vacancy,
)
from adatom.core.arrays import FloatArray
from adatom.features.defects.base import DefectNamer, DefectOptions

_FIELD_BONDS = 17.0  # edge of the frame: so wide that its middle is far from the border
_FRAME = 7  # number of the frame; not 0, which a namer may have written by accident
_SIGMA_A = 0.02  # standard deviation of the positions, as in a frame of high dose
_P_EXISTS, _P_ELEMENT = 0.99, 0.98
_P_EMPTY = 0.95  # of the removed atom's site
# Distortion of the scan. With its fixed point in a corner it moves the middle by more than _NEAR_A.
_STRETCH = ((1.05, 0.01), (0.01, 0.96))
_ANGLES_RAD = (0.0, 0.4, 1.1)
_NEAR_A = 0.3  # a vacancy may be reported at most this far from the removed atom


def check_defect_namer(namer: DefectNamer, material: Material = GRAPHENE) -> None:
    """Check that a namer gives the answers that adatom relies on.

    A perfect sheet has no defects. A removed atom is named as a vacancy where it was, in measured
    axes, with a probability. The order of the atoms in the table changes nothing. Every kind in the
    table can be read back by `DefectKind.parse`. A table without atoms is accepted, with a lattice
    and without one.

    Parameters
    ----------
    namer
        An object, not its class.
    material
        A crystal that it is made for.

    Raises
    ------
    AssertionError
        If an answer is wrong; the message says which.

    Examples
    --------
    >>> from adatom.features.defects.bonded_sheet import NAMER
    >>> check_defect_namer(NAMER)
    """
    _expect(bool(namer.name), namer, "a name", repr(namer.name))
    for angle in _ANGLES_RAD:
        lattice = _lattice(material, angle)
        extent, xy, elements = _sheet(lattice)
        atoms = _table(xy, elements)
        perfect = _ask(namer, atoms, lattice, material, extent)
        _expect(len(perfect) == 0, namer, "no defects in a perfect sheet", str(perfect.kinds))
        _check_removed_atom(namer, lattice, material, xy, elements, extent)
    empty = AtomTable.empty()
    for fitted in (lattice, None):
        found = _ask(namer, empty, fitted, material, extent)
        _expect(len(found) == 0, namer, "no defects in a table without atoms", str(found.kinds))


def _check_removed_atom(
    namer: DefectNamer,
    lattice: Lattice,
    material: Material,
    xy: FloatArray,
    elements: list[str],
    extent: tuple[float, float],
) -> None:
    gone = int(np.argmin(np.linalg.norm(xy - 0.5 * np.array(extent), axis=1)))
    left = [e for i, e in enumerate(elements) if i != gone]
    atoms = _table(np.delete(xy, gone, axis=0), left)
    tested = EmptySites(xy[[gone]], np.array([_P_EMPTY]))
    found = _ask(namer, atoms, lattice, material, extent, tested)
    _check_table(namer, found, atoms)
    kinds = found.kind_values
    one = len(kinds) == 1 and isinstance(kinds[0], Vacancy) and kinds[0].count == 1
    _expect(one, namer, "one vacancy where an atom was removed", str(found.kinds))
    distance = float(np.linalg.norm(found.xy[0] - xy[gone]))
    _expect(
        distance < _NEAR_A, namer, "the vacancy at the removed atom in measured axes",
        f"{distance:.2f} Å from it",
    )  # fmt: skip
    order = np.random.default_rng(0).permutation(len(atoms))
    other = _ask(namer, AtomTable(atoms.data[order]), lattice, material, extent, tested)
    _expect(
        _content(found) == _content(other), namer, "the same defects for atoms in another order",
        f"{_content(other)} and not {_content(found)}",
    )  # fmt: skip


def _check_table(namer: DefectNamer, found: DefectTable, atoms: AtomTable) -> None:
    frames = set(found.data["frame"])
    _expect(frames <= {_FRAME}, namer, f"defects of frame {_FRAME}", f"of frames {sorted(frames)}")
    for kind, name in zip(found.kind_values, found.kinds, strict=True):
        _expect(str(kind) == name, namer, "kinds by their names", name)
    p = found.data["p"].to_numpy()
    _expect(bool(np.all((p > 0.0) & (p <= 1.0))), namer, "probabilities above 0, up to 1", str(p))
    members = {int(n) for row in found.data["atoms"] for n in row}
    known = set(atoms.data["atom"].to_list())
    _expect(members <= known, namer, "atom numbers of the table", str(sorted(members - known)))


def _content(table: DefectTable) -> list[tuple[str, float, float, float, tuple[int, ...]]]:
    return sorted(
        (kind, round(x, 6), round(y, 6), round(p, 6), tuple(sorted(atoms)))
        for kind, x, y, p, atoms in table.data.select("kind", "x_A", "y_A", "p", "atoms").rows()
    )


def _ask(
    namer: DefectNamer,
    atoms: AtomTable,
    lattice: Lattice | None,
    material: Material,
    extent: tuple[float, float],
    empty: EmptySites | None = None,
) -> DefectTable:
    tested = EmptySites.none() if empty is None else empty
    return namer.name_defects(atoms, lattice, material, extent, tested, _FRAME, DefectOptions())


def _lattice(material: Material, angle_rad: float) -> Lattice:
    return Lattice(
        material=material,
        center_xy_A=(0.0, 0.0),
        affine=Affine.from_array(np.array(_STRETCH)),
        bend=np.zeros((2, 3)),
        angle_rad=angle_rad,
        origin_xy_A=(0.3, -0.2),
        rms_A=_SIGMA_A,
        matched=1.0,
    )


def _sheet(lattice: Lattice) -> tuple[tuple[float, float], FloatArray, list[str]]:
    edge = _FIELD_BONDS * lattice.material.bond_length_A
    index, xy = lattice.sites_within((edge, edge))
    return (edge, edge), xy, [lattice.material.site_species[k] for k in index[:, 2]]


def _table(xy: FloatArray, elements: list[str]) -> AtomTable:
    n = len(xy)
    return AtomTable.build(
        frame=_FRAME,
        xy=xy,
        covariance=np.tile(np.eye(2) * _SIGMA_A**2, (n, 1, 1)),
        p_exists=np.full(n, _P_EXISTS),
        element=elements,
        p_element=np.full(n, _P_ELEMENT),
        votes=np.ones(n),
        amplitude=np.ones(n),
    )


def _expect(true: bool, namer: DefectNamer, expected: str, got: str) -> None:
    if not true:
        raise AssertionError(f"defect namer {namer.name}: expected {expected}, got {got}")
