"""The picture browser: a fixed, unpicked set of a study's pictures on a few sheets, a sheet a setting.

A sheet's rows are variants, under the real pictures where prompts describe some; its columns are prompts. Without a
script the first sheet is an ordinary figure; the page's script enlarges tiles of all of them (``pipeline/page.js``).
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib import pyplot as plt
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import interpolate

from atelier.data.pictures import Pictures
from atelier.report import figures, pictures
from atelier.report.items import Browser, Sheet

TILES, BYTES = 300, 450_000  # of all sheets together, at most
SIDE, SHRUNK = 64, 96  # px: pictures up to the first are kept, larger ones shrunk to the second, and then fewer
PROMPTS, FEW = 16, 4  # columns of a sheet at most; settings are left out where there would be fewer
NOISES, ENOUGH = 3, 8  # of a prompt, at most; prompts that there must be before any has a second
LABEL = 26  # letters of a line
NOISE = "noise"  # the axis that settings have of themselves

Values = tuple[str, ...]
Cell = tuple[Pictures, pd.DataFrame]  # pictures, and their table: prompt, path (of the real one, or ""), repeat, place
Key = tuple[str, int, int]  # of a picture in its cell: path, repeat, place


class Browsed(NamedTuple):
    """What a browser is of. None of its pictures is in memory."""

    axes: Sequence[str]  # what settings differ in, in words
    variants: Mapping[str, Mapping[Values, Cell]]  # in words, what all others are compared with first; by setting
    real: str  # what a prompt's real picture is called
    read: Callable[[list[str]], Pictures]  # real pictures, by path


class Chosen(NamedTuple):
    """Prompts in words, and for each noise the key of every prompt's picture."""

    prompts: list[str]
    keys: list[list[Key]]


def on_sheets(name: str, browsed: Browsed, said: str, tiles: int = TILES, noun: str = "prompt") -> Browser:
    """The first prompts' pictures on sheets, at most so many ``tiles``; ``said``: what the caption adds.

    Only settings that all variants have are shown, and real pictures where every prompt has one. Raises ValueError
    where variants share no setting or no prompt.
    """
    axes, variants = browsed.axes, browsed.variants
    first = next(iter(variants.values()))
    settings = [values for values in first if all(values in cells for cells in variants.values())]
    if not settings:
        raise ValueError(f"browser {name}: the variants share no setting")
    size = first[settings[0]][0][:1].load().shape[-1]
    side = size if size <= SIDE else SHRUNK
    rows, room = len(variants) + 1, tiles * SIDE**2 // max(side, SIDE) ** 2
    while len(settings) > 1 and room // (rows * len(settings)) < FEW:
        settings.pop()
    tables = [cells[values][1] for cells in variants.values() for values in settings]
    chosen = choose(tables, max(1, room // (rows * len(settings))))
    if not chosen.prompts:
        raise ValueError(f"browser {name}: the variants share no {noun}")
    paths = [path for path, _, _ in chosen.keys[0]]
    top = {browsed.real: _tiles(browsed.read(paths), side)} if all(paths) else {}
    several = len(chosen.keys) > 1
    sheets = [
        Sheet(
            (*values, str(number)) if several else values,
            _sheet({**top, **{label: _chosen(cells[values], keys, side) for label, cells in variants.items()}}, side),
        )
        for values in settings
        for number, keys in enumerate(chosen.keys, start=1)
    ]
    shown = side * max(1, round(SIDE / side))
    return Browser(
        name=name,
        sheets=sheets,
        axes=[*axes, NOISE] if several else list(axes),
        rows=[*top, *variants],
        real=bool(top),
        noun=noun,
        columns=chosen.prompts,
        side=shown,
        step=shown + figures.GAP,
        caption=" ".join(
            (
                f"n = {len(variants) * len(sheets) * len(paths)} pictures: rows are {len(variants)} variants"
                f"{f', under {browsed.real}' if top else ''}; columns the first {len(paths)} {noun}s, unpicked.",
                said,
                *_first(axes, settings),
                f"Stored with loss{f', shrunk from {size} to {side} px' if side < size else ''}: measures are of the "
                "pictures themselves.",
            )
        ),
    )


def by_path(table: pd.DataFrame, read: Callable[[pd.DataFrame], Pictures]) -> Callable[[list[str]], Pictures]:
    """How to read the pictures of a manifest's rows by their paths. Its ValueError names a path that it lacks."""
    rows = {path: number for number, path in enumerate(table["path"])}

    def pictures_of(paths: list[str]) -> Pictures:
        if missing := [path for path in paths if path not in rows]:
            raise ValueError(f"{missing[0]}: no such picture is listed")
        return read(table.iloc[[rows[path] for path in paths]].reset_index(drop=True))

    return pictures_of


def choose(tables: Sequence[pd.DataFrame], most: int) -> Chosen:
    """The first prompts of which all tables have pictures, at most ``most`` pictures of a table; none is selected.

    A prompt has several noises only where that leaves enough prompts.
    """
    shared = set.intersection(*(set(_keys(table)) for table in tables))
    first = tables[0].sort_values(["repeat", "place"], kind="stable")
    known: dict[tuple[str, str], list[Key]] = {}
    for text, key in zip(first["prompt"], _keys(first), strict=True):
        if key in shared:
            known.setdefault((text, key[0]), []).append(key)
    for noises in range(NOISES, 0, -1):
        prompts = [each for each, keys in known.items() if len(keys) >= noises][: min(PROMPTS, most // noises)]
        if len(prompts) >= min(ENOUGH, len(known)):
            break
    return Chosen([text for text, _ in prompts], [[known[each][at] for each in prompts] for at in range(noises)])


def _keys(table: pd.DataFrame) -> list[Key]:
    return list(zip(table["path"], table["repeat"], table["place"], strict=True))


def _chosen(cell: Cell, keys: Sequence[Key], side: int) -> Tensor:
    """Some pictures of a cell, of which no other is read."""
    numbers = {key: number for number, key in enumerate(_keys(cell[1]))}
    return _tiles(cell[0][[numbers[key] for key in keys]], side)


def _tiles(chosen: Pictures, side: int) -> Tensor:
    """A few pictures (n, 3, h, w) uint8 in memory, shrunk by averaging where they are larger than a tile."""
    x = chosen.load()
    if x.shape[-1] <= side:
        return x
    return interpolate(x.float(), size=(side, side), mode="area").round().to(x.dtype)


def _sheet(rows: Mapping[str, Tensor], side: int) -> Image:
    """Columns are numbered, since prompts are long."""
    labelled = {textwrap.fill(label, LABEL): tiles for label, tiles in rows.items()}
    numbers = [str(number) for number in range(1, len(next(iter(rows.values()))) + 1)]
    drawn = figures.contact_sheet(labelled, numbers, max(side, SIDE) / figures.DPI)
    image = pictures.flat(drawn)
    plt.close(drawn)
    return image


def _first(axes: Sequence[str], settings: Sequence[Values]) -> list[str]:
    """What the first sheet is of."""
    named = ", ".join(f"{axis} {value}" for axis, value in zip(axes, settings[0], strict=True))
    return [f"This sheet: {named}."] if named else []
