"""Intervals over repeats cover the truth as often as they say."""

import numpy as np
import pytest
from scipy import stats

from atelier.evidence import t_interval, wilson_interval


@pytest.mark.parametrize("n", [3, 5, 20])
def test_interval_covers_the_mean_as_often_as_it_says(n: int) -> None:
    rng = np.random.default_rng(0)
    intervals = [t_interval(rng.normal(2.0, 3.0, n).tolist()) for _ in range(2000)]
    covered = np.mean([interval.low <= 2.0 <= interval.high for interval in intervals])
    # four standard errors of a 95 % share of 2,000
    assert abs(covered - 0.95) < 4 * (0.95 * 0.05 / 2000) ** 0.5


def test_interval_agrees_with_scipys_confidence_interval() -> None:
    values = [1.0, 2.5, 2.0, 7.0]
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    ours = t_interval(values, 0.9)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    assert (ours.mean, ours.n) == (3.125, 4)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")]])
def test_what_has_no_interval_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="interval needs"):
        t_interval(values)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (7, 10), (10, 10), (340, 400)])
def test_shares_agree_with_scipys_wilson_interval(successes: int, n: int) -> None:
    theirs = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    ours = wilson_interval(successes, n)
    assert (ours.mean, ours.n) == (successes / n, n)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0.0 <= ours.low <= ours.mean <= ours.high <= 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_what_is_no_share_is_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="a share needs"):
        wilson_interval(successes, n)
