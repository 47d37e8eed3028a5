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


def encoded(asked: Params, vae: AutoencoderKL, table: pd.DataFrame, kind: str) -> Iterator[Tensor]:
    """Mean latents of pictures, some at a time."""
    for start in range(0, len(table), AT_A_TIME):
        some = table.iloc[start : start + AT_A_TIME].reset_index(drop=True)
        yield encode_pictures(vae, prepare.pictures(some, asked.data, kind)).mean


def fitted(asked: Params) -> Iterator[tuple[str, Leak, pd.DataFrame]]:
    """Each leak, its name, and the rows of the pictures that it was fitted to.

    ``pixel`` and ``low-N`` of what is natural; of every style of the data, ``all-STYLE``; of one of the study's, by its
    name, all its works, and ``NAME-K`` some of them.
    """
    study, vae = asked.signal_leak, base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    table, kind = lessons(asked, None)
    yield "pixel", PixelLeak.fit(encoded(asked, vae, table, kind)), table
    for n in sorted(study.frequencies):
        yield f"low-{n}", FrequencyLeak.fit(encoded(asked, vae, table, kind), n), table
    works = prepare.works().table.query("split == 'train'")
    for style, table in works.groupby("art_style"):
        if len(table) >= FEWEST:
            yield f"all-{style}", PixelLeak.fit(encoded(asked, vae, table, prepare.WORKS)), table
    for name, style in study.styles.items():
        table, kind = lessons(asked, style)
        order = torch.randperm(len(table), generator=torch_generator(asked.seed, STUDY, "targets", style)).tolist()
        table = table.iloc[order]
        yield name, PixelLeak.fit(encoded(asked, vae, table, kind)), table
        for n in study.targets:
            yield f"{name}-{n}", PixelLeak.fit(encoded(asked, vae, table[:n], kind)), table[:n]


def fit_all(asked: Params) -> None:
    """Every leak into ``build/leaks``, each with the pictures that it is of."""
    made_from = base.fingerprint(paths.BASE)
    with paths.replacing(paths.LEAKS) as part:
        for name, leak, table in fitted(asked):
            save(leak, part / f"{name}.safetensors", {"base": made_from, "pictures": "\n".join(table["path"])})


def load_all() -> dict[str, Leak]:
    """Every leak by name."""
    return {path.stem: load(path)[0] for path in sorted(paths.LEAKS.glob("*.safetensors"))}
