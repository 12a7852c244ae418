"""A simulated microscope: a sheet with vacancies and impurity atoms that the beam moves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.spatial import cKDTree

from adatom.core import Frame, Material, ScanRequest
from adatom.core.arrays import FloatArray
from adatom.instrument.protocol import Capabilities

# Function of (positions in Å, species, request, random generator, frame index); returns a frame.
Render = Callable[[FloatArray, NDArray[np.int64], ScanRequest, np.random.Generator, int], Frame]

_SMALLEST_FIELD_A = 2.0  # smallest field of view, Å: one or two bonds
# Fewest and most pixels along an edge: the smallest frame that adatom reads, and the usual limit of
# scan generators.
_PIXELS = (16, 4096)


class TwinOptions(BaseModel):
    """The simulated specimen, beam and stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: int = Field(12, ge=1, description="frames of the demonstration")
    sheet_A: float = Field(48.0, gt=20, description="edge of the sheet, Å")
    vacancies: int = Field(1, ge=0, description="single vacancies in the field of view")
    foreign: int = Field(1, ge=0, description="substitutional impurity atoms in the field of view")
    field_of_view_A: float = Field(20.0, gt=8, description="field of view, Å")
    pixels: int = Field(192, ge=32, description="pixels along an edge")
    counts: float = Field(2.0, gt=0, description="detected counts at a host atom's peak, per pixel")
    dose_per_A2: float = Field(2e5, gt=0, description="electrons per Å² and frame")
    hop_cross_section_A2: float = Field(
        1.6e-6, ge=0, description="cross section of an impurity atom's hop to a neighbour, Å²"
    )
    drift_A: float = Field(0.25, ge=0, description="drift between frames, Å (1 sigma an axis)")


class Twin:
    """A sheet under an electron beam that moves its impurity atoms.

    In each frame, an impurity atom exchanges places with a neighbour with probability
    ``1 - exp(-cross section × dose)``, as Si does in graphene under 60 keV electrons
    (Susi et al., Phys. Rev. Lett. 113, 115501 (2014)).

    Parameters
    ----------
    material
        The sheet.
    sites_xy
        Its sites, shape (site, 2), Å, covering `options.sheet_A` and centred on half of it.
    render
        Renders the noisy frame.
    options
        See `TwinOptions`.
    seed
        Seed of the specimen, its hops and the noise.
    """

    def __init__(
        self,
        material: Material,
        sites_xy: FloatArray,
        render: Render,
        options: TwinOptions,
        seed: int,
    ) -> None:
        self.material, self.options, self._render = material, options, render
        self._rng = np.random.default_rng(seed)
        self._sites = sites_xy
        self._occupied = np.ones(len(sites_xy), dtype=bool)
        self._species = np.zeros(len(sites_xy), dtype=np.int64)
        self._tree = cKDTree(sites_xy)
        self._offset = np.zeros(2)
        self._taken = 0
        self._place_defects()

    @property
    def center_xy_A(self) -> tuple[float, float]:
        """Middle of the sheet, Å."""
        return self.options.sheet_A / 2, self.options.sheet_A / 2

    @property
    def capabilities(self) -> Capabilities:
        """Any field of view on the sheet."""
        return Capabilities(
            simulated=True,
            center_xy_A=self.center_xy_A,
            field_of_view_A=(_SMALLEST_FIELD_A, self.options.sheet_A),
            pixels=_PIXELS,
        )

    @property
    def truth(self) -> tuple[FloatArray, NDArray[np.int64]]:
        """Present positions (atom, 2) in Å with drift, and species (atom,)."""
        here = self._occupied
        return self._sites[here] + self._offset, self._species[here]

    def scan(self, request: ScanRequest) -> Frame:
        """Take a frame; the beam then changes the specimen.

        Raises
        ------
        BadInput
            If the request is outside `capabilities`.
        """
        self.capabilities.check(request)
        xy, species = self.truth
        frame = self._render(xy, species, request, self._rng, self._taken)
        self._taken += 1
        self._move_impurities(request)
        self._offset = self._offset + self._rng.normal(0.0, self.options.drift_A, 2)
        return frame

    def demonstration(self) -> list[Frame]:
        """Take `options.frames` frames of the middle of the sheet."""
        o = self.options
        request = ScanRequest(self.center_xy_A, o.field_of_view_A, o.pixels, o.dose_per_A2)
        return [self.scan(request) for _ in range(o.frames)]

    def _place_defects(self) -> None:
        """Place the defects in the field of view, 5 Å apart and 4 Å from the border."""
        o = self.options
        half = o.field_of_view_A / 2 - 4.0
        away = np.abs(self._sites - np.asarray(self.center_xy_A)).max(axis=1)
        free = self._rng.permutation(np.nonzero(away < half)[0])
        placed: list[int] = []
        for site in free:
            if len(placed) == o.foreign + o.vacancies:
                break
            if all(np.linalg.norm(self._sites[site] - self._sites[p]) > 5.0 for p in placed):
                placed.append(int(site))
        for site in placed[: o.foreign]:
            self._species[site] = 1
        for site in placed[o.foreign :]:
            self._occupied[site] = False

    def _move_impurities(self, request: ScanRequest) -> None:
        half = request.field_of_view_A / 2
        chance = 1.0 - np.exp(-self.options.hop_cross_section_A2 * request.dose_per_A2)
        for site in np.nonzero(self._species)[0]:
            seen = self._sites[site] + self._offset - np.asarray(request.center_xy_A)
            if np.abs(seen).max() > half or self._rng.random() > chance:
                continue
            near = self._tree.query_ball_point(
                self._sites[site], 1.25 * self.material.bond_length_A
            )
            other = [i for i in near if i != site and self._occupied[i] and not self._species[i]]
            if other:
                target = int(self._rng.choice(other))
                self._species[target], self._species[site] = self._species[site], 0
