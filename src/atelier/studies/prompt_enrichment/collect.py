"""Collect rows for the page from three studies' measures: cells of all levels, and cells that claims name."""

from itertools import product
from pathlib import Path

from atelier import claims
from atelier.evaluation import compared
from atelier.evaluation.tables import REFERENCE_ROWS
from atelier.files import check_seal, copy, read_table, write_seal, write_table
from atelier.params import STARTS, Params, cell_name
from atelier.sampling.store import TABLE, UNTUNED, UNTUNED_AGAIN, Location
from atelier.studies.prompt_enrichment.params import CONTROL, TUNED_BY, Config
from atelier.workspace import Workspace, replacing

SHOWN, SHOWN_OF = (
    12,
    "prompt_enrichment-protocol-level",
)  # pictures a row of the page's sheets; the sheet at the protocol's level
DECODER = "vae_decoder"  # the study that decodes the untuned base's pictures again


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/compared/prompt_enrichment.csv``, and the pictures that the page shows of another study."""
    config, measures, samples = Config.of(params), workspace.measures, workspace.samples
    models = [UNTUNED, *config.models]
    tables = [measures / TUNED_BY / f"{model}.csv" for model in [UNTUNED, *params.section(TUNED_BY).variants]]
    tables += [measures / config.STUDY / f"{model}.csv" for model in models]
    tables.append(measures / DECODER / "plain-words.csv")
    compared.collect(tables, cells(params), workspace.compared(config.STUDY))
    seed, cells_of = params.protocol.training_seeds[0], product(params.protocol.guidance, STARTS)
    shown = [Location(TUNED_BY, model, *each).folder(samples, seed) for each in cells_of for model in models]
    with replacing(samples / SHOWN_OF) as part:
        for cell in shown:
            copy_shown(cell, part / cell.relative_to(samples / TUNED_BY))


def copy_shown(source: Path, out: Path) -> None:
    """Copy the first pictures of a cell at the protocol's level, which another study painted."""
    table = read_table(check_seal(source) / TABLE, ("file",), keep_default_na=False).head(SHOWN)
    for name in table["file"]:
        copy(source / name, out / name)
    write_table(out / TABLE, table)
    write_seal(out)


def cells(params: Params) -> set[str]:
    """All cells that the page shows or compares."""
    config = Config.of(params)
    levels = {*config.levels, params.protocol.prompts.level}
    words = ("known", "unknown")
    models = [UNTUNED, UNTUNED_AGAIN, *(f"{UNTUNED}-{word}" for word in words), f"{UNTUNED}-decoder", *config.models]
    shown = {cell_name(*each) for each in product(models, levels, params.protocol.guidance, STARTS)}
    control = {cell_name(CONTROL, params.protocol.prompts.level, min(params.protocol.guidance), s) for s in STARTS}
    return {*REFERENCE_ROWS, *shown, *control} | claims.cells_of(claims.load(config.STUDY))
