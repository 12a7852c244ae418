"""Fit the probe and the noise, which all atoms of a frame share, to a part of the frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adatom.core.arrays import FloatArray, Image
from adatom.features.refinement.fit import Fit
from adatom.features.refinement.image_model import Probe
from adatom.features.refinement.noise import Noise
from adatom.features.refinement.optics import Optics, RefineOptions
from adatom.features.refinement.used_pixels import UsedPixels

START_SIGMA_A = 0.42  # initial width (sigma) of the probe, Å: the default of simulated frames
_CLIPPED_STEPS = 12  # last steps where pixels are clipped: amplitudes beyond them grow slowly
# Shares of the tails that are tried when the probe is settled, steps of the atoms after each, and
# later tries with the probe's own steps.
_TAILS, _STEPS, _TRIES = (0.0, 0.5), 4, 4
_SIGMA_RANGE_A = (0.2, 0.9)  # sharpest and widest probe (sigma) in units of graphene's pattern, Å


def fit_probe_and_noise(
    data: Image,
    start: FloatArray,
    outside: NDArray[np.bool_],
    px: float,
    options: RefineOptions,
    *,
    pixels: UsedPixels | None = None,
    whole: bool = True,
    settle: bool = False,
) -> Fit:
    """Fit the probe and the noise together with the atoms of a part of the frame.

    Parameters
    ----------
    data
        The part, shape (row, col), intensity.
    start
        Positions that the networks gave, shape (atom, 2), pixels of the part.
    outside
        Shape (atom,): True for guessed atoms outside the frame.
    px
        Pixel size, Å.
    options
        See `RefineOptions`.
    pixels
        Which pixels are used; by default all.
    whole
        True if the part is the whole frame. If not, the atoms are refined again later, and here
        only as precisely as the probe and the noise need.
    settle
        Search on for a probe that explains the image better, see `settle_probe`.

    Returns
    -------
    The fit; `Fit.optics` gives probe and noise.
    """
    sigma2 = (START_SIGMA_A / px) ** 2
    optics = Optics(
        Probe(np.array([sigma2, 0.0, sigma2]), np.array([0.1, 0.0])),
        Noise(max(float((pixels or UsedPixels()).of(data).var()), 1e-12), 0.0, 1.0, 1e-12), px,
    )  # fmt: skip
    fit = Fit(data, start, outside, optics, options, pixels)
    for iteration in range(options.probe_iterations):
        fit.step(frozen=iteration < 2)
        if iteration >= 1:
            fit.set_probe(_fit_probe(fit))
        fit.measure_noise()
    if settle:
        settle_probe(fit)
        fit.measure_noise()
    fit.fit_line_shifts()
    if not whole and fit.jitter == 0:
        fit.take_steps(1)
        fit.measure_noise()
        return fit
    fit.take_steps(2)
    fit.measure_noise()
    fit.fit_line_shifts()
    fit.take_steps(2 if fit.pixels.clipped is None else _CLIPPED_STEPS)
    fit.measure_noise()
    return fit


def settle_probe(fit: Fit) -> None:
    """Take the probe that explains the image best: with fewer tails, or further along its steps.

    Tails of the probe, dim columns between bright ones and the background can stand in for each
    other. The steps of `fit_probe_and_noise` change one after the other and may end where tails
    stand for columns. Here the atoms follow each change of the probe before it is judged.

    Parameters
    ----------
    fit
        Result of `fit_probe_and_noise`; it is changed.
    """
    fit.take_steps(_STEPS)
    best, state = fit.objective(), fit.state()

    def judge(probe: Probe) -> bool:
        nonlocal best, state
        fit.set_probe(probe)
        fit.take_steps(_STEPS)
        if fit.objective() < best:
            best, state = fit.objective(), fit.state()
            return True
        fit.set_state(state)
        return False

    first = fit.probe
    for share in _TAILS:
        judge(first.with_tails(share * first.tails))
    length = 1.0
    for _ in range(_TRIES):
        step, own = _fit_probe(fit), fit.probe
        covariance = own.covariance + length * (step.covariance - own.covariance)
        if not judge(Probe(covariance, own.tails + length * (step.tails - own.tails))):
            length /= 3.0


def _fit_probe(fit: Fit) -> Probe:
    """One Gauss-Newton step of the probe shape, one common amplitude factor and one offset."""
    grid, probe = fit.grid, fit.probe
    spectrum = fit.spectrum()
    base = np.concatenate([probe.covariance, probe.tails])
    sigma2 = probe.sigma() ** 2
    columns = [
        grid.image(spectrum, grid.divide_by_spline(slope))
        for slope in probe.transfer_derivatives(grid.kr, grid.kc)
    ]
    core = grid.image(spectrum, grid.kernel(probe))
    model = core + fit.background.image(fit.coefficients)
    columns += [core, np.ones_like(core)]
    weight = fit.pixels.weight(fit.data, model, fit.noise)
    residual = fit.pixels.residual(fit.data, model, fit.noise)
    known = fit.pixels.information_weight(weight, fit.data, model, fit.noise)
    j = np.stack([c.ravel() for c in columns]).astype(np.float64)
    normal = (j * known.ravel()) @ j.T
    prior = np.zeros(7)
    prior[3:5] = 1.0 / 0.3**2
    right = j @ (weight * residual).ravel().astype(np.float64)
    right[3:5] -= prior[3:5] * (probe.tails - np.array([0.1, 0.0]))
    normal += np.diag(prior + 1e-6 * np.diag(normal))
    change = np.linalg.solve(normal, right)[:5]
    change[:3] = np.clip(change[:3], -0.25 * sigma2, 0.25 * sigma2)
    change[3:] = np.clip(change[3:], -0.1, 0.1)
    moved = base + change
    return bounded_probe(moved, fit.px) if np.isfinite(moved).all() else probe


def bounded_probe(values: FloatArray, px: float) -> Probe:
    """Limit widths and tails of the probe to what microscopes reach.

    Parameters
    ----------
    values
        Covariance (rows, mixed, columns), pixels², and the two tails, shape (5,).
    px
        Pixel size, Å.
    """
    rr, rc, cc = values[:3]
    low, high = np.linalg.eigh(np.array([[rr, rc], [rc, cc]]))
    widths = np.clip(low, (_SIGMA_RANGE_A[0] / px) ** 2, (_SIGMA_RANGE_A[1] / px) ** 2)
    matrix = (high * widths) @ high.T
    tails = np.clip(values[3:], [-0.2, -0.1], [0.6, 0.3])
    return Probe(np.array([matrix[0, 0], matrix[0, 1], matrix[1, 1]]), tails)
