"""A flake: what a frame shows where no periodic cell fits, such as an edge or a wide hole.

The flake is cut out of the observed sheet. Cut bonds end in hydrogen, and the rim is frozen, so
that it stays where the crystal around it holds it. Edges that the frame shows are left as they are:
an image does not show whether they carry hydrogen.
"""

from __future__ import annotations

import ase
import numpy as np
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from adatom.core.arrays import FloatArray
from adatom.core.atoms import AtomTable
from adatom.core.lattice import Lattice
from adatom.core.structure import Structure
from adatom.errors import BadInput
from adatom.structures.assemble import FILLED, structure_name
from adatom.structures.scene import Observed, SupercellOptions
from adatom.structures.stacks import is_flat
from adatom.structures.supercell import box_at, observe

_BOND_SCALE = 1.2  # bond length over the sum of covalent radii below which two atoms are bonded
_RIM_A = 5.0  # Å of sheet beyond the nearest atom that the flake has at least
_FARTHEST_A = 12.0  # Å from the centre to the nearest atom: beyond it there is nothing to simulate
_HYDROGENS_APART_A = 1.5  # least distance of two hydrogen atoms, Å
_TRIES = 8  # rounds in which the rim is completed; two or three are needed


def build_flake(
    atoms: AtomTable,
    lattice: Lattice,
    extent_xy_A: tuple[float, float],
    *,
    center_xy_A: tuple[float, float],
    kind: str,
    frame: int,
    defect: int,
    draw: int = -1,
    rng: np.random.Generator | None = None,
    options: SupercellOptions | None = None,
) -> Structure:
    """Cut a flake out of a flat sheet around a point of a frame.

    Parameters
    ----------
    atoms, lattice, extent_xy_A, center_xy_A, kind, frame, defect, options
        As for `build_supercell`. Where the frame ends, the crystal goes on.
    draw
        Number of the sample, -1 for the most probable atoms.
    rng
        Draws existence and positions; None for the most probable ones.

    Returns
    -------
    Structure
        At least `options.flake_radius_A` wide on each side of the centre, and 5 Å of sheet beyond
        the nearest atom. The rim and its hydrogen are fixed. The cell is periodic with
        `options.min_vacuum_A` around the flake. ``atoms.info["changes"]`` says how many hydrogen
        atoms were added.

    Raises
    ------
    BadInput
        If the crystal is not a flat sheet, or no atom is near.
    """
    options = options or SupercellOptions()
    if not is_flat(lattice.material):
        raise BadInput(
            f"{kind} of frame {frame}",
            expected="a defect that fits into a periodic cell",
            got=f"an edge, or a hole wider than {2 * options.defect_radius_A:g} Å",
            todo="Only flat sheets such as graphene and h-BN are simulated as flakes.",
        )
    middle = lattice.undistort(np.array([center_xy_A]))
    box = box_at(lattice, middle, options)
    center = box.from_image(middle)[0]
    seen = _existing(observe(atoms, lattice, box, options), rng, options)
    distance = np.linalg.norm(seen.xy - center, axis=1)
    nearest = float(distance.min()) if len(seen) else np.inf
    if nearest > _FARTHEST_A:
        raise BadInput(
            f"{kind} of frame {frame}",
            expected=f"atoms within {_FARTHEST_A:g} Å of it",
            got="none",
            todo="There is nothing to simulate.",
        )
    radius = max(options.flake_radius_A, nearest + _RIM_A)
    _, measured = lattice.sites_within(extent_xy_A, -(radius + 8.0))
    index, _ = lattice.nearest_site(lattice.undistort(measured))
    outside = np.any((measured < 0.0) | (measured > np.asarray(extent_xy_A)), axis=1)
    beyond = box.from_image(lattice.undistort(measured[outside]))
    free = cKDTree(seen.xy).query(beyond)[0] > options.match_A
    species = np.array(lattice.material.site_species)[index[outside][free, 2]]
    xyz = np.column_stack(
        [np.concatenate([seen.xy, beyond[free]]), np.concatenate([seen.z, np.zeros(free.sum())])]
    )
    symbols = np.concatenate([seen.elements, species])
    source = np.concatenate([seen.number, np.full(int(free.sum()), FILLED)])
    wide = np.linalg.norm(xyz[:, :2] - center, axis=1) <= radius + 8.0
    xyz, symbols, source = xyz[wide], symbols[wide], source[wide]
    kept, hydrogens, rim = _cut(xyz, symbols, center, radius)
    return _structure(
        xyz[kept], symbols[kept].tolist(), source[kept], hydrogens, rim[kept],
        structure_name(kind, frame, defect, draw), (kind, frame, defect, draw), options,
    )  # fmt: skip


def _existing(
    observed: Observed, rng: np.random.Generator | None, options: SupercellOptions
) -> Observed:
    """The atoms that exist, and in a sample their drawn places."""
    if rng is None:
        return observed.take(observed.p_exists >= options.min_p_exists)
    drawn = observed.take(rng.random(len(observed)) < observed.p_exists)
    for i, covariance in enumerate(drawn.covariance):
        drawn.xy[i] += rng.multivariate_normal((0.0, 0.0), covariance)
    drawn.z[:] += options.sigma_z_host_A * rng.standard_normal(len(drawn))
    return drawn


def _cut(
    xyz: FloatArray, symbols: NDArray[np.str_], center: FloatArray, radius_A: float
) -> tuple[NDArray[np.bool_], FloatArray, NDArray[np.bool_]]:
    """Choose the atoms of the flake, shape (atom,); places of hydrogen; which atoms carry it."""
    radii = covalent_radii[[atomic_numbers[s] for s in symbols]]
    d = cdist(xyz, xyz)
    bonded = (d < _BOND_SCALE * (radii[:, None] + radii[None])) & (d > 0.0)
    kept = np.linalg.norm(xyz[:, :2] - center, axis=1) <= radius_A
    for _ in range(_TRIES):
        # An atom that two cut bonds lead to is taken in; one that hangs by a single bond, and was
        # cut off from the others, is not.
        kept = kept | (bonded @ kept.astype(int) >= 2)
        loose = kept & (bonded @ kept.astype(int) == 1) & (bonded @ (~kept).astype(int) >= 1)
        kept &= ~loose
        owner, gone = np.nonzero(bonded & kept[:, None] & ~kept[None])
        away = (xyz[gone] - xyz[owner]) / d[owner, gone][:, None]
        length = radii[owner] + covalent_radii[1]
        places = xyz[owner] + away * length[:, None]
        apart = cdist(places, places) + 10.0 * np.eye(len(places))
        crowded = np.unique(np.nonzero(apart < _HYDROGENS_APART_A)[0])
        if not len(crowded) and not np.any(~kept & (bonded @ kept.astype(int) >= 2)):
            return kept, places, np.isin(np.arange(len(xyz)), owner)
        kept[gone[crowded]] = True
    raise BadInput(
        "flake",
        expected=f"hydrogen atoms at least {_HYDROGENS_APART_A} Å apart",
        got="a rim on which there is no room for them",
        todo="Take another flake_radius_A.",
    )


def _structure(
    xyz: FloatArray,
    symbols: list[str],
    source: NDArray[np.int64],
    hydrogens: FloatArray,
    rim: NDArray[np.bool_],
    name: str,
    identity: tuple[str, int, int, int],
    options: SupercellOptions,
) -> Structure:
    everything = np.concatenate([xyz, hydrogens])
    low, high = everything.min(axis=0), everything.max(axis=0)
    size = high - low + options.min_vacuum_A
    size[2] = max(options.cell_height_A, size[2])
    n = len(hydrogens)
    atoms = ase.Atoms(
        [*symbols, *["H"] * n], cell=size, pbc=True,
        positions=everything - (low + high) / 2.0 + size / 2.0,
    )  # fmt: skip
    atoms.info["changes"] = [f"{n} H added on cut bonds of the rim"]
    atoms.info["form"] = "flake"
    kind, frame, defect, draw = identity
    spread = (0.0, 0.0, options.sigma_z_host_A)
    return Structure(
        atoms=atoms, name=name, kind=kind, frame=frame, defect=defect, draw=draw,
        source_atom=np.concatenate([source, np.full(n, FILLED)]).astype(np.int64),
        sigma_A=np.tile(spread, (len(everything), 1)),
        fixed=np.concatenate([rim, np.ones(n, dtype=np.bool_)]),
    )  # fmt: skip
