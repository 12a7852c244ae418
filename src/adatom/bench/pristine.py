"""Rows of `adatom bench defects` on perfect crystals: how often atoms are named that do not belong.

Every ad-atom, antisite, substitution and interstitial that is named there is wrong.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from adatom.analysis.frame import analyse_frame
from adatom.bench.rows import Row, row
from adatom.core import Adatom, Antisite, Frame, Material, Substitution
from adatom.core.arrays import BoolArray, FloatArray
from adatom.core.defect_kind import Cluster, DefectKind, Interstitial
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_sites
from adatom.frames.simulate.synthesize import image_specimen
from adatom.learning.weights import load_shipped
from adatom.materials.library import load_material, material_names

SEED = 67_000_000  # far from those of training, calibration and the choice of thresholds
DOSES = (1.0, 2.0, 5.0, 20.0)  # counts at the peak of the host, per pixel
_PIXELS = 256  # edge of a frame, pixels
_PIXEL_A = 0.15  # at graphene's scale, Å
_PROBE_A = (0.37, 0.46)  # standard deviation of the probe at graphene's scale, Å
_DISORDER_A = 0.05  # largest static disorder per axis, Å
_MARGIN_A = 3.0  # sites this far outside the field reach into it, at graphene's scale, Å
_NAMED_P = 0.5  # defects more probable than this count
_MOST = 1e-4  # largest share of the sites beside which one is named


def pristine_rows(frames: int, seed: int = SEED, names: tuple[str, ...] = ()) -> list[Row]:
    """Count what is named beside the sites of perfect crystals, for each shipped material.

    Parameters
    ----------
    frames
        Frames for each material and dose.
    seed
        Of the frames; thresholds were chosen on others.
    names
        Materials; default: all that come with adatom and have a lattice.
    """
    crystals = map(load_material, names or material_names())
    return [_row_of(m, frames, seed) for m in crystals if m.has_lattice]


def _row_of(material: Material, frames: int, seed: int) -> Row:
    ensemble = load_shipped(material.name)
    sites, told = 0, Counter[str]()
    for dose in DOSES:
        for i in range(frames):
            rng = np.random.default_rng([seed, i, round(1000 * dose)])
            frame, count = pristine_frame(material, dose, rng)
            sites += count
            found = analyse_frame(frame, ensemble, material).defects
            likely = found.data["p"].to_numpy() > _NAMED_P
            told.update(k for k, sure in zip(found.kinds, likely, strict=True) if sure)
    wrong = sum(n for kind, n in told.items() if _is_more_than_a_gap(kind))
    words = ", ".join(f"{kind} {n}" for kind, n in told.most_common()) or "none"
    return row(
        f"{material.name}, perfect, dose {' / '.join(f'{d:g}' for d in DOSES)}: ad-atoms, "
        "antisites, substitutions, interstitials named in 10,000 sites",
        f"{1e4 * wrong / sites:.2f} ({wrong} of {sites}; all defects: {words})",
        "at most 1",
        met=wrong <= _MOST * sites,
    )  # fmt: skip


def _is_more_than_a_gap(kind: str) -> bool:
    known = DefectKind.parse_or_none(kind)
    return isinstance(known, (Adatom, Antisite, Cluster, Interstitial, Substitution))


def pristine_frame(material: Material, dose: float, rng: np.random.Generator) -> tuple[Frame, int]:
    """Image a perfect crystal at a random angle; gives the frame and its number of sites.

    Parameters
    ----------
    material
        The crystal.
    dose
        Counts at the peak of the host, per pixel.
    rng
        Source of the angle, the disorder, the probe and the noise.
    """
    scale = material.scale
    pixel = _PIXEL_A * scale
    low, high = material.probe_sigma_A or (_PROBE_A[0] * scale, _PROBE_A[1] * scale)
    probe = rng.uniform(low, high)
    conditions = Conditions(
        pixel_size_A=pixel, probe_sigma_A=(probe, probe), tail_fraction=rng.uniform(0.0, 0.2),
        counts=dose, background=rng.uniform(0.05, 0.2),
    )  # fmt: skip
    extent = (_PIXELS - 1) * pixel
    angle = rng.uniform(0.0, 2.0 * np.pi)
    xy, basis = lattice_sites(material, (extent, extent), _MARGIN_A * scale, angle)
    number = {label: k for k, label in enumerate(material.species)}
    species = np.array([number[s] for s in material.site_species], dtype=np.int64)[basis]
    xy = xy + rng.normal(0.0, rng.uniform(0.0, _DISORDER_A), xy.shape)
    specimen = Specimen(xy, species, np.zeros((0, 2)))
    image = image_specimen(specimen, (_PIXELS, _PIXELS), material, conditions, rng)
    return image.frame, int(_inside(xy, extent).sum())


def _inside(xy: FloatArray, extent: float) -> BoolArray:
    return np.asarray(((xy > 0.0) & (xy < extent)).all(axis=1))
