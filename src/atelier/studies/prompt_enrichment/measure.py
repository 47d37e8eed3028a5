"""Measure one model's pictures from prompts of the other levels against held-out works."""

from itertools import product
from pathlib import Path

import pandas as pd

from atelier import scratch
from atelier.evaluation import reference as references
from atelier.evaluation.cells import by_known_artist, measure_cells
from atelier.evaluation.tables import read_rows, write_rows
from atelier.params import STARTS, Params, cell_name
from atelier.sampling.store import UNTUNED, Location, at_level
from atelier.studies.prompt_enrichment.params import Config
from atelier.workspace import Workspace


def main(params: Params, workspace: Workspace, model: str) -> None:
    """Write ``build/measures/prompt_enrichment/MODEL.csv``."""
    out, located = table_of(workspace.measures, model), cells(params, model)
    samples = workspace.samples / Config.STUDY / model
    inputs = [samples, workspace.reference, workspace.evaluator, workspace.manifests]
    run = scratch.of_stage(params, workspace, __name__, out, inputs)
    rows = measure_cells(params, workspace, references.load(workspace.reference), located, run)
    if model == UNTUNED:
        rows.append(by_known_artist(params, workspace, located))
    write_rows(pd.concat(rows, ignore_index=True), out)
    scratch.discard(run)


def cells(params: Params, model: str) -> dict[str, Location]:
    """A model's cells by name, MODEL@LEVEL/GUIDANCE, of both starts."""
    config = Config.of(params)
    return {
        cell_name(model, level, guidance, start): Location(config.STUDY, model, guidance, start, at_level(level))
        for level, guidance, start in product(config.levels, params.protocol.guidance, STARTS)
    }


def table_of(measures: Path, model: str) -> Path:
    return measures / Config.STUDY / f"{model}.csv"


def load(params: Params, measures: Path) -> pd.DataFrame:
    """Load the rows of all models."""
    models = [UNTUNED, *Config.of(params).models]
    return pd.concat([read_rows(table_of(measures, model)) for model in models], ignore_index=True)
