"""Whether fine-tuning shows in what it trains, for one tuned model or the untuned base: errors on held-out works.

Does a tuned model predict the noise in unseen works better than the untuned one, and at which noise levels?
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import machine
from atelier.data import prepare
from atelier.data.prompts import prompt
from atelier.diffusion import noised
from atelier.evaluation.tables import read_rows, write_rows
from atelier.files import check_seal
from atelier.models import base
from atelier.models.adapters import tuned
from atelier.models.latents import encode_pictures, encode_prompts
from atelier.params import Params
from atelier.sampling.sampler import Seed, settled
from atelier.sampling.store import UNTUNED
from atelier.seeds import torch_generator
from atelier.studies.art_finetuning.params import Config
from atelier.training.denoiser import path, target
from atelier.workspace import Workspace

ERRORS = "held_out_errors"  # in the folder of measures
LEVELS = 10  # noise levels: midpoints of equal intervals of the training steps


def models(params: Params) -> list[str]:
    """The untuned base and the tuned models to diagnose."""
    return [UNTUNED, *Config.of(params).diagnosed]


def main(params: Params, workspace: Workspace, model: str) -> None:
    """Write ``build/measures/held_out_errors/MODEL.csv``."""
    if model not in models(params):
        raise ValueError(f"art_finetuning.diagnosed: no '{model}'")
    write_rows(held_out_errors(params, workspace, model), workspace.measures / ERRORS / f"{model}.csv")


def pipelines(params: Params, workspace: Workspace, model: str) -> Iterator[StableDiffusionPipeline]:
    """The pipeline of each group of repeats."""
    device = machine.accelerator(params.machine).device

    @lru_cache(maxsize=1)  # consecutive groups may share a seed; keep only one model in memory
    def of(seed: int) -> StableDiffusionPipeline:
        pipeline = base.load(check_seal(workspace.base))
        trained = (
            pipeline if model == UNTUNED else tuned(pipeline, check_seal(workspace.adapter(Config.STUDY, model, seed)))
        )
        return settled(trained, device)

    for repeats in params.protocol.groups:
        yield of(0 if model == UNTUNED else params.protocol.seed_of_repeat(repeats[0]))


def held_out_errors(params: Params, workspace: Workspace, model: str) -> pd.DataFrame:
    """Mean squared prediction error on held-out works, one row per noise level and one column per group.

    In the parameterisation that the model was trained in. All models get the same works, prompts and noise; a group's
    works are used with the model of its training seed.
    """
    groups = len(params.protocol.groups)
    table = prepare.works(workspace.manifests).table.query("split == 'test'").reset_index(drop=True)
    pictures = prepare.pictures(table, params.data, workspace)
    texts = [prompt(work, params.protocol.prompts.level, 0) for work in table.to_dict("records")]
    errors: dict[int, dict[str, float]] = {}
    for group, pipeline in enumerate(pipelines(params, workspace, model)):
        rows = list(range(group, len(table), groups))
        z0 = encode_pictures(pipeline.vae, pictures[rows]).mean
        embeddings = encode_prompts(pipeline, [texts[row] for row in rows])
        for level in range(LEVELS):
            names = list(table.loc[rows, "path"])
            t, error = error_at_level(params, pipeline, z0, embeddings, names, level)
            errors.setdefault(t, {})[f"group{group}"] = error
    rows_by_level = pd.DataFrame.from_dict(errors, orient="index").rename_axis("timestep").reset_index()
    return rows_by_level.assign(n=len(table), model=model)


def error_at_level(
    params: Params, pipeline: StableDiffusionPipeline, z0: Tensor, embeddings: Tensor, names: list[str], level: int
) -> tuple[int, float]:
    """The timestep of a noise level, and the model's mean squared error there."""
    alphas, sigmas, times = path(pipeline.scheduler)
    t = (2 * level + 1) * len(times) // (2 * LEVELS)
    seeds: list[Seed] = [(params.seed, "held-out error", name, level) for name in names]
    eps = torch.stack([torch.randn(z0.shape[1:], generator=torch_generator(*seed)) for seed in seeds])
    wanted = target(pipeline.scheduler.config.prediction_type, z0, eps, alphas[t], sigmas[t])
    zt = noised(z0, eps, alphas[t], sigmas[t])
    return t, float(squared_errors(params, pipeline, zt, wanted, times[t], embeddings).double().mean())


def squared_errors(
    params: Params, pipeline: StableDiffusionPipeline, zt: Tensor, wanted: Tensor, t: Tensor, embeddings: Tensor
) -> Tensor:
    """Mean squared error (n,) of the denoiser's output on ``zt`` (n, c, h, w), all at one time ``t``."""
    parts, batch = [], params.sampling.batch
    accelerator = machine.accelerator(params.machine)
    device = accelerator.device
    with torch.no_grad(), accelerator.autocast():
        for first in range(0, len(zt), batch):
            rows = slice(first, first + batch)
            output = pipeline.unet(zt[rows].to(device), t.to(device), embeddings[rows].to(device))
            parts.append((output.sample.float().cpu() - wanted[rows]).square().mean((1, 2, 3)))
    return torch.cat(parts)


def load_errors(params: Params, measures: Path) -> pd.DataFrame:
    """Load all models' errors by model and timestep."""
    tables = [read_rows(measures / ERRORS / f"{model}.csv", ("model", "timestep")) for model in models(params)]
    return pd.concat(tables).set_index(["model", "timestep"])
