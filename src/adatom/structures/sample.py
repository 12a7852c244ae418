"""Random samples of a supercell: existence, element, position and height of its atoms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from adatom.core.atoms import AtomTable
from adatom.core.lattice import Lattice
from adatom.core.material import Material
from adatom.core.structure import Structure
from adatom.errors import BadInput
from adatom.structures.assemble import assemble
from adatom.structures.scene import Observed, Scene, SupercellOptions
from adatom.structures.stacks import buckles
from adatom.structures.supercell import observe, prepare
from adatom.structures.weights import Explain, importance_weights, log_weight

_MAX_TRIES = 50  # attempts per sample, a count; it only bounds the time where atoms always clash


def sample_structures(
    atoms: AtomTable,
    lattice: Lattice,
    extent_xy_A: tuple[float, float],
    *,
    center_xy_A: tuple[float, float],
    kind: str,
    frame: int,
    defect: int,
    count: int,
    rng: np.random.Generator,
    options: SupercellOptions | None = None,
    explain: Explain | None = None,
) -> list[Structure]:
    """Sample structures from the probabilities of one defect's atoms.

    In every sample, each observed atom exists with probability ``p_exists``. It has its named
    element with probability ``p_element``, else one of the material's other species with equal
    probability; columns of its polytypes are none of these. Its position is sampled from its 2x2
    covariance. An atom too large for a flat sheet lies above or below it with probability 1/2 each,
    and of like places in a column each is as likely to lack an atom. A sample in which two atoms
    are closer than `options.min_distance_A` is rejected and repeated, so that two candidates for
    one atom never both exist.

    Parameters
    ----------
    atoms, lattice, extent_xy_A, center_xy_A, kind, frame, defect, options
        As for `build_supercell`, which gives the most probable structure (draw -1).
    count
        Number of samples.
    rng
        Source of randomness; the same seed gives the same samples.
    explain
        Likelihood of the frame: which rows of `atoms` exist, and what each is, give the logarithm
        of p(pixels | atoms). None where there is no image: the samples have no weights.

    Returns
    -------
    list of Structure
        Samples with ``draw`` 0 to ``count - 1``. ``atoms.info["rejected"]`` counts the samples
        rejected before each; ``atoms.info["left_out"]`` counts the atoms left out where 50
        attempts all had clashing atoms. With `explain`, ``atoms.info["weight"]`` is the importance
        weight (`weights.log_weight`); the sum over the samples is one.

    Raises
    ------
    BadInput
        As `build_supercell`, and if `count` is negative.
    """
    if count < 0:
        raise BadInput("`draws`", expected="0 or more", got=str(count), todo="Ask for some draws.")
    options = options or SupercellOptions()
    scene = prepare(
        atoms, lattice, extent_xy_A, center_xy_A=center_xy_A, frame=frame, options=options
    )
    drawn, log_weights = [], []
    everything = observe(atoms, lattice, scene.box, options)
    others = len(_possible(lattice.material)) - 1
    for draw in range(count):
        rejected, left_out = -1, 1
        while left_out and rejected + 1 < _MAX_TRIES:
            rejected += 1
            sample = _sample_atoms(scene, rng, options)
            structure, left_out = assemble(
                scene,
                sample,
                kind=kind,
                frame=frame,
                defect=defect,
                draw=draw,
                options=options,
                rng=rng,
            )
        noted = structure.atoms.copy()
        noted.info.update(rejected=rejected, left_out=left_out)
        drawn.append(replace(structure, atoms=noted))
        if explain is not None:
            log_weights.append(log_weight(scene, sample, explain, everything, others, options))
    for structure, weight in zip(drawn, importance_weights(log_weights), strict=False):
        structure.atoms.info["weight"] = float(weight)
    return drawn


def _possible(material: Material) -> list[str]:
    """Species that an atom may be drawn as; labels of other stackings are no atoms of this one."""
    stacked = {label for sites in material.polytypes for label, _, _ in sites}
    own = set(material.site_species)
    return [s for s in material.species if s in own or s not in stacked]


def _sample_atoms(scene: Scene, rng: np.random.Generator, options: SupercellOptions) -> Observed:
    """Sample the atoms near the defect once, in cell axes."""
    seen, material = scene.observed, scene.lattice.material
    n = len(seen)
    possible = _possible(material)
    exists = rng.random(n) < seen.p_exists
    # A table of C alone holds texts of one letter: Si would be cut to S.
    elements = seen.elements.astype(np.result_type(seen.elements, np.array(possible)))
    for i in np.flatnonzero(rng.random(n) >= seen.p_element):
        others = [s for s in possible if s != elements[i]]
        if others:
            elements[i] = others[int(rng.integers(len(others)))]
    xy = seen.xy + np.einsum("nij,nj->ni", _root(seen.covariance), rng.standard_normal((n, 2)))
    impurity = buckles(elements, material)
    side = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    wave = rng.standard_normal(n)
    high = np.abs(options.foreign_height_A + options.sigma_z_foreign_A * wave)
    z = np.where(impurity, side * high, options.sigma_z_host_A * wave)
    return replace(seen, xy=xy, z=z, elements=elements).take(exists)


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric square root of covariances (N, 2, 2); eigenvalues below 0 (rounding) count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    out: NDArray[np.float64] = np.einsum(
        "nij,nj,nkj->nik", vectors, np.sqrt(np.maximum(values, 0.0)), vectors
    )
    return out
