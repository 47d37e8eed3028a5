"""Which candidates a variant learns: what its rule accepts of their rewards, or equally many whatever their reward."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from atelier.methods.rejection import Kept
from atelier.studies.shaping.params import Rule, Shaping

CHUNK = 4096  # candidates at a time


def kept_of(rule: Rule) -> Kept:
    """A rule that has seen nothing yet."""
    if rule.least is not None:
        return Kept.threshold(rule.least)
    assert rule.k is not None
    assert rule.m is not None
    return Kept.top_k(rule.k, rule.m)


def accepted(rule: Rule, chunks: Iterable[pd.DataFrame]) -> npt.NDArray[np.int64]:
    """Numbers of accepted candidates; ``chunks`` of their table in order, of any size. ``m`` that follow are a set."""
    kept = kept_of(rule)
    for rows in chunks:
        kept = kept.updated(rows["reward"].to_numpy())
    return kept.accepted()


def chosen(training: Shaping, rule: Rule, table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Numbers of the candidates that a training learns.

    A plain one takes the first k of every m, which are any, since candidates of a prompt are drawn alike. ValueError
    where a rule accepts none.
    """
    if training.method == "plain":
        assert rule.k is not None
        assert rule.m is not None
        return np.flatnonzero(np.arange(len(table)) % rule.m < rule.k)
    numbers = accepted(rule, (table.iloc[first : first + CHUNK] for first in range(0, len(table), CHUNK)))
    if not len(numbers):
        raise ValueError(
            f"shaping.rules: no candidate has a reward of {rule.least:g}, the best has {table['reward'].max():g}"
        )
    return numbers
