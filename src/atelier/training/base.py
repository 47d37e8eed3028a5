"""Stage ``base``: the base model of all studies, copied, downloaded or trained.

``train`` trains a small one, from nothing or further from another: the autoencoder, from nothing from its linear start,
then denoiser and text encoder together.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor

from atelier import scratch
from atelier.data import prepare
from atelier.data.images import to_model_range
from atelier.data.painter import paint_corpus
from atelier.data.prompts import painted_row, prompt
from atelier.files import FileFault, copy, read_table, write_table
from atelier.machine import accelerator
from atelier.models import base
from atelier.models.checked_pipeline import native_size
from atelier.models.folders import has_weights
from atelier.models.latents import Latents, Moments, encode_pictures
from atelier.models.linear_start import start_at_linear_code
from atelier.params import Params
from atelier.seeds import evenly, seed_of
from atelier.training import autoencoder, denoiser
from atelier.training.loop import Task, fit
from atelier.workspace import Workspace, replacing

LINEAR_START_PICTURES = 512
SHIPPED = "base"  # inside the data folder
HISTORY = "history.csv"
HISTORY_COLUMNS = ("step", "learning_rate", "part")  # followed by loss terms


class Corpus(NamedTuple):
    """A base's training set: pictures (n, 3, h, w) uint8, and each one's name, prompts and style ("": none)."""

    pictures: Tensor
    names: list[str]
    prompts: list[list[str]]
    styles: list[str]


def corpus(params: Params, workspace: Workspace) -> Corpus:
    """Paint a training set from seeds that nothing else uses, or take the training split of the data."""
    recipe = params.base.train
    if recipe.photographs + recipe.works:
        seed = seed_of(params.seed, "corpus") % 2**31
        pixels, records, captions = paint_corpus(
            recipe.works, recipe.photographs, seed, params.data.size, params.machine.threads
        )
        pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        rows: list[dict[Any, Any]] = [painted_row(*pair) for pair in zip(records, captions, strict=True)]
        levels = [0 if record["kind"] == "photograph" else 1 for record in records]
        names = [str(record["painting"]) for record in records]
    else:
        table = prepare.works(workspace.manifests).table.query("split == 'train'")
        pictures = prepare.pictures(table, params.data, workspace).load()
        rows, levels, names = table.to_dict("records"), [1] * len(table), list(table["path"])
    draws = range(recipe.prompts_per_picture)
    prompts = [[prompt(row, level, draw) for draw in draws] for row, level in zip(rows, levels, strict=True)]
    styles = [row["art_style"] if level else "" for row, level in zip(rows, levels, strict=True)]
    if unknown := sorted(set(recipe.unseen_styles) - set(styles)):
        raise ValueError(f"base.train.unseen_styles: no works of {', '.join(unknown)} among those it learns")
    return Corpus(pictures, names, prompts, styles)


def train(params: Params, workspace: Workspace) -> None:
    """Train a base by ``params.base.train``, and write it with the history of both parts."""
    recipe, seed = params.base.train, params.seed
    key = params.model_dump(mode="json", include={"seed", "machine", "base"})
    pictures, names, prompts, styles = corpus(params, workspace)
    # the data folder's name does not determine its pictures
    key["corpus"] = hashlib.sha256(pictures.numpy().tobytes() + json.dumps([names, prompts]).encode()).hexdigest()
    if params.base.location:
        folder = workspace.named(params.base.location)
        pipeline, key["begins_with"] = loaded(folder, params.data.size), base.fingerprint(folder)
    else:
        pipeline = base.build(recipe.preset, params.data.size, [text for row in prompts for text in row], seed)
        start_at_linear_code(pipeline.vae, to_model_range(pictures[evenly(len(pictures), LINEAR_START_PICTURES)]))
    accelerate = accelerator(params.machine)

    # the denoiser's parameters do not affect the autoencoder, so that changing them does not retrain it
    train: Any = {"preset", "shift", "autoencoder"}
    of_autoencoder: Any = {"seed": True, "machine": True, "base": {"location": True, "train": train}}
    relevant = params.model_dump(mode="json", include=of_autoencoder) | {"begins_with": key.get("begins_with")}
    first = scratch.folder(workspace.scratch, __name__, "base-autoencoder", **relevant, corpus=key["corpus"])
    task = autoencoder.task(pipeline.vae, pictures, names, seed, accelerate.device, recipe.shift)
    history = [
        fit(task, recipe.autoencoder, seed=seed, scratch=first, accelerator=accelerate).assign(part="autoencoder")
    ]
    pipeline.vae.requires_grad_(False).to(memory_format=torch.contiguous_format)
    latents = standardised(pipeline.vae, encode_pictures(pipeline.vae, pictures))
    kept = [index for index, style in enumerate(styles) if style not in recipe.unseen_styles]
    latents = Moments(latents.mean[kept], latents.std[kept])
    names, prompts = [names[index] for index in kept], [prompts[index] for index in kept]

    second = scratch.folder(workspace.scratch, __name__, "base-denoiser", **key)
    task = denoiser_task(pipeline, latents, names, prompts, recipe.empty_prompts, seed, accelerate.device)
    history.append(
        fit(task, recipe.denoiser, seed=seed, scratch=second, accelerator=accelerate).assign(part="denoiser")
    )
    with replacing(workspace.base) as part:
        base.save(pipeline.to("cpu"), part, {"source": "train", "asked": key, "pictures": len(pictures)})
        write_table(part / HISTORY, pd.concat(history))
    scratch.discard(first)
    scratch.discard(second)


def standardised(vae: AutoencoderKL, moments: Moments) -> Moments:
    """Fold the statistics of these latents into ``vae``; returns the moments standardised likewise."""
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
    extra: denoiser.Extra | None = None,
) -> Task:
    """Train denoiser and text encoder together, since there is no pretrained text encoder."""
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
        denoiser.Examples(Latents(*latents), names, ids.shape[1], condition),
        empty_share=empty_share,
        seed=seed,
        device=device,
        extra=extra,
    )


def fetch(params: Params, workspace: Workspace) -> None:
    """Copy a base from the data folder, another folder or the hub; weights as safetensors only."""
    origin = params.base
    if origin.source == "hub":
        from huggingface_hub import snapshot_download

        # the pipeline's files only: repositories also hold single-file checkpoints and half-precision copies
        wanted = ["model_index.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
        unwanted = ["*non_ema*", "safety_checker/*"]

        def fetched(*without: str) -> Path:
            left_out = [*unwanted, *without]
            patterns: Any = {"allow_patterns": wanted, "ignore_patterns": left_out}
            return Path(snapshot_download(origin.location or "", revision=origin.revision, **patterns))

        source = fetched("*fp16*", "*bf16*")
        if not has_weights(source):  # in full precision
            source = fetched()
    else:
        shipped = workspace.named(params.data.folder) / SHIPPED
        source = shipped if origin.source == "shipped" else workspace.named(origin.location or "")
    card = {"source": origin.source, "location": origin.location, "revision": origin.revision}
    pipeline = loaded(source, params.data.size)
    with replacing(workspace.base) as part:
        base.save(pipeline, part, card)
        keep_history(source / HISTORY, part / HISTORY)


def loaded(folder: Path, size: int) -> StableDiffusionPipeline:
    """Load a pipeline; a line says where it was made for pictures of another size."""
    pipeline = base.load(folder)
    side = native_size(pipeline)
    if side not in (None, size):
        print(
            f"{folder}: made for pictures of {side} px, data.size is {size}; it is used at the latter", file=sys.stderr
        )
    return pipeline


def keep_history(source: Path, target: Path) -> None:
    """Copy a fetched base's training history, or write an empty one.

    It is used for a figure only, so an unreadable history is reported and ignored.
    """
    fault = None
    if source.is_file():
        try:
            table = read_table(source, HISTORY_COLUMNS, whole=False)
            words = set(table.columns[[kind.kind not in "if" for kind in table.dtypes]]) if len(table) else set()
            odd = sorted(words - {"part"})
            fault = f"no numbers in {', '.join(odd)}" if odd else None
        except FileFault as error:
            fault = str(error).removeprefix(f"{source}: ")
        if fault is None:
            copy(source, target)
            return
        print(f"{source}: no training history, left out: {fault}", file=sys.stderr)
    write_table(target, pd.DataFrame({name: [] for name in HISTORY_COLUMNS}))


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/base``."""
    make = train if params.base.source == "train" else fetch
    make(params, workspace)
    print(json.dumps({"base": base.fingerprint(workspace.base)}))
