"""The training stages of ``world/dvc.yaml``."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from atelier import scratch
from atelier.data.images import to_model_range
from atelier.data.painter import VERSION, paint_corpus
from atelier.data.prompts import painted_row, prompt
from atelier.diffusion import min_snr_weight
from atelier.files import filling, read_table, write_json, write_table
from atelier.machine import accelerator, fingerprint
from atelier.methods.perceptual import LPIPS
from atelier.models import base
from atelier.models import evaluator as evaluators
from atelier.models import trunk as trunks
from atelier.models.checked import load_part
from atelier.models.discriminator import PatchDiscriminator
from atelier.models.latents import encode_pictures
from atelier.models.linear_start import start_at_linear_code
from atelier.params import Optimisation
from atelier.seeds import evenly, seed_of
from atelier.training import autoencoder as autoencoder_training
from atelier.training import decoder as decoder_training
from atelier.training import evaluator as evaluator_training
from atelier.training import trunk as trunk_training
from atelier.training.base import HISTORY, LINEAR_START_PICTURES, denoiser_task, standardised
from atelier.training.conversion import add_conversion, save_conversion, scheduler_for
from atelier.training.denoiser import Denoised, Extra, target
from atelier.training.loop import Task, fit
from atelier.world.params import Corpus, World
from atelier.world.workspace import WorldWorkspace

CAPTION_LEVELS = (1, 2, 2)  # prompt levels of works, in turn; photographs have level 0


class Painted(NamedTuple):
    """Pictures (n, 3, h, w) uint8, the truth and caption of each, and names that seed their noise."""

    pictures: Tensor
    records: list[dict[str, Any]]
    names: list[str]


def painted(world: World, purpose: str, corpus: Corpus, artists: Sequence[str] = ()) -> Painted:
    """Paint a corpus for one purpose, with a separate seed; ``artists``: only works by these, if given."""
    seed = seed_of(world.seed, "world", purpose) % 2**31
    return _painted(corpus.works, corpus.photographs, seed, world.size, world.machine.threads, tuple(artists))


@lru_cache(maxsize=8)  # of use where several bases are trained in one process
def _painted(works: int, photographs: int, seed: int, size: int, threads: int, artists: tuple[str, ...]) -> Painted:
    pixels, records, captions = paint_corpus(works, photographs, seed, size, threads, artists)
    whole = [painted_row(record, caption) for record, caption in zip(records, captions, strict=True)]
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return Painted(pictures, whole, [f"{record['kind']}-{record['index']}" for record in records])


def captions(record: dict[str, Any], n: int) -> list[str]:
    """``n`` prompts for one picture."""
    return [prompt(record, CAPTION_LEVELS[draw % 3] if record["kind"] == "work" else 0, draw // 3) for draw in range(n)]


def relevant_params(world: World, *parts: str) -> dict[str, Any]:
    """The parameters that a stage's result depends on, with the painter's version."""
    return {"painter": VERSION, **world.model_dump(mode="json", include={"seed", "machine", "size", *parts})}


def card(inputs: dict[str, Any], pictures: int) -> dict[str, Any]:
    """A network's card: its provenance."""
    return {"asked": inputs, "machine": fingerprint(), "pictures": pictures}


def trained(
    name: str, task: Task, settings: Optimisation, world: World, checkpoints: Path, keys: dict[str, Any]
) -> pd.DataFrame:
    """Fit a task, resuming the run with these keys; returns the history."""
    run = scratch.folder(checkpoints, __name__, f"world-{name}", **keys)
    history = fit(task, settings, seed=world.seed, scratch=run, accelerator=accelerator(world.machine))
    return history.assign(part=name)


def trunk(world: World, workspace: WorldWorkspace) -> None:
    """Train the network of perceptual losses, and the weights of its distance."""
    keys = relevant_params(world, "trunk")
    corpus = painted(world, "trunk", world.trunk.corpus)
    accelerate = accelerator(world.machine)
    net = trunks.build(world.seed)
    task = trunk_training.task(net, corpus.pictures, corpus.records, world.seed, accelerate.device)
    history = [trained("trunk", task, world.trunk.optimisation, world, workspace.scratch, keys)]
    trunk_training.fold(net, task, corpus.pictures[evenly(len(corpus.names), 512)])
    heads = trunk_training.heads_task(net, corpus.pictures, corpus.names, world.seed, accelerate.device)
    history.append(trained("heads", heads, world.trunk.heads, world, workspace.scratch, keys))
    weights = trunk_training.weights_of(heads, net, corpus.pictures[evenly(len(corpus.names), 500)])
    trunks.save(net.cpu(), [weight.cpu() for weight in weights], workspace.trunk, card(keys, len(corpus.names)))
    write_table(workspace.trunk / HISTORY, pd.concat(history))


def evaluator(world: World, workspace: WorldWorkspace) -> None:
    """Train the network of metrics."""
    keys, recipe = relevant_params(world, "evaluator"), world.evaluator
    corpus = painted(world, "evaluator", recipe.corpus)
    prompts = [captions(record, recipe.prompts_per_picture) for record in corpus.records]
    net = evaluators.build(evaluators.classes_of(corpus.records), [text for row in prompts for text in row], world.seed)
    accelerate = accelerator(world.machine)
    task = evaluator_training.task(net, corpus.pictures, corpus.records, prompts, world.seed, accelerate.device)
    history = trained("evaluator", task, recipe.optimisation, world, workspace.scratch, keys)
    chosen = evenly(len(corpus.names), 2048)
    names = [corpus.names[index] for index in chosen]
    evaluator_training.calibrate(net, corpus.pictures[chosen], names, world.seed)
    evaluators.save(net.cpu(), workspace.evaluator, card(keys, len(corpus.names)))
    write_table(workspace.evaluator / HISTORY, history)


class Made(NamedTuple):
    """A trained part of the base, its training history and its card."""

    part: Any
    history: pd.DataFrame
    card: dict[str, Any]


def trained_autoencoder(world: World, checkpoints: Path) -> Made:
    """Train the autoencoder with L1 from the linear start, then fold in the latents' statistics."""
    recipe = world.autoencoder
    keys = relevant_params(world, "preset", "changed", "seen", "autoencoder")
    corpus = painted(world, "autoencoder", recipe.corpus, world.seen)
    vae = base.build_autoencoder(world.preset, world.size, world.seed, world.changes)
    start_at_linear_code(vae, to_model_range(corpus.pictures[evenly(len(corpus.names), LINEAR_START_PICTURES)]))
    accelerate = accelerator(world.machine)
    task = autoencoder_training.task(vae, corpus.pictures, corpus.names, world.seed, accelerate.device)
    history = trained("autoencoder", task, recipe.optimisation, world, checkpoints, keys)
    vae.requires_grad_(False).to(memory_format=torch.contiguous_format)
    # of photographs, the larger part of the base's training set, whose latents are to have unit variance
    standardised(vae, encode_pictures(vae, corpus.pictures[: recipe.corpus.photographs or None]))
    return Made(vae, history, card(keys, len(corpus.names)))


def trained_decoder(world: World, vae: AutoencoderKL, trunk: Path, checkpoints: Path) -> Made:
    """Train an autoencoder's decoder to paint texture; latents do not change. ``trunk``: the perceptual term's."""
    keys = relevant_params(world, "preset", "changed", "seen", "trunk", "autoencoder", "decoder")
    corpus = painted(world, "autoencoder", world.autoencoder.corpus, world.seen)
    accelerate = accelerator(world.machine)
    latents = encode_pictures(vae.to(accelerate.device), corpus.pictures)
    torch.manual_seed(seed_of(world.seed, "discriminator"))
    task = decoder_training.task(
        vae,
        PatchDiscriminator(),
        LPIPS.from_folder(trunk).to(accelerate.device),
        latents,
        corpus.pictures,
        corpus.names,
        (world.decoder.perceptual, world.decoder.adversarial),
        world.seed,
        accelerate.device,
    )
    history = trained("decoder", task, world.decoder.optimisation, world, checkpoints, keys)
    return Made(vae.to(memory_format=torch.contiguous_format), history, card(keys, len(corpus.names)))


def trained_base(world: World, vae: AutoencoderKL, checkpoints: Path) -> Made:
    """Train denoiser and text encoder on an autoencoder's latents of photographs and a few works."""
    recipe = world.denoiser
    # not the decoder's parameters: the denoiser depends on latents only
    keys = relevant_params(world, "preset", "changed", "seen", "autoencoder", "denoiser")
    corpus = painted(world, "denoiser", recipe.corpus, world.seen)
    prompts = [captions(record, recipe.prompts_per_picture) for record in corpus.records]
    texts = [text for row in prompts for text in row]
    pipeline = base.build(world.preset, world.size, texts, world.seed, vae.requires_grad_(False), world.changes)
    pipeline.scheduler.register_to_config(prediction_type=recipe.prediction)
    accelerate = accelerator(world.machine)
    latents = encode_pictures(pipeline.vae.to(accelerate.device), corpus.pictures)
    extra = min_snr(recipe.prediction, recipe.min_snr) if recipe.min_snr else None
    task = denoiser_task(
        pipeline, latents, corpus.names, prompts, recipe.empty_prompts, world.seed, accelerate.device, extra
    )
    history = trained("denoiser", task, recipe.optimisation, world, checkpoints, keys)
    return Made(pipeline.to("cpu"), history, card(keys, len(corpus.names)))


def min_snr(kind: str, gamma: float) -> Extra:
    """The difference that min-SNR weights make to the denoising loss, as a further term of it."""

    def extra(step: Denoised) -> dict[str, Tensor]:
        eps = (step.zt - step.alpha * step.z0) / step.s
        error = (step.output - target(kind, step.z0, eps, step.alpha, step.s)).square().mean((1, 2, 3))
        weight = min_snr_weight(kind, (step.alpha / step.s).square().flatten(), gamma)
        return {"weighting": ((weight - 1) * error).mean()}

    return extra


def autoencoder(world: World, workspace: WorldWorkspace) -> None:
    """Stage ``autoencoder``."""
    made = trained_autoencoder(world, workspace.scratch)
    save_autoencoder(made.part, workspace.autoencoder, made.card)
    write_table(workspace.autoencoder / HISTORY, made.history)


def decoder(world: World, workspace: WorldWorkspace) -> None:
    """Stage ``decoder``."""
    vae = load_part(workspace.autoencoder, AutoencoderKL)
    made = trained_decoder(world, vae, workspace.trunk, workspace.scratch)
    save_autoencoder(made.part, workspace.textured, made.card)
    write_table(workspace.textured / HISTORY, made.history)


def denoiser(world: World, workspace: WorldWorkspace) -> None:
    """Stage ``denoiser``: the base."""
    made = trained_base(world, load_part(workspace.textured, AutoencoderKL), workspace.scratch)
    base.save(made.part, workspace.base, made.card)
    before = [read_table(folder / HISTORY, ("step",)) for folder in (workspace.autoencoder, workspace.textured)]
    write_table(workspace.base / HISTORY, pd.concat([*before, made.history]))


def conversion(world: World, workspace: WorldWorkspace, kind: str) -> None:
    """Train the base's adapter for another kind of prediction, on the base's training set."""
    made_from = base.fingerprint(workspace.base)
    keys = {**relevant_params(world, "preset", "changed", "seen", "denoiser", "conversion"), "base": made_from}
    corpus = painted(world, "denoiser", world.denoiser.corpus, world.seen)
    prompts = [captions(record, world.denoiser.prompts_per_picture) for record in corpus.records]
    pipeline = base.load(workspace.base)
    accelerate = accelerator(world.machine)
    latents = encode_pictures(pipeline.vae.to(accelerate.device), corpus.pictures)
    pipeline.scheduler = scheduler_for(kind, pipeline.scheduler)
    share = world.denoiser.empty_prompts
    task = denoiser_task(pipeline, latents, corpus.names, prompts, share, world.seed, accelerate.device)
    pipeline.text_encoder.requires_grad_(False)
    task = replace(task, trainable=add_conversion(pipeline.unet, world.conversion.rank, world.seed))
    history = trained(kind, task, world.conversion.optimisation, world, workspace.scratch, keys)
    out = workspace.conversions / kind
    save_conversion(pipeline.to("cpu"), kind, out, card(keys, len(corpus.names)))
    write_table(out / HISTORY, history)


def save_autoencoder(vae: AutoencoderKL, folder: Path, content: dict[str, Any]) -> None:
    """Write an autoencoder in the diffusers format, with a card of its provenance."""
    with filling(folder):
        vae.to("cpu").save_pretrained(folder, safe_serialization=True)
    write_json(folder / "card.json", content)
