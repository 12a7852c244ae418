"""The sites of a sheet as a graph: ways along bonds, and the drift of later frames."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from scipy.spatial import cKDTree

from adatom.core.arrays import FloatArray, IntArray
from adatom.errors import BadInput

_BOND_RANGE = (0.7, 1.35)  # lengths of bonds over that of the perfect crystal: Si bonds are longer
# An atom belongs to the nearest site within this part of a bond: beyond half, another is as near.
_SAME_SITE_BONDS = 0.45
_ROUNDS = 4  # the set of pairs settles in two or three rounds
_WEAK_HOPS = 4.0  # a hop onto a site beside a vacancy costs as much as so many others
_LEAST_MATCHED = 0.6  # share of a frame's atoms that must lie on sites


@dataclass(frozen=True, slots=True, eq=False)
class Sites:
    """Sites of a sheet, and the bonds between them.

    Parameters
    ----------
    xy
        Shape (site, 2), Å, in the axes of the specimen when they were seen.
    bonds
        Shape (bond, 2): pairs of sites.
    bond_length_A
        Bond length of the perfect crystal, Å.
    """

    xy: FloatArray
    bonds: IntArray
    bond_length_A: float

    @classmethod
    def of(cls, xy: FloatArray, bond_length_A: float) -> Sites:
        """Take atoms as sites; those about one bond length apart are bonded.

        Parameters
        ----------
        xy
            Shape (atom, 2), Å.
        bond_length_A
            Bond length of the perfect crystal, Å.

        Examples
        --------
        >>> import numpy as np
        >>> chain = Sites.of(np.array([[0.0, 0.0], [1.4, 0.0], [2.8, 0.1]]), 1.42)
        >>> chain.bonds.tolist()
        [[0, 1], [1, 2]]
        """
        pairs = cKDTree(xy).query_pairs(_BOND_RANGE[1] * bond_length_A, output_type="ndarray")
        far = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1) > (
            _BOND_RANGE[0] * bond_length_A
        )
        return cls(xy, pairs[far], bond_length_A)

    def neighbours(self, site: int) -> IntArray:
        """Sites that are bonded to a site."""
        mine = (self.bonds == site).any(axis=1)
        both = self.bonds[mine].ravel()
        out: IntArray = both[both != site]
        return out

    def closest(self, xy: FloatArray) -> int:
        """Site closest to a place, shape (2,), Å, however far it is."""
        return int(np.argmin(np.linalg.norm(self.xy - xy, axis=1)))

    def nearest(self, xy: FloatArray, reach_bonds: float = 0.5) -> int:
        """Site nearest to a place, shape (2,), Å.

        Raises
        ------
        BadInput
            If no site lies within the reach: half a bond by default.
        """
        site = self.closest(xy)
        distance = float(np.linalg.norm(self.xy[site] - xy))
        if distance > reach_bonds * self.bond_length_A:
            raise BadInput(
                "place",
                expected=f"a lattice site within {reach_bonds * self.bond_length_A:.1f} Å, on the "
                "part that was seen",
                got=f"({xy[0]:.2f}, {xy[1]:.2f}) Å, {distance:.2f} Å from the nearest one",
                todo="Choose a place on the sheet in the first frame.",
            )
        return site

    @property
    def weak(self) -> frozenset[int]:
        """Sites with fewer bonds than most: beside a vacancy, or at the border of what was seen."""
        bonds = np.bincount(self.bonds.ravel(), minlength=len(self.xy))
        return frozenset(np.flatnonzero(bonds < np.argmax(np.bincount(bonds))).tolist())

    def cost(self, way: Sequence[int]) -> float:
        """Hops of a way; one onto a site beside a vacancy or the border counts as four."""
        weak = self.weak
        return float(sum(_WEAK_HOPS if site in weak else 1.0 for site in way[1:]))

    def route(self, start: int, goal: int, closed: Collection[int] = ()) -> tuple[int, ...]:
        """Find the best way along bonds, without the closed sites; both ends are in it.

        It is the shortest, with a detour of up to three hops round each site beside a vacancy or
        the border.

        Raises
        ------
        BadInput
            If there is no way.

        Examples
        --------
        >>> import numpy as np
        >>> Sites.of(np.array([[0.0, 0.0], [1.4, 0.0], [2.8, 0.1]]), 1.42).route(0, 2)
        (0, 1, 2)
        """
        graph = nx.Graph(self.bonds.tolist())
        graph.remove_nodes_from(set(closed) - {start})
        if start not in graph or goal not in graph or not nx.has_path(graph, start, goal):
            x, y = self.xy[goal]
            raise BadInput(
                "path",
                expected="a way along bonds of carbon atoms that were seen",
                got=f"none to ({x:.2f}, {y:.2f}) Å: vacancies or other impurity atoms are between",
                todo="Choose another goal, or a field of view that shows a way around.",
            )
        weak = self.weak
        return tuple(
            nx.shortest_path(
                graph, start, goal, weight=lambda _, to, __: _WEAK_HOPS if to in weak else 1.0
            )
        )

    def distances(self, start: int) -> dict[int, int]:
        """Number of bonds from a site to each site that has a way to it."""
        graph = nx.Graph(self.bonds.tolist())
        if start not in graph:
            return {start: 0}
        return dict(nx.single_source_shortest_path_length(graph, start))

    def shifts_of(self, xy: FloatArray, guess_xy: FloatArray, reach_A: float) -> FloatArray:
        """Shifts that lay a later frame's atoms on the sites, shape (shift, 2), Å, nearest first.

        On a lattice there are many: they differ by lattice vectors. What tells them apart is known
        elsewhere (how far it may have drifted, where the impurity was).

        Parameters
        ----------
        xy
            Atoms of that frame, shape (atom, 2), Å.
        guess_xy
            Expected shift, shape (2,), Å.
        reach_A
            Largest distance from the expected shift, Å.

        Raises
        ------
        BadInput
            If no shift lays 60 % of the atoms on sites.

        Examples
        --------
        >>> import numpy as np
        >>> chain = Sites.of(np.array([[0.0, 0.0], [1.4, 0.0], [2.8, 0.1]]), 1.42)
        >>> chain.shifts_of(chain.xy + [0.3, -0.1], np.zeros(2), 0.3)[:1].round(2).tolist()
        [[0.3, -0.1]]
        """
        tree, step = cKDTree(self.xy), _SAME_SITE_BONDS * self.bond_length_A
        grid = np.arange(-np.ceil(reach_A / step), np.ceil(reach_A / step) + 1) * step
        starts = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
        starts = starts[np.argsort(np.linalg.norm(starts, axis=1))]
        out: list[FloatArray] = []
        best = 0.0
        for start in starts[np.linalg.norm(starts, axis=1) <= reach_A + step]:
            shift, share = self._settled(tree, xy, guess_xy + start)
            best = max(best, share)
            far = all(np.linalg.norm(shift - other) > step for other in out)
            if share >= _LEAST_MATCHED and far:
                out.append(shift)
        if not out:
            raise BadInput(
                "frame",
                expected=f"{_LEAST_MATCHED:.0%} of its atoms on the sites of the first frame",
                got=f"at most {best:.0%}",
                todo="Look again: the specimen may have changed, or moved too far.",
            )
        return np.array(sorted(out, key=lambda shift: float(np.linalg.norm(shift - guess_xy))))

    def empty(self, xy: FloatArray, low_xy: FloatArray, high_xy: FloatArray) -> frozenset[int]:
        """Sites in a rectangle on which there is no atom.

        Parameters
        ----------
        xy
            Atoms of a frame without its shift, shape (atom, 2), Å.
        low_xy, high_xy
            Corners of what the frame shows surely, shape (2,), Å.

        Examples
        --------
        >>> chain = Sites.of(np.array([[0.0, 0.0], [1.4, 0.0], [2.8, 0.1]]), 1.42)
        >>> sorted(chain.empty(chain.xy[:1], np.array([-1.0, -1.0]), np.array([2.0, 1.0])))
        [1]
        """
        inside = np.all((self.xy > low_xy) & (self.xy < high_xy), axis=1)
        away, _ = cKDTree(xy).query(self.xy)
        bare = inside & (away > _SAME_SITE_BONDS * self.bond_length_A)
        return frozenset(np.flatnonzero(bare).tolist())

    def beside(self, xy: FloatArray) -> int:
        """Count the atoms at places, shape (atom, 2), Å, that are on no site.

        Examples
        --------
        >>> chain = Sites.of(np.array([[0.0, 0.0], [1.4, 0.0], [2.8, 0.1]]), 1.42)
        >>> chain.beside(np.array([[0.1, 0.0], [0.7, 0.6]]))
        1
        """
        away, _ = cKDTree(self.xy).query(xy)
        return int(np.count_nonzero(away > _SAME_SITE_BONDS * self.bond_length_A))

    def _settled(
        self, tree: cKDTree, xy: FloatArray, guess_xy: FloatArray
    ) -> tuple[FloatArray, float]:
        """Refine a shift; give it with the share of the atoms on sites."""
        shift, share = np.asarray(guess_xy, dtype=np.float64), 0.0
        for _ in range(_ROUNDS):
            distance, site = tree.query(xy - shift)
            same = distance < _SAME_SITE_BONDS * self.bond_length_A
            share = float(same.mean()) if len(xy) else 0.0
            if not same.any():
                break
            shift = np.median(xy[same] - self.xy[site[same]], axis=0)
        return shift, share
