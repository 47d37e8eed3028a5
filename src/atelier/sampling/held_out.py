"""Prompts of held-out works, which every model paints, by repeats."""

from pathlib import Path

import pandas as pd
import torch

from atelier.data import prepare
from atelier.data.prompts import prompt
from atelier.params import Params
from atelier.seeds import torch_generator


def held_out_prompts(manifests: Path, seed: int, level: int, n: int, repeat: int) -> pd.DataFrame:
    """Prompt and path of ``n`` held-out works for one repeat, in a seeded order that wraps around."""
    table = prepare.works(manifests).table.query("split == 'test'").reset_index(drop=True)
    order = torch.randperm(len(table), generator=torch_generator(seed, "held out prompts")).tolist()
    if table.empty:
        raise ValueError("no work is held out: the test split is empty, so that there is nothing to ask pictures for")
    works = table.to_dict("records")
    numbers = range(repeat * n, (repeat + 1) * n)
    chosen = [(works[order[number % len(works)]], number // len(works)) for number in numbers]
    return pd.DataFrame([{"prompt": prompt(work, level, draw), "path": work["path"]} for work, draw in chosen])


def held_out_table(params: Params, manifests: Path, level: int, pictures: int, training_seed: int) -> pd.DataFrame:
    """``pictures`` held-out prompts for every repeat of a training seed: prompt, path, repeat, place, file."""
    repeats = [
        held_out_prompts(manifests, params.seed, level, pictures, repeat).assign(repeat=repeat, place=range(pictures))
        for repeat in params.protocol.repeats_of(training_seed)
    ]
    return with_files(pd.concat(repeats, ignore_index=True))


def with_files(table: pd.DataFrame) -> pd.DataFrame:
    """Add each picture's file name, from its repeat and its place in it."""
    return table.assign(file=[f"{row.repeat}-{row.place:04d}.png" for row in table.itertuples()])
