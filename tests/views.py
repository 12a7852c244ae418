"""Small campaigns for the report: frames, maps, atoms, defects, structures, results."""

from __future__ import annotations

import math

import ase.build
import numpy as np
import polars as pl

from adatom.core import (
    GRAPHENE,
    Advice,
    AtomTable,
    Calibration,
    DefectTable,
    Frame,
    ScanRequest,
    SimulationResult,
    Structure,
)
from adatom.report import CampaignView, FrameMaps, StepSummary


def lattice_xy() -> np.ndarray:
    sheet = ase.build.graphene(formula="C2", size=(6, 5, 1), vacuum=5.0)
    xy = sheet.positions[:, :2]
    return xy - xy.min(axis=0) + 0.8


def make_frame(index: int, xy: np.ndarray, bright: int, source: str = "movie.tif") -> Frame:
    rng = np.random.default_rng(index)
    n, cal = 96, Calibration(0.16)
    grid = np.arange(n) * cal.pixel_size_A
    gx = np.exp(-((grid - xy[:, :1]) ** 2) / (2 * 0.3**2))
    gy = np.exp(-((grid - xy[:, 1:]) ** 2) / (2 * 0.3**2))
    amplitude = np.ones(len(xy))
    amplitude[bright] = 4.0
    image = (gy * amplitude[:, None]).T @ gx
    return Frame(rng.poisson(image * 3 + 0.5).astype(np.float32), cal, index, source)


def make_atoms(index: int, xy: np.ndarray, bright: int, element: str = "Si") -> AtomTable:
    n = len(xy)
    covariance = np.tile(np.array([[0.01, 0.004], [0.004, 0.006]]), (n, 1, 1))
    names = ["C"] * n
    names[bright] = element
    p = np.full(n, 0.99)
    p[:3] = 0.5
    return AtomTable.build(
        frame=index, xy=xy, covariance=covariance, p_exists=p, element=names,
        p_element=p, votes=p, amplitude=np.ones(n),
    )  # fmt: skip


def make_maps(index: int) -> FrameMaps:
    rng = np.random.default_rng(index)
    mean = rng.random((2, 64, 64)).astype(np.float32) ** 4
    return FrameMaps(index, ("C", "Si"), mean, 0.1 * mean, Calibration(0.24))


def make_structure(name: str, draw: int, *, silicon: int = 1, kind: str = "Si1C3") -> Structure:
    atoms = ase.build.graphene(formula="C2", size=(4, 4, 1), vacuum=6.0)
    atoms.set_pbc(True)
    symbols = atoms.get_chemical_symbols()
    symbols[10 : 10 + silicon] = ["Si"] * silicon
    atoms.set_chemical_symbols(symbols)
    n = len(atoms)
    return Structure(
        atoms=atoms, name=name, kind=kind, frame=0, defect=0, draw=draw,
        source_atom=np.arange(n), sigma_A=np.full((n, 3), 0.05), fixed=np.zeros(n, dtype=bool),
    )  # fmt: skip


def relaxed(structure: Structure, energy: float, status: str = "done") -> SimulationResult:
    after = structure.to_ase()
    after.positions[10, 2] += 0.8
    steps = np.arange(12.0)
    trace = {"step": steps, "energy_eV": energy + 2 * np.exp(-steps), "fmax_eV_A": np.exp(-steps)}
    failed = status.startswith("failed")
    return SimulationResult(
        structure=structure.name, draw=structure.draw, engine="gfn1-xtb 0.4", task="relax",
        temperature_K=0.0, energy_eV=energy, energy_sd_eV=math.nan, status=status, seconds=3.0,
        trajectory=() if failed else (structure.to_ase(), after), trace={} if failed else trace,
    )  # fmt: skip


def heated(structure: Structure, kelvin: float, held: float | None = None) -> SimulationResult:
    rng = np.random.default_rng(int(kelvin))
    time = np.arange(0.0, 2000.0, 10.0)
    trace = {
        "time_fs": time,
        "temperature_K": rng.normal(held or kelvin, 0.14 * kelvin, len(time)),
        "energy_eV": rng.normal(-200.0, 0.2, len(time)),
    }
    return SimulationResult(
        structure=structure.name, draw=-1, engine="lammps 2025", task="dynamics",
        temperature_K=kelvin, energy_eV=-200.0, energy_sd_eV=0.2, status="done", seconds=1.5,
        trajectory=(structure.to_ase(),), trace=trace,
    )  # fmt: skip


def make_defects(frames: int, *, linked: bool = True) -> DefectTable:
    rows = [
        {
            "frame": f, "defect": 0, "kind": "Si1C3" if f < 4 else "Si1C4", "x_A": 5.0 + 0.2 * f,
            "y_A": 6.0, "p": 0.6 + 0.05 * f, "atoms": [1, 2], "track": 0 if linked else -1,
            "first_frame": 0, "origin": "first seen", "p_beam_induced": None,
        }
        for f in range(frames)
    ]  # fmt: skip
    return DefectTable(pl.DataFrame(rows))


def make_view(**changes) -> CampaignView:
    xy = lattice_xy()
    n = 6
    draws = [make_structure("Si1C3-f000", d) for d in range(-1, 4)]
    results = [relaxed(s, -100.0 + 0.1 * k) for k, s in enumerate(draws)]
    advice = [
        Advice("scan", "Look again here.", 3.0, "nats", 0.5, 1e6,
               scan=ScanRequest((6.0, 6.0), 5.0, 64, 1e4)),
        Advice("place_beam", "Move it.", 0.3, "probability", 0.1, 2e9,
               target_xy_A=(5.0, 5.0), dwell_s=2.0, voltage_kV=60.0),
    ]  # fmt: skip
    parts = {
        "title": "A silicon atom in graphene", "source": "movie.tif", "material": GRAPHENE,
        "frame_count": n, "frames": {f: make_frame(f, xy, 30) for f in range(n)},
        "maps": {0: make_maps(0)},
        "atoms": AtomTable.concat(make_atoms(f, xy, 30) for f in range(n)),
        "defects": make_defects(n),
        "lattice": pl.DataFrame({
            "frame": range(n), "pixel_size_A": [0.16] * n, "strain_1": [0.02] * n,
            "strain_2": [-0.01] * n, "rms_A": [0.08] * n, "matched": [0.95] * n,
        }),
        "structures": draws,
        "results": [*results, heated(draws[0], 300.0), heated(draws[0], 900.0)],
        "advice": advice, "steps": [StepSummary("find", n, 12.5)],
        "warnings": ["The scale is 2 % off the lattice."],
        "configuration": {"seed": 7, "simulation": {"draws": 4}}, "versions": {"adatom": "0.1.0"},
    }  # fmt: skip
    return CampaignView(**(parts | changes))
