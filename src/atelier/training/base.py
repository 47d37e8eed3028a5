"""Stage ``base``: the model that studies change, wherever it comes from.

``train`` makes a small one: the autoencoder from its linear start, then denoiser and text encoder together.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor

from atelier import paths
from atelier.data import prepare
from atelier.data.images import to_model_range
from atelier.data.latents import Moments, encode_pictures
from atelier.data.painter import paint_corpus
from atelier.data.prompts import painted_row, prompt
from atelier.machine import accelerator
from atelier.models import base
from atelier.models.linear_start import start_at_linear_code
from atelier.params import Params
from atelier.seeds import seed_of
from atelier.training import autoencoder, denoiser, scratch
from atelier.training.loop import Task, fit

LINEAR_START_PICTURES = 512
SHIPPED = "base"  # inside the data folder
HISTORY = "history.csv"
HISTORY_COLUMNS = ("step", "learning_rate", "part")  # and its loss terms


class Corpus(NamedTuple):
    """What a base learns: pictures (n, 3, h, w) uint8, their names, each one's prompts, and its style ("": none)."""

    pictures: Tensor
    names: list[str]
    prompts: list[list[str]]
    styles: list[str]


def corpus(asked: Params) -> Corpus:
    """Painted for the base alone, from seeds that nothing else uses; or the training split of the data."""
    recipe = asked.base.train
    if recipe.photographs + recipe.works:
        seed = seed_of(asked.seed, "corpus") % 2**31
        pixels, records, captions = paint_corpus(
            recipe.works, recipe.photographs, seed, asked.data.size, asked.machine.threads
        )
        pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        rows: list[dict[Any, Any]] = [painted_row(*told) for told in zip(records, captions, strict=True)]
        levels = [0 if record["kind"] == "photograph" else 1 for record in records]
        names = [str(record["painting"]) for record in records]
    else:
        table = prepare.works().table.query("split == 'train'")
        pictures = prepare.pictures(table, asked.data)
        rows, levels, names = table.to_dict("records"), [1] * len(table), list(table["path"])
    draws = range(recipe.prompts_per_picture)
    prompts = [[prompt(row, level, draw) for draw in draws] for row, level in zip(rows, levels, strict=True)]
    styles = [row["art_style"] if level else "" for row, level in zip(rows, levels, strict=True)]
    if unknown := sorted(set(recipe.unseen_styles) - set(styles)):
        raise ValueError(f"base.train.unseen_styles: no works of {', '.join(unknown)} among those it learns")
    return Corpus(pictures, names, prompts, styles)


def train(asked: Params, out: Path) -> None:
    """Train a base by ``asked.base.train`` into ``out``, with the history of both parts beside it."""
    recipe, seed = asked.base.train, asked.seed
    determinants = asked.model_dump(mode="json", include={"seed", "machine", "base"})
    pictures, names, prompts, styles = corpus(asked)
    # the folder's name alone does not say which pictures lie in it
    determinants["corpus"] = hashlib.sha256(
        pictures.numpy().tobytes() + json.dumps([names, prompts]).encode()
    ).hexdigest()
    pipeline = base.build(recipe.preset, asked.data.size, [text for row in prompts for text in row], seed)
    start_at_linear_code(pipeline.vae, to_model_range(pictures[spread(len(pictures), LINEAR_START_PICTURES)]))
    place = accelerator(asked.machine)

    # what the denoiser is asked for does not determine the autoencoder: another denoiser need not wait for it again
    of_autoencoder: Any = {"seed": True, "machine": True, "base": {"train": {"preset", "moved", "autoencoder"}}}
    first = scratch.folder(
        "base-autoencoder", **asked.model_dump(mode="json", include=of_autoencoder), corpus=determinants["corpus"]
    )
    task = autoencoder.task(pipeline.vae, pictures, names, seed, place.device, recipe.moved)
    history = [fit(task, recipe.autoencoder, seed=seed, scratch=first, accelerator=place).assign(part="autoencoder")]
    pipeline.vae.requires_grad_(False).to(memory_format=torch.contiguous_format)
    latents = standardised(pipeline.vae, encode_pictures(pipeline.vae, pictures))
    seen = [at for at, style in enumerate(styles) if style not in recipe.unseen_styles]
    latents = Moments(latents.mean[seen], latents.std[seen])
    names, prompts = [names[at] for at in seen], [prompts[at] for at in seen]

    second = scratch.folder("base-denoiser", **determinants)
    task = denoiser_task(pipeline, latents, names, prompts, recipe.empty_prompts, seed, place.device)
    history.append(fit(task, recipe.denoiser, seed=seed, scratch=second, accelerator=place).assign(part="denoiser"))
    with paths.replacing(out) as part:
        base.save(pipeline.to("cpu"), part, {"source": "train", "asked": determinants, "pictures": len(pictures)})
        pd.concat(history).to_csv(part / HISTORY, index=False)
    scratch.discard(first)
    scratch.discard(second)


def standardised(vae: AutoencoderKL, moments: Moments) -> Moments:
    """Fold the statistics of these latents into ``vae``; returns the moments that it would give from now on."""
    mean, std = moments.mean.mean((0, 2, 3)), moments.mean.std((0, 2, 3)) / vae.config.scaling_factor
    base.fold_latent_statistics(vae, (mean / vae.config.scaling_factor).to(vae.device), std.to(vae.device))
    return Moments((moments.mean - mean[:, None, None]) / std[:, None, None], moments.std / std[:, None, None])


def denoiser_task(
    pipeline: StableDiffusionPipeline,
    latents: Moments,
    names: Sequence[str],
    prompts: Sequence[Sequence[str]],
    empty_share: float,
    seed: int,
    device: torch.device,
) -> Task:
    """Denoiser and text encoder together: there is no pretrained text encoder to start from."""
    unet, text_encoder = (
        part.to(device).requires_grad_(True).train() for part in (pipeline.unet, pipeline.text_encoder)
    )
    ids = torch.stack([base.prompt_ids(pipeline.tokenizer, row) for row in prompts])
    nothing = base.prompt_ids(pipeline.tokenizer, [""])[0]

    def condition(samples: Sequence[int], chosen: Sequence[int], empty: Sequence[bool]) -> Tensor:
        tokens = torch.where(torch.tensor(empty)[:, None], nothing, ids[list(samples), list(chosen)])
        return text_encoder(tokens.to(device))[0]

    parts = {"unet": unet, "text_encoder": text_encoder}
    trainable = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.named_parameters()}
    return denoiser.task(
        unet,
        trainable,
        pipeline.scheduler,
        latents,
        condition,
        names=names,
        prompts=ids.shape[1],
        empty_share=empty_share,
        seed=seed,
        device=device,
    )


def spread(n: int, wanted: int) -> list[int]:
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
    card = {"source": origin.source, "location": origin.location, "revision": origin.revision}
    with paths.replacing(out) as part:
        base.save(base.load(found), part, card)
        keep_history(found / HISTORY, part / HISTORY)


def keep_history(found: Path, target: Path) -> None:
    """Copy the history that lies beside a fetched base, or write an empty one.

    It is for a figure only: what is no CSV of numbers by step and part is named and left out, and stops nothing.
    """
    fault = None
    if found.is_file():
        try:
            table = pd.read_csv(found)
            missing = {name for name in HISTORY_COLUMNS if name not in table}
            words = set(table.columns[[kind.kind not in "if" for kind in table.dtypes]]) if len(table) else set()
            odd = sorted(missing | words - {"part"})
            fault = f"no numbers in {', '.join(odd)}" if odd else None
        except (ValueError, OSError) as error:  # the first is what pandas raises, too
            fault = " ".join(str(error).split())
        if fault is None:
            shutil.copyfile(found, target)
            return
        print(f"{found}: no training history, left out: {fault}", file=sys.stderr)
    pd.DataFrame({name: [] for name in HISTORY_COLUMNS}).to_csv(target, index=False)


def main(asked: Params) -> None:
    """Fill ``build/base``."""
    paths.BUILD.mkdir(exist_ok=True)
    if asked.base.source == "train":
        train(asked, paths.BASE)
    else:
        fetch(asked, paths.BASE)
    print(json.dumps({"base": base.fingerprint(paths.BASE)}))
