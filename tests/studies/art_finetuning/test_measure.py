"""Cells of tuned models: where their pictures are, and what is measured of them."""

from pathlib import Path

import pandas as pd

from atelier import params
from atelier.evaluation.tables import REAL, RECONSTRUCTED
from atelier.params import Params
from atelier.studies.art_finetuning import diagnose, measure, sample
from atelier.studies.art_finetuning.params import Config
from atelier.workspace import Workspace

SMOKE = params.load(Path(__file__).parents[3] / "profiles" / "smoke.yaml")


def test_every_cell_has_its_folder() -> None:
    config = Config.of(SMOKE)
    cells = {
        name: location
        for model in ("untuned", *config.variants)
        for name, location in measure.cells(SMOKE, model).items()
    }
    carried = {diagnose.carried_cell(SMOKE, model): diagnose.carried_location(SMOKE, model) for model in
               diagnose.models(SMOKE)}  # fmt: skip
    assert len(cells) == len(SMOKE.protocol.guidance) * (2 + len(config.variants))
    assert len(carried) == 1 + len(config.diagnosed)
    assert cells["untuned@1/4"] == ("art_finetuning", "untuned", 4.0)
    assert cells["rank8-mixed@1/16"] == ("art_finetuning", "rank8-mixed", 16.0)
    assert carried["untuned-carried@1/4"] == ("carried", "untuned", 4.0)
    both = {**cells, **carried}
    assert len(set(both.values())) == len(both) == len(cells) + len(carried)


def test_the_stage_measures_every_cell_of_a_model(config: Params, tuned_workspace: Workspace) -> None:
    for model in ("untuned", "mixed"):
        sample.main(config, tuned_workspace, model)
        measure.main(config, tuned_workspace, model)
    folder = tuned_workspace.measures / "art_finetuning"
    tables = {model: pd.read_csv(folder / f"{model}.csv") for model in ("untuned", "mixed")}
    assert set(tables["mixed"]["cell"]) == set(measure.cells(config, "mixed"))
    assert set(tables["untuned"]["cell"]) == {REAL, RECONSTRUCTED, *measure.cells(config, "untuned")}
    groups = [f"group{number}" for number in range(len(config.protocol.groups))]
    for table in tables.values():
        assert {"fd", "kid", "pr", "near_pixels"} <= set(table["measure"])
        assert table[["whole", *groups]].notna().all(axis=None)
        painted = table[~table["cell"].isin([REAL, RECONSTRUCTED])]
        assert (painted["n"] == config.protocol.repeats * config.protocol.pictures).all()
