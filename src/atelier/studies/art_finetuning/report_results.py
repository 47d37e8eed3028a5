"""What the stages of the fine-tuning study left, as its tables and figures read it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from atelier.data import prepare
from atelier.data.pictures import Pictures
from atelier.evaluation.tables import read_rows
from atelier.files import check_seal, read_table
from atelier.metrics import residual_spectrum_label
from atelier.params import WHITE, Params
from atelier.report import starts, words
from atelier.report.painted import Painted
from atelier.sampling import store
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN
from atelier.studies.art_finetuning import diagnose, measure, styles
from atelier.studies.art_finetuning.params import Config
from atelier.verdicts import Evidence
from atelier.workspace import Workspace

STUDY = Config.STUDY
PROMPTS = "prompt_enrichment"  # the study whose models paint from prompts of more levels
COMPARED = ("fd", "pr", "psd")  # what the poster has, and by which chance is judged: the untuned model under two noises


@dataclass(frozen=True)
class Results(Painted):
    """Measures, training losses and held-out errors of one run. Pictures are read when a figure needs them."""

    styles: pd.DataFrame  # distances between halves of styles' works, with intervals; empty where styles are small
    errors: pd.DataFrame  # held-out error by (model, timestep), one column per group of works
    history: pd.DataFrame  # training loss by variant, training seed and step
    works: pd.DataFrame  # the manifest of works, both splits

    @property
    def config(self) -> Config:
        return Config.of(self.params)

    @property
    def models(self) -> list[str]:
        """The untuned base and every variant."""
        return [UNTUNED, *self.config.variants]

    @property
    def held_out(self) -> int:
        """The number of held-out works, which everything is measured against."""
        return int((self.works["split"] == "test").sum())

    @property
    def count(self) -> str:
        """n of a cell, for captions."""
        return words.against_works(self.params, self.held_out, self.n)

    @property
    def highest_rank(self) -> list[str]:
        """The adapters of the highest rank."""
        adapters = self.config.adapters
        top = max(adapter.rank or 0 for adapter in adapters.values())
        return [name for name in self.config.variants if adapters[name].rank == top]

    @property
    def residual_label(self) -> str:
        """How PR is computed, for captions."""
        return residual_spectrum_label(self.params.data.size, self.params.data.size)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """``summary`` of the models' cells: prompts of the protocol's level, both starts."""
        at_level = self.summary["level"] == self.params.protocol.prompts.level
        return self.summary[self.summary["model"].isin(self.models) & at_level]

    @property
    def cells(self) -> pd.DataFrame:
        """Measures less their bias: one row per model, guidance scale and start, one column per measure."""
        return self._by_model("value")

    @property
    def wholes(self) -> pd.DataFrame:
        """``cells``, measured on all repeats at once."""
        return self._by_model("whole")

    def real(self, split: str) -> Pictures:
        """Works of a split."""
        return prepare.pictures(self.works[self.works["split"] == split], self.params.data, self.workspace)

    def generated(self, model: str, guidance: float, start: str = WHITE) -> Pictures:
        """A model's pictures."""
        painted = store.Location(STUDY, model, guidance, start)
        return store.read(painted.folders(self.workspace.samples, self.params.protocol.training_seeds))[0]

    def _by_model(self, column: str) -> pd.DataFrame:
        return starts.pivoted(self.rows, ["model", "guidance"], column).loc[self.models]


def load(params: Params, workspace: Workspace) -> Results:
    """Read what the stages left. Raises ValueError for samples that are missing, or of variants no parameter names."""
    store.check_variants(workspace.samples / STUDY, [UNTUNED, *Config.of(params).variants, UNTUNED_AGAIN])
    measures = workspace.measures
    rows = [measure.load(params, measures), _rows_of_prompts(measures)]
    return Results(
        params=params,
        workspace=workspace,
        table=by_acquaintance_last(pd.concat(rows, ignore_index=True)),
        styles=styles.load(measures),
        errors=diagnose.load_errors(params, measures),
        history=_history(params, workspace),
        works=prepare.works(workspace.manifests).table,
    )


def evidence(results: Results) -> Evidence:
    """What the verdicts need."""
    return results.evidence([*COMPARED, *starts.RECONSTRUCTED])


def floors(results: Results) -> dict[str, float]:
    """The value of each measure that no model can get below."""
    return results.floors


def by_acquaintance_last(table: pd.DataFrame) -> pd.DataFrame:
    """All rows, ordered so that works by known and then by unknown artists come last."""
    artists = table["cell"].str.extract(r"-(known|unknown)@", expand=False).fillna("")
    return table.iloc[artists.argsort(kind="stable")].reset_index(drop=True)


def _rows_of_prompts(measures: Path) -> pd.DataFrame:
    """Measures of pictures from prompts of that study's levels, the untuned model's first."""
    files = sorted((measures / PROMPTS).glob("*.csv"), key=lambda path: (path.stem != UNTUNED, path.stem))
    return pd.concat([pd.DataFrame(), *(read_rows(path) for path in files)], ignore_index=True)


def _history(params: Params, workspace: Workspace) -> pd.DataFrame:
    """Training losses of all variants and seeds."""
    histories = [
        read_table(check_seal(workspace.adapter(STUDY, name, seed)) / "history.csv").assign(
            variant=name, training_seed=seed
        )
        for name in Config.of(params).variants
        for seed in params.protocol.training_seeds
    ]
    return pd.concat(histories, ignore_index=True)
