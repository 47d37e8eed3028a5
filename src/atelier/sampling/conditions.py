"""Paint a study's conditions, each a folder of pictures by one model; a killed stage loses at most one batch.

Batches are kept in scratch as they come, and several processes (``machine.ranks``) share them; when all are there, the
main one writes pictures, tables and latents, a batch at a time. A batch is the same whoever paints it, and when.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from atelier import machine, scratch
from atelier.data.images import to_pixels
from atelier.files import check_seal, read_json, reading, remove, write_json
from atelier.models import base
from atelier.models.adapters import tuned
from atelier.models.latents import BATCH
from atelier.params import Params
from atelier.sampling.sampler import Seed, decoded, first_latents, last_latents, settled, with_ddim
from atelier.sampling.store import UNTUNED, write_in_parts
from atelier.workspace import Workspace, replacing

# (pipeline, rows) -> first latents (n, c, h, w); rows: a table's, or some that follow one another in it
Start = Callable[[StableDiffusionPipeline, pd.DataFrame], Tensor]
# (pipeline, a batch's rows: prompt, repeat, place; their first latents) -> their last latents
Last = Callable[[StableDiffusionPipeline, pd.DataFrame, Tensor], Tensor]
LATENTS, PICTURES = "latents", "pictures"
NAMED = ["prompt", "repeat", "place"]  # columns that determine a picture


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


class Group(NamedTuple):
    """Conditions that share batches, because guidance and steps are equal, and so fewer batches are padded."""

    conditions: Sequence[Condition]
    batch: int

    @property
    def name(self) -> str:
        """What their batches are called: by whose they are."""
        text = json.dumps([self.batch, *(_how(self.conditions[0])), *(each.folder for each in self.conditions)])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def batches(self) -> int:
        return -(-sum(len(each.table) for each in self.conditions) // self.batch)

    def file(self, run: Path, number: int) -> Path:
        return scratch.path(run, f"batch-{self.name}-{number:07d}", ".safetensors")

    def segments(self, number: int) -> Iterator[tuple[int, range]]:
        """Whose rows are in a batch: the number of a condition, and which of its rows."""
        before, first = 0, number * self.batch
        for index, condition in enumerate(self.conditions):
            n = len(condition.table)
            rows = range(max(first - before, 0), min(first + self.batch - before, n))
            if rows:
                yield index, rows
            before += n

    def parts(self, index: int) -> list[tuple[int, int, int]]:
        """Where a condition's rows are: the number of each batch, the first row in it, and how many."""
        before = sum(len(each.table) for each in self.conditions[:index])
        after, parts = before + len(self.conditions[index].table), []
        for number in range(before // self.batch, -(-after // self.batch)):
            first, last = max(before, number * self.batch), min(after, (number + 1) * self.batch)
            parts.append((number, first - number * self.batch, last - first))
        return parts


def paint_conditions(
    params: Params,
    conditions: Sequence[Condition],
    load: Callable[[], StableDiffusionPipeline],
    run: Path,
    last: Last | None = None,
) -> None:
    """Paint one model's conditions into the scratch folder ``run``; batches finished by an earlier process are kept.

    ``load``: returns the model; ``last``: how it is sampled, None: without noise at its steps. Processes share the
    batches that are missing, and return when all are there.
    """
    machine.check_folder(run)
    batch, alike = params.sampling.batch, groupby(sorted(conditions, key=_how), key=_how)
    groups = [_waiting(run, Group(list(members), batch)) for _, members in alike]
    groups = [group for group in groups if group.conditions]
    missing = [(group, number) for group in groups for number in _missing(run, group)]
    if mine := missing[machine.rank() :: machine.ranks()]:
        pipeline = settled(load(), machine.accelerator(params.machine).device)
        for group in groups:
            if numbers := [number for owner, number in mine if owner is group]:
                _paint(params, pipeline, group, numbers, run, last)
    machine.wait()
    if machine.is_main():
        for group in groups:
            _list_parts(run, group)


def _how(condition: Condition) -> tuple[float, int]:
    return condition.guidance, condition.steps


def _waiting(run: Path, group: Group) -> Group:
    """A group without the conditions that are done in other batches than the group's; the main process looks."""
    done = [machine.is_main() and _elsewhere(run, condition, group) for condition in group.conditions]
    flags = machine.of_main([float(each) for each in done])
    return group._replace(conditions=[each for each, flag in zip(group.conditions, flags, strict=True) if not flag])


def _elsewhere(run: Path, condition: Condition, group: Group) -> bool:
    """Whether all pictures of a condition are there, in another group's batches. A list of lost ones is deleted."""
    index = scratch.path(run, condition.folder, ".json")
    if not scratch.is_whole(index):
        return False
    listed = read_json(index)
    if listed["group"] == group.name:
        return False
    if all(scratch.is_whole(run / name) for name, _, _ in listed["parts"]):
        return True
    remove(index)
    return False


def _missing(run: Path, group: Group) -> list[int]:
    """Batches that no earlier process has finished; the main process looks, and deletes damaged ones."""
    numbers = range(group.batches())
    lacking = [float(machine.is_main() and not scratch.is_whole(group.file(run, number))) for number in numbers]
    return [number for number, flag in zip(numbers, machine.of_main(lacking), strict=True) if flag]


def _list_parts(run: Path, group: Group) -> None:
    """Note for each condition of a group in which batches its pictures are."""
    for index, condition in enumerate(group.conditions):
        parts = [(group.file(run, number).name, first, count) for number, first, count in group.parts(index)]
        content = {"group": group.name, "parts": parts}
        remove(scratch.path(run, condition.folder, ".json"))  # one of a group that has lost other conditions since
        scratch.part(run, condition.folder, ".json", partial(write_json, content=content))


def _paint(
    params: Params,
    pipeline: StableDiffusionPipeline,
    group: Group,
    numbers: Sequence[int],
    run: Path,
    sampled: Last | None,
) -> None:
    """Paint these batches of a group, and keep each as it comes."""
    guidance, steps = _how(group.conditions[0])
    accelerator, firsts = machine.accelerator(params.machine), _first_latents(pipeline, group)

    def paint(number: int, path: Path) -> None:
        rows = pd.concat([group.conditions[at].table[NAMED].iloc[part] for at, part in _places(group, number)])
        begun = firsts(number)
        with accelerator.autocast():
            if sampled is None:
                batches = last_latents(
                    pipeline, rows["prompt"].tolist(), begun, guidance=guidance, steps=steps, batch=group.batch
                )
                painted = torch.cat(list(batches))
            else:
                painted = sampled(pipeline, rows, begun)
            pictures = to_pixels(decoded(pipeline.vae, painted, group.batch))
        save_file({LATENTS: painted.contiguous(), PICTURES: pictures.contiguous()}, path)

    said: Any = {"desc": f"guidance {guidance:g}, {steps} steps", "unit": "batch", "disable": not machine.is_main()}
    for number in tqdm(numbers, **said):
        scratch.part(run, group.file(run, number).stem, ".safetensors", partial(paint, number))


def _places(group: Group, number: int) -> Iterator[tuple[int, slice]]:
    """A batch's segments, as slices."""
    return ((index, slice(rows.start, rows.stop)) for index, rows in group.segments(number))


def _first_latents(pipeline: StableDiffusionPipeline, group: Group) -> Callable[[int], Tensor]:
    """A function from a batch's number to its first latents (b, c, h, w).

    They are made for as many rows at a time as fill both this group's batches and those in which prompts are encoded,
    counted from a condition's first: a start that calls a network then calls it as it does for all rows at once.
    """
    size = math.lcm(group.batch, BATCH)

    @lru_cache(maxsize=2)
    def made(index: int, number: int) -> Tensor:
        condition = group.conditions[index]
        return condition.start(pipeline, condition.table.iloc[number * size : (number + 1) * size])

    def first(number: int) -> Tensor:
        parts = [made(index, row // size)[row % size] for index, rows in group.segments(number) for row in rows]
        return torch.stack(parts)

    return first


def write_conditions(conditions: Sequence[Condition], run: Path, out: Path, below: str = ".") -> None:
    """Write a model's conditions from scratch into ``out``: pictures, table and last latents of each.

    ``below``: the folder that ``out`` stands for; conditions elsewhere are left out.
    """
    for condition in conditions:
        if Path(condition.folder).is_relative_to(below):
            parts = read_json(scratch.path(run, condition.folder, ".json"))["parts"]
            read = (_part(run / name, first, count) for name, first, count in parts)
            write_in_parts(read, condition.table, out / Path(condition.folder).relative_to(below))


def _part(path: Path, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Pictures and last latents of some rows of a batch."""
    with reading(path), safe_open(path, framework="pt") as file:
        pictures, last = (file.get_slice(name)[first : first + count] for name in (PICTURES, LATENTS))
        return pictures, last


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
    machine.leave_to_main()
    for folder in folders:
        with replacing(out / folder) as part:
            write_conditions(conditions, run, part, folder)
    scratch.discard(run)


def _described(condition: Condition) -> list[Any]:
    return [
        condition.folder,
        condition.guidance,
        condition.steps,
        condition.table[NAMED].values.tolist(),
    ]
