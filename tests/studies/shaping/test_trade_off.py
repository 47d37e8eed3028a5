"""Variance that a noised state leaves, and what there is to learn, of normal data in closed form."""

import numpy as np
import pytest
import torch

from atelier.diffusion import scaled_linear_betas, signal_and_noise
from atelier.studies.shaping.trade_off import (
    log_slope,
    noise_only_error,
    rank_with,
    relative_gap,
    slope,
    variance_given,
    variance_of,
)

ALPHAS, SIGMAS = (each.numpy() for each in signal_and_noise(scaled_linear_betas(0.00085, 0.012)))
TIMES = np.arange(25, 1000, 50)


def continuations(t: int, n: int, each: int, generator: np.random.Generator) -> tuple[np.ndarray, float]:
    """Rewards r = x_0 of data N(0, 4) given x_t, and their variance in closed form: 4 s^2 / (4 alpha^2 + s^2)."""
    alpha, s = ALPHAS[t], SIGMAS[t]
    left = 4 * s**2 / (4 * alpha**2 + s**2)
    xt = generator.normal(0, np.sqrt(4 * alpha**2 + s**2), (n, 1))
    return generator.normal(4 * alpha * xt / (4 * alpha**2 + s**2), np.sqrt(left), (n, each)), float(left)


def test_the_variance_left_is_that_of_the_posterior() -> None:
    generator, found = np.random.default_rng(1), []
    for t in TIMES:
        rewards, left = continuations(int(t), 3000, 4, generator)
        found.append(variance_of(rewards, np.full(3000, 4.0)))
        assert found[-1].left.mean == pytest.approx(left, rel=0.05)
        assert found[-1].explained == pytest.approx(1 - left / 4, abs=0.05)
    inside = [each.left.low < continuations(int(t), 1, 2, generator)[1] < each.left.high
              for t, each in zip(TIMES, found, strict=True)]  # fmt: skip
    assert np.mean(inside) >= 0.8
    assert rank_with(TIMES, [each.left.mean for each in found]) > 0.98


def test_intervals_hold_what_they_say() -> None:
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        rewards, left = continuations(400, 12, 8, generator)
        interval = variance_of(rewards, np.full(12, 4.0)).left
        held += interval.low < left < interval.high
    assert 0.88 < held / 300 < 0.98


def test_variance_is_unbiased_with_two_continuations() -> None:
    rewards = np.random.default_rng(3).normal(0, 3, (40_000, 2))
    assert variance_given(rewards).mean() == pytest.approx(9, rel=0.03)
    with pytest.raises(ValueError, match="at least two"):
        variance_given(rewards[:, :1])
    with pytest.raises(ValueError, match="one a state"):
        variance_of(rewards, [1.0])


def test_without_any_variance_nothing_is_explained() -> None:
    assert np.isnan(variance_of(np.ones((3, 4)), np.zeros(3)).explained)
    assert rank_with([1, 2, 3], [5.0, 5.0, 5.0]) == 0
    assert rank_with([1, 2, 3], [5.0, 4.0, 3.0]) == pytest.approx(-1)


def test_of_normal_data_nothing_beats_the_noise_only_predictor() -> None:
    generator = torch.Generator().manual_seed(4)
    z0 = 0.7 * torch.randn(100_000, generator=generator).numpy()
    eps = torch.randn(100_000, generator=generator).numpy()
    for t in (100, 500, 900):
        xt = ALPHAS[t] * z0 + SIGMAS[t] * eps
        variance = 0.49 * ALPHAS[t] ** 2 + SIGMAS[t] ** 2
        best = float(((SIGMAS[t] * xt / variance - eps) ** 2).mean())
        assert noise_only_error(xt, eps) == pytest.approx(best, rel=1e-3)
        assert noise_only_error(xt, eps) == pytest.approx(0.49 * ALPHAS[t] ** 2 / variance, rel=0.02)
        assert abs(relative_gap(best, noise_only_error(xt, eps), SIGMAS[t])) < 1e-3


def test_of_two_points_there_is_less_to_learn_the_more_noise() -> None:
    """Data at -1 and 1: the optimum is eps = (x_t - alpha tanh(alpha x_t / s^2)) / s, and its gap falls."""
    generator = np.random.default_rng(5)
    z0, eps = generator.choice([-1.0, 1.0], 200_000), generator.normal(size=200_000)
    gaps, ratios = [], []
    for t in TIMES:
        xt = ALPHAS[t] * z0 + SIGMAS[t] * eps
        guess = (xt - ALPHAS[t] * np.tanh(ALPHAS[t] * xt / SIGMAS[t] ** 2)) / SIGMAS[t]
        error, noise_only = float(((guess - eps) ** 2).mean()), noise_only_error(xt, eps)
        gaps.append(relative_gap(error, noise_only, SIGMAS[t]))
        ratios.append(error / noise_only)
    assert (np.diff(gaps[:-3]) < 0).all()
    assert log_slope(TIMES / 1000, gaps) < -1
    assert not (np.diff(ratios) < 0).all()  # the ratio of errors rises again


def test_slopes() -> None:
    assert slope([0, 1, 2], [1, 3, 5]) == pytest.approx(2)
    assert log_slope([0, 0.5, 1], [100, 10, 1]) == pytest.approx(-2)
    assert log_slope([0, 0.5, 1], [100, -1, 1]) == pytest.approx(-2)
    assert log_slope([0, 0.5, 1], [-100, -1, 1]) == 0
