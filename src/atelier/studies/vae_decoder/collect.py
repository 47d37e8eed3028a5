"""Collect rows for the page: cells with the original decoder, from the study that painted them."""

from atelier import claims
from atelier.evaluation import compared
from atelier.evaluation.tables import REAL, RECONSTRUCTED
from atelier.params import Params
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
    shown = {f"{model}@{level}/{guidance:g}" for model in config.models for guidance in config.guidance}
    return {REAL, RECONSTRUCTED} | shown | claims.cells_of(claims.load(config.STUDY))
