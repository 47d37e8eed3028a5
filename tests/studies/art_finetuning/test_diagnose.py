"""Held-out errors: what they are of."""

import pandas as pd
import pytest
import torch

from atelier.data import prepare
from atelier.models import base
from atelier.params import Params
from atelier.sampling import store
from atelier.studies.art_finetuning import diagnose
from atelier.studies.art_finetuning.params import Config
from atelier.workspace import Workspace
from tolerance import assert_close


def test_held_out_errors_are_the_denoisers_mean_squared_errors(config: Params, tuned_workspace: Workspace) -> None:
    by_model = [diagnose.held_out_errors(config, tuned_workspace, model) for model in diagnose.models(config)]
    table = pd.concat(by_model).set_index(["model", "timestep"])
    groups = [f"group{number}" for number in range(len(config.protocol.groups))]
    assert list(table.columns) == [*groups, "n"]
    assert len(table) == diagnose.LEVELS * (1 + len(Config.of(config).diagnosed))
    assert (table["n"] == len(prepare.works(tuned_workspace.manifests).table.query("split == 'test'"))).all()
    # an untrained denoiser that says next to nothing is as wrong as the noise is large
    untuned = table.loc[store.UNTUNED, groups].to_numpy()
    assert untuned.mean() == pytest.approx(1.0, abs=0.3)
    # and learns in a few steps: nearly everywhere where there is noise to find
    for model in Config.of(config).diagnosed:
        tuned = table.loc[model, groups].to_numpy()
        assert (tuned < untuned).mean() > 0.8
        assert tuned.min() > 0


@pytest.mark.parametrize(("seeds", "groups"), [([0, 1], "01"), ([1, 0], "10"), ([1], "11")])
def test_a_groups_works_are_used_with_the_model_of_its_training_seed(
    config: Params, tuned_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, seeds: list[int], groups: str
) -> None:
    monkeypatch.setattr(diagnose, "tuned", lambda _, folder: folder.name)
    monkeypatch.setattr(diagnose, "settled", lambda name, device: name)
    config = config.model_copy(update={"protocol": config.protocol.model_copy(update={"training_seeds": seeds})})
    assert list(diagnose.pipelines(config, tuned_workspace, "mixed")) == list(groups)


def test_errors_are_of_one_time_and_prompt_a_work(config: Params, workspace: Workspace) -> None:
    pipeline = base.load(workspace.base)
    zt = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    words = torch.randn(3, 56, pipeline.text_encoder.config.hidden_size, generator=torch.Generator().manual_seed(2))
    t = torch.tensor(400)
    with torch.no_grad():
        output = torch.cat([pipeline.unet(zt[i : i + 1], t, words[i : i + 1]).sample for i in range(3)])
    errors = diagnose.squared_errors(config, pipeline, zt, output + 0.5, t, words)
    assert_close(errors, torch.full((3,), 0.25), relative=0, absolute=1e-5)


def test_the_stage_leaves_errors_of_every_model(config: Params, tuned_workspace: Workspace) -> None:
    for model in diagnose.models(config):
        diagnose.main(config, tuned_workspace, model)
    errors = diagnose.load_errors(config, tuned_workspace.measures)
    assert len(errors) == diagnose.LEVELS * len(diagnose.models(config))
    with pytest.raises(ValueError, match=r"art_finetuning\.diagnosed: no 'conditional'"):
        diagnose.main(config, tuned_workspace, "conditional")
