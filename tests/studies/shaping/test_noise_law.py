"""Tests of noise against N(0, I): uniform p where it is, small p where it is not, and formulas by other means."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from atelier.studies.shaping import noise_law
from tolerance import assert_close


def white(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_directions_are_orthonormal_waves() -> None:
    noise = white(5, 2, 4, 4)
    waves = noise_law.directions(noise)
    assert waves.shape == (5, 32)
    assert_close((waves**2).sum(1), noise.flatten(1).square().sum(1).numpy(), relative=1e-12)
    constant = noise_law.directions(torch.ones(5, 2, 4, 4))
    assert_close(constant[0, [0, 16]], np.array([4.0, 4.0]), relative=1e-12)
    assert np.abs(np.delete(constant[0], [0, 16])).max() < 1e-12


@pytest.mark.parametrize("n", [12, 80])
def test_p_values_are_uniform_where_noise_is_white(n: int) -> None:
    """400 sets of 32 directions, fewer and more samples than these; Kolmogorov and Smirnov at 0.001."""
    sets = [np.random.default_rng(seed).standard_normal((n, 32)) for seed in range(400)]
    for test in (noise_law.mean_test, noise_law.covariance_test, noise_law.length_test):
        assert stats.kstest([test(rows).p for rows in sets], "uniform").pvalue > 0.001, test.__name__
    every = noise_law.by_direction(np.concatenate([rows[:, :4] for rows in sets[:10]], axis=1))
    for name in ("p_mean", "p_variance", "p_normal"):
        assert stats.kstest(every[name], "uniform").pvalue > 0.001, name


@pytest.mark.parametrize(("n", "d"), [(9, 20), (50, 6)])
def test_the_statistic_of_the_covariance_is_the_papers(n: int, d: int) -> None:
    rows = np.random.default_rng(3).standard_normal((n, d)) * 1.3 + 0.4
    s, m = np.cov(rows.T), n - 1
    w = np.trace((s - np.eye(d)) @ (s - np.eye(d))) / d - d / m * (np.trace(s) / d) ** 2 + d / m
    found = noise_law.covariance_test(rows)
    assert found.statistic == pytest.approx(w, rel=1e-10)
    assert found.p == pytest.approx(stats.chi2.sf(m * d * w / 2, d * (d + 1) / 2), rel=1e-8)


def test_each_test_finds_what_it_is_for() -> None:
    """Planted: a shift, a spread, a correlation, and uniform noise of unit variance in one direction."""
    plain = np.random.default_rng(5).standard_normal((200, 16))
    shifted, spread, turned, flat = (plain.copy() for _ in range(4))
    shifted[:, 3] += 0.5
    spread[:, 3] *= 1.6
    turned[:, 4] = 0.7 * plain[:, 3] + 0.51**0.5 * plain[:, 4]
    flat[:, 3] = np.random.default_rng(6).uniform(-(3**0.5), 3**0.5, 200)
    assert noise_law.mean_test(shifted).p < 1e-4 < noise_law.mean_test(spread).p
    assert noise_law.covariance_test(spread).p < 1e-4 < noise_law.covariance_test(shifted).p
    assert noise_law.covariance_test(turned).p < 1e-4
    assert noise_law.length_test(plain * 1.1).p < 1e-4 < noise_law.length_test(plain).p
    tables = {name: noise_law.by_direction(rows) for name, rows in (("m", shifted), ("v", spread), ("n", flat))}
    assert tables["m"]["p_mean"].idxmin() == 3
    assert tables["v"]["p_variance"].idxmin() == 3
    assert tables["n"]["p_normal"].idxmin() == 3
    assert noise_law.of_all(tables["n"]["p_normal"].to_numpy()) < 0.01
    assert noise_law.of_all(noise_law.by_direction(plain)["p_normal"].to_numpy()) > 0.01


def test_the_p_of_many_is_sidaks() -> None:
    assert noise_law.of_all(np.array([0.3, 0.01, 0.5])) == pytest.approx(1 - 0.99**3, rel=1e-12)
    assert noise_law.of_all(np.array([1e-300, 1.0])) == pytest.approx(2e-300, rel=1e-6)
    assert noise_law.of_all(np.ones(3)) == pytest.approx(1.0)


def test_the_distance_is_that_of_normal_laws() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 3))
    assert noise_law.distance(rows, rows) == 0
    others = (rows - rows.mean(0)) * 2 + rows.mean(0) + 0.5
    assert noise_law.distance(others, rows) == pytest.approx(0.25 + float(rows.var(0).mean()), rel=1e-12)


@pytest.mark.parametrize("bad", [torch.ones(3, 1, 2, 2), torch.ones(5, 4), torch.full((5, 1, 2, 2), torch.nan)])
def test_what_is_no_noise_is_refused(bad: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^noise: "):
        noise_law.directions(bad)
