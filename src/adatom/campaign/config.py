"""The configuration of a campaign: the options of all steps, as ``campaign.toml`` stores them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from adatom.analysis.options import AnalysisOptions
from adatom.campaign.recording import with_detector
from adatom.core import Acquisition, Material
from adatom.errors import BadInput
from adatom.features import DefectOptions, LinkOptions
from adatom.features.defects.vacancy_test import EvidenceOptions
from adatom.features.find import FindOptions
from adatom.feedback import AdviceOptions
from adatom.instrument.twin_options import TwinOptions
from adatom.learning.ensemble import Ensemble
from adatom.learning.weights import load_for
from adatom.materials.library import command_line_name, load_material
from adatom.simulation import AUTO, DynamicsOptions, RelaxOptions
from adatom.structures import SupercellOptions
from adatom.training.adapt.options import AdaptOptions


class InputOptions(BaseModel):
    """Where the frames come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: tuple[str, ...] = Field((), description="image files, as absolute paths")
    twin: TwinOptions | None = Field(
        None, description="the simulated microscope in the place of files"
    )
    dataset: str | None = Field(None, description="which image of files that hold several")
    axes: str | None = Field(
        None, description="order of the axes, such as tyx; by default the file's labels decide"
    )
    frames: str | None = Field(
        None, description="START:STOP, the frames to use, or several such ranges; all by default"
    )
    pixel_size_A: float | None = Field(None, gt=0, description="pixel size; by default the file's")
    detector_mrad: tuple[float, float] | None = Field(
        None,
        description="inner and outer angle of the detector; they set the contrast in training; "
        "by default the file's",
    )
    frame_time_s: float | None = Field(
        None, gt=0, description="time from frame to frame; by default the file's"
    )
    dose_per_A2: float | None = Field(
        None, gt=0, description="electrons per Å² and frame; by default the file's"
    )
    fit_scale: bool = Field(
        default=False, description="take the scale from the lattice, in place of the given one"
    )

    @model_validator(mode="after")
    def _one_source(self) -> InputOptions:
        if bool(self.paths) == (self.twin is not None):
            raise ValueError("give either paths or a twin")
        return self


class SimulateOptions(BaseModel):
    """Which of the found defects are simulated, and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    draws: int = Field(
        4, ge=1, le=64, description="structures of each defect, drawn from its uncertainty"
    )
    max_structures: int = Field(
        2, ge=1, description="distinct defects to simulate, likeliest first"
    )
    minimum_p: float = Field(
        0.3, ge=0, le=1, description="least probability of a defect to simulate"
    )
    relax_engine: str = Field(
        AUTO,
        description="engine of the relaxations, or module:name of what makes an ASE calculator; "
        "auto: the first that is installed and fit",
    )
    dynamics_engine: str = Field(AUTO, description="engine of the dynamics, alike")
    allow_unfit: bool = Field(
        default=False, description="run an engine also on what it says that it is not fit for"
    )
    mu: tuple[str, ...] = Field(
        (),
        description="reservoirs of the formation energies beside the crystal: S-rich, for atoms of "
        "S from the element; or S=-4.1, the energy of one atom in eV",
    )
    second_engine: str = Field(
        AUTO,
        description="engine that relaxes one draw of each defect again, for the spread; auto: the "
        "fastest other one that is installed and fit; none",
    )
    size_check: Literal["auto", "always", "never"] = Field(
        "auto",
        description="what the cell's size does to an energy, by a cell 1.4 times as wide: by the "
        "engine itself (always), or by a classical potential where it is another engine (auto)",
    )
    memory: str = Field(
        "off",
        description="directory that keeps relaxations for other campaigns, where the same defect "
        "costs nothing; auto: the user's cache; off. The variable ADATOM_MEMORY goes before it",
    )
    temperatures_K: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (300.0, 900.0), description="temperatures of the dynamics"
    )


class Config(BaseModel):
    """All options that determine a campaign's results; ``campaign.toml`` stores them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    material: Annotated[str, StringConstraints(strip_whitespace=True)] | None = Field(
        None,
        description="name of a material, its TOML file, or a structure file; chosen by lattice and "
        "scale where it is left out",
    )
    screened: bool = Field(
        default=False, description="the material was chosen by lattice and scale"
    )
    seed: int = Field(0, ge=0, description="seed of all random numbers")
    zone_axis: tuple[int, int, int] = Field(
        (0, 0, 1), description="lattice direction of the beam, for a structure file"
    )
    weights: str | None = Field(
        None, description="an ensemble's .safetensors file; by default the shipped one"
    )
    voltage_kV: float | None = Field(
        None,
        gt=0,
        description="acceleration voltage of the frames; by default the file's, or 60 kV, assumed "
        "and said",
    )
    input: InputOptions
    adapt: Literal["auto", "always", "never"] = Field(
        "auto",
        description="retrain on the first frames: auto, where they are unlike training",
    )
    adaptation: AdaptOptions = Field(default_factory=AdaptOptions)
    find: FindOptions = FindOptions()
    evidence: EvidenceOptions = EvidenceOptions()
    defects: DefectOptions = DefectOptions()
    link: LinkOptions = LinkOptions()
    supercell: SupercellOptions = SupercellOptions()
    simulate: SimulateOptions = SimulateOptions()
    relax: RelaxOptions = RelaxOptions()
    dynamics: DynamicsOptions = DynamicsOptions()
    advice: AdviceOptions = Field(default_factory=AdviceOptions)

    def analysis(self) -> AnalysisOptions:
        """Options of the analysis of every frame."""
        return AnalysisOptions(find=self.find, evidence=self.evidence, defects=self.defects)

    def recording(self) -> Acquisition:
        """What the options say of the recording of the frames."""
        return Acquisition(
            voltage_kV=self.voltage_kV,
            detector_mrad=self.input.detector_mrad,
            frame_time_s=self.input.frame_time_s,
            dose_per_A2=self.input.dose_per_A2,
        )

    def table(self) -> dict[str, Any]:
        """Nested plain values for TOML."""
        return self.model_dump(mode="json")


def material_of(config: Config) -> Material:
    """Read the material that a configuration names.

    Raises
    ------
    BadInput
        If there is no such material, or its file cannot be used.
    """
    return with_detector(load_material(_named(config), config.zone_axis), config.recording())


def ensemble_of(config: Config) -> Ensemble:
    """Load the ensemble that a configuration names, or the one that ships for its material.

    Raises
    ------
    BadInput
        If there is none, or its species are not those of the material.
    """
    path = None if config.weights is None else Path(config.weights)
    called = command_line_name(_named(config), config.zone_axis)
    return load_for(material_of(config), path, called=called)


def _named(config: Config) -> str:
    if config.material is None:
        raise BadInput(
            "`material`", expected="a material", got="none", todo="Name what the frames show."
        )
    return config.material


def parse_config(table: dict[str, Any], source: str) -> Config:
    """Read a configuration from a nested table.

    Raises
    ------
    BadInput
        If a key is unknown or a value out of range or infinite; the message names the key.
    """
    _refuse_infinite(table, source)
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise BadInput(
            f"{source}, {where}",
            expected=str(first["msg"]).removeprefix("Input should be "),
            got=repr(first.get("input"))[:80],
            todo="Mend this key, or leave it out for its default.",
        ) from error


def _refuse_infinite(value: Any, source: str, where: str = "") -> None:
    """Refuse inf and nan: TOML can write them, and inf passes every lower bound."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_infinite(inner, source, f"{where}.{key}" if where else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _refuse_infinite(inner, source, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadInput(
            f"{source}, {where}",
            expected="a finite number",
            got=repr(value),
            todo="Mend this key, or leave it out for its default.",
        )
