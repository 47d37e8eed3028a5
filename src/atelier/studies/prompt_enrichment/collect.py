"""Collect rows for the page from three studies' measures: cells of all levels, and those that claims name."""

import shutil
from pathlib import Path

import pandas as pd

from atelier import claims, paths
from atelier.evaluation import compared
from atelier.params import Params
from atelier.sampling.store import TABLE, UNTUNED, UNTUNED_AGAIN, guidance_folder
from atelier.studies.prompt_enrichment.params import TUNED_BY, Config

SHOWN, SHOWN_OF = (
    12,
    "prompt_enrichment-protocol-level",
)  # pictures a row of the page's sheets; those at the protocol's level
DECODER = "vae_decoder"  # the study that decodes the untuned base's pictures again


def main(params: Params) -> None:
    """Write ``build/compared/prompt_enrichment.csv``, and the pictures that the page shows of another study."""
    config = Config.of(params)
    tables = [paths.MEASURES / TUNED_BY / f"{model}.csv" for model in [UNTUNED, *params.section(TUNED_BY).variants]]
    tables += [paths.MEASURES / config.STUDY / f"{model}.csv" for model in [UNTUNED, *config.models]]
    tables.append(paths.MEASURES / DECODER / "plain-words.csv")
    compared.collect(config.STUDY, tables, cells(params))
    with paths.replacing(paths.SAMPLES / SHOWN_OF) as part:
        for model in [UNTUNED, *config.models]:
            for guidance in params.protocol.guidance:
                copy_shown(Path(model) / guidance_folder(guidance), part)


def copy_shown(folder: Path, out: Path) -> None:
    """Copy the first pictures of a cell at the protocol's level, which another study painted."""
    source = paths.SAMPLES / TUNED_BY / folder
    table = pd.read_csv(source / TABLE, keep_default_na=False).head(SHOWN)
    (out / folder).mkdir(parents=True)
    for name in table["file"]:
        shutil.copyfile(source / name, out / folder / name)
    table.to_csv(out / folder / TABLE, index=False)


def cells(params: Params) -> set[str]:
    """All cells that the page shows or compares."""
    config = Config.of(params)
    levels = {*config.levels, params.protocol.prompts.level}
    words = ("known", "unknown")
    models = [UNTUNED, UNTUNED_AGAIN, *(f"{UNTUNED}-{word}" for word in words), f"{UNTUNED}-decoder", *config.models]
    shown = {
        f"{model}@{level}/{guidance:g}" for model in models for level in levels for guidance in params.protocol.guidance
    }
    return shown | claims.cells_of(claims.load(config.STUDY))
