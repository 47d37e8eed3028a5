"""Stage ``latent_perceptual-sample``: pictures of every post-training, from prompts and noise that all share.

Those that are followed are also painted by the averages of their parameters, and in other numbers of steps.
"""

import shutil
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from tqdm import tqdm

from atelier import machine, paths
from atelier.params import Params
from atelier.sampling.sampler import Sampled, Seed, first_latents, sample, settled, with_ddim
from atelier.sampling.stages import held_out_table
from atelier.sampling.store import UNTUNED, guidance_folder, write, write_latents
from atelier.training.latent_perceptual import STUDY, start, tuned_pipeline

AGAIN = "again"  # the plain variant under other noise, to see how far chance reaches


class Arm(NamedTuple):
    """What is painted: by which variant, by its last parameters or an average, in how many steps (None: sampling's)."""

    name: str
    variant: str
    half_life: float | None = None
    steps: int | None = None
    noise: str = "picture"


def untuned(variant: str) -> str:
    """The cell of what a variant was trained from."""
    return f"{UNTUNED}-{variant}"


def in_steps(variant: str, steps: int) -> str:
    return f"{variant}-steps-{steps}"


def averaged(variant: str, half_life: float) -> str:
    return f"{variant}-average-{half_life:g}"


def arms(asked: Params) -> list[Arm]:
    """All arms, those of one variant together; what plain variants begin with, too, if nothing trained them before."""
    study, found = asked.latent_perceptual, []
    for name, training in study.trainings.items():
        found.append(Arm(name, name))
        plain = study.plain_of(name) == name
        if plain and not training.before:
            found.append(Arm(untuned(name), name))
        if plain and training.kind == "base" and not training.before:
            found.append(Arm(AGAIN, name, noise="picture again"))
        if name in study.followed:
            found += [Arm(averaged(name, each), name, half_life=each) for each in study.averages]
            found += [Arm(in_steps(name, each), name, steps=each) for each in study.steps]
    return found


def pipelines(asked: Params, arm: Arm, table: pd.DataFrame) -> Iterator[tuple[StableDiffusionPipeline, pd.DataFrame]]:
    """An arm's pipelines, and which rows of a table each paints: a repeat's are by its training seed's."""
    device = machine.accelerator(asked.machine).device
    if arm.name == untuned(arm.variant):
        yield settled(with_ddim(start(asked, asked.latent_perceptual.trainings[arm.variant])), device), table
        return
    whose = table["repeat"].map(asked.art_finetuning.seed_of_repeat)
    for seed in asked.art_finetuning.training_seeds:
        pipeline = tuned_pipeline(asked, arm.variant, seed, arm.half_life)
        yield settled(with_ddim(pipeline), device), table[whose == seed]


def paint(asked: Params, variant: str) -> None:
    """One variant's arms into ``build/samples/latent_perceptual/VARIANT``."""
    study = asked.latent_perceptual
    if variant not in study.trainings:
        raise ValueError(f"latent_perceptual.trainings: no variant '{variant}', there are {', '.join(study.variants)}")
    table = held_out_table(asked, asked.art_finetuning.prompt_level, study.pictures)
    out = paths.SAMPLES / STUDY / variant
    shutil.rmtree(out, ignore_errors=True)
    for arm in tqdm([arm for arm in arms(asked) if arm.variant == variant], desc=variant, unit="arm"):
        made, rows = [], []
        for pipeline, own in pipelines(asked, arm, table):
            made.append(_painted(asked, pipeline, arm, own))
            rows.append(own)
        last, pictures = (torch.cat(of) for of in zip(*made, strict=True))
        folder = out / arm.name / guidance_folder(study.guidance)
        write(pictures, pd.concat(rows), folder)
        write_latents(last, folder)


def _painted(asked: Params, pipeline: StableDiffusionPipeline, arm: Arm, rows: pd.DataFrame) -> Sampled:
    places = zip(rows["repeat"].tolist(), rows["place"].tolist(), strict=True)
    seeds: list[Seed] = [(asked.seed, arm.noise, *place) for place in places]
    latents = first_latents(pipeline, seeds, asked.data.size)
    how = {**asked.sampling.model_dump(), **({"steps": arm.steps} if arm.steps else {})}
    with machine.accelerator(asked.machine).autocast():
        return sample(pipeline, list(rows["prompt"]), latents, guidance=asked.latent_perceptual.guidance, **how)


def place_of(arm: Arm, guidance: float) -> tuple[str, str, float]:
    """Where an arm's pictures lie: study, folder, guidance."""
    return STUDY, f"{arm.variant}/{arm.name}", guidance
