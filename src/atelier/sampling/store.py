"""Write and read sampled pictures: PNG files with a table and their latents.

``samples``: the folder of all studies' pictures.
"""

import json
import math
import struct
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from atelier.data.images import save_picture
from atelier.data.pictures import Pictures, of_files
from atelier.files import check_seal, read_table, reading, write_seal, write_table, writing
from atelier.params import WHITE

LATENTS, TABLE = "latents.safetensors", "pictures.csv"
WRITERS = 4  # threads that write pictures; an encoder leaves the others their time
UNTUNED, UNTUNED_AGAIN = "untuned", "untuned-again"  # again: with other noise, to estimate the effect of chance


def at_level(level: int) -> str:
    """The condition of pictures from prompts of one level."""
    return f"level-{level}"


def guidance_folder(guidance: float, start: str = WHITE) -> str:
    """The folder of pictures at one guidance scale, from one kind of first latents."""
    return f"guidance-{guidance:g}" if start == WHITE else f"guidance-{guidance:g}-{start}"


class Location(NamedTuple):
    """Pictures by one model at one guidance scale; those of each training seed are in a folder of their own."""

    study: str
    model: str
    guidance: float
    start: str = WHITE
    condition: str = ""  # whatever else they differ in: a level of prompts, a kind of first latent

    def folder(self, samples: Path, seed: int) -> Path:
        """The folder of one training seed's pictures."""
        below = Path(self.condition) / guidance_folder(self.guidance, self.start)
        return samples / self.study / self.model / str(seed) / below

    def folders(self, samples: Path, seeds: Sequence[int]) -> list[Path]:
        """The folders of these training seeds' pictures."""
        return [self.folder(samples, seed) for seed in seeds]


def read(folders: Sequence[Path]) -> tuple[Pictures, pd.DataFrame]:
    """The pictures of some folders, not yet in memory, and their table: repeat, place, prompt, file.

    Raises ValueError for a damaged folder, as the two below do.
    """
    tables = [_table(folder) for folder in folders]
    table = pd.concat(tables, ignore_index=True)
    files = [folder / name for folder, one in zip(folders, tables, strict=True) for name in one["file"]]
    if not files:  # prompts of photographs, but the data folder has none
        return of_files([], 1), table
    with reading(files[0], "not a picture"), Image.open(files[0]) as image:
        size = image.width
    return of_files(files, size), table


def listed(folders: Sequence[Path]) -> pd.DataFrame:
    """Read the table of some folders' pictures: repeat, place, prompt, path, file. ValueError for a damaged one."""
    return pd.concat([_table(folder) for folder in folders], ignore_index=True)


def _table(folder: Path) -> pd.DataFrame:
    path = check_seal(folder) / TABLE
    return read_table(path, ("repeat", "place", "prompt", "file"), keep_default_na=False)


def read_latents(folders: Sequence[Path]) -> Tensor:
    """Read the last latents (n, c, h, w) float32 of some folders' pictures, in the order of their table."""
    return torch.cat([_latents(check_seal(folder) / LATENTS) for folder in folders])


def _latents(path: Path) -> Tensor:
    with reading(path, "not readable as latents"):
        latents = load_file(path)["latents"]
    if latents.ndim != 4 or not latents.is_floating_point():
        raise ValueError(f"{path}: latents: expected floats (n, c, h, w), got {latents.dtype} {tuple(latents.shape)}")
    if not torch.isfinite(latents).all():
        raise ValueError(f"{path}: latents: not all finite")
    return latents


def write(pictures: Tensor, latents: Tensor, table: pd.DataFrame, folder: Path) -> None:
    """Write PNG files of pictures (n, 3, h, w) uint8, their table, and the latents that they were decoded from.

    Equal pictures give equal bytes. The latents are stored so that other decoders can be applied to them. Each cell is
    sealed, so that its readers need not read the other cells of its stage.
    """
    write_in_parts([(pictures, latents)], table, folder)


def write_in_parts(parts: Iterable[tuple[Tensor, Tensor]], table: pd.DataFrame, folder: Path) -> None:
    """As ``write``, pictures and latents a part at a time: memory is that of one part.

    Raises ValueError for another number of them than of rows, and for latents that are not float32 (n, c, h, w).
    """
    names, done, begun = table["file"].tolist(), 0, False
    with ThreadPoolExecutor(WRITERS) as pool, writing(folder / LATENTS) as path, path.open("wb") as file:
        for pictures, latents in parts:
            if latents.dtype != torch.float32 or latents.ndim != 4 or len(latents) != len(pictures):
                came = f"{latents.dtype} {tuple(latents.shape)} of {len(pictures)} pictures"
                raise ValueError(f"{folder}: latents: expected one float32 (c, h, w) a picture, got {came}")
            if not begun:
                begun = bool(file.write(_header((len(names), *latents.shape[1:]))))
            chosen = [folder / name for name in names[done : done + len(pictures)]]
            saved = pool.map(save_picture, pictures, chosen)
            file.write(latents.contiguous().numpy().tobytes())
            list(saved)  # what a thread raises
            done += len(pictures)
        if done != len(names) or not begun:
            raise ValueError(f"{folder}: {done} pictures for {len(names)} rows")
    write_table(folder / TABLE, table)
    write_seal(folder)


def _header(shape: Sequence[int]) -> bytes:
    """A safetensors file's beginning, as ``save_file`` writes it, for float32 ``latents`` that follow."""
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4 * math.prod(shape)]}
    text = json.dumps({"latents": entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def check_variants(folder: Path, variants: Sequence[str]) -> None:
    """Raise ValueError for a variant without samples in a study's folder, and for samples of any other variant."""
    sampled = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    if missing := sorted(set(variants) - sampled):
        raise ValueError(f"{folder}: no samples of {', '.join(missing)}")
    if extra := sorted(sampled - set(variants)):
        raise ValueError(f"{folder}: samples of {', '.join(extra)}, which no parameter names; delete them")
