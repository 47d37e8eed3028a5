"""Sample pictures in batches, with guidance and one seed per picture.

A picture's first latent is a function of its seed, and every batch has the same size (the last is padded), so that a
picture does not depend on the others in its batch.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from atelier.models.latents import decode
from atelier.seeds import torch_generator

Seed = tuple[str | int, ...]


class Sampled(NamedTuple):
    """Last latents (n, c, h, w) and their decoded pictures (n, 3, 8 h, 8 w), about [-1, 1]; float32."""

    latents: Tensor
    pictures: Tensor


def first_latents(pipeline: StableDiffusionPipeline, seeds: Sequence[Seed], size: int) -> Tensor:
    """White noise (n, c, size/8, size/8), one seed per picture; drawn on the CPU, so that devices agree."""
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
    """One picture per prompt and first latent (n, c, h, w)."""
    last = torch.cat(list(last_latents(pipeline, prompts, latents, guidance=guidance, steps=steps, batch=batch)))
    return Sampled(last, decoded(pipeline.vae, last, batch))


def last_latents(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    latents: Tensor,
    *,
    guidance: float,
    steps: int,
    batch: int,
) -> Iterator[Tensor]:
    """Last latents, a batch at a time, with classifier-free guidance (Ho and Salimans 2021, eq. 6).

    Uses the pipeline's sampler and prompt handling; deterministic, as DDIM with eta = 0 is.
    """
    if len(prompts) != len(latents):
        raise ValueError(
            f"each picture needs a prompt and a latent, got {len(prompts)} prompts, {len(latents)} latents"
        )
    height, width = (side * pipeline.vae_scale_factor for side in latents.shape[2:])
    for first in range(0, len(prompts), batch):
        indices = _full_batch(first, len(prompts), batch)
        painted = pipeline(
            [prompts[index] for index in indices],
            latents=latents[indices].to(pipeline.device),
            guidance_scale=guidance,
            num_inference_steps=steps,
            height=height,
            width=width,
            output_type="latent",
        ).images
        yield painted.float().cpu()[: len(prompts) - first]


def decoded(vae: AutoencoderKL, latents: Tensor, batch: int) -> Tensor:
    """Pictures (n, 3, 8 h, 8 w) float32, about [-1, 1], decoded from last latents (n, c, h, w), in full batches."""
    firsts = range(0, len(latents), batch)
    parts = [decode(vae, latents[_full_batch(first, len(latents), batch)], batch) for first in firsts]
    return torch.cat(parts)[: len(latents)]


def _full_batch(first: int, n: int, batch: int) -> list[int]:
    """``batch`` indices from ``first``; the last batch is padded with the last index."""
    return [min(index, n - 1) for index in range(first, first + batch)]


def settled(pipeline: StableDiffusionPipeline, device: torch.device) -> StableDiffusionPipeline:
    """Move a pipeline to its device, in channels-last layout, which is faster on a CPU (`benchmarks/sampling.py`)."""
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    return pipeline.to(device)


def with_ddim(pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """The same model with DDIM (Song et al. 2021) instead of its folder's sampler, so that all studies use the same.

    DDIM is Euler's method along the noising path; a flow keeps its own sampler, which is Euler's method on its path.
    """
    if pipeline.scheduler.config.prediction_type != "flow_prediction":
        pipeline.scheduler = DDIMScheduler.from_config(
            pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=False
        )
    return pipeline
