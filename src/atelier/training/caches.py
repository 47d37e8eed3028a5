"""Latents and text embeddings of the training works, computed once for all studies.

Latents are stored as posterior moments, so that they can still be sampled. A cache is keyed by the content of model,
pictures, prompts and preprocessing; a stale or damaged one is refused, naming the part that differs.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from atelier.data import prepare
from atelier.data.images import PREPROCESSING
from atelier.data.prompts import prompt
from atelier.files import check_seal, reading, writing
from atelier.machine import accelerator
from atelier.models import base
from atelier.models.headers import check_finite
from atelier.models.latents import Moments, encode_pictures, encode_prompts
from atelier.models.stored import tensor_digest
from atelier.params import Params
from atelier.training.denoiser import Examples
from atelier.workspace import Workspace, replacing

TENSORS = {"latents.mean", "latents.std", "embeddings", "empty"}
WORKS = "works.safetensors"  # in the folder of caches


class Cache(NamedTuple):
    """Inputs of fine-tuning: moments of n latents, their prompts' embeddings and the empty prompt's.

    Embeddings have shape (n, prompts, tokens, width), the empty prompt's (tokens, width).
    """

    latents: Moments
    embeddings: Tensor
    empty: Tensor

    def condition(self, samples: Sequence[int], prompts: Sequence[int], empty: Sequence[bool]) -> Tensor:
        """Embeddings (b, tokens, width) of each sample's prompt with the given number, or of the empty prompt."""
        chosen = self.embeddings[list(samples), list(prompts)]
        return torch.where(torch.tensor(empty)[:, None, None], self.empty, chosen)

    def examples(self, names: Sequence[str]) -> Examples:
        """The denoiser's training examples; ``names``: of the n pictures."""
        return Examples(self.latents, names, self.embeddings.shape[1], self.condition)


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


def main(params: Params, workspace: Workspace) -> None:
    """Stage ``cache``: encode the training split and its prompts."""
    works = training_works(params, workspace)
    pipeline = base.load(check_seal(workspace.base)).to(accelerator(params.machine).device)
    flat = encode_prompts(pipeline, [text for row in works.prompts for text in row])
    cache = Cache(
        latents=encode_pictures(pipeline.vae, prepare.pictures(works.table, params.data, workspace)),
        embeddings=flat.view(len(works.prompts), -1, *flat.shape[1:]),
        empty=encode_prompts(pipeline, [""])[0],
    )
    with replacing(workspace.cache) as part:
        write_cache(part / WORKS, cache, works.key)
    print(f"{len(works.table)} works, {flat.shape[0]} prompts encoded")


def cache_key(model: str, pictures: Sequence[str], prompts: Sequence[Sequence[str]], size: int) -> dict[str, str]:
    """The key of a cache: the model's fingerprint, hashes of pictures and prompts, and the preprocessing."""
    return {
        "model": model,
        "pictures": _hash(list(pictures)),
        "prompts": _hash([list(row) for row in prompts]),
        "preprocessing": f"{PREPROCESSING}, {size} px",
    }


def write_cache(path: Path, cache: Cache, key: dict[str, str]) -> None:
    """Write one safetensors file; key and content digest are one JSON string, as several would have no fixed order."""
    tensors = _tensors(cache)
    note = json.dumps({**key, "content": tensor_digest(tensors)}, sort_keys=True)
    with writing(path) as part:
        save_file(tensors, part, metadata={"atelier": note})


def read_cache(path: Path, key: dict[str, str]) -> Cache:
    """Read the cache at ``path``. Raises ValueError if it is damaged or its key differs from ``key``."""
    with reading(path, "not a readable cache"):
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {}).get("atelier", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not isinstance(note, dict) or tensors.keys() != TENSORS:
            raise ValueError(f"expected the tensors {', '.join(sorted(TENSORS))}")
    stale = [part for part, value in key.items() if note.get(part) != value]
    if stale:
        raise ValueError(f"{path}: stale cache, made from other {' and '.join(stale)}")
    if note.get("content") != tensor_digest(tensors):
        raise ValueError(f"{path}: damaged cache, its content is not what was written")
    check_finite(tensors.items(), path)
    moments = Moments(tensors["latents.mean"], tensors["latents.std"])
    return Cache(moments, tensors["embeddings"], tensors["empty"])


def _tensors(cache: Cache) -> dict[str, Tensor]:
    return {
        "latents.mean": cache.latents.mean.contiguous(),
        "latents.std": cache.latents.std.contiguous(),
        "embeddings": cache.embeddings.contiguous(),
        "empty": cache.empty.contiguous(),
    }


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
