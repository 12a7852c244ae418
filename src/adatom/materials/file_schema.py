"""What a material's TOML file says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adatom.core import KnockOnData, SiteThreshold
from adatom.core.material import Form

LARGEST_CELL_A = 1e4  # Å: cube root of a cell's volume
Label = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=64)]
Length = Annotated[float, Field(ge=-LARGEST_CELL_A, le=LARGEST_CELL_A)]  # Å


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Column(_Strict):
    """A column of a crystal: its label, and its position in the cell."""

    is_: Label = Field(alias="is", description="symbol, or formula of the atoms above each other")
    at: tuple[float, float] = Field(description="fractional coordinates")
    z_A: tuple[Length, ...] | None = Field(
        None, description="height of each atom of `is` along the beam, Å; 0 for a single atom"
    )


class WrittenCell(_Strict):
    """A projected cell, written out."""

    cell_A: tuple[tuple[Length, Length], tuple[Length, Length]]
    period_A: float | None = Field(
        None, gt=0, lt=LARGEST_CELL_A, description="repeat along the beam, Å; none for a sheet"
    )
    columns: tuple[Column, ...] = Field(min_length=1)


class Polytype(_Strict):
    """Another arrangement in the same cell."""

    columns: tuple[Column, ...] = Field(min_length=1)


class FromStructure(_Strict):
    """A structure and the direction from which it is seen."""

    file: str | None = Field(None, description="any structure file that ASE reads")
    bulk: dict[str, Any] | None = Field(None, description="or arguments of ase.build.bulk")
    zone_axis: tuple[int, int, int] = Field((0, 0, 1), description="lattice direction of the beam")

    @model_validator(mode="after")
    def _one(self) -> FromStructure:
        if (self.file is None) == (self.bulk is None):
            raise ValueError("give either file or bulk")
        if self.zone_axis == (0, 0, 0):
            raise ValueError("the zone axis must not be 0 0 0")
        return self


class KnockOnSite(_Strict):
    """Atoms whose threshold is not that of the perfect crystal."""

    element: Label = Field(description="chemical symbol of the atom that is displaced")
    beside: str = Field("", description="element that it is bonded to; empty for any")
    coordination: int = Field(0, ge=0, le=12, description="number of its neighbours; 0 for any")
    threshold_eV: float = Field(gt=0, description="energy that displaces the atom, eV")
    threshold_sd_eV: float = Field(gt=0, description="its standard deviation, eV")
    mean_square_velocity_m2_s2: float = Field(gt=0, description="along the beam, m²/s²")
    outcome: Literal["leaves", "moves"] = Field("leaves", description="what the atom does then")
    source: str = Field(min_length=1, description="publication or computation of these numbers")


class KnockOn(_Strict):
    """What the cross section of knock-on damage needs."""

    element: Label = Field(description="chemical symbol of the atom that is displaced")
    threshold_eV: float = Field(gt=0, description="energy that displaces the atom, eV")
    threshold_sd_eV: float = Field(gt=0, description="its standard deviation, eV")
    mean_square_velocity_m2_s2: float = Field(gt=0, description="along the beam, m²/s²")
    source: str = Field(min_length=1, description="publication of these numbers")
    site: tuple[KnockOnSite, ...] = Field((), description="kinds of site with their own threshold")
    caveat: str = Field("", description="what these numbers leave out, one sentence")

    def data(self) -> KnockOnData:
        """Give it as a part of a `Material`."""
        own = self.model_dump()
        return KnockOnData(sites=tuple(SiteThreshold(**each) for each in own.pop("site")), **own)


class MaterialFile(_Strict):
    """What a material's TOML file says."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._+-]+$")
    form: Form = "sheet"
    crystal: WrittenCell | None = None
    structure: FromStructure | None = None
    polytype: tuple[Polytype, ...] = Field((), description="other arrangements in the same cell")
    atoms: tuple[Label, ...] = Field((), description="of form 'atoms': what is dispersed")
    closest_A: float = Field(
        2.4, gt=0, le=100, description="of form 'atoms': shortest distance of two, Å"
    )
    extra: tuple[Label, ...] = Field((), description="what else may be there: dopants, ad-atoms")
    contrast_exponent: float = Field(1.64, gt=0, le=3)
    probe_sigma_A: tuple[float, float] | None = Field(
        None, description="narrowest and widest probe; by default as fine as the pattern requires"
    )
    defect_namer: str = Field("columns", description="registered name of its defect namer")
    simulated_by: tuple[str, ...] = Field((), description="engines that can simulate it")
    knock_on: KnockOn | None = Field(None, description="data of knock-on damage")

    def abilities(self) -> dict[str, Any]:
        """Fields of `Material` that say what can be done with it."""
        known = None if self.knock_on is None else self.knock_on.data()
        return {
            "defect_namer": self.defect_namer.strip().lower(),
            "simulated_by": tuple(name.strip().lower() for name in self.simulated_by),
            "knock_on": known,
        }

    @model_validator(mode="after")
    def _one_source(self) -> MaterialFile:
        given = [bool(self.crystal), bool(self.structure), bool(self.atoms)]
        if sum(given) != 1:
            raise ValueError("give one of [crystal], [structure] and atoms")
        if self.probe_sigma_A and not 0 < self.probe_sigma_A[0] <= self.probe_sigma_A[1] < 100:
            raise ValueError("probe_sigma_A must be two positive widths, the narrower one first")
        if bool(self.atoms) != (self.form == "atoms"):
            raise ValueError("atoms go with form = 'atoms', and only with it")
        return self
