"""Stages ``sample``: which pictures a study asks for, of which models."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError
from tqdm import tqdm

from atelier import machine, params, paths
from atelier.data import prepare
from atelier.data.prompts import prompt
from atelier.models import base
from atelier.sampling.sampler import Seed, sample, with_ddim
from atelier.sampling.store import UNTUNED, guidance_folder, write
from atelier.seeds import torch_generator
from atelier.training.art_finetuning import WEIGHTS


def held_out_prompts(seed: int, level: int, n: int, repeat: int) -> list[str]:
    """Prompts of ``n`` held-out works for one repeat: in a seeded order, again with another draw when they run out."""
    table = prepare.works().table.query("split == 'test'").reset_index(drop=True)
    order = torch.randperm(len(table), generator=torch_generator(seed, "held out prompts")).tolist()
    if table.empty:
        raise ValueError("no work is held out: the test split is empty, so that there is nothing to ask pictures for")
    rows = table.to_dict("records")
    places = range(repeat * n, (repeat + 1) * n)
    return [prompt(rows[order[place % len(rows)]], level, place // len(rows)) for place in places]


def load_adapter(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Put a trained adapter into a pipeline; without the two flags diffusers would look for a pickle or on the hub."""
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder}: holds no {WEIGHTS}")
    try:
        pipeline.load_lora_weights(folder, weight_name=WEIGHTS, use_safetensors=True, local_files_only=True)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder / WEIGHTS}: not a readable adapter: {' '.join(str(error).split())}") from None


def sample_variant(asked: params.Params, variant: str) -> None:
    """Stage ``sample`` of art_finetuning: a model's pictures at every guidance scale.

    From the same prompts and noise as all the others'.
    """
    study = asked.art_finetuning
    if variant != UNTUNED and variant not in study.adapters:
        raise ValueError(f"art_finetuning.adapters: no variant '{variant}'")
    place = machine.accelerator(asked.machine)
    pipeline = with_ddim(base.load(paths.BASE))
    if variant != UNTUNED:
        load_adapter(pipeline, paths.ADAPTERS / "art_finetuning" / variant)
    pipeline.to(place.device)
    rows: list[dict[str, Any]] = [
        {"repeat": repeat, "place": at, "prompt": text, "file": f"{repeat}-{at:04d}.png"}
        for repeat in range(study.repeats)
        for at, text in enumerate(held_out_prompts(asked.seed, study.prompt_level, study.pictures, repeat))
    ]
    table = pd.DataFrame(rows)
    seeds: list[Seed] = [(asked.seed, "picture", row["repeat"], row["place"]) for row in rows]
    out = paths.SAMPLES / "art_finetuning" / variant
    shutil.rmtree(out, ignore_errors=True)
    for guidance in tqdm(study.guidance, desc=variant, unit="scale"):
        with place.autocast():
            pictures = sample(
                pipeline,
                list(table["prompt"]),
                seeds,
                guidance=guidance,
                size=asked.data.size,
                **asked.sampling.model_dump(),
            )
        write(pictures, table, out / guidance_folder(guidance))


def sample_base(asked: params.Params) -> None:
    """Stage ``sample-base``: what the base paints when asked for the photographs it learnt, and for art."""
    study = asked.base_model
    place = machine.accelerator(asked.machine)
    pipeline = with_ddim(base.load(paths.BASE)).to(place.device)
    asked_for = {"works": (prepare.works(), 1), "photographs": (prepare.photographs(), 0)}
    for kind, (manifest, level) in asked_for.items():
        out = paths.SAMPLES / "base_model" / kind
        shutil.rmtree(out, ignore_errors=True)
        table = manifest.table.query("split == 'test'").reset_index(drop=True)
        order = torch.randperm(len(table), generator=torch_generator(asked.seed, "base model", kind)).tolist()
        chosen = [row for _, row in table.iloc[order[: study.pictures]].iterrows()]
        listed = pd.DataFrame(
            [
                {
                    "repeat": 0,
                    "place": at,
                    "prompt": prompt(row, level, 0),
                    "file": f"{at:04d}.png",
                    "path": row["path"],
                }
                for at, row in enumerate(chosen)
            ],
            columns=["repeat", "place", "prompt", "file", "path"],
        )
        target = out / guidance_folder(study.guidance)
        target.mkdir(parents=True)
        seeds: list[Seed] = [(asked.seed, "picture", kind, at) for at in listed["place"]]
        if seeds:
            with place.autocast():
                pictures = sample(
                    pipeline,
                    list(listed["prompt"]),
                    seeds,
                    guidance=study.guidance,
                    size=asked.data.size,
                    **asked.sampling.model_dump(),
                )
            write(pictures, listed, target)
        else:
            listed.to_csv(target / "pictures.csv", index=False)
