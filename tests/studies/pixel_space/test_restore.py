"""Held-out works are noised and denoised, the same ones for every variant, so that their layout stays."""

import shutil

import pandas as pd
import pytest
import torch
from diffusers import StableDiffusionPipeline

from atelier import params
from atelier.files import remove, write_seal, write_table
from atelier.models import base
from atelier.models.latents import encode_pictures, encode_prompts
from atelier.sampling import store
from atelier.sampling.sampler import last_latents, settled, with_ddim
from atelier.studies.pixel_space import restore as stage
from atelier.studies.pixel_space.params import UNTUNED, Config, seeds_of
from atelier.studies.pixel_space.pictures import HELD_OUT, folder, pictures, split
from atelier.studies.pixel_space.variant import load
from atelier.workspace import Workspace
from studies.pixel_space.conftest import NAMES, Studied


@pytest.fixture
def pipeline(workspace: Workspace) -> StableDiffusionPipeline:
    made = settled(with_ddim(base.load(workspace.base)), torch.device("cpu"))
    made.set_progress_bar_config(disable=True)
    return made


def test_from_the_first_step_on_it_is_the_samplers_own_picture(pipeline: StableDiffusionPipeline) -> None:
    """At full strength: the work noised to the first step, handed to the library's sampler."""
    z0, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1)).unbind(0)
    prompts, steps = ["a boat", "two fish", "a face"], 4
    words, empty = encode_prompts(pipeline, prompts), encode_prompts(pipeline, [""])
    made = stage.denoised(pipeline, z0, noise, words, empty=empty, guidance=4.0, steps=steps, taken=steps)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(steps)
    level = scheduler.alphas_cumprod[scheduler.timesteps[0]]
    first = level.sqrt() * z0 + (1 - level).sqrt() * noise
    by_hand = torch.cat(list(last_latents(pipeline, prompts, first, guidance=4.0, steps=steps, batch=3)))
    torch.testing.assert_close(made, by_hand, rtol=1e-4, atol=1e-4)


def test_a_denoiser_that_knows_the_noise_returns_the_work(
    pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of steps; without it fewer steps leave more of the work."""
    z0, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(2)).unbind(0)
    words, empty = encode_prompts(pipeline, ["a boat", "a face"]), encode_prompts(pipeline, [""])

    def away(taken: int) -> float:
        made = stage.denoised(pipeline, z0, noise, words, empty=empty, guidance=2.0, steps=20, taken=taken)
        return float((made - z0).square().mean())

    few, half, all_of_them = away(1), away(8), away(20)
    assert few < half < all_of_them
    real = pipeline.unet.forward

    def knowing(z: torch.Tensor, *given: object, **named: object) -> object:
        said = real(z, *given, **named)
        said.sample = torch.cat([noise, noise])
        return said

    monkeypatch.setattr(pipeline.unet, "forward", knowing)
    # DDIM ends at the cleanest step of training, not at the work itself
    level = float(pipeline.scheduler.alphas_cumprod[0])
    expected = float((level**0.5 * z0 + (1 - level) ** 0.5 * noise - z0).square().mean())
    assert away(8) == pytest.approx(expected, abs=1e-4)
    assert away(20) == pytest.approx(expected, abs=1e-4)


def test_every_variant_restores_the_same_works(studied: Studied) -> None:
    config, workspace = studied
    latents = {}
    for variant in (UNTUNED, *NAMES):
        out = [stage.restored_at(workspace, variant, seed) for seed in seeds_of(config, variant)]
        assert all(map(stage.is_restored, out))
        table, latents[variant] = store.listed(out), store.read_latents(out)
        assert len(table) == len(config.protocol.all_repeats) * Config.of(config).restored
        if variant == UNTUNED:
            first = table
        pd.testing.assert_frame_equal(table, first, obj=variant)
    assert list(stage.held_out(workspace, first)["path"]) == list(first["path"])
    for name, values in latents.items():
        assert [other for other, last in latents.items() if torch.equal(values, last)] == [name]


def test_what_is_restored_is_the_work_of_the_prompt(studied: Studied) -> None:
    """By hand, with another number of works in a batch."""
    config, workspace = studied
    out = [stage.restored_at(workspace, "both", 1)]
    table, last = store.listed(out), store.read_latents(out)
    pipeline = settled(load(config, workspace, "both", 1), torch.device("cpu"))
    z0 = encode_pictures(pipeline.vae, pictures(config, workspace, stage.held_out(workspace, table))).mean
    noise = stage.white_noise(config, stage.NOISE)(pipeline, table)
    words, empty = encode_prompts(pipeline, list(table["prompt"])), encode_prompts(pipeline, [""])
    how = {"empty": empty, "guidance": 4.0, "steps": config.sampling.steps, "taken": 1}
    made = stage.denoised(pipeline, z0, noise, words, **how)
    torch.testing.assert_close(made, last, rtol=1e-4, atol=1e-4)


def test_without_painted_works_a_note_is_left(config: params.Params, workspace: Workspace) -> None:
    """Nobody knows where their subjects are."""
    made = folder(workspace).resolve()
    folder(workspace).unlink()
    shutil.copytree(made, folder(workspace))
    table = folder(workspace) / f"{HELD_OUT}.csv"
    write_table(table, split(workspace, HELD_OUT).drop(columns=["seed", "index"]))
    write_seal(folder(workspace))
    stage.write_restored(config, workspace, UNTUNED, 0)
    out = stage.restored_at(workspace, UNTUNED, 0)
    assert not stage.is_restored(out)
    assert "not painted" in (out / stage.ABSENT).read_text()
    remove(out / stage.ABSENT)
    with pytest.raises(ValueError, match=r"absent\.txt: missing"):
        stage.is_restored(out)
