"""What the stage ``choose`` leaves: curated works to learn from, pairs of preferences, held-out works to ask for.

Works are of one style, or of all where none is named. Painted ones are new to everything else; without them they are
the data's, in its splits.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier.data import prepare
from atelier.data.painter import STYLES, paint_corpus, paint_work, subject_mask
from atelier.data.pictures import Pictures
from atelier.data.prompts import painted_row, prompt
from atelier.files import check_seal, read_json, read_table, reading, writing
from atelier.models import base
from atelier.params import Params
from atelier.sampling.held_out import with_files
from atelier.seeds import seed_of, torch_generator
from atelier.studies.pixel_space.params import Config
from atelier.training.caches import Cache, TrainingWorks, cache_key, read_cache
from atelier.workspace import Workspace

CARD, WORKS, PAIRS, LISTED = "card.json", "works.safetensors", "pairs.safetensors", "pairs.csv"
TRAINING, HELD_OUT = "training", "held_out"
SPLITS = {TRAINING: "train", HELD_OUT: "test"}  # our names, and the manifests'
PAINTED = "painted works"
LEVEL = 1  # of prompts: with style and artist
COLUMNS = ("path", "title", "art_style", "painting", "artist", "subject", "sha256")
CHOSEN = ("defects", "fit")  # of a curated work, beside them
SCORES = tuple(f"{which}_{name}" for which in ("winner", "loser") for name in CHOSEN)


def folder(workspace: Workspace) -> Path:
    return workspace.build / "corpus" / Config.STUDY


def card(workspace: Workspace) -> dict[str, Any]:
    """``kind``: painted works, or works of the data; ``style``: which all are of, "" where none is named."""
    content: dict[str, Any] = read_json(check_seal(folder(workspace)) / CARD)
    return content


# ------------------------------------------------------------------------------------------------ works


def painted(params: Params, name: str) -> tuple[pd.DataFrame, Tensor]:
    """New works of the style: their table, and the pictures (n, 3, h, w) uint8. ValueError for an unknown style."""
    config = Config.of(params)
    if config.style not in STYLES:
        raise ValueError(f"pixel_space.style: the painter has no style '{config.style}', it has {', '.join(STYLES)}")
    number = config.curated.painted if name == TRAINING else config.curated.held_out
    seed = seed_of(params.seed, Config.STUDY, name) % 2**31
    pixels, records, captions = paint_corpus(
        number, 0, seed, params.data.size, params.machine.threads, STYLES[config.style]
    )
    rows: list[dict[str, Any]] = [painted_row(*pair) for pair in zip(records, captions, strict=True)]
    digests = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pixels]
    table = pd.DataFrame(rows).assign(path=[row["painting"] for row in rows], sha256=digests)
    return table[[*COLUMNS, "index", "seed"]], torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def of_style(params: Params, workspace: Workspace, name: str) -> pd.DataFrame:
    """The data's works of the style in one split, with their subjects; of every style where none is named.

    ValueError where they are too few to measure with.
    """
    style, fewest = Config.of(params).style, Config.of(params).fewest(params)
    table = prepare.with_truth(prepare.works(workspace.manifests).table, workspace.manifests)
    wanted = (table["split"] == SPLITS[name]) & (style is None or table["art_style"] == style)
    if (n := wanted.sum()) < fewest:
        of = "works" if style is None else f"works of '{style}'"
        raise ValueError(f"pixel_space.style: {n} {of} are in the split '{SPLITS[name]}', at least {fewest} are needed")
    return table.loc[wanted, list(COLUMNS)].reset_index(drop=True)


def split(workspace: Workspace, name: str) -> pd.DataFrame:
    """The curated works, or the held-out ones; painted ones have ``index`` and ``seed``."""
    path = check_seal(folder(workspace)) / f"{name}.csv"
    wanted = (*COLUMNS, *CHOSEN) if name == TRAINING else COLUMNS
    return read_table(path, wanted, keep_default_na=False)


def pictures(params: Params, workspace: Workspace, table: pd.DataFrame) -> Pictures:
    """The pictures of some rows of a split: painted again when they are needed, or read."""
    if "seed" not in table:
        return prepare.pictures(table, params.data, workspace)
    size, hands = params.data.size, table["painting"].str.partition("_")[0]  # as the painter names artists
    places = list(zip(table["seed"].tolist(), table["index"].tolist(), hands, strict=True))

    def painted(numbers: list[int]) -> Tensor:
        chosen = [places[number] for number in numbers]
        again = [paint_work(seed, index, size, artist=hand).picture for seed, index, hand in chosen]
        return torch.from_numpy(np.stack(again)).permute(0, 3, 1, 2).contiguous()

    return Pictures(painted, np.arange(len(places)))


def masks(params: Params, table: pd.DataFrame) -> Tensor | None:
    """Where the subject is in painted works, bool (n, h, w); None of others, of which nobody knows."""
    if "seed" not in table:
        return None
    places = zip(table["seed"], table["index"], strict=True)
    covered = [subject_mask(int(seed), int(index), params.data.size) for seed, index in places]
    return torch.from_numpy(np.stack(covered))


def prompts_of(params: Params, table: pd.DataFrame) -> list[list[str]]:
    """Each work's prompts, as many as the protocol's."""
    draws = range(params.protocol.prompts.per_work)
    return [[prompt(row, LEVEL, draw) for draw in draws] for row in table.to_dict("records")]


def training(params: Params, workspace: Workspace) -> TrainingWorks:
    """The curated works, their prompts, and the key of their cache."""
    table = split(workspace, TRAINING)
    prompts = prompts_of(params, table)
    return TrainingWorks(table, prompts, key_of(params, workspace, table, prompts))


def key_of(params: Params, workspace: Workspace, table: pd.DataFrame, prompts: list[list[str]]) -> dict[str, str]:
    made_from = base.fingerprint(check_seal(workspace.base))
    return cache_key(made_from, list(table["sha256"]), prompts, params.data.size)


def works_cache(workspace: Workspace, key: dict[str, str]) -> Cache:
    """Latents and prompts' embeddings of the curated works."""
    return read_cache(check_seal(folder(workspace)) / WORKS, key)


# ------------------------------------------------------------------------------------------------ preferences


class Pairs(NamedTuple):
    """Latents (n, c, h, w) of better and worse pictures, prompts' embeddings (n, tokens, width), the empty prompt's."""

    winner: Tensor
    loser: Tensor
    embeddings: Tensor
    empty: Tensor

    @property
    def names(self) -> list[str]:
        return [f"pair-{number}" for number in range(len(self.winner))]


def write_pairs(pairs: Pairs, path: Path) -> None:
    with writing(path) as part:
        save_file({name: tensor.contiguous() for name, tensor in pairs._asdict().items()}, part)


def pairs(workspace: Workspace) -> Pairs:
    path = check_seal(folder(workspace)) / PAIRS
    with reading(path, "not readable as pairs"):
        return Pairs(**load_file(path))


# ------------------------------------------------------------------------------------------------ held-out prompts


def held_out_prompts(params: Params, workspace: Workspace, number: int, training_seed: int) -> pd.DataFrame:
    """Held-out prompts, ``number`` for every repeat of a training seed, in a seeded order that wraps around.

    Columns: prompt, path, repeat, place, file.
    """
    rows = split(workspace, HELD_OUT).to_dict("records")
    order = torch.randperm(len(rows), generator=torch_generator(params.seed, Config.STUDY, "held out prompts")).tolist()
    listed = [
        {
            "prompt": prompt(rows[order[place % len(rows)]], LEVEL, place // len(rows)),
            "path": rows[order[place % len(rows)]]["path"],
            "repeat": repeat,
            "place": place - repeat * number,
        }
        for repeat in params.protocol.repeats_of(training_seed)
        for place in range(repeat * number, (repeat + 1) * number)
    ]
    return with_files(pd.DataFrame(listed))
