"""Measure one model's pictures from prompts of the other levels against held-out works."""

import pandas as pd

from atelier import paths, scratch
from atelier.evaluation import reference as references
from atelier.evaluation.cells import Location, by_acquaintance, measure_cells
from atelier.evaluation.tables import write_rows
from atelier.params import Params
from atelier.sampling.store import UNTUNED, at_level
from atelier.studies.prompt_enrichment.params import Config

OUT = paths.MEASURES / Config.STUDY


def main(params: Params, model: str) -> None:
    """Write ``build/measures/prompt_enrichment/MODEL.csv``."""
    out, located = OUT / f"{model}.csv", cells(params, model)
    inputs = [paths.SAMPLES / Config.STUDY / model, paths.REFERENCE, paths.EVALUATOR, paths.MANIFESTS]
    run = scratch.of_stage(params, __name__, out, inputs)
    rows = measure_cells(params, references.load(), located, run)
    if model == UNTUNED:
        rows.append(by_acquaintance(params, located))
    write_rows(pd.concat(rows, ignore_index=True), out)
    scratch.discard(run)


def cells(params: Params, model: str) -> dict[str, Location]:
    """A model's cells by name, MODEL@LEVEL/GUIDANCE."""
    config = Config.of(params)
    return {
        f"{model}@{level}/{guidance:g}": Location(config.STUDY, at_level(model, level), guidance)
        for level in config.levels
        for guidance in params.protocol.guidance
    }


def load(params: Params) -> pd.DataFrame:
    """Load the rows of all models."""
    models = [UNTUNED, *Config.of(params).models]
    return pd.concat([pd.read_csv(OUT / f"{model}.csv") for model in models], ignore_index=True)
