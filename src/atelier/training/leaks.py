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
FEWEST = 8  # works of a style that is not asked for
ALL = "all"


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
    """Mean latents (b, c, h, w) of pictures, in batches: of few is anything held in memory at a time."""
    for start in range(0, len(table), AT_A_TIME):
        part = table.iloc[start : start + AT_A_TIME].reset_index(drop=True)
        yield encode_pictures(vae, prepare.pictures(part, asked.data, kind)).mean


def fitted(asked: Params) -> Iterator[tuple[str, Leak, pd.DataFrame]]:
    """Each leak, its name, and the rows of the pictures that it was fitted to.

    ``pixel`` and ``low-N`` of what is natural; ``all-STYLE`` of every style of the data, of which there are a few works
    or the study asks for it; of these ``K-STYLE``, too: some of its works.
    """
    study, vae = asked.signal_leak, base.load(paths.BASE).vae.to(machine.accelerator(asked.machine).device)
    table, kind = lessons(asked, None)
    numbers = sorted(study.frequencies)
    pixel, *low = FrequencyLeak.fit_several(encoded(asked, vae, table, kind), [0, *numbers])
    yield "pixel", pixel.rest, table
    yield from ((f"low-{n}", leak, table) for n, leak in zip(numbers, low, strict=True))
    works = prepare.works().table.query("split == 'train'")["art_style"].value_counts()
    asked_for = set(study.styles.values()) | {model.style for model in study.models.values() if model.style}
    for style in sorted(asked_for | set(works.index[works >= FEWEST])):
        table, kind = lessons(asked, style)
        order = torch.randperm(len(table), generator=torch_generator(asked.seed, STUDY, "targets", style)).tolist()
        table = table.iloc[order]
        for n in [None, *(study.targets if style in asked_for else [])]:
            yield of_style(style, n), PixelLeak.fit(encoded(asked, vae, table[:n], kind)), table[:n]


def of_style(style: str, works: int | None = None) -> str:
    """The name of a style's leak: of all its training works, or of so many, where there are."""
    return f"{works or ALL}-{style}"


def fit_all(asked: Params) -> None:
    """Every leak into ``build/leaks``, each with the pictures that it is of."""
    made_from = base.fingerprint(paths.BASE)
    with paths.replacing(paths.LEAKS) as part:
        for name, leak, table in fitted(asked):
            save(leak, part / f"{name}.safetensors", {"base": made_from, "pictures": "\n".join(table["path"])})


def load_all() -> dict[str, Leak]:
    """Every leak by name."""
    return {path.stem: load(path)[0] for path in sorted(paths.LEAKS.glob("*.safetensors"))}
