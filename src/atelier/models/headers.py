"""What a safetensors file says of its tensors, compared with what a model needs before one of them is loaded."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from atelier.files import reading, shown

Shape = tuple[int, ...]
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # safetensors' names


class Header(NamedTuple):
    """What a safetensors file says of a tensor: its file, name in it, type (``F32``, ...) and shape."""

    file: Path
    name: str
    kind: str
    shape: Shape


def read_header(path: Path, refusal: str = "not readable as safetensors") -> dict[str, Header]:
    """The tensors of a safetensors file by name, none of them loaded. FileFault with ``refusal`` if it is none."""
    with reading(path, refusal), safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: Header(path, name, one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}


def check_headers(tensors: Mapping[str, Header], shapes: Mapping[str, Shape], source: Path) -> None:
    """Compare tensors with the names and shapes that a model has; all must be floating point of 16 or 32 bits."""
    for name in sorted(shapes.keys() | tensors.keys()):
        if name not in tensors:
            raise ValueError(f"{source}: tensor {shown(name)} is missing")
        one = tensors[name]
        if name not in shapes:
            raise ValueError(f"{one.file}: tensor {shown(one.name)} is unknown to this model")
        if one.kind not in FLOATS:
            raise ValueError(f"{one.file}: tensor {shown(one.name)}: expected {', '.join(FLOATS)}, got {one.kind}")
        if one.shape != tuple(shapes[name]):
            expected = tuple(shapes[name])
            raise ValueError(f"{one.file}: tensor {shown(one.name)}: expected shape {expected}, got {one.shape}")


def check_finite(tensors: Iterable[tuple[str, Tensor]], source: object) -> None:
    """Refuse a tensor with a value that is not a number, or is infinite."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{source}: tensor {shown(name)} is not all finite")
