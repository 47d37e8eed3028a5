"""Add LoRA adapters (Hu et al. 2022) to a denoiser, and write tuned ones; ``atelier.models.adapters`` reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from atelier.files import filling, writing
from atelier.models.adapters import WEIGHTS
from atelier.models.stored import save_json
from atelier.seeds import seed_of

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")  # the attention projections, diffusers' default
CARD = "card.json"


def add_adapter(
    unet: UNet2DConditionModel, rank: int, seed: int, targets: Sequence[str] = TARGETS
) -> dict[str, torch.nn.Parameter]:
    """Add a LoRA adapter, to the attention projections by default; returns its parameters by name.

    Alpha is the rank. The start depends on seed and rank; B starts at zero, so an untrained adapter changes nothing.
    """
    unet.requires_grad_(False)
    torch.manual_seed(seed_of(seed, "adapter"))
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(targets)))
    return {name: parameter for name, parameter in unet.named_parameters() if parameter.requires_grad}


def save_adapter(unet: UNet2DConditionModel, folder: Path, card: Mapping[str, Any], prefix: str = "unet") -> None:
    """Write an adapter with PEFT's names, which diffusers reads, and a card; alpha = rank needs no further key.

    ``prefix``: the denoiser's name in its pipeline.
    """
    state = get_peft_model_state_dict(unet)  # diffusers' own names are ambiguous for attention layers
    tensors = {f"{prefix}.{name}": tensor.cpu().contiguous() for name, tensor in sorted(state.items())}
    with writing(folder / WEIGHTS) as part:
        save_file(tensors, part)
    save_json(card, folder / CARD)


def save_denoiser(unet: UNet2DConditionModel, folder: Path, card: Mapping[str, Any]) -> None:
    """Write the whole denoiser in the diffusers format, and its card."""
    with filling(folder / "unet"):
        unet.to("cpu", memory_format=torch.contiguous_format).save_pretrained(folder / "unet", safe_serialization=True)
    save_json(card, folder / CARD)


def save_with_scheduler(pipeline: StableDiffusionPipeline, folder: Path, card: Mapping[str, Any]) -> None:
    """Write a pipeline's adapter, its card and its scheduler."""
    save_adapter(pipeline.unet, folder, card)
    with filling(folder / "scheduler"):
        pipeline.scheduler.save_pretrained(folder / "scheduler")
