"""Stage ``base``: the model that studies change, wherever it comes from.

``train`` makes a small one: the autoencoder from its linear start, then denoiser and text encoder together.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import paths
from atelier.data import prepare
from atelier.data.images import to_model_range
from atelier.data.latents import Moments, encode_pictures
from atelier.data.painter import paint_corpus
from atelier.data.prompts import prompt
from atelier.machine import accelerator
from atelier.models import base
from atelier.models.linear_start import start_at_linear_code
from atelier.params import BaseTraining, Params
from atelier.seeds import seed_of
from atelier.training import autoencoder, denoiser, scratch
from atelier.training.loop import fit

LINEAR_START_PICTURES = 512
SHIPPED = "base"  # inside the data folder
HISTORY = "history.csv"


def corpus(asked: Params) -> tuple[Tensor, list[str], list[list[str]]]:
    """What a base learns: pictures (n, 3, h, w) uint8, their names, and each one's prompts.

    Painted for the base alone, from seeds that nothing else uses; or the training split of the data.
    """
    recipe = asked.base.train
    if recipe.photographs + recipe.works:
        seed = seed_of(asked.seed, "corpus") % 2**31
        pixels, records = paint_corpus(recipe.works, recipe.photographs, seed, asked.data.size, asked.machine.threads)
        pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        rows: list[dict[Any, Any]] = [{**record, "emotions": [], "utterances": []} for record in records]
        levels = [0 if record["kind"] == "photograph" else 1 for record in records]
        names = [str(record["painting"]) for record in records]
    else:
        table = prepare.works().table.query("split == 'train'")
        pictures = prepare.pictures(table, asked.data)
        rows, levels, names = table.to_dict("records"), [1] * len(table), list(table["path"])
    draws = range(recipe.prompts_per_picture)
    prompts = [[prompt(row, level, draw) for draw in draws] for row, level in zip(rows, levels, strict=True)]
    return pictures, names, prompts


def train(asked: Params, out: Path) -> None:
    """Train a base by ``asked.base.train`` into ``out``, with the history of both parts beside it."""
    recipe, seed = asked.base.train, asked.seed
    determinants = asked.model_dump(mode="json", include={"seed", "machine", "base"})
    pictures, names, prompts = corpus(asked)
    # the folder's name alone does not say which pictures lie in it
    determinants["corpus"] = hashlib.sha256(
        pictures.numpy().tobytes() + json.dumps([names, prompts]).encode()
    ).hexdigest()
    pipeline = base.build(recipe.preset, asked.data.size, [text for row in prompts for text in row], seed)
    start_at_linear_code(pipeline.vae, to_model_range(pictures[_spread(len(pictures), LINEAR_START_PICTURES)]))
    place = accelerator(asked.machine)

    first = scratch.folder("base-autoencoder", **determinants)
    task = autoencoder.task(pipeline.vae, pictures, names, seed, place.device)
    history = [fit(task, recipe.autoencoder, seed=seed, scratch=first, accelerator=place).assign(part="autoencoder")]
    pipeline.vae.requires_grad_(False).to(memory_format=torch.contiguous_format)
    moments = encode_pictures(pipeline.vae, pictures)
    mean, std = moments.mean.mean((0, 2, 3)), moments.mean.std((0, 2, 3))
    base.fold_latent_statistics(pipeline.vae, mean.to(place.device), std.to(place.device))
    scale = std[:, None, None]
    latents = Moments((moments.mean - mean[:, None, None]) / scale, moments.std / scale)

    second = scratch.folder("base-denoiser", **determinants)
    history.append(
        _train_denoiser(pipeline, latents, names, prompts, recipe, seed, second, place).assign(part="denoiser")
    )
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    base.save(pipeline.to("cpu"), part, {"source": "train", "asked": determinants, "pictures": len(pictures)})
    pd.concat(history).to_csv(part / HISTORY, index=False)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    scratch.discard(first)
    scratch.discard(second)


def _train_denoiser(
    pipeline: StableDiffusionPipeline,
    latents: Moments,
    names: Sequence[str],
    prompts: Sequence[Sequence[str]],
    recipe: BaseTraining,
    seed: int,
    folder: Path,
    place: Accelerator,
) -> pd.DataFrame:
    """Denoiser and text encoder together: there is no pretrained text encoder to start from."""
    unet, text_encoder = (
        part.to(place.device).requires_grad_(True).train() for part in (pipeline.unet, pipeline.text_encoder)
    )
    ids = torch.stack([base.prompt_ids(pipeline.tokenizer, row) for row in prompts])
    nothing = base.prompt_ids(pipeline.tokenizer, [""])[0]

    def condition(samples: Sequence[int], chosen: Sequence[int], empty: Sequence[bool]) -> Tensor:
        tokens = torch.where(torch.tensor(empty)[:, None], nothing, ids[list(samples), list(chosen)])
        return text_encoder(tokens.to(place.device))[0]

    parts = {"unet": unet, "text_encoder": text_encoder}
    trainable = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.named_parameters()}
    task = denoiser.task(
        unet,
        trainable,
        pipeline.scheduler,
        latents,
        condition,
        names=names,
        prompts=ids.shape[1],
        empty_share=recipe.empty_prompts,
        seed=seed,
        device=place.device,
    )
    return fit(task, recipe.denoiser, seed=seed, scratch=folder, accelerator=place)


def _spread(n: int, wanted: int) -> list[int]:
    """``wanted`` indices, or all, evenly over n: of photographs and of every style."""
    return [int(i * n / min(n, wanted)) for i in range(min(n, wanted))]


def fetch(asked: Params, out: Path) -> None:
    """Copy a base from the data folder, another folder or the hub into ``out``; only safetensors are fetched."""
    origin = asked.base
    if origin.source == "hub":
        from huggingface_hub import snapshot_download

        assert origin.location is not None
        # a pipeline's own files: repositories also hold single-file checkpoints and half-precision copies
        wanted = ["model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
        unwanted = ["*fp16*", "*non_ema*", "safety_checker/*"]
        found = Path(
            snapshot_download(
                origin.location, revision=origin.revision, allow_patterns=wanted, ignore_patterns=unwanted
            )
        )
    else:
        found = Path(asked.data.folder) / SHIPPED if origin.source == "shipped" else Path(origin.location or "")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    card = {"source": origin.source, "location": origin.location, "revision": origin.revision}
    base.save(base.load(found), part, card)
    # a base that was not trained here has an empty history
    pd.DataFrame({"step": [], "learning_rate": [], "part": []}).to_csv(part / HISTORY, index=False)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def main(asked: Params) -> None:
    """Fill ``build/base``."""
    paths.BUILD.mkdir(exist_ok=True)
    if asked.base.source == "train":
        train(asked, paths.BASE)
    else:
        fetch(asked, paths.BASE)
    print(json.dumps({"base": base.fingerprint(paths.BASE)}))
