"""The law of accepted candidates' rewards against the formula A(r), by chi-square, and its divergence from the base's.

``F`` is the reward's distribution under the base for one prompt. Accepted candidates have levels ``u = F(r)`` of
density ``A(u) / Z``, whatever F is (`atelier.methods.rejection`). Where F is known, rewards are counted between values
of it (``masses``, ``chi_square``). Of a real base it is not, and a plug-in estimate would be taken for exact; so the
accepted candidate is placed among others of its prompt that did not compete (``places``). Its place has a law that
follows from A alone, exactly, for any number of them. What may fail on a real base is therefore the independence of
candidates, the rule and the formula; what the reward looks like cannot matter.

Chi-square is for independent counts: one accepted candidate of each set (``one_of_each_set``). Functions raise
ValueError for shapes and numbers out of range, TypeError for what is no number.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import integrate, optimize, special, stats

from atelier.data.checks import FloatArray, check_finite, check_number, check_whole, number_row, real_array
from atelier.methods.rejection import Kept, top_k_probability
from atelier.seeds import numpy_generator

Mask: TypeAlias = npt.NDArray[np.bool_]
EXPECTED = 10.0  # in a bin at least; neighbours with fewer are counted together


class TopK(NamedTuple):
    """The ``k`` best of each set of ``m``; Best-of-N is 1 of N."""

    k: int
    m: int


class Threshold(NamedTuple):
    """Rewards of at least one value; ``level``: F just below it, the share that is refused."""

    level: float


Rule: TypeAlias = TopK | Threshold


class Fit(NamedTuple):
    """A chi-square test: bins after neighbours were merged, ``first`` of which merged bin begins where."""

    statistic: float
    df: int
    p: float
    n: int
    first: npt.NDArray[np.int64]
    observed: FloatArray
    expected: FloatArray


# ------------------------------------------------------------------------------------------------ chi-square


def masses(rule: Rule, edges: Any) -> FloatArray:
    """Share of accepted candidates between successive levels of F, ``edges`` (b + 1,) from 0 to 1; (b,) that sum to 1.

    ``integral of A over [u_i, u_i+1] / Z``. A bin may be a single value of the reward that has this probability: then
    its edges are F just below the value and F there, and ties are what ``below`` of ``top_k_probability`` says.
    """
    levels = number_row(edges, "edges")
    if len(levels) < 2 or (levels[0], levels[-1]) != (0.0, 1.0) or not (np.diff(levels) >= 0).all():
        raise ValueError(f"edges: expected levels that rise from 0 to 1, got {levels[:8].tolist()}")
    lower, upper = levels[:-1], levels[1:]
    if isinstance(rule, Threshold):
        level = check_number(rule.level, "level", least=0, most=1)
        if level == 1:
            raise ValueError("level: nothing is accepted")
        return (upper - np.clip(level, lower, upper)) / (1 - level)
    return (upper - lower) * top_k_probability(upper, upper, rule.k, rule.m, below=lower) * rule.m / rule.k


def chi_square(counts: Any, shares: Any) -> Fit:
    """Pearson's test of counts (b,) of independent draws against a law's ``shares`` (b,) of its bins.

    Neighbouring bins are counted together until at least ``EXPECTED`` are expected in each (Cochran 1954 asks for
    fewer). A draw where none is expected gives p = 0. Raises ValueError where fewer than two bins are left.
    """
    seen, law = number_row(counts, "counts"), number_row(shares, "shares")
    if seen.shape != law.shape or not np.isclose(law.sum(), 1, atol=1e-9) or (law < 0).any():
        raise ValueError(f"shares: expected as many as counts, that sum to 1, got {len(law)}, sum {law.sum():g}")
    n = int(seen.sum())
    impossible = bool((seen[law == 0] > 0).any())
    first = _merged(n * law)
    if len(first) < 2:
        raise ValueError(f"counts: {n} draws are too few for two bins of at least {EXPECTED:g} expected")
    observed, expected = (np.add.reduceat(row, first) for row in (seen, n * law))
    statistic = float(((observed - expected) ** 2 / expected).sum())
    p = 0.0 if impossible else float(stats.chi2.sf(statistic, len(first) - 1))
    return Fit(statistic, len(first) - 1, p, n, first, observed, expected)


def testable(n: int, shares: Any) -> bool:
    """Whether ``chi_square`` of n draws has two bins or more."""
    return len(_merged(n * number_row(shares, "shares"))) > 1


def _merged(expected: FloatArray) -> npt.NDArray[np.int64]:
    """Where merged bins begin: each ends as soon as enough are expected, what is left over joins the last."""
    first, total = [0], 0.0
    for place, value in enumerate(expected):
        if total >= EXPECTED:
            first.append(place)
            total = 0.0
        total += value
    if total < EXPECTED and len(first) > 1:
        first.pop()
    return np.array(first, np.int64)


def one_of_each_set(mask: Any, sets: Any, *seed: str | int) -> npt.NDArray[np.int64]:
    """Positions of one accepted candidate of each set that has any, at random; ``mask`` bool (n,), ``sets`` (n,)."""
    accepted = np.flatnonzero(np.asarray(mask, bool))
    order = numpy_generator(*seed).permutation(accepted)
    _, at = np.unique(np.asarray(sets)[order], return_index=True)
    return np.sort(order[at])


# ------------------------------------------------------------------------------------------------ places


def place_shares(rule: TopK, judges: int) -> FloatArray:
    """Law of an accepted candidate's place among ``judges`` others of its prompt, 0 to ``judges``, (judges + 1,).

    ``P[place = j] = integral of C(n, j) u^j (1 - u)^(n - j) A(u) / Z``, a polynomial, by Gauss's rule exactly.
    """
    n = check_whole(judges, "judges")
    nodes, weights = np.polynomial.legendre.leggauss((n + rule.m) // 2 + 1)
    u = (nodes + 1) / 2
    density = top_k_probability(u, u, rule.k, rule.m) * rule.m / rule.k
    shares: FloatArray = stats.binom.pmf(np.arange(n + 1)[:, None], n, u) @ (weights / 2 * density)
    return shares / shares.sum()


def judge_weights(rule: TopK, judges: int) -> FloatArray:
    """The law's weight of each of ``judges`` candidates from the lowest reward to the highest, (judges,), sum 1.

    The chance that a candidate is the accepted one of a set drawn of them without replacement: sums over judges with
    these weights estimate means under the law of independent sets without bias. ValueError for fewer than m.
    """
    n = check_whole(judges, "judges", least=rule.m)
    above = np.arange(n)[::-1]
    weights: FloatArray = stats.hypergeom(n - 1, above, rule.m - 1).cdf(rule.k - 1) * rule.m / (rule.k * n)
    return weights


def strict(rewards: Any, *seed: str | int) -> FloatArray:
    """Ranks of rewards (rows, candidates) in their row, from 0, with equal rewards in a random order.

    Top-K by them has the law of Top-K with ties, where which of equal ones comes first is chance, too.
    """
    table = _table(rewards, 2)
    order = np.lexsort((numpy_generator(*seed).random(table.shape), table), axis=1)
    return order.argsort(1).astype(np.float64)


def winners(ranks: FloatArray, rule: TopK, *seed: str | int) -> npt.NDArray[np.int64]:
    """Column of one accepted candidate of each row, (rows,), at random; the first m of a row compete."""
    rivals = ranks[:, : rule.m].ravel()
    kept = Kept.top_k(rule.k, rule.m).updated(rivals)
    mask = np.zeros(len(rivals), bool)
    mask[kept.accepted()] = True
    return one_of_each_set(mask, np.repeat(np.arange(len(ranks)), rule.m), *seed, "one") % rule.m


def places(rewards: Any, rule: TopK, *seed: str | int) -> npt.NDArray[np.int64]:
    """Place of one accepted candidate of each row among the row's judges, (rows,).

    ``rewards`` (rows, m + judges): a row's candidates are of one prompt, independent; the first m compete.
    """
    ranks = strict(_table(rewards, rule.m + 1), *seed)
    chosen = ranks[np.arange(len(ranks)), winners(ranks, rule, *seed)]
    return (ranks[:, rule.m :] < chosen[:, None]).sum(1)


def levels_above(rewards: Any, rivals: int, least: float, *seed: str | int) -> FloatArray:
    """Level in (0, 1) of one candidate above a threshold among its row's judges above the threshold.

    ``rewards`` (rows, rivals + judges). Candidates above a threshold have the base's law cut off there, so places are
    equally likely; a level is a place plus a uniform number, over the places that there are, so uniform whatever their
    number. Rows with no rival or no judge above the threshold are left out.
    """
    table, generator = _table(rewards, rivals + 1), numpy_generator(*seed)
    accepted = table[:, :rivals] >= check_number(least, "least")
    rows = np.flatnonzero(accepted.any(1) & (table[:, rivals:] >= least).any(1))
    if not rows.size:
        return np.zeros(0)
    ties = generator.random(table.shape)
    chosen = np.where(accepted[rows], generator.random((len(rows), rivals)), -1).argmax(1)
    reward, tie = (each[rows, chosen][:, None] for each in (table, ties))
    judged, of_ties = table[rows, rivals:], ties[rows, rivals:]
    above = judged >= least
    below = above & ((judged < reward) | ((judged == reward) & (of_ties < tie)))
    return (below.sum(1) + generator.random(len(rows))) / (above.sum(1) + 1)


def fit_of_places(rewards: Any, rule: TopK, *seed: str | int) -> Fit | None:
    """Chi-square of places of accepted candidates, ``rewards`` (rows, m + judges), against the formula's law.

    None for too few rows, here and below.
    """
    table = _table(rewards, rule.m + 1)
    shares = place_shares(rule, table.shape[1] - rule.m)
    if not testable(len(table), shares):
        return None
    return chi_square(np.bincount(places(table, rule, *seed), minlength=len(shares)), shares)


def fit_of_levels(levels: Any, bins: int = 10) -> Fit | None:
    """Chi-square of levels in [0, 1] against the uniform law."""
    row, bins = number_row(levels, "levels"), check_whole(bins, "bins", least=2)
    if not testable(len(row), np.full(bins, 1 / bins)):
        return None
    counts = np.bincount(np.minimum((row * bins).astype(np.int64), bins - 1), minlength=bins)
    return chi_square(counts, np.full(bins, 1 / bins))


def blocks(rewards: Any, m: int) -> FloatArray:
    """Rows of candidates of which m compete and at least m judge: ``rewards`` (prompts, each) cut into such blocks.

    As many of a prompt as there are; a rest joins the judges of the last. Blocks of one prompt are independent. Raises
    ValueError where a prompt has fewer than 2 m candidates.
    """
    table = _table(rewards, 2)
    if (count := table.shape[1] // (2 * check_whole(m, "m"))) == 0:
        raise ValueError(f"rewards: {table.shape[1]} candidates a prompt, a test of {m} needs at least {2 * m}")
    width = table.shape[1] // count
    return table[:, : width * count].reshape(-1, width)


def of_half(rule: TopK, each: int) -> TopK:
    """The rule, or one that accepts about the same share of half of ``each`` candidates, where none would judge."""
    if 2 * rule.m <= check_whole(each, "each", least=2):
        return rule
    half = each // 2
    return TopK(max(1, round(rule.k * half / rule.m)), half)


def _table(rewards: Any, least: int) -> FloatArray:
    table = real_array(rewards, "rewards", "(prompts, candidates)").astype(np.float64)
    if table.ndim != 2 or not len(table) or table.shape[1] < least:
        raise ValueError(f"rewards: expected (prompts, candidates), at least {least} of each, got {table.shape}")
    check_finite(table, "rewards")
    return table


# ------------------------------------------------------------------------------------------------ divergences


def divergence_of(rule: Rule) -> float:
    """``KL(accepted || base) = E_accepted[log A(r)] - log Z``, nats: of the law that GRAFT aims at.

    Exact for rewards without ties, since accepted and base have the density ratio A(r) / Z of pictures, which depends
    on the reward alone; at most ``-log Z``, as A is at most 1. Best-of-N: ``log N - (N - 1) / N``. With ties it is
    smaller. It bounds no tuned model: that is what ``divergence_at_least`` (from below) and
    ``continued.path_divergence`` (from above, up to the last step with noise) do.
    """
    if isinstance(rule, Threshold):
        return -float(np.log1p(-check_number(rule.level, "level", least=0, most=1, open_ends=True)))

    def integrand(u: float) -> float:
        ratio = float(top_k_probability([u], [u], rule.k, rule.m)[0]) * rule.m / rule.k
        return float(special.xlogy(ratio, ratio))

    value, _ = integrate.quad(integrand, 0, 1, limit=200, epsabs=1e-10)
    return float(value)


def divergence_at_least(tuned: Sequence[Any], base: Sequence[Any]) -> float:
    """A lower bound of ``KL(tuned || base)`` from rewards alone, nats, at least 0.

    ``KL(p || q) >= KL of any function's laws >= E_p[l r] - log E_q[exp(l r)]`` for every number l (Donsker and Varadhan
    1983). ``tuned`` and ``base``: two parts of rewards each, of other prompts; l is chosen on one part and the bound
    taken on the other, both ways, so that the choice does not raise it. The logarithm of a mean of few raises it by a
    term of order 1 / n.
    """
    parts = [tuple(_rewards(part, name) for part in rows) for rows, name in ((tuned, "tuned"), (base, "base"))]
    if [len(rows) for rows in parts] != [2, 2]:
        raise ValueError(f"tuned, base: expected two parts each, got {[len(rows) for rows in parts]}")
    (first, second), (base_first, base_second) = parts
    bounds = [
        _tilted(second, base_second, _slope(first, base_first)),
        _tilted(first, base_first, _slope(second, base_second)),
    ]
    return max(0.0, float(np.mean(bounds)))


def _rewards(values: Any, name: str) -> FloatArray:
    row = number_row(values, name)
    if not row.size:
        raise ValueError(f"{name}: expected at least one reward")
    check_finite(row, name)
    return row


def _tilted(tuned: FloatArray, base: FloatArray, slope: float) -> float:
    return float(slope * tuned.mean() - special.logsumexp(slope * base) + np.log(len(base)))


def _slope(tuned: FloatArray, base: FloatArray) -> float:
    """The slope l of the largest bound; of rewards apart it would be infinite, so at most 20 over their deviation."""
    spread = float(base.std())
    if spread == 0:
        return 0.0
    most = 20 / spread
    optimum = optimize.minimize_scalar(
        lambda slope: -_tilted(tuned, base, slope), bounds=(-most, most), method="bounded"
    )
    return float(optimum.x)
