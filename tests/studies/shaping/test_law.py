"""The law of accepted rewards: the right formula passes chi-square at many draws, planted wrong ones are rejected."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from atelier.methods.rejection import best_of_n, threshold, top_k
from atelier.studies.shaping.law import (
    Threshold,
    TopK,
    blocks,
    chi_square,
    divergence_at_least,
    divergence_of,
    fit_of_levels,
    fit_of_places,
    judge_weights,
    levels_above,
    masses,
    of_half,
    one_of_each_set,
    place_shares,
    places,
)

SETS = 100_000
RULES = [TopK(1, 4), TopK(1, 16), TopK(2, 20), TopK(3, 8)]
EDGES = np.linspace(0, 1, 26)


def accepted(rule: TopK, rewards: np.ndarray) -> np.ndarray:
    """One accepted reward of each set."""
    mask = best_of_n(rewards, rule.m) if rule.k == 1 else top_k(rewards, rule.k, rule.m)
    return rewards[one_of_each_set(mask, np.repeat(np.arange(len(rewards) // rule.m), rule.m), "test", rule.m)]


# ------------------------------------------------------------------------------------------------ a law that is known


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_accepted_rewards_have_the_law_of_their_rule_and_of_no_other(rule: TopK) -> None:
    kept = accepted(rule, np.random.default_rng(rule.m).normal(size=SETS * rule.m))
    assert len(kept) == SETS
    counts = np.histogram(stats.norm.cdf(kept), EDGES)[0]
    assert chi_square(counts, masses(rule, EDGES)).p > 0.01
    for wrong in (TopK(rule.k, rule.m + 1), TopK(1, 1), Threshold(1 - rule.k / rule.m)):
        assert chi_square(counts, masses(wrong, EDGES)).p < 1e-6


def test_rewards_above_a_threshold_have_the_base_s_law_there() -> None:
    rewards = np.random.default_rng(5).normal(size=2 * SETS)
    kept = rewards[threshold(rewards, 0.4)]
    counts = np.histogram(stats.norm.cdf(kept), EDGES)[0]
    level = float(stats.norm.cdf(0.4))
    assert chi_square(counts, masses(Threshold(level), EDGES)).p > 0.01
    assert chi_square(counts, masses(Threshold(level - 0.02), EDGES)).p < 1e-6
    assert chi_square(counts, masses(Threshold(level + 0.02), EDGES)).p == 0  # what cannot be was seen


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rewards_that_are_counts_need_ties(rule: TopK) -> None:
    law = stats.binom(4, 0.4)
    kept = accepted(rule, law.rvs(size=SETS * rule.m, random_state=np.random.default_rng(7)).astype(float))
    counts = np.bincount(kept.astype(int), minlength=5)
    edges = np.append(0, law.cdf(np.arange(5)))
    edges[-1] = 1
    assert chi_square(counts, masses(rule, edges)).p > 0.01
    # planted: A at the value's own F, as if no two were equal
    untied = np.diff(edges) * np.array([masses(rule, [0, max(u - 1e-6, 0), min(u, 1), 1])[1] for u in edges[1:]]) / 1e-6
    assert chi_square(counts, untied / untied.sum()).p < 1e-6


def test_masses_are_the_closed_form_of_best_of_n() -> None:
    np.testing.assert_allclose(masses(TopK(1, 9), EDGES), np.diff(EDGES**9), rtol=1e-12)
    np.testing.assert_allclose(masses(TopK(5, 5), EDGES), np.diff(EDGES), rtol=1e-12)
    np.testing.assert_allclose(masses(Threshold(0.5), [0, 0.25, 0.75, 1]), [0, 0.5, 0.5], rtol=1e-12)
    with pytest.raises(ValueError, match="from 0 to 1"):
        masses(TopK(1, 2), [0, 0.5])


def test_bins_with_few_expected_are_counted_together() -> None:
    fit = chi_square([2, 3, 40, 55, 0], [0.02, 0.03, 0.4, 0.55 - 1e-3, 1e-3])
    assert fit.first.tolist() == [0, 3]
    assert fit.observed.tolist() == [45, 55]
    assert fit.df == 1
    assert fit.n == 100
    assert fit.p > 0.9
    with pytest.raises(ValueError, match="too few"):
        chi_square([3, 4], [0.5, 0.5])
    with pytest.raises(ValueError, match="sum to 1"):
        chi_square([3, 4], [0.5, 0.4])


# ------------------------------------------------------------------------------------------------ a law that is not


@pytest.mark.parametrize(("rule", "judges"), [(TopK(1, 2), 3), (TopK(2, 3), 2), (TopK(1, 3), 3)])
def test_place_shares_agree_with_every_case_counted(rule: TopK, judges: int) -> None:
    """Of m + n different rewards, every choice of which m compete is equally likely."""
    total = rule.m + judges
    counts = np.zeros(judges + 1)
    for rivals in combinations(range(total), rule.m):
        for best in rivals[-rule.k :]:
            counts[sum(judge < best for judge in range(total) if judge not in rivals)] += 1
    np.testing.assert_allclose(place_shares(rule, judges), counts / counts.sum(), rtol=1e-12)


@pytest.mark.parametrize(("rule", "judges"), [(TopK(1, 2), 4), (TopK(2, 3), 5), (TopK(3, 3), 3)])
def test_judges_weigh_what_sets_of_them_accept(rule: TopK, judges: int) -> None:
    accepted = np.zeros(judges)
    for chosen in combinations(range(judges), rule.m):
        accepted[list(chosen[-rule.k :])] += 1
    np.testing.assert_allclose(judge_weights(rule, judges), accepted / accepted.sum(), rtol=1e-12)
    with pytest.raises(ValueError, match="judges"):
        judge_weights(rule, rule.m - 1)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "counts"])
def test_places_have_their_law_though_every_prompt_has_another(rule: TopK, kind: str) -> None:
    generator = np.random.default_rng(11 * rule.m)
    judges, rows = rule.m + 3, SETS // 4
    mean = generator.uniform(0, 4, (rows, 1))
    rewards = generator.normal(mean, 1 + mean, (rows, rule.m + judges))
    if kind == "counts":
        rewards = np.floor(rewards.clip(0, 3))  # with most of them equal
    fit = fit_of_places(rewards, rule, "test")
    assert fit.n == rows
    assert fit.p > 0.01
    counts = np.bincount(places(rewards, rule, "test"), minlength=judges + 1)
    for wrong in (TopK(rule.k, rule.m + 1 + rule.m // 4), TopK(1, 1)):
        assert chi_square(counts, place_shares(wrong, judges)).p < 1e-6


def test_places_of_dependent_candidates_are_found_out() -> None:
    """Planted: rivals of one prompt that are nearly copies of each other."""
    generator = np.random.default_rng(3)
    rewards = generator.normal(size=(4000, 8))
    rewards[:, :4] = rewards[:, :1] + 0.1 * rewards[:, :4]
    assert fit_of_places(rewards, TopK(1, 4), "test").p < 1e-6


def test_levels_above_a_threshold_are_uniform() -> None:
    generator = np.random.default_rng(13)
    rewards = generator.normal(generator.uniform(-1, 1, (40_000, 1)), 1, (40_000, 8))
    for table in (rewards, np.round(rewards)):
        fit = fit_of_levels(levels_above(table, 4, 0.5, "test"))
        assert fit.n > 10_000
        assert fit.p > 0.01
    planted = rewards.copy()
    planted[:, :4] += 0.1  # competing ones are a little better
    assert fit_of_levels(levels_above(planted, 4, 0.5, "test")).p < 1e-6
    assert levels_above(rewards, 4, 50.0, "test").size == 0


def test_blocks_use_every_candidate_that_they_can() -> None:
    rewards = np.arange(40.0).reshape(2, 20)
    assert blocks(rewards, 4).shape == (4, 10)
    assert blocks(rewards, 7).shape == (2, 20)
    assert blocks(rewards, 4)[1].tolist() == rewards[0, 10:].tolist()
    with pytest.raises(ValueError, match="needs at least 22"):
        blocks(rewards, 11)


def test_a_rule_of_more_than_half_the_candidates_is_tested_at_half_of_them() -> None:
    assert of_half(TopK(1, 4), 16) == TopK(1, 4)
    assert of_half(TopK(5, 48), 48) == TopK(2, 24)
    assert of_half(TopK(1, 16), 16) == TopK(1, 8)
    assert fit_of_places(np.zeros((3, 8)), TopK(1, 4), "test") is None
    assert fit_of_levels([0.1, 0.9]) is None


# ------------------------------------------------------------------------------------------------ divergences


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_the_divergence_of_best_of_n_is_its_closed_form(n: int) -> None:
    assert divergence_of(TopK(1, n)) == pytest.approx(math.log(n) - (n - 1) / n, abs=1e-8)


def test_divergences_of_other_rules() -> None:
    assert divergence_of(Threshold(0.9)) == pytest.approx(math.log(10))
    u = (np.arange(200_000) + 0.5) / 200_000
    density = stats.binom.cdf(1, 19, 1 - u) * 10
    assert divergence_of(TopK(2, 20)) == pytest.approx(float(np.mean(density * np.log(density))), abs=1e-6)
    assert divergence_of(TopK(2, 20)) < math.log(10)


def test_the_least_divergence_is_that_of_shifted_normals() -> None:
    """Of normals with one deviation the bound is tight: KL = shift^2 / 2."""
    generator = np.random.default_rng(17)
    base, tuned = generator.normal(size=(2, 20_000)), generator.normal(0.8, size=(2, 20_000))
    assert divergence_at_least(tuned, base) == pytest.approx(0.32, abs=0.02)
    assert divergence_at_least(generator.normal(size=(2, 20_000)), base) < 0.002
    # any other change than of the reward is not seen, so it stays a bound
    assert divergence_at_least(generator.normal(0, 2, size=(2, 20_000)), base) < 0.5 * (4 - 1 - math.log(4))
    assert divergence_at_least([[1.0], [1.0]], [[1.0, 1.0], [1.0]]) == 0


def test_the_choice_of_the_slope_does_not_raise_the_bound() -> None:
    generator = np.random.default_rng(19)
    bounds = [divergence_at_least(generator.normal(size=(2, 20)), generator.normal(size=(2, 20))) for _ in range(200)]
    assert np.mean(bounds) < 0.05
