"""Acceptance rules: their law is the formula's by chi-square, and candidates in chunks give what all at once do."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from atelier.methods.rejection import (
    Kept,
    best_of_n,
    best_of_n_probability,
    distinct_probability,
    reshaped_reward,
    threshold,
    threshold_probability,
    top_k,
    top_k_probability,
)

DRAWS, BINS = 100_000, 25
EDGES = stats.norm.ppf(np.linspace(0, 1, BINS + 1)[1:-1])


def accepted_of_each_set(mask: np.ndarray, rewards: np.ndarray, m: int, seed: int) -> np.ndarray:
    """One accepted reward of each set, at random: those of one set depend on each other."""
    ranked = np.random.default_rng(seed).random(mask.shape) * mask
    return rewards.reshape(-1, m)[np.arange(len(mask) // m), ranked.reshape(-1, m).argmax(1)]


def p_value(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(stats.chisquare(counts, counts.sum() * expected / expected.sum()).pvalue)


def bin_masses(probability: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Integral of A over each of the bins, equal in F."""
    return np.bincount(cells, weights=probability, minlength=BINS)


def pooled(counts: np.ndarray, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With the lowest bins made one, of which at least ten are expected: A grows with r."""
    rare = int(np.searchsorted(np.cumsum(masses), 10 * masses.sum() / counts.sum()))
    return tuple(np.append(row[: rare + 1].sum(), row[rare + 1 :]) for row in (counts, masses))  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------ laws


@pytest.mark.parametrize(("k", "m"), [(1, 2), (1, 4), (1, 16), (3, 8), (2, 20), (5, 6)])
def test_accepted_gaussian_rewards_have_the_law_of_the_formula(k: int, m: int) -> None:
    rewards = np.random.default_rng(100 * k + m).normal(size=DRAWS * m)
    mask = best_of_n(rewards, m) if k == 1 else top_k(rewards, k, m)
    assert mask.reshape(-1, m).sum(1).tolist() == [k] * DRAWS
    kept = accepted_of_each_set(mask, rewards, m, 1)
    counts = np.bincount(np.digitize(kept, EDGES), minlength=BINS)

    u = (np.arange(BINS * 2000) + 0.5) / (BINS * 2000)  # midpoints of F
    r, cells = stats.norm.ppf(u), np.repeat(np.arange(BINS), 2000)
    right = best_of_n_probability(r, stats.norm.cdf, m) if k == 1 else top_k_probability(r, stats.norm.cdf, k, m)
    assert right.mean() == pytest.approx(k / m, rel=1e-6)  # that many are accepted
    masses = bin_masses(right, cells)
    assert p_value(*pooled(counts, masses)) > 0.01
    # planted: one candidate more, the limit of many candidates, no selection
    one_more = top_k_probability(r, stats.norm.cdf, k, m + 1)
    assert p_value(*pooled(counts, bin_masses(one_more, cells))) < 1e-6
    assert p_value(counts, np.ones(BINS)) < 1e-6
    hard = threshold_probability(r, float(stats.norm.ppf(1 - k / m)))
    assert p_value(counts, bin_masses(hard, cells) + 1e-9) < 1e-6


@pytest.mark.parametrize(("k", "m"), [(1, 4), (3, 8), (7, 8)])
def test_rewards_that_are_counts_have_the_law_of_the_formula_with_ties(k: int, m: int) -> None:
    count = stats.binom(4, 0.4)
    rewards = count.rvs(size=DRAWS * m, random_state=np.random.default_rng(7 * k + m))
    kept = accepted_of_each_set(top_k(rewards, k, m), rewards, m, 2)
    values = np.arange(5)
    right = top_k_probability(values, count.cdf, k, m, below=lambda r: count.cdf(r - 1))
    assert (right * count.pmf(values)).sum() == pytest.approx(k / m, rel=1e-12)
    counts = np.bincount(kept, minlength=5)
    assert p_value(counts, right * count.pmf(values)) > 0.01
    without_ties = top_k_probability(values, count.cdf, k, m)
    assert p_value(counts, without_ties * count.pmf(values)) < 1e-6


def test_a_threshold_accepts_the_law_above_it() -> None:
    rewards = np.random.default_rng(3).normal(size=2 * DRAWS)
    kept = rewards[threshold(rewards, 0.25)]
    inside = stats.norm.cdf(kept), stats.norm.cdf(0.25)
    share = (inside[0] - inside[1]) / (1 - inside[1])
    assert stats.kstest(share, "uniform").pvalue > 0.01
    assert threshold_probability([0.2, 0.25, 3], 0.25).tolist() == [0, 1, 1]


@pytest.mark.parametrize(("k", "m"), [(1, 1), (1, 5), (2, 5), (5, 5), (10, 100)])
def test_top_k_is_the_binomial_tail(k: int, m: int) -> None:
    u = np.linspace(0, 1, 41)
    got = top_k_probability(u, u, k, m)
    np.testing.assert_allclose(got, stats.binom.cdf(k - 1, m - 1, 1 - u), rtol=1e-10, atol=1e-14)
    if k == 1:
        np.testing.assert_allclose(best_of_n_probability(u, u, m), u ** (m - 1), rtol=1e-12, atol=1e-300)


def test_ties_agree_with_every_case_counted() -> None:
    """Three values, sets of 4: the mean over places of what the rule accepts, by all 81 sets."""
    share = np.array([0.5, 0.2, 0.3])
    upper = np.cumsum(share)
    for k in (1, 2, 3):
        accepted = np.zeros(3)
        for case in product(range(3), repeat=4):
            mask = top_k(np.array(case, float), k, 4)
            for value, one in zip(case, mask, strict=True):
                accepted[value] += one * share[list(case)].prod()
        got = top_k_probability([0, 1, 2], upper, k, 4, below=upper - share)
        np.testing.assert_allclose(got, accepted / (4 * share), rtol=1e-12)


def test_best_of_n_with_ties_has_its_closed_form() -> None:
    upper, lower, n = np.array([0.3, 0.7, 1.0]), np.array([0.0, 0.3, 0.7]), 40
    got = best_of_n_probability([0, 1, 2], upper, n, below=lower)
    np.testing.assert_allclose(got, (upper**n - lower**n) / (n * (upper - lower)), rtol=1e-12)
    # an interval of no width is a value of no mass
    np.testing.assert_allclose(best_of_n_probability([0.5], [0.5], n, below=[0.5]), 0.5 ** (n - 1), rtol=1e-12)


def test_the_reshaped_reward_of_best_of_n_is_its_logarithm() -> None:
    u = np.array([0.0, 0.1, 0.5, 1.0])
    got = reshaped_reward(best_of_n_probability(u, u, 5))
    np.testing.assert_allclose(got[1:], 4 * np.log(u[1:]), rtol=1e-12, atol=1e-15)
    assert got[0] == -math.inf
    np.testing.assert_allclose(reshaped_reward([1.0, 0.5], copies=[3, 1]), [-math.log(3), math.log(0.5)], rtol=1e-15)


def test_the_reshaped_reward_is_what_the_accepted_law_maximises() -> None:
    """The lemma: of all laws on these values the accepted one has the largest E[log A] - KL to the base."""
    rng = np.random.default_rng(5)
    base = rng.dirichlet(np.ones(12))
    reward = reshaped_reward(best_of_n_probability(np.arange(12), np.cumsum(base), 6, below=np.cumsum(base) - base))
    tilted = base * np.exp(reward)
    optimum = tilted / tilted.sum()

    def value(law: np.ndarray) -> float:
        return float((law * (reward - np.log(law / base))).sum())

    assert value(optimum) == pytest.approx(math.log(tilted.sum()), rel=1e-12)
    assert all(value(0.99 * optimum + 0.01 * rng.dirichlet(np.ones(12))) < value(optimum) for _ in range(200))


# ------------------------------------------------------------------------------------------------ duplicates


def test_one_of_equal_candidates_is_accepted_with_the_probability_of_the_formula() -> None:
    share, m, sets = np.array([0.5, 0.3, 0.15, 0.05]), 6, 40_000
    rng = np.random.default_rng(11)
    keys = rng.choice(4, p=share, size=sets * m)
    of_set = np.arange(sets * m) // m
    mask = threshold(np.array([1.0, 2.0, -1.0, 0.5])[keys], 0, of_set, keys)
    accepted = np.bincount(keys[mask], minlength=4)
    assert accepted[2] == 0
    expected = share * m * distinct_probability(share, m) * threshold_probability([1, 2, -1, 0.5], 0)
    sd = np.sqrt(sets * expected * (1 - expected))  # whether a set has one is independent of other sets
    assert (np.abs(accepted - sets * expected) <= 4 * sd).all()
    # and it is the mean of exp(-log copies)
    copies = np.array([(row == keys_of).sum() for row in keys.reshape(-1, m)[:4000] for keys_of in row])
    first = np.exp(reshaped_reward(np.ones(4000 * m), copies))[keys[: 4000 * m] == 0]
    assert first.mean() == pytest.approx(distinct_probability([0.5], m)[0], abs=4 * first.std() / 4000**0.5)


def test_masses_at_the_ends_have_their_limits() -> None:
    np.testing.assert_allclose(distinct_probability([0, 1e-300, 1e-9, 1], 5), [1, 1, 1 - 2e-9, 0.2], rtol=1e-12)


def test_of_duplicates_the_best_competes_and_of_equal_ones_the_earlier() -> None:
    rewards, keys = [3, 5, 5, 4, 2, 1], ["a", "a", "a", "b", "c", "d"]
    assert top_k(rewards, 2, 6, keys=keys).nonzero()[0].tolist() == [1, 3]
    assert top_k(rewards, 4, 6, keys=keys).nonzero()[0].tolist() == [1, 3, 4, 5]
    assert top_k(rewards, 6, 6, keys=keys).sum() == 4  # no more are different
    assert top_k(rewards, 2, 3, keys=keys).nonzero()[0].tolist() == [1, 3, 4]  # within sets alone
    assert threshold(rewards, 2, keys=keys).nonzero()[0].tolist() == [1, 3, 4]
    assert threshold(rewards, 2, sets=[0, 1, 0, 0, 0, 0], keys=keys).nonzero()[0].tolist() == [1, 2, 3, 4]


def test_of_equal_rewards_the_earlier_wins() -> None:
    assert best_of_n([1, 2, 2, 0.0, -0.0, 0], 3).nonzero()[0].tolist() == [1, 3]
    assert top_k([1, 1, 1, 1], 2, 4).nonzero()[0].tolist() == [0, 1]
    assert best_of_n([1, 1, 1, 1], 2, sets=["x", "y", "y", "x"]).nonzero()[0].tolist() == [0, 1]


# ------------------------------------------------------------------------------------------------ streams


def by_hand(rewards: list[int], sets: list[int], keys: list[str] | None, least: float, k: int | None) -> list[int]:
    """The rule in plain Python, one candidate after the other."""
    kept: list[int] = []
    taken: dict[int, list[str]] = {}
    for at in sorted(range(len(rewards)), key=lambda at: (-rewards[at], at)):
        mine = taken.setdefault(sets[at], [])
        name = str(at) if keys is None else keys[at]
        if rewards[at] >= least and name not in mine and (k is None or len(mine) < k):
            mine.append(name)
            kept.append(at)
    return sorted(kept)


@st.composite
def candidates(draw: st.DrawFn) -> tuple[list[int], list[int], list[str] | None, int, list[int]]:
    """Rewards with ties, sets of m in any order, keys, and where chunks end."""
    m, count = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    n = m * count
    rewards = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    sets = draw(st.permutations([at % count for at in range(n)]))
    keys = draw(st.none() | st.lists(st.sampled_from("abcdefgh"), min_size=n, max_size=n))
    return rewards, list(sets), keys, m, sorted(draw(st.lists(st.integers(0, n), max_size=6)))


def in_chunks(kept: Kept, ends: list[int], *columns: list | None) -> Kept:
    bounds = [0, *ends, next(len(column) for column in columns if column is not None)]
    for start, stop in pairwise(bounds):
        kept = kept.updated(*(None if column is None else column[start:stop] for column in columns))
    return kept


@settings(max_examples=150, deadline=None)
@given(candidates(), st.data())
def test_any_chunks_give_what_all_at_once_do(case: tuple, data: st.DataObject) -> None:
    rewards, sets, keys, m, ends = case
    k, least = data.draw(st.integers(1, m)), data.draw(st.integers(0, 4))
    streamed = in_chunks(Kept.top_k(k, m), ends, rewards, sets, keys)
    assert streamed.accepted().tolist() == by_hand(rewards, sets, keys, -math.inf, k)
    assert top_k(rewards, k, m, sets, keys).nonzero()[0].tolist() == streamed.accepted().tolist()
    assert streamed.rewards.tolist() == [rewards[at] for at in streamed.positions]
    streamed = in_chunks(Kept.threshold(least), ends, rewards, sets, keys)
    assert streamed.accepted().tolist() == by_hand(rewards, sets, keys, least, None)
    assert threshold(rewards, least, sets, keys).nonzero()[0].tolist() == streamed.accepted().tolist()
    streamed = in_chunks(Kept.best_of_n(m), ends, rewards, None, None)
    following = [at // m for at in range(len(rewards))]
    assert streamed.accepted().tolist() == by_hand(rewards, following, None, -math.inf, 1)
    assert best_of_n(rewards, m).nonzero()[0].tolist() == streamed.accepted().tolist()


def test_memory_is_that_of_what_is_kept() -> None:
    kept, rng = Kept.top_k(5, 100_000), np.random.default_rng(0)
    for _ in range(50):
        kept = kept.updated(rng.normal(size=2000), keys=rng.integers(0, 50_000, size=2000))
        rows = [kept.rewards, kept.positions, kept.sets, kept.keys, kept.labels, kept.counts]
        assert sum(row.size for row in rows if row is not None) <= 4 * 5 + 2
        assert all(row.base is None or row.base.size <= 5 for row in rows if row is not None)  # no view of more
    assert kept.seen == 100_000
    assert len(kept.accepted()) == 5


def test_sets_of_other_sizes_and_chunks_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sets: expected 3 .* got 1 of 1"):
        best_of_n([1, 2, 3, 4], 3)
    with pytest.raises(ValueError, match="sets: expected 2 candidates each, got 3 of a"):
        top_k([1, 2, 3, 4], 1, 2, sets=["a", "a", "a", "b"])
    with pytest.raises(ValueError, match="keys: expected of all chunks"):
        Kept.threshold(0).updated([1]).updated([1], keys=["a"])
    with pytest.raises(ValueError, match="sets: expected labels of one kind"):
        Kept.threshold(0).updated([1], sets=["a"]).updated([1], sets=[1])
    with pytest.raises(ValueError, match="keys: expected one per candidate"):
        threshold([1, 2], 0, keys=["a"])
    with pytest.raises(ValueError, match="keys: expected whole numbers or texts"):
        threshold([1, 2], 0, keys=[0.5, 1.5])
    with pytest.raises(ValueError, match="below: expected values of F up to those"):
        top_k_probability([1], [0.5], 1, 2, below=[0.6])
    with pytest.raises(ValueError, match=r"cdf: expected a value for each of rewards, \(2,\)"):
        top_k_probability([1, 2], [0.5], 1, 2)
    with pytest.raises(ValueError, match="copies: expected whole numbers from 1"):
        reshaped_reward([1.0], copies=[0])
