"""Atomic checkpoints: written to a temporary folder, synced, renamed; verified by their hashes when read."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from atelier.models.stored import file_digest

TENSORS, NOTES = "state.safetensors", "state.json"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sync(path: Path) -> None:
    """Sync a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(folder: Path, step: int, tensors: dict[str, torch.Tensor], notes: dict[str, Any]) -> None:
    """Write the checkpoint of ``step``; delete the previous one after this one has been read back and verified."""
    final, part = folder / f"step-{step:08d}", folder / f"part-{step:08d}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part / TENSORS)
    except SafetensorError as error:  # a full disk
        raise OSError(f"{part / TENSORS}: not written: {error}") from None
    _sync(part / TENSORS)
    # keys are not sorted: their order is that of the history's columns
    text = json.dumps({"step": step, "sha256": file_digest(part / TENSORS), **notes})
    (part / NOTES).write_text(f"{text}\n{_hash(text)}\n")
    _sync(part / NOTES)
    _sync(part)
    shutil.rmtree(final, ignore_errors=True)  # a damaged one that was skipped; an intact one would have been resumed
    os.replace(part, final)
    _sync(folder)
    _read(final)
    for path in _steps(folder):
        if path != final:
            shutil.rmtree(path)


def load(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Load the newest intact checkpoint, or None if there is none. Damaged ones are reported and skipped.

    Raises ValueError if all are damaged: starting over is the user's decision.
    """
    paths = _steps(folder)
    for path in reversed(paths):
        try:
            return _read(path)
        except (OSError, ValueError, KeyError) as error:
            print(f"checkpoint {path} is damaged and is passed over: {error}", file=sys.stderr)
    if paths:
        raise ValueError(f"{folder}: no checkpoint is whole; delete the folder to start over")
    return None


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    text, _, seal = (path / NOTES).read_text().partition("\n")
    if seal.strip() != _hash(text):
        raise ValueError(f"{NOTES} is not what was written")
    notes = json.loads(text)
    if file_digest(path / TENSORS) != notes["sha256"]:
        raise ValueError(f"{TENSORS} is not what was written")
    return load_file(path / TENSORS), notes
