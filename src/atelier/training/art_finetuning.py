"""Stages ``cache`` and ``train`` of the study of Sickert et al. 2025: the denoiser tuned on art, by LoRA or whole."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from atelier import paths
from atelier.data import prepare
from atelier.data.latents import Cache, cache_key, encode_pictures, encode_prompts, read_cache, write_cache
from atelier.data.prompts import prompt
from atelier.machine import accelerator
from atelier.models import base
from atelier.params import Params
from atelier.seeds import seed_of
from atelier.training import denoiser, scratch
from atelier.training.loop import fit

STUDY = "art_finetuning"
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")  # the attention projections, diffusers' usual choice
WEIGHTS = "pytorch_lora_weights.safetensors"  # the name load_lora_weights looks for
CACHE = paths.CACHE / f"{STUDY}.safetensors"


def works_and_prompts(asked: Params) -> tuple[pd.DataFrame, list[list[str]]]:
    """The training split, and each work's prompts at the study's level."""
    study = asked.art_finetuning
    table = prepare.works().table.query("split == 'train'").reset_index(drop=True)
    rows = table.to_dict("records")
    return table, [[prompt(row, study.prompt_level, draw) for draw in range(study.prompts_per_work)] for row in rows]


def key(asked: Params, table: pd.DataFrame, prompts: list[list[str]]) -> dict[str, str]:
    return cache_key(base.fingerprint(paths.BASE), list(table["sha256"]), prompts, asked.data.size)


def encode(asked: Params) -> None:
    """Stage ``cache``: latents and embeddings of the training split, once for all variants."""
    table, prompts = works_and_prompts(asked)
    pipeline = base.load(paths.BASE).to(accelerator(asked.machine).device)
    flat = encode_prompts(pipeline, [text for row in prompts for text in row])
    cache = Cache(
        latents=encode_pictures(pipeline.vae, prepare.pictures(table, asked.data)),
        embeddings=flat.view(len(prompts), -1, *flat.shape[1:]),
        empty=encode_prompts(pipeline, [""])[0],
    )
    write_cache(CACHE, cache, key(asked, table, prompts))
    print(f"{len(table)} works, {flat.shape[0]} prompts encoded")


def add_adapter(
    unet: UNet2DConditionModel, rank: int, seed: int, targets: Sequence[str] = TARGETS
) -> dict[str, torch.nn.Parameter]:
    """A LoRA adapter (Hu et al. 2022), on the attention projections by default; returns its parameters by name.

    Alpha is the rank. One seed gives one start a rank; B starts at zero, so an untrained adapter changes nothing.
    """
    unet.requires_grad_(False)
    torch.manual_seed(seed_of(seed, "adapter"))
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(targets)))
    return {name: parameter for name, parameter in unet.named_parameters() if parameter.requires_grad}


def save_adapter(unet: UNet2DConditionModel, folder: Path, card: dict[str, Any]) -> None:
    """PEFT's names, which diffusers reads; alpha = rank needs no further key. A card says where it came from."""
    state = get_peft_model_state_dict(unet)  # diffusers' own names differ for attention alone, and it mixes them up
    folder.mkdir(parents=True, exist_ok=True)
    save_file({f"unet.{name}": tensor.cpu().contiguous() for name, tensor in sorted(state.items())}, folder / WEIGHTS)
    (folder / "card.json").write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")


def save_denoiser(unet: UNet2DConditionModel, folder: Path, card: dict[str, Any]) -> None:
    """The whole denoiser in the diffusers format, and its card."""
    unet.to("cpu", memory_format=torch.contiguous_format).save_pretrained(folder / "unet", safe_serialization=True)
    (folder / "card.json").write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")


def train(asked: Params, variant: str, training_seed: int) -> None:
    """Stage ``train``: one adapter, or one denoiser, from the cache, into ``build/adapters``."""
    study = asked.art_finetuning
    if variant not in study.adapters:
        raise ValueError(f"art_finetuning.adapters: no variant '{variant}', there are {', '.join(study.variants)}")
    if training_seed not in study.training_seeds:
        raise ValueError(f"art_finetuning.training_seeds: {training_seed} is none of {study.training_seeds}")
    adapter = study.adapters[variant]
    seed = seed_of(asked.seed, "training", training_seed)
    table, prompts = works_and_prompts(asked)
    made_from = key(asked, table, prompts)
    cache = read_cache(CACHE, made_from)
    place = accelerator(asked.machine)
    unet = UNet2DConditionModel.from_pretrained(paths.BASE / "unet", use_safetensors=True).to(place.device)
    scheduler = base.scheduler_of(paths.BASE)
    if adapter.rank is None:
        trainable = dict(unet.requires_grad_(True).named_parameters())
    else:
        trainable = add_adapter(unet, adapter.rank, seed)
    task = denoiser.task(
        unet,
        trainable,
        scheduler,
        cache.latents,
        lambda samples, chosen, empty: cached_embeddings(cache, samples, chosen, empty),
        names=list(table["path"]),
        prompts=study.prompts_per_work,
        empty_share=adapter.empty_prompts,
        seed=seed,
        device=place.device,
    )
    settings = study.optimisation.model_copy(
        update={"learning_rate": adapter.learning_rate or study.optimisation.learning_rate}
    )
    determinants = {
        **made_from,
        "variant": adapter.model_dump(mode="json"),
        "optimisation": settings.model_dump(mode="json"),
        "machine": asked.machine.model_dump(mode="json"),
        "seed": asked.seed,
        "training_seed": training_seed,
        "works": list(table["path"]),  # their names seed the noise
    }
    folder = scratch.folder(f"{STUDY}-{variant}-{training_seed}", **determinants)
    history = fit(task, settings, seed=seed, scratch=folder, accelerator=place)
    out = tuned_folder(variant, training_seed)
    with paths.replacing(out) as part:
        save = save_denoiser if adapter.rank is None else save_adapter
        save(unet, part, {**determinants, "study": STUDY, "name": variant, "works": len(table)})
        history.to_csv(part / "history.csv", index=False)
    scratch.discard(folder)


def tuned_folder(variant: str, training_seed: int) -> Path:
    """Where a variant's training with one seed lies."""
    return paths.ADAPTERS / STUDY / variant / str(training_seed)


def cached_embeddings(cache: Cache, samples: Sequence[int], chosen: Sequence[int], empty: Sequence[bool]) -> Tensor:
    """Embeddings (b, tokens, width) of the chosen prompts, or of the empty one."""
    return torch.where(torch.tensor(empty)[:, None, None], cache.empty, cache.embeddings[list(samples), list(chosen)])
