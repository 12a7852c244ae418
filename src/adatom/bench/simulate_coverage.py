"""How often the truth lies in what is stated: energies and positions (`adatom bench simulate`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from adatom.bench.rows import Row, row
from adatom.bench.simulate_cases import KINDS, Case, deviations, make_case, truth
from adatom.campaign.config import Config, InputOptions, SimulateOptions
from adatom.campaign.simulate import simulate_all
from adatom.campaign.steps import Steps
from adatom.core import Material, SimulationResult, Structure
from adatom.core.arrays import FloatArray
from adatom.core.energy import EnergySpread, spread_of_results
from adatom.errors import StepFailed
from adatom.materials.library import load_material
from adatom.parallel.processes import cores, local_processes
from adatom.parallel.progress import Silent
from adatom.simulation import RelaxOptions
from adatom.simulation.reservoirs import relax_element
from adatom.store import CampaignDirectory, read_structures

DOSES = (2.0, 10.0, 50.0)  # counts at the peak of a host atom, per pixel of 0.15 Å
CASES = 50  # at each dose
_QUICK = 8
_DRAWS = 8
_ATTEMPTS = 2  # more, where a process is lost
_CORE_A = 3.0  # Å: atoms this near to the defect's middle are compared
_BAND_90, _BAND_SIGMA = (0.85, 0.95), (0.6, 0.8)  # targets
_FOREIGN = {"graphene": ("Si", {"C"}), "MoS2": ("S", {"Mo"})}  # the reservoir of each material


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a frame gave, beside the truth.

    Parameters
    ----------
    kind, dose
        The defect and the counts.
    found
        A defect was named there.
    spread
        Its formation energy; None where no draw has one.
    true_eV
        The true formation energy in the same potential.
    z_built, z_relaxed
        Deviations of atoms near the defect over the stated standard deviation, as built and
        relaxed.
    off_A
        Deviations of the relaxed ones, Å.
    """

    kind: str
    dose: float
    found: bool
    spread: EnergySpread | None
    true_eV: float
    z_built: FloatArray
    z_relaxed: FloatArray
    off_A: FloatArray

    def holds(self, share: float) -> bool:
        """Whether the true energy lies in the central interval of that share."""
        if self.spread is None:
            return False
        low, high = self.spread.interval_eV(share)
        return low <= self.true_eV <= high


def coverage(count: int, output: Path) -> tuple[list[Row], list[Outcome]]:
    """Simulate frames of known defects at three doses, and compare with the truth.

    Parameters
    ----------
    count
        Frames at each dose.
    output
        New directory for the campaigns.
    """
    outcomes: list[Outcome] = []
    for material, kinds in KINDS.items():
        every = [k for own in KINDS.values() for k in own]
        numbers = [
            (i, dose, every[i % len(every)])
            for dose in DOSES
            for i in range(count)
            if every[i % len(every)] in kinds
        ]
        config = _config(material)
        with local_processes(cores()) as pool:
            cases = list(
                pool.map(partial(_make, material, config), enumerate(numbers), chunksize=4)
            )
        outcomes += _simulated(material, cases, config, output / material)
    return rows_of(outcomes), outcomes


def cases_of(count: int | None, *, quick: bool) -> int:
    """Give the number of frames at each dose."""
    return count or (_QUICK if quick else CASES)


def _config(material: str) -> Config:
    symbol, _ = _FOREIGN[material]
    simulate = SimulateOptions(
        draws=_DRAWS, max_structures=6, relax_engine="lammps", second_engine="none",
        temperatures_K=(), mu=(f"{symbol}-rich",),
    )  # fmt: skip
    return Config(input=InputOptions(paths=("simulated",)), material=material, simulate=simulate)


def _make(material: str, config: Config, task: tuple[int, tuple[int, float, str]]) -> Case:
    number, (_, dose, kind) = task
    return make_case(number, material, kind, dose, config)


def _simulated(material: str, cases: Sequence[Case], config: Config, path: Path) -> list[Outcome]:
    structures = [s for case in cases for s in case.structures if s.kind != "pristine"]
    results = _results(structures, load_material(material), config, path)
    by_name = dict(zip([s.name for s in structures], results, strict=False))
    symbol, host = _FOREIGN[material]
    found = relax_element("lammps", symbol, RelaxOptions(), beside=host)
    mu = {symbol: found.energy_eV / len(found.trajectory[-1])}
    return [_outcome(case, by_name, mu, path / "relaxed") for case in cases]


def _results(
    structures: Sequence[Structure], material: Material, config: Config, path: Path
) -> list[SimulationResult]:
    """Simulate; where a process is lost, go on from the ledger, as `adatom resume` does."""
    names = [s.name for s in structures]
    for last in (*[False] * _ATTEMPTS, True):
        opened = CampaignDirectory.open(path, {"seed": 0}, "bench", source=["simulated"])
        try:
            with opened as directory:
                steps = Steps(directory, Silent())
                return simulate_all(structures, names, material, config, steps)[0]
        except StepFailed:
            if last:
                raise
    return []


def _outcome(
    case: Case, by_name: dict[str, SimulationResult], mu: dict[str, float], relaxed: Path
) -> Outcome:
    own = [(s, by_name[s.name]) for s in case.structures if s.name in by_name]
    done = [(s, r) for s, r in own if r.status == "done" and np.isfinite(r.formation_energy_eV)]
    nothing = np.zeros(0)
    drawn = [(s, r) for s, r in done if s.draw >= 0]
    if not drawn:
        return Outcome(case.kind, case.dose, bool(own), None, np.nan, nothing, nothing, nothing)
    spread = spread_of_results([r for _, r in drawn])
    potential = drawn[0][1].engine.rsplit("(", 1)[-1].rstrip(")")
    real = truth(case.material, case.kind, potential)
    likeliest = case.structures[0]
    off, atoms = _off(case, likeliest.atoms.positions[:, :2], likeliest)
    built = off / np.maximum(likeliest.sigma_A[atoms, :2], 1e-9)
    stated = read_structures(relaxed / f"{likeliest.name}.extxyz")[0]
    z_relaxed, off_relaxed = _relaxed_z(case, stated)
    return Outcome(
        kind=case.kind,
        dose=case.dose,
        found=True,
        spread=spread,
        true_eV=real.formation_energy_eV(mu),
        z_built=built.ravel(),
        z_relaxed=z_relaxed,
        off_A=off_relaxed,
    )


def _off(case: Case, xy: FloatArray, structure: Structure) -> tuple[FloatArray, list[int]]:
    return deviations(case, xy, structure.atoms.cell.array, _CORE_A)


def _relaxed_z(case: Case, stated: Structure) -> tuple[FloatArray, FloatArray]:
    """Deviations of the relaxed positions over their stated errors, and in Å."""
    off, atoms = _off(case, stated.atoms.positions[:, :2], stated)
    return (off / stated.sigma_A[atoms, :2]).ravel(), off.ravel()


def rows_of(outcomes: Sequence[Outcome]) -> list[Row]:
    """Make the rows of the table, for each dose."""
    rows = []
    for dose in DOSES:
        own = [o for o in outcomes if o.dose == dose]
        said = [o for o in own if o.spread is not None]
        rows.append(
            row(f"dose {dose:g}: defects found and simulated", f"{len(said)} of {len(own)}",
                "shown", met=True)
        )  # fmt: skip
        inside = [o.holds(0.9) for o in said]
        share = float(np.mean(inside)) if inside else float("nan")
        widths = [np.ptp(o.spread.interval_eV(0.9)) for o in said if o.spread is not None]
        wide = f"{np.median(widths):.2f} eV wide" if widths else "none"
        rows.append(
            row(f"dose {dose:g}: true formation energy in the 90 % interval",
                f"{share:.2f} of {len(said)} ({wide} in the median)",
                f"{_BAND_90[0]:g} to {_BAND_90[1]:g}", met=_BAND_90[0] <= share <= _BAND_90[1])
        )  # fmt: skip
        for name, z in (
            ("as built", [o.z_built for o in said]),
            ("relaxed", [o.z_relaxed for o in said]),
        ):
            every = np.concatenate([np.zeros(0), *z])
            within = float(np.mean(np.abs(every) < 1.0)) if len(every) else float("nan")
            rows.append(
                row(f"dose {dose:g}: coordinates {name} within 1σ of the true ones",
                    f"{within:.2f} of {len(every)}", f"{_BAND_SIGMA[0]:g} to {_BAND_SIGMA[1]:g}",
                    met=_BAND_SIGMA[0] <= within <= _BAND_SIGMA[1])
            )  # fmt: skip
        off = np.concatenate([np.zeros(0), *(o.off_A for o in said)])
        rows.append(
            row(f"dose {dose:g}: relaxed coordinates off the true ones",
                f"{np.sqrt(np.mean(off**2)):.3f} Å RMS, {np.median(np.abs(off)):.3f} Å median"
                if len(off) else "none", "shown", met=True)
        )  # fmt: skip
    return rows
