"""Both starts of sampling on a page: names, curves' axes, rows by start, and where the two disagree."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from atelier.evaluation import tables
from atelier.evaluation.intervals import Interval, t_interval
from atelier.metrics.summary import SLOPE_LOW
from atelier.params import CORRECTED, STARTS, WHITE
from atelier.report import words
from atelier.report.items import Text

NAMES = {WHITE: "white noise", CORRECTED: "corrected start"}
# axis labels: each measure against works, and beside it against reconstructed works
AXES = {
    "fd": "FD",
    "fd_rec": "FD, reconstructed works",
    "pr": "PR",
    "pr_rec": "PR, reconstructed works",
    "psd": f"PSD (from {SLOPE_LOW} cycles)",
    "psd_rec": "PSD, reconstructed works",
}
RECONSTRUCTED = ("fd_rec", "pr_rec", "psd_rec")
PARTS = {"fd_mean": "means", "fd_spread": "covariances"}  # of FD


class Changed(NamedTuple):
    """One comparison in one measure at both starts, changed less reference."""

    measure: str
    changed: str  # cells, named from white noise
    reference: str
    white: Interval
    corrected: Interval

    @property
    def opposed(self) -> bool:
        """Whether the signs differ and neither interval holds zero."""
        return self.white.low > 0 > self.corrected.high or self.corrected.low > 0 > self.white.high

    @property
    def text(self) -> str:
        return f"{words.signed(self.white)} from white noise, {words.signed(self.corrected)} from the corrected start"


def from_start(cell: str, start: str) -> str:
    """The cell of a start, from the name of that from white noise; a metric's name likewise."""
    return cell if start == WHITE else f"{cell}/{start}"


def pivoted(rows: pd.DataFrame, index: Sequence[str], column: str) -> pd.DataFrame:
    """Rows of ``tables.intervals`` with one row per ``index`` and start, white noise first, and a column a measure."""
    ordered = rows.assign(start=pd.Categorical(rows["start"], STARTS))
    return ordered.pivot(index=[*index, "start"], columns="measure", values=column)


def changes(values: tables.Values, pairs: Iterable[tuple[str, str]], measures: Sequence[str]) -> list[Changed]:
    """Changes at both starts of pairs (changed, reference) of cells, named from white noise; only what was measured."""
    listed = []
    for changed, reference in pairs:
        for measure in measures:
            ends = [[(measure, from_start(cell, start)) for cell in (changed, reference)] for start in STARTS]
            if all(key in values for each in ends for key in each):
                intervals = [t_interval((values[one] - values[two]).tolist()) for one, two in ends]
                listed.append(Changed(measure, changed, reference, *intervals))
    return listed


def disagreements(values: tables.Values, pairs: Sequence[tuple[str, str]], measures: Sequence[str]) -> Text:
    """Where the two starts disagree in the sign of a change, both intervals excluding zero, and why."""
    compared = changes(values, pairs, measures)
    opposed = [each for each in compared if each.opposed]
    if not opposed:
        none = "have opposite signs at the two starts with both intervals clear of zero"
        return Text(f"None of {len(compared)} changes ({', '.join(map(str.upper, measures))}) {none}.")
    lines = [f"{len(opposed)} of {len(compared)} changes have opposite signs at the two starts:"]
    for each in opposed:
        lines.append(f"  {each.measure.upper()} of {each.changed} against {each.reference}: {each.text}.")
        lines += [f"    {line}" for line in _reasons(values, each)]
    if any(each.measure.startswith("psd") for each in opposed):
        lines.append("PSD is an absolute difference: it also turns where slopes lie on either side of the reference's.")
    lines.append(
        "From white noise, a change is also one of what a denoiser makes of first latents that training never showed "
        "it; the corrected start leaves that out. Verdicts follow white noise, from which the papers sample."
    )
    return Text("\n".join(lines))


def _reasons(values: tables.Values, change: Changed) -> list[str]:
    """Which part of FD turns, means or covariances; nothing for measures that have no such parts."""
    if change.measure != "fd":
        return []
    parts = changes(values, [(change.changed, change.reference)], list(PARTS))
    turned = [PARTS[part.measure] for part in parts if part.white.mean * part.corrected.mean < 0]
    lines = [f"between the {PARTS[part.measure]}: {part.text}" for part in parts]
    return [*lines, f"what turns: {' and '.join(turned) or 'neither part by itself'}"] if parts else []
