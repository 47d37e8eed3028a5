"""The check of every file of weights: class, names, shapes, types and values are what the model needs.

Libraries only warn of tensors that are missing, and initialise them at random. Here a file's header is compared with
the parameters of the class that its configuration describes, built without memory (on the meta device), before a
tensor is loaded; then every value must be finite. Each refusal is a ValueError of one line that names the file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from atelier.files import reading, reason, shown
from atelier.models.folders import STEMS, variant_of, weight_files, weight_map
from atelier.models.headers import Header, Shape, check_finite, check_headers, read_header
from atelier.models.stored import load_json

Part = TypeVar("Part", bound=nn.Module)

CONFIG = "config.json"
NUMBER_LIMIT, LIST_LIMIT, BYTES_LIMIT = 2**24, 16, 2**20  # of numbers, lists and bytes in a configuration
# every count multiplies the modules to build; Stable Diffusion has at most 2, 10 and 23
COUNT_LIMITS = {"layers_per_block": 8, "transformer_layers_per_block": 12, "num_hidden_layers": 64}
COUNT_LIMITS |= {"num_encoder_blocks": 8, "num_decoder_blocks": 8}
# in old files of CLIP: a constant, 0, 1, 2, ...
HARMLESS = ("text_model.embeddings.position_ids", "embeddings.position_ids")
# attention layers of old autoencoders, which diffusers renames as it loads them
RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def read_headers(folder: Path, stem: str) -> dict[str, Header]:
    """The tensors of the part's weights that are read, in one file or in the files that an index lists."""
    first, *shards = weight_files(folder, stem)
    if not shards:
        return read_header(first)
    tensors: dict[str, Header] = {}
    for path in shards:
        tensors |= read_header(path)
    listed = weight_map(first)
    for name in sorted(tensors.keys() | listed.keys()):
        if name not in tensors or listed.get(name) != tensors[name].file.name:
            raise ValueError(f"{first}: weight_map: tensor {shown(name)} is not in the file that is listed for it")
    return tensors


# ------------------------------------------------------------------------------------------------ configurations


def number(config: Mapping[str, Any], key: str, path: Path, low: float, high: float, whole: bool = False) -> float:
    """A number of a configuration, which must lie in [low, high]; true and false are none."""
    value = config.get(key)
    # type() and not isinstance(): True is an int; NaN fails both comparisons
    if type(value) not in ((int,) if whole else (int, float)) or not low <= value <= high:  # type: ignore[operator]
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{path}: {key}: expected {kind} from {low:g} to {high:g}, got {shown(value)}")
    return value  # type: ignore[return-value]


def check_sizes(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a configuration whose model would take long to build, even without memory."""
    if len(json.dumps(config)) > BYTES_LIMIT:
        raise ValueError(f"{path}: longer than {BYTES_LIMIT} bytes, so no configuration")
    for key, value in config.items():
        for each in _flat(value, f"{path}: {key}"):
            limit = COUNT_LIMITS.get(key, NUMBER_LIMIT)
            if isinstance(each, (int, float)) and not abs(each) <= limit:
                raise ValueError(f"{path}: {key}: expected at most {limit}, got {shown(each)}")


def _flat(value: object, source: str) -> list[object]:
    """All values in lists of lists, none of which may be long."""
    if not isinstance(value, list):
        return [value]
    if len(value) > LIST_LIMIT:
        raise ValueError(f"{source}: expected at most {LIST_LIMIT} entries, got {len(value)}")
    return [each for one in value for each in _flat(one, source)]


# ------------------------------------------------------------------------------------------------ parts of a pipeline


def read_config(folder: Path, kind: type[nn.Module]) -> dict[str, Any]:
    """The configuration of a part, which must say that it is of this class. ValueError otherwise."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder, expected a {kind.__name__}")
    config = load_json(path)
    check_sizes(config, path)
    if "quantization_config" in config:
        raise ValueError(f"{path}: quantization_config: quantised weights are not supported")
    if kind is CLIPTextModel:
        named, key = config.get("architectures"), "architectures"
        fits = named in (None, [kind.__name__]) and config.get("model_type") in (None, "clip_text_model")
    else:
        named, key = config.get("_class_name"), "_class_name"
        fits = named == kind.__name__
    if not fits:
        raise ValueError(f"{path}: {key}: expected {kind.__name__}, got {shown(named)}")
    _check_numbers(config, kind, path)
    return config


def _check_numbers(config: Mapping[str, Any], kind: type[nn.Module], path: Path) -> None:
    """The numbers that this library calculates with, or that the class does not check itself."""
    if kind in (AutoencoderKL, AutoencoderTiny):
        for key in ("in_channels", "out_channels"):
            if config.get(key, 3) != 3:
                raise ValueError(f"{path}: {key}: expected 3, for RGB, got {shown(config[key])}")
        if "scaling_factor" in config:
            number(config, "scaling_factor", path, 1e-4, 1e4)
        if config.get("shift_factor") is not None:
            number(config, "shift_factor", path, -1e4, 1e4)
        for key in ("latents_mean", "latents_std"):  # another scale than scaling_factor
            if config.get(key) is not None:
                raise ValueError(f"{path}: {key}: statistics by channel are not supported, only scaling_factor")
    for key in ("norm_eps", "layer_norm_eps"):
        if key in config:
            number(config, key, path, 1e-12, 1.0)


def shapes_of(config: dict[str, Any], kind: type[nn.Module], path: Path) -> dict[str, Shape]:
    """Names and shapes of the tensors of a model with this configuration, built without memory."""
    try:
        with torch.device("meta"):
            if kind is CLIPTextModel:
                model: nn.Module = CLIPTextModel(CLIPTextConfig.from_dict(dict(config)))
            else:
                model = kind.from_config(dict(config))  # type: ignore[attr-defined]
    except Exception as error:  # a library's constructor may raise anything for a value that it does not expect
        raise ValueError(f"{path}: no configuration of a {kind.__name__}: {reason(error)}") from None
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_part(folder: Path, kind: type[nn.Module]) -> dict[str, Any]:
    """Check a part's folder in the diffusers or transformers format, without loading it; returns its configuration."""
    config = read_config(folder, kind)
    shapes = shapes_of(config, kind, folder / CONFIG)
    stem = stem_of(kind)
    named: dict[str, Header] = {}
    for name, header in read_headers(folder, stem).items():
        if name in HARMLESS and kind is CLIPTextModel:
            continue
        if (current := _current_name(name, kind, shapes)) in named:
            raise ValueError(f"{header.file}: tensor {shown(name)} is there twice, as {shown(named[current].name)}")
        named[current] = header
    source = next((header.file for header in named.values()), folder / f"{stem}.safetensors")
    check_headers(named, shapes, source)
    return config


def _current_name(name: str, kind: type[nn.Module], shapes: Mapping[str, Shape]) -> str:
    """The name that the libraries have for a tensor of an older file; unknown names stay."""
    if kind is CLIPTextModel:
        return name.removeprefix("text_model.") if not any(key.startswith("text_model.") for key in shapes) else name
    for old, new in RENAMED.items():
        if old in name and name not in shapes and name.replace(old, new) in shapes:
            return name.replace(old, new)
    return name


def load_part(folder: Path, kind: type[Part]) -> Part:
    """Load a part in float32, checked. ValueError otherwise, one line that names the file."""
    check_part(folder, kind)
    return read_part(folder, kind)


def read_part(folder: Path, kind: type[Part]) -> Part:
    """Load a part that ``check_part`` has seen, in float32; ValueError for values that are not finite."""
    stem = stem_of(kind)
    with reading(folder, f"not a readable {kind.__name__}"):
        part = kind.from_pretrained(  # type: ignore[attr-defined]
            folder,
            variant=variant_of(folder, stem),
            use_safetensors=True,
            local_files_only=True,
            **{_dtype_name(kind): torch.float32},
        )
    files = weight_files(folder, stem)
    check_finite(part.state_dict().items(), files[0] if len(files) == 1 else folder)
    return part


def stem_of(kind: type[nn.Module]) -> str:
    """What transformers and diffusers call the file of a part's weights."""
    return STEMS["text_encoder"] if kind is CLIPTextModel else STEMS["unet"]


def _dtype_name(kind: type[nn.Module]) -> str:
    return "dtype" if kind is CLIPTextModel else "torch_dtype"


def check_denoiser_fits(config: Mapping[str, Any], base: UNet2DConditionModel, path: Path) -> None:
    """A trained denoiser must take and return what the base's does."""
    for key in ("in_channels", "out_channels", "cross_attention_dim"):
        expected, got = base.config.get(key), config.get(key)
        if got != expected:
            raise ValueError(f"{path}: {key}: expected the base's {shown(expected)}, got {shown(got)}")
