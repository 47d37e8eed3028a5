"""Tests of a real base's accepted candidates against the law of their rule, and histograms of their rewards."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from atelier.data.checks import FloatArray
from atelier.studies.shaping.law import (
    Fit,
    TopK,
    blocks,
    fit_of_levels,
    fit_of_places,
    judge_weights,
    levels_above,
    of_half,
    strict,
    winners,
)
from atelier.studies.shaping.params import Config

BINS = 12  # of a histogram
COLUMNS = ("rule", "solver", "k", "m", "judges", "candidates", "n", "statistic", "dof", "p")


class Tried(NamedTuple):
    """A rule as it can be tried on the candidates at hand: rows of which the first ``rivals`` compete."""

    name: str
    solver: str
    rule: TopK | float  # a threshold's least reward
    rows: FloatArray  # (rows, rivals + judges)
    rivals: int
    seed: tuple[str | int, ...]


def tried(config: Config, tables: Mapping[str, FloatArray], seed: int) -> Iterator[Tried]:
    """Every rule by every solver; ``tables``: rewards (prompts, each) by solver."""
    for solver, rewards in tables.items():
        each = rewards.shape[1]
        for name, rule in config.rules.items():
            seeds = (seed, Config.STUDY, "law", name, solver)
            if rule.least is not None:
                yield Tried(name, solver, rule.least, rewards, each // 2, seeds)
            elif rule.k is not None and rule.m is not None and each > 1:
                top = of_half(TopK(rule.k, rule.m), each)
                yield Tried(name, solver, top, blocks(rewards, top.m), top.m, seeds)


def chi_squares(config: Config, tables: Mapping[str, FloatArray], seed: int) -> pd.DataFrame:
    """A row a rule and solver: k and m as tried, judges a set, candidates, draws n, statistic, dof and p.

    Of a prompt's candidates some compete and others judge, one accepted of each set (``law.places``). A rule that takes
    more than half of a prompt's candidates at a time is tried at half of them. One with too few draws has no row.
    """
    rows = []
    for one in tried(config, tables, seed):
        fit = fit_of(one)
        if fit is not None:
            k, m = (one.rule.k, one.rule.m) if isinstance(one.rule, TopK) else (np.nan, one.rivals)
            judges = one.rows.shape[1] - one.rivals
            values = (k, m, judges, one.rows.size, fit.n, fit.statistic, fit.df, fit.p)
            rows.append(dict(zip(COLUMNS, (one.name, one.solver, *values), strict=True)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def fit_of(one: Tried) -> Fit | None:
    """Chi-square of a rule's accepted candidates; None for too few."""
    if isinstance(one.rule, TopK):
        return fit_of_places(one.rows, one.rule, *one.seed)
    return fit_of_levels(levels_above(one.rows, one.rivals, one.rule, *one.seed))


def histograms(config: Config, tables: Mapping[str, FloatArray], seed: int) -> pd.DataFrame:
    """Counts by reward, a row a bin: rule, solver, low, high, of accepted ones ``observed``, and ``expected``.

    One accepted candidate a set. Expected: of the law, estimated without bias from the judges of each set, which did
    not compete (``law.judge_weights``); what decides is ``chi_squares``, since this estimate scatters, too.
    """
    rows = []
    for one in tried(config, tables, seed):
        edges = np.histogram_bin_edges(one.rows, BINS)
        accepted, weights = seen_and_expected(one)
        observed = np.histogram(accepted, edges)[0]
        expected = np.histogram(one.rows[:, one.rivals :], edges, weights=weights)[0] * len(accepted)
        for low, high, count, law in zip(edges[:-1], edges[1:], observed, expected, strict=True):
            rows.append({"rule": one.name, "solver": one.solver, "low": low, "high": high, "observed": count,
                         "expected": law})  # fmt: skip
    return pd.DataFrame(rows)


def seen_and_expected(one: Tried) -> tuple[FloatArray, FloatArray]:
    """Rewards of accepted candidates, and the law's weight of each judge, (rows, judges), which sum to 1."""
    judged = one.rows[:, one.rivals :]
    if isinstance(one.rule, TopK):
        chosen = winners(strict(one.rows, *one.seed), one.rule, *one.seed)
        shares = judge_weights(one.rule, judged.shape[1])
        order = judged.argsort(axis=1, kind="stable").argsort(1)
        return one.rows[np.arange(len(one.rows)), chosen], shares[order] / len(one.rows)
    rivals = one.rows[:, : one.rivals]
    above = (judged >= one.rule).astype(np.float64)
    return rivals[rivals >= one.rule], above / max(1.0, above.sum())


def as_measures(table: pd.DataFrame, groups: int) -> pd.DataFrame:
    """p of the deterministic solver's candidates as measures, ``accepted-RULE``: one test, so equal in all groups."""
    rows: list[dict[str, Any]] = []
    for _, row in table[table["solver"] == "ode"].iterrows():
        values = {f"group{group}": row["p"] for group in range(groups)}
        rows.append(
            {"measure": "law_p", "cell": f"accepted-{row['rule']}", "n": int(row["n"]), "whole": row["p"], **values}
        )
    return pd.DataFrame(rows)
