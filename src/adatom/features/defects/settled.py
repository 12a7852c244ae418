"""Write what hypotheses say of a place into the tables of atoms and defects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

from adatom.core import Adatom, AtomTable, Cluster, DefectKind, DefectTable, StoneWales
from adatom.core.arrays import BoolArray, FloatArray
from adatom.features.defects.base import DefectOptions
from adatom.features.defects.hypotheses import Weighed
from adatom.features.defects.screen import Screen
from adatom.features.defects.shapes import Placed

EXPLAINED_A = 3.2  # Å: other defects named this near to a shape are part of it
_SAME_A = 0.7  # Å: an atom of two hypotheses, or found and fitted
_LEAST_TOLD = 0.01  # alternatives less probable than this are not told
ON_IT_A = 1.2  # Å: an impurity named this near to a settled ad-atom is that atom
_BONDED = {"hollow": 6, "bridge": 2, "top": 1}  # atoms of the sheet that an ad-atom is bonded to
# Error of a brightness, host atoms, from which one atom is within three errors; and the probability
# from which an ad-atom then takes the name of a substitution.
_HIDES, _OVERTURNS = 1.0 / 3.0, 0.8
_LEAST_DOUBT = 0.02  # a substitution is as it was named if it is less probably an ad-atom


@dataclass(slots=True, eq=False)
class Tables:
    """The table of atoms as arrays that grow."""

    data: pl.DataFrame
    xy: FloatArray
    covariance: FloatArray
    p: FloatArray
    amplitude: FloatArray
    element: list[str]
    p_element: FloatArray
    added: int = 0
    tested_xy: FloatArray | None = None
    tested_p: FloatArray | None = None
    changed: bool = False

    def copy(self) -> Tables:
        """Give tables of their own arrays."""
        own = replace(
            self, xy=self.xy.copy(), covariance=self.covariance.copy(), p=self.p.copy(),
            amplitude=self.amplitude.copy(), element=list(self.element),
            p_element=self.p_element.copy(),
        )  # fmt: skip
        own.tested_p = None if self.tested_p is None else self.tested_p.copy()
        return own


def beside(named: DefectTable, xy: FloatArray) -> BoolArray:
    """Which defects without foreign atoms are named near a place, shape (defect,)."""
    own = np.array([not has_impurity(k) for k in named.kinds], dtype=np.bool_)
    return np.asarray((np.hypot(*(named.xy - xy).T) < EXPLAINED_A) & own)


@lru_cache(maxsize=256)
def has_impurity(kind: str) -> bool:
    """Tell whether a kind of defect of a carbon sheet has atoms of another element."""
    known = DefectKind.parse_or_none(kind)
    return isinstance(known, (Cluster, Adatom)) and any(s != "C" for s, _ in known.atoms)


def settle_shape(
    out: Tables,
    named: DefectTable,
    seen: Screen,
    ways: Sequence[Weighed],
    centre: FloatArray,
    frame: int,
    options: DefectOptions,
) -> list[DefectTable]:
    """Write what the hypotheses say of one place into the table of atoms; gives the defect."""
    shares, best = _likeliest(ways)
    middle = seen.shifted(centre[None])[0]
    near = beside(named, middle)
    known = [k for k, is_near in zip(named.kinds, near, strict=True) if is_near]
    if best in ("", "?") or shares[best] < options.minimum_p:
        return []
    if best == "V1" and not known:
        return []  # whether a single site is empty, the networks tell better
    way = next(w for w in ways if w.name == best)
    assert way.placed is not None  # it has a name  # noqa: S101
    at = seen.shifted(way.placed.centre[None])[0]
    p = shares[best]
    if best == "V1" and known == ["V1"]:
        p = float(named.data["p"].to_numpy()[near][0])
    numbers = _write_atoms(out, ways, way, shares[best])
    _write_sites(out, seen.shifted(_lacking(way.placed)), at, p)
    kind = DefectKind.parse(best)
    one = DefectTable.build(
        frame=frame, kinds=[kind], xy=at[None], p=[min(p, 1.0)],
        atoms=[numbers[:6] if isinstance(kind, StoneWales) else numbers],
        alternatives=[_told(shares, best)],
    )  # fmt: skip
    return [one]


def _likeliest(ways: Sequence[Weighed]) -> tuple[dict[str, float], str]:
    """Probability of each kind over all of its places, and the likeliest kind."""
    shares: dict[str, float] = {}
    for way in ways:
        shares[way.name] = shares.get(way.name, 0.0) + way.p
    return shares, max(shares, key=lambda name: shares[name])


def settle_added(
    out: Tables,
    named: DefectTable,
    seen: Screen,
    ways: Sequence[Weighed],
    centre: FloatArray,
    frame: int,
    options: DefectOptions,
) -> list[DefectTable]:
    """Write an ad-atom into the table of atoms, or the doubt in a substitution; gives the defect.

    What a substitution is bonded to was named before: only the probability that it is an ad-atom
    is new.
    """
    shares, best = _likeliest(ways)
    if best == "":
        _withdraw(out, named, seen.shifted(centre[None])[0], 1.0 - shares[best])
    way = next(w for w in ways if w.name == best)
    if not best.startswith("ad-") or (has_impurity(best) and _is_faint(way, shares[best])):
        return _doubted(named, shares, seen.shifted(centre[None])[0])
    if not way.explains or shares[best] < options.minimum_p:
        return []
    numbers = _write_atoms(out, ways, way, shares[best])
    at = out.xy[numbers[0]]
    away = np.hypot(*(out.xy[numbers] - at).T)
    bonded = [numbers[k] for k in np.argsort(away, kind="stable") if k]
    one = DefectTable.build(
        frame=frame, kinds=[DefectKind.parse(best)], xy=at[None], p=[min(shares[best], 1.0)],
        atoms=[[numbers[0], *bonded[: _BONDED[best.rpartition("-")[2]]]]],
        alternatives=[_told(shares, best)],
    )  # fmt: skip
    return [one]


def _is_faint(way: Weighed, p: float) -> bool:
    """Whether a named substitution keeps its name beside an ad-atom that is little likelier.

    Where the brightness is so uncertain that it may hide a whole atom of the sheet, the two stand
    near one to one, and the name would change from frame to frame.
    """
    assert way.placed is not None  # it has a name  # noqa: S101
    error = float(way.amplitude_sd[-len(way.placed.added) :].max())
    return error > _HIDES and p < _OVERTURNS


def _withdraw(out: Tables, named: DefectTable, middle: FloatArray, p: float) -> None:
    """Lower the probability of the atom of a named ad-atom of the sheet's own element."""
    for k in np.flatnonzero(np.hypot(*(named.xy - middle).T) < ON_IT_A):
        if named.kinds[k].startswith("ad-") and not has_impurity(named.kinds[k]):
            row = int(np.argmin(np.hypot(*(out.xy - named.xy[k]).T)))
            out.p[row] *= p
            out.changed = True


def _doubted(named: DefectTable, shares: dict[str, float], middle: FloatArray) -> list[DefectTable]:
    """Give the impurity that was named at a place, with the probability that it is an ad-atom."""
    added = {k: p for k, p in shares.items() if k.startswith("ad-") and p >= _LEAST_TOLD}
    near = np.hypot(*(named.xy - middle).T) < ON_IT_A
    own = [int(k) for k in np.flatnonzero(near) if has_impurity(named.kinds[k])]
    if len(own) != 1 or sum(added.values()) < _LEAST_DOUBT:
        return []
    row = named.data[own[0]]
    told = [f"{k} {p:.2f}" for k, p in sorted(added.items(), key=lambda one: -one[1])]
    others = ", ".join([*filter(None, row["alternatives"].to_list()), *told])
    less = 1.0 - sum(added.values())
    return [DefectTable(row.with_columns(pl.col("p") * less, alternatives=pl.lit(others)))]


def _write_atoms(out: Tables, ways: Sequence[Weighed], way: Weighed, p: float) -> list[int]:
    """Write the atoms of a hypothesis; gives their numbers, those that moved farthest first."""
    numbers = []
    tree = cKDTree(out.xy)
    mean, covariance = _mixed(ways, way)
    taken: set[int] = set()
    assert way.placed is not None  # callers pass a shape  # noqa: S101
    count = len(way.xy) - len(way.placed.added)
    added = np.arange(len(way.xy)) >= count
    order = np.lexsort((np.arange(len(added)), -way.core.astype(int), -added.astype(int)))
    for i in order:
        distance, near = tree.query(mean[i], k=min(4, len(out.xy)))
        free = [
            int(o) for d, o in zip(np.atleast_1d(distance), np.atleast_1d(near), strict=True)
            if d < _SAME_A and int(o) not in taken
        ]  # fmt: skip
        element = str(way.elements[i])
        free.sort(key=lambda o: (out.element[o] != element, -out.p[o]))
        if not added[i] and way.placed.added:
            free = [o for o in free if out.element[o] == element]
        if free:
            row = free[0]
            out.xy[row], out.covariance[row] = mean[i], covariance[i]
            if way.core[i]:
                out.p[row] = max(out.p[row], p)
            out.amplitude[row] = way.amplitude[i]
            if added[i]:
                same = out.element[row] == element
                out.p_element[row] = max(out.p_element[row], p) if same else p
                out.element[row] = element
        elif way.core[i]:
            row = _append(out, mean[i], covariance[i], p, float(way.amplitude[i]), element)
        else:
            continue
        taken.add(row)
        if way.core[i]:
            numbers.append(row)
    middle = way.xy[way.core].mean(axis=0)
    reach = ON_IT_A if way.placed.added else EXPLAINED_A - _SAME_A
    gone = np.hypot(*(out.xy - middle).T) < reach
    gone[list(taken)] = False
    out.p[gone] *= 1.0 - p
    return numbers


def _lacking(placed: Placed) -> FloatArray:
    """Sites of the perfect sheet that a shape leaves empty, shape (site, 2), Å, undistorted."""
    count = len(placed.sites) - len(placed.xy)
    order = np.argsort(np.hypot(*(placed.sites - placed.centre).T))
    return placed.sites[order[:count]]


def _write_sites(out: Tables, lacking: FloatArray, at: FloatArray, p: float) -> None:
    """Write which of the tested sites near a settled shape are empty."""
    if out.tested_xy is None or out.tested_p is None or not len(out.tested_xy):
        return
    near = np.hypot(*(out.tested_xy - at).T) < EXPLAINED_A
    out.tested_p[near] *= 1.0 - p
    if len(lacking):
        distance, own = cKDTree(out.tested_xy).query(lacking)
        own = own[distance < _SAME_A]
        out.tested_p[own] = np.maximum(out.tested_p[own], p)


def _append(
    out: Tables, xy: FloatArray, covariance: FloatArray, p: float, amplitude: float, element: str
) -> int:
    out.xy = np.concatenate([out.xy, xy[None]])
    out.covariance = np.concatenate([out.covariance, covariance[None]])
    out.p = np.append(out.p, p)
    out.amplitude = np.append(out.amplitude, amplitude)
    out.element.append(element)
    out.p_element = np.append(out.p_element, 1.0)
    out.added += 1
    return len(out.xy) - 1


def _mixed(ways: Sequence[Weighed], way: Weighed) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of each atom over all hypotheses that have it."""
    weight = np.full(len(way.xy), way.p)
    first = way.p * way.xy
    second = way.p * (way.covariance + np.einsum("ni,nj->nij", way.xy, way.xy))
    for other in ways:
        if other is way or not len(other.xy) or other.p < 1e-3:
            continue
        distance, own = cKDTree(other.xy).query(way.xy)
        alike = (distance < _SAME_A) & (other.elements[own] == way.elements)
        same = np.where(alike, other.p, 0.0)
        xy = other.xy[own]
        weight += same
        first += same[:, None] * xy
        outer = other.covariance[own] + np.einsum("ni,nj->nij", xy, xy)
        second += same[:, None, None] * outer
    mean = first / weight[:, None]
    covariance = second / weight[:, None, None] - np.einsum("ni,nj->nij", mean, mean)
    return mean, covariance


def _told(shares: dict[str, float], best: str) -> str:
    """Write the alternatives to a kind, likeliest first."""
    others = sorted(((p, name) for name, p in shares.items() if name != best), reverse=True)
    return ", ".join(f"{name or 'none'} {p:.2f}" for p, name in others if p >= _LEAST_TOLD)


def table_of(out: Tables, atoms: AtomTable) -> AtomTable:
    """Make the table of atoms from the arrays."""
    old, new = atoms.data, out.added
    return AtomTable(
        AtomTable.build(
            frame=int(old["frame"][0]),
            xy=out.xy,
            covariance=out.covariance,
            p_exists=out.p,
            element=out.element,
            p_element=out.p_element,
            votes=np.append(old["votes"].to_numpy(), np.zeros(new)),
            amplitude=out.amplitude,
        ).data,
        None
        if atoms.empty_sites is None
        else atoms.empty_sites.with_columns(pl.Series("p", out.tested_p)),
    )
