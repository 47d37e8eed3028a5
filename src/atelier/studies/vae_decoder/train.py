"""Retune a decoder's upscaling (Sickert et al. 2025): one variant from one training seed.

The encoder and every part outside the scope are frozen, so that denoisers of its latents stay valid.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from atelier.data import prepare
from atelier.data.checks import square_side
from atelier.data.images import to_model_range
from atelier.data.pictures import Pictures, at_hand
from atelier.files import check_seal, filling
from atelier.machine import accelerator
from atelier.methods.focal_frequency import focal_frequency_loss
from atelier.methods.perceptual import LPIPS
from atelier.models import base
from atelier.models.autoencoders import decoder_parameters, digest
from atelier.models.latents import Latents, unscaled
from atelier.models.stored import file_digest, save_json
from atelier.params import Params
from atelier.seeds import seed_of, torch_generator
from atelier.studies.vae_decoder.params import Config, LossWeights
from atelier.training.autoencoder import posterior_noise
from atelier.training.caches import WORKS, read_cache, training_works
from atelier.training.loop import Task
from atelier.training.order import Turn
from atelier.training.run import check, training_run
from atelier.workspace import Workspace

PROCESSES = "several"  # share batches of a training


class Crop(NamedTuple):
    """A square of a latent, and the corresponding pixels."""

    top: int
    left: int
    side: int  # latent elements
    pixels: int  # per latent element

    def of_latent(self, z: Tensor) -> Tensor:
        return z[..., self.top : self.top + self.side, self.left : self.left + self.side]

    def of_picture(self, x: Tensor) -> Tensor:
        top, left, side = (self.pixels * value for value in (self.top, self.left, self.side))
        return x[..., top : top + side, left : left + side]


def retuning_loss(
    output: Tensor, target: Tensor, weights: LossWeights, perceptual: Callable[[Tensor, Tensor], Tensor] | None
) -> dict[str, Tensor]:
    """``w_ffl FFL + w_lpips LPIPS + w_mse MSE`` of pictures in [-1, 1]; terms with weight 0 are left out.

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


class Pairs(NamedTuple):
    """Latents, their pictures, and names."""

    latents: Latents
    pictures: Pictures
    names: Sequence[str]


def task(
    vae: ModelMixin,
    trainable: dict[str, nn.Parameter],
    weights: LossWeights,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None,
    pairs: Pairs,
    *,
    crop: int,
    seed: int,
    device: torch.device,
) -> Task:
    """Train ``trainable``, parameters of ``vae``, on pairs of a latent and its picture.

    ``crop``: side in pixels of a random square; 0: whole pictures. The latent is cropped after encoding the whole
    picture, because at inference the decoder gets latents of whole pictures.
    """
    vae.to(device, memory_format=torch.channels_last).requires_grad_(False).train()
    for parameter in trainable.values():
        parameter.requires_grad_(True)
    latents, pictures, names = pairs
    pixels = square_side(pictures[:1].load(), "pictures") // square_side(latents.mean, "latents")
    if crop % pixels:
        raise ValueError(f"vae_decoder.crop: {crop} px are no whole number of latent elements of {pixels} px")
    margins = [length - crop // pixels for length in latents.mean.shape[2:]]

    def cropped(name: str, epoch: int) -> Crop:
        generator = torch_generator(seed, "crop", name, epoch)
        top, left = (int(torch.randint(margin + 1, (), generator=generator)) for margin in margins)
        return Crop(top, left, crop // pixels, pixels)

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        chosen = [turn.sample for turn in batch]
        z = latents.drawn(chosen, posterior_noise(latents.std.shape[1:], seed, names, batch))
        target = to_model_range(pictures[chosen].load())
        if crop:
            crops = [cropped(names[turn.sample], turn.epoch) for turn in batch]
            z = torch.stack([each.of_latent(one) for each, one in zip(crops, z, strict=True)])
            target = torch.stack([each.of_picture(one) for each, one in zip(crops, target, strict=True)])
        # if only up_blocks are trained, their first group norm has trainable weights but an input without a gradient;
        # with channels last, torch's CPU backward then crashes the process (seen with 2.13)
        z = z.to(device).requires_grad_(weights.scope == "up_blocks")
        output = vae.decode(unscaled(vae, z)).sample
        return retuning_loss(output, target.to(device, memory_format=torch.channels_last), weights, perceptual)

    return Task(trainable=trainable, samples=names, losses=losses, means=True)


def main(params: Params, workspace: Workspace, variant: str, seed: str) -> None:
    """Write one decoder to ``build/decoders``."""
    train(params, workspace, variant, params.protocol.training_seed(seed))


def train(params: Params, workspace: Workspace, variant: str, training_seed: int) -> None:
    config, accelerate = Config.of(params), accelerator(params.machine)
    check(params, "vae_decoder.decoders", variant, config.decoders, training_seed)
    weights, perceptual = config.decoders[variant], params.perceptual
    seed = seed_of(params.seed, config.STUDY, training_seed)
    works = training_works(params, workspace)
    vae = base.load(check_seal(workspace.base)).vae
    trainable = decoder_parameters(vae, weights.scope)
    before = digest(vae, trainable)
    if config.checkpointing:
        vae.enable_gradient_checkpointing()
    latents = read_cache(workspace.cache / WORKS, works.key).latents
    retuning = task(
        vae,
        trainable,
        weights,
        LPIPS.from_params(perceptual, workspace.root).to(accelerate.device) if weights.lpips else None,
        Pairs(latents, at_hand(prepare.pictures(works.table, params.data, workspace), params.data.size), works.names),
        crop=config.crop,
        seed=seed,
        device=accelerate.device,
    )
    run = training_run(
        params,
        workspace.scratch,
        config.STUDY,
        variant,
        training_seed,
        workspace.decoder(variant, training_seed),
        **works.key,
        loss=weights.model_dump(mode="json"),
        # a file's name does not determine the network in it
        perceptual={
            "network": perceptual.network,
            **{part: file_digest(workspace.named(getattr(perceptual, part))) for part in ("weights", "heads")},
        },
        crop=config.crop,
        checkpointing=config.checkpointing,
        optimisation=config.optimisation.model_dump(mode="json"),
        works=works.names,
    )
    history = run.fit(retuning, config.optimisation, accelerate, seed)
    vae.to("cpu", memory_format=torch.contiguous_format).eval()
    if digest(vae, trainable) != before:
        raise RuntimeError(f"{variant}: a parameter outside the scope '{weights.scope}' was changed")
    run.write(lambda folder, card: save(vae, folder, card), history, works=len(works.names), unchanged=before)
    run.discard()


def save(vae: ModelMixin, folder: Path, card: dict[str, Any]) -> None:
    """Write the whole autoencoder in the diffusers format, and its card."""
    with filling(folder / "vae"):
        vae.save_pretrained(folder / "vae", safe_serialization=True)
    base.forget_whereabouts(folder / "vae" / "config.json")
    save_json(card, folder / "card.json")
