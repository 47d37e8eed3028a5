"""Paint a study's conditions, each a folder of pictures by one model; a killed stage loses at most one of them.

Finished conditions are kept in scratch; when all are done, pictures, tables and latents are written.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from atelier import machine, scratch
from atelier.data.images import to_pixels
from atelier.files import check_seal, reading
from atelier.models import base
from atelier.models.adapters import tuned
from atelier.params import Params
from atelier.sampling.sampler import Seed, decoded, first_latents, last_latents, settled, with_ddim
from atelier.sampling.store import UNTUNED, write
from atelier.workspace import Workspace, replacing

Start = Callable[[StableDiffusionPipeline, pd.DataFrame], Tensor]  # (pipeline, rows) -> first latents (n, c, h, w)
# (pipeline, conditions, their first latents) -> last latents of all their pictures in order, in batches of any size
Last = Callable[[StableDiffusionPipeline, Sequence["Condition"], Tensor], Iterator[Tensor]]
LATENTS, PICTURES = "latents", "pictures"


class Condition(NamedTuple):
    """A folder of pictures and how they are painted; ``table``: one row per picture (prompt, repeat, place, file)."""

    folder: str  # relative to the stage's output
    table: pd.DataFrame
    start: Start
    guidance: float
    steps: int


def seeds_of(rows: pd.DataFrame, *names: str | int) -> list[Seed]:
    """The seed of each row's first noise: these names, its repeat and its place in the repeat."""
    return [(*names, *row) for row in zip(rows["repeat"].tolist(), rows["place"].tolist(), strict=True)]


def white_noise(params: Params, *names: str | int) -> Start:
    """First latents of white noise, seeded by these names, repeat and place."""

    def start(pipeline: StableDiffusionPipeline, rows: pd.DataFrame) -> Tensor:
        return first_latents(pipeline, seeds_of(rows, params.seed, *names), params.data.size)

    return start


def paint_conditions(
    params: Params,
    conditions: Sequence[Condition],
    load: Callable[[], StableDiffusionPipeline],
    run: Path,
    last: Last | None = None,
) -> None:
    """Paint one model's conditions into the scratch folder ``run``; conditions finished by an earlier process are kept.

    ``load``: returns the model; ``last``: how it is sampled, None: without noise at its steps. Conditions with equal
    guidance and steps share batches, so that fewer batches are padded.
    """
    waiting = [condition for condition in conditions if not _painted(run, condition.folder)]
    if waiting:
        pipeline = settled(load(), machine.accelerator(params.machine).device)
        for _, alike in groupby(sorted(waiting, key=_how), key=_how):
            _paint(params, pipeline, list(alike), run, last)


def _how(condition: Condition) -> tuple[float, int]:
    return condition.guidance, condition.steps


def _paint(
    params: Params,
    pipeline: StableDiffusionPipeline,
    conditions: Sequence[Condition],
    run: Path,
    sampled: Last | None,
) -> None:
    """Paint conditions with one pipeline, guidance scale and number of steps."""
    guidance, steps = _how(conditions[0])
    prompts = [text for condition in conditions for text in condition.table["prompt"]]
    latents = torch.cat([condition.start(pipeline, condition.table) for condition in conditions])
    batch, accelerator = params.sampling.batch, machine.accelerator(params.machine)
    if sampled is None:
        batches = last_latents(pipeline, prompts, latents, guidance=guidance, steps=steps, batch=batch)
    else:
        batches = sampled(pipeline, conditions, latents)
    last = torch.empty(0, *latents.shape[1:])
    for condition in tqdm(conditions, desc=f"guidance {guidance:g}, {steps} steps", unit="condition"):
        rows = condition.table
        with accelerator.autocast():
            while len(last) < len(rows):
                last = torch.cat([last, next(batches)])
            painted, last = last[: len(rows)], last[len(rows) :]
            pictures = to_pixels(decoded(pipeline.vae, painted, batch))
        scratch.part(run, condition.folder, ".parquet", rows.to_parquet)
        tensors = {LATENTS: painted.contiguous(), PICTURES: pictures.contiguous()}
        scratch.part(run, condition.folder, ".safetensors", partial(save_file, tensors))


def _painted(run: Path, folder: str) -> bool:
    """Whether an earlier process has painted a condition, and both of its files are whole."""
    return all(scratch.is_whole(scratch.path(run, folder, kind)) for kind in (".safetensors", ".parquet"))


def _tensors(path: Path) -> dict[str, Tensor]:
    with reading(path):
        return load_file(path)


def write_conditions(conditions: Sequence[Condition], run: Path, out: Path, below: str = ".") -> None:
    """Write a model's conditions from scratch into ``out``: pictures, table and last latents of each.

    ``below``: the folder that ``out`` stands for; conditions elsewhere are left out.
    """
    for condition in conditions:
        if not Path(condition.folder).is_relative_to(below):
            continue
        part = _tensors(scratch.path(run, condition.folder, ".safetensors"))
        rows = scratch.read(scratch.path(run, condition.folder, ".parquet"))
        write(part[PICTURES], part[LATENTS], rows, out / Path(condition.folder).relative_to(below))


def sample_model(
    params: Params,
    workspace: Workspace,
    entry: str,
    study: str,
    model: str,
    seed: int,
    conditions: Sequence[Condition],
    out: Path,
    folders: Sequence[str],
    **key: Any,
) -> None:
    """Paint conditions with a study's model of one training seed, or the base, and write each of ``folders``.

    ``entry``: the module of the stage; ``out``: the folder that ``folders`` and conditions' folders are below; ``key``:
    further parameters that ``conditions`` depend on. Scratch is discarded when all folders are written: a killed stage
    starts again without any of them.
    """
    trained = model != UNTUNED
    inputs = [workspace.base, *([workspace.adapter(study, model, seed)] if trained else [])]
    described = [_described(condition) for condition in conditions]
    name = out / model / str(seed)
    run = scratch.of_stage(params, workspace, entry, name, inputs, model=model, conditions=described, **key)

    def load() -> StableDiffusionPipeline:
        pipeline = with_ddim(base.load(check_seal(workspace.base)))
        return tuned(pipeline, check_seal(workspace.adapter(study, model, seed))) if trained else pipeline

    paint_conditions(params, conditions, load, run)
    for folder in folders:
        with replacing(out / folder) as part:
            write_conditions(conditions, run, part, folder)
    scratch.discard(run)


def _described(condition: Condition) -> list[Any]:
    return [
        condition.folder,
        condition.guidance,
        condition.steps,
        condition.table[["prompt", "repeat", "place"]].values.tolist(),
    ]
