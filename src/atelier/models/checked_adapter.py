"""The check of an adapter's file against the layers that it is for: diffusers warns of nothing that it does not use."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from safetensors.torch import load_file
from torch import Tensor, nn

from atelier.files import reading, reason, shown
from atelier.models.headers import FLOATS, check_finite, read_header

REFUSAL = "not a readable adapter"
PARTS = ("unet", "text_encoder", "text_encoder_2")  # of which Stable Diffusion XL has the last, too
FACTOR = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")  # in PEFT's names
# the last number in a layer's name that a word follows: before it is which block, behind it which layer of a block
BLOCK = re.compile(r".*\.\d+\.(?=[^.\d])")


def check_adapter(pipeline: StableDiffusionPipeline, path: Path) -> None:
    """Check that every tensor of an adapter is used, and that none is missing; ValueError, one line, otherwise.

    Each layer needs two matrices whose shapes fit it. A layer of a kind, such as ``attn1.to_q``, has an adapter only if
    the layers of this kind in all other blocks have one. Any spelling that diffusers reads is accepted.
    """
    tensors = read_header(path, REFUSAL)
    if not tensors:
        raise ValueError(f"{path}: holds no tensor")
    for name, one in tensors.items():
        if one.kind not in FLOATS:
            raise ValueError(f"{path}: tensor {shown(name)}: expected {', '.join(FLOATS)}, got {one.kind}")
        if "dora_scale" in name:
            raise ValueError(f"{path}: tensor {shown(name)}: DoRA adapters are not supported")
    with reading(path, REFUSAL):
        state = load_file(path)
    check_finite(state.items(), path)
    for part, factors in _by_part(pipeline, state, path).items():
        check_factors(factors, getattr(pipeline, part), part, path)


def _by_part(
    pipeline: StableDiffusionPipeline, state: dict[str, Tensor], path: Path
) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Part -> layer -> its matrices A and B, under PEFT's names."""
    known = [part for part in PARTS if part in pipeline.components]
    # as XL's loader does, which knows names of the original code's blocks
    blocks = {"unet_config": pipeline.unet.config} if PARTS[-1] in known else {}
    try:
        state, scales = pipeline.lora_state_dict(dict(state), **blocks)
        named = {part: _under(state, part) for part in known}
        named = {part: _as_loaded(tensors, getattr(pipeline, part)) for part, tensors in named.items()}
    except Exception as error:  # diffusers' conversions raise anything for names that they do not expect
        raise ValueError(f"{path}: names that are no adapter's: {reason(error)}") from None
    for name, scale in (scales or {}).items():
        if not float(scale) > 0:
            raise ValueError(f"{path}: alpha of {shown(name)}: expected a positive number, got {float(scale):g}")
    for name in sorted(state):
        if name.partition(".")[0] not in known:
            raise ValueError(f"{path}: tensor {shown(name)} is for no part of this pipeline ({', '.join(known)})")
    parts: dict[str, dict[str, dict[str, Tensor]]] = {}
    for part, tensors in named.items():
        for name, tensor in tensors.items():
            match = FACTOR.fullmatch(name)
            if match is None:
                raise ValueError(f"{path}: tensor {shown(f'{part}.{name}')} is no matrix of an adapter")
            parts.setdefault(part, {}).setdefault(match["layer"], {})[match["side"]] = tensor
    return parts


def _as_loaded(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Names as diffusers' loaders have them for a denoiser or a text encoder."""
    if not tensors or isinstance(model, UNet2DConditionModel):
        return convert_unet_state_dict_to_peft(tensors)
    named = convert_state_dict_to_peft(convert_state_dict_to_diffusers(tensors))
    return named if hasattr(model, "text_model") else {k.removeprefix("text_model."): v for k, v in named.items()}


def _under(state: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): tensor for name, tensor in state.items() if name.startswith(f"{part}.")}


def check_factors(factors: Mapping[str, Mapping[str, Tensor]], model: nn.Module, part: str, path: Path) -> None:
    """Whether A (rank, in) and B (out, rank) fit each layer of ``model``, and no layer of their kinds is left out."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    for name, pair in sorted(factors.items()):
        if name not in layers:
            raise ValueError(f"{path}: {shown(f'{part}.{name}')} is no layer of this model")
        for side in "AB":
            if side not in pair:
                raise ValueError(f"{path}: tensor {shown(f'{part}.{name}.lora_{side}.weight')} is missing")
        _check_pair(pair["A"], pair["B"], layers[name], f"{path}: {part}.{name}")
    kinds = {BLOCK.sub("", name) for name in factors}
    for name in layers:
        if BLOCK.sub("", name) in kinds and name not in factors:
            raise ValueError(f"{path}: tensors of {part}.{name} are missing, other blocks have theirs")


def _check_pair(a: Tensor, b: Tensor, layer: nn.Linear | nn.Conv2d, source: str) -> None:
    rank, weight = a.shape[0] if a.ndim else 0, tuple(layer.weight.shape)
    if isinstance(layer, nn.Conv2d):
        expected = {"A": (rank, *weight[1:]), "B": (weight[0], rank, 1, 1)}
    else:
        expected = {"A": (rank, weight[1]), "B": (weight[0], rank)}
    for side, tensor in {"A": a, "B": b}.items():
        shape = tuple(tensor.shape)
        # 1x1 convolutions may be stored as matrices' shapes and the other way about
        if not rank or torch.Size([*shape, 1, 1][:4]) != torch.Size([*expected[side], 1, 1][:4]):
            raise ValueError(f"{source}.lora_{side}.weight: expected shape {expected[side]}, got {shape}")
