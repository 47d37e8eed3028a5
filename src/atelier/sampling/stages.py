"""Stages ``sample``: which pictures a study asks for, of which models."""

import shutil
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from atelier import machine, params, paths
from atelier.data import prepare
from atelier.data.prompts import prompt
from atelier.models import base
from atelier.sampling import sheets
from atelier.sampling.adapters import load_adapter
from atelier.sampling.sampler import Seed, first_latents, sample, with_ddim
from atelier.sampling.store import UNTUNED, guidance_folder, write
from atelier.seeds import torch_generator


def held_out_prompts(seed: int, level: int, n: int, repeat: int) -> list[str]:
    """Prompts of ``n`` held-out works for one repeat: in a seeded order, again with another draw when they run out."""
    table = prepare.works().table.query("split == 'test'").reset_index(drop=True)
    order = torch.randperm(len(table), generator=torch_generator(seed, "held out prompts")).tolist()
    if table.empty:
        raise ValueError("no work is held out: the test split is empty, so that there is nothing to ask pictures for")
    rows = table.to_dict("records")
    places = range(repeat * n, (repeat + 1) * n)
    return [prompt(rows[order[place % len(rows)]], level, place // len(rows)) for place in places]


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
    latents = first_latents(pipeline, seeds, asked.data.size)
    out = paths.SAMPLES / "art_finetuning" / variant
    shutil.rmtree(out, ignore_errors=True)
    for guidance in tqdm(study.guidance, desc=variant, unit="scale"):
        with place.autocast():
            pictures = sample(
                pipeline, list(table["prompt"]), latents, guidance=guidance, **asked.sampling.model_dump()
            )
        write(pictures, table, out / guidance_folder(guidance))


def sample_base(asked: params.Params) -> None:
    """Stage ``sample-base``: what the base paints when asked for the photographs it learnt, and for art.

    And the sheets that steer it, each with the same noise at every guidance scale.
    """
    study = asked.base_model
    place = machine.accelerator(asked.machine)
    pipeline = with_ddim(base.load(paths.BASE)).to(place.device)
    works, photographs = (manifest.table for manifest in (prepare.works(), prepare.photographs()))
    asked_for = {
        "works": (held_out_pictures(works, "works", 1, asked), [study.measured_at]),
        "photographs": (held_out_pictures(photographs, "photographs", 0, asked), [study.measured_at]),
    }
    steering = sheets.steering(prepare.with_truth(photographs), prepare.with_truth(works))
    asked_for |= {kind: (sheet, study.guidance) for kind, sheet in steering.items()}
    for kind, (listed, scales) in asked_for.items():
        out = paths.SAMPLES / "base_model" / kind
        shutil.rmtree(out, ignore_errors=True)
        seeds: list[Seed] = [(asked.seed, "picture", kind, at) for at in listed["place"]]
        for guidance in scales:
            target = out / guidance_folder(guidance)
            target.mkdir(parents=True)
            if not seeds:
                listed.to_csv(target / "pictures.csv", index=False)
                continue
            latents = first_latents(pipeline, seeds, asked.data.size)
            with place.autocast():
                pictures = sample(
                    pipeline, list(listed["prompt"]), latents, guidance=guidance, **asked.sampling.model_dump()
                )
            write(pictures, listed, target)


def held_out_pictures(table: pd.DataFrame, kind: str, level: int, asked: params.Params) -> pd.DataFrame:
    """The prompts of held-out pictures in a seeded order, each with its picture's path."""
    held_out = table.query("split == 'test'").reset_index(drop=True)
    order = torch.randperm(len(held_out), generator=torch_generator(asked.seed, "base model", kind)).tolist()
    chosen = held_out.iloc[order[: asked.base_model.pictures]]
    return sheets.listed([prompt(row, level, 0) for _, row in chosen.iterrows()], list(chosen["path"]))
