"""Groups of like vectors: principal components and a mixture whose size the data choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from adatom.core.arrays import FloatArray, IntArray
from adatom.errors import BadInput

if TYPE_CHECKING:
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

_SAMPLE = 10_000  # vectors by which the number of groups is chosen
_FLOOR = 1e-3  # least variance along any direction, in units of the largest
_LEAST_NOISE = 1e-2  # of a feature's spread; else what is known exactly would decide alone
_DRAWS = 20_000  # draws from the mixture, for the chance of an odder vector


class GroupOptions(BaseModel):
    """How vectors are grouped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: int | None = Field(
        None, ge=1, description="number of groups; by default the data choose"
    )
    most: int = Field(12, ge=1, description="largest number of groups that is tried")
    components: int = Field(8, ge=1, description="largest number of principal components")
    variance: float = Field(
        0.99, gt=0, le=1, description="share of the variance that the components must hold"
    )
    seed: int = Field(0, ge=0, description="seed of the mixtures' starts")


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """A mixture of Gaussians over the principal components of vectors.

    Parameters
    ----------
    scale
        What a feature is divided by, shape (feature,).
    components
        The principal components of the divided features.
    mixture
        The mixture, groups in the order of their sizes, largest first.
    criterion
        Criterion by which the number of groups was chosen, the least is best, of each number that
        was tried.
    """

    scale: FloatArray
    components: PCA
    mixture: GaussianMixture
    criterion: tuple[float, ...]

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.mixture.weights_)

    def scores(self, vectors: FloatArray) -> FloatArray:
        """Principal components of vectors (atom, feature), shape (atom, component)."""
        flat = np.asarray(vectors, dtype=np.float64).reshape(len(vectors), -1) / self.scale
        return np.asarray(self.components.transform(flat), dtype=np.float64)

    def p(self, vectors: FloatArray) -> FloatArray:
        """Probability that each vector belongs to each group, shape (atom, group)."""
        return np.asarray(self.mixture.predict_proba(self.scores(vectors)), dtype=np.float64)

    def labels(self, vectors: FloatArray) -> IntArray:
        """Most probable group of each vector, shape (atom,)."""
        return np.asarray(self.mixture.predict(self.scores(vectors)), dtype=np.int64)

    def p_odder(self, vectors: FloatArray) -> FloatArray:
        """Chance that a vector drawn from the mixture is at least as odd, shape (atom,).

        Odd is what has a low density. Small values are new: no group has vectors like these. It is
        measured by draws, so no value is below 1 in 20,000.
        """
        drawn, _ = self.mixture.sample(_DRAWS)
        usual = np.sort(self.mixture.score_samples(drawn))
        own = self.mixture.score_samples(self.scores(vectors))
        below = np.searchsorted(usual, own, side="right")
        out: FloatArray = (below + 1.0) / (_DRAWS + 1.0)
        return out


def fit_groups(
    vectors: FloatArray, options: GroupOptions | None = None, *, noise: FloatArray | None = None
) -> Groups:
    """Group like vectors.

    The principal components that hold most of the variance are modelled by a mixture of Gaussians.
    The number of groups is the one of least integrated completed likelihood (Biernacki, Celeux &
    Govaert, IEEE Trans. Pattern Anal. Mach. Intell. 22, 719 (2000)): the Bayesian information
    criterion plus twice the entropy of the memberships, so that one group whose shape is no
    Gaussian is not cut into several that overlap.

    Parameters
    ----------
    vectors
        Shape (atom, feature): `Environments.vectors`, flattened patches, codes of a network.
    options
        See `GroupOptions`.
    noise
        Standard deviation of every feature by noise alone, shape (feature,), such as
        `Environments.noise`: features are divided by it, so that differences beyond the noise
        count alike. By default all features have the same unit.

    Returns
    -------
    The groups; `Groups.labels` and others apply them to these or other vectors.

    Raises
    ------
    BadInput
        If vectors are not finite, or fewer than groups.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = np.concatenate([rng.normal(0, 0.1, (90, 5)), rng.normal(1, 0.1, (40, 5))])
    >>> found = fit_groups(vectors)
    >>> found.count, np.bincount(found.labels(vectors)).tolist()
    (2, [90, 40])
    """
    from sklearn.decomposition import PCA

    options = options or GroupOptions()
    vectors = _checked(vectors, options)
    scale = _scale(vectors, noise)
    vectors = vectors / scale
    full = PCA(svd_solver="full" if len(vectors) < vectors.shape[1] else "covariance_eigh")
    full.fit(vectors)
    held = np.cumsum(full.explained_variance_ratio_)
    enough = 1 + int(np.searchsorted(held, options.variance - 1e-12))
    number = max(min(enough, options.components, len(held)), 1)
    components = PCA(number, svd_solver=full.svd_solver).fit(vectors)
    scores = components.transform(vectors)
    mixture, criterion = _mixture(np.asarray(scores), options)
    return Groups(scale, components, mixture, criterion)


def _checked(vectors: FloatArray, options: GroupOptions) -> FloatArray:
    vectors = np.asarray(vectors, dtype=np.float64)
    vectors = vectors.reshape(len(vectors), -1)
    least = max(options.groups or 1, 2)
    if len(vectors) < least or not np.isfinite(vectors).all():
        finite = int(np.isfinite(vectors).all(axis=1).sum())
        raise BadInput(
            "vectors",
            expected=f"at least {least}, all finite",
            got=f"{finite} finite ones of {len(vectors)}",
            todo="Leave out atoms whose patch crosses the border, or ask for fewer groups.",
        )
    return vectors


def _scale(vectors: FloatArray, noise: FloatArray | None) -> FloatArray:
    """What features are divided by; features without noise count as if they had little."""
    if noise is None:
        return np.ones(vectors.shape[1])
    spread = vectors.std(axis=0)
    out: FloatArray = np.maximum(noise, _LEAST_NOISE * spread)
    out[out <= 0.0] = 1.0
    return out


def _mixture(
    scores: FloatArray, options: GroupOptions
) -> tuple[GaussianMixture, tuple[float, ...]]:
    """The best mixture, and the criterion of all that were tried."""
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(options.seed)
    some = scores
    if len(scores) > _SAMPLE:
        some = scores[rng.choice(len(scores), _SAMPLE, replace=False)]
    # Equal vectors would make a Gaussian of no width.
    floor = max(float(scores.var(axis=0).max()) * _FLOOR, 1e-12)
    numbers = (options.groups,) if options.groups else range(1, options.most + 1)
    tried: list[float] = []
    found: list[GaussianMixture] = []
    for number in numbers:
        if number > len(some):
            break
        fitted = GaussianMixture(
            number, reg_covar=floor, n_init=3, random_state=options.seed, max_iter=300
        ).fit(some)
        p = fitted.predict_proba(some)
        entropy = -float((p * np.log(np.maximum(p, 1e-300))).sum())
        tried.append(float(fitted.bic(some)) + 2.0 * entropy)
        found.append(fitted)
        if len(tried) > 3 and min(tried) < min(tried[-3:]):
            break  # three more groups did not help
    best = found[int(np.argmin(tried))]
    order = np.argsort(-best.weights_, kind="stable")
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        setattr(best, name, getattr(best, name)[order])
    return best, tuple(tried)
