"""Score the uncertainty of every defect and region, in nats."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.ndimage import maximum_filter

from adatom.core.arrays import FloatArray
from adatom.core.atoms import AtomTable
from adatom.core.calibration import Calibration
from adatom.core.defect_kind import DefectKind
from adatom.core.defects import DefectTable
from adatom.core.energy import EnergySpread, spreads_of_defects
from adatom.core.simulation import SimulationResult
from adatom.core.weighted import weighted_mean_sd

# The format of a structure's name, KIND-fFRAME[-nDEFECT][-dDRAW], see `structure_name`.
_NAME = re.compile(r"^(?P<kind>.+)-f\d+(-n\d+)?(-d\d+)?$")


class ScoreOptions(BaseModel):
    """The wanted precision, and the weights of age and energy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wanted_sigma_A: float = Field(
        default=0.1, gt=0.0, description="wanted standard deviation of a position, Å"
    )
    radius_A: float = Field(default=3.0, gt=0.0, description="atoms this near belong to a region")
    memory_frames: float = Field(
        default=10.0, gt=0.0, description="number of frames after which a defect's weight is 1/e"
    )
    energy_scale_eV: float = Field(
        default=0.5,
        gt=0.0,
        description="standard deviation of the samples' energies that doubles the weight, eV",
    )
    min_peak_nats: float = Field(
        default=0.1,
        ge=0.0,
        description="smallest mutual information of a region that is scored, nats",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """The uncertainty of one defect or region.

    Parameters
    ----------
    kind
        Kind of the defect; None for a region where the networks disagree.
    frame, defect
        Frame in which it was last found, and its number there; -1 for a region.
    xy_A
        Centre, Å, in measured axes.
    existence_nats, element_nats
        Entropies of the existence and of the element, summed over its atoms.
    position_nats
        Information needed to bring every position to the wanted standard deviation.
    disagreement_nats
        Mutual information of the ensemble at the region's peak.
    sigma_A
        Largest standard deviation of a position of its atoms, Å (0 without atoms).
    position_variances_A2
        Shape (2 * atom,): principal variances of the positions, Å².
    energy_sd_eV
        Standard deviation of the energies of its relaxed samples, eV; NaN if not simulated.
    age_frames
        Frames since it was last found.
    weight
        Dimensionless; decreases with age and increases with the spread of the energies.
    energy
        Its formation energy as a distribution; None where it has none.
    """

    kind: DefectKind | None
    frame: int
    defect: int
    xy_A: tuple[float, float]
    existence_nats: float
    element_nats: float
    position_nats: float
    disagreement_nats: float
    sigma_A: float
    position_variances_A2: FloatArray
    energy_sd_eV: float
    age_frames: int
    weight: float
    energy: EnergySpread | None = None

    @property
    def nats(self) -> float:
        """Total uncertainty, nats.

        The members' disagreement is part of the entropy of existence: the larger of the two counts.
        """
        identity = max(self.existence_nats + self.element_nats, self.disagreement_nats)
        return identity + self.position_nats

    @property
    def total(self) -> float:
        """Weighted uncertainty, nats; scores are ranked by it."""
        return self.weight * self.nats


def existence_entropy(p: ArrayLike) -> FloatArray:
    """Entropy of a binary variable, nats: ``-p ln p - (1-p) ln(1-p)``.

    Source: Shannon, Bell Syst. Tech. J. 27, 379 (1948).

    Parameters
    ----------
    p
        Probabilities, any shape.

    Returns
    -------
    Entropies, shape of `p`.

    Examples
    --------
    >>> existence_entropy([0.5, 1.0]).round(3)
    array([0.693, 0.   ])
    """
    q = np.clip(np.asarray(p, dtype=np.float64), 0.0, 1.0)
    return _plogp(q) + _plogp(1.0 - q)


def element_entropy(p_element: ArrayLike, species: int) -> FloatArray:
    """Entropy of the element, nats.

    The other species share the remaining probability ``1 - p_element`` equally.

    Parameters
    ----------
    p_element
        Probability of the named element, shape (atom,).
    species
        Number of possible elements.

    Examples
    --------
    >>> element_entropy([1.0, 0.5], 2).round(3)
    array([0.   , 0.693])
    """
    q = np.clip(np.asarray(p_element, dtype=np.float64), 0.0, 1.0)
    if species < 2:
        return np.zeros_like(q)
    return existence_entropy(q) + (1.0 - q) * math.log(species - 1)


def missing_position_nats(variance_A2: ArrayLike, wanted_sigma_A: float) -> FloatArray:
    """Information needed per axis to reach the wanted precision, nats: ``ln(sigma / wanted)``.

    It is 0 where the precision is reached. The formula is the difference of the entropies of two
    normal distributions (Cover and Thomas, Elements of Information Theory, theorem 8.4.1).

    Parameters
    ----------
    variance_A2
        Variances, any shape, Å².
    wanted_sigma_A
        Wanted standard deviation, Å.

    Examples
    --------
    >>> missing_position_nats([0.01, 0.04], wanted_sigma_A=0.1).round(3)
    array([0.   , 0.693])
    """
    ratio = np.asarray(variance_A2, dtype=np.float64) / wanted_sigma_A**2
    out: FloatArray = 0.5 * np.log(np.maximum(ratio, 1.0))
    return out


def position_gain(variance_A2: ArrayLike, more: float, wanted_sigma_A: float) -> FloatArray:
    """Expected gain per axis from `more` times the present dose, nats: ``ln(1 + more) / 2``.

    The variance of a position that is limited by counting noise is proportional to 1/dose (the
    Cramér-Rao bound of a spot, s²/N). Precision beyond the wanted one is not counted.

    Parameters
    ----------
    variance_A2
        Present variances, any shape, Å².
    more
        Dose to add, in multiples of the present dose.
    wanted_sigma_A
        Wanted standard deviation, Å.
    """
    limit = missing_position_nats(variance_A2, wanted_sigma_A)
    out: FloatArray = np.minimum(limit, 0.5 * math.log1p(max(more, 0.0)))
    return out


def energy_spread(results: Sequence[SimulationResult]) -> dict[str, float]:
    """Standard deviation of the energies of relaxed samples, eV, by label of the kind of defect.

    It is the part that the image leaves open: a scan narrows no other. Where the samples have
    formation energies, those of all compositions are compared; else only samples of one composition
    and one engine, for total energies of structures with different numbers of atoms differ by the
    energies of the additional atoms. Samples count by their importance weights. Each kind gets the
    largest value of its groups.

    Parameters
    ----------
    results
        Simulations of supercells; only finished relaxations are used.
    """
    groups: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for r in results:
        found = _NAME.match(r.structure)
        if found is None or r.task != "relax" or r.status != "done" or not r.trajectory:
            continue
        if r.draw < 0:  # the most probable structure is no sample
            continue
        formula = r.trajectory[-1].get_chemical_formula()
        groups[found["kind"], r.engine, formula].append((r.energy_eV, r.weight))
    out: dict[str, float] = {}
    for (kind, _, _), own in groups.items():
        _, sd = weighted_mean_sd(*zip(*own, strict=True))
        if not np.isnan(sd):
            out[kind] = max(out.get(kind, 0.0), sd)
    for kind, spread in energies_by_kind(results).items():
        if not np.isnan(spread.draws_eV):
            out[kind] = spread.draws_eV
    return out


def energies_by_kind(results: Sequence[SimulationResult]) -> dict[str, EnergySpread]:
    """Formation energy of every kind of defect as a distribution, by the label of the kind.

    Of several defects of a kind the one with the largest spread counts.

    Parameters
    ----------
    results
        Simulations of supercells.
    """
    out: dict[str, EnergySpread] = {}
    for name, spread in spreads_of_defects(results).items():
        found = _NAME.match(name)
        if found and (found["kind"] not in out or spread.sd_eV > out[found["kind"]].sd_eV):
            out[found["kind"]] = spread
    return out


def score_defects(
    atoms: AtomTable,
    defects: DefectTable,
    *,
    species: int,
    results: Sequence[SimulationResult] = (),
    latest_frame: int | None = None,
    options: ScoreOptions | None = None,
) -> list[Score]:
    """Score every defect in the frame where it was last found, highest score first.

    Parameters
    ----------
    atoms, defects
        Of any number of frames; a track counts once, in its last frame.
    species
        Number of possible elements.
    results
        Simulations of the defects' supercells.
    latest_frame
        The present frame; by default the last frame that has atoms.
    options
        Wanted precision and weights.

    Raises
    ------
    BadInput
        If a name in the table is not that of a kind of defect.
    """
    options = options or ScoreOptions()
    now = max(atoms.frames, default=0) if latest_frame is None else latest_frame
    spread, energies = energy_spread(results), energies_by_kind(results)
    last: dict[tuple[int, int], dict[str, Any]] = {}
    for row in defects.data.sort("frame").iter_rows(named=True):
        key = (-1, row["track"]) if row["track"] >= 0 else (row["frame"], row["defect"])
        last[key] = row
    out = [
        _score_one(
            row,
            _near(atoms.of_frame(row["frame"]), (row["x_A"], row["y_A"]), options.radius_A),
            species=species,
            energy_sd_eV=spread.get(DefectKind.parse(row["kind"]).label, math.nan),
            energy=energies.get(DefectKind.parse(row["kind"]).label),
            age=max(now - row["frame"], 0),
            options=options,
        )
        for row in last.values()
    ]
    return sorted(out, key=lambda s: -s.total)


def _score_one(
    row: dict[str, Any],
    local: AtomTable,
    *,
    species: int,
    energy_sd_eV: float,
    energy: EnergySpread | None,
    age: int,
    options: ScoreOptions,
) -> Score:
    variances = np.zeros(0)
    if len(local):
        variances = np.asarray(np.linalg.eigvalsh(local.covariance).ravel(), dtype=np.float64)
    weight = math.exp(-age / options.memory_frames)
    weight *= 1.0 + (0.0 if math.isnan(energy_sd_eV) else energy_sd_eV / options.energy_scale_eV)
    atoms = float(existence_entropy(local.column("p_exists")).sum())
    name = float(existence_entropy(row["p"]))  # a vacancy has no atom; its own p counts
    return Score(
        kind=DefectKind.parse(row["kind"]),
        frame=row["frame"],
        defect=row["defect"],
        xy_A=(row["x_A"], row["y_A"]),
        existence_nats=max(atoms, name),
        element_nats=float(element_entropy(local.column("p_element"), species).sum()),
        position_nats=float(missing_position_nats(variances, options.wanted_sigma_A).sum()),
        disagreement_nats=0.0,
        sigma_A=float(np.sqrt(variances.max(initial=0.0))),
        position_variances_A2=variances,
        energy_sd_eV=energy_sd_eV,
        age_frames=age,
        weight=weight,
        energy=energy,
    )


def score_disagreement(
    mutual_information: NDArray[np.floating],
    calibration: Calibration,
    *,
    frame: int = -1,
    options: ScoreOptions | None = None,
) -> list[Score]:
    """Score the peaks of the networks' disagreement, highest first.

    The value at a peak is the mutual information about one binary variable, the existence of an
    atom (Houlsby et al., arXiv:1112.5745). Neighbouring pixels describe the same variable, so their
    values are not added.

    Parameters
    ----------
    mutual_information
        Shape (row, col), nats; the mean over frames.
    calibration
        Pixel size of the map.
    frame
        Frame of the map; -1 for a mean over several.
    options
        Smallest peak, and radius of a region.
    """
    options = options or ScoreOptions()
    size = max(3, 2 * round(calibration.pixels(options.radius_A)) + 1)
    top = maximum_filter(mutual_information, size=size, mode="nearest")
    peak = (mutual_information == top) & (mutual_information >= max(options.min_peak_nats, 1e-9))
    rc = np.argwhere(peak)
    values = mutual_information[peak].astype(np.float64)
    out = []
    for (x, y), value in zip(calibration.xy(rc.astype(np.float64)), values, strict=True):
        out.append(
            Score(
                kind=None,
                frame=frame,
                defect=-1,
                xy_A=(float(x), float(y)),
                existence_nats=0.0,
                element_nats=0.0,
                position_nats=0.0,
                disagreement_nats=float(value),
                sigma_A=0.0,
                position_variances_A2=np.zeros(0),
                energy_sd_eV=math.nan,
                age_frames=0,
                weight=1.0,
            )
        )
    return sorted(out, key=lambda s: -s.total)


def _near(atoms: AtomTable, xy: tuple[float, float], radius_A: float) -> AtomTable:
    distance = np.linalg.norm(atoms.xy - np.asarray(xy), axis=1)
    return AtomTable(atoms.data.filter(distance <= radius_A))


def _plogp(p: FloatArray) -> FloatArray:
    out: FloatArray = p * np.log(1.0 / np.where(p > 0.0, p, 1.0))
    return out
