"""Intervals cover the truth as often as they say, and verdicts are as rarely false: on simulated studies."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from atelier.evaluation.intervals import pseudo_values, t_interval, wilson_interval
from atelier.evidence import LEVEL, POWER, Rule, benjamini_hochberg, compare, detectable_difference, groups_needed, holm
from atelier.metrics import Moments, frechet_distance_from_moments

STUDIES = 2000  # simulated ones; of a share of 5 %, four standard errors are 1.9 %
GROUPS = 5


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


# ------------------------------------------------------------------------------------------------ pseudo-values


def test_pseudo_values_of_a_mean_are_the_groups_means() -> None:
    groups = np.random.default_rng(0).normal(size=(GROUPS, 20))
    values = pseudo_values(lambda some: float(groups[some].mean()), GROUPS)
    np.testing.assert_allclose(values, groups.mean(1), rtol=1e-12)


def test_pseudo_values_take_the_bias_of_order_one_over_n_away() -> None:
    # the textbook case: of the variance divided by n they make the one divided by n - 1, exactly
    values = np.random.default_rng(1).normal(size=7)
    unbiased = pseudo_values(lambda some: float(values[some].var()), 7).mean()
    assert unbiased == pytest.approx(values.var(ddof=1), rel=1e-12)


def test_one_group_has_no_pseudo_values() -> None:
    with pytest.raises(ValueError, match="at least two groups, got 1"):
        pseudo_values(lambda some: 0.0, 1)


@pytest.mark.parametrize(("d", "spread", "shift"), [(16, 0.9, 0.2), (64, 0.9, 0.2), (64, 1.0, 0.3)])
def test_intervals_of_frechet_differences_cover_the_truth(d: int, spread: float, shift: float) -> None:
    """Two arms of five groups of 100 Gaussian pictures each against one reference; the truth is known exactly.

    Differences of each group's own distance fail here: a narrower law looks closer at small n.
    """
    rng, studies, n = np.random.default_rng(2), 200, 100
    covered = {"pseudo-values": 0, "a group alone": 0}
    for _ in range(studies):
        real = rng.normal(size=(250, d))
        reference = Moments().update(real)
        arms = [
            [Moments().update(group) for group in arm]  # once, where each is in five distances
            for arm in (rng.normal(size=(GROUPS, n, d)) + 0.2, spread * rng.normal(size=(GROUPS, n, d)) + shift)
        ]

        def distance(groups: Sequence[Moments], reference: Moments = reference) -> float:
            merged = Moments()
            for group in groups:
                merged.merge(group)
            return frechet_distance_from_moments(reference, merged)

        def values(arm: Sequence[Moments], distance: Callable[[Sequence[Moments]], float] = distance) -> np.ndarray:
            return pseudo_values(lambda chosen: distance([arm[group] for group in chosen]), GROUPS)

        mean, covariance = real.mean(0), np.cov(real.T)
        roots = np.sqrt(np.linalg.eigvalsh(covariance)).sum()
        truth = [
            ((mean - middle) ** 2).sum() + np.trace(covariance) + d * scale**2 - 2 * scale * roots
            for middle, scale in ((0.2, 1.0), (shift, spread))
        ]
        alone = [distance([changed]) - distance([plain]) for plain, changed in zip(*arms, strict=True)]
        for name, differences in {"pseudo-values": values(arms[1]) - values(arms[0]), "a group alone": alone}.items():
            interval = t_interval(list(differences))
            covered[name] += interval.low <= truth[1] - truth[0] <= interval.high
    assert 0.90 <= covered["pseudo-values"] / studies <= 0.98
    if spread < 1.0 and d == 64:
        assert covered["a group alone"] / studies < 0.5


# ------------------------------------------------------------------------------------------------ tests


def verdicts(rng: np.random.Generator, truth: float, rule: Rule, margin: float = 0.0) -> tuple[float, float]:
    """Shares of simulated studies that call a difference supported, and reversed; scatter 1 a group."""
    found = [compare((truth + rng.normal(size=GROUPS)).tolist(), rule, margin) for _ in range(STUDIES)]
    return (
        float(np.mean([each.supported_p <= LEVEL for each in found])),
        float(np.mean([each.reversed_p <= LEVEL for each in found])),
    )


@pytest.mark.parametrize("rule", ["below", "above"])
def test_without_a_difference_a_direction_is_called_in_no_more_than_five_percent(rule: Rule) -> None:
    supported, reverse = verdicts(np.random.default_rng(3), 0.0, rule)
    assert supported + reverse <= 0.05 + 0.02
    assert supported + reverse >= 0.05 - 0.02  # and the tests are no blunter than they say


@pytest.mark.parametrize(("truth", "rule"), [(-1.0, "below"), (1.0, "above")])
def test_a_difference_as_small_as_the_margin_is_not_supported(truth: float, rule: Rule) -> None:
    assert verdicts(np.random.default_rng(4), truth, rule, 1.0)[0] <= 0.025 + 0.014


@pytest.mark.parametrize("truth", [-2.5, 2.5])
def test_a_difference_at_the_margin_is_the_same_in_no_more_than_five_percent(truth: float) -> None:
    supported, reverse = verdicts(np.random.default_rng(5), truth, "same", 2.5)
    assert supported <= 0.05 + 0.02
    assert reverse <= 0.05


def test_no_difference_within_a_wide_margin_is_the_same() -> None:
    assert verdicts(np.random.default_rng(6), 0.0, "same", 4.0)[0] > 0.9


def test_rules_agree_with_scipys_t_tests() -> None:
    values = [-1.2, -0.4, -2.0, -0.9, 0.1]
    below, same = compare(values, "below", 0.2), compare(values, "same", 1.5)
    assert below.supported_p == pytest.approx(stats.ttest_1samp(values, -0.2).pvalue, rel=1e-10)
    assert below.reversed_p == 1.0
    above = compare([-value for value in values], "above", 0.2)
    assert above[1:] == pytest.approx(below[1:])
    edges = [
        stats.ttest_1samp(values, edge, alternative=side).pvalue for edge, side in ((1.5, "less"), (-1.5, "greater"))
    ]
    assert same.supported_p == pytest.approx(max(edges), rel=1e-10)


def test_at_least_and_at_most_are_halves_of_the_same() -> None:
    values = [-1.2, -0.4, -2.0, -0.9, 0.1]
    least, most, same = (compare(values, rule, 1.5) for rule in ("at least", "at most", "same"))
    assert max(least.supported_p, most.supported_p) == same.supported_p
    assert min(least.reversed_p, most.reversed_p) == same.reversed_p
    assert least.supported_p == pytest.approx(stats.ttest_1samp(values, -1.5, alternative="greater").pvalue, rel=1e-10)
    mirrored = compare([-value for value in values], "at most", 1.5)
    assert mirrored[1:] == pytest.approx(least[1:])
    far = compare([-9.0, -8.0, -9.5], "at least", 1.5)  # by more than the margin: reversed
    assert far.reversed_p < 0.05 < far.supported_p


def test_same_is_supported_by_the_90_percent_interval_and_reversed_by_that_of_95() -> None:
    rng, inside, outside = np.random.default_rng(25), [], []
    for _ in range(300):
        values = (2 * rng.normal() + rng.normal(size=GROUPS)).tolist()
        compared, narrow = compare(values, "same", 1.5), t_interval(values, 0.9)
        inside.append(narrow.low > -1.5 and narrow.high < 1.5)
        outside.append(compared.interval.low > 1.5 or compared.interval.high < -1.5)
        assert (compared.supported_p <= LEVEL, compared.reversed_p <= LEVEL) == (inside[-1], outside[-1])
    assert min(sum(inside), sum(outside)) > 20


def test_at_least_is_falsely_supported_in_five_percent_at_its_margin() -> None:
    rng = np.random.default_rng(11)
    found = [compare((rng.normal(size=5) - 1.0).tolist(), "at least", 1.0) for _ in range(STUDIES)]
    assert abs(np.mean([each.supported_p <= LEVEL for each in found]) - 0.05) < 4 * (0.05 * 0.95 / STUDIES) ** 0.5
    assert abs(np.mean([each.reversed_p <= LEVEL for each in found]) - 0.025) < 4 * (0.05 / STUDIES) ** 0.5


@pytest.mark.parametrize("rule", ["below", "above"])
def test_an_effect_that_just_matters_is_not_overlooked(rule: Rule) -> None:
    """At the edge: an effect of just the least size is called not seen in 2.5 % of studies, as its test says."""
    rng, sign = np.random.default_rng(12), -1 if rule == "below" else 1
    edge = [compare((sign * 1.0 + rng.normal(size=GROUPS)).tolist(), rule, least=1.0) for _ in range(STUDIES)]
    assert abs(np.mean([each.not_seen_p <= LEVEL for each in edge]) - 0.025) < 4 * (0.025 / STUDIES) ** 0.5
    none = [compare(rng.normal(size=GROUPS).tolist(), rule, least=4.0) for _ in range(STUDIES)]
    assert np.mean([each.not_seen_p <= LEVEL for each in none]) > 0.9


@pytest.mark.parametrize("rule", ["below", "above"])
def test_not_seen_is_what_the_interval_says(rule: Rule) -> None:
    """The 95 % interval excludes the least effect."""
    rng, sign = np.random.default_rng(13), -1 if rule == "below" else 1
    for _ in range(200):
        values = (0.5 * sign + rng.normal(size=GROUPS)).tolist()
        compared = compare(values, rule, least=1.5)
        low, high = compared.interval.low, compared.interval.high
        assert (compared.not_seen_p <= LEVEL) == (low > -1.5 if rule == "below" else high < 1.5)


@pytest.mark.parametrize("rule", ["below", "above"])
def test_smaller_than_least_is_what_the_interval_says(rule: Rule) -> None:
    """The 95 % interval lies inside +-least, whichever way the effect goes."""
    rng, inside = np.random.default_rng(23), []
    for _ in range(200):
        compared = compare((rng.normal() + 0.5 * rng.normal(size=GROUPS)).tolist(), rule, least=1.5)
        inside.append(compared.interval.low > -1.5 and compared.interval.high < 1.5)
        assert (compared.smaller_p <= LEVEL) == inside[-1]
    assert 20 < sum(inside) < 180
    assert compare([0.1, 0.2, 0.15], rule).smaller_p == 1.0  # nothing is smaller than what was never said
    assert compare([0.1, 0.2, 0.15], "same", 1.0, least=3.0).smaller_p == 1.0


def test_what_a_margin_asks_for_is_not_seen_below_it() -> None:
    """D1: at least tenfold. An effect of a third of that, however certain, is not it."""
    compared = compare([0.31, 0.33, 0.32, 0.34], "above", 1.0)
    assert compared.supported_p == 1.0
    assert compared.not_seen_p < 0.001


def test_no_rule_of_equivalence_has_an_effect_that_is_not_seen() -> None:
    rules: tuple[Rule, ...] = ("same", "at least", "at most")
    assert {compare([0.1, 0.2, 0.15], rule, 1.0, least=3.0).not_seen_p for rule in rules} == {1.0}


def test_a_margin_that_was_measured_moves_with_its_group() -> None:
    changes, margins = np.array([0.1, 0.5, 0.9, 1.3, 1.7]), np.array([1.1, 1.5, 1.9, 2.3, 2.7])
    # each group's change lies one under its margin, whatever its size
    assert compare(changes.tolist(), "same", margins.tolist()).supported_p < 0.01
    assert compare(changes.tolist(), "same", float(margins.mean())).supported_p > 0.01


@pytest.mark.parametrize(
    ("rule", "margin"), [("same", 0.0), ("at least", 0.0), ("at most", 0.0), ("below", -1.0), ("above", float("nan"))]
)
def test_a_margin_that_bounds_nothing_is_refused(rule: Rule, margin: float) -> None:
    with pytest.raises(ValueError, match="margin: "):
        compare([0.0, 1.0], rule, margin)


def test_differences_that_cannot_scatter_are_certain() -> None:
    assert compare([-1.0, -1.0, -1.0], "below")[1:5] == (0.0, 1.0, 1.0, 0.0)
    assert compare([0.0, 0.0, 0.0], "below")[1:5] == (1.0, 1.0, 1.0, 0.0)
    assert compare([0.0, 0.0, 0.0], "below", least=0.1).not_seen_p == 0.0


@pytest.mark.parametrize("rule", ["below", "above", "same", "at least", "at most"])
def test_what_is_the_same_in_every_group_says_what_stood_for_its_scatter(rule: Rule) -> None:
    """D5's ranks are all 1: no p-value of such values is given without a word of it."""
    known, unknown = (compare([0.0] * 5, rule, 0.1, resolution) for resolution in (0.05, 0.0))
    assert (known.equal, unknown.equal) == (0.05, 0.0)
    if rule in ("at least", "same"):
        t = 0.1 / (0.05 / 5**0.5)
        assert known.supported_p == pytest.approx(stats.t.sf(t, 4))
        assert unknown.supported_p == 0.0
    assert compare([0.0, 0.0, 0.0, 0.0, 1e-3], rule, 0.1, 0.05).equal is None
    assert compare([0.0] * 5, rule, [0.1, 0.2, 0.1, 0.2, 0.1], 0.05).equal is None  # its margin scatters


def test_equal_shares_scatter_by_a_picture() -> None:
    """A picture of twelve more in each of four groups: t = 2 with 3 degrees of freedom, one-sided p = 0.0697."""
    share = 1 / 12
    found = compare([share, 0.25 - 2 * share, share, share], "above", resolution=share)  # but for rounding
    assert found.supported_p == pytest.approx(2 * 0.069663, rel=1e-4)
    scattered = np.array([-1.0, -1.0, 1.0, 1.0]) * 0.75**0.5 * share  # its deviation is a picture, too
    assert found.detectable == pytest.approx(detectable_difference(scattered, LEVEL / 2))
    assert compare([0.5] * 5, "at least", 0.1, resolution=0.025).supported_p < 1e-6
    wider = [share, 2 * share, 0.0, share]  # what does scatter is left as it is
    assert compare(wider, "above", resolution=share) == compare(wider, "above")
    assert compare([0.0] * 4, "below", resolution=share)[1:3] == (1.0, 1.0)
    remains = [-1.1e-16, 0.0, -1.1e-16, -1.1e-16]  # of halves, less a half
    assert compare(remains, "below", resolution=share)[1:3] == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("groups", [2, 3, 5, 10])
def test_the_detectable_difference_is_found_with_the_power_it_states(groups: int) -> None:
    rng = np.random.default_rng(7)
    exact = rng.normal(size=groups)
    exact = (exact - exact.mean()) / exact.std(ddof=1)  # scatter 1, as the simulated studies have
    effect = detectable_difference(exact, LEVEL / 2)
    found = [compare((effect + rng.normal(size=groups)).tolist(), "above").supported_p <= LEVEL for _ in range(STUDIES)]
    assert abs(np.mean(found) - POWER) < 4 * (POWER * (1 - POWER) / STUDIES) ** 0.5


@pytest.mark.parametrize("groups", [3, 5, 12])
def test_as_many_groups_as_are_needed_find_it_with_the_power_asked_for(groups: int) -> None:
    """At the detectable difference of n groups, n groups are needed; and fewer would not do."""
    shape = np.random.default_rng(9).normal(size=groups)
    shape = (shape - shape.mean()) / shape.std(ddof=1)
    effect = detectable_difference(shape, LEVEL / 2)
    assert groups_needed(shape + 1.001 * effect, LEVEL / 2) == groups
    assert groups_needed(-shape - 1.001 * effect, LEVEL / 2) == groups  # the other way round
    assert groups_needed(shape + 0.999 * effect, LEVEL / 2) == groups + 1


def test_groups_needed_are_cohens() -> None:
    """d = 0.5, one-sided 5 %, power 80 %: 27 (Cohen 1988, one-sample)."""
    assert groups_needed(np.array([0.5 - 0.5**0.5, 0.5 + 0.5**0.5]), 0.05) == 27


def test_of_nothing_no_number_of_groups_finds_anything() -> None:
    assert groups_needed(np.array([-1.0, 1.0]), LEVEL) is None
    assert groups_needed(np.array([-1.0, 1.001]), LEVEL) is None  # beyond ten thousand
    assert groups_needed(np.array([1.0, 1.0]), LEVEL) is None  # no scatter: nothing can be planned from it


def test_holm_agrees_with_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_of_many_true_nulls_holm_calls_any_in_no_more_than_five_percent() -> None:
    p = np.random.default_rng(8).uniform(size=(STUDIES, 6))
    assert np.mean([min(holm(list(row))) <= LEVEL for row in p]) <= 0.05 + 0.02


def test_q_values_agree_with_scipy() -> None:
    p = np.random.default_rng(14).uniform(size=30) ** 3
    assert benjamini_hochberg(p.tolist()) == pytest.approx(stats.false_discovery_control(p).tolist())
    assert benjamini_hochberg([]) == []


def test_of_what_is_called_at_most_the_level_is_false() -> None:
    """Twenty true effects among sixty: the share of false calls among all calls, on average."""
    rng, shares = np.random.default_rng(15), []
    for _ in range(300):
        effects = np.r_[rng.normal(-3.5, 1, 20), rng.normal(0, 1, 40)]
        called = np.array(benjamini_hochberg((2 * stats.norm.sf(abs(effects))).tolist())) <= LEVEL
        shares.append(called[20:].sum() / max(1, called.sum()))
    assert np.mean(shares) <= 0.05
    assert np.mean(shares) > 0.02  # and the calls are no fewer than they could be


def test_an_unknown_rule_and_margins_of_other_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown rule 'bellow', nearest is 'below'"):
        compare([0.0, 1.0], "bellow")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="margin: expected one, or one for each of 3 groups, got 2"):
        compare([0.0, 1.0, 2.0], "same", [1.0, 2.0])
