"""Stage ``art_finetuning-diagnose``: two experiments that tell why a tuning shows in its pictures, or does not.

Held-out errors: does a tuned model find the noise in works that it never saw better than the untuned one, and at which
noise levels? That is what tuning trains; pictures come later. Carried means: the same prompts and noise, but first
latents that carry other works' means, which white noise lacks and no tuning can give (Everaert et al. 2024).
"""

import shutil
from collections.abc import Iterator

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import machine, paths
from atelier.data import prepare
from atelier.data.latents import encode_pictures, encode_prompts
from atelier.data.prompts import prompt
from atelier.diffusion import noised, v_target
from atelier.methods.signal_leak import carrying
from atelier.models import base
from atelier.params import Params
from atelier.sampling.adapters import tuned
from atelier.sampling.sampler import Seed, first_latents, sample, with_ddim
from atelier.sampling.stages import held_out_prompts
from atelier.sampling.store import UNTUNED, guidance_folder, write
from atelier.seeds import torch_generator
from atelier.training.art_finetuning import tuned_folder
from atelier.training.denoiser import path

ERRORS = paths.MEASURES / "held_out_errors.csv"
CARRIED = "carried"  # where the pictures lie, as if of a study
LEVELS = 10  # noise levels, the middles of as many equal parts of the training steps


def models(asked: Params) -> list[str]:
    """The untuned model, and those tuned ones that are looked into."""
    return [UNTUNED, *asked.art_finetuning.diagnosed]


def pipelines(asked: Params, model: str) -> Iterator[tuple[list[int], StableDiffusionPipeline]]:
    """Groups of repeats as the measures have them, each with the model that paints it."""
    study = asked.art_finetuning
    device = machine.accelerator(asked.machine).device
    for at, repeats in enumerate(study.groups):
        pipeline = with_ddim(base.load(paths.BASE))
        if model != UNTUNED:
            pipeline = tuned(pipeline, tuned_folder(model, study.seed_of_repeat(at)))
        yield repeats, pipeline.to(device)


def held_out_errors(asked: Params) -> pd.DataFrame:
    """Mean squared error of what a model predicts of held-out works, by model and noise level, a column a group.

    In the parameterisation that it was trained in, noise or v. Every model sees the same works, prompts and noise; a
    group's works are seen by the models of its training seed.
    """
    study = asked.art_finetuning
    table = prepare.works().table.query("split == 'test'").reset_index(drop=True)
    pictures = prepare.pictures(table, asked.data)
    texts = [prompt(work, study.prompt_level, 0) for work in table.to_dict("records")]
    found: dict[tuple[str, int], dict[str, float]] = {}
    for model in models(asked):
        for at, (_, pipeline) in enumerate(pipelines(asked, model)):
            those = list(range(at, len(table), len(study.groups)))
            z0 = encode_pictures(pipeline.vae, pictures[those]).mean
            embeddings = encode_prompts(pipeline, [texts[place] for place in those])
            alphas, sigmas, times = path(pipeline.scheduler)
            for level in range(LEVELS):
                t = (2 * level + 1) * len(times) // (2 * LEVELS)
                seeds: list[Seed] = [(asked.seed, "held-out error", name, level) for name in table.loc[those, "path"]]
                eps = torch.stack([torch.randn(z0.shape[1:], generator=torch_generator(*seed)) for seed in seeds])
                v = pipeline.scheduler.config.prediction_type == "v_prediction"
                target = v_target(z0, eps, alphas[t], sigmas[t]) if v else eps
                error = errors(pipeline, noised(z0, eps, alphas[t], sigmas[t]), target, times[t], embeddings, asked)
                found.setdefault((model, t), {})[f"group{at}"] = float(error.double().mean())
    rows = pd.DataFrame.from_dict(found, orient="index").rename_axis(["model", "timestep"])
    return rows.reset_index().assign(n=len(table))


def errors(
    pipeline: StableDiffusionPipeline, zt: Tensor, target: Tensor, t: Tensor, embeddings: Tensor, asked: Params
) -> Tensor:
    """Mean squared error (n,) of the denoiser's output on ``zt`` (n, c, h, w), all at one time ``t``."""
    parts, batch = [], asked.sampling.batch
    place = machine.accelerator(asked.machine)
    with torch.no_grad(), place.autocast():
        for start in range(0, len(zt), batch):
            some = slice(start, start + batch)
            output = pipeline.unet(zt[some].to(place.device), t.to(place.device), embeddings[some].to(place.device))
            parts.append((output.sample.float().cpu() - target[some]).square().mean((1, 2, 3)))
    return torch.cat(parts)


def carried_means(asked: Params) -> None:
    """Every diagnosed model's pictures at the lowest guidance, once more, from first latents that carry works' means.

    Prompts and white noise are those of the study, so that nothing else differs from its pictures.
    """
    study = asked.art_finetuning
    works = prepare.works().table.query("split == 'train'").reset_index(drop=True)
    guidance = min(study.guidance)
    place = machine.accelerator(asked.machine)
    known = means_of(works, asked)
    for model in models(asked):
        made, listed = [], []
        for repeats, pipeline in pipelines(asked, model):
            rows = pd.concat(
                held_out_prompts(asked.seed, study.prompt_level, study.pictures, repeat).assign(
                    repeat=repeat, place=range(study.pictures)
                )
                for repeat in repeats
            )
            places = list(zip(rows["repeat"].tolist(), rows["place"].tolist(), strict=True))
            seeds: list[Seed] = [(asked.seed, "picture", *where) for where in places]
            noise = first_latents(pipeline, seeds, asked.data.size)
            chosen = [
                int(torch.randint(len(known), (), generator=torch_generator(asked.seed, "carried mean", *where)))
                for where in places
            ]
            latents = carrying(known[chosen], noise, pipeline.scheduler, asked.sampling.steps)
            with place.autocast():
                made.append(
                    sample(pipeline, list(rows["prompt"]), latents, guidance=guidance, **asked.sampling.model_dump())
                )
            listed.append(rows)
        table = pd.concat(listed, ignore_index=True)
        table["file"] = [f"{row.repeat}-{row.place:04d}.png" for row in table.itertuples()]
        out = paths.SAMPLES / CARRIED / model
        shutil.rmtree(out, ignore_errors=True)
        write(torch.cat(made), table, out / guidance_folder(guidance))


def means_of(works: pd.DataFrame, asked: Params) -> Tensor:
    """The means (n, c, 1, 1) of the works' latents."""
    vae = base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    return encode_pictures(vae, prepare.pictures(works, asked.data)).mean.mean((2, 3), keepdim=True)


def main(asked: Params) -> None:
    ERRORS.parent.mkdir(parents=True, exist_ok=True)
    held_out_errors(asked).to_csv(ERRORS, index=False, float_format="%.12g")
    carried_means(asked)
