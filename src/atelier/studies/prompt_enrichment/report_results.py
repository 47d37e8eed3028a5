"""What the stages of the prompts study left, as its tables and figures read it."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from torch import Tensor

from atelier import claims
from atelier.data import prepare
from atelier.evaluation import compared, tables
from atelier.evaluation.intervals import Interval, t_interval
from atelier.params import Params
from atelier.report import words
from atelier.sampling import store
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN
from atelier.studies.prompt_enrichment.collect import SHOWN_OF
from atelier.studies.prompt_enrichment.params import Config

STUDY = Config.STUDY
COMPARED = ("fd", "pr", "psd")  # what the poster has, and by which chance is judged: the untuned model under two noises


@dataclass(frozen=True)
class Results:
    """Measures of one run. Pictures are read when a figure needs them."""

    params: Params
    table: pd.DataFrame  # measures: a row a measure and cell, a pseudo-value a group of repeats
    works: pd.DataFrame  # the manifest of held-out works

    @property
    def config(self) -> Config:
        return Config.of(self.params)

    @property
    def models(self) -> list[str]:
        """The untuned base, and the tuned models that paint from every level."""
        return [UNTUNED, *self.config.models]

    @property
    def levels(self) -> list[int]:
        """Prompt levels, the protocol's among them."""
        return sorted([*self.config.levels, self.params.protocol.prompts.level])

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

    @property
    def count(self) -> str:
        """n of a cell, for captions."""
        return words.against_works(self.params, len(self.works), self.n)

    @cached_property
    def values(self) -> tables.Values:
        return tables.values(self.table)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Every measure of every model, level and guidance scale with its interval."""
        summary = tables.intervals(self.table)
        rows = summary[summary["model"].isin(self.models) & summary["level"].isin(self.levels)]
        return rows.astype({"level": int})

    @property
    def cells(self) -> pd.DataFrame:
        """Measures less their bias: a row a model, level and guidance scale, a column a measure."""
        return self._by_model("value")

    @property
    def wholes(self) -> pd.DataFrame:
        """``cells``, measured on all repeats at once."""
        return self._by_model("whole")

    def change(self, measured: str, changed: str, reference: str) -> Interval:
        """The interval of a measure's paired differences, cell ``changed`` less ``reference``."""
        return t_interval((self.values[measured, changed] - self.values[measured, reference]).tolist())

    def generated(self, model: str, level: int, guidance: float) -> Tensor:
        """A model's pictures from prompts of one level, uint8 (n, 3, h, w)."""
        if level == self.params.protocol.prompts.level:
            return store.read(SHOWN_OF, model, guidance)[0]
        return store.read(STUDY, store.at_level(model, level), guidance)[0]

    def _by_model(self, column: str) -> pd.DataFrame:
        index = ["model", "level", "guidance"]
        return self.rows.pivot(index=index, columns="measure", values=column).loc[self.models]


def load(params: Params) -> Results:
    """Read what the stages left. Raises ValueError for samples that are missing, or of models no parameter names."""
    store.check_variants(STUDY, [UNTUNED, *Config.of(params).models])
    return Results(params, compared.load(STUDY), prepare.works().table.query("split == 'test'"))


def evidence(results: Results) -> claims.Evidence:
    """What the verdicts need. The untuned model under two noises tells whether they can be trusted."""
    end = f"@{results.params.protocol.prompts.level}/{results.low:g}"
    again, once = UNTUNED_AGAIN + end, UNTUNED + end
    return claims.Evidence(
        values=results.values,
        resolutions=tables.resolutions(results.table),
        counts={"": results.n},
        over={"": tables.described_groups(results.params)},
        baselines=[
            claims.Comparison(measure=name, changed=[again], reference=[once], rule="below") for name in COMPARED
        ],
    )
