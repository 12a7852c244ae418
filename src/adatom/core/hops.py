"""How fast an impurity atom changes places with a neighbour under a parked or scanning beam."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adatom.core.arrays import FloatArray


@dataclass(frozen=True, slots=True)
class HopModel:
    """Rate of the exchange of an atom with one neighbour, as a function of the beam's place.

    The rate is a Gaussian function of the place. Its peak lies between the two atoms. The defaults
    are the prior of Schwarzer et al. (Putting Dune), arXiv:2311.17894, for Si with three C
    neighbours at 60 kV.

    Parameters
    ----------
    rate_per_s
        Rate at the peak, 1/s. By default, half of the atoms jump in 3 s.
    peak_bonds
        Distance of the peak from the atom towards the neighbour, in bond lengths.
    variance_bonds2
        Variance of the Gaussian per axis, in squared bond lengths.
    current_pA
        Probe current of these rates, pA; the rate is proportional to the current.
    """

    rate_per_s: float = math.log(2.0) / 3.0
    peak_bonds: float = 0.85
    variance_bonds2: float = 0.1
    current_pA: float = 50.0

    def peaks(self, atom_xy: FloatArray, neighbours_xy: FloatArray) -> FloatArray:
        """Give the places where the exchange with each neighbour is fastest, shape (neighbour, 2).

        Parameters
        ----------
        atom_xy
            The impurity atom, shape (2,), Å.
        neighbours_xy
            Shape (neighbour, 2), Å.
        """
        out: FloatArray = atom_xy + self.peak_bonds * (neighbours_xy - atom_xy)
        return out

    def rates_per_s(
        self,
        beam_xy: FloatArray,
        atom_xy: FloatArray,
        neighbours_xy: FloatArray,
        current_pA: float,
    ) -> FloatArray:
        """Rate of the exchange with each neighbour for beam places, shape (..., neighbour), 1/s.

        Parameters
        ----------
        beam_xy
            Places of the beam, shape (..., 2), Å.
        atom_xy
            The impurity atom, shape (2,), Å.
        neighbours_xy
            Shape (neighbour, 2), Å.
        current_pA
            Probe current, pA.

        Examples
        --------
        >>> import numpy as np
        >>> neighbours = 1.42 * np.array([[1.0, 0.0], [-0.5, 0.866], [-0.5, -0.866]])
        >>> places = np.array([[1.207, 0.0], [0.0, 0.0]])
        >>> HopModel().rates_per_s(places, np.zeros(2), neighbours, 50.0).round(4).tolist()
        [[0.231, 0.0, 0.0], [0.0062, 0.0062, 0.0062]]
        """
        bond = neighbours_xy - atom_xy
        variance = self.variance_bonds2 * np.einsum("kx,kx->k", bond, bond)
        away = beam_xy[..., None, :] - self.peaks(atom_xy, neighbours_xy)
        distance2 = np.einsum("...kx,...kx->...k", away, away)
        out: FloatArray = (
            self.rate_per_s * (current_pA / self.current_pA) * np.exp(-0.5 * distance2 / variance)
        )
        return out
