"""Tables of measures as notebooks and verdicts read them: a row a measure and cell, a pseudo-value a group."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from atelier.claims import Grains, Values
from atelier.evidence import t_interval

# means over pictures of what is so or is not
SHARES = {"precision", "recall", "density", "coverage", "near_features", "near_pixels", "subject", "style", "emotion"}
SHARES |= {"outliers", "reversed", "reversal"}
STEPS = {"log_half_life": 1.0}


def values(table: pd.DataFrame) -> Values:
    """A table of measures as verdicts read it."""
    groups = table.filter(regex=r"^group\d+$").to_numpy()
    return dict(zip(zip(table["measure"], table["cell"], strict=True), groups, strict=True))


def grains(table: pd.DataFrame) -> Grains:
    """What is the least change of a group's value, for measures that come out equal by chance.

    One picture of a group's, of a share; one octave, of the best half-life among some.
    """
    groups, found = table.filter(regex=r"^group\d+$").shape[1], {}
    for measure, cell, n in zip(table["measure"], table["cell"], table["n"], strict=True):
        if measure in STEPS:
            found[measure, cell] = STEPS[measure]
        elif measure in SHARES and n:
            found[measure, cell] = groups / n
    return found


def combined(table: pd.DataFrame, measure: str, weights: Mapping[str, float], name: str, cell: str) -> pd.DataFrame:
    """A row called ``name`` of ``cell``: a weighted sum of cells' rows of one measure, group by group.

    No row where a cell was not measured.
    """
    rows = table[table["measure"] == measure].set_index("cell")
    if not set(weights) <= set(rows.index):
        return pd.DataFrame()
    numbers = rows.loc[list(weights)].filter(regex=r"^(whole|group\d+)$")
    n = int(rows.loc[list(weights), "n"].min())
    return pd.DataFrame([{"measure": name, "cell": cell, "n": n, **numbers.mul(list(weights.values()), axis=0).sum()}])


def intervals(table: pd.DataFrame) -> pd.DataFrame:
    """One row a measure and cell: its interval over groups, and what the cell's name says; guidance NaN where none.

    ``value`` is the mean of the pseudo-values. They take off a bias that falls as 1/n, as a Fréchet distance's does; a
    measure of neighbours has another, and their mean may leave the range of a share: ``whole`` is of all at once.
    """
    named = table["cell"].str.extract(r"^(?P<model>.+)@(?P<level>\d)/(?P<guidance>[\d.]+)$")
    found = [t_interval(row.tolist()) for row in values(table).values()]
    return table[["cell", "measure", "n", "whole"]].assign(
        model=named["model"],
        level=named["level"].astype(float),
        guidance=named["guidance"].astype(float),
        interval=pd.Series(found, dtype=object),
        value=[each.mean for each in found],
        low=[each.low for each in found],
        high=[each.high for each in found],
    )


def wide(rows: pd.DataFrame, names: Iterable[str], by: Sequence[str] = ("model", "guidance")) -> pd.DataFrame:
    """``intervals`` as ``figures.curves`` wants them: NAME, NAME_low, NAME_high a measure, a row each of ``by``."""
    columns = {"value": "", "low": "_low", "high": "_high"}
    parts = [
        rows.pivot(index=list(by), columns="measure", values=value)[list(names)].add_suffix(suffix)
        for value, suffix in columns.items()
    ]
    order = rows[list(by)].drop_duplicates()
    return order.merge(pd.concat(parts, axis=1).reset_index(), on=list(by))


def rank_correlations(table: pd.DataFrame, measure: str) -> pd.Series:
    """Spearman's correlation of a measure of all repeats together with guidance, by model and level."""
    named = intervals(table).query("measure == @measure and guidance == guidance")
    return named.groupby(["model", "level"], sort=False)[["guidance", "whole"]].apply(
        lambda rows: rows["guidance"].corr(rows["whole"], method="spearman")
    )
