"""Held-out errors and first latents with works' means: what they are of, and that nothing else differs."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier import diagnosis, params, paths
from atelier.data import prepare
from atelier.models import base
from atelier.sampling import stages, store
from atelier.sampling.store import UNTUNED
from atelier.training import art_finetuning


@pytest.fixture
def asked(in_tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> params.Params:
    for name in ("ADAPTERS", "SAMPLES"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    asked = params.load()
    for variant in asked.art_finetuning.diagnosed:
        for seed in asked.art_finetuning.training_seeds:
            art_finetuning.train(asked, variant, seed)
    return asked


def test_held_out_errors_are_the_denoisers_mean_squared_errors(asked: params.Params) -> None:
    table = diagnosis.held_out_errors(asked).set_index(["model", "timestep"])
    groups = len(asked.art_finetuning.groups)
    assert list(table.columns) == [*(f"group{at}" for at in range(groups)), "n"]
    assert len(table) == diagnosis.LEVELS * (1 + len(asked.art_finetuning.diagnosed))
    assert (table["n"] == len(prepare.works().table.query("split == 'test'"))).all()
    # an untrained denoiser that says next to nothing is as wrong as the noise is large
    untuned = table.loc[UNTUNED].drop(columns="n").to_numpy()
    assert untuned.mean() == pytest.approx(1.0, abs=0.3)
    # and learns in a few steps: nearly everywhere where there is noise to find
    for model in asked.art_finetuning.diagnosed:
        tuned = table.loc[model].drop(columns="n").to_numpy()
        assert (tuned < untuned).mean() > 0.8
        assert tuned.min() > 0


def test_errors_are_of_one_time_and_prompt_a_work(asked: params.Params) -> None:
    pipeline = base.load(paths.BASE)
    zt = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    words = torch.randn(3, 56, pipeline.text_encoder.config.hidden_size, generator=torch.Generator().manual_seed(2))
    t = torch.tensor(400)
    with torch.no_grad():
        output = torch.cat([pipeline.unet(zt[i : i + 1], t, words[i : i + 1]).sample for i in range(3)])
    found = diagnosis.errors(pipeline, zt, output + 0.5, t, words, asked)
    torch.testing.assert_close(found, torch.full((3,), 0.25), rtol=0, atol=1e-5)


def by_file(study: str, model: str, guidance: float) -> tuple[Tensor, pd.DataFrame]:
    pictures, listed = store.read(study, model, guidance)
    order = listed["file"].argsort().to_numpy()
    return pictures[order], listed.iloc[order].reset_index(drop=True)


def test_carried_pictures_are_the_studys_but_for_the_first_latent(
    asked: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is carried, they are the study's own, picture by picture."""
    least = min(asked.art_finetuning.guidance)
    models = [UNTUNED, *asked.art_finetuning.diagnosed]
    white = {}
    for model in models:
        stages.sample_variant(asked, model)
        white[model] = by_file("art_finetuning", model, least)
    diagnosis.carried_means(asked)
    carried = {model: by_file(diagnosis.CARRIED, model, least) for model in models}
    monkeypatch.setattr(diagnosis, "carrying", lambda means, noise, scheduler, steps: noise)
    diagnosis.carried_means(asked)
    for model in models:
        pictures, listed = white[model]
        assert not torch.equal(carried[model][0], pictures)
        pd.testing.assert_frame_equal(carried[model][1], listed)
        assert torch.equal(by_file(diagnosis.CARRIED, model, least)[0], pictures)


def test_means_are_of_the_latents_of_works(asked: params.Params) -> None:
    works = prepare.works().table.query("split == 'train'").reset_index(drop=True)
    means = diagnosis.means_of(works, asked)
    assert means.shape == (len(works), 4, 1, 1)
    torch.testing.assert_close(diagnosis.means_of(works.iloc[[2]], asked), means[2:3], rtol=1e-4, atol=1e-5)
