"""The autoencoder of patches tells what they show from how they lie."""

import numpy as np
import pytest

from adatom.errors import BadInput
from adatom.learning.patch_codes import CodeOptions, encode_patches

PIXELS = 14


def test_two_kinds_of_spots_are_told_apart_in_any_direction() -> None:
    rng = np.random.default_rng(0)
    kind, angle = rng.integers(0, 2, 200), rng.uniform(0.0, 2.0 * np.pi, 200)
    axis = np.linspace(-1.0, 1.0, PIXELS)
    x, y = np.meshgrid(axis, axis)

    def drawn(spots: int, turned: float) -> np.ndarray:  # type: ignore[type-arg]
        ways = turned + 2.0 * np.pi * np.arange(spots) / spots
        heights = np.append(1.6, np.ones(spots - 1))
        squared = (x - 0.5 * np.cos(ways)[:, None, None]) ** 2 + (
            y - 0.5 * np.sin(ways)[:, None, None]
        ) ** 2
        return np.asarray((heights[:, None, None] * np.exp(-squared / (2 * 0.2**2))).sum(axis=0))

    patches = np.stack([drawn(2 + k, a) for k, a in zip(kind, angle, strict=True)])
    codes = encode_patches(
        patches + rng.normal(0.0, 0.05, patches.shape), CodeOptions(epochs=40, hidden=48)
    )
    centres = np.stack([codes.latent[kind == k].mean(axis=0) for k in (0, 1)])
    nearest = np.linalg.norm(codes.latent[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == kind).mean() > 0.97
    for k in (0, 1):
        off = np.exp(1j * (codes.angle - angle)[kind == k])
        assert abs(off.mean()) > 0.9  # the angle follows the true one
    assert codes.loss[-1] < codes.loss[0]


def test_patches_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BadInput, match="not finite"):
        encode_patches(np.full((20, 8, 8), np.nan))
