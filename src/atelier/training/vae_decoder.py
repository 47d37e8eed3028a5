"""Stage ``vae_decoder-train`` (Sickert et al. 2025): a decoder's upscaling retuned, the latents left what they are.

The encoder is frozen, so that whatever denoises its latents stays valid; so is every part outside the scope.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from atelier import paths
from atelier.data import prepare
from atelier.data.images import to_model_range
from atelier.data.latents import Moments, read_cache, unscaled
from atelier.machine import accelerator
from atelier.methods.focal_frequency import focal_frequency_loss
from atelier.methods.perceptual import LPIPS
from atelier.models import base
from atelier.models.autoencoders import decoder_parameters, digest
from atelier.models.stored import file_digest, save_json
from atelier.params import LossWeights, Params, Perceptual
from atelier.seeds import seed_of, torch_generator
from atelier.training import scratch
from atelier.training.art_finetuning import CACHE, key, works_and_prompts
from atelier.training.autoencoder import posterior_noise
from atelier.training.loop import Task, fit
from atelier.training.order import Pick

STUDY = "vae_decoder"


class Crop(NamedTuple):
    """A square of a latent and the pixels that it stands for."""

    top: int
    left: int
    side: int  # latent elements
    pixels: int  # a latent element

    def of_latent(self, z: Tensor) -> Tensor:
        return z[..., self.top : self.top + self.side, self.left : self.left + self.side]

    def of_picture(self, x: Tensor) -> Tensor:
        top, left, side = (self.pixels * value for value in (self.top, self.left, self.side))
        return x[..., top : top + side, left : left + side]


def retuning_loss(
    output: Tensor, target: Tensor, weights: LossWeights, perceptual: Callable[[Tensor, Tensor], Tensor] | None
) -> dict[str, Tensor]:
    """``w_ffl FFL + w_lpips LPIPS + w_mse MSE`` of pictures in [-1, 1], a weighted term each but those of weight 0.

    Sickert et al. 2025, intervention 1; the poster gives no weights.
    """
    terms = {}
    if weights.mse:
        terms["mse"] = weights.mse * mse_loss(output, target)
    if weights.lpips:
        assert perceptual is not None
        terms["lpips"] = weights.lpips * perceptual(output, target).mean()
    if weights.ffl:
        terms["ffl"] = weights.ffl * focal_frequency_loss(output, target)
    return terms


def task(
    vae: ModelMixin,
    trainable: dict[str, nn.Parameter],
    weights: LossWeights,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None,
    latents: Moments,
    pictures: Tensor,
    names: Sequence[str],
    *,
    crop: int,
    seed: int,
    device: torch.device,
) -> Task:
    """Train ``trainable``, parameters of ``vae``, on ``latents`` and their ``pictures`` (n, 3, h, w) uint8.

    ``crop``: pixels a side of a square, drawn anew each time; 0: whole pictures. The decoder sees the latent of the
    whole picture, cut out: that is what it is given when it is used.
    """
    vae.to(device, memory_format=torch.channels_last).requires_grad_(False).train()
    for parameter in trainable.values():
        parameter.requires_grad_(True)
    pixels = pictures.shape[-1] // latents.mean.shape[-1]
    if crop % pixels:
        raise ValueError(f"vae_decoder.crop: {crop} px are no whole number of latent elements of {pixels} px")
    room = [length - crop // pixels for length in latents.mean.shape[2:]]

    def cropped(name: str, epoch: int) -> Crop:
        generator = torch_generator(seed, "crop", name, epoch)
        top, left = (int(torch.randint(places + 1, (), generator=generator)) for places in room)
        return Crop(top, left, crop // pixels, pixels)

    def losses(batch: Sequence[Pick]) -> dict[str, Tensor]:
        chosen = [pick.sample for pick in batch]
        z = latents.mean[chosen] + latents.std[chosen] * posterior_noise(latents.std.shape[1:], seed, names, batch)
        target = to_model_range(pictures[chosen])
        if crop:
            crops = [cropped(names[pick.sample], pick.epoch) for pick in batch]
            z = torch.stack([each.of_latent(one) for each, one in zip(crops, z, strict=True)])
            target = torch.stack([each.of_picture(one) for each, one in zip(crops, target, strict=True)])
        # where up_blocks learn, their first group norm has weights to tune and an input without a gradient: laid out
        # channels last, torch's backward on the CPU then ends the process (seen with 2.13)
        z = z.to(device).requires_grad_(weights.scope == "up_blocks")
        output = vae.decode(unscaled(vae, z)).sample
        return retuning_loss(output, target.to(device, memory_format=torch.channels_last), weights, perceptual)

    return Task(trainable=trainable, samples=names, losses=losses)


def teacher(asked: Perceptual) -> LPIPS:
    """The network of the perceptual term: the embedded world's trunk, or one of ImageNet's from local files."""
    if asked.network == "trunk":
        return LPIPS.from_folder(Path(asked.weights).parent)
    return LPIPS.from_files(asked.network, Path(asked.weights), Path(asked.heads))


def train(asked: Params, variant: str, training_seed: int) -> None:
    """One decoder into ``build/decoders``."""
    study = asked.vae_decoder
    if variant not in study.decoders:
        raise ValueError(f"vae_decoder.decoders: no variant '{variant}', there are {', '.join(study.variants)}")
    if training_seed not in asked.art_finetuning.training_seeds:
        raise ValueError(f"art_finetuning.training_seeds: {training_seed} is none of them")
    weights = study.decoders[variant]
    seed = seed_of(asked.seed, STUDY, training_seed)
    table, prompts = works_and_prompts(asked)
    made_from = key(asked, table, prompts)
    latents = read_cache(CACHE, made_from).latents
    place = accelerator(asked.machine)
    vae = base.load(paths.BASE).vae
    trainable = decoder_parameters(vae, weights.scope)
    before = digest(vae, trainable)
    if study.checkpointing:
        vae.enable_gradient_checkpointing()
    lpips = teacher(study.perceptual).to(place.device) if weights.lpips else None
    pictures = prepare.pictures(table, asked.data)
    names = list(table["path"])
    job = task(
        vae, trainable, weights, lpips, latents, pictures, names, crop=study.crop, seed=seed, device=place.device
    )
    determinants = {
        **made_from,
        "loss": weights.model_dump(mode="json"),
        # a file's name alone does not say which network it holds
        "perceptual": {
            "network": study.perceptual.network,
            **{part: file_digest(Path(getattr(study.perceptual, part))) for part in ("weights", "heads")},
        },
        "crop": study.crop,
        "checkpointing": study.checkpointing,
        "optimisation": study.optimisation.model_dump(mode="json"),
        "machine": asked.machine.model_dump(mode="json"),
        "seed": asked.seed,
        "training_seed": training_seed,
        "works": names,
    }
    run = scratch.folder(f"{STUDY}-{variant}-{training_seed}", **determinants)
    history = fit(job, study.optimisation, seed=seed, scratch=run, accelerator=place)
    vae.to("cpu", memory_format=torch.contiguous_format).eval()
    if digest(vae, trainable) != before:
        raise RuntimeError(f"{variant}: a parameter outside the scope '{weights.scope}' was changed")
    out = retuned_folder(variant, training_seed)
    with paths.replacing(out) as part:
        vae.save_pretrained(part / "vae", safe_serialization=True)
        base.forget_whereabouts(part / "vae" / "config.json")
        card = {**determinants, "study": STUDY, "name": variant, "works": len(names), "unchanged": before}
        save_json(card, part / "card.json")
        history.to_csv(part / "history.csv", index=False)
    scratch.discard(run)


def retuned_folder(variant: str, training_seed: int) -> Path:
    """Where a decoder's training with one seed lies."""
    return paths.DECODERS / variant / str(training_seed)
