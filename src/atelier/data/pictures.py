"""Pictures that are read when they are needed, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from atelier.data import shards
from atelier.data.checks import check_picture_tensor
from atelier.data.images import load_pictures

AT_A_TIME = 128  # pictures in memory at once: 100 MB of 512 px ones, four times as much once they are floats
LITTLE = 2**30  # bytes
SHARD = "pictures"  # the tensor of a shard

Rows = slice | Sequence[int] | np.ndarray


@dataclass(frozen=True, eq=False)
class Pictures:
    """n pictures, of which none is in memory: ``read`` returns the pictures with the given numbers, uint8 (b, 3, h, w).

    ``pictures[rows]`` chooses some, by a slice, their indices or a mask, and reads nothing.
    """

    read: Callable[[list[int]], Tensor]
    numbers: np.ndarray  # (n,), what ``read`` calls them

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: Rows) -> Pictures:
        return Pictures(self.read, self.numbers[rows if isinstance(rows, slice) else _indices(rows)])

    def batches(self, most: int = AT_A_TIME) -> Iterator[Tensor]:
        """The pictures in order, at most so many at a time."""
        for start in range(0, len(self), most):
            yield self.read(self.numbers[start : start + most].tolist())

    def load(self) -> Tensor:
        """All of them in memory, uint8 (n, 3, h, w): for a few that are shown or compared."""
        return self.read(self.numbers.tolist())


def _indices(rows: Sequence[int] | np.ndarray) -> np.ndarray:
    array = np.asarray(rows)
    return array if array.dtype == bool else array.astype(np.intp)


def of_files(files: Sequence[Path], size: int, root: Path | None = None) -> Pictures:
    """Picture files, each read as a centred square of ``size`` px. Reading raises BadPicture for a damaged one."""

    def read(numbers: list[int]) -> Tensor:
        return load_pictures([files[number] for number in numbers], size, root=root)

    return Pictures(read, np.arange(len(files)))


def in_memory(pictures: Tensor | Pictures) -> Pictures:
    """A tensor uint8 (n, 3, h, w) as pictures; pictures as they are. Raises ValueError for other tensors."""
    if isinstance(pictures, Pictures):
        return pictures
    check_picture_tensor(pictures, "pictures", ("uint8",))
    return Pictures(lambda numbers: pictures[numbers], np.arange(len(pictures)))


def at_hand(pictures: Pictures, size: int) -> Pictures:
    """Pictures that training reads again and again: in memory where they take little, else read each time."""
    return in_memory(pictures.load()) if len(pictures) * 3 * size**2 <= LITTLE else pictures


def write_shards(batches: Iterable[Tensor], folder: Path, name: str) -> int:
    """Write batches of pictures uint8 (b, 3, h, w), a file each, as they come; returns the number of pictures.

    Raises ValueError for other tensors.
    """

    def checked() -> Iterator[dict[str, Tensor]]:
        for batch in batches:
            check_picture_tensor(batch, name, ("uint8",))
            yield {SHARD: batch}

    return shards.write(checked(), folder, name)


def of_shards(folder: Path, name: str) -> Pictures:
    """Pictures that ``write_shards`` wrote, none of them read. ValueError for a missing, damaged or foreign file."""
    stored = shards.rows(folder, name, SHARD)
    if len(stored.shape) != 4 or stored.shape[1] != 3:
        raise ValueError(f"{stored.files[0]}: expected pictures (n, 3, h, w), got shape {tuple(stored.shape)}")
    return Pictures(stored.__getitem__, np.arange(len(stored)))
