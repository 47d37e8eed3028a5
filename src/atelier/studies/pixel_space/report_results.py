"""What the page of pixel-space post-training shows, as its stages measured it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from atelier.evaluation import tables
from atelier.evaluation.intervals import Interval, t_interval
from atelier.evaluation.judges import Bar
from atelier.params import Params
from atelier.report import words
from atelier.report.browser import Browsed
from atelier.studies.pixel_space.params import UNTUNED, Config, against

VOTES = "anonymous_pixel_space.csv"  # in the folder of papers
NOTHING = "nothing"  # a cell with 0 in every measure, that differences are compared with
MEASURING, CHOOSING = "measuring", "choosing"  # judges: of what was made, and of what is learnt
OVER = "-over-"
DEFECTS, FIT = "defects", "fit"
INTERVALS = "95 % intervals over groups, not adjusted for their number"
BASELINE = "baseline"  # the paper's word for the base


@dataclass(frozen=True)
class Results:
    """What was chosen, trained and measured. A cell is a variant, the base, or a pair of two cells' pictures."""

    params: Params
    config: Config
    n_learnt: int  # works that supervised variants learn
    n_held_out: int  # works whose prompts are painted, and that measures compare with
    pairs: pd.DataFrame  # of preferences: one a row, with both pictures' scores
    cards: Mapping[str, Sequence[Mapping[str, Any]]]  # of trainings, by variant, one a training seed
    history: pd.DataFrame  # of all trainings, with columns ``variant`` and ``training_seed``
    probes: pd.DataFrame  # errors of pairs on fixed draws at checkpoints: step, accuracy, winner, loser
    rows: pd.DataFrame  # measures of all cells
    every_pair: pd.DataFrame  # outcomes of each pair of the base and main variants, by start, measure and group
    gradients: pd.DataFrame  # norms before training: t, form, n, and one column a group
    bars: Sequence[Bar]  # what the judges have to be able to do
    browsed: Browsed  # pictures of the base and of every main variant, from both starts
    first_pairs: Mapping[str, Tensor]  # of the first pairs: the best and the worst, (n, 3, h, w) uint8
    decoded: Mapping[str, Tensor]  # of one work by noise level: decoded at it, and the estimates, (n, 3, h, w) uint8
    decoded_at: Sequence[int]  # the same levels
    votes: pd.DataFrame  # the paper's six tables

    @property
    def groups(self) -> int:
        return len(self.params.protocol.groups)

    @property
    def n(self) -> int:
        """Pictures a cell of a variant that is trained from all seeds."""
        return len(self.params.protocol.all_repeats) * self.config.pictures

    @cached_property
    def values(self) -> tables.Values:
        """Values by measure and cell, one a group: variants of fewer seeds have fewer."""
        return {key: row[np.isfinite(row)] for key, row in tables.values(self.rows).items()}

    @cached_property
    def resolutions(self) -> tables.Resolutions:
        """The smallest possible change of a group's value, where a table has a column for each group of all seeds."""
        groups = max(len(row) for row in self.values.values())
        return {key: step * len(self.values[key]) / groups for key, step in tables.resolutions(self.rows).items()}

    @cached_property
    def whole(self) -> Mapping[tuple[str, str], float]:
        """Measures of all pictures of a cell together, by measure and cell."""
        return dict(zip(zip(self.rows["measure"], self.rows["cell"], strict=True), self.rows["whole"], strict=True))

    @cached_property
    def _counts(self) -> Mapping[tuple[str, str], int]:
        return dict(zip(zip(self.rows["measure"], self.rows["cell"], strict=True), self.rows["n"], strict=True))

    def n_of(self, measure: str, cell: str) -> int:
        """Pictures, pairs, or works that a measure of a cell was taken of."""
        return int(self._counts[measure, cell])

    def has(self, measure: str, *cells: str) -> bool:
        """Whether a measure of each of these cells was taken."""
        return all((measure, cell) in self.values for cell in cells)

    def interval(self, measure: str, cell: str) -> Interval:
        """A measure over groups; KeyError where it was not measured."""
        return t_interval(self.values[measure, cell].tolist())

    def change(self, measure: str, cell: str, reference: str) -> Interval:
        """Of a cell less the reference, group by group."""
        return t_interval((self.values[measure, cell] - self.values[measure, reference]).tolist())

    def cells(self, measure: str = DEFECTS) -> list[str]:
        """The base and all variants that have a measure, from white noise."""
        return [cell for cell in (UNTUNED, *self.config.names) if self.has(measure, cell)]

    @property
    def pair_cells(self) -> list[tuple[str, str]]:
        """The pairs of cells whose pictures were compared one by one, from white noise."""
        known = (UNTUNED, *self.config.names)
        return [(a, b) for b in known for a in known if self.has(f"net_{DEFECTS}", against(a, b))]

    @property
    def is_validated(self) -> bool:
        """Whether the judge that measures has shown that it tells each planted defect; if not, it judges nothing."""
        mine = bars_of(self.bars, MEASURING)
        return bool(mine) and all(bar.met for bar in mine)

    @property
    def counted(self) -> str:
        """n of variants' pictures, for a caption."""
        fewest = min(self.n_of(DEFECTS, cell) for cell in self.cells())
        of_fewer = f" (of ablations {fewest})" if fewest < self.n else ""
        pictures = words.pictures(self.params, self.n, "row")
        return (
            f"{pictures}{of_fewer}, against {self.n_held_out} held-out works; same prompts and noise; guidance "
            f"{self.config.guidance:g}"
        )

    @property
    def paired(self) -> str:
        """n of pairs of pictures, for a caption."""
        sizes = sorted({self.n_of(f"net_{DEFECTS}", against(*pair)) for pair in self.pair_cells}, reverse=True)
        return f"n = {' or '.join(map(str, sizes))} pairs a row, of the same prompt and noise, in groups of repeats"


def bars_of(bars: Sequence[Bar], role: str) -> list[Bar]:
    """The bars of one of the judges."""
    return [bar for bar in bars if bar.name.startswith(f"defect judge, {role}, ")]


def scaled(interval: Interval, factor: float) -> Interval:
    """An interval in other units."""
    ends = sorted((interval.low * factor, interval.high * factor))
    return Interval(interval.mean * factor, ends[0], ends[1], interval.n)


def points(interval: Interval) -> Interval:
    """A share in per cent, or a difference of shares in points."""
    return scaled(interval, 100.0)


def dotted(rows: Sequence[tuple[str, str, Interval]]) -> pd.DataFrame:
    """Rows (label, group, interval) as ``figures.dots`` draws them; a label stands at the first of its rows."""
    labels = [label if not at or rows[at - 1][0] != label else "" for at, (label, _, _) in enumerate(rows)]
    table = [{"group": group, "value": each.mean, "low": each.low, "high": each.high} for _, group, each in rows]
    return pd.DataFrame(table, index=labels)
