"""Stages ``sample``: which pictures a study asks for, of which models."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from tqdm import tqdm

from atelier import machine, params, paths
from atelier.data import prepare
from atelier.data.prompts import prompt
from atelier.models import base
from atelier.sampling import sheets
from atelier.sampling.adapters import tuned
from atelier.sampling.sampler import Sampled, Seed, first_latents, sample, settled, with_ddim
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN, at_level, guidance_folder, write, write_latents
from atelier.seeds import torch_generator
from atelier.training.art_finetuning import tuned_folder


def held_out_prompts(seed: int, level: int, n: int, repeat: int) -> pd.DataFrame:
    """Prompt and path of ``n`` held-out works for one repeat, in a seeded order; used up, they come again."""
    table = prepare.works().table.query("split == 'test'").reset_index(drop=True)
    order = torch.randperm(len(table), generator=torch_generator(seed, "held out prompts")).tolist()
    if table.empty:
        raise ValueError("no work is held out: the test split is empty, so that there is nothing to ask pictures for")
    works = table.to_dict("records")
    chosen = [(works[order[place % len(works)]], place // len(works)) for place in range(repeat * n, (repeat + 1) * n)]
    return pd.DataFrame([{"prompt": prompt(work, level, draw), "path": work["path"]} for work, draw in chosen])


def held_out_table(asked: params.Params, level: int, pictures: int) -> pd.DataFrame:
    """So many held-out prompts for every repeat of art_finetuning: prompt, path, repeat, place, file."""
    repeats = [
        held_out_prompts(asked.seed, level, pictures, repeat).assign(repeat=repeat, place=range(pictures))
        for repeat in range(asked.art_finetuning.repeats)
    ]
    table = pd.concat(repeats, ignore_index=True)
    return table.assign(file=[f"{row.repeat}-{row.place:04d}.png" for row in table.itertuples()])


def sample_variant(asked: params.Params, variant: str) -> None:
    """Stage ``sample`` of art_finetuning: a model's pictures at every guidance scale, from prompts and noise of all.

    The untuned model's from other noise too, which shows how far chance alone reaches.
    """
    level, out = asked.art_finetuning.prompt_level, paths.SAMPLES / "art_finetuning"
    sample_cells(asked, variant, level, "picture", out / variant)
    if variant == UNTUNED:
        sample_cells(asked, variant, level, "picture again", out / UNTUNED_AGAIN)


def sample_levels(asked: params.Params, model: str) -> None:
    """Stage ``sample`` of prompt_enrichment: a model of art_finetuning asked at other levels, from the same noise."""
    if model not in (UNTUNED, *asked.prompt_enrichment.models):
        raise ValueError(f"prompt_enrichment.models: no '{model}'")
    for level in asked.prompt_enrichment.levels:
        sample_cells(asked, model, level, "picture", paths.SAMPLES / "prompt_enrichment" / at_level(model, level))


# (pipeline, a picture's repeat and place, white noise) -> first latents
Start = Callable[[StableDiffusionPipeline, Sequence[tuple[int, int]], Tensor], Tensor]


def white(pipeline: StableDiffusionPipeline, places: Sequence[tuple[int, int]], noise: Tensor) -> Tensor:
    """How sampling begins unless something else is asked for."""
    return noise


def sample_cells(
    asked: params.Params,
    model: str,
    level: int,
    noise: str,
    out: Path,
    scales: Sequence[float] = (),
    start: Start = white,
) -> None:
    """One model's pictures of held-out prompts; a repeat's are by its training seed's model.

    At every guidance scale of the study, or at ``scales``; from white noise, or from what ``start`` makes of it.
    """
    study = asked.art_finetuning
    scales = scales or study.guidance
    if model != UNTUNED and model not in study.adapters:
        raise ValueError(f"art_finetuning.adapters: no variant '{model}'")
    accelerator = machine.accelerator(asked.machine)
    table = held_out_table(asked, level, study.pictures)
    parts: dict[int | None, pd.DataFrame] = {None: table}  # the untuned model has no training seed
    if model != UNTUNED:
        whose = table["repeat"].map(study.seed_of_repeat)
        parts = {seed: table[whose == seed] for seed in study.training_seeds}
    made: dict[float, list[Sampled]] = {guidance: [] for guidance in scales}
    for seed, rows in parts.items():
        pipeline = with_ddim(base.load(paths.BASE))
        if seed is not None:
            pipeline = tuned(pipeline, tuned_folder(model, seed))
        pipeline = settled(pipeline, accelerator.device)
        places = list(zip(rows["repeat"].tolist(), rows["place"].tolist(), strict=True))
        seeds: list[Seed] = [(asked.seed, noise, *place) for place in places]
        latents = start(pipeline, places, first_latents(pipeline, seeds, asked.data.size))
        for guidance in tqdm(scales, desc=out.name, unit="scale"):
            with accelerator.autocast():
                found = sample(
                    pipeline, list(rows["prompt"]), latents, guidance=guidance, **asked.sampling.model_dump()
                )
            made[guidance].append(found)
    shutil.rmtree(out, ignore_errors=True)
    listed = pd.concat(parts.values())
    for guidance, sets in made.items():
        last, pictures = (torch.cat(parts) for parts in zip(*sets, strict=True))
        write(pictures, listed, out / guidance_folder(guidance))
        write_latents(last, out / guidance_folder(guidance))


def sample_base(asked: params.Params) -> None:
    """Stage ``sample-base``: what the base paints when asked for the photographs it learnt, and for art.

    And the sheets that steer it, each from one first latent.
    """
    study = asked.base_model
    place = machine.accelerator(asked.machine)
    pipeline = settled(with_ddim(base.load(paths.BASE)), place.device)
    works, photographs = (manifest.table for manifest in (prepare.works(), prepare.photographs()))
    asked_for = {
        "works": (held_out_pictures(works, "works", 1, asked), [study.measured_at]),
        "photographs": (held_out_pictures(photographs, "photographs", 0, asked), [study.measured_at]),
    }
    steering = sheets.steering(prepare.with_truth(photographs), prepare.with_truth(works))
    asked_for |= {kind: (sheet, study.guidance) for kind, sheet in steering.items()}
    shutil.rmtree(paths.SAMPLES / "base_model", ignore_errors=True)
    for guidance in sorted({scale for _, scales in asked_for.values() for scale in scales}):
        # of all kinds together: each alone would leave its last batch to be filled up
        alike = {kind: listed for kind, (listed, scales) in asked_for.items() if guidance in scales}
        # in a sheet nothing but the word changes: all its pictures begin with one latent
        seeds: list[Seed] = [
            (asked.seed, "picture", kind, 0 if kind in steering else at)
            for kind, listed in alike.items()
            for at in listed["place"]
        ]
        prompts = [text for listed in alike.values() for text in listed["prompt"]]
        made = torch.empty(0)  # a folder without photographs, a world that nobody knows the truth of
        if seeds:
            latents = first_latents(pipeline, seeds, asked.data.size)
            with place.autocast():
                made = sample(pipeline, prompts, latents, guidance=guidance, **asked.sampling.model_dump()).pictures
        parts = made.split([len(listed) for listed in alike.values()])
        for (kind, listed), pictures in zip(alike.items(), parts, strict=True):
            target = paths.SAMPLES / "base_model" / kind / guidance_folder(guidance)
            target.mkdir(parents=True)
            write(pictures, listed, target)


def held_out_pictures(table: pd.DataFrame, kind: str, level: int, asked: params.Params) -> pd.DataFrame:
    """The prompts of held-out pictures in a seeded order, each with its picture's path."""
    held_out = table.query("split == 'test'").reset_index(drop=True)
    order = torch.randperm(len(held_out), generator=torch_generator(asked.seed, "base model", kind)).tolist()
    chosen = held_out.iloc[order[: asked.base_model.pictures]]
    return sheets.listed([prompt(row, level, 0) for _, row in chosen.iterrows()], list(chosen["path"]))
