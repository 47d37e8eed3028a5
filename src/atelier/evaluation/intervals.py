"""Intervals over groups: Student's t, Wilson's for a share, and pseudo-values of measures of whole sets.

A study's repeats are groups of pictures, each with its own noise and prompts and, where a model is trained, its own
training seed. ``pseudo_values`` splits a measure of all pictures into one value per group. Functions raise ValueError
for values and levels out of range, TypeError for what is no number.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from atelier.data.checks import FloatArray, check_number, check_whole, number_row


class Interval(NamedTuple):
    """A mean and its interval over ``n`` repeats."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean of independent repeats (Student 1908); ValueError for fewer than two, or NaN."""
    x, level = number_row(values, "values"), _checked_level(level)
    if len(x) < 2:
        raise ValueError(f"values: an interval needs at least two repeats, got {x.size}")
    if not np.isfinite(x).all():
        raise ValueError("values: an interval needs finite values, got NaN or infinity")
    half = float(stats.t.ppf(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5)
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, len(x))


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """A share and its score interval (Wilson 1927, eq. 4), accurate for small n and shares near 0 or 1.

    Raises ValueError for n < 1, successes outside [0, n], and a level outside (0, 1).
    """
    successes, n = check_whole(successes, "successes", least=None), check_whole(n, "n", least=None)
    level = _checked_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes, n: a share needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
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
    if check_whole(groups, "groups", least=0) < 2:
        raise ValueError(f"groups: pseudo-values need at least two groups, got {groups}")
    every = list(range(groups))
    without = np.array([measure([group for group in every if group != left_out]) for left_out in every])
    return groups * measure(every) - (groups - 1) * without


def _checked_level(level: float) -> float:
    """A level of confidence, between 0 and 1."""
    return check_number(level, "level", least=0, most=1, open_ends=True)
