"""How sure a number is: intervals over repeats, tests of a difference, and what a study could have found.

A study's repeats are groups of pictures, each with its own noise, prompts and, where something is trained, its own
training seed. A measure of all pictures becomes one value a group by ``pseudo_values``; two arms that share their
groups are compared by the differences of these values, and everything below takes such differences.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

Rule = Literal["below", "above", "same", "at least", "at most"]
FloatArray = npt.NDArray[np.float64]

LEVEL = 0.05  # of every test; directional ones spend half of it on each side
POWER = 0.8
SAME = 1e-9  # of the largest of values, or of their grain: what rounding alone may make of equal ones


class Interval(NamedTuple):
    """A mean and its interval over ``n`` repeats."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's interval of the mean of independent repeats (Student 1908); ValueError for fewer than two, or NaN."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"an interval needs at least two repeats, got {x.size}")
    if not np.isfinite(x).all():
        raise ValueError("an interval needs finite values")
    half = float(stats.t.ppf(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5)
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, len(x))


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """A share and its score interval (Wilson 1927, eq. 4), right for small n and shares near 0 or 1.

    Raises ValueError for n < 1 or successes outside [0, n].
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a share needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    share, z = successes / n, float(stats.norm.ppf(0.5 + level / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    low, high = middle - half, middle + half  # exactly 0 and 1 where the share is, but for rounding
    return Interval(share, low if successes else 0.0, high if successes < n else 1.0, n)


def pseudo_values(measure: Callable[[list[int]], float], groups: int) -> FloatArray:
    """``G theta - (G - 1) theta_without_g`` (Tukey 1958), one a group, (groups,) float64.

    ``measure`` gives theta of the pictures of some groups. The mean is theta less its bias of order 1/n (Quenouille
    1956): a Frechet distance of few pictures is too high, and the more so the wider they are spread.
    Raises ValueError for fewer than two groups.
    """
    if groups < 2:
        raise ValueError(f"pseudo-values need at least two groups, got {groups}")
    every = list(range(groups))
    without = np.array([measure([other for other in every if other != left_out]) for left_out in every])
    return groups * measure(every) - (groups - 1) * without


class Compared(NamedTuple):
    """One comparison against its rule: p-values of being right and of being contradicted, and what could be found.

    ``detectable``: the smallest true difference that this test finds in 80 % of studies with this scatter; where there
    is a ``margin``, on average over groups, the distance from it.
    """

    interval: Interval
    supported_p: float
    contradicted_p: float
    detectable: float
    margin: float = 0.0


def compare(
    differences: Sequence[float], rule: Rule, margin: float | Sequence[float] = 0.0, grain: float = 0.0
) -> Compared:
    """Student's tests of paired differences, changed less reference, one a group.

    below: supported under -margin, contradicted above 0; above: its mirror image; both two-sided. same: supported
    within +-margin by two one-sided tests, that is by the 90 % interval (Schuirmann 1987), contradicted outside it.
    at least: supported above -margin by one of the two, contradicted under it; at most: its mirror image.
    A margin that was itself measured has a value a group. ``grain``: the least change of a group's value, which is
    the scatter of groups that show none. Raises ValueError for fewer than two groups, values that are
    not finite, a margin below 0 on average, or none for same, at least and at most.
    """
    found = np.asarray(differences, dtype=np.float64)
    interval = t_interval(found.tolist())
    room = np.broadcast_to(np.asarray(margin, dtype=np.float64), found.shape)
    if not np.isfinite(room).all() or room.mean() < 0 or (rule not in ("below", "above") and room.mean() == 0):
        raise ValueError(f"a margin must be finite and at least 0, above 0 for '{rule}'; got {room.mean():g}")
    if rule == "same":
        supported = max(p_below(found - room, grain), p_below(-found - room, grain))
        contradicted = min(1.0, 2 * min(p_below(room - found, grain), p_below(room + found, grain)))
        detectable = detectable_difference(found, LEVEL, grain)
        return Compared(interval, supported, contradicted, detectable, float(room.mean()))
    if rule in ("at least", "at most"):
        short = found + room if rule == "at least" else room - found  # below 0: by more than the margin
        wrong, detectable = min(1.0, 2 * p_below(short, grain)), detectable_difference(short, LEVEL, grain)
        return Compared(interval, p_below(-short, grain), wrong, detectable, float(room.mean()))
    signed = found if rule == "below" else -found
    supported, contradicted = (min(1.0, 2 * p_below(values, grain)) for values in (signed + room, -signed))
    detectable = detectable_difference(found, LEVEL / 2, grain)
    return Compared(interval, supported, contradicted, detectable, float(room.mean()))


def scatter(values: FloatArray, grain: float) -> float:
    """Their standard deviation; of equal values ``grain``, the least change of one of them.

    Shares of few pictures come out the same in every group by chance: that shows no scatter, and is not certain.
    """
    equal = np.ptp(values) <= SAME * max(np.abs(values).max(), grain)
    return grain if equal else float(values.std(ddof=1))


def p_below(values: FloatArray, grain: float) -> float:
    """Student's one-sided p-value of a mean below 0; without any scatter the side is certain."""
    error = scatter(values, grain) / len(values) ** 0.5
    if error == 0.0:
        return float(values.mean() >= 0)
    return float(stats.t.cdf(values.mean() / error, len(values) - 1))


def detectable_difference(differences: FloatArray, level: float, grain: float = 0.0, power: float = POWER) -> float:
    """The true mean that a one-sided t test at ``level`` finds with ``power``, at the scatter of these differences.

    From the noncentral t distribution (Cohen 1988, ch. 2); 0 without scatter.
    """
    n = len(differences)
    critical = stats.t.ppf(1 - level, n - 1)

    def missing(effect: float) -> float:  # in standard errors
        return float(stats.nct.sf(critical, n - 1, effect)) - power

    return float(optimize.brentq(missing, 0.0, 20.0 * critical)) * scatter(differences, grain) / n**0.5


def groups_needed(differences: FloatArray, level: float, power: float = POWER, most: int = 10_000) -> int | None:
    """The least number of groups in which a one-sided t test finds this mean at this scatter with ``power``.

    Cohen 1988, ch. 2. None beyond ``most``, and where there is nothing to find.
    """
    deviation = scatter(differences, 0.0)
    effect = abs(float(differences.mean())) / deviation if deviation else 0.0

    def found(n: int) -> bool:
        return bool(stats.nct.sf(stats.t.ppf(1 - level, n - 1), n - 1, effect * n**0.5) >= power)

    return bisect_left(range(2, most + 1), True, key=found) + 2 if effect and found(most) else None


def some_hold(p_values: Sequence[float], enough: int) -> float:
    """p-value of at least ``enough`` hypotheses holding: ``(n - u + 1) p_(u)`` (Benjamini and Heller 2008, eq. 4).

    Bonferroni's on the n - u + 1 largest: right however they depend on each other. ValueError unless 1 <= u <= n.
    """
    n = len(p_values)
    if not 1 <= enough <= n:
        raise ValueError(f"expected some of {n} hypotheses, got {enough}")
    return min(1.0, (n - enough + 1) * sorted(p_values)[enough - 1])


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979): all those under a level may be called, with that level for all together."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()
