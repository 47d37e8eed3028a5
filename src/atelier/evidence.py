"""Tests of paired differences, and the smallest difference that a study can detect.

Two conditions with the same groups are compared by the differences of their pseudo-values
(``atelier.evaluation.intervals``); every function below takes such differences, one per group. Functions raise
ValueError for values that are not finite and numbers out of range, TypeError for what is no number.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy import optimize, stats

from atelier.data.checks import FloatArray, check_choice, check_finite, check_number, check_whole, number_row
from atelier.evaluation.intervals import Interval, t_interval

Rule = Literal["below", "above", "same", "at least", "at most"]

LEVEL = 0.05  # significance level of every test; directional tests use half of it on each side
POWER = 0.8
SAME = 1e-9  # relative to the largest value or the resolution: values this close are equal up to rounding


class Compared(NamedTuple):
    """The result of testing one comparison: a p-value for each of three statements, and the detectable difference.

    ``supported_p``: its rule holds; ``reversed_p``: it is the other way round; ``not_seen_p``: what there is is smaller
    than ``least``, the least effect that matters (1 where a rule has none). Each is two-sided, but for equivalence and
    its halves, so that a 95 % interval (90 % for equivalence) says the same. ``detectable``: the smallest true
    difference that this test finds in 80 % of studies with this scatter; with a ``margin`` (its mean over groups), the
    distance from that margin. ``smaller_p``: what there is is smaller than ``least`` in either direction, that is the
    95 % interval lies inside +-least; no verdict rests on it, but one of an effect that is there is read by it.
    ``equal``: where every group has the same values, the resolution that took the place of their scatter; with 0, none
    is known, and p-values are 0 or 1 by the mean alone. None where groups scatter.
    """

    interval: Interval
    supported_p: float
    reversed_p: float
    not_seen_p: float
    detectable: float
    margin: float = 0.0
    least: float = 0.0
    smaller_p: float = 1.0
    equal: float | None = None


def compare(
    differences: Sequence[float],
    rule: Rule,
    margin: float | Sequence[float] = 0.0,
    resolution: float = 0.0,
    least: float | Sequence[float] = 0.0,
) -> Compared:
    """Student's t tests of paired differences (changed minus reference), one per group.

    below: supported under -margin, reversed above 0, not seen where above both -margin and -least; above: its mirror
    image. same: supported within +-margin by two one-sided tests, that is by the 90 % interval (Schuirmann 1987),
    reversed outside it. at least: supported above -margin by one of the two, reversed under it; at most: its mirror
    image. A margin and a least effect that were measured have one value per group. ``resolution``: the smallest
    possible change of a group's value, used as the scatter when all groups are equal. Raises ValueError for fewer than
    two groups, values that are not finite, a margin below 0 on average, no margin for same, at least and at most,
    another number of margins than of groups, and an unknown rule.
    """
    check_choice(rule, "rule", get_args(Rule))
    diffs, resolution = _groups(differences, "differences"), check_number(resolution, "resolution", least=0)
    margins, effects = _margins(margin, "margin", len(diffs)), _margins(least, "least", len(diffs))
    if rule not in ("below", "above") and margins.mean() == 0:
        raise ValueError(f"margin: a margin must be above 0 for '{rule}'")
    parts = (t_interval(diffs.tolist()), diffs, margins, resolution)
    if rule == "same":
        result = _same(*parts)
    elif rule in ("at least", "at most"):
        result = _one_half(rule, *parts)
    else:
        result = _directed(1.0 if rule == "below" else -1.0, *parts, effects)
    equal = all(_are_equal(each, resolution) for each in (diffs, margins, effects))
    return result._replace(equal=resolution) if equal else result


def _directed(
    sign: float, interval: Interval, diffs: FloatArray, margins: FloatArray, resolution: float, effects: FloatArray
) -> Compared:
    """below (``sign`` 1) and above (-1)."""
    signed, matters = sign * diffs, np.maximum(margins, effects)
    supported, reverse = (_two_sided(values, resolution) for values in (signed + margins, -signed))
    not_seen = _two_sided(-signed - matters, resolution) if matters.mean() > 0 else 1.0
    detectable, least = detectable_difference(diffs, LEVEL / 2, resolution), float(effects.mean())
    sides = [_two_sided(side * diffs - effects, resolution) for side in (1.0, -1.0)]
    smaller = max(sides) if least > 0 else 1.0
    return Compared(interval, supported, reverse, not_seen, detectable, float(margins.mean()), least, smaller)


def _same(interval: Interval, diffs: FloatArray, margins: FloatArray, resolution: float) -> Compared:
    supported = max(p_below(diffs - margins, resolution), p_below(-diffs - margins, resolution))
    reverse = min(1.0, 2 * min(p_below(margins - diffs, resolution), p_below(margins + diffs, resolution)))
    detectable = detectable_difference(diffs, LEVEL, resolution)
    return Compared(interval, supported, reverse, 1.0, detectable, float(margins.mean()))


def _one_half(rule: Rule, interval: Interval, diffs: FloatArray, margins: FloatArray, resolution: float) -> Compared:
    """at least and at most: one of the two tests of equivalence."""
    short = diffs + margins if rule == "at least" else margins - diffs  # below 0: beyond the margin
    detectable = detectable_difference(short, LEVEL, resolution)
    supported, reverse = p_below(-short, resolution), _two_sided(short, resolution)
    return Compared(interval, supported, reverse, 1.0, detectable, float(margins.mean()))


def _two_sided(values: FloatArray, resolution: float) -> float:
    """p-value of a mean below 0, as one half of a two-sided test."""
    return min(1.0, 2 * p_below(values, resolution))


def _margins(margin: float | Sequence[float], name: str, groups: int) -> FloatArray:
    """One margin per group; ValueError for another number of them, and for one below 0 on average."""
    margins = number_row([margin] * groups if np.ndim(margin) == 0 else margin, name)
    if margins.shape != (groups,):
        raise ValueError(f"{name}: expected one, or one for each of {groups} groups, got {len(margins)}")
    if not np.isfinite(margins).all() or margins.mean() < 0:
        raise ValueError(f"{name}: expected a finite one of at least 0, got {margins.mean():g}")
    return margins


def scatter(values: FloatArray, resolution: float) -> float:
    """Standard deviation of the values; where all are equal, ``resolution``, the smallest possible change of one.

    Shares of few pictures can be equal in every group by chance, which does not mean that they have no scatter.
    """
    values, resolution = _groups(values, "values"), check_number(resolution, "resolution", least=0)
    return resolution if _are_equal(values, resolution) else float(values.std(ddof=1))


def _are_equal(values: FloatArray, resolution: float) -> bool:
    """Whether values are equal up to rounding."""
    return bool(np.ptp(values) <= SAME * max(np.abs(values).max(), resolution))


def p_below(values: FloatArray, resolution: float) -> float:
    """One-sided p-value of a t test for a mean below 0; without any scatter it is 0 or 1."""
    values = _groups(values, "values")
    error = scatter(values, resolution) / len(values) ** 0.5
    if error == 0.0:
        return float(values.mean() >= 0)
    return float(stats.t.cdf(values.mean() / error, len(values) - 1))


def detectable_difference(
    differences: FloatArray, level: float, resolution: float = 0.0, power: float = POWER
) -> float:
    """The true mean that a one-sided t test at ``level`` detects with ``power``, given these differences' scatter.

    From the noncentral t distribution (Cohen 1988, ch. 2); 0 without scatter. Raises ValueError for a level outside
    (0, 0.5) and a power outside (0, 1).
    """
    differences, level, power = _design(differences, level, power)
    n = len(differences)
    critical = stats.t.ppf(1 - level, n - 1)

    def missing(effect: float) -> float:  # in standard errors
        return float(stats.nct.sf(critical, n - 1, effect)) - power

    return float(optimize.brentq(missing, 0.0, 20.0 * critical)) * scatter(differences, resolution) / n**0.5


def groups_needed(differences: FloatArray, level: float, power: float = POWER, most: int = 10_000) -> int | None:
    """The smallest number of groups with which a one-sided t test detects this mean at this scatter with ``power``.

    Cohen 1988, ch. 2. None if it exceeds ``most``, and for a mean of 0. ValueError as
    ``detectable_difference``, and for ``most`` below 2.
    """
    differences, level, power = _design(differences, level, power)
    most = check_whole(most, "most", least=2)
    deviation = scatter(differences, 0.0)
    effect = abs(float(differences.mean())) / deviation if deviation else 0.0

    def enough(n: int) -> bool:
        return bool(stats.nct.sf(stats.t.ppf(1 - level, n - 1), n - 1, effect * n**0.5) >= power)

    return bisect_left(range(2, most + 1), True, key=enough) + 2 if effect and enough(most) else None


def some_hold(p_values: Sequence[float], enough: int) -> float:
    """p-value of at least ``enough`` hypotheses holding: ``(n - u + 1) p_(u)`` (Benjamini and Heller 2008, eq. 4).

    Bonferroni on the n - u + 1 largest, valid under any dependence. ValueError unless 1 <= u <= n, and for p-values
    outside [0, 1].
    """
    p, n = _p_values(p_values), len(p_values)
    if not 1 <= check_whole(enough, "enough", least=None) <= n:
        raise ValueError(f"enough: expected some of {n} hypotheses, got {enough}")
    return min(1.0, (n - enough + 1) * sorted(p.tolist())[enough - 1])


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979): rejecting all below a level keeps the family-wise error at that level.

    ValueError for p-values outside [0, 1].
    """
    p = _p_values(p_values)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """q-values (Benjamini and Hochberg 1995): of all statements with q <= level, that share at most is expected false.

    Holds for independent p-values and for positively dependent ones. ValueError for p-values outside [0, 1].
    """
    p = _p_values(p_values)
    order = np.argsort(-p, kind="stable")
    ranks = len(p) - np.arange(len(p))
    stepped = np.minimum.accumulate(p[order] * len(p) / ranks)
    q = np.empty_like(p)
    q[order] = np.minimum(stepped, 1.0)
    return q.tolist()


def _groups(values: Any, name: str) -> FloatArray:
    """One finite value per group, of at least two groups."""
    x = number_row(values, name)
    if len(x) < 2:
        raise ValueError(f"{name}: a test needs at least two groups, got {len(x)}")
    check_finite(x, name)
    return x


def _design(differences: Any, level: float, power: float) -> tuple[FloatArray, float, float]:
    """Differences, and the level and power of a one-sided test of their mean."""
    level = check_number(level, "level", least=0, most=0.5, open_ends=True)
    power = check_number(power, "power", least=0, most=1, open_ends=True)
    return _groups(differences, "differences"), level, power


def _p_values(p_values: Any) -> FloatArray:
    p = number_row(p_values, "p_values")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values: expected values in [0, 1], got {', '.join(f'{value:.4g}' for value in p[:8])}")
    return p
