"""Measure one model's pictures against held-out works, with one pseudo-value per group of repeats.

For the untuned base this adds the rows that all models are compared with: the base with other noise, real works, and
its cells split by whether it was trained on a work's artist.
"""

import pandas as pd

from atelier import paths, scratch
from atelier.evaluation import reference as references
from atelier.evaluation.cells import Location, by_acquaintance, measure_cells, real_rows
from atelier.evaluation.tables import write_rows
from atelier.params import Params
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN
from atelier.studies.art_finetuning.params import Config

OUT = paths.MEASURES / Config.STUDY


def main(params: Params, model: str) -> None:
    """Write ``build/measures/art_finetuning/MODEL.csv``."""
    out = OUT / f"{model}.csv"
    reference, located = references.load(), cells(params, model)
    samples = [paths.SAMPLES / Config.STUDY / name for name in folders(model)]
    inputs = [*samples, paths.REFERENCE, paths.EVALUATOR, paths.MANIFESTS]
    run = scratch.of_stage(params, __name__, out, inputs)
    rows = []
    if model == UNTUNED:
        protocol = params.protocol
        each = protocol.repeats * protocol.pictures // len(protocol.groups)
        rows += real_rows(params, reference, each, references.returned_works())
    rows += measure_cells(params, reference, located, run)
    if model == UNTUNED:
        rows.append(by_acquaintance(params, located))
    write_rows(pd.concat(rows, ignore_index=True), out)
    scratch.discard(run)


def folders(model: str) -> list[str]:
    """Folders of a model's pictures, for the untuned base also those from other noise."""
    return [model, *([UNTUNED_AGAIN] if model == UNTUNED else [])]


def cells(params: Params, model: str) -> dict[str, Location]:
    """A model's cells by name, MODEL@LEVEL/GUIDANCE."""
    level = params.protocol.prompts.level
    return {
        f"{folder}@{level}/{guidance:g}": Location(Config.STUDY, folder, guidance)
        for folder in folders(model)
        for guidance in params.protocol.guidance
    }


def load(params: Params) -> pd.DataFrame:
    """Load the rows of all models."""
    models = [UNTUNED, *Config.of(params).variants]
    return pd.concat([pd.read_csv(OUT / f"{model}.csv") for model in models], ignore_index=True)
