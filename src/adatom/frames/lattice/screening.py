"""Which of several materials do frames show? Their lattices, tried at the frames' scale.

The networks of one material find something in a frame of any other. Reflections are cheaper, and
they do not have to be learned: a crystal has them at known places, and their phases tell what
stands in its cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.frames.lattice.spectrum import reflections_of
from adatom.frames.lattice.windows import (
    EXPONENTS,
    MOST_EVIDENCE,
    SHEAR_SD,
    ComplexArray,
    FoundLattice,
    Window,
    find_lattice,
    triplet_products,
    triplets_of,
    windows_of,
)

_SCALE_SD = 0.04  # usual relative error of a pixel size
_PHASE_SD = np.radians(25.0)  # usual error of a sum of three phases, by the probe's aberrations
# Score, in nats, of "none of them": a lattice needs more. One in e^8 = 3000 frames of noise has it.
_NONE = 8.0
# Where there is a lattice, a material's may be off by so many nats in scale, shape and pattern
# before an unknown crystal is likelier.
_OTHER_CRYSTAL = 4.0
CLEAR = 0.8  # probability from which a material is clearly likely
# Probability below which a material is excluded, and that of the others together.
_UNLIKELY, _CERTAIN = 0.05, 0.9


@dataclass(frozen=True, slots=True)
class Match:
    """How a material's lattice fits frames.

    Parameters
    ----------
    name
        Name of the material.
    probability
        That the frames show it, among the materials and "none of them".
    evidence
        Negative logarithm of the probability that frames without a lattice have such reflections,
        nats.
    pixel_size_A
        Pixel size at which its lattice fits best, Å; within 12 % of the frames'.
    """

    name: str
    probability: float
    evidence: float
    pixel_size_A: float


@dataclass(frozen=True, slots=True)
class Screening:
    """Materials in the order of their probability.

    Parameters
    ----------
    matches
        One for every material with a lattice.
    """

    matches: tuple[Match, ...]

    @property
    def best(self) -> Match | None:
        """The likeliest material."""
        return self.matches[0] if self.matches else None

    @property
    def none(self) -> float:
        """Probability of none of the materials."""
        return 1.0 - sum(m.probability for m in self.matches)

    @property
    def clear(self) -> Match | None:
        """The material that is clearly likely; None if none is."""
        return self.best if self.best and self.best.probability >= CLEAR else None

    def excludes(self, name: str) -> bool:
        """Tell whether other materials are clearly likely in the place of this one."""
        own = next((m.probability for m in self.matches if m.name == name), None)
        return own is not None and own < _UNLIKELY and 1.0 - own - self.none >= _CERTAIN

    def in_words(self) -> str:
        """The likely materials and their probabilities, as in "graphene 97 %, h-BN 2 %"."""
        shown = [m for m in self.matches if m.probability >= 0.01][:4]
        parts = [f"{m.name} {m.probability:.0%}" for m in shown]
        return ", ".join([*parts, f"none of them {self.none:.0%}"])


def screen(
    images: Sequence[NDArray[np.float32]],
    pixel_size_A: float,
    materials: Sequence[Material],
    *,
    prior: Mapping[str, float] | None = None,
) -> Screening:
    """Compare frames with the lattices of materials, at the frames' scale.

    The evidence for a lattice is that of its first reflections (`windows.find_lattice`). The phases
    of the reflections, compared up to a shift, tell patterns of equal lattices apart.

    Parameters
    ----------
    images
        Frames of one scale, each of shape (row, col).
    pixel_size_A
        Å.
    materials
        Those to choose from; materials without a lattice cannot be told so and are left out.
    prior
        Odds of materials before a frame is seen, by name; 1 for the others.

    Returns
    -------
    Every material with its probability.

    Examples
    --------
    >>> import numpy as np
    >>> from adatom.core import GRAPHENE
    >>> noise = np.random.default_rng(0).poisson(5.0, (128, 128)).astype(np.float32)
    >>> screen([noise], 0.15, [GRAPHENE]).clear is None
    True
    """
    windows = windows_of(images, pixel_size_A)
    candidates = [m for m in materials if m.has_lattice] if windows else []
    fits = [_fit(windows, m) for m in candidates]
    evidence = min(max((fit.evidence for fit in fits), default=0.0), MOST_EVIDENCE)
    none = max(_NONE, evidence - _OTHER_CRYSTAL)
    before = [np.log((prior or {}).get(m.name, 1.0)) for m in candidates]
    scores = np.array([fit.score + p for fit, p in zip(fits, before, strict=True)] + [none])
    chance = np.exp(scores - scores.max())
    chance /= chance.sum()
    matches = [
        Match(m.name, float(p), fit.evidence, pixel_size_A * fit.scale)
        for m, p, fit in zip(candidates, chance[:-1], fits, strict=True)
    ]
    return Screening(tuple(sorted(matches, key=lambda m: (-m.probability, m.name))))


@dataclass(frozen=True, slots=True)
class _Fitted:
    score: float
    evidence: float
    scale: float


def _fit(windows: Sequence[Window], material: Material) -> _Fitted:
    """Fit scale, rotation and strain of a lattice, and judge them and its pattern."""
    reflections, rings = reflections_of(material)
    found = find_lattice(windows, reflections[rings == 0])
    if found is None:
        return _Fitted(0.0, 0.0, 1.0)
    score = min(found.evidence, MOST_EVIDENCE)
    score -= 0.5 * (np.log(found.scale) / _SCALE_SD) ** 2
    score -= (np.log(found.stretch) / SHEAR_SD) ** 2
    score -= 0.5 * _misfit(windows, material, found)
    return _Fitted(score, found.evidence, found.scale)


def _misfit(windows: Sequence[Window], material: Material, found: FoundLattice) -> float:
    """Chi-squared of the phases of the reflections against the material's patterns.

    The sum of the phases of a triplet is 180 degrees for a honeycomb of one element and 0 for a
    lattice of spots. The best of the arrangements, of both directions of the lattice, and of the
    detector's exponents counts.
    """
    g, rings = reflections_of(material)
    turned = g @ found.linear.T
    if np.linalg.norm(turned, axis=1).max() / windows[0].step > len(windows[0].power) // 2 - 2:
        g, turned = g[rings == 0], turned[rings == 0]
    triplets = triplets_of(g)
    seen = np.stack([w.at(turned) for w in windows])
    signal = (np.abs(seen) ** 2).mean(axis=0) - 1.0
    noise: FloatArray = (0.5 / np.maximum(signal, 0.05))[np.abs(triplets) - 1].sum(axis=1)
    triplets, noise = triplets[noise < 1.0], noise[noise < 1.0] / len(windows)
    if not len(triplets):
        return 0.0
    total = triplet_products(seen, triplets).sum(axis=0)
    best = np.inf
    for each in material.arrangements():
        for exponent in EXPONENTS:
            wanted = triplet_products(_structure(each, g, exponent)[None], triplets)[0]
            for pattern in (wanted, wanted.conj()):
                off = np.angle(total * pattern.conj())
                best = min(best, float((off**2 / (_PHASE_SD**2 + noise)).sum()))
    return best


def _structure(material: Material, g: FloatArray, exponent: float) -> ComplexArray:
    number = {s: k for k, s in enumerate(material.species)}
    bright = material.brightness(exponent)[[number[s] for s in material.site_species]]
    xy = np.asarray(material.basis) @ material.cell()
    phases = 2.0 * np.pi * (g @ xy.T)
    out: ComplexArray = np.cos(phases) @ bright - 1j * (np.sin(phases) @ bright)
    return out
