"""How far noise is from N(0, I): tests of mean, covariance, length and, direction by direction, normality.

Noise is (n, c, h, w), finite floats; independent samples are assumed. Directions are the channels' two-dimensional
cosine waves (orthonormal DCT-II): under N(0, I) they are independent and each N(0, 1). Tests are in float64.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.fft import dctn
from torch import Tensor

from atelier.data.checks import FloatArray, check_finite_tensor, check_tensor

FEWEST = 4  # samples


class Test(NamedTuple):
    """A statistic and the probability of one as large under N(0, I)."""

    statistic: float
    p: float


def directions(noise: Tensor) -> FloatArray:
    """Coefficients (n, c h w) of orthonormal cosine waves, channel by channel, row frequency by column frequency."""
    check_tensor(noise, "noise", "(n, c, h, w)")
    check_finite_tensor(noise, "noise")
    if len(noise) < FEWEST:
        raise ValueError(f"noise: expected at least {FEWEST} samples, got {len(noise)}")
    waves: FloatArray = dctn(noise.double().cpu().numpy(), axes=(2, 3), norm="ortho").reshape(len(noise), -1)
    return waves


def mean_test(rows: FloatArray) -> Test:
    """``n |mean|^2`` of rows (n, d), chi-square with d degrees of freedom where they are N(0, I)."""
    statistic = len(rows) * float((rows.mean(0) ** 2).sum())
    return Test(statistic, float(stats.chi2.sf(statistic, rows.shape[1])))


def covariance_test(rows: FloatArray) -> Test:
    """Whether the covariance of rows (n, d) is the identity, whatever the mean; also for d above n.

    Ledoit and Wolf 2002, proposition 7: ``W = tr((S - I)^2) / d - (d / m) (tr S / d)^2 + d / m`` with m = n - 1 degrees
    of freedom; ``m d W / 2`` is chi-square with d (d + 1) / 2 where it is.
    """
    m, d = len(rows) - 1, rows.shape[1]
    centred = rows - rows.mean(0)
    trace = float((centred**2).sum()) / m
    small = centred @ centred.T if m < d else centred.T @ centred  # the same sum of squares
    squares = float((small**2).sum()) / m**2
    w = (squares - 2 * trace + d) / d - d / m * (trace / d) ** 2 + d / m
    return Test(w, float(stats.chi2.sf(m * d * w / 2, d * (d + 1) / 2)))


def length_test(rows: FloatArray) -> Test:
    """Kolmogorov and Smirnov's distance of ``|row|^2`` (n,) from chi-square with d degrees of freedom."""
    result = stats.kstest((rows**2).sum(1), stats.chi2(rows.shape[1]).cdf)
    return Test(float(result.statistic), float(result.pvalue))


def by_direction(rows: FloatArray) -> pd.DataFrame:
    """A line for each column of rows (n, d): mean, variance, and p of mean 0, of variance 1 and of normality.

    Normality whatever mean and variance: Shapiro and Wilk 1965. The variance is around 0, the mean's p two-sided, the
    variance's twice the smaller tail.
    """
    n = len(rows)
    mean, variance = rows.mean(0), (rows**2).mean(0)
    below = stats.chi2.cdf(n * variance, n)
    return pd.DataFrame(
        {
            "mean": mean,
            "variance": variance,
            "p_mean": 2 * stats.norm.sf(np.abs(mean) * n**0.5),
            "p_variance": 2 * np.minimum(below, stats.chi2.sf(n * variance, n)),
            "p_normal": [float(stats.shapiro(column).pvalue) for column in rows.T],
        }
    )


def of_all(p: NDArray[np.float64]) -> float:
    """The p of the smallest of independent ones: ``1 - (1 - min p)^d`` (Sidak 1967)."""
    return float(-np.expm1(len(p) * np.log1p(-min(float(np.min(p)), 1 - 1e-16))))


def distance(rows: FloatArray, others: FloatArray) -> float:
    """Mean over directions of the squared Wasserstein distance of two normal laws with the columns' moments."""
    apart = (rows.mean(0) - others.mean(0)) ** 2 + (rows.std(0) - others.std(0)) ** 2
    return float(apart.mean())
