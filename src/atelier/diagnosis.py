"""Stage ``art_finetuning-diagnose``: two experiments that tell why a tuning shows in its pictures, or does not.

Held-out errors: does a tuned model find the noise in works that it never saw better than the untuned one, and at which
noise levels? That is what tuning trains; pictures come later. Carried means: the same prompts and noise, but first
latents that carry other works' means, as noised latents do in training and white noise does not (Everaert et al. 2024).
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import machine, paths
from atelier.data import prepare
from atelier.data.latents import encode_pictures, encode_prompts
from atelier.data.prompts import prompt
from atelier.diffusion import noised
from atelier.methods.signal_leak import carrying
from atelier.models import base
from atelier.params import Params
from atelier.sampling.adapters import tuned
from atelier.sampling.sampler import Seed, settled
from atelier.sampling.stages import sample_cells
from atelier.sampling.store import UNTUNED
from atelier.seeds import torch_generator
from atelier.training.art_finetuning import tuned_folder
from atelier.training.denoiser import path, target

ERRORS = paths.MEASURES / "held_out_errors.csv"
CARRIED = "carried"  # where the pictures lie, as if of a study
LEVELS = 10  # noise levels, the middles of as many equal parts of the training steps


def models(asked: Params) -> list[str]:
    """The untuned model, and those tuned ones that are looked into."""
    return [UNTUNED, *asked.art_finetuning.diagnosed]


def pipelines(asked: Params, model: str) -> Iterator[StableDiffusionPipeline]:
    """The model that paints each group of repeats."""
    study = asked.art_finetuning
    device = machine.accelerator(asked.machine).device

    @lru_cache(maxsize=1)  # several groups may have one seed; several models need not be held
    def of(seed: int) -> StableDiffusionPipeline:
        pipeline = base.load(paths.BASE)
        return settled(pipeline if model == UNTUNED else tuned(pipeline, tuned_folder(model, seed)), device)

    for at in range(len(study.groups)):
        yield of(0 if model == UNTUNED else study.seed_of_repeat(at))


def held_out_errors(asked: Params) -> pd.DataFrame:
    """Mean squared error of what a model predicts of held-out works, by model and noise level, a column a group.

    In the parameterisation that it was trained in. Every model sees the same works, prompts and noise; a
    group's works are seen by the models of its training seed.
    """
    study = asked.art_finetuning
    table = prepare.works().table.query("split == 'test'").reset_index(drop=True)
    pictures = prepare.pictures(table, asked.data)
    texts = [prompt(work, study.prompt_level, 0) for work in table.to_dict("records")]
    found: dict[tuple[str, int], dict[str, float]] = {}
    for model in models(asked):
        for at, pipeline in enumerate(pipelines(asked, model)):
            those = list(range(at, len(table), len(study.groups)))
            z0 = encode_pictures(pipeline.vae, pictures[those]).mean
            embeddings = encode_prompts(pipeline, [texts[place] for place in those])
            alphas, sigmas, times = path(pipeline.scheduler)
            for level in range(LEVELS):
                t = (2 * level + 1) * len(times) // (2 * LEVELS)
                seeds: list[Seed] = [(asked.seed, "held-out error", name, level) for name in table.loc[those, "path"]]
                eps = torch.stack([torch.randn(z0.shape[1:], generator=torch_generator(*seed)) for seed in seeds])
                wanted = target(pipeline.scheduler.config.prediction_type, z0, eps, alphas[t], sigmas[t])
                error = errors(pipeline, noised(z0, eps, alphas[t], sigmas[t]), wanted, times[t], embeddings, asked)
                found.setdefault((model, t), {})[f"group{at}"] = float(error.double().mean())
    rows = pd.DataFrame.from_dict(found, orient="index").rename_axis(["model", "timestep"])
    return rows.reset_index().assign(n=len(table))


def errors(
    pipeline: StableDiffusionPipeline, zt: Tensor, wanted: Tensor, t: Tensor, embeddings: Tensor, asked: Params
) -> Tensor:
    """Mean squared error (n,) of the denoiser's output on ``zt`` (n, c, h, w), all at one time ``t``."""
    parts, batch = [], asked.sampling.batch
    place = machine.accelerator(asked.machine)
    with torch.no_grad(), place.autocast():
        for start in range(0, len(zt), batch):
            some = slice(start, start + batch)
            output = pipeline.unet(zt[some].to(place.device), t.to(place.device), embeddings[some].to(place.device))
            parts.append((output.sample.float().cpu() - wanted[some]).square().mean((1, 2, 3)))
    return torch.cat(parts)


def carried_means(asked: Params) -> None:
    """Every diagnosed model's pictures at the lowest guidance, once more, from first latents that carry works' means.

    Prompts and white noise are those of the study, so that nothing else differs from its pictures.
    """
    known = means_of(prepare.works().table.query("split == 'train'"), asked)

    def start(pipeline: StableDiffusionPipeline, places: Sequence[tuple[int, int]], noise: Tensor) -> Tensor:
        drawn = [torch_generator(asked.seed, "carried mean", *place) for place in places]
        chosen = [int(torch.randint(len(known), (), generator=generator)) for generator in drawn]
        return carrying(known[chosen], noise, pipeline.scheduler, asked.sampling.steps)

    study = asked.art_finetuning
    for model in models(asked):
        out = paths.SAMPLES / CARRIED / model
        sample_cells(asked, model, study.prompt_level, "picture", out, [min(study.guidance)], start)


def means_of(works: pd.DataFrame, asked: Params) -> Tensor:
    """The means (n, c, 1, 1) of the works' latents."""
    vae = settled(base.load(paths.BASE), machine.accelerator(asked.machine).device).vae
    return encode_pictures(vae, prepare.pictures(works, asked.data)).mean.mean((2, 3), keepdim=True)


def main(asked: Params) -> None:
    ERRORS.parent.mkdir(parents=True, exist_ok=True)
    held_out_errors(asked).to_csv(ERRORS, index=False, float_format="%.12g")
    carried_means(asked)
