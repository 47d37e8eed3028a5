"""Intervals over groups: Student's t, Wilson's for a share, and pseudo-values of measures of whole sets.

A study's repeats are groups of pictures, each with its own noise and prompts and, where a model is trained, its own
training seed. ``pseudo_values`` splits a measure of all pictures into one value per group.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and its interval over ``n`` repeats."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent repeats (Student 1908); ValueError for fewer than two, or NaN."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"an interval needs at least two repeats, got {x.size}")
    if not np.isfinite(x).all():
        raise ValueError("an interval needs finite values")
    half = float(stats.t.ppf(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5)
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, len(x))


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """A share and its score interval (Wilson 1927, eq. 4), accurate for small n and shares near 0 or 1.

    Raises ValueError for n < 1 or successes outside [0, n].
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a share needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    share, z = successes / n, float(stats.norm.ppf(0.5 + level / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    low, high = middle - half, middle + half  # exactly 0 or 1 where the share is, up to rounding
    return Interval(share, low if successes else 0.0, high if successes < n else 1.0, n)


def pseudo_values(measure: Callable[[list[int]], float], groups: int) -> FloatArray:
    """``G theta - (G - 1) theta_without_g`` (Tukey 1958), one per group, (groups,) float64.

    ``measure`` computes theta on the groups with the given indices. The pseudo-values' mean removes theta's bias of
    order 1/n (Quenouille 1956): a Frechet distance of few pictures is too high, and more so the wider their spread.
    Raises ValueError for fewer than two groups.
    """
    if groups < 2:
        raise ValueError(f"pseudo-values need at least two groups, got {groups}")
    every = list(range(groups))
    without = np.array([measure([group for group in every if group != left_out]) for left_out in every])
    return groups * measure(every) - (groups - 1) * without
