"""What post-trainings learn from and the prompts of their pictures: photographs, or works.

The paper post-trains on the kind of pictures that the base learnt. Here these are photographs painted for this study
alone, from two seeds that nothing else uses; without painted ones the data's, or its works where it has no photographs.
The stage ``corpus`` says which, and leaves latents and prompts' embeddings of photographs (works': shared by all).
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from atelier.data import prepare
from atelier.data.painter import paint_corpus, paint_photograph
from atelier.data.pictures import Pictures
from atelier.data.prompts import painted_row, prompt
from atelier.files import check_seal, read_json, read_table
from atelier.models import base
from atelier.params import Params
from atelier.sampling.held_out import held_out_table, with_files
from atelier.seeds import seed_of, torch_generator
from atelier.studies.latent_perceptual.params import Config, PostTraining
from atelier.training.caches import WORKS, Cache, TrainingWorks, cache_key, read_cache, training_works
from atelier.workspace import Workspace

CARD, CACHE = "card.json", "photographs.safetensors"
TRAINING, HELD_OUT = "training", "held_out"
SPLITS = {TRAINING: "train", HELD_OUT: "test"}  # our names, and the manifests'
PAINTED = "painted photographs"
LEVEL = 0  # of photographs' prompts, as of the base's
COLUMNS = ("path", "title", "art_style", "painting", "artist", "subject", "sha256")


def folder(workspace: Workspace) -> Path:
    return workspace.build / "corpus" / Config.STUDY


def kind_of(workspace: Workspace) -> str:
    """What a study's photographs are: painted ones, the data's, or works in their place."""
    return str(read_json(check_seal(folder(workspace)) / CARD)["kind"])


# ------------------------------------------------------------------------------------------------ pictures


def painted(params: Params, split: str) -> tuple[pd.DataFrame, Tensor]:
    """Photographs of one split: their table, and the pictures (n, 3, h, w) uint8."""
    corpus, seed = Config.of(params).corpus, seed_of(params.seed, Config.STUDY, split) % 2**31
    number = corpus.photographs if split == TRAINING else corpus.held_out
    pixels, records, captions = paint_corpus(0, number, seed, params.data.size, params.machine.threads)
    rows: list[dict[str, Any]] = [painted_row(*pair) for pair in zip(records, captions, strict=True)]
    digests = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pixels]
    table = pd.DataFrame(rows).assign(path=[row["painting"] for row in rows], sha256=digests)
    return table[[*COLUMNS, "index", "seed"]], torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def photographed(workspace: Workspace) -> dict[str, pd.DataFrame]:
    """The data's photographs by split, with their subjects; nothing unless there are some in both."""
    table = prepare.with_truth(prepare.photographs(workspace.manifests).table, workspace.manifests)
    tables = {name: table[table["split"] == split].reset_index(drop=True) for name, split in SPLITS.items()}
    return {name: rows[list(COLUMNS)] for name, rows in tables.items()} if all(map(len, tables.values())) else {}


def pictures(params: Params, workspace: Workspace, table: pd.DataFrame) -> Pictures:
    """The pictures of some rows of a split: painted again when they are needed, or read."""
    if "seed" not in table:
        return prepare.pictures(table, params.data, workspace, prepare.PHOTOGRAPHS)
    places = list(zip(table["seed"].tolist(), table["index"].tolist(), strict=True))

    def painted(numbers: list[int]) -> Tensor:
        again = [paint_photograph(*places[number], params.data.size).picture for number in numbers]
        return torch.stack([torch.from_numpy(picture).permute(2, 0, 1) for picture in again])

    return Pictures(painted, np.arange(len(places)))


def prompts_of(params: Params, table: pd.DataFrame) -> list[list[str]]:
    """Each photograph's prompts, as many as the protocol's."""
    draws = range(params.protocol.prompts.per_work)
    return [[prompt(row, LEVEL, draw) for draw in draws] for row in table.to_dict("records")]


def key_of(params: Params, workspace: Workspace, table: pd.DataFrame, prompts: list[list[str]]) -> dict[str, str]:
    made_from = base.fingerprint(check_seal(workspace.base))
    return cache_key(made_from, list(table["sha256"]), prompts, params.data.size)


# ------------------------------------------------------------------------------------------------ what is read


class Sources(NamedTuple):
    """What one kind of pictures is learnt from, prompted with and measured against; ``kind``: photographs or works."""

    params: Params
    workspace: Workspace
    kind: str

    def split(self, name: str) -> pd.DataFrame:
        """The rows of the training or the held-out split."""
        if self.kind == prepare.WORKS:
            table = prepare.works(self.workspace.manifests).table
            return table[table["split"] == SPLITS[name]].reset_index(drop=True)
        path = check_seal(folder(self.workspace)) / f"{name}.csv"
        return read_table(path, COLUMNS, keep_default_na=False)

    def pictures(self, table: pd.DataFrame) -> Pictures:
        """The pictures of some rows of a split."""
        if self.kind == prepare.WORKS:
            return prepare.pictures(table, self.params.data, self.workspace)
        return pictures(self.params, self.workspace, table)

    def training(self) -> TrainingWorks:
        """The training split, its prompts, and the key of its cache."""
        if self.kind == prepare.WORKS:
            return training_works(self.params, self.workspace)
        table = self.split(TRAINING)
        prompts = prompts_of(self.params, table)
        return TrainingWorks(table, prompts, key_of(self.params, self.workspace, table, prompts))

    def cache(self, key: dict[str, str]) -> Cache:
        """Latents and prompts' embeddings of the training split."""
        of_works = self.workspace.cache / WORKS
        return read_cache(of_works if self.kind == prepare.WORKS else folder(self.workspace) / CACHE, key)

    def prompt(self, row: Any, draw: int) -> str:
        """A held-out picture's prompt."""
        return prompt(row, self.params.protocol.prompts.level if self.kind == prepare.WORKS else LEVEL, draw)

    def prompts(self, pictures: int, training_seed: int) -> pd.DataFrame:
        """Held-out prompts for every repeat of a training seed, in a seeded order that wraps around.

        Columns: prompt, path, repeat, place, file.
        """
        if self.kind == prepare.WORKS:
            level = self.params.protocol.prompts.level
            return held_out_table(self.params, self.workspace.manifests, level, pictures, training_seed)
        rows = self.split(HELD_OUT).to_dict("records")
        generator = torch_generator(self.params.seed, Config.STUDY, "held out prompts")
        order = torch.randperm(len(rows), generator=generator).tolist()
        listed = [
            {
                "prompt": self.prompt(rows[order[number % len(rows)]], number // len(rows)),
                "path": rows[order[number % len(rows)]]["path"],
                "repeat": number // pictures,
                "place": number % pictures,
            }
            for repeat in self.params.protocol.repeats_of(training_seed)
            for number in range(repeat * pictures, (repeat + 1) * pictures)
        ]
        return with_files(pd.DataFrame(listed))


def sources(params: Params, workspace: Workspace, training: PostTraining) -> Sources:
    """The pictures of a training: photographs, or works where it is one of works or where there are no photographs."""
    only_works = training.of == prepare.WORKS or kind_of(workspace) == prepare.WORKS
    return Sources(params, workspace, prepare.WORKS if only_works else prepare.PHOTOGRAPHS)


def main_sources(params: Params, workspace: Workspace) -> Sources:
    """The pictures of the first training: what the page is about."""
    config = Config.of(params)
    return sources(params, workspace, config.trainings[config.names[0]])
