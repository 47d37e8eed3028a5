"""Two experiments on whether and why fine-tuning shows in pictures, for one tuned model or the untuned base.

Held-out errors: does a tuned model predict the noise in unseen works better than the untuned one, and at which noise
levels? This is what training optimises. Carried means: the same prompts and noise, but first latents with works' means
added, as noised latents have them in training and white noise does not (Everaert et al. 2024).
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import machine, scratch
from atelier.data import prepare
from atelier.data.prompts import prompt
from atelier.diffusion import noised
from atelier.evaluation import reference as references
from atelier.evaluation.cells import Location, measure_cells
from atelier.evaluation.tables import read_rows, write_rows
from atelier.files import check_seal
from atelier.methods.signal_leak import add_leak
from atelier.models import base
from atelier.models.adapters import tuned
from atelier.models.latents import encode_pictures, encode_prompts
from atelier.params import Params
from atelier.sampling.conditions import Condition, Start, sample_model, white_noise
from atelier.sampling.held_out import held_out_table
from atelier.sampling.sampler import Seed, settled
from atelier.sampling.store import UNTUNED, guidance_folder
from atelier.seeds import torch_generator
from atelier.studies.art_finetuning.params import Config
from atelier.training.denoiser import path, target
from atelier.workspace import Workspace

ERRORS = "held_out_errors"  # in the folder of measures
CARRIED = "carried"  # folder of the pictures, in place of a study's name, and of their measures
LEVELS = 10  # noise levels: midpoints of equal intervals of the training steps


def models(params: Params) -> list[str]:
    """The untuned base and the tuned models to diagnose."""
    return [UNTUNED, *Config.of(params).diagnosed]


def main(params: Params, workspace: Workspace, model: str) -> None:
    """Write one model's errors, its pictures from first latents with works' means, and their measures."""
    if model not in models(params):
        raise ValueError(f"art_finetuning.diagnosed: no '{model}'")
    errors = held_out_errors(params, workspace, model)
    paint_carried(params, workspace, model)
    inputs = [workspace.samples / CARRIED / model, workspace.reference, workspace.evaluator, workspace.manifests]
    out = workspace.measures / CARRIED / f"{model}.csv"
    run = scratch.of_stage(params, workspace, __name__, out, inputs)
    cells = {carried_cell(params, model): carried_location(params, model)}
    rows = measure_cells(params, workspace, references.load(workspace.reference), cells, run)
    write_rows(pd.concat(rows, ignore_index=True), out)
    write_rows(errors, workspace.measures / ERRORS / f"{model}.csv")
    scratch.discard(run)


def carried_location(params: Params, model: str) -> Location:
    return Location(CARRIED, model, min(params.protocol.guidance))


def carried_cell(params: Params, model: str) -> str:
    """The cell name of a model's pictures from first latents with works' means."""
    return f"{model}-{CARRIED}@{params.protocol.prompts.level}/{min(params.protocol.guidance):g}"


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

    for group in range(len(params.protocol.groups)):
        yield of(0 if model == UNTUNED else params.protocol.seed_of_repeat(group))


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


def paint_carried(params: Params, workspace: Workspace, model: str) -> None:
    """Paint a model's pictures at the lowest guidance from first latents with works' means.

    Prompts and white noise are those of the study, so that nothing else differs from its pictures.
    """
    manifests = workspace.manifests
    table = held_out_table(params, manifests, params.protocol.prompts.level, params.protocol.pictures)
    guidance = min(params.protocol.guidance)
    folder = f"{model}/{guidance_folder(guidance)}"
    condition = Condition(folder, table, latents_with_means(params, workspace), guidance, params.sampling.steps)
    out, works = workspace.samples / CARRIED, scratch.digest(workspace.root, manifests)
    sample_model(params, workspace, __name__, Config.STUDY, model, [condition], out, [model], works=works)


def latents_with_means(params: Params, workspace: Workspace) -> Start:
    """White noise plus the mean of a training work's latent, drawn for each picture."""
    means = means_of(prepare.works(workspace.manifests).table.query("split == 'train'"), params, workspace)
    white = white_noise(params, "picture")

    def start(pipeline: StableDiffusionPipeline, rows: pd.DataFrame) -> Tensor:
        keys = zip(rows["repeat"].tolist(), rows["place"].tolist(), strict=True)
        generators = [torch_generator(params.seed, "carried mean", *key) for key in keys]
        chosen = [int(torch.randint(len(means), (), generator=generator)) for generator in generators]
        return add_leak(means[chosen], white(pipeline, rows), pipeline.scheduler, params.sampling.steps)

    return start


def means_of(works: pd.DataFrame, params: Params, workspace: Workspace) -> Tensor:
    """Means (n, c, 1, 1) of the works' latents."""
    vae = settled(base.load(check_seal(workspace.base)), machine.accelerator(params.machine).device).vae
    return encode_pictures(vae, prepare.pictures(works, params.data, workspace)).mean.mean((2, 3), keepdim=True)


def load_errors(params: Params, measures: Path) -> pd.DataFrame:
    """Load all models' errors by model and timestep."""
    tables = [read_rows(measures / ERRORS / f"{model}.csv", ("model", "timestep")) for model in models(params)]
    return pd.concat(tables).set_index(["model", "timestep"])


def load_carried(params: Params, measures: Path) -> pd.DataFrame:
    """Load measures of all models' pictures from first latents with works' means."""
    tables = [read_rows(measures / CARRIED / f"{model}.csv") for model in models(params)]
    return pd.concat(tables, ignore_index=True)
