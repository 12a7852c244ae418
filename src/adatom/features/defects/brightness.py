"""How bright an element is beside the host, as far as it is known before a frame is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adatom.core import Material

# Exponents of the atomic number. Usual frames have that of the material, nearly; those of unknown
# detectors a larger one: Si over C reads 4.65 in multislice and 5.4 to 6.6 in published micrographs
# (Si dimer and trimers at 60 kV).
_NEARLY = 0.075
_ANY_DETECTOR = (1.4, 2.3)
_OWN_SHARE = 0.4  # of the frames, prior


@dataclass(frozen=True, slots=True)
class Brightness:
    """Prior of the amplitude of an element over that of the host: a mixture of normal densities.

    Parameters
    ----------
    parts
        Share, mean and standard deviation of each density.
    """

    parts: tuple[tuple[float, float, float], ...]

    @property
    def mean(self) -> float:
        """Mean of the mixture."""
        return sum(share * mean for share, mean, _ in self.parts)

    @property
    def sd(self) -> float:
        """Standard deviation of the mixture."""
        square = sum(share * (sd**2 + mean**2) for share, mean, sd in self.parts)
        return float(max(square - self.mean**2, 0.0) ** 0.5)

    def log_gain(self, value: float, sd: float, scatter: float) -> float:
        """Logarithm of the evidence with this prior over that with one normal density.

        Parameters
        ----------
        value, sd
            Mean and standard deviation after the pixels, with the normal density of `mean` and
            `sd` as the prior, both over the host's amplitude.
        scatter
            Standard deviation of the amplitudes of equal atoms, as a share.

        Examples
        --------
        >>> si = Brightness(((0.5, 4.0, 0.2), (0.5, 5.0, 1.0)))
        >>> si.log_gain(4.0, 0.1, 0.0) > 0.0 > si.log_gain(3.0, 0.1, 0.0)
        True
        """
        wide = math.hypot(self.sd, scatter * self.mean)
        if not wide:
            return 0.0
        # What the pixels alone say: the density after them over that before.
        alone = 1.0 / max(1.0 / sd**2 - 1.0 / wide**2, 1e-3 / wide**2)
        at = alone * (value / sd**2 - self.mean / wide**2)
        terms = [
            math.log(share) + _log_normal(at - mean, alone + s**2 + (scatter * mean) ** 2)
            for share, mean, s in self.parts
        ]
        top = max(terms)  # scipy's `logsumexp` takes a hundred times as long for two numbers
        total = top + math.log(sum(math.exp(term - top) for term in terms))
        return total - _log_normal(at - self.mean, alone + wide**2)


def brightness_of(material: Material) -> dict[str, Brightness]:
    """Give the brightness of each species of a material over that of its host.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> si = brightness_of(GRAPHENE)["Si"]
    >>> round(si.mean, 1), round(si.sd, 1), brightness_of(GRAPHENE)["C"].mean
    (4.7, 1.0, 1.0)
    """
    own = material.contrast_exponent
    known = material.contrast_range
    ranges = [(1.0, known)] if known is not None else [
        (_OWN_SHARE, (own - _NEARLY, own + _NEARLY)), (1.0 - _OWN_SHARE, _ANY_DETECTOR),
    ]  # fmt: skip
    out = {}
    for k, symbol in enumerate(material.species):
        parts = []
        for share, (low, high) in ranges:
            a, b = (float(material.brightness(e)[k]) for e in (low, high))
            parts.append((share, (a + b) / 2.0, abs(b - a) / 12.0**0.5))
        out[symbol] = Brightness(tuple(parts))
    return out


def _log_normal(away: float, variance: float) -> float:
    return -0.5 * (away**2 / variance + math.log(2.0 * math.pi * variance))
