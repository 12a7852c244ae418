"""The simulated microscope as a registered instrument: specimen, beam and detector together.

This file is not in `adatom.instrument`, because it renders frames with `adatom.frames`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from pydantic import BaseModel

from adatom.core import Frame, Material, ScanRequest
from adatom.core.arrays import FloatArray, IntArray
from adatom.core.units import A2_PER_BARN
from adatom.errors import BadInput
from adatom.frames.simulate.conditions import Conditions
from adatom.frames.simulate.parked import signal_at
from adatom.frames.simulate.specimen import lattice_sites
from adatom.frames.simulate.synthesize import image_request
from adatom.instrument.specimen import Loss
from adatom.instrument.twin import Twin
from adatom.instrument.twin_options import TwinOptions
from adatom.simulation import displacement_cross_section_barn

# Å²: smaller cross sections take no atom within any dose that a specimen gets (1e10 e⁻/Å²).
_LEAST_A2 = 1e-14


class TwinInstrument:
    """Open the simulated microscope: an `adatom.instrument.protocol.Instrument`.

    Examples
    --------
    >>> from adatom.core import GRAPHENE, ScanRequest
    >>> microscope = TWIN.open(TwinOptions(), GRAPHENE, seed=3)
    >>> request = ScanRequest(microscope.capabilities.center_xy_A, 16.0, 160, 1e6)
    >>> frame = microscope.acquire(request)
    >>> frame.shape, frame.calibration.pixel_size_A
    ((160, 160), 0.1)
    """

    name = "twin"
    summary = "Simulated microscope: a sheet whose impurity atoms move under the beam"
    options_type = TwinOptions

    def open(self, options: BaseModel, material: Material, *, seed: int = 0) -> Twin:
        """Put a sheet of the material under the beam."""
        return make_twin(_twin_options(options), material, seed)


def _blurred(base: Conditions, blur_A: float) -> Conditions:
    """Widen the probe; variances of independent blurs add.

    An atom keeps its counts, so its peak is lower; the background, which is in units of that peak,
    keeps its own.
    """
    if not blur_A:
        return base
    one, two = (float(np.hypot(sigma, blur_A)) for sigma in base.probe_sigma_A)
    peak = base.probe_sigma_A[0] * base.probe_sigma_A[1] / (one * two)
    return replace(
        base,
        probe_sigma_A=(one, two),
        counts=base.counts * peak,
        background=base.background / peak,
        slow_background=base.slow_background / peak,
    )


def make_twin(
    options: TwinOptions,
    material: Material,
    seed: int,
    *,
    blur_A: Callable[[], float] = lambda: 0.0,
) -> Twin:
    """Put a sheet of the material under the simulated microscope.

    Parameters
    ----------
    options, material, seed
        As of `TwinInstrument.open`.
    blur_A
        Gives the present blur of the probe by defocus, Å: a standard deviation per axis.
    """
    rng = np.random.default_rng(seed + 1)
    sites, number = lattice_sites(
        material, (options.sheet_A, options.sheet_A), 0.0, rng.uniform(0, 2 * np.pi)
    )
    basis = np.array([material.species.index(s) for s in material.site_species])
    pixel_size_A = options.field_of_view_A / options.pixels
    base = Conditions(
        pixel_size_A=pixel_size_A,
        probe_sigma_A=(0.44, 0.40),
        tail_fraction=0.15,
        counts=options.counts,
        background=0.15,
        slow_background=0.05,
        jitter_A=0.03,
    )

    def render(
        xy: FloatArray,
        species: IntArray,
        request: ScanRequest,
        rng: np.random.Generator,
        index: int,
    ) -> Frame:
        now = _blurred(base, blur_A())
        conditions = replace(
            now,
            pixel_size_A=request.calibration.pixel_size_A,
            counts=now.counts
            * (request.dose_per_A2 / options.dose_per_A2)
            * (request.calibration.pixel_size_A / pixel_size_A) ** 2,
        )
        frame = image_request(xy, species, material, request, conditions, rng, index=index)
        return replace(frame, dose_per_A2=request.dose_per_A2)

    brightness = material.brightness(base.contrast_exponent)
    electrons = options.dose_per_A2 * pixel_size_A**2  # on a pixel of such a frame

    def signal(place: FloatArray, xy: FloatArray, species: IntArray) -> float:
        now = _blurred(base, blur_A())
        return now.counts / electrons * float(signal_at(place, xy, brightness[species], now))

    if len(set(material.site_species)) > 1:  # the published hops are those of Si in graphene
        options = options.model_copy(update={"hop_cross_section_A2": 0.0})
    return Twin(
        material, sites, render, signal, options, seed, site_species=basis[number],
        impurity=_impurity(material), losses=losses_of(material, options),
    )  # fmt: skip


def losses_of(material: Material, options: TwinOptions) -> tuple[Loss, ...]:
    """How the beam takes atoms of a crystal out.

    A column of two like atoms, as S2 in MoS2, loses one of them where the material has a species
    for what is left; another column is then empty.

    Parameters
    ----------
    material
        The crystal.
    options
        Give the voltage, or the cross section.

    Examples
    --------
    >>> from adatom.core import GRAPHENE
    >>> losses_of(GRAPHENE, TwinOptions(voltage_kV=100.0))[0].cross_section_A2 > 1e-9
    True
    >>> losses_of(GRAPHENE, TwinOptions())  # none at 60 kV
    ()
    """
    brightness, names = material.brightness(), material.species
    dimmest = min(set(material.site_species), key=lambda s: brightness[names.index(s)])
    known, given = material.knock_on, options.loss_cross_section_A2
    if given is None and known is not None and known.element in material.site_species:
        dimmest = known.element
        given = A2_PER_BARN * displacement_cross_section_barn(
            options.voltage_kV, known.element, known.threshold_eV, known.mean_square_velocity_m2_s2
        )
    if given is None or given < _LEAST_A2:
        return ()
    rest = dimmest.removesuffix("2") if dimmest.endswith("2") else ""
    after = names.index(rest) if rest in names else None
    return (Loss(names.index(dimmest), after, given),)


def _impurity(material: Material) -> int:
    """Species of impurity atoms: the last one that is no site of the perfect crystal."""
    others = [k for k, s in enumerate(material.species) if s not in material.site_species]
    return others[-1] if others else len(material.species)


def _twin_options(options: BaseModel) -> TwinOptions:
    if not isinstance(options, TwinOptions):
        raise BadInput(
            "options of the instrument twin",
            expected="TwinOptions",
            got=type(options).__name__,
            todo="Make them with adatom.instrument.TwinOptions.",
        )
    return options


TWIN = TwinInstrument()
