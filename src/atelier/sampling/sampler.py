"""Sample pictures in batches, with guidance and one seed per picture.

A picture's first latent is a function of its seed, and every batch has the same size (the last is padded), so that a
picture does not depend on the others in its batch. Every function raises ValueError for numbers out of range and for
tensors of another type or shape, TypeError for what is no number, no tensor and no text.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from atelier.data.checks import check_finite_tensor, check_number, check_tensor, check_texts, check_whole, shape_of
from atelier.models.latents import decode
from atelier.seeds import torch_generator

Seed = tuple[str | int, ...]


class Sampled(NamedTuple):
    """Last latents (n, c, h, w) and their decoded pictures (n, 3, 8 h, 8 w), about [-1, 1]; float32."""

    latents: Tensor
    pictures: Tensor


def first_latents(pipeline: StableDiffusionPipeline, seeds: Sequence[Seed], size: int) -> Tensor:
    """White noise (n, c, size/8, size/8), one seed per picture; drawn on the CPU, so that devices agree.

    Raises ValueError for no seeds, and for a size that is no whole number of latent elements.
    """
    size, pixels = check_whole(size, "size"), pipeline.vae_scale_factor
    if size % pixels:
        raise ValueError(f"size: {size} px are no whole number of latent elements of {pixels} px")
    if not seeds:
        raise ValueError("seeds: expected at least one, got none")
    side = size // pixels
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
    """One picture per prompt and first latent (n, c, h, w); ValueError as ``last_latents``."""
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

    Uses the pipeline's sampler and prompt handling; deterministic, as DDIM with eta = 0 is. Raises ValueError, before
    anything is sampled, for another number of prompts than of latents, latents of another shape, and numbers below 1.
    """
    check_texts(prompts, "prompts")
    check_tensor(latents, "latents", "(n, c, h, w)")
    check_finite_tensor(latents, "latents")
    guidance, steps = check_number(guidance, "guidance", least=0), check_whole(steps, "steps")
    batch, channels = check_whole(batch, "batch"), pipeline.unet.config.in_channels
    if latents.shape[1] != channels:
        raise ValueError(f"latents: expected {channels} channels, as the denoiser has, got shape {shape_of(latents)}")
    if len(prompts) != len(latents):
        counted = f"{len(prompts)} prompts, {len(latents)} latents"
        raise ValueError(f"prompts, latents: each picture needs a prompt and a latent, got {counted}")
    return _batches(pipeline, prompts, latents, guidance, steps, batch)


def _batches(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], latents: Tensor, guidance: float, steps: int, batch: int
) -> Iterator[Tensor]:
    height, width = (side * pipeline.vae_scale_factor for side in latents.shape[2:])
    for first in range(0, len(prompts), batch):
        indices = _full_batch(first, len(prompts), batch)
        painted = pipeline(
            [prompts[index] for index in indices],
            latents=latents[indices].to(pipeline.device, pipeline.unet.dtype),
            guidance_scale=guidance,
            num_inference_steps=steps,
            height=height,
            width=width,
            output_type="latent",
        ).images
        yield painted.float().cpu()[: len(prompts) - first]


def decoded(vae: AutoencoderKL, latents: Tensor, batch: int) -> Tensor:
    """Pictures (n, 3, 8 h, 8 w) float32, about [-1, 1], decoded from last latents (n, c, h, w), in full batches."""
    check_tensor(latents, "latents", "(n, c, h, w)")
    batch = check_whole(batch, "batch")
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
