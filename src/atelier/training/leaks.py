"""Stage ``signal_leak-fit``: models of what leaks, of natural pictures and of styles, fitted to latents."""

from collections.abc import Iterator

import pandas as pd
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from atelier import machine, paths
from atelier.data import prepare
from atelier.data.latents import encode_pictures
from atelier.methods.signal_leak import FrequencyLeak, Leak, PixelLeak, load, save
from atelier.models import base
from atelier.params import Params
from atelier.seeds import torch_generator

STUDY = "signal_leak"
BY_HAND = "low-1"  # the leak whose lowest frequency is set by hand
AT_A_TIME = 256  # pictures
FEWEST = 8  # works of a style whose statistics are shown


def natural(photographs: pd.DataFrame, works: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Photographs, or works where the data has none; and which kind they are."""
    return (photographs, prepare.PHOTOGRAPHS) if len(photographs) else (works, prepare.WORKS)


def lessons(asked: Params, style: str | None) -> tuple[pd.DataFrame, str]:
    """The training split of one style's works, or of what is natural; and its kind."""
    works = prepare.works().table
    table, kind = natural(prepare.photographs().table, works) if style is None else (works, prepare.WORKS)
    if style is not None:
        table = table[table["art_style"] == style]
    found = table.query("split == 'train'").reset_index(drop=True)
    if found.empty:
        raise ValueError(f"signal_leak: nothing to learn from{f', no work of {style}' if style else ''}")
    return found, kind


def encoded(asked: Params, vae: AutoencoderKL, table: pd.DataFrame, kind: str) -> Tensor:
    """Mean latents (n, c, h, w) of pictures, of which few are held in memory at a time."""
    parts = (table.iloc[start : start + AT_A_TIME] for start in range(0, len(table), AT_A_TIME))
    pictures = (prepare.pictures(part.reset_index(drop=True), asked.data, kind) for part in parts)
    return torch.cat([encode_pictures(vae, each).mean for each in pictures])


def fitted(asked: Params) -> Iterator[tuple[str, Leak, pd.DataFrame]]:
    """Each leak, its name, and the rows of the pictures that it was fitted to.

    ``pixel`` and ``low-N`` of what is natural; of every style of the data, ``all-STYLE``; of one of the study's, by its
    name, all its works, and ``NAME-K`` some of them.
    """
    study, vae = asked.signal_leak, base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    table, kind = lessons(asked, None)
    z = encoded(asked, vae, table, kind)
    yield "pixel", PixelLeak.fit([z]), table
    for n in sorted(study.frequencies):
        yield f"low-{n}", FrequencyLeak.fit([z], n), table
    for name, style in study.styles.items():
        table, kind = lessons(asked, style)
        order = torch.randperm(len(table), generator=torch_generator(asked.seed, STUDY, "targets", style)).tolist()
        table = table.iloc[order]
        z = encoded(asked, vae, table, kind)
        yield name, PixelLeak.fit([z]), table
        for n in study.targets:
            yield f"{name}-{n}", PixelLeak.fit([z[:n]]), table[:n]
        yield f"all-{style}", PixelLeak.fit([z]), table
    works = prepare.works().table.query("split == 'train'")
    for other, table in works[~works["art_style"].isin(study.styles.values())].groupby("art_style"):
        if len(table) >= FEWEST:
            yield f"all-{other}", PixelLeak.fit([encoded(asked, vae, table, prepare.WORKS)]), table


def fit_all(asked: Params) -> None:
    """Every leak into ``build/leaks``, each with the pictures that it is of."""
    made_from = base.fingerprint(paths.BASE)
    with paths.replacing(paths.LEAKS) as part:
        for name, leak, table in fitted(asked):
            save(leak, part / f"{name}.safetensors", {"base": made_from, "pictures": "\n".join(table["path"])})


def load_all() -> dict[str, Leak]:
    """Every leak by name."""
    return {path.stem: load(path)[0] for path in sorted(paths.LEAKS.glob("*.safetensors"))}
