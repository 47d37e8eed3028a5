"""Tables of measures: one row per measure and cell, one column of pseudo-values per group.

A table's header ends in a column without values, whose name holds a checksum of everything else in the file. It is
there, and not in a last line, so that readers who know nothing of it see the rows as they are.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from atelier.evaluation.intervals import FloatArray, t_interval
from atelier.files import FileFault, parse_table, read_bytes, writing
from atelier.params import CORRECTED, WHITE, Params

Values = Mapping[tuple[str, str], FloatArray]  # (measure, cell) -> pseudo-values, one per group
Resolutions = Mapping[tuple[str, str], float]  # (measure, cell) -> the smallest possible change of a group's value

# means over pictures of something true or false
SHARES = {"precision", "recall", "density", "coverage", "near_features", "near_pixels", "subject", "style", "emotion"}
SHARES |= {"outliers", "reversed", "reversal"}
SHARES |= {f"{outcome}_{score}" for outcome in ("win", "tie", "lose", "net") for score in ("defects", "fit")}
STEPS = {"log_half_life": 1.0}

# reference rows
REAL, RECONSTRUCTED = "training works", "reconstructed held-out works"
RECONSTRUCTED_TRAINING = "reconstructed training works"
REFERENCE_ROWS = (REAL, RECONSTRUCTED, RECONSTRUCTED_TRAINING)
CELL = rf"^(?P<model>.+)@(?P<level>\d)/(?P<guidance>[\d.]+)(?:/(?P<start>{CORRECTED}))?$"
NUMBERS = "%.12g"  # float format of tables of measures


SEALED = re.compile(rb"(?P<header>[^\n]*),# sha256 (?P<digest>[0-9a-f]{64})\n(?P<rows>.*)", re.DOTALL)


def write_rows(rows: pd.DataFrame, path: Path, numbers: str = NUMBERS) -> None:
    """Write a table of measures with its checksum; ``numbers``: the format of floats."""
    with writing(path) as part:
        text = rows.to_csv(index=False, float_format=numbers)
        header, _, rest = text.partition("\n")
        digest = hashlib.sha256(text.encode()).hexdigest()
        part.write_bytes(f"{header},# sha256 {digest}\n{rest}".encode())


def read_rows(path: Path, columns: Sequence[str] = (), **options: Any) -> pd.DataFrame:
    """Read what ``write_rows`` wrote, which must have ``columns``; FileFault for a damaged file.

    ``options`` are passed to pandas' ``read_csv``.
    """
    match = SEALED.fullmatch(read_bytes(path))
    if match is None:
        raise FileFault(f"{path}: damaged: its first line does not end in a checksum; make the table again")
    content = match["header"] + b"\n" + match["rows"]
    if hashlib.sha256(content).hexdigest().encode() != match["digest"]:
        raise FileFault(f"{path}: damaged: its content is not what was written; make the table again")
    return parse_table(path, content, columns, **options)


def values(table: pd.DataFrame) -> Values:
    """A table of measures as a mapping, for verdicts."""
    groups = table.filter(regex=r"^group\d+$").to_numpy()
    return dict(zip(zip(table["measure"], table["cell"], strict=True), groups, strict=True))


def resolutions(table: pd.DataFrame) -> Resolutions:
    """The smallest possible change of a group's value, for measures that can be equal by chance.

    For a share one picture of the group; for the best half-life one octave.
    """
    groups, steps = table.filter(regex=r"^group\d+$").shape[1], {}
    for measure, cell, n in zip(table["measure"], table["cell"], table["n"], strict=True):
        if measure in STEPS:
            steps[measure, cell] = STEPS[measure]
        elif measure in SHARES and n:
            steps[measure, cell] = groups / n
    return steps


def combined(table: pd.DataFrame, measure: str, weights: Mapping[str, float], name: str, cell: str) -> pd.DataFrame:
    """A row ``name`` of ``cell``: the weighted sum of cells' values of one measure, group by group.

    Empty if one of the cells was not measured.
    """
    rows = table[table["measure"] == measure].set_index("cell")
    if not set(weights) <= set(rows.index):
        return pd.DataFrame()
    numbers = rows.loc[list(weights)].filter(regex=r"^(whole|group\d+)$")
    n = int(rows.loc[list(weights), "n"].min())
    return pd.DataFrame([{"measure": name, "cell": cell, "n": n, **numbers.mul(list(weights.values()), axis=0).sum()}])


def intervals(table: pd.DataFrame) -> pd.DataFrame:
    """One row per measure and cell: its interval over groups, and the parts of the cell's name (guidance may be NaN).

    ``value`` is the mean of the pseudo-values, which removes a bias of order 1/n, as a Fréchet distance has. Measures
    of neighbours have a different bias, so their mean may leave [0, 1]; ``whole`` is the measure of all pictures.
    """
    named = table["cell"].str.extract(CELL)
    means = [t_interval(row.tolist()) for row in values(table).values()]
    return table[["cell", "measure", "n", "whole"]].assign(
        model=named["model"],
        level=named["level"].astype(float),
        guidance=named["guidance"].astype(float),
        start=named["start"].fillna(WHITE).where(named["model"].notna()),
        interval=pd.Series(means, dtype=object),
        value=[each.mean for each in means],
        low=[each.low for each in means],
        high=[each.high for each in means],
    )


def wide(rows: pd.DataFrame, names: Iterable[str], by: Sequence[str] = ("model", "guidance")) -> pd.DataFrame:
    """``intervals`` as ``figures.curves`` takes them: NAME, NAME_low, NAME_high per measure, one row per ``by``."""
    columns = {"value": "", "low": "_low", "high": "_high"}
    parts = [
        rows.pivot(index=list(by), columns="measure", values=value)[list(names)].add_suffix(suffix)
        for value, suffix in columns.items()
    ]
    order = rows[list(by)].drop_duplicates()
    return order.merge(pd.concat(parts, axis=1).reset_index(), on=list(by))


def rank_correlations(table: pd.DataFrame, measure: str) -> pd.Series:
    """Spearman's correlation between guidance and a measure of all repeats together, by model, level and start."""
    named = intervals(table).query("measure == @measure and guidance == guidance")
    return named.groupby(["model", "level", "start"], sort=False)[["guidance", "whole"]].apply(
        lambda rows: rows["guidance"].corr(rows["whole"], method="spearman")
    )


def of_cells(table: pd.DataFrame, cells: Collection[str]) -> pd.DataFrame:
    """The rows of these cells."""
    return table[table["cell"].isin(cells)].reset_index(drop=True)


def described_groups(params: Params) -> str:
    """What the intervals of generated pictures are taken over, in words."""
    if len(params.protocol.training_seeds) > 1:
        return "intervals over training seeds, each with repeats of sampling of its own"
    return "intervals over repeats of sampling, for the adapters at hand"
