"""Rows of tensors in safetensors files of some hundred rows each: written as they come, read as they are needed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from atelier.files import reading, writing


def file_of(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}-{number:05d}.safetensors"


def write(shards: Iterable[Mapping[str, Tensor]], folder: Path, name: str) -> int:
    """Write shards ``folder/NAME-00000.safetensors``, ..., as they come; returns the number of rows.

    A shard's tensors have as many rows each. Memory that lies otherwise, such as channels last, is made contiguous.
    """
    total = 0
    for number, tensors in enumerate(shards):
        with writing(file_of(folder, name, number)) as part:
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, part)
        total += len(next(iter(tensors.values())))
    return total


def files(folder: Path, name: str) -> list[Path]:
    """The shards of one name. ValueError where there is none, or one between others is missing."""
    there = set(folder.glob(f"{name}-{'[0-9]' * 5}.safetensors"))
    expected = [file_of(folder, name, number) for number in range(max(1, len(there)))]
    if missing := [file for file in expected if file not in there]:
        raise ValueError(f"{missing[0]}: no such file")
    return expected


@dataclass(frozen=True, eq=False)
class Rows:
    """One tensor of all shards, (n, ...): ``rows[[3, 0]]`` reads two rows, in this order, and nothing else."""

    files: Sequence[Path]
    tensor: str
    ends: Sequence[int]  # of each file, the number of rows up to its end
    shape: torch.Size
    opened: dict[Path, Any] = field(default_factory=dict, repr=False)  # mapped files; their pages are the system's

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        of = [bisect_right(self.ends, row) for row in rows]
        parts = []
        for shard in sorted(set(of)):
            first = self.ends[shard - 1] if shard else 0
            parts.append(self._read(shard, [row - first for row, its in zip(rows, of, strict=True) if its == shard]))
        if not parts:
            return self._read(0, [])
        order = np.argsort(np.argsort(of, kind="stable"), kind="stable")  # parts lie sorted by shard
        return torch.cat(parts)[torch.from_numpy(order)]

    def _read(self, shard: int, rows: list[int]) -> Tensor:
        file = self.files[shard]
        with reading(file):
            if file not in self.opened:
                self.opened[file] = safe_open(file, framework="pt").__enter__()
            stored = self.opened[file].get_slice(self.tensor)
            if rows == list(range(len(rows))):
                return stored[: len(rows)]
            return torch.cat([stored[row : row + 1] for row in rows])

    def load(self) -> Tensor:
        """All rows in memory."""
        return torch.cat(
            [self._read(shard, list(range(length))) for shard, length in enumerate(np.diff([0, *self.ends]))]
        )


def rows(folder: Path, name: str, tensor: str) -> Rows:
    """A tensor of all shards of one name, none of it read. ValueError for a missing, damaged or foreign file."""
    there = files(folder, name)
    shapes = [_shape(file, tensor) for file in there]
    for file, shape in zip(there, shapes, strict=True):
        if not shape or shape[1:] != shapes[0][1:]:
            raise ValueError(f"{file}: {tensor}: expected rows as in {there[0].name}, got shape {shape}")
    ends = list(accumulate(shape[0] for shape in shapes))
    return Rows(there, tensor, ends, torch.Size([ends[-1], *shapes[0][1:]]))


def _shape(file: Path, tensor: str) -> list[int]:
    """Read from the header alone."""
    with reading(file), safe_open(file, framework="pt") as shard:
        return list(shard.get_slice(tensor).get_shape())
