"""Networks of other people that look at pictures, as transformers has them (CLIP, DINOv2): read from local folders.

Only ``config.json`` and ``model.safetensors`` are read. Pictures are prepared in torch, because transformers' own image
processors need torchvision.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from atelier.data.checks import check_picture_tensor, check_whole
from atelier.files import reading, reason, shown
from atelier.models.checked import CONFIG, check_sizes
from atelier.models.headers import FLOATS, check_finite, read_header
from atelier.models.stored import load_json

WEIGHTS = "model.safetensors"
PARTS = ("text_config", "vision_config")  # of a configuration
NAMES = "stage_names"  # in a configuration: longer than any list that a network is built from, and none is
POSITIONS = "position_ids"  # in old files of CLIP: a constant, 0, 1, 2, ...
Network = TypeVar("Network", bound=PreTrainedModel)


def load(folder: Path, kind: type[Network]) -> Network:
    """The frozen float32 network in a folder, of a class of transformers.

    Raises ValueError, one line that names the file, for another class's folder, and for weights that are missing,
    unknown, of another shape, no floats or not finite. Names are compared after loading, because transformers renames
    older files' tensors as it loads them.
    """
    weights = folder / WEIGHTS
    _check_weights(weights, _numbers_of(_read_config(folder, kind), kind, folder / CONFIG))
    with reading(weights, f"not a readable {kind.__name__}"), _quiet():
        loaded: Any = kind.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # refused below, in one line
            output_loading_info=True,
        )
    network, info = loaded
    for name, got, expected in sorted(info["mismatched_keys"]):
        raise ValueError(f"{weights}: tensor {shown(name)}: expected shape {tuple(expected)}, got {tuple(got)}")
    for key, said in (("missing_keys", "is missing"), ("unexpected_keys", "is unknown to this model")):
        for name in sorted(info[key]):
            raise ValueError(f"{weights}: tensor {shown(name)} {said}")
    check_finite(network.state_dict().items(), weights)
    return network.requires_grad_(False).eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars, and its table of tensors that do not fit, of which one line says enough."""
    before = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _read_config(folder: Path, kind: type[PreTrainedModel]) -> dict[str, Any]:
    """A folder's configuration. ValueError for another class's, or one whose network would take long to build."""
    if not folder.is_dir():  # or transformers would look for it on the hub
        raise ValueError(f"{folder}: no such folder, expected a {kind.__name__}")
    path = folder / CONFIG
    config = load_json(path)
    for part in (config, *(config[name] for name in PARTS if isinstance(config.get(name), dict))):
        check_sizes({key: value for key, value in part.items() if key != NAMES}, path)
    if "quantization_config" in config:
        raise ValueError(f"{path}: quantization_config: quantised weights are not supported")
    named: Any = kind.config_class
    for key, expected in (("model_type", named.model_type), ("architectures", [kind.__name__])):
        if config.get(key) != expected:
            raise ValueError(f"{path}: {key}: expected {expected}, got {shown(config.get(key))}")
    return config


def _numbers_of(config: dict[str, Any], kind: type[PreTrainedModel], path: Path) -> int:
    """How many numbers the network of a configuration has; it is built without memory."""
    configuration: Any = kind.config_class
    try:
        with torch.device("meta"):
            network = kind(configuration.from_dict(dict(config)))
    except Exception as error:  # a library's constructor may raise anything for a value that it does not expect
        raise ValueError(f"{path}: no configuration of a {kind.__name__}: {reason(error)}") from None
    return sum(value.numel() for value in network.state_dict().values())


def _check_weights(path: Path, needed: int) -> None:
    """Refuse tensors of other types, and a file far too small for its configuration, before memory is taken for it."""
    header = read_header(path)
    for name, one in header.items():
        if one.kind not in FLOATS and not name.endswith(POSITIONS):
            raise ValueError(f"{path}: tensor {shown(name)}: expected {', '.join(FLOATS)}, got {one.kind}")
    there = sum(prod(one.shape) for one in header.values())
    if needed > 2 * there:
        raise ValueError(f"{path}: {there} numbers, the network of its {CONFIG} has {needed}")


# ------------------------------------------------------------------------------------------------ pictures


def resized(pictures: Tensor, height: int, width: int) -> Tensor:
    """Pictures (n, 3, h, w) uint8 at another size, in float32 and whole levels 0 to 255.

    Bicubic with antialias, along rows and then along columns, rounded each time, as Pillow does, which the networks'
    authors use: at most one level off, in fewer than one number of a thousand (tests). Pillow 13 may begin with the
    columns where a picture is taller than wide; here, as in its older versions, rows are always first.
    Raises ValueError for anything but RGB uint8, TypeError for sides that are no whole numbers.
    """
    check_picture_tensor(pictures, "pictures", ("uint8",))
    height, width = check_whole(height, "height"), check_whole(width, "width")
    x = pictures.float()
    for sides in ((x.shape[-2], width), (height, width)):
        if x.shape[-2:] != sides:
            x = interpolate(x, sides, mode="bicubic", antialias=True, align_corners=False)
            x = (x + 0.5).floor().clamp(0, 255)
    return x


def cropped(pictures: Tensor, side: int) -> Tensor:
    """The shorter side resized to ``side``, then the centred square: (n, 3, h, w) uint8 to (n, 3, side, side).

    Raises ValueError and TypeError as ``resized`` does.
    """
    check_picture_tensor(pictures, "pictures", ("uint8",))
    side = check_whole(side, "side")
    height, width = pictures.shape[-2:]
    shorter = min(height, width)
    x = resized(pictures, side * height // shorter, side * width // shorter)
    top, left = (round((each - side) / 2) for each in x.shape[-2:])
    return x[..., top : top + side, left : left + side]


def normalised(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Levels 0 to 255, (n, 3, h, w), in the units that a network was trained with; mean and std are of [0, 1].

    Raises ValueError for integers and other shapes.
    """
    check_picture_tensor(x, "x")
    shift, scale = (torch.tensor(each, device=x.device).view(1, 3, 1, 1) for each in (mean, std))
    return (x / 255 - shift) / scale
