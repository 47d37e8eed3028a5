"""Collect rows for the page: cells with the original decoder, from the study that painted them."""

from itertools import product

from atelier import claims
from atelier.evaluation import compared
from atelier.evaluation.tables import REFERENCE_ROWS
from atelier.params import STARTS, Params, cell_name
from atelier.sampling.store import UNTUNED
from atelier.studies.vae_decoder.params import TUNED_BY, Config
from atelier.workspace import Workspace


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/compared/vae_decoder.csv``."""
    models = [UNTUNED, *params.section(TUNED_BY).variants]
    tables = [workspace.measures / TUNED_BY / f"{model}.csv" for model in models]
    compared.collect(tables, cells(params), workspace.compared(Config.STUDY))


def cells(params: Params) -> set[str]:
    """All cells with the original decoder that the page shows or compares, and real works."""
    config, level = Config.of(params), params.protocol.prompts.level
    shown = {cell_name(model, level, *each) for model in config.models for each in product(config.guidance, STARTS)}
    return {*REFERENCE_ROWS, *shown} | claims.cells_of(claims.load(config.STUDY))
