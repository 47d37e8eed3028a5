"""Held-out errors and first latents with works' means: what they are of, and that nothing else differs."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier.data import prepare
from atelier.models import base
from atelier.params import Params
from atelier.sampling import store
from atelier.studies.art_finetuning import diagnose, sample
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


def test_errors_are_of_one_time_and_prompt_a_work(config: Params, workspace: Workspace) -> None:
    pipeline = base.load(workspace.base)
    zt = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    words = torch.randn(3, 56, pipeline.text_encoder.config.hidden_size, generator=torch.Generator().manual_seed(2))
    t = torch.tensor(400)
    with torch.no_grad():
        output = torch.cat([pipeline.unet(zt[i : i + 1], t, words[i : i + 1]).sample for i in range(3)])
    errors = diagnose.squared_errors(config, pipeline, zt, output + 0.5, t, words)
    assert_close(errors, torch.full((3,), 0.25), relative=0, absolute=1e-5)


def by_file(samples: Path, study: str, model: str, guidance: float) -> tuple[Tensor, pd.DataFrame]:
    pictures, listed = store.read(samples, study, model, guidance)
    order = listed["file"].argsort().to_numpy()
    return pictures[torch.from_numpy(order.copy())], listed.iloc[order].reset_index(drop=True)


def test_carried_pictures_are_the_studys_but_for_the_first_latent(
    config: Params, tuned_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is carried, they are the study's own, picture by picture."""
    least, models, samples = min(config.protocol.guidance), diagnose.models(config), tuned_workspace.samples
    white, carried = {}, {}
    for model in models:
        sample.main(config, tuned_workspace, model)
        white[model] = by_file(samples, "art_finetuning", model, least)
        diagnose.paint_carried(config, tuned_workspace, model)
        carried[model] = by_file(samples, diagnose.CARRIED, model, least)
    monkeypatch.setattr(diagnose, "add_leak", lambda means, noise, scheduler, steps: noise)
    for model in models:
        diagnose.paint_carried(config, tuned_workspace, model)
        pictures, listed = white[model]
        assert not torch.equal(carried[model][0], pictures)
        pd.testing.assert_frame_equal(carried[model][1], listed)
        assert torch.equal(by_file(samples, diagnose.CARRIED, model, least)[0], pictures)


def test_means_are_of_the_latents_of_works(config: Params, workspace: Workspace) -> None:
    works = prepare.works(workspace.manifests).table.query("split == 'train'").reset_index(drop=True)
    means = diagnose.means_of(works, config, workspace)
    assert means.shape == (len(works), 4, 1, 1)
    assert_close(diagnose.means_of(works.iloc[[2]], config, workspace), means[2:3], relative=1e-4, absolute=1e-5)


def test_the_stage_leaves_errors_and_measures_of_every_model(config: Params, tuned_workspace: Workspace) -> None:
    for model in diagnose.models(config):
        diagnose.main(config, tuned_workspace, model)
    measures = tuned_workspace.measures
    errors, carried = diagnose.load_errors(config, measures), diagnose.load_carried(config, measures)
    assert len(errors) == diagnose.LEVELS * len(diagnose.models(config))
    assert set(carried["cell"]) == {diagnose.carried_cell(config, model) for model in diagnose.models(config)}
    assert {"fd", "kid", "psd"} <= set(carried["measure"])
    with pytest.raises(ValueError, match=r"art_finetuning\.diagnosed: no 'conditional'"):
        diagnose.main(config, tuned_workspace, "conditional")
