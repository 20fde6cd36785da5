"""A sample of scores in a few numbers: mean, standard deviation, bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Summary:
    """A sample of scores in a few numbers.

    Attributes:
        n: number of scores.
        mean: of the scores.
        std: standard deviation of the sample itself (ddof 0, as the paper's).
        low: lower end of the bootstrap 95% interval of the mean.
        high: upper end of that interval.
        min: lowest score.
        median: of the scores.
        max: highest score.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float
    min: float
    median: float
    max: float

    def __str__(self) -> str:
        return f"{self.mean:.0f} +- {self.std:.0f} [{self.low:.0f}, {self.high:.0f}]"


def summary(scores: npt.ArrayLike, resamples: int = 10_000) -> Summary:
    """Return the summary of scores (n,); the interval is a percentile bootstrap, seed 0.

    Raises:
        ValueError: no scores, or one that is not finite.
    """
    x = np.asarray(scores, dtype=np.float64)
    if x.ndim != 1 or not x.size:
        raise ValueError(f"scores: expected at least one, shape (n,), got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("scores: expected finite numbers, got NaN or infinity")
    low, high = np.percentile(bootstrap_means(x, resamples), (2.5, 97.5))
    return Summary(
        n=x.size,
        mean=float(x.mean()),
        std=float(x.std()),
        low=float(low),
        high=float(high),
        min=float(x.min()),
        median=float(np.median(x)),
        max=float(x.max()),
    )


def bootstrap_means(
    x: npt.NDArray[np.float64], resamples: int, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return the means (resamples,) of samples of x (n,), drawn with replacement."""
    rng = np.random.default_rng(seed)
    return np.array([x[rng.integers(x.size, size=x.size)].mean() for _ in range(resamples)])
