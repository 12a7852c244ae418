"""`adatom bench identify`: the monolayer of a frame, told among 22."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ase
import ase.build
import ase.io
import numpy as np
from numpy.typing import NDArray

from adatom.bench.rows import Row, row
from adatom.core import Material
from adatom.core.arrays import FloatArray
from adatom.frames.lattice.candidates import compare_candidates
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.specimen import Specimen, lattice_sites
from adatom.frames.simulate.synthesize import image_specimen
from adatom.materials.library import load_material
from adatom.materials.same_structure import same_structure
from adatom.training.scores import expected_calibration_error

_SEED = 4100
_FRAMES, _QUICK = 6, 1  # of each monolayer at each dose
_PIXELS = 256
_DOSES_A2 = (20.0, 100.0, 1000.0)  # counts per Å² at the peak of an isolated host atom
_SCALE_SD = 0.01  # relative error of the pixel size that is given: a calibrated microscope
_STRAIN_SD, _DISORDER_A, _VACANT = 0.01, 0.04, 0.003  # of the sheet; Å; share of the atoms
_TOLD_SD = float(np.hypot(_SCALE_SD, _STRAIN_SD / 2**0.5))  # of the scale that is seen
# Lattice constant and distance of the two chalcogen planes, Å: about those of density-functional
# theory (PBE).
_TRIGONAL_PRISMATIC = {
    "MoS2": (3.18, 3.13), "MoSe2": (3.32, 3.34), "MoTe2": (3.55, 3.61), "WS2": (3.19, 3.14),
    "WSe2": (3.32, 3.36), "WTe2": (3.55, 3.62), "NbS2": (3.35, 3.13), "NbSe2": (3.48, 3.37),
    "TaS2": (3.34, 3.12), "TaSe2": (3.47, 3.35),
}  # fmt: skip
_OCTAHEDRAL = {
    "TiS2": (3.42, 2.84), "TiSe2": (3.54, 3.12), "ZrS2": (3.68, 2.90), "ZrSe2": (3.79, 3.16),
    "HfS2": (3.64, 2.90), "HfSe2": (3.76, 3.14), "PtS2": (3.57, 2.46), "PtSe2": (3.75, 2.62),
    "SnS2": (3.70, 2.96), "SnSe2": (3.87, 3.18),
}  # fmt: skip
_RIGHT, _MOST_ECE = 0.95, 0.05  # targets


@dataclass(frozen=True, slots=True)
class _Answer:
    structure: bool
    name: bool
    probability: float  # of all candidates with the structure of the likeliest
    seconds: float


def bench_identify(options: Any, output: Path) -> list[Row]:
    """Name the monolayer of simulated frames, the composition known as one of 22 alone.

    Parameters
    ----------
    options
        See `BenchOptions`; ``frames`` of each monolayer at each dose.
    output
        Directory for the structure files of the candidates.
    """
    sheets = monolayers(output)
    frames = options.frames or (_QUICK if options.quick else _FRAMES)
    rows: list[Row] = []
    for dose in _DOSES_A2:
        answers = [
            _answer(sheet, sheets, np.random.default_rng([_SEED, k, i, int(dose)]), dose)
            for k, sheet in enumerate(sheets)
            for i in range(frames)
        ]
        rows += _rows(dose, answers)
    return rows


def monolayers(folder: Path) -> list[Material]:
    """Build graphene, h-BN and twenty MX2 with ASE, and read them as a user's structure files.

    Parameters
    ----------
    folder
        Where the files are written.
    """
    sheets: dict[str, ase.Atoms] = {
        "graphene": ase.build.graphene(a=2.46, vacuum=8.0),
        "h-BN": ase.build.graphene("BN", a=2.504, vacuum=8.0),
    }
    for kind, formulas in (("2H", _TRIGONAL_PRISMATIC), ("1T", _OCTAHEDRAL)):
        for formula, (a, thickness) in formulas.items():
            sheets[formula] = ase.build.mx2(formula, kind, a, thickness, vacuum=8.0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, atoms in sheets.items():
        ase.io.write(folder / f"{name}.extxyz", atoms)
    return [load_material(str(folder / f"{name}.extxyz")) for name in sheets]


def _answer(
    sheet: Material,
    sheets: list[Material],
    rng: np.random.Generator,
    dose: float,
) -> _Answer:
    image, px = _frame(sheet, rng, dose)
    given = px * float(np.exp(rng.normal(0.0, _SCALE_SD)))
    start = time.process_time()
    found = compare_candidates([image], given, sheets, scale_sd=_TOLD_SD)
    seconds = time.process_time() - start
    best = found[0]
    chosen = next(s for s in sheets if s.name == best.name)
    right = same_structure(chosen, sheet)
    return _Answer(right, chosen is sheet, best.structure_probability, seconds)


def _frame(
    sheet: Material, rng: np.random.Generator, dose_A2: float
) -> tuple[NDArray[np.float32], float]:
    """Image a sheet with every atom of it, also those too dim to be columns of the material."""
    px = float(rng.uniform(0.10, 0.16))
    drawn = Conditions.random(rng, sheet)
    # Spots as narrow as those of graphene: the range of a material with long bonds is wider.
    width = rng.uniform(0.3, 0.5) if drawn.optics is None else rng.uniform(0.23, 0.35)
    stretch = 1.0 + abs(rng.normal(0.0, 0.08))
    conditions = replace(
        drawn, pixel_size_A=px, counts=dose_A2 * px**2, contamination=0.0,
        probe_sigma_A=(width * stretch, width / stretch),
    )  # fmt: skip
    whole = _every_atom(sheet)
    extent = (_PIXELS * px, _PIXELS * px)
    xy, site = lattice_sites(whole, extent, 5.0, rng.uniform(0.0, 2.0 * np.pi))
    middle = np.array(extent) / 2.0
    strain = np.eye(2) + rng.normal(0.0, _STRAIN_SD, (2, 2))
    xy = (xy - middle) @ strain.T + middle + rng.uniform(-1.5, 1.5, 2)
    xy += rng.normal(0.0, _DISORDER_A, xy.shape)
    number = {s: k for k, s in enumerate(whole.species)}
    kind = np.array([number[s] for s in whole.site_species])[site]
    there = rng.random(len(xy)) > _VACANT
    specimen = Specimen(xy[there], kind[there], xy[~there])
    imaged = image_specimen(specimen, (_PIXELS, _PIXELS), whole, conditions, rng)
    return np.asarray(imaged.frame.data), px


def _every_atom(sheet: Material) -> Material:
    crystal = sheet.crystal
    assert crystal is not None  # it was read from a structure file  # noqa: S101
    places: FloatArray = crystal.positions_A[:, :2] @ np.linalg.inv(sheet.cell())
    # The brightest first: counts are those of the host.
    order = np.argsort(-crystal.to_ase().numbers, kind="stable")
    symbols = tuple(crystal.symbols[i] for i in order)
    return replace(
        sheet,
        basis=tuple((float(x), float(y)) for x, y in places[order]),
        site_species=symbols,
        species=tuple(dict.fromkeys(symbols)),
    )


def _rows(dose: float, answers: list[_Answer]) -> list[Row]:
    right = np.array([a.structure for a in answers])
    ece = expected_calibration_error(np.array([a.probability for a in answers]), right)
    names = np.mean([a.name for a in answers])
    seconds = float(np.median([a.seconds for a in answers]))
    what = f"{dose:g} counts/Å²"
    return [
        row(f"{what}: right structure of {len(answers)} frames", f"{right.mean():.3f}",
            f"at least {_RIGHT}", right.mean() >= _RIGHT),
        row(f"{what}: its probability, calibration error", f"{ece:.3f}", f"at most {_MOST_ECE}",
            ece <= _MOST_ECE),
        row(f"{what}: right elements as well; time of a frame", f"{names:.3f}; {seconds:.2f} s",
            "shown", met=True),
    ]  # fmt: skip
