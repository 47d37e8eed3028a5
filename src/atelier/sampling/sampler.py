"""Pictures out: batches with guidance, a seed a picture, lossless files.

A picture's first latent is a function of its own seed, and every batch has the same size (the last is filled up), so
that a picture does not depend on the others asked for with it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from atelier.data.latents import decode
from atelier.seeds import torch_generator

Seed = tuple[str | int, ...]


class Sampled(NamedTuple):
    """Last latents (n, c, h, w) and the pictures (n, 3, 8 h, 8 w), about [-1, 1], that they are; float32."""

    latents: Tensor
    pictures: Tensor


def first_latents(pipeline: StableDiffusionPipeline, seeds: Sequence[Seed], size: int) -> Tensor:
    """White noise (n, c, size/8, size/8), each picture's from its own seed; on the CPU, so that devices agree."""
    side = size // pipeline.vae_scale_factor
    shape = (pipeline.unet.config.in_channels, side, side)
    return torch.stack([torch.randn(shape, generator=torch_generator(*seed)) for seed in seeds])


def sample(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    latents: Tensor,
    *,
    guidance: float,
    steps: int,
    batch: int,
) -> Sampled:
    """With classifier-free guidance (Ho and Salimans 2021, eq. 6).

    One picture a prompt and first latent of ``latents`` (n, c, h, w), as ``first_latents`` draws them. The pipeline's
    own sampler and prompt handling; deterministic, as DDIM with eta = 0 is.
    """
    if len(prompts) != len(latents):
        raise ValueError(
            f"each picture needs a prompt and a latent, got {len(prompts)} prompts, {len(latents)} latents"
        )
    height, width = (side * pipeline.vae_scale_factor for side in latents.shape[2:])
    found = []
    for places in _full_batches(len(prompts), batch):
        made = pipeline(
            [prompts[place] for place in places],
            latents=latents[places].to(pipeline.device),
            guidance_scale=guidance,
            num_inference_steps=steps,
            height=height,
            width=width,
            output_type="latent",
        ).images
        found.append(made.float().cpu())
    last = torch.cat(found)[: len(prompts)]
    return Sampled(last, paint(pipeline.vae, last, batch))


def paint(vae: AutoencoderKL, latents: Tensor, batch: int) -> Tensor:
    """Pictures (n, 3, 8 h, 8 w) float32, about [-1, 1], of last latents (n, c, h, w)."""
    found = [decode(vae, latents[places], batch) for places in _full_batches(len(latents), batch)]
    return torch.cat(found)[: len(latents)]


def _full_batches(n: int, batch: int) -> Iterator[list[int]]:
    """Indices up to n, ``batch`` at a time; the last batch is filled up with the last of them."""
    for start in range(0, n, batch):
        yield [min(start + i, n - 1) for i in range(batch)]


def settled(pipeline: StableDiffusionPipeline, device: torch.device) -> StableDiffusionPipeline:
    """On its device, convolutions laid out channels last, which is faster on a CPU (`benchmarks/sampling.py`)."""
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    return pipeline.to(device)


def with_ddim(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """The same model with DDIM (Song et al. 2021), whatever sampler its folder names: studies share one.

    DDIM is Euler's method along the noising path; for a flow, whose path is another, that is what its own sampler does.
    """
    if pipeline.scheduler.config.prediction_type != "flow_prediction":
        pipeline.scheduler = DDIMScheduler.from_config(
            pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=False
        )
    return pipeline
