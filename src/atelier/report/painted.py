"""Results of studies that compare models by their pictures: what their pages and verdicts share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from atelier import claims
from atelier.evaluation import tables
from atelier.evaluation.intervals import Interval, t_interval
from atelier.params import Params
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN
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
        return self.params.protocol.repeats * self.params.protocol.pictures

    @cached_property
    def values(self) -> tables.Values:
        """Pseudo-values by measure and cell."""
        return tables.values(self.table)

    def change(self, measure: str, changed: str, reference: str) -> Interval:
        """The interval of a measure's paired differences, cell ``changed`` less ``reference``."""
        return t_interval((self.values[measure, changed] - self.values[measure, reference]).tolist())

    def evidence(self, compared: Sequence[str]) -> claims.Evidence:
        """What verdicts need; none can be trusted where the untuned model differs from itself in ``compared``."""
        end = f"@{self.params.protocol.prompts.level}/{self.low:g}"
        again, once = UNTUNED_AGAIN + end, UNTUNED + end
        return claims.Evidence(
            values=self.values,
            resolutions=tables.resolutions(self.table),
            counts={"": self.n},
            over={"": tables.described_groups(self.params)},
            null_comparisons=[
                claims.Comparison(measure=name, changed=[again], reference=[once], rule="below") for name in compared
            ],
        )
