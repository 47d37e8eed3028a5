"""Prompts whose pictures a reward can judge: of training works for candidates, of held-out works to measure."""

import pandas as pd
import torch

from atelier.data import prepare
from atelier.data.prompts import prompt
from atelier.evaluation.rewards import colour_named
from atelier.params import Params
from atelier.sampling.held_out import with_files
from atelier.seeds import torch_generator
from atelier.studies.shaping.params import Config
from atelier.workspace import Workspace

TRAINING, HELD_OUT = "train", "test"  # the manifests' splits
COLUMNS = ["prompt", "path", "subject", "art_style"]


def works(params: Params, workspace: Workspace, split: str) -> pd.DataFrame:
    """A split's works that the rewards fit: a title with one colour for ``colour``, a known subject for ``subject``.

    ValueError where there are none.
    """
    table = prepare.with_truth(prepare.works(workspace.manifests).table, workspace.manifests)
    rewards, fits = Config.of(params).rewards, table["split"] == split
    if "colour" in rewards:
        fits &= table["title"].map(lambda title: colour_named(title) is not None)
    if "subject" in rewards:
        fits &= table["subject"] != ""
    if not fits.any():
        raise ValueError(f"shaping.rewards: no work of the split '{split}' suits {', '.join(rewards)}; leave some out")
    return table[fits].reset_index(drop=True)


def of_candidates(params: Params, workspace: Workspace, training_seed: int) -> pd.DataFrame:
    """A training seed's candidates: number, set (the prompt's number), prompt, path, subject, art_style."""
    config = Config.of(params).candidates
    places = range(training_seed * config.prompts, (training_seed + 1) * config.prompts)  # no two seeds share a prompt
    prompts = drawn(params, works(params, workspace, TRAINING), ("candidates",), places)
    rows = prompts.loc[prompts.index.repeat(config.each)].reset_index(drop=True)
    return rows.assign(number=range(len(rows)), set=[number // config.each for number in range(len(rows))])


def held_out(params: Params, workspace: Workspace, training_seed: int) -> pd.DataFrame:
    """The held-out prompts of every cell of a training seed: prompt, path, subject, art_style, repeat, place, file."""
    number, table = Config.of(params).pictures, works(params, workspace, HELD_OUT)
    repeats = [
        drawn(params, table, ("held out",), range(repeat * number, (repeat + 1) * number)).assign(
            repeat=repeat, place=range(number)
        )
        for repeat in params.protocol.repeats_of(training_seed)
    ]
    return with_files(pd.concat(repeats, ignore_index=True))


def drawn(params: Params, table: pd.DataFrame, names: tuple[str | int, ...], places: range) -> pd.DataFrame:
    """Prompts of the works at these places of a seeded order, which wraps around to other prompts of theirs."""
    order = torch.randperm(len(table), generator=torch_generator(params.seed, Config.STUDY, *names)).tolist()
    rows, level, n = table.to_dict("records"), params.protocol.prompts.level, len(table)
    chosen = [(rows[order[place % n]], place // n) for place in places]
    return pd.DataFrame([{**row, "prompt": prompt(row, level, draw)} for row, draw in chosen])[COLUMNS]
