"""Measure a model's pictures decoded by retuned decoders, with one pseudo-value per group of repeats.

A model's latents are the same for every decoder; with the original decoder they are cells of another study.
"""

from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from atelier import scratch
from atelier.data.pictures import Pictures
from atelier.evaluation import judges
from atelier.evaluation import reference as references
from atelier.evaluation.cells import truth_of_works
from atelier.evaluation.groups import groups_of, measured
from atelier.evaluation.tables import read_rows, write_rows
from atelier.params import STARTS, Params, cell_name
from atelier.sampling.store import UNTUNED, Location, at_level, listed, read_latents
from atelier.studies.vae_decoder.decoding import MAIN, decoded, decoders
from atelier.studies.vae_decoder.params import TUNED_BY, Config
from atelier.workspace import Workspace

PLAIN_WORDS = "plain-words"  # the untuned base with prompts of level 0 and the decoder retuned with the complete loss
PROMPTS = "prompt_enrichment"  # the study that painted them


class Redecoded(NamedTuple):
    """A cell: the location of its latents, and the variant that decodes them."""

    location: Location
    decoder: str


def main(params: Params, workspace: Workspace, model: str) -> None:
    """Write ``build/measures/vae_decoder/MODEL.csv``; MODEL may be ``plain-words``."""
    config, out, located = Config.of(params), table_of(workspace.measures, model), cells(params, model)
    samples = workspace.samples
    folders = {samples / each.location.study / each.location.model for each in located.values()}
    inputs = [*sorted(folders), workspace.base, workspace.decoders]
    inputs += [workspace.reference, workspace.evaluator, workspace.manifests]
    run = scratch.of_stage(params, workspace, __name__, out, inputs, config=config.model_dump(mode="json"))
    reference, by = references.load(workspace.reference), judges.load(params, workspace)
    truth = truth_of_works(workspace.manifests)
    retuned = lru_cache(maxsize=1)(partial(decoders, params, workspace))

    def rows_of(cell: Redecoded) -> pd.DataFrame:
        painted = cell.location.folders(samples, params.protocol.training_seeds)
        table, latents = listed(painted), read_latents(painted)
        repeats, vaes = table["repeat"].tolist(), retuned(cell.decoder)

        def made(numbers: list[int]) -> Tensor:
            return decoded(params, vaes, latents[numbers], [repeats[number] for number in numbers])

        pictures = Pictures(made, np.arange(len(latents)))
        return measured(reference, groups_of(pictures, table, params.protocol.groups, by, truth))

    rows = [pd.DataFrame({name: [] for name in ("measure", "n", "whole", "cell")})]
    rows += [scratch.table(run, name, partial(rows_of, cell)).assign(cell=name) for name, cell in located.items()]
    write_rows(pd.concat(rows[1:] or rows, ignore_index=True), out)
    scratch.discard(run)


def cells(params: Params, model: str) -> dict[str, Redecoded]:
    """A model's cells, MODEL+DECODER@LEVEL/GUIDANCE; for ``plain-words``: ``untuned-decoder@0/GUIDANCE``.

    Of both starts.
    """
    config, level = Config.of(params), params.protocol.prompts.level
    located = list(product(config.guidance, STARTS))
    if model == PLAIN_WORDS:
        if MAIN not in config.variants or 0 not in params.section(PROMPTS).levels:
            return {}
        return {
            cell_name(f"{UNTUNED}-decoder", 0, *each): Redecoded(Location(PROMPTS, UNTUNED, *each, at_level(0)), MAIN)
            for each in located
        }
    if model not in config.models:
        raise ValueError(f"vae_decoder.models: no '{model}'")
    return {
        cell_name(f"{model}+{decoder}", level, *each): Redecoded(Location(TUNED_BY, model, *each), decoder)
        for decoder, each in product(config.variants, located)
    }


def table_of(measures: Path, model: str) -> Path:
    return measures / Config.STUDY / f"{model}.csv"


def load(params: Params, measures: Path) -> pd.DataFrame:
    """Load the rows of all models."""
    models = [*Config.of(params).models, PLAIN_WORDS]
    return pd.concat([read_rows(table_of(measures, model)) for model in models], ignore_index=True)
