"""Reservoirs of atoms: which one is chosen, and what an atom costs there in an engine.

The crystal settles the chemical potential of its one element. For each further element one more is
a choice: that of the element itself (``S-rich``, ``Si-rich``), or a number.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import ase
import numpy as np
from ase.build import bulk, graphene, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, reference_states
from ase.optimize import BFGS
from ase.spacegroup import crystal
from threadpoolctl import threadpool_limits

from adatom.core import SimulationResult
from adatom.errors import AdatomError, BadInput
from adatom.simulation.engines.base import Engine, for_elements, require
from adatom.simulation.options import RelaxOptions
from adatom.simulation.scaling import minimum

_RICH = re.compile(r"([A-Z][a-z]?)-rich")
_NUMBER = re.compile(r"([A-Z][a-z]?)\s*=\s*([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)")
_DIATOMIC = ("H", "N", "O", "F", "Cl")
_BUILT = ("fcc", "bcc", "hcp", "diamond")
_BOX_A = 14.0  # edge of the periodic cell of a molecule, Å
_LONELY_A3 = 100.0  # volume of an atom, Å³, above which the structure is a molecule in its box
_WIDE_A = 10.0  # least edge of a crystal, Å, in an engine at the Γ point alone
_SCALES = (0.05, 0.012)  # half widths of the two scans of the volume, of the length
# Crown of S8, Å: bonds of 2.05 Å at 108°: Rettig & Trotter, Acta Cryst. C 43, 2260 (1987).
_S8_RADIUS_A, _S8_HEIGHT_A = 2.344, 0.496
# Crystals by Wyckoff, Crystal Structures, 2nd ed. (1963), and for B Decker & Kasper, Acta Cryst.
# 12, 503 (1959): space group, cell in Å, fractional coordinates.
_CRYSTALS = {
    "Se": (152, (4.366, 4.366, 4.954, 90, 90, 120), ((0.2254, 0.0, 1 / 3),)),
    "Te": (152, (4.456, 4.456, 5.921, 90, 90, 120), ((0.2636, 0.0, 1 / 3),)),
    "B": (
        166,
        (4.908, 4.908, 12.567, 90, 90, 120),
        ((0.1189, 0.2378, 0.8913), (0.1967, 0.3934, 0.0243)),
    ),
}


@dataclass(frozen=True, slots=True)
class Reservoir:
    """Where atoms of an element come from and go to.

    Parameters
    ----------
    symbol
        Chemical symbol.
    energy_eV
        Energy of one atom there, eV; None for that of the element's own structure, which every
        engine computes for itself.
    """

    symbol: str
    energy_eV: float | None = None

    def __str__(self) -> str:
        """Give the text that `read_reservoirs` reads."""
        number = self.energy_eV
        return f"{self.symbol}-rich" if number is None else f"{self.symbol}={number}"


def read_reservoirs(texts: str | Sequence[str] | Mapping[str, float]) -> tuple[Reservoir, ...]:
    """Read the choice of reservoirs.

    Parameters
    ----------
    texts
        ``S-rich``: atoms of S come from the element, as a molecule or a crystal. ``S=-4.1``: an
        atom costs so many eV, in the energies of the engine. Or a mapping of such numbers.

    Raises
    ------
    BadInput
        If a text is none of these, or names an element twice.

    Examples
    --------
    >>> [str(r) for r in read_reservoirs(["S-rich", "Si = -5.4"])]
    ['S-rich', 'Si=-5.4']
    """
    if isinstance(texts, Mapping):
        texts = [f"{symbol}={value!r}" for symbol, value in texts.items()]
    if isinstance(texts, str):  # one choice
        texts = [texts]
    out: dict[str, Reservoir] = {}
    for text in map(str, texts):
        rich, number = _RICH.fullmatch(text.strip()), _NUMBER.fullmatch(text.strip())
        found = rich or number
        symbol = found[1] if found else ""
        if symbol not in atomic_numbers or symbol in out:
            raise BadInput(
                f"reservoir {text!r}",
                expected="each element once, as S-rich or S=-4.1 (eV)",
                got=f"{symbol} twice" if symbol in out else repr(text),
                todo="Name the element and its reservoir.",
            )
        out[symbol] = Reservoir(symbol, float(number[2]) if number else None)
    return tuple(out.values())


def element_structure(symbol: str) -> tuple[ase.Atoms, str]:
    """Give the structure of an element that serves as its reservoir.

    Parameters
    ----------
    symbol
        Chemical symbol.

    Returns
    -------
    Atoms, periodic in all directions: the ring S8, two-atomic gases, the crystal of others, and
    graphene for C. And its name.

    Raises
    ------
    BadInput
        If there is none here.

    Examples
    --------
    >>> [element_structure(s)[1] for s in ("S", "N", "Mo", "C", "Se")]
    ['S8 molecule', 'N2 molecule', 'bcc Mo', 'graphene', 'trigonal Se']
    """
    if symbol == "S":
        turn = np.arange(8) * np.pi / 4
        z = _S8_HEIGHT_A * (-1.0) ** np.arange(8)
        ring = np.stack([_S8_RADIUS_A * np.cos(turn), _S8_RADIUS_A * np.sin(turn), z], axis=1)
        return _in_box(ase.Atoms("S8", ring)), "S8 molecule"
    if symbol in _DIATOMIC:
        return _in_box(molecule(f"{symbol}2")), f"{symbol}2 molecule"
    if symbol == "C":
        sheet = graphene(vacuum=10.0)
        sheet.pbc = True
        return sheet, "graphene"
    if symbol in _CRYSTALS:
        group, cell, basis = _CRYSTALS[symbol]
        made = crystal([symbol] * len(basis), basis, spacegroup=group, cellpar=cell)
        return made, "alpha-rhombohedral B" if symbol == "B" else f"trigonal {symbol}"
    number = atomic_numbers.get(symbol, 0)
    state = (reference_states[number] or {}) if number else {}
    if state.get("symmetry") in _BUILT:
        return bulk(symbol), f"{state['symmetry']} {symbol}"
    raise BadInput(
        f"reservoir {symbol}-rich",
        expected="an element whose structure adatom knows: H, B, C, N, O, F, S, Cl, Se, Te, Si, "
        "and most metals",
        got=symbol,
        todo=f"Give the energy of one atom in its reservoir, such as {symbol}=-4.1 (eV).",
    )


def relax_element(
    engine: str, symbol: str, options: RelaxOptions, *, beside: Collection[str] = ()
) -> SimulationResult:
    """Compute the energy of an element in its own structure.

    The size of the cell is that of least energy, by its length alone; atoms inside of it relax.

    Parameters
    ----------
    engine
        Name of the engine.
    symbol
        Chemical symbol.
    options
        Convergence and limits.
    beside
        Elements of the structures that it is compared with: some engines choose their method by
        all of them.

    Returns
    -------
    A relaxation named ``reservoir-S``; its status is ``failed: <why>`` where there is none.

    Examples
    --------
    >>> found = relax_element("lammps", "Si", RelaxOptions(), beside={"C"})
    >>> found.engine.split(" ")[-1], round(found.energy_eV / len(found.trajectory[-1]), 2)
    ('(tersoff)', -4.63)
    """
    begin = time.perf_counter()
    label, status, note = engine, "done", ""
    path: tuple[ase.Atoms, ...] = ()
    try:
        made = for_elements(require(engine, "relax"), {symbol, *beside})
        label = made.label({symbol, *beside})
        atoms, note = element_structure(symbol)
        with threadpool_limits(limits=1):
            path = (_of_least_energy(made, atoms, options),)
    except (AdatomError, RuntimeError, ValueError, ArithmeticError) as error:
        why = error.got if isinstance(error, AdatomError) else str(error).strip()
        status = f"failed: {why or type(error).__name__}"
    return SimulationResult(
        structure=f"reservoir-{symbol}",
        draw=-1,
        engine=label,
        task="relax",
        temperature_K=0.0,
        energy_eV=float(path[0].get_potential_energy()) if path else float("nan"),
        energy_sd_eV=float("nan"),
        status=status,
        seconds=time.perf_counter() - begin,
        trajectory=path,
        trace={name: np.zeros(0) for name in ("step", "energy_eV", "fmax_eV_A")},
        notes=(note,) if note else (),
    )


def _in_box(atoms: ase.Atoms) -> ase.Atoms:
    atoms.set_cell(np.ptp(atoms.positions, axis=0) + _BOX_A)
    atoms.center()
    atoms.pbc = True
    return atoms


def _of_least_energy(engine: Engine, atoms: ase.Atoms, options: RelaxOptions) -> ase.Atoms:
    """Relax a molecule, or a crystal at the length of least energy; energies are attached."""
    if getattr(engine, "reference_cells", 1) > 1:  # the Γ point alone
        atoms = atoms.repeat([max(1, round(_WIDE_A / x + 0.4)) for x in atoms.cell.lengths()])
    if atoms.get_volume() > _LONELY_A3 * len(atoms):
        return _relaxed(engine, atoms, options)
    best = 1.0
    for half in _SCALES:
        scales = best * np.linspace(1.0 - half, 1.0 + half, 5)
        energies = [
            _relaxed(engine, _scaled(atoms, x), options).get_potential_energy() for x in scales
        ]
        found = minimum(scales, np.array(energies))
        if found is None or abs(found / best - 1.0) > 2.0 * half:
            raise BadInput(
                f"crystal of {atoms.get_chemical_formula()}",
                expected="a least energy near its measured size",
                got=f"none within {100 * half:.0f} %",
                todo="Give the energy of one atom in its reservoir.",
            )
        best = found
    return _relaxed(engine, _scaled(atoms, best), options)


def _scaled(atoms: ase.Atoms, factor: float) -> ase.Atoms:
    out: ase.Atoms = atoms.copy()
    out.set_cell(atoms.cell * factor, scale_atoms=True)
    return out


def _relaxed(engine: Engine, atoms: ase.Atoms, options: RelaxOptions) -> ase.Atoms:
    """Relax the atoms in a fixed cell; the result keeps its energy and forces."""
    out: ase.Atoms = atoms.copy()
    with engine.calculator(out, options) as calculator:
        out.calc = calculator
        BFGS(out, logfile=None).run(fmax=options.fmax_eV_A, steps=options.max_steps)
        out.calc = SinglePointCalculator(
            out, energy=float(out.get_potential_energy()), forces=out.get_forces()
        )
    return out
