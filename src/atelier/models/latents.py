"""Encode pictures and prompts, and decode latents, in the denoiser's units.

Every function raises ValueError for tensors of another type or shape, TypeError for what is no tensor and no text.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor

from atelier.data.checks import check_tensor, check_texts, check_whole, shape_of
from atelier.data.images import to_model_range
from atelier.data.pictures import Pictures, in_memory
from atelier.data.shards import Rows

BATCH = 32


class Moments(NamedTuple):
    """Mean and standard deviation (n, c, h, w) float32 of a latent's posterior, in the denoiser's units."""

    mean: Tensor
    std: Tensor


class Latents(NamedTuple):
    """``Moments`` that trainings draw latents from: in memory, or rows that are read as they are needed."""

    mean: Tensor | Rows
    std: Tensor | Rows

    def drawn(self, rows: list[int], noise: Tensor) -> Tensor:
        """Latents (b, c, h, w) float32 of some rows, from their posterior, with standard normal noise."""
        return self.mean[rows].float() + self.std[rows].float() * noise


def encode_pictures(vae: AutoencoderKL, pictures: Tensor | Pictures) -> Moments:
    """Posterior moments of ``pictures`` (n, 3, h, w) uint8, scaled and shifted to the denoiser's units."""
    factor, shift = _scale(vae)
    means, stds = [], []
    with torch.no_grad():
        for part in in_memory(pictures).batches(BATCH):
            encoded = vae.encode(to_model_range(part).to(vae.device, vae.dtype))
            # an autoencoder without a posterior (AutoencoderTiny) gives a deterministic latent
            certain = getattr(encoded, "latents", None)
            mean = encoded.latent_dist.mean if certain is None else certain
            std = encoded.latent_dist.std if certain is None else torch.zeros_like(certain)
            means.append(((mean - shift) * factor).cpu())
            stds.append((std * factor).cpu())
    return Moments(torch.cat(means).float(), torch.cat(stds).float())


def decode(vae: AutoencoderKL, latents: Tensor, batch: int = BATCH) -> Tensor:
    """Pictures (n, 3, h, w) float32, about [-1, 1], decoded from latents (n, c, h, w) in the denoiser's units."""
    _check_latents(vae, latents)
    batch = check_whole(batch, "batch")
    with torch.no_grad():
        parts = [
            vae.decode(unscaled(vae, part.to(vae.device)).to(vae.dtype)).sample.float().cpu()
            for part in latents.split(batch)
        ]
    return torch.cat(parts)


def unscaled(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Convert latents (..., c, h, w) from the denoiser's units to the autoencoder's."""
    check_tensor(latents, "latents", "(..., c, h, w)")
    factor, shift = _scale(vae)
    return latents / factor + shift


def encode_prompts(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> Tensor:
    """Embeddings (n, tokens, width) float32, as the pipeline computes them in sampling.

    ValueError for a pipeline whose denoiser is told more: `atelier.sampling.prompted.Prompted` reads all of it.
    """
    check_texts(prompts, "prompts")
    if not isinstance(pipeline, StableDiffusionPipeline):
        told = "its denoiser is told more than one text encoder's words; take atelier.sampling.prompted.Prompted"
        raise ValueError(f"pipeline: expected a StableDiffusionPipeline, got {type(pipeline).__name__}: {told}")
    parts = []
    with torch.no_grad():
        for start in range(0, len(prompts), BATCH):
            part = list(prompts[start : start + BATCH])
            parts.append(pipeline.encode_prompt(part, pipeline.device, 1, False)[0].float().cpu())
    return torch.cat(parts)


def _scale(vae: AutoencoderKL) -> tuple[float, float]:
    """Factor and shift between an autoencoder's latents and the denoiser's; ValueError where each channel has its own.

    Such an autoencoder's pipeline standardises by channel instead, of which these two numbers say nothing.
    """
    if any(getattr(vae.config, key, None) is not None for key in ("latents_mean", "latents_std")):
        raise ValueError("vae: latents_mean, latents_std: statistics by channel are not supported, only scaling_factor")
    return vae.config.scaling_factor, vae.config.get("shift_factor") or 0.0


def _check_latents(vae: AutoencoderKL, latents: Tensor) -> None:
    """Refuse anything but floats (n, c, h, w) with the autoencoder's number of channels."""
    check_tensor(latents, "latents", "(n, c, h, w)")
    channels = vae.config.latent_channels
    if latents.shape[1] != channels:
        raise ValueError(
            f"latents: expected {channels} channels, as the autoencoder has, got shape {shape_of(latents)}"
        )
