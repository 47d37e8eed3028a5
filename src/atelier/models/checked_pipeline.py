"""The check of a whole pipeline's folder before it is loaded: its parts, and whether they fit each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import nn
from transformers import CLIPTextModel

from atelier.files import reason, shown
from atelier.models.checked import CONFIG, check_part, number
from atelier.models.folders import INDEX, single_file, wrong_class
from atelier.models.stored import load_json

SCHEDULER = "scheduler_config.json"
KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "unet": (UNet2DConditionModel,),
    "vae": (AutoencoderKL, AutoencoderTiny),
    "text_encoder": (CLIPTextModel,),
}
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
PREDICTIONS = ("epsilon", "v_prediction", "flow_prediction")


def check_pipeline(folder: Path) -> dict[str, type[nn.Module]]:
    """Check the folder of a Stable Diffusion pipeline; returns its networks' classes.

    ValueError, one line that names the file and what is wrong.
    """
    index, configs, classes = read_index(folder), {}, {}
    for part, kinds in KINDS.items():
        named = _class_of(index, part, folder)
        kind = next((kind for kind in kinds if kind.__name__ == named), None)
        if kind is None:
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{folder / INDEX}: {part}: expected {expected}, got {shown(named)}")
        configs[part], classes[part] = check_part(folder / part, kind), kind
    tokenizer = _class_of(index, "tokenizer", folder)
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"{folder / INDEX}: tokenizer: expected {TOKENIZERS[0]}, got {shown(tokenizer)}")
    if not (folder / "tokenizer").is_dir():
        raise ValueError(f"{folder / 'tokenizer'}: no such folder, expected a {TOKENIZERS[0]}")
    _class_of(index, "scheduler", folder)
    check_scheduler(folder / "scheduler")
    check_fit(configs, folder)
    return classes


def read_index(folder: Path) -> dict[str, Any]:
    """A folder's ``model_index.json``, which must be a Stable Diffusion pipeline's."""
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(single_file(folder) or f"{folder}: not a diffusers pipeline, {INDEX} is missing")
    index = load_json(path)
    if said := wrong_class(path, index):
        raise ValueError(said)
    return index


def _class_of(index: Mapping[str, Any], part: str, folder: Path) -> str:
    """The class that the index names for a part, such as ["diffusers", "AutoencoderKL"]."""
    entry = index.get(part)
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], str):
        raise ValueError(f"{folder / INDEX}: {part}: expected a library and a class, got {shown(entry)}")
    return entry[1]


def check_fit(configs: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Whether denoiser, autoencoder and text encoder have the same numbers of channels."""
    path, latent = folder / "unet" / CONFIG, configs["vae"].get("latent_channels", 4)
    for key in ("in_channels", "out_channels"):
        if (channels := configs["unet"].get(key, 4)) != latent:
            raise ValueError(
                f"{path}: {key}: {shown(channels)}, but the autoencoder's latents have {shown(latent)} channels"
            )
    width, across = configs["text_encoder"].get("hidden_size", 512), configs["unet"].get("cross_attention_dim", 1280)
    if any(each != width for each in (across if isinstance(across, list) else [across])):
        raise ValueError(
            f"{path}: cross_attention_dim: {shown(across)}, but the text encoder's width is {shown(width)}"
        )
    if configs["unet"].get("sample_size") is not None:
        side = configs["unet"]["sample_size"]
        for each in side if isinstance(side, list) else [side]:
            number({"sample_size": each}, "sample_size", path, 1, 4096, whole=True)


def native_size(pipeline: diffusers.StableDiffusionPipeline) -> int | None:
    """The side of the pictures that a pipeline was made for, in pixels; None if it does not say."""
    side = pipeline.unet.config.sample_size
    return side * pipeline.vae_scale_factor if isinstance(side, int) else None


def check_scheduler(folder: Path) -> type[SchedulerMixin]:
    """The class of the scheduler in a folder, whose configuration must be in range."""
    path = folder / SCHEDULER
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder, expected a scheduler")
    config = load_json(path)
    named = config.get("_class_name")
    kind = getattr(diffusers, named, None) if isinstance(named, str) and named.endswith("Scheduler") else None
    if not isinstance(kind, type) or not issubclass(kind, SchedulerMixin):
        raise ValueError(f"{path}: _class_name: expected a scheduler of diffusers, got {shown(named)}")
    if (predicted := config.get("prediction_type", PREDICTIONS[0])) not in PREDICTIONS:
        raise ValueError(f"{path}: prediction_type: expected one of {', '.join(PREDICTIONS)}, got {shown(predicted)}")
    if "num_train_timesteps" in config:
        number(config, "num_train_timesteps", path, 1, 100_000, whole=True)
    if "steps_offset" in config:
        number(config, "steps_offset", path, 0, 1000, whole=True)
    _check_betas(config, path)
    try:
        kind.from_config(config)  # type: ignore[attr-defined]
    except Exception as error:  # diffusers may raise anything for a value that it does not expect
        raise ValueError(f"{path}: no configuration of a {named}: {reason(error)}") from None
    return kind


def _check_betas(config: Mapping[str, Any], path: Path) -> None:
    """Each in (0, 1), the first not above the last."""
    tiny = 1e-12
    ends = [number(config, key, path, tiny, 1 - tiny) for key in ("beta_start", "beta_end") if key in config]
    if ends != sorted(ends):
        raise ValueError(f"{path}: beta_start: {ends[0]:g} is above beta_end, {ends[1]:g}")
    betas = config.get("trained_betas")
    if betas is None:
        return
    if not isinstance(betas, list) or not 1 <= len(betas) <= 100_000:
        raise ValueError(f"{path}: trained_betas: expected a list of numbers, got {shown(betas)}")
    for beta in betas:
        number({"trained_betas": beta}, "trained_betas", path, tiny, 1 - tiny)
