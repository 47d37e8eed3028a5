"""Measure one model's pictures against held-out works, with one pseudo-value per group of repeats.

For the untuned base this adds the rows that all models are compared with: the base with other noise, real works, and
its cells split by whether it was trained on a work's artist.
"""

from itertools import product
from pathlib import Path

import pandas as pd

from atelier import scratch
from atelier.evaluation import reference as references
from atelier.evaluation.cells import by_known_artist, measure_cells, real_rows
from atelier.evaluation.tables import read_rows, write_rows
from atelier.params import STARTS, Params, cell_name
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN, Location
from atelier.studies.art_finetuning.params import Config
from atelier.workspace import Workspace


def main(params: Params, workspace: Workspace, model: str) -> None:
    """Write ``build/measures/art_finetuning/MODEL.csv``."""
    out = table_of(workspace.measures, model)
    reference, located = references.load(workspace.reference), cells(params, model)
    samples = [workspace.samples / Config.STUDY / name for name in folders(model)]
    inputs = [*samples, workspace.reference, workspace.evaluator, workspace.manifests]
    run = scratch.of_stage(params, workspace, __name__, out, inputs)
    rows = []
    if model == UNTUNED:
        protocol = params.protocol
        each = len(protocol.all_repeats) * protocol.pictures // len(protocol.groups)
        rows += real_rows(params, workspace, reference, each)
    rows += measure_cells(params, workspace, reference, located, run)
    if model == UNTUNED:
        rows.append(by_known_artist(params, workspace, located))
    write_rows(pd.concat(rows, ignore_index=True), out)
    scratch.discard(run)


def folders(model: str) -> list[str]:
    """Folders of a model's pictures, for the untuned base also its folders from other noise."""
    return [model, *([UNTUNED_AGAIN] if model == UNTUNED else [])]


def cells(params: Params, model: str) -> dict[str, Location]:
    """A model's cells by name, MODEL@LEVEL/GUIDANCE, of both starts."""
    level = params.protocol.prompts.level
    return {
        cell_name(folder, level, guidance, start): Location(Config.STUDY, folder, guidance, start)
        for folder, guidance, start in product(folders(model), params.protocol.guidance, STARTS)
    }


def table_of(measures: Path, model: str) -> Path:
    return measures / Config.STUDY / f"{model}.csv"


def load(params: Params, measures: Path) -> pd.DataFrame:
    """Load the rows of all models."""
    models = [UNTUNED, *Config.of(params).variants]
    return pd.concat([read_rows(table_of(measures, model)) for model in models], ignore_index=True)
