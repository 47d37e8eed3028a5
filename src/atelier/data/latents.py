"""Latents and text embeddings, computed once: posterior moments, so that sampling stays random.

A cache is keyed by the content of model, pictures, prompts and preprocessing; one that is stale or damaged is refused
by name, and says which part differs.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from atelier.data.images import PREPROCESSING, to_model_range
from atelier.models.stored import tensor_digest

BATCH = 32


class Moments(NamedTuple):
    """Mean and standard deviation (n, c, h, w) float32 of a latent's posterior, in the denoiser's units."""

    mean: Tensor
    std: Tensor


class Cache(NamedTuple):
    """What a fine-tuning reads: moments of n latents, their prompts' embeddings and the empty prompt's.

    Embeddings are shaped (n, prompts, tokens, width), the empty one (tokens, width).
    """

    latents: Moments
    embeddings: Tensor
    empty: Tensor


def encode_pictures(vae: AutoencoderKL, pictures: Tensor) -> Moments:
    """Posterior moments of ``pictures`` (n, 3, h, w) uint8, scaled and shifted as the denoiser wants them."""
    factor, shift = vae.config.scaling_factor, vae.config.shift_factor or 0.0
    means, stds = [], []
    with torch.no_grad():
        for part in pictures.split(BATCH):
            found = vae.encode(to_model_range(part).to(vae.device))
            # an autoencoder without a posterior (AutoencoderTiny) gives one latent, for certain
            certain = getattr(found, "latents", None)
            mean = found.latent_dist.mean if certain is None else certain
            std = found.latent_dist.std if certain is None else torch.zeros_like(certain)
            means.append(((mean - shift) * factor).cpu())
            stds.append((std * factor).cpu())
    return Moments(torch.cat(means).float(), torch.cat(stds).float())


def decode(vae: AutoencoderKL, latents: Tensor, batch: int = BATCH) -> Tensor:
    """Pictures (n, 3, h, w) float32, about [-1, 1], of latents in the denoiser's units (scale and shift undone)."""
    with torch.no_grad():
        parts = [vae.decode(unscaled(vae, part.to(vae.device))).sample.float().cpu() for part in latents.split(batch)]
    return torch.cat(parts)


def unscaled(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents in the autoencoder's own units, from the denoiser's."""
    return latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)


def encode_prompts(pipeline: StableDiffusionPipeline, prompts: Sequence[str]) -> Tensor:
    """Embeddings (n, tokens, width) float32, as the pipeline's own sampling computes them."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(prompts), BATCH):
            part = list(prompts[start : start + BATCH])
            parts.append(pipeline.encode_prompt(part, pipeline.device, 1, False)[0].float().cpu())
    return torch.cat(parts)


def cache_key(model: str, pictures: Sequence[str], prompts: Sequence[Sequence[str]], size: int) -> dict[str, str]:
    """What a cache is made from: the model's fingerprint, pictures' hashes, prompts, how pictures are prepared."""
    return {
        "model": model,
        "pictures": _hash(list(pictures)),
        "prompts": _hash([list(row) for row in prompts]),
        "preprocessing": f"{PREPROCESSING}, {size} px",
    }


def write_cache(path: Path, cache: Cache, key: dict[str, str]) -> None:
    """One safetensors file; key and digest of the content as one JSON string, because several have no fixed order."""
    tensors = _tensors(cache)
    note = json.dumps({**key, "content": tensor_digest(tensors)}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(tensors, path, metadata={"atelier": note})  # beside it, then renamed
    except SafetensorError as error:  # a full disk
        raise OSError(f"{path}: not written: {error}") from None


def read_cache(path: Path, key: dict[str, str]) -> Cache:
    """The cache at ``path``. Raises ValueError where it is damaged, or made from something else than ``key`` says."""
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {}).get("atelier", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: not a readable cache: {error}") from None
    stale = [part for part, value in key.items() if note.get(part) != value]
    if stale:
        raise ValueError(f"{path}: stale cache, made from other {' and '.join(stale)}")
    if note.get("content") != tensor_digest(tensors):
        raise ValueError(f"{path}: damaged cache, its content is not what was written")
    moments = Moments(tensors["latents.mean"], tensors["latents.std"])
    return Cache(moments, tensors["embeddings"], tensors["empty"])


def _tensors(cache: Cache) -> dict[str, Tensor]:
    return {
        "latents.mean": cache.latents.mean.contiguous(),
        "latents.std": cache.latents.std.contiguous(),
        "embeddings": cache.embeddings.contiguous(),
        "empty": cache.empty.contiguous(),
    }


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
