"""Store small models as safetensors and JSON, with reproducible bytes and one-line errors."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atelier.files import read_json, reading, shown, write_json, writing
from atelier.models.headers import FLOATS, check_finite, check_headers, read_header

CHECKSUM = "sha256"  # key of a JSON object


def save_tensors(tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    """Write the floating-point tensors as ``dtype``, without counters; ValueError for values not finite in it."""
    floating = {name: tensors[name].detach() for name in sorted(tensors) if tensors[name].is_floating_point()}
    stored = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in floating.items()}
    check_finite(stored.items(), path)
    with writing(path) as part:
        save_file(stored, part)


def load_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Load tensors of exactly these names and shapes, in float32; ValueError otherwise, before anything is loaded."""
    check_headers(read_header(path), shapes, path)
    with reading(path, "not readable as safetensors"):
        tensors = load_file(path)
    return checked_tensors(tensors, shapes, path)


def checked_tensors(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], source: object
) -> dict[str, Tensor]:
    """Check that tensors have exactly these names and shapes, are floats and finite; returns them in float32."""
    if odd := sorted(tensors.keys() ^ shapes.keys()):
        raise ValueError(f"{source}: tensor {shown(odd[0])} is {'unknown' if odd[0] in tensors else 'missing'}")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != tuple(shape):
            raise ValueError(
                f"{source}: {shown(name)}: expected shape {tuple(shape)}, got {tuple(tensors[name].shape)}"
            )
        if tensors[name].dtype not in FLOATS.values():
            raise ValueError(f"{source}: {shown(name)}: expected {', '.join(FLOATS)}, got {tensors[name].dtype}")
    check_finite(tensors.items(), source)
    return {name: tensor.float() for name, tensor in tensors.items()}


def restore(module: nn.Module, path: Path) -> None:
    """Load a float32 state into a module built on the meta device, which keeps a malicious configuration cheap."""
    state = module.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.is_floating_point()}
    module.load_state_dict(load_tensors(path, shapes), assign=True)


def save_json(content: Mapping[str, Any], path: Path) -> None:
    """Write JSON with sorted keys."""
    write_json(path, content)


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; ValueError otherwise."""
    return read_json(path)


def load_checked_json(path: Path) -> dict[str, Any]:
    """Read a JSON object without its checksum, if it has one; ValueError for a damaged file."""
    content = load_json(path)
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    if CHECKSUM in content and with_checksum(rest) != content:
        raise ValueError(f"{path}: damaged: its content is not what was written; make the file again")
    return rest


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its own SHA-256 under the key ``sha256``, for files that lie in no sealed folder."""
    text = json.dumps(content, sort_keys=True)
    return {**content, CHECKSUM: hashlib.sha256(text.encode()).hexdigest()}


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes, types and bytes, in sorted order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        digest.update(tensor.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
