"""Acceptance rules for fine-tuning on accepted samples (GRAFT, Anil et al. 2025, arXiv:2510.02692).

Candidates are sampled from the base model and scored; a rule accepts some of them. Where a candidate of reward r is
accepted with probability A(r), accepted ones follow ``p(x) A(r(x)) / Z``: the optimum of ``E[r_hat] - KL`` to the base
under the reshaped reward ``r_hat = log A(r)`` (lemma 2.3). The paper's full text was not at hand: A(r) of each rule is
derived. It is exact for candidates drawn independently, whatever their number; but candidates that Top-K accepts of one
set depend on each other, so that a test for independent draws takes one of each set.

Rewards are finite numbers (n,), lists, arrays or tensors, computed in float64. Candidates compete in sets of M, a
prompt's, say: ``sets`` labels each candidate's (n,), whole numbers or texts; by default M that follow each other are a
set. Of equal rewards the earlier candidate wins. ``keys`` (n,), whole numbers or texts, removes duplicates: of
candidates of one set with equal keys only that of the highest reward competes, of equal ones the earlier. Every
function raises ValueError for other shapes and types, NaN and infinities, TypeError for what is no number.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import betainc

from atelier.data.checks import FloatArray, array_of, came, check_finite, check_number, check_whole, number_row

Indices: TypeAlias = npt.NDArray[np.int64]
Labels: TypeAlias = npt.NDArray[Any]  # int64 or texts
CDF: TypeAlias = Callable[[FloatArray], Any] | Any  # of rewards, or its values (n,) at them

# ------------------------------------------------------------------------------------------------ acceptance


def threshold(rewards: Any, least: float, sets: Any = None, keys: Any = None) -> npt.NDArray[np.bool_]:
    """Which candidates have a reward of at least ``least``, bool (n,) (GRAFT). By default one set."""
    return _mask(Kept.threshold(least), rewards, sets, keys)


def top_k(rewards: Any, k: int, m: int, sets: Any = None, keys: Any = None) -> npt.NDArray[np.bool_]:
    """Which candidates are among the ``k`` best of their set of ``m``, bool (n,) (GRAFT).

    With ``keys`` the k best different ones, or all where there are fewer. Raises ValueError for k above m and unless
    each set has m candidates, for which alone ``top_k_probability`` holds.
    """
    return _mask(Kept.top_k(k, m), rewards, sets, keys)


def best_of_n(rewards: Any, n: int, sets: Any = None) -> npt.NDArray[np.bool_]:
    """Which candidate is the best of its set of ``n``: Top-1 of n, bool (n,) (GRAFT). ValueError as there.

    Duplicates in a set change nothing, since one is accepted.
    """
    return _mask(Kept.best_of_n(n), rewards, sets, None)


def _mask(kept: "Kept", rewards: Any, sets: Any, keys: Any) -> npt.NDArray[np.bool_]:
    if not number_row(rewards, "rewards").size:
        raise ValueError("rewards: expected at least one, got none")
    kept = kept.updated(rewards, sets, keys)
    mask = np.zeros(kept.seen, bool)
    mask[kept.accepted()] = True
    return mask


class Kept(NamedTuple):
    """What a rule accepts of the candidates so far, which may come in any chunks: the same as of all at once.

    Memory grows with what is kept, not with the candidates: for ``top_k`` k of each set and a count. A duplicate that
    was dropped is not remembered, since k different candidates that beat it are there.
    """

    least: float
    k: int | None
    m: int | None
    seen: int
    rewards: FloatArray  # (a,) of what is kept
    positions: Indices  # (a,) from the first candidate of all
    sets: Labels  # (a,)
    keys: Labels | None  # (a,)
    labels: Labels  # of the sets, and how many candidates came of each; empty for a threshold
    counts: Indices
    given: tuple[bool, bool] | None  # whether chunks have sets, and keys; None before the first

    @classmethod
    def threshold(cls, least: float) -> Self:
        return cls._empty(check_number(least, "least"), None, None)

    @classmethod
    def top_k(cls, k: int, m: int) -> Self:
        m = check_whole(m, "m")
        return cls._empty(-np.inf, check_whole(k, "k", most=m), m)

    @classmethod
    def best_of_n(cls, n: int) -> Self:
        return cls._empty(-np.inf, 1, check_whole(n, "n"))

    @classmethod
    def _empty(cls, least: float, k: int | None, m: int | None) -> Self:
        none = np.zeros(0, np.int64)
        return cls(least, k, m, 0, np.zeros(0), none, none, None, none, none, None)

    def updated(self, rewards: Any, sets: Any = None, keys: Any = None) -> Self:
        """With the next chunk (n,), n >= 0. ValueError for more than m of a set, and where only some have labels."""
        rewards = number_row(rewards, "rewards")
        if rewards.size:
            check_finite(rewards, "rewards")
        given = (sets is not None, keys is not None)
        if self.given not in (None, given):
            name = "sets" if self.given is None or self.given[0] != given[0] else "keys"
            raise ValueError(f"{name}: expected of all chunks or of none, got some")
        positions = self.seen + np.arange(len(rewards), dtype=np.int64)
        of_set = positions // self.m if self.m else np.zeros_like(positions)
        if sets is not None:
            of_set = labels_of(sets, "sets", len(rewards))
        of_key = None if keys is None else _joined(self.keys, labels_of(keys, "keys", len(rewards)), "keys")
        of_set_all = _joined(self.sets, of_set, "sets")
        labels, counts = self._counted(of_set)
        of_all = np.concatenate([self.rewards, rewards])
        at = _best(of_all, of_set_all, of_key, self.least, self.k)
        return self._replace(
            seen=self.seen + len(rewards),
            rewards=of_all[at],
            positions=np.concatenate([self.positions, positions])[at],
            sets=of_set_all[at],
            keys=None if of_key is None else of_key[at],
            labels=labels,
            counts=counts,
            given=given,
        )

    def _counted(self, of_set: Labels) -> tuple[Labels, Indices]:
        """Candidates of each set so far, these included."""
        if self.m is None:
            return self.labels, self.counts
        new, added = np.unique(of_set, return_counts=True)
        both = _joined(self.labels, new, "sets")
        labels, inverse = np.unique(both, return_inverse=True)
        numbers = np.concatenate([self.counts, added])
        counts = np.bincount(inverse, weights=numbers, minlength=len(labels)).astype(np.int64)
        if counts.size and counts.max() > self.m:
            worst = int(counts.argmax())
            raise ValueError(f"sets: expected {self.m} candidates each, got {counts[worst]} of {labels[worst]!s:.60}")
        return labels, counts

    def accepted(self) -> Indices:
        """Positions of the accepted candidates (a,), ascending; ValueError while a set has fewer than m."""
        if self.m is not None and self.counts.size and self.counts.min() < self.m:
            least = int(self.counts.argmin())
            came_of = f"{self.counts[least]} of {self.labels[least]!s:.60}"
            raise ValueError(f"sets: expected {self.m} candidates (rewards) each, got {came_of}")
        return np.sort(self.positions)


def _best(rewards: FloatArray, sets: Labels, keys: Labels | None, least: float, k: int | None) -> Indices:
    """Indices of the best of each set; of equal rewards the earlier comes first."""
    of_set = np.unique(sets, return_inverse=True)[1]
    order = np.lexsort((-rewards, of_set))  # stable
    order = order[rewards[order] >= least]
    if keys is not None:
        pairs = np.stack([of_set, np.unique(keys, return_inverse=True)[1]], axis=1)[order]
        order = order[np.sort(np.unique(pairs, axis=0, return_index=True)[1])]  # the first of each pair
    if k is not None:
        ordered, place = of_set[order], np.arange(len(order))
        order = order[place - np.searchsorted(ordered, ordered) < k]
    return np.sort(order)


def labels_of(values: Any, name: str, count: int) -> Labels:
    """Labels (count,) as int64 or texts; ValueError for anything else."""
    array = array_of(values, name)
    fits = array.dtype.kind in "iuU" and np.can_cast(array.dtype, np.int64 if array.dtype.kind != "U" else array.dtype)
    if array.size and not fits:
        raise ValueError(f"{name}: expected whole numbers or texts ({count},), got {came(array)}")
    if array.shape != (count,):
        raise ValueError(f"{name}: expected one per candidate, ({count},), got shape {array.shape}")
    return array if array.dtype.kind == "U" else array.astype(np.int64)


def _joined(first: Labels | None, second: Labels, name: str) -> Labels:
    """Labels after earlier ones; of another kind, numbers would become texts."""
    if first is None or not first.size:
        return second
    if second.size and first.dtype.kind != second.dtype.kind:
        raise ValueError(f"{name}: expected labels of one kind, got {first.dtype}, then {second.dtype}")
    return np.concatenate([first, second]) if second.size else first


# ------------------------------------------------------------------------------------------------ probabilities


def threshold_probability(rewards: Any, least: float) -> FloatArray:
    """``A(r) = 1{r >= least}``, (n,) float64 (GRAFT)."""
    rewards, least = _finite_row(rewards), check_number(least, "least")
    return (rewards >= least).astype(np.float64)


def top_k_probability(rewards: Any, cdf: CDF, k: int, m: int, below: CDF = None) -> FloatArray:
    """``A(r) = P[Bin(M - 1, 1 - F(r)) <= K - 1] = I_F(M - K, K)``, (n,) float64 (Top-K of M; GRAFT).

    ``cdf``: F under the base model, for one prompt: a function of rewards, or its values (n,) at them. Rewards that
    take single values with a probability, as counts do, need ``below``, too: F just below r. A(r) is then the mean of
    the formula from there up to F(r), whichever of equal ones wins, since places in a set are alike. Raises ValueError
    for k above m, for values of F outside [0, 1], and for ``below`` above them.
    """
    m = check_whole(m, "m")
    k = check_whole(k, "k", most=m)
    upper, lower = _levels(rewards, cdf, below)
    if k == m:
        return np.ones_like(upper)
    if below is None:
        return np.asarray(betainc(m - k, k, upper))
    # a polynomial of degree m - 1, of which Gauss's rule gives the mean exactly; no difference of nearby values
    nodes, weights = np.polynomial.legendre.leggauss((m + 1) // 2)
    mean = np.zeros_like(upper)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        mean += weight * betainc(m - k, k, lower + (upper - lower) * node)
    return mean


def best_of_n_probability(rewards: Any, cdf: CDF, n: int, below: CDF = None) -> FloatArray:
    """``A(r) = F(r)^(N - 1)``, (n,) float64 (Best-of-N; GRAFT): Top-1 of N, see ``top_k_probability``."""
    return top_k_probability(rewards, cdf, 1, check_whole(n, "n"), below)


def distinct_probability(mass: Any, m: int) -> FloatArray:
    """``(1 - (1 - p)^M) / (M p)``: the factor of A by which duplicates are removed, (n,) float64 (GRAFT).

    ``mass``: the base model's probability p of exactly this candidate, (n,) in [0, 1]. It is the mean of 1 / copies
    among the M candidates of a set, exact for a threshold. In Top-K removed duplicates also make room for others, which
    has no such formula.
    """
    mass, m = number_row(mass, "mass"), check_whole(m, "m")
    _check_shares(mass, "mass")
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = -np.expm1(m * np.log1p(-mass)) / (m * mass)
    return np.where(mass > 0, factor, 1.0)


def reshaped_reward(probability: Any, copies: Any = None) -> FloatArray:
    """``log A(r)``, with ``copies`` ``log A(r) - log copies``, (n,) float64 (GRAFT); -inf where A is 0.

    ``probability``: values of A (n,) in [0, 1]. ``copies``: how often each candidate is in its set, whole numbers from
    1, of which one is accepted.
    """
    probability = number_row(probability, "probability")
    _check_shares(probability, "probability")
    with np.errstate(divide="ignore"):
        reward: FloatArray = np.log(probability)
    if copies is None:
        return reward
    counted = number_row(copies, "copies")
    if counted.shape != reward.shape or not (np.isfinite(counted) & (counted >= 1) & (counted % 1 == 0)).all():
        raise ValueError(f"copies: expected whole numbers from 1, {reward.shape}, got others or {counted.shape}")
    return reward - np.log(counted)


def _levels(rewards: Any, cdf: CDF, below: CDF) -> tuple[FloatArray, FloatArray]:
    """F at rewards, and just below them."""
    rewards = _finite_row(rewards)
    upper, lower = (
        number_row(values(rewards) if callable(values) else values, name)
        for name, values in (("cdf", cdf), ("below", cdf if below is None else below))
    )
    for name, values in (("cdf", upper), ("below", lower)):
        if values.shape != rewards.shape:
            raise ValueError(f"{name}: expected a value for each of rewards, {rewards.shape}, got {values.shape}")
        _check_shares(values, name)
    if not (lower <= upper).all():
        raise ValueError("below: expected values of F up to those of cdf, got larger ones")
    return upper, lower


def _finite_row(rewards: Any) -> FloatArray:
    row = number_row(rewards, "rewards")
    if not row.size:
        raise ValueError("rewards: expected at least one, got none")
    check_finite(row, "rewards")
    return row


def _check_shares(values: FloatArray, name: str) -> None:
    """Refuse an empty row, and values outside [0, 1] or NaN."""
    if not (values.size and ((values >= 0) & (values <= 1)).all()):
        raise ValueError(f"{name}: expected values in [0, 1], at least one, got others")
