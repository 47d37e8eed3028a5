"""Atomic checkpoints: written to a temporary folder, synced, renamed; verified by their hashes when read."""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from atelier.files import ENDING, FileFault, filling, reading, remove, write_text, writing
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
    remove(part)
    try:
        with writing(part / TENSORS) as file:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)
        # keys are not sorted: their order is that of the history's columns
        text = json.dumps({"step": step, "sha256": file_digest(part / TENSORS), **notes})
        write_text(part / NOTES, f"{text}\n{_hash(text)}\n")
    except ENDING:  # the checkpoint before this one stays; what lies here would take its place on a full disk
        remove(part)
        raise
    with filling(folder):
        _sync(part)
        remove(final)  # a damaged one that was skipped; an intact one would have been resumed
        os.replace(part, final)
        _sync(folder)
    _read(final)
    for path in _steps(folder):
        if path != final:
            remove(path)


def load(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Load the newest intact checkpoint, or None if there is none. Damaged ones are reported and skipped.

    Raises ValueError if all are damaged: starting over is the user's decision.
    """
    paths = _steps(folder)
    for path in reversed(paths):
        try:
            return _read(path)
        except FileFault as error:
            print(f"checkpoint {path} is damaged and is passed over: {error}", file=sys.stderr)
    if paths:
        raise ValueError(f"{folder}: no checkpoint is whole; delete the folder to start over")
    return None


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with reading(path):
        text, _, seal = (path / NOTES).read_text(encoding="utf-8").partition("\n")
        if seal.strip() != _hash(text):
            raise ValueError(f"{NOTES} is not what was written")
        notes = json.loads(text)
        if file_digest(path / TENSORS) != notes["sha256"]:
            raise ValueError(f"{TENSORS} is not what was written")
        return load_file(path / TENSORS), notes
