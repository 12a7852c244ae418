"""Carbon in ASE's own Tersoff potential."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import ase
from ase.calculators.calculator import Calculator
from ase.calculators.tersoff import Tersoff, TersoffParameters

from adatom.simulation import RelaxOptions
from adatom.simulation.engines.calculator import CalculatorEngine

# Tersoff, PRB 39, 5566 (1989): m, γ, λ3, c, d, h, n, β, λ2, B, R, D, λ1, A in eV and Å.
CARBON = TersoffParameters(
    3.0, 1.0, 0.0, 38049.0, 4.3484, -0.57058, 0.72751,
    1.5724e-7, 2.2119, 346.7, 1.95, 0.15, 3.4879, 1393.6,
)  # fmt: skip


class TersoffEngine(CalculatorEngine):
    """Relaxes with BFGS, as every `CalculatorEngine` does."""

    name = "ase-tersoff"
    elements = "C"
    boundary = "periodic or open along each axis"
    not_for = "charge transfer; check energies of defects with a first-principles engine"
    install = "pip install adatom-example"
    covers = frozenset({"C"})
    distribution = "ase"
    lattice_constants_A = {"graphene": 2.5298}

    def calculator(
        self, atoms: ase.Atoms, options: RelaxOptions
    ) -> AbstractContextManager[Calculator]:
        """Give the calculator, which has nothing to close."""
        return nullcontext(Tersoff({("C", "C", "C"): CARBON}))


ENGINE = TersoffEngine()
