"""Paint a study's conditions, each a folder of pictures by one model; a killed stage loses at most one of them.

Finished conditions are kept in scratch; when all are done, pictures, tables and latents are written.
"""

from collections.abc import Callable, Sequence
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
LATENTS, PICTURES = "latents", "pictures"
UNTRAINED = 0  # stands for the training seed of the untuned base, which has none


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


def by_training_seed(params: Params, table: pd.DataFrame, trained: bool) -> dict[int, pd.DataFrame]:
    """The rows painted by each training seed's model: those of its repeats; all rows for an untrained model."""
    if not trained:
        return {UNTRAINED: table}
    seed_of_row = table["repeat"].map(params.protocol.seed_of_repeat)
    return {seed: table[seed_of_row == seed] for seed in params.protocol.training_seeds}


def paint_conditions(
    params: Params,
    conditions: Sequence[Condition],
    load: Callable[[int], StableDiffusionPipeline],
    trained: bool,
    run: Path,
) -> None:
    """Paint one model's conditions into the scratch folder ``run``; conditions finished by an earlier process are kept.

    ``load``: returns the model of a training seed. Conditions with equal guidance and steps share batches, so that
    fewer batches are padded.
    """
    for seed in by_training_seed(params, conditions[0].table, trained):
        waiting = [condition for condition in conditions if not _painted(run, condition.folder, seed)]
        if waiting:
            pipeline = settled(load(seed), machine.accelerator(params.machine).device)
            rows = {condition.folder: by_training_seed(params, condition.table, trained)[seed] for condition in waiting}
            for _, alike in groupby(sorted(waiting, key=_how), key=_how):
                _paint(params, pipeline, [(condition, rows[condition.folder]) for condition in alike], run, seed)


def _how(condition: Condition) -> tuple[float, int]:
    return condition.guidance, condition.steps


def _paint(
    params: Params,
    pipeline: StableDiffusionPipeline,
    conditions: Sequence[tuple[Condition, pd.DataFrame]],
    run: Path,
    seed: int,
) -> None:
    """Paint conditions with one pipeline, guidance scale and number of steps."""
    guidance, steps = _how(conditions[0][0])
    prompts = [text for _, rows in conditions for text in rows["prompt"]]
    latents = torch.cat([condition.start(pipeline, rows) for condition, rows in conditions])
    batch, accelerator = params.sampling.batch, machine.accelerator(params.machine)
    batches = last_latents(pipeline, prompts, latents, guidance=guidance, steps=steps, batch=batch)
    last = torch.empty(0, *latents.shape[1:])
    for condition, rows in tqdm(conditions, desc=f"guidance {guidance:g}, {steps} steps", unit="condition"):
        with accelerator.autocast():
            while len(last) < len(rows):
                last = torch.cat([last, next(batches)])
            painted, last = last[: len(rows)], last[len(rows) :]
            pictures = to_pixels(decoded(pipeline.vae, painted, batch))
        scratch.part(run, _name(condition.folder, seed), ".parquet", rows.to_parquet)
        tensors = {LATENTS: painted.contiguous(), PICTURES: pictures.contiguous()}
        scratch.part(run, _name(condition.folder, seed), ".safetensors", partial(save_file, tensors))


def _name(folder: str, seed: int) -> str:
    return f"{folder},{seed}"


def _painted(run: Path, folder: str, seed: int) -> bool:
    """Whether an earlier process has painted a condition, and both of its files are whole."""
    files = (scratch.path(run, _name(folder, seed), kind) for kind in (".safetensors", ".parquet"))
    return all(scratch.is_whole(file) for file in files)


def _path(run: Path, folder: str, seed: int) -> Path:
    return scratch.path(run, _name(folder, seed), ".safetensors")


def _tensors(path: Path) -> dict[str, Tensor]:
    with reading(path):
        return load_file(path)


def write_conditions(
    params: Params, conditions: Sequence[Condition], trained: bool, run: Path, out: Path, below: str = "."
) -> None:
    """Write a model's conditions from scratch into ``out``: pictures, table and last latents of each.

    ``below``: the folder that ``out`` stands for; conditions elsewhere are left out.
    """
    for condition in conditions:
        if not Path(condition.folder).is_relative_to(below):
            continue
        files = [_path(run, condition.folder, seed) for seed in by_training_seed(params, condition.table, trained)]
        parts = [_tensors(file) for file in files]
        rows = pd.concat([scratch.read(file.with_suffix(".parquet")) for file in files])
        pictures, latents = (torch.cat([part[name] for part in parts]) for name in (PICTURES, LATENTS))
        write(pictures, latents, rows, out / Path(condition.folder).relative_to(below))


def sample_model(
    params: Params,
    workspace: Workspace,
    entry: str,
    study: str,
    model: str,
    conditions: Sequence[Condition],
    out: Path,
    folders: Sequence[str],
    **key: Any,
) -> None:
    """Paint conditions with a study's tuned model or the untuned base, and write each of ``folders`` below ``out``.

    ``entry``: the module of the stage; ``key``: further parameters that ``conditions`` depend on. Scratch is discarded
    when all folders are written: a killed stage starts again without any of them.
    """
    trained = model != UNTUNED
    inputs = [workspace.base, *([workspace.adapters / study / model] if trained else [])]
    described = [_described(condition) for condition in conditions]
    run = scratch.of_stage(params, workspace, entry, out / model, inputs, model=model, conditions=described, **key)

    def load(seed: int) -> StableDiffusionPipeline:
        pipeline = with_ddim(base.load(check_seal(workspace.base)))
        return tuned(pipeline, check_seal(workspace.adapter(study, model, seed))) if trained else pipeline

    paint_conditions(params, conditions, load, trained, run)
    for folder in folders:
        with replacing(out / folder) as part:
            write_conditions(params, conditions, trained, run, part, folder)
    scratch.discard(run)


def _described(condition: Condition) -> list[Any]:
    return [
        condition.folder,
        condition.guidance,
        condition.steps,
        condition.table[["prompt", "repeat", "place"]].values.tolist(),
    ]
