"""What noise hides of a reward, and what a tuned denoiser has to learn, by noise level: pure functions.

Variance: of a reward given a state ``x_t``, by continuing it several times with a stochastic sampler. Bias: by how much
a denoiser differs from what can be said of noise without any picture.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from atelier.data.checks import FloatArray, check_finite, number_row, real_array
from atelier.evaluation.intervals import Interval, t_interval


def variance_given(rewards: Any) -> FloatArray:
    """``Var(r | x_t)`` of each state, (n,), unbiased; ``rewards`` (n, each) of its independent continuations."""
    table = real_array(rewards, "rewards", "(states, continuations)").astype(np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"rewards: expected (states, continuations), at least two of each, got {table.shape}")
    check_finite(table, "rewards")
    return np.asarray(table.var(axis=1, ddof=1))


class Variance(NamedTuple):
    """The mean over states of the variance that is left, with its t interval, and the share explained."""

    left: Interval
    explained: float


def variance_of(rewards: Any, total: Any) -> Variance:
    """``E[Var(r | x_t)]`` over states, and ``1 - E[Var(r | x_t)] / E[Var(r)]`` (law of total variance).

    ``rewards`` (n, each); ``total`` (n,): the variance of the reward of each state's prompt. NaN where that is 0.
    """
    left, whole = variance_given(rewards), number_row(total, "total")
    if whole.shape != left.shape:
        raise ValueError(f"total: expected one a state, {len(left)}, got {len(whole)}")
    mean = float(whole.mean())
    return Variance(t_interval(left.tolist()), 1 - float(left.mean()) / mean if mean > 0 else float("nan"))


def rank_with(times: Any, values: Any) -> float:
    """Spearman's correlation of values with times; 0 where all values are equal, as nothing rises then."""
    x, y = number_row(times, "times"), number_row(values, "values")
    if np.ptp(y) == 0:
        return 0.0
    return float(stats.spearmanr(x, y).statistic)


# ------------------------------------------------------------------------------------------------ learning


def noise_only_error(xt: FloatArray, eps: FloatArray) -> float:
    """Mean squared error, an element, of the best multiple of ``x_t`` as a guess of the noise in it.

    ``min over c of E|eps - c x_t|^2 = E eps^2 - (E[eps x_t])^2 / E x_t^2``: the predictor that knows the noise level
    and neither picture nor prompt. Were data normal with one variance it would be the best there is.
    """
    x, noise = np.asarray(xt, np.float64).ravel(), np.asarray(eps, np.float64).ravel()
    return float((noise @ noise - (noise @ x) ** 2 / (x @ x)) / len(x))


def relative_gap(error: float, noise_only: float, s: float) -> float:
    """``(e_noise - e) / s_t^2``: how far the score to be learnt is from the noise-only predictor's, squared.

    A denoiser's error is ``e = e_noise - E|eps_theta - c x_t|^2`` at its optimum, and a score is ``-eps / s_t``. It
    falls to 0 as noised data become normal: near noise there is little left to learn. The ratio ``e / e_noise`` would
    not do: it is 1 at both ends, since where nothing is noised nothing can be said of the noise.
    """
    return (noise_only - error) / s**2


def log_slope(times: Any, gaps: Any) -> float:
    """Slope of log10 of gaps over times by least squares; gaps that are not above 0 are left out.

    0 where fewer than two are left: then the denoiser is nowhere better than the noise-only predictor.
    """
    x, y = number_row(times, "times"), number_row(gaps, "gaps")
    fine = y > 0
    return slope(x[fine], np.log10(y[fine])) if fine.sum() > 1 else 0.0


def slope(times: Any, values: Any) -> float:
    """Slope of values over times by least squares."""
    x, y = number_row(times, "times"), number_row(values, "values")
    centred = x - x.mean()
    return float((centred @ y) / (centred @ centred))
