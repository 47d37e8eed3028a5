"""Votes in numbers: win, tie and lose with standard errors, the majority of raters, agreement among them.

A vote is 1 where A wins, 0 for a tie, -1 where B wins. Functions raise ValueError for anything else.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from atelier.data.checks import FloatArray, array_of
from atelier.evaluation.intervals import Interval, pseudo_values, t_interval

WIN, TIE, LOSE = 1, 0, -1
REJECT = "reject"  # a pair that is not comparable, instead of a vote


class Shares(NamedTuple):
    """Of n votes, the shares that A wins, ties and loses."""

    n: int
    win: float
    tie: float
    lose: float

    @property
    def net(self) -> float:
        """Wins less losses."""
        return self.win - self.lose

    @property
    def error(self) -> float:
        """The standard error of ``net``: of n draws of 1, 0 and -1, sqrt((W + L - (W - L)^2) / n)."""
        return float(((self.win + self.lose - self.net**2) / self.n) ** 0.5) if self.n else float("nan")

    @property
    def z(self) -> float:
        """``net`` in standard errors; NaN where all votes are the same."""
        return self.net / self.error if self.error else float("nan")


def shares(votes: Sequence[int] | npt.NDArray[np.int64]) -> Shares:
    """Shares of wins, ties and losses; NaN of no votes."""
    x = _checked(votes)
    if not len(x):
        return Shares(0, *[float("nan")] * 3)
    return Shares(len(x), *(float(np.mean(x == each)) for each in (WIN, TIE, LOSE)))


def net_interval(votes: Sequence[int] | npt.NDArray[np.int64], level: float = 0.95) -> Interval:
    """The mean vote, wins less losses, with Student's interval; NaN ends for fewer than two votes."""
    x = _checked(votes).astype(np.float64)
    if len(x) < 2:
        return Interval(float(x.mean()) if len(x) else float("nan"), float("nan"), float("nan"), len(x))
    return t_interval(x.tolist(), level)


def majority(answers: Sequence[int | str]) -> int | str:
    """What most raters of one pair say; where no single answer has most votes, a tie.

    ``REJECT``, where at least half of them reject the pair; else who rejects it has no vote. The paper takes "the
    majority decision" of five raters or more, and prints no rule for two answers with as many votes: a tie is ours.
    """
    if not len(answers):
        raise ValueError("answers: expected at least one")
    if 2 * sum(answer == REJECT for answer in answers) >= len(answers):
        return REJECT
    votes = _checked([int(answer) for answer in answers if answer != REJECT])
    (best, most), *others = Counter(votes.tolist()).most_common()
    return TIE if others and others[0][1] == most else int(best)


def krippendorff_alpha(ratings: npt.ArrayLike, distance: str = "nominal") -> float:
    """Krippendorff's alpha of ratings (raters, units), NaN where a rater did not rate a unit: 1 is full agreement,
    0 what chance would give.

    ``distance``: "nominal", any two different ratings disagree alike; "interval", by the square of their difference,
    so that a win against a tie is a quarter of a win against a loss. Krippendorff 2011, "Computing Krippendorff's
    alpha-reliability", by coincidences: units with one rating say nothing. NaN where no unit has two ratings, or all
    are the same.
    """
    table = np.atleast_2d(array_of(ratings, "ratings")).astype(np.float64)
    if distance not in ("nominal", "interval"):
        raise ValueError(f"distance: expected 'nominal' or 'interval', got {distance!r}")
    if table.ndim != 2 or np.isinf(table).any():
        raise ValueError(f"ratings: expected finite numbers or NaN (raters, units), got shape {table.shape}")
    values = np.unique(table[np.isfinite(table)])
    counts = (table[:, :, None] == values).sum(0)  # (units, values): raters who gave it
    paired = counts[counts.sum(1) > 1]
    if not len(paired):
        return float("nan")
    number = paired.sum(1)
    pairs = paired[:, :, None] * (paired[:, None, :] - np.eye(len(values)))  # ordered, of two raters
    coincidences = (pairs / (number - 1)[:, None, None]).sum(0)
    apart = values[:, None] - values
    squared = apart**2 if distance == "interval" else (apart != 0).astype(np.float64)
    total = coincidences.sum(1)
    expected = float((np.outer(total, total) * squared).sum()) / (float(total.sum()) - 1)
    return 1 - float((coincidences * squared).sum()) / expected if expected else float("nan")


def alpha_interval(ratings: FloatArray, distance: str = "nominal") -> Interval:
    """Alpha with an interval over units, by the jackknife; NaN ends where leaving one out leaves it undefined.

    Its mean is alpha itself, of all units.
    """
    alpha = krippendorff_alpha(ratings, distance)
    units = ratings[:, np.isfinite(ratings).sum(0) > 1]
    if not units.shape[1] > 1 or np.isnan(alpha):
        return Interval(alpha, float("nan"), float("nan"), units.shape[1])
    values = pseudo_values(lambda kept: krippendorff_alpha(units[:, kept], distance), units.shape[1])
    if not np.isfinite(values).all():
        return Interval(alpha, float("nan"), float("nan"), units.shape[1])
    around = t_interval(values.tolist())
    return Interval(alpha, alpha - (around.mean - around.low), alpha + (around.high - around.mean), units.shape[1])


def _checked(votes: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    x = array_of(list(votes), "votes")
    if not np.isin(x, (WIN, TIE, LOSE)).all():
        raise ValueError("votes: expected 1 (A wins), 0 (a tie) and -1 (B wins) only")
    return x.astype(np.int64)
