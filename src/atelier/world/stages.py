"""The stages of ``world/dvc.yaml`` that train, each from its parameters and the stages before it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from atelier import paths
from atelier.data.images import to_model_range
from atelier.data.latents import encode_pictures
from atelier.data.painter import VERSION, paint_corpus
from atelier.data.prompts import painted_row, prompt
from atelier.machine import accelerator, fingerprint
from atelier.methods.perceptual import LPIPS
from atelier.models import base
from atelier.models import evaluator as evaluators
from atelier.models import trunk as trunks
from atelier.models.discriminator import PatchDiscriminator
from atelier.models.linear_start import start_at_linear_code
from atelier.params import Optimisation
from atelier.seeds import seed_of
from atelier.training import autoencoder as autoencoder_training
from atelier.training import decoder as decoder_training
from atelier.training import evaluator as evaluator_training
from atelier.training import scratch
from atelier.training import trunk as trunk_training
from atelier.training.base import HISTORY, LINEAR_START_PICTURES, denoiser_task, spread, standardised
from atelier.training.conversion import add_conversion, save_conversion, scheduler_for
from atelier.training.loop import Task, fit
from atelier.world.params import Corpus, World

AUTOENCODER, DECODER = paths.BUILD / "autoencoder", paths.BUILD / "decoder"
TRUNK, EVALUATOR = paths.BUILD / "trunk", paths.BUILD / "evaluator"
BASE, CONVERSIONS = paths.BASE, paths.BUILD / "conversions"

CAPTION_LEVELS = (1, 2, 2)  # of works, in turn: style and artist, or emotion and why too; photographs have level 0


class Painted(NamedTuple):
    """Pictures (n, 3, h, w) uint8; the truth and what is said of each; names for their noise."""

    pictures: Tensor
    records: list[dict[str, Any]]
    names: list[str]


def painted(asked: World, purpose: str, corpus: Corpus, artists: Sequence[str] = ()) -> Painted:
    """A corpus for one purpose, from seeds that no other purpose uses; of ``artists`` alone where some are named."""
    seed = seed_of(asked.seed, "world", purpose) % 2**31
    pixels, records, captions = paint_corpus(
        corpus.works, corpus.photographs, seed, asked.size, asked.machine.threads, artists
    )
    whole = [painted_row(record, caption) for record, caption in zip(records, captions, strict=True)]
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return Painted(pictures, whole, [f"{record['kind']}-{record['index']}" for record in records])


def captions(record: dict[str, Any], n: int) -> list[str]:
    """``n`` prompts of one picture."""
    return [prompt(record, CAPTION_LEVELS[draw % 3] if record["kind"] == "work" else 0, draw // 3) for draw in range(n)]


def determinants(asked: World, *parts: str) -> dict[str, Any]:
    """What a stage's result depends on, of the parameters; with the painter's version."""
    return {"painter": VERSION, **asked.model_dump(mode="json", include={"seed", "machine", "size", *parts})}


def card(asked: dict[str, Any], pictures: int) -> dict[str, Any]:
    """Where a network came from."""
    return {"asked": asked, "machine": fingerprint(), "pictures": pictures}


def trained(name: str, task: Task, settings: Optimisation, asked: World, keys: dict[str, Any]) -> pd.DataFrame:
    """Fit, continuing a run of these determinants; its history."""
    run = scratch.folder(f"world-{name}", **keys)
    history = fit(task, settings, seed=asked.seed, scratch=run, accelerator=accelerator(asked.machine))
    return history.assign(part=name)


def trunk(asked: World) -> None:
    """The network of perceptual losses, and the weights of its distance."""
    keys = determinants(asked, "trunk")
    corpus = painted(asked, "trunk", asked.trunk.corpus)
    place = accelerator(asked.machine)
    net = trunks.build(asked.seed)
    task = trunk_training.task(net, corpus.pictures, corpus.records, asked.seed, place.device)
    history = [trained("trunk", task, asked.trunk.optimisation, asked, keys)]
    trunk_training.fold(net, task, corpus.pictures[spread(len(corpus.names), 512)])
    heads = trunk_training.heads_task(net, corpus.pictures, corpus.names, asked.seed, place.device)
    history.append(trained("heads", heads, asked.trunk.heads, asked, keys))
    weights = trunk_training.weights_of(heads, net, corpus.pictures[spread(len(corpus.names), 500)])
    trunks.save(net.cpu(), [weight.cpu() for weight in weights], TRUNK, card(keys, len(corpus.names)))
    pd.concat(history).to_csv(TRUNK / HISTORY, index=False)


def evaluator(asked: World) -> None:
    """The network of metrics."""
    keys, recipe = determinants(asked, "evaluator"), asked.evaluator
    corpus = painted(asked, "evaluator", recipe.corpus)
    prompts = [captions(record, recipe.prompts_per_picture) for record in corpus.records]
    net = evaluators.build(evaluators.classes_of(corpus.records), [text for row in prompts for text in row], asked.seed)
    place = accelerator(asked.machine)
    task = evaluator_training.task(net, corpus.pictures, corpus.records, prompts, asked.seed, place.device)
    history = trained("evaluator", task, recipe.optimisation, asked, keys)
    some = spread(len(corpus.names), 2048)
    names = [corpus.names[at] for at in some]
    evaluator_training.calibrate(net, corpus.pictures[some], names, asked.seed)
    evaluators.save(net.cpu(), EVALUATOR, card(keys, len(corpus.names)))
    history.to_csv(EVALUATOR / HISTORY, index=False)


def autoencoder(asked: World) -> None:
    """The autoencoder: L1 from the linear start, then the latents' statistics folded in."""
    recipe = asked.autoencoder
    keys = determinants(asked, "preset", "seen", "autoencoder")
    corpus = painted(asked, "autoencoder", recipe.corpus, asked.seen)
    vae = base.build_autoencoder(asked.preset, asked.size, asked.seed)
    start_at_linear_code(vae, to_model_range(corpus.pictures[spread(len(corpus.names), LINEAR_START_PICTURES)]))
    place = accelerator(asked.machine)
    task = autoencoder_training.task(vae, corpus.pictures, corpus.names, asked.seed, place.device)
    history = trained("autoencoder", task, recipe.optimisation, asked, keys)
    vae.requires_grad_(False).to(memory_format=torch.contiguous_format)
    # most of what a base learns is photographs: the denoiser's latents are to have unit variance
    standardised(vae, encode_pictures(vae, corpus.pictures[: recipe.corpus.photographs or None]))
    save_autoencoder(vae, AUTOENCODER, card(keys, len(corpus.names)))
    history.to_csv(AUTOENCODER / HISTORY, index=False)


def decoder(asked: World) -> None:
    """The autoencoder's decoder, taught to paint texture; its latents stay what they were."""
    keys = determinants(asked, "preset", "seen", "trunk", "autoencoder", "decoder")
    corpus = painted(asked, "autoencoder", asked.autoencoder.corpus, asked.seen)
    vae = AutoencoderKL.from_pretrained(AUTOENCODER, use_safetensors=True, local_files_only=True)
    place = accelerator(asked.machine)
    latents = encode_pictures(vae.to(place.device), corpus.pictures)
    torch.manual_seed(seed_of(asked.seed, "discriminator"))
    task = decoder_training.task(
        vae,
        PatchDiscriminator(),
        LPIPS.from_folder(TRUNK).to(place.device),
        latents,
        corpus.pictures,
        corpus.names,
        (asked.decoder.perceptual, asked.decoder.adversarial),
        asked.seed,
        place.device,
    )
    history = trained("decoder", task, asked.decoder.optimisation, asked, keys)
    save_autoencoder(vae.to(memory_format=torch.contiguous_format), DECODER, card(keys, len(corpus.names)))
    history.to_csv(DECODER / HISTORY, index=False)


def denoiser(asked: World) -> None:
    """Denoiser and text encoder on latents of photographs and a little art: the base."""
    # not the decoder: a denoiser knows latents only
    keys, recipe = determinants(asked, "preset", "seen", "autoencoder", "denoiser"), asked.denoiser
    corpus = painted(asked, "denoiser", recipe.corpus, asked.seen)
    prompts = [captions(record, recipe.prompts_per_picture) for record in corpus.records]
    vae = AutoencoderKL.from_pretrained(DECODER, use_safetensors=True, local_files_only=True)
    texts = [text for row in prompts for text in row]
    pipeline = base.build(asked.preset, asked.size, texts, asked.seed, vae.requires_grad_(False))
    place = accelerator(asked.machine)
    latents = encode_pictures(pipeline.vae.to(place.device), corpus.pictures)
    task = denoiser_task(pipeline, latents, corpus.names, prompts, recipe.empty_prompts, asked.seed, place.device)
    history = trained("denoiser", task, recipe.optimisation, asked, keys)
    base.save(pipeline.to("cpu"), BASE, card(keys, len(corpus.names)))
    before = [pd.read_csv(folder / HISTORY) for folder in (AUTOENCODER, DECODER)]
    pd.concat([*before, history]).to_csv(BASE / HISTORY, index=False)


def conversion(asked: World, kind: str) -> None:
    """The base's adapter for another kind of prediction, on what the base learnt."""
    keys = {**determinants(asked, "preset", "seen", "denoiser", "conversion"), "base": base.fingerprint(BASE)}
    corpus = painted(asked, "denoiser", asked.denoiser.corpus, asked.seen)
    prompts = [captions(record, asked.denoiser.prompts_per_picture) for record in corpus.records]
    pipeline = base.load(BASE)
    place = accelerator(asked.machine)
    latents = encode_pictures(pipeline.vae.to(place.device), corpus.pictures)
    pipeline.scheduler = scheduler_for(kind, pipeline.scheduler)
    share = asked.denoiser.empty_prompts
    task = denoiser_task(pipeline, latents, corpus.names, prompts, share, asked.seed, place.device)
    pipeline.text_encoder.requires_grad_(False)
    task = replace(task, trainable=add_conversion(pipeline.unet, asked.conversion.rank, asked.seed))
    history = trained(kind, task, asked.conversion.optimisation, asked, keys)
    out = CONVERSIONS / kind
    save_conversion(pipeline.to("cpu"), kind, out, card(keys, len(corpus.names)))
    history.to_csv(out / HISTORY, index=False)


def save_autoencoder(vae: AutoencoderKL, folder: Path, content: dict[str, Any]) -> None:
    """The diffusers format and a card of where it came from."""
    vae.to("cpu").save_pretrained(folder, safe_serialization=True)
    (folder / "card.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
