"""Where sampled pictures lie, and how they are written and read back: PNG files and a table beside them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier import paths
from atelier.data.images import load_pictures, save_picture, to_pixels

LATENTS = "latents.safetensors"
UNTUNED, UNTUNED_AGAIN = "untuned", "untuned-again"  # again: from other noise, to see how far chance reaches


def at_level(model: str, level: int) -> str:
    """Where prompt_enrichment's pictures of a model from prompts of one level lie."""
    return f"{model}/level-{level}"


def guidance_folder(guidance: float) -> str:
    return f"guidance-{guidance:g}"


def read(study: str, variant: str, guidance: float) -> tuple[Tensor, pd.DataFrame]:
    """One cell's pictures (n, 3, h, w) uint8 and their table: repeat, place, prompt, file."""
    folder, table = paths.SAMPLES / study / variant / guidance_folder(guidance), listed(study, variant, guidance)
    files = [folder / name for name in table["file"]]
    if not files:  # a base asked for photographs where the data folder has none
        return torch.empty(0, 3, 0, 0, dtype=torch.uint8), table
    with Image.open(files[0]) as image:
        size = image.width
    return load_pictures(files, size), table


def listed(study: str, variant: str, guidance: float) -> pd.DataFrame:
    """One cell's table: repeat, place, prompt, path, file."""
    folder = paths.SAMPLES / study / variant / guidance_folder(guidance)
    return pd.read_csv(folder / "pictures.csv", keep_default_na=False)


def read_latents(study: str, variant: str, guidance: float) -> Tensor:
    """The last latents (n, c, h, w) float32 of one cell's pictures, in the order of its table."""
    path = paths.SAMPLES / study / variant / guidance_folder(guidance) / LATENTS
    try:
        return load_file(path)["latents"]
    except (OSError, SafetensorError, KeyError) as error:
        raise ValueError(f"{path}: not readable as latents: {' '.join(str(error).split())}") from None


def write_latents(latents: Tensor, folder: Path) -> None:
    """What the pictures of a folder were decoded from, so that another decoder can be put in that one's place."""
    save_file({"latents": latents.contiguous()}, folder / LATENTS)


def write(pictures: Tensor, table: pd.DataFrame, folder: Path) -> None:
    """PNG files and their table; equal pictures give equal bytes."""
    for picture, name in zip(to_pixels(pictures), table["file"], strict=True):
        save_picture(picture, folder / name)
    table.to_csv(folder / "pictures.csv", index=False)


def refuse_other_than(study: str, variants: Sequence[str]) -> None:
    """A report takes its variants from the parameters: a folder that none names, or a missing one, is a ValueError."""
    folder = paths.SAMPLES / study
    found = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    if missing := sorted(set(variants) - found):
        raise ValueError(f"{folder}: no samples of {', '.join(missing)}")
    if extra := sorted(found - set(variants)):
        raise ValueError(f"{folder}: samples of {', '.join(extra)}, which no parameter names; delete them")
