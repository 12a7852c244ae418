"""What is known of the rate of an exchange: a gamma distribution that every dwell updates."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scipy.special import gammaincinv


@dataclass(frozen=True, slots=True)
class RateBelief:
    """Gamma distribution of the true peak rate over that of the prior's model.

    Hops under a beam are a Poisson process. The exposure of a dwell is the number of hops that the
    prior's model expects of it. After an exposure with ``n`` hops, a gamma distribution with shape
    ``a`` and weight ``b`` becomes one with ``a + n`` and ``b + exposure`` (Gelman et al., Bayesian
    Data Analysis, 3rd ed., section 2.6).

    Parameters
    ----------
    shape
        The default prior has a factor of three between its quantiles of 16 and 84 %, about.
    weight
        By default as large as the shape: the mean is 1.

    Examples
    --------
    >>> belief = RateBelief()
    >>> belief.mean, round(belief.after(exposure=10.0, hops=3).mean, 3)
    (1.0, 0.417)
    """

    shape: float = 2.0
    weight: float = 2.0

    @property
    def mean(self) -> float:
        """Expected ratio."""
        return self.shape / self.weight

    def quantile(self, share: float) -> float:
        """Ratio below which this share of the distribution lies."""
        return float(gammaincinv(self.shape, share)) / self.weight

    def after(self, exposure: float, hops: int) -> RateBelief:
        """Update it by one dwell.

        Parameters
        ----------
        exposure
            Number of hops that the prior's model expects.
        hops
            Number of hops that came.
        """
        return replace(self, shape=self.shape + hops, weight=self.weight + exposure)

    def p_hop(self, exposure: float) -> float:
        """Probability of at least one hop in an exposure, averaged over what is not known."""
        return float(1.0 - (self.weight / (self.weight + exposure)) ** self.shape)
