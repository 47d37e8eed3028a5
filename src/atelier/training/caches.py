"""Latents and text embeddings of the training works, computed once for all studies.

Latents are stored as posterior moments, so that they can still be sampled; each prompt's embedding once, however many
works share it. Both are in shards, which a training reads as it needs them where they are large. A cache is keyed by
the content of model, pictures, prompts and preprocessing; a stale one is refused, naming the part that differs, and a
damaged one by its file.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from atelier import scratch
from atelier.data import prepare, shards
from atelier.data.images import PREPROCESSING
from atelier.data.pictures import LITTLE, Pictures, in_memory
from atelier.data.prompts import prompt
from atelier.data.shards import Rows
from atelier.files import check_seal, copy, reading, writing
from atelier.machine import accelerator
from atelier.models import base
from atelier.models.headers import check_finite
from atelier.models.latents import Latents, Moments, encode_pictures, encode_prompts
from atelier.params import Params
from atelier.training.denoiser import Examples
from atelier.workspace import Workspace, replacing

WORKS = "works.safetensors"  # in the folder of caches: which prompts a work has; shards lie beside it
INDEX = {"which", "empty"}  # its tensors
LATENTS, WORDS = "latents", "words"  # of shards' names
EACH = 512  # rows of a shard


class Cache(NamedTuple):
    """Inputs of fine-tuning: moments of n latents, u different prompts' embeddings, and the empty prompt's.

    ``which`` (n, prompts) int64 are the embedding of each picture's prompts, ``words`` has shape (u, tokens, width),
    ``empty`` (tokens, width). Latents and words are tensors, or rows that are read as they are needed.
    """

    latents: Latents
    which: Tensor
    words: Tensor | Rows
    empty: Tensor

    def condition(self, samples: Sequence[int], prompts: Sequence[int], empty: Sequence[bool]) -> Tensor:
        """Embeddings (b, tokens, width) of each sample's prompt with the given number, or of the empty prompt."""
        chosen = self.words[self.which[list(samples), list(prompts)].tolist()].float()
        return torch.where(torch.tensor(empty)[:, None, None], self.empty, chosen)

    def examples(self, names: Sequence[str]) -> Examples:
        """The denoiser's training examples; ``names``: of the n pictures."""
        return Examples(self.latents, names, self.which.shape[1], self.condition)

    def first_prompts(self) -> "Cache":
        """The same pictures, each with its first prompt alone."""
        return self._replace(which=self.which[:, :1])

    def of(self, chosen: list[int]) -> "Cache":
        """Some of the pictures, in memory."""
        latents = Latents(*(each[chosen].float() for each in self.latents))
        return self._replace(latents=latents, which=self.which[chosen])


class TrainingWorks(NamedTuple):
    """The training split: its manifest, each work's prompts, and the cache key of both."""

    table: pd.DataFrame
    prompts: list[list[str]]
    key: dict[str, str]

    @property
    def names(self) -> list[str]:
        return list(self.table["path"])


def training_works(params: Params, workspace: Workspace) -> TrainingWorks:
    """The training split and its prompts at the protocol's level."""
    protocol = params.protocol.prompts
    table = prepare.works(workspace.manifests).table.query("split == 'train'").reset_index(drop=True)
    rows = table.to_dict("records")
    prompts = [[prompt(row, protocol.level, draw) for draw in range(protocol.per_work)] for row in rows]
    key = cache_key(base.fingerprint(check_seal(workspace.base)), list(table["sha256"]), prompts, params.data.size)
    return TrainingWorks(table, prompts, key)


# ------------------------------------------------------------------------------------------------ the stage


def main(params: Params, workspace: Workspace) -> None:
    """Stage ``cache``: encode the training split and its prompts, shard by shard."""
    works, device = training_works(params, workspace), accelerator(params.machine).device
    run = scratch.of_stage(params, workspace, __name__, workspace.cache, [workspace.base], **works.key)
    pipeline = base.load(check_seal(workspace.base)).to(device)
    pictures, texts = prepare.pictures(works.table, params.data, workspace), distinct(works.prompts)
    half = params.machine.precision == "bf16"

    def latents(rows: slice, path: Path) -> None:
        save(_moments(encode_pictures(pipeline.vae, pictures[rows])), path, half)

    def words(rows: slice, path: Path) -> None:
        save({WORDS: encode_prompts(pipeline, texts[rows])}, path, half)

    kinds = {LATENTS: (latents, len(pictures)), WORDS: (words, len(texts))}
    made = {
        name: [
            scratch.part(run, f"{name}-{first}", ".safetensors", partial(encode, slice(first, first + EACH)))
            for first in range(0, n, EACH)
        ]
        for name, (encode, n) in kinds.items()
    }
    with replacing(workspace.cache) as part:
        for name, files in made.items():
            for number, file in enumerate(files):
                copy(file, shards.file_of(part, _named(WORKS, name), number))
        _write_index(part / WORKS, works.prompts, encode_prompts(pipeline, [""])[0], works.key)
    scratch.discard(run)
    print(f"{len(works.table)} works, {len(texts)} different prompts encoded")


def save(tensors: dict[str, Tensor], path: Path, half: bool = False) -> None:
    """One shard; ``half``: as float16, whose error is below that of bfloat16 arithmetic."""
    check_finite(tensors.items(), path)
    save_file({name: (x.half() if half else x).contiguous() for name, x in tensors.items()}, path)


def _moments(moments: Moments) -> dict[str, Tensor]:
    assert isinstance(moments.mean, Tensor)
    assert isinstance(moments.std, Tensor)
    return {"mean": moments.mean, "std": moments.std}


def distinct(prompts: Sequence[Sequence[str]]) -> list[str]:
    """All different prompts, in the order of their first use."""
    return list(dict.fromkeys(text for row in prompts for text in row))


# ------------------------------------------------------------------------------------------------ files


def cache_key(model: str, pictures: Sequence[str], prompts: Sequence[Sequence[str]], size: int) -> dict[str, str]:
    """The key of a cache: the model's fingerprint, hashes of pictures and prompts, and the preprocessing."""
    return {
        "model": model,
        "pictures": _hash(list(pictures)),
        "prompts": _hash([list(row) for row in prompts]),
        "preprocessing": f"{PREPROCESSING}, {size} px",
    }


def encoded(pipeline: StableDiffusionPipeline, pictures: Tensor | Pictures, prompts: Sequence[Sequence[str]]) -> Cache:
    """A cache in memory, of a few hundred pictures."""
    texts = distinct(prompts)
    words, empty = encode_prompts(pipeline, texts), encode_prompts(pipeline, [""])[0]
    return Cache(Latents(*encode_pictures(pipeline.vae, pictures)), _which(prompts), words, empty)


def write_cache(
    path: Path,
    pipeline: StableDiffusionPipeline,
    pictures: Tensor | Pictures,
    prompts: list[list[str]],
    key: dict[str, str],
) -> None:
    """Encode pictures and their prompts, and write them beside others' files of a folder that will be sealed."""
    texts = distinct(prompts)
    latents = (_moments(encode_pictures(pipeline.vae, batch)) for batch in in_memory(pictures).batches(EACH))
    words = ({WORDS: encode_prompts(pipeline, texts[at : at + EACH])} for at in range(0, len(texts), EACH))
    for name, parts in {LATENTS: latents, WORDS: words}.items():
        shards.write(parts, path.parent, _named(path.name, name))
    _write_index(path, prompts, encode_prompts(pipeline, [""])[0], key)


def read_cache(path: Path, key: dict[str, str]) -> Cache:
    """Read the cache at ``path``. Raises ValueError if it is damaged or its key differs from ``key``.

    What is large stays in its files: trainings read the rows that they need.
    """
    latents, words = (_named(path.name, name) for name in (LATENTS, WORDS))
    with reading(path, "not a readable cache"):
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {}).get("atelier", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not isinstance(note, dict) or tensors.keys() != INDEX:
            raise ValueError(f"expected the tensors {', '.join(sorted(INDEX))}")
    if stale := [part for part, value in key.items() if note.get(part) != value]:
        raise ValueError(f"{path}: stale cache, made from other {' and '.join(stale)}")
    check_seal(path.parent, only=[path, *shards.files(path.parent, latents), *shards.files(path.parent, words)])
    mean, std = (_at_hand(shards.rows(path.parent, latents, name)) for name in ("mean", "std"))
    of_prompts = _at_hand(shards.rows(path.parent, words, WORDS))
    which = tensors["which"]
    for what, n, stored in (("pictures", len(which), mean), ("prompts", int(which.max()) + 1, of_prompts)):
        if len(stored) != n:
            raise ValueError(f"{path}: is of {n} {what}, the files beside it hold {len(stored)}")
    return Cache(Latents(mean, std), which, of_prompts, tensors["empty"])


def _at_hand(rows: Rows) -> Tensor | Rows:
    """In memory where it is little."""
    return rows.load().float() if 4 * rows.shape.numel() <= LITTLE else rows


def _named(file: str, part: str) -> str:
    return f"{file.removesuffix('.safetensors')}-{part}"


def _write_index(path: Path, prompts: Sequence[Sequence[str]], empty: Tensor, key: dict[str, str]) -> None:
    """The key is one JSON string, as several would have no fixed order."""
    tensors = {"which": _which(prompts), "empty": empty.contiguous()}
    with writing(path) as part:
        save_file(tensors, part, metadata={"atelier": json.dumps(key, sort_keys=True)})


def _which(prompts: Sequence[Sequence[str]]) -> Tensor:
    """The number of each picture's prompts among the different ones, (n, prompts) int64."""
    numbers = {text: number for number, text in enumerate(distinct(prompts))}
    return torch.tensor([[numbers[text] for text in row] for row in prompts])


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
