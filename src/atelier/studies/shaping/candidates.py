"""Candidates: many pictures of a few training prompts by the base, with their rewards and states on the way.

Painted in batches that are kept on disk one by one, as shards of safetensors: a killed stage loses one batch at most,
and no more than one is in memory at a time. Numbers of candidates run through the shards in order.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from atelier import machine, scratch
from atelier.data.images import to_pixels
from atelier.files import check_seal, copy, read_table, reading, write_table
from atelier.params import Params
from atelier.sampling.sampler import decoded, first_latents, settled
from atelier.sampling.trajectories import Parts, Seed, Solver, trajectories
from atelier.studies.shaping import prompts, shaped
from atelier.studies.shaping import rewards as judges
from atelier.studies.shaping.params import Config
from atelier.studies.shaping.rewards import Judged
from atelier.workspace import Workspace, replacing

SOLVERS = {"ode": 0.0, "sde": 1.0}  # eta
LISTED, LAST, PICTURES = "candidates.csv", "last", "pictures"
COLUMNS = ("number", "set", "prompt", "path", "subject", "art_style", "reward")


class Painting(NamedTuple):
    """How a table's candidates are painted: with which seeds, solver and parts, and which states are kept."""

    solver: Solver
    seeds: Sequence[Seed]
    keep: Mapping[str, int]  # name of a kept state -> number of its step
    parts: Parts | None = None


def write(params: Params, workspace: Workspace, seed: int) -> None:
    """Write ``build/shaping/candidates/SEED``, a folder for each solver."""
    config, out = Config.of(params), folder(workspace, seed)
    key = config.model_dump(
        mode="json", include={"model", "rewards", "reward", "steps", "levels", "guidance", "candidates"}
    )
    inputs = [*shaped.inputs(params, workspace), workspace.manifests, judges.folder(workspace)]
    run = scratch.of_stage(params, workspace, __name__, out, inputs, training_seed=seed, **key)
    table, rewards = prompts.of_candidates(params, workspace, seed), judges.rewards_of(params, workspace)
    pipeline = settled(shaped.load(params, workspace), machine.accelerator(params.machine).device)
    with replacing(out) as part:
        for solver in SOLVERS:
            how = painting(params, table, solver, (params.seed, Config.STUDY, "candidates", seed))
            shards = painted(params, pipeline, table, how, run / solver)
            for number, shard in enumerate(shards):
                copy(shard, part / solver / f"candidates-{number:05d}.safetensors")
            write_table(part / solver / LISTED, scored(shards, table, rewards, config.reward))
    scratch.discard(run)
    print(f"{len(table)} candidates of {config.candidates.prompts} prompts by each of {' and '.join(SOLVERS)}")


def folder(workspace: Workspace, training_seed: int, solver: str = "") -> Path:
    return workspace.build / Config.STUDY / "candidates" / str(training_seed) / solver


def painting(params: Params, table: pd.DataFrame, solver: str, names: Seed, parts: Parts | None = None) -> Painting:
    """Candidates of a table's prompts; ``names``: what their seeds begin with. Both solvers start from equal noise."""
    config = Config.of(params)
    how = Solver(config.guidance, config.steps, params.sampling.batch, SOLVERS[solver])
    keep = {state_name(level): config.number_of(level) for level in config.levels}
    return Painting(how, [(*names, int(number)) for number in table["number"]], keep, parts)


def state_name(level: float) -> str:
    """A shard's tensor of the states at a level."""
    return f"state-{round(100 * level)}"


def painted(
    params: Params, pipeline: StableDiffusionPipeline, table: pd.DataFrame, how: Painting, run: Path
) -> list[Path]:
    """Shards of candidates, ``sampling.batch`` each; shards that an earlier process has finished are kept."""
    pipeline.set_progress_bar_config(disable=True)
    texts, place = table["prompt"].tolist(), machine.accelerator(params.machine)

    def paint(rows: slice, path: Path) -> None:
        noise = first_latents(pipeline, how.seeds[rows], params.data.size)
        numbers = list(how.keep.values())
        with place.autocast():
            (trajectory,) = trajectories(
                pipeline, texts[rows], noise, how.seeds[rows], how.solver, keep=numbers, parts=how.parts
            )
            pictures = to_pixels(decoded(pipeline.vae, trajectory.last, how.solver.batch))
        states = {name: trajectory.kept[number].contiguous() for name, number in how.keep.items()}
        save_file({**states, LAST: trajectory.last.contiguous(), PICTURES: pictures.contiguous()}, path)

    firsts = range(0, len(table), how.solver.batch)
    return [
        scratch.part(run, f"{first:08d}", ".safetensors", partial(paint, slice(first, first + how.solver.batch)))
        for first in firsts
    ]


def scored(shards: Sequence[Path], table: pd.DataFrame, rewards: Mapping[str, Judged], main: str) -> pd.DataFrame:
    """The table with each candidate's rewards, a shard at a time; ``reward``: the one that is trained for."""
    parts, first = [], 0
    for shard in shards:
        pictures = _tensors(shard, PICTURES)
        rows = table.iloc[first : first + len(pictures)].reset_index(drop=True)
        scores: dict[str, Any] = {f"reward_{name}": reward(pictures, rows) for name, reward in rewards.items()}
        parts.append(rows.assign(reward=scores[f"reward_{main}"], **scores))
        first += len(pictures)
    return pd.concat(parts, ignore_index=True)


# ------------------------------------------------------------------------------------------------ reading


def listed(place: Path) -> pd.DataFrame:
    """The table of one solver's candidates: number, set, prompt, path, subject, art_style, reward, reward_NAME."""
    return read_table(
        check_seal(place.parent, only=[place / LISTED]) / place.name / LISTED, COLUMNS, keep_default_na=False
    )


def shards_of(place: Path) -> list[Path]:
    """Shards of one solver's candidates, in order."""
    shards = sorted(place.glob("candidates-*.safetensors"))
    check_seal(place.parent, only=shards)
    return shards


def tensors(place: Path, name: str, numbers: Sequence[int] | None = None) -> Tensor:
    """``last``, ``pictures`` or ``state-LEVEL`` of these candidates (all: None), in their order."""
    return picked(shards_of(place), name, numbers)


def picked(shards: Sequence[Path], name: str, numbers: Sequence[int] | None = None) -> Tensor:
    """Rows of a tensor in shards, of which one at a time is read."""
    wanted = None if numbers is None else {int(number): place for place, number in enumerate(numbers)}
    rows: list[Tensor] = []
    places: list[int] = []
    for first, part in _parts(shards, name):
        if wanted is None:
            rows.append(part)
            continue
        here = [number for number in range(first, first + len(part)) if number in wanted]
        rows.append(part[[number - first for number in here]])
        places += [wanted[number] for number in here]
    tensor = torch.cat(rows)
    if wanted is None:
        return tensor
    if len(places) < len(wanted):
        raise ValueError(f"{shards[0].parent}: {len(wanted) - len(places)} of the candidates asked for are not there")
    return tensor[torch.tensor(places).argsort()]


def _parts(shards: Sequence[Path], name: str) -> Iterator[tuple[int, Tensor]]:
    first = 0
    for shard in shards:
        part = _tensors(shard, name)
        yield first, part
        first += len(part)


def _tensors(path: Path, name: str) -> Tensor:
    with reading(path, "not readable as candidates"), safe_open(path, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
        return tensor
