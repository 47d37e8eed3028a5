"""Cells of tuned models: where their pictures are, and what is measured of them."""

from pathlib import Path

import pandas as pd

from atelier import params
from atelier.evaluation.tables import REFERENCE_ROWS
from atelier.params import CORRECTED, STARTS, WHITE, Params
from atelier.studies.art_finetuning import measure, sample
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
    conditions = len(SMOKE.protocol.guidance) * len(STARTS)
    assert len(cells) == len(set(cells.values())) == conditions * (2 + len(config.variants))
    pictures = len(SMOKE.protocol.all_repeats) * SMOKE.protocol.pictures
    assert config.samples(SMOKE) == len(cells) * pictures  # both starts need their room
    assert cells["untuned@1/4"] == ("art_finetuning", "untuned", 4.0, WHITE, "")
    assert cells["untuned-again@1/4/corrected"] == ("art_finetuning", "untuned-again", 4.0, CORRECTED, "")
    assert cells["rank8-mixed@1/16"] == ("art_finetuning", "rank8-mixed", 16.0, WHITE, "")


def test_the_stage_measures_every_cell_of_a_model(config: Params, tuned_workspace: Workspace) -> None:
    for model in ("untuned", "mixed"):
        for seed in config.protocol.training_seeds:
            sample.main(config, tuned_workspace, model, str(seed))
        measure.main(config, tuned_workspace, model)
    folder = tuned_workspace.measures / "art_finetuning"
    tables = {model: pd.read_csv(folder / f"{model}.csv") for model in ("untuned", "mixed")}
    assert set(tables["mixed"]["cell"]) == set(measure.cells(config, "mixed"))
    assert set(tables["untuned"]["cell"]) == {*REFERENCE_ROWS, *measure.cells(config, "untuned")}
    groups = [f"group{number}" for number in range(len(config.protocol.groups))]
    for table in tables.values():
        assert {"fd", "fd_rec", "kd", "pr", "pr_rec", "psd_rec", "near_pixels"} <= set(table["measure"])
        assert table[["whole", *groups]].notna().all(axis=None)
        painted = table[~table["cell"].isin(REFERENCE_ROWS)]
        assert (painted["n"] == len(config.protocol.all_repeats) * config.protocol.pictures).all()
