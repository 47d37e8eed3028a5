"""What the stages of the prompts study left, as its tables and figures read it."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from atelier.data import prepare
from atelier.data.pictures import Pictures
from atelier.evaluation.tables import read_rows
from atelier.params import WHITE, Params
from atelier.report import starts, words
from atelier.report.painted import Painted
from atelier.sampling import store
from atelier.sampling.store import UNTUNED
from atelier.studies.prompt_enrichment.collect import SHOWN_OF
from atelier.studies.prompt_enrichment.params import Config
from atelier.verdicts import Evidence
from atelier.workspace import Workspace

STUDY = Config.STUDY
COMPARED = ("fd", "pr", "psd")  # what the poster has, and by which chance is judged: the untuned model under two noises


@dataclass(frozen=True)
class Results(Painted):
    """Measures of one run. Pictures are read when a figure needs them."""

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
    def count(self) -> str:
        """n of a cell, for captions."""
        return words.against_works(self.params, len(self.works), self.n)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Every measure of every model, level, guidance scale and start with its interval."""
        summary = self.summary
        rows = summary[summary["model"].isin(self.models) & summary["level"].isin(self.levels)]
        return rows.astype({"level": int})

    @property
    def cells(self) -> pd.DataFrame:
        """Measures less their bias: one row per model, level, guidance scale and start, one column per measure."""
        return self._by_model("value")

    @property
    def wholes(self) -> pd.DataFrame:
        """``cells``, measured on all repeats at once."""
        return self._by_model("whole")

    def generated(self, model: str, level: int, guidance: float, start: str = WHITE) -> Pictures:
        """A model's pictures from prompts of one level."""
        return self.painted(model, level, guidance, start)[0]

    def painted(self, model: str, level: int, guidance: float, start: str = WHITE) -> tuple[Pictures, pd.DataFrame]:
        """A model's pictures from prompts of one level, and their table."""
        seeds = self.params.protocol.training_seeds
        if level == self.params.protocol.prompts.level:
            located, seeds = store.Location(SHOWN_OF, model, guidance, start), seeds[:1]
        else:
            located = store.Location(STUDY, model, guidance, start, store.at_level(level))
        return store.read(located.folders(self.workspace.samples, seeds))

    def _by_model(self, column: str) -> pd.DataFrame:
        return starts.pivoted(self.rows, ["model", "level", "guidance"], column).loc[self.models]


def load(params: Params, workspace: Workspace) -> Results:
    """Read what the stages left. Raises ValueError for samples that are missing, or of models no parameter names."""
    store.check_variants(workspace.samples / STUDY, [UNTUNED, *Config.of(params).models])
    table = read_rows(workspace.compared(STUDY))
    return Results(params, workspace, table, prepare.works(workspace.manifests).table.query("split == 'test'"))


def evidence(results: Results) -> Evidence:
    """What the verdicts need."""
    return results.evidence([*COMPARED, *starts.RECONSTRUCTED])


def floors(results: Results) -> dict[str, float]:
    """The value of each measure that no model can get below."""
    return results.floors
