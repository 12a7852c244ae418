"""The analysis of frames as they come: what did not change is not computed again.

Networks look at every frame, so that noise is judged as in the full analysis. Probe, noise,
lattice and the names of defects begin with those of the last frame. A frame that does not resemble
it is analysed in full. Every so many-th frame is analysed once more in full while the microscope
scans the next one: the two are compared, and what follows begins with the full result.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from adatom.analysis.card import fit_in_card
from adatom.analysis.frame import FrameResult, analyse_frame, in_file_unit, with_tested_sites
from adatom.analysis.lattice import host_weights
from adatom.analysis.naming import Before, name_defects, weigh_again, weigh_defects
from adatom.analysis.options import AnalysisOptions
from adatom.core import AtomTable, DefectTable, EmptySites, Frame, Lattice, Material
from adatom.core.arrays import BoolArray, FloatArray, Image, IntArray
from adatom.features.calibration.calibrator import Calibrator
from adatom.features.find import FoundAtoms, find_again, locate_sites
from adatom.frames.lattice.fit import follow_lattice
from adatom.frames.specimen.examine import examine_again
from adatom.learning.ensemble import Ensemble
from adatom.learning.predict import predict_tiles

FULL, FAST = "full", "fast"
_KINDS = 4  # kinds of frames (shape and pixel size) whose last results are kept
_SAME_A = 0.6  # Å: atoms nearer than this are the same one, after the drift
_LEAST_SAME = 0.9  # share of the atoms that must be the same ones
_LEAST_MATCHED, _MOST_RMS = 0.9, 1.3  # of the lattice, relative to the last full analysis
_INNER_A = 2.0  # Å: nearer to the border, atoms come and go
_MOST_SHIFT_A = 2.0  # Å: after more drift, defects are named again
_REACH_A = 2.4  # Å: largest drift from frame to frame
_SAME_P = 0.05  # change of a probability from which a defect is named again
# Relative change of χ² from which probe, noise or background are not those of the last full frame.
_CHANGED = 0.08
_AGREES = 0.3  # error bars within which two positions agree


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """Results for frames of one shape and pixel size.

    Parameters
    ----------
    full
        The last full analysis.
    named
        The last analysis in which defects were named.
    lattice
        Of the last frame.
    shift_xy
        Drift since `named`, shape (2,), Å.
    since
        Frames since `full`.
    last
        What was found in the last frame.
    """

    full: FrameResult
    named: FrameResult
    lattice: Lattice
    shift_xy: FloatArray
    since: int
    last: FoundAtoms


class LiveAnalysis:
    """Analyse frames as they come.

    Parameters
    ----------
    ensemble
        Calibrated networks.
    material
        Material in the frames.
    options
        See `AnalysisOptions`.
    full_every
        The full analysis checks every so many-th frame of a kind; 1 for no fast analysis.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        material: Material,
        options: AnalysisOptions | None = None,
        *,
        full_every: int = 10,
    ) -> None:
        self._ensemble, self._material = ensemble, material
        self._options, self._every = options or AnalysisOptions(), full_every
        self._calibrator = fit_in_card(ensemble.card, "calibration", Calibrator)
        self._run = _quick_runner(ensemble) if full_every > 1 else None
        self._kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()
        self._due: tuple[Frame, FrameResult] | None = None

    def see(self, frame: Frame) -> tuple[FrameResult, str]:
        """Analyse the next frame.

        Parameters
        ----------
        frame
            The image.

        Returns
        -------
        The result, and ``fast`` or ``full``. A fast result has no maps; its flags are those of the
        last full one.

        Raises
        ------
        BadInput
            If the ensemble's card has no calibration.
        """
        key = _key(frame)
        kept = self._kept.pop(key, None)
        self._due = None
        if kept is not None and self._every > 1:
            after = self._fast(frame, kept)
            if after is not None:
                self._kept[key] = after
                if after.since >= self._every:
                    self._due = frame, after.named_or_moved
                return after.named_or_moved, FAST
        result = analyse_frame(frame, self._ensemble, self._material, self._options)
        self._begin(frame, result)
        return result, FULL

    def check(self) -> dict[str, Any] | None:
        """Analyse the last frame in full, if it is its turn, and go on from that.

        Returns
        -------
        How many atoms there are, which share of them the fast analysis placed within 0.3 of their
        error bars, and the defects that it missed; None if no check was due.
        """
        if self._due is None:
            return None
        (frame, fast), self._due = self._due, None
        full = analyse_frame(frame, self._ensemble, self._material, self._options)
        self._kept.pop(_key(frame), None)
        self._begin(frame, full)
        within, missed = agreement(fast, full)
        return {
            "frame": frame.index, "atoms": len(within),
            "within": round(float(within.mean()), 4) if len(within) else 1.0, "missed": missed,
        }  # fmt: skip

    def _begin(self, frame: Frame, result: FrameResult) -> None:
        """Keep a full result for the frames that follow."""
        if result.lattice is not None and _can_follow(result):
            light = replace(result, maps={})
            self._kept[_key(frame)] = _Kept(
                light, light, result.lattice, np.zeros(2), 0, result.found
            )
        while len(self._kept) > _KINDS:
            self._kept.popitem(last=False)

    def _fast(self, frame: Frame, kept: _Kept) -> _After | None:
        """Analyse a frame that resembles the last one; None where it does not."""
        examined = examine_again(frame)
        if examined is None:
            return None
        tiles = predict_tiles(examined, self._ensemble, run=self._run)
        sites = locate_sites(tiles, self._options.find)
        found = find_again(
            examined, sites, kept.last, self._material, self._calibrator, self._options.find
        )
        if found is None or _has_changed(found, kept.full.found):
            return None
        named = kept.named
        before = named.before or Before(named.atoms, named.defects, ())
        step = _shift(before.atoms, found.atoms, kept.shift_xy)
        if step is None:
            return None
        lattice = _followed(found.atoms, kept, step, self._material)
        if lattice is None:
            return None
        atoms = with_tested_sites(found, lattice, examined)
        now = FrameResult(atoms, lattice, DefectTable.empty(), {}, kept.full.flags, found)
        after = self._named_as_before(examined, before, kept, now, step)
        anew = after is not None and after.before is not None
        if after is None:
            atoms, defects, now_before = weigh_defects(
                examined, atoms, found, lattice, self._material, self._options
            )
            after, anew = replace(now, atoms=atoms, defects=defects, before=now_before), True
        after = replace(after, atoms=in_file_unit(after.atoms, examined))
        if anew:
            named, step = after, np.zeros(2)
        return _After(kept.full, named, lattice, step, kept.since + 1, found, after)

    def _named_as_before(
        self, frame: Frame, before: Before, kept: _Kept, now: FrameResult, step: FloatArray
    ) -> FrameResult | None:
        """Give the defects of the last frame at their new places; None where any may have changed.

        Positions that a shape settled follow from the counts of this frame, not from the last.
        Where they speak for another kind than there, the result has what there was before.
        """
        if np.abs(step).max() > _MOST_SHIFT_A or now.lattice is None:
            return None
        numbers = _same_atoms(before.atoms, now.atoms, step, now.found.frame)
        if numbers is None:
            return None
        plain: DefectTable | None
        others: DefectTable | None
        if not _same_vacancies(before.atoms, now, step):
            # The same atoms, but the probability of a vacancy is another one.
            plain = others = name_defects(
                frame, now.atoms, now.lattice, self._material, self._options
            )
        else:
            border = self._options.defects.border_A
            plain = _moved_defects(before.defects, numbers, now, step, border)
            others = _moved_defects(_unsettled(kept.named, before), numbers, now, step, border)
        if plain is None or others is None:
            return None
        if not before.asked:
            return replace(now, defects=plain, before=None)
        atoms, defects, anew = weigh_again(
            frame, Before(now.atoms, plain, before.asked), others, now.found, now.lattice,
            self._material, self._options,
        )  # fmt: skip
        return replace(now, atoms=atoms, defects=defects, before=anew)


@dataclass(frozen=True, slots=True, eq=False)
class _After(_Kept):
    """What is kept after a fast analysis, with its result."""

    named_or_moved: FrameResult


def agreement(fast: FrameResult, full: FrameResult) -> tuple[BoolArray, list[str]]:
    """Compare two analyses of one frame.

    Returns
    -------
    Whether each atom of the full analysis is within 0.3 of its error bar in the fast one and of
    the same element, shape (atom,); and the kinds of the defects that the fast one missed.
    """
    likely = full.atoms.is_likely
    xy, elements = full.atoms.xy[likely], full.atoms.elements[likely]
    mine = fast.atoms.is_likely
    if not mine.any():
        return np.zeros(len(xy), dtype=np.bool_), full.defects.data["kind"].to_list()
    variance = full.atoms.covariance[likely].trace(axis1=1, axis2=2) / 2.0
    away, nearest = cKDTree(fast.atoms.xy[mine]).query(xy)
    within = (away <= _AGREES * np.sqrt(variance)) & (
        fast.atoms.elements[mine][nearest] == elements
    )
    places = {
        kind: rows.select("x_A", "y_A").to_numpy()
        for (kind,), rows in fast.defects.data.group_by("kind")
    }
    missed = [
        kind
        for kind, x, y in full.defects.data.select("kind", "x_A", "y_A").iter_rows()
        if kind not in places or np.hypot(*(places[kind] - (x, y)).T).min() > _SAME_A
    ]
    return np.asarray(within), missed


def _key(frame: Frame) -> tuple[object, ...]:
    return frame.shape, round(frame.calibration.pixel_size_A, 6)


def _quick_runner(ensemble: Ensemble) -> Callable[[Image], NDArray[np.float32]] | None:
    from adatom.learning.bfloat import quick_runner  # torch takes seconds to import

    return quick_runner(ensemble)


def _has_changed(found: FoundAtoms, full: FoundAtoms) -> bool:
    """Whether the fit explains a frame worse or better than it explained the last full one."""
    return abs(found.refined.reduced_chi2 / full.refined.reduced_chi2 - 1.0) > _CHANGED


def _can_follow(result: FrameResult) -> bool:
    pixels = result.found.frame.pixels
    return pixels is None or not (pixels.any_masked or pixels.any_clipped)


def _shift(before: AtomTable, now: AtomTable, guess: FloatArray) -> FloatArray | None:
    """Drift of the atoms, shape (2,), Å; None where too few are the same ones.

    Shifts by lattice vectors look alike: of those that lay enough atoms, the first is taken. What
    is no lattice atom is then found to have moved, and is named again.
    """
    old, new = before.xy[before.is_likely], now.xy[now.is_likely]
    if not len(old) or not len(new):
        return None
    tree = cKDTree(old)
    grid = np.arange(-_REACH_A, _REACH_A + 1e-9, _SAME_A)
    starts = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    for start in starts[np.argsort(np.linalg.norm(starts, axis=1))]:
        shift = guess + start
        for _ in range(3):
            away, nearest = tree.query(new - shift, distance_upper_bound=_SAME_A)
            same = np.isfinite(away)
            if not same.any():
                break
            shift = shift + np.median(new[same] - shift - old[nearest[same]], axis=0)
        if same.mean() >= _LEAST_SAME * _overlap(now, shift):
            return np.asarray(shift)
    return None


def _overlap(now: AtomTable, shift: FloatArray) -> float:
    """Share of the atoms that were in the field before."""
    xy = now.xy[now.is_likely]
    low, high = xy.min(axis=0), xy.max(axis=0)
    moved = xy - shift
    return float(np.mean(np.all((moved > low - 0.5) & (moved < high + 0.5), axis=1)))


def _moved(lattice: Lattice, step: FloatArray) -> Lattice:
    x, y = lattice.center_xy_A
    return replace(lattice, center_xy_A=(x + float(step[0]), y + float(step[1])))


def _followed(
    atoms: AtomTable, kept: _Kept, step: FloatArray, material: Material
) -> Lattice | None:
    """Fit the lattice from that of the last frame; None where it fits worse than usual."""
    host, weights = host_weights(atoms, material)
    moved = _moved(kept.lattice, step - kept.shift_xy)
    lattice = follow_lattice(atoms.xy[host], moved, weights)
    usual = kept.full.lattice
    assert usual is not None  # only such are kept  # noqa: S101
    worse = lattice.matched < _LEAST_MATCHED * usual.matched
    return None if worse or lattice.rms_A > _MOST_RMS * usual.rms_A else lattice


def _same_vacancies(before: AtomTable, now: FrameResult, shift: FloatArray) -> bool:
    """Whether sites are empty with the probability that they had before."""
    frame = now.found.frame
    old, new = _vacant(before, frame, shift), _vacant(now.atoms, frame, np.zeros(2))
    kept = _inside_both(old[0], shift, frame)
    old = old[0][kept], old[1][kept]
    if len(old[0]) != len(new[0]):
        return False
    if not len(old[0]):
        return True
    away, nearest = cKDTree(new[0]).query(old[0])
    return bool(away.max() <= _SAME_A and np.abs(new[1][nearest] - old[1]).max() <= _SAME_P)


def _unsettled(named: FrameResult, before: Before) -> DefectTable:
    """Defects of a frame; those that the counts settled are left out or as they were before."""
    weighed = named.atoms.weighed
    if weighed is None:
        return named.defects
    same = ["kind", "x_A", "y_A"]
    others = named.defects.data.join(weighed, on=same, how="anti")
    doubted = before.defects.data.join(weighed, on=same, how="semi")  # another p, nothing else
    return DefectTable.concat([DefectTable(others), DefectTable(doubted)])


def _moved_defects(
    named: DefectTable, numbers: IntArray, now: FrameResult, shift: FloatArray, border_A: float
) -> DefectTable | None:
    """Put defects at their new places; None where an atom of one is missing now."""
    old, frame = named.data, now.found.frame
    places = old.select("x_A", "y_A").to_numpy() + shift
    lists = old["atoms"].to_list()
    if any(i >= len(numbers) or numbers[i] < 0 for members in lists for i in members):
        return None
    atoms = [[int(numbers[i]) for i in members] for members in lists]
    far = np.asarray(frame.calibration.extent_xy(frame.shape))
    inside = np.minimum(places, far - places).min(axis=1, initial=np.inf) >= border_A
    table = old.with_columns(
        frame=pl.lit(frame.index, pl.Int32),
        x_A=pl.Series(places[:, 0]), y_A=pl.Series(places[:, 1]),
        atoms=pl.Series(atoms, dtype=pl.List(pl.Int32)),
    )  # fmt: skip
    return DefectTable(table.filter(pl.Series(inside, dtype=pl.Boolean)))


def _same_atoms(
    before: AtomTable, now: AtomTable, shift: FloatArray, frame: Frame
) -> IntArray | None:
    """Number now of every atom before, -1 for none; None where inner atoms differ."""
    old, new = (np.flatnonzero(t.is_likely) for t in (before, now))
    old_xy, new_xy = before.xy[old] + shift, now.xy[new]
    away, nearest = cKDTree(new_xy).query(old_xy)
    same = away < _SAME_A
    in_both = [_inside_both(xy, shift, frame) for xy in (old_xy, new_xy)]
    if not same[in_both[0]].all() or len(np.unique(nearest[same])) != same.sum():
        return None
    taken = np.zeros(len(new), dtype=bool)
    taken[nearest[same]] = True
    usual = _commonest(before)
    came = ~in_both[1] & (frame.border_distance_A(new_xy) > _INNER_A)
    if not taken[in_both[1]].all() or (now.elements[new[came]] != usual).any():
        return None
    a, b = old[same & in_both[0]], new[nearest[same & in_both[0]]]
    change = np.abs(before.column("p_element")[a] - now.column("p_element")[b])
    odd = before.elements[a] != usual
    if (before.elements[a] != now.elements[b]).any() or (change[odd] > _SAME_P).any():
        return None
    numbers = np.full(len(before), -1, dtype=np.int64)
    numbers[old[same]] = new[nearest[same]]
    return numbers


def _inside_both(xy: FloatArray, shift: FloatArray, frame: Frame) -> BoolArray:
    """Whether places were inside the field before, and are now."""
    now, before = (frame.border_distance_A(p) > _INNER_A for p in (xy, xy - shift))
    return np.asarray(now & before)


def _commonest(atoms: AtomTable) -> str:
    values, counts = np.unique(atoms.elements, return_counts=True)
    return str(values[np.argmax(counts)])


def _vacant(atoms: AtomTable, frame: Frame, shift: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Inner sites that may be empty, shape (site, 2), Å, and the probability that they are."""
    if atoms.empty_sites is None:
        return np.zeros((0, 2)), np.zeros(0)
    sites = EmptySites.from_table(atoms.empty_sites)
    xy = sites.xy + shift
    chosen = (sites.p > 0.3) & (frame.border_distance_A(xy) > _INNER_A)
    return xy[chosen], sites.p[chosen]
