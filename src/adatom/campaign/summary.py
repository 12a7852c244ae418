"""The summary of a campaign, for ``--json`` and the last lines on the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from adatom.analysis.contrast import contrast_of
from adatom.campaign.find import MovieResult
from adatom.campaign.recording import recording_in_words
from adatom.core import Advice, Material, Movie, SimulationResult
from adatom.core.energy import spreads_of_defects
from adatom.core.weighted import weighted_mean_sd
from adatom.report.fates import minima
from adatom.report.stories import DOUBTFUL_P
from adatom.store import CampaignDirectory

# Farthest neighbours, in bond lengths; the next ones of a square lattice are at 1.41.
_NEIGHBOURS = 1.2


def summarise(
    movie: Movie,
    found: MovieResult,
    results: Sequence[SimulationResult],
    advice: Sequence[Advice],
    warnings: Sequence[str],
    directory: CampaignDirectory,
    material: Material,
    *,
    headline: str | None = None,
) -> dict[str, Any]:
    """Make the summary of a campaign: plain numbers, texts and lists.

    `headline` is the reason why the frames do not show the material; None if they do.
    """
    kinds: Counter[str] = Counter()
    doubtful: Counter[str] = Counter()
    for row in found.defects.data.iter_rows(named=True):
        kinds[row["kind"]] += 1
        doubtful[row["kind"]] += row["p"] < DOUBTFUL_P
    contrast = contrast_of(found.atoms, material)
    fitted = [x for x in found.lattices.values() if x is not None]
    strain = [x.affine.strain() for x in fitted]
    return {
        "headline": headline,
        "material": material.name,
        "frames": len(movie),
        "pixel_size_A": None if movie.calibration is None else movie.calibration.pixel_size_A,
        "atoms": len(found.atoms),
        "elements": dict(found.atoms.data["element"].value_counts().sort("element").iter_rows()),
        "median_sigma_A": _median(found.atoms.column("sigma_x_A")),
        "bond_length_A": bond_length(found),
        "undistorted_bond_length_A": bond_length(found, undistorted=True),
        "recording": asdict(movie.acquisition),
        "recorded": recording_in_words(movie.acquisition),
        "contrast": None if contrast is None else asdict(contrast),
        "distortion": [float(np.median([s[k] for s in strain])) for k in range(2)]
        if strain
        else None,
        "defect_frames": dict(sorted(kinds.items(), key=lambda item: -item[1])),
        "doubtful_defects": {kind: n for kind, n in doubtful.items() if n},
        "relaxed": relaxed_energies(results),
        "energies": energies_of_defects(results),
        "dynamics": dynamics_summary(results),
        "advice": len(advice),
        "warnings": list(warnings),
        "directory": str(directory.path),
        "report": str(directory.report_path) if directory.report_path.exists() else None,
    }


def bond_length(found: MovieResult, *, undistorted: bool = False) -> float | None:
    """Median distance of neighbours, Å; None without a lattice or without neighbours.

    It is that of the positions in the table, or of those without the distortion of the scan. All
    neighbours of an atom count: its nearest one alone is nearer by chance where positions are
    noisy, by 0.03 Å in the simulated microscope's movie.
    """
    lengths = []
    for frame, lattice in found.lattices.items():
        if lattice is None:
            continue
        atoms = found.atoms.of_frame(frame)
        own = np.isin(atoms.elements, lattice.material.site_species)
        own &= atoms.is_likely
        if own.sum() > 3:
            xy = lattice.undistort(atoms.xy[own]) if undistorted else atoms.xy[own]
            reach = _NEIGHBOURS * lattice.material.bond_length_A
            i, j = cKDTree(xy).query_pairs(reach, output_type="ndarray").T
            lengths.append(np.linalg.norm(xy[i] - xy[j], axis=1))
    every = np.concatenate(lengths) if lengths else np.zeros(0)
    return _median(every) if len(every) else None


def relaxed_energies(results: Sequence[SimulationResult]) -> list[dict[str, Any]]:
    """Energies of the relaxed draws and their minima, one row per supercell and composition.

    Draws count by their importance weights; ``weight`` is the share of the composition. Standard
    deviations are those of the draws; None for a single draw, and where there is no formation
    energy.
    """
    groups: dict[tuple[str, str], list[SimulationResult]] = {}
    for r in results:
        if r.draw >= 0 and r.task == "relax" and r.status == "done" and r.trajectory:
            name = r.structure.rsplit("-d", 1)[0]
            formula = r.trajectory[-1].get_chemical_formula()
            groups.setdefault((name, formula), []).append(r)
    out = []
    for (name, formula), draws in sorted(groups.items()):
        energies, weights = [r.energy_eV for r in draws], [r.weight for r in draws]
        mean, sd = weighted_mean_sd(energies, weights)
        formation = [r.formation_energy_eV for r in draws if isfinite(r.formation_energy_eV)]
        out.append(
            {
                "structure": name,
                "formula": formula,
                "draws": len(draws),
                "weight": None if np.isnan(weights).any() else float(np.sum(weights)),
                "minima": len(minima(energies)),
                # The reference is the same for all, so the mean shifts by it alone.
                "formation_energy_eV": (
                    formation[0] - energies[0] + mean if len(formation) == len(draws) else None
                ),
                "lowest_formation_energy_eV": min(formation, default=None),
                "reference": draws[0].reference,
                "energy_eV": mean,
                "energy_sd_eV": None if np.isnan(sd) else sd,
                "lowest_eV": float(np.min(energies)),
            }
        )
    return out


def energies_of_defects(results: Sequence[SimulationResult]) -> list[dict[str, Any]]:
    """Formation energy of each defect over all of its draws, its 90 % interval and its parts."""
    out = []
    for name, spread in spreads_of_defects(results).items():
        low, high = spread.interval_eV(0.9)
        out.append(
            {
                "structure": name,
                "formation_energy_eV": spread.mean_eV,
                "interval_90_eV": [low, high],
                "sd_eV": spread.sd_eV,
                "parts_eV": {k: None if np.isnan(v) else v for k, v in spread.parts_eV.items()},
                "largest": spread.largest or None,
                "narrowed_by": spread.narrowed_by or None,
                "in_words": spread.in_words(),
            }
        )
    return out


def dynamics_summary(results: Sequence[SimulationResult]) -> list[dict[str, Any]]:
    """Mean measured temperature and number of finished runs, one row per temperature."""
    out = []
    runs = [r for r in results if r.task == "dynamics"]
    for temperature in sorted({r.temperature_K for r in runs}):
        done = [r for r in runs if r.temperature_K == temperature and r.status == "done"]
        measured = [float(np.mean(r.trace["temperature_K"])) for r in done]
        out.append(
            {
                "temperature_K": temperature,
                "runs": len(done),
                "mean_temperature_K": float(np.mean(measured)) if measured else None,
            }
        )
    return out


def _median(values: Any) -> float | None:
    return float(np.median(values)) if len(values) else None
