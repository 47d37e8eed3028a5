"""Results of studies that compare models by their pictures: what their pages and verdicts share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from atelier import claims
from atelier.evaluation import tables
from atelier.evaluation.intervals import Interval, t_interval
from atelier.params import STARTS, WHITE, Params, cell_name
from atelier.report import sensitivity, words
from atelier.report.items import Table
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN
from atelier.verdicts import Evidence
from atelier.workspace import Workspace


@dataclass(frozen=True)
class Painted:
    """Measures of pictures that the protocol's prompts and guidance gave."""

    params: Params
    workspace: Workspace  # whose pictures are read when a figure needs them
    table: pd.DataFrame  # measures: one row per measure and cell, one pseudo-value per group of repeats

    @property
    def low(self) -> float:
        """The lowest guidance scale."""
        return min(self.params.protocol.guidance)

    @property
    def high(self) -> float:
        """The highest guidance scale."""
        return max(self.params.protocol.guidance)

    @property
    def n(self) -> int:
        """Pictures a cell."""
        return len(self.params.protocol.all_repeats) * self.params.protocol.pictures

    @cached_property
    def values(self) -> tables.Values:
        """Pseudo-values by measure and cell."""
        return tables.values(self.table)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Every measure of every cell with its interval."""
        return tables.intervals(self.table)

    def cell(self, model: str, guidance: float | None = None, start: str = WHITE) -> str:
        """The name of a model's cell at the protocol's level; at the lowest guidance scale where none is named."""
        return cell_name(model, self.params.protocol.prompts.level, guidance or self.low, start)

    def change(self, measure: str, changed: str, reference: str) -> Interval:
        """The interval of a measure's paired differences, cell ``changed`` less ``reference``."""
        return t_interval((self.values[measure, changed] - self.values[measure, reference]).tolist())

    @cached_property
    def floors(self) -> dict[str, float]:
        """What no denoiser can get below, by measure."""
        return sensitivity.floors(self.values, sensitivity.OF_DENOISERS)

    def sensitivity(self, control: str, held_out: int) -> Table:
        """What each distance is of real works, of the untuned model and of a control, from both starts."""
        models = [(name, {start: self.cell(name, None, start) for start in STARTS}) for name in (UNTUNED, control)]
        count = f"guidance {self.low:g}, {words.against_works(self.params, held_out, self.n)}"
        return sensitivity.table(self.values, models, sensitivity.OF_DENOISERS, count)

    def evidence(self, compared: Sequence[str]) -> Evidence:
        """What verdicts need; none can be trusted where the untuned model differs from itself in ``compared``."""
        again, once = self.cell(UNTUNED_AGAIN), self.cell(UNTUNED)
        return Evidence(
            values=self.values,
            resolutions=tables.resolutions(self.table),
            counts={"": self.n},
            over={"": tables.described_groups(self.params)},
            floors=self.floors,
            null_comparisons=[
                claims.Comparison(measure=name, changed=[again], reference=[once], rule="below") for name in compared
            ],
        )
