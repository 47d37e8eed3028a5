"""Paint with the base: prompts of held-out photographs and works, and sheets of prompts that vary by one word.

Held-out pictures' prompts are painted from both starts, each kind with its own leak; the sheets from white noise.
"""

from collections.abc import Iterator

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import machine, scratch
from atelier.data import prepare
from atelier.data.prompts import prompt
from atelier.files import check_seal, write_seal, write_table
from atelier.models import base
from atelier.params import CORRECTED, WHITE, Params
from atelier.sampling import starts
from atelier.sampling.conditions import Condition, Start, paint_conditions, white_noise, write_conditions
from atelier.sampling.sampler import Seed, first_latents, with_ddim
from atelier.sampling.store import guidance_folder
from atelier.seeds import torch_generator
from atelier.studies.base_model import sheets
from atelier.studies.base_model.params import Config
from atelier.workspace import Workspace, replacing

PROCESSES = "several"  # share batches of pictures


def main(params: Params, workspace: Workspace) -> None:
    """Write the base's pictures to ``build/samples/base_model``."""
    config, out = Config.of(params), workspace.samples / Config.STUDY
    conditions = [*held_out(params, workspace), *steering(params, workspace)]
    present = [condition for condition in conditions if len(condition.table)]
    inputs = [workspace.base, workspace.manifests, workspace.starts]
    run = scratch.of_stage(params, workspace, __name__, out, inputs, config=config.model_dump(mode="json"))
    if present:  # empty if the data has no photographs, or no truth table
        paint_conditions(params, present, lambda: with_ddim(base.load(check_seal(workspace.base))), run)
    machine.leave_to_main()
    with replacing(out) as part:
        write_conditions(present, run, part)
        for condition in conditions:
            write_table(part / condition.folder / "pictures.csv", condition.table)
            write_seal(part / condition.folder)
    scratch.discard(run)


def held_out(params: Params, workspace: Workspace) -> Iterator[Condition]:
    """Prompts of held-out works and photographs at one scale, from both starts where the kind's leak was fitted."""
    config, steps = Config.of(params), params.sampling.steps
    manifests = {prepare.WORKS: (prepare.works, 1), prepare.PHOTOGRAPHS: (prepare.photographs, 0)}
    for kind, (manifest, level) in manifests.items():
        table = held_out_pictures(manifest(workspace.manifests).table, kind, level, params)
        begun = {WHITE: white_noise(params, "picture", kind)}
        if len(table) and starts.fitted(workspace.starts, kind):
            leak = starts.load(workspace.starts, kind)
            begun[CORRECTED] = starts.started(params, CORRECTED, leak, "picture", kind)
        for start, latents in begun.items():
            folder = f"{kind}/{guidance_folder(config.measured_at, start)}"
            yield Condition(folder, table, latents, config.measured_at, steps)


def steering(params: Params, workspace: Workspace) -> Iterator[Condition]:
    """Sheets at every scale; the pictures of a sheet share one first latent."""
    manifests = workspace.manifests
    works, photographs = prepare.works(manifests).table, prepare.photographs(manifests).table
    tables = sheets.steering(prepare.with_truth(photographs, manifests), prepare.with_truth(works, manifests))
    for kind, table in tables.items():
        for guidance in Config.of(params).guidance:
            folder = f"{kind}/{guidance_folder(guidance)}"
            yield Condition(folder, table, one_latent(params, kind), guidance, params.sampling.steps)


def one_latent(params: Params, kind: str) -> Start:
    """The same white noise for all pictures."""

    def start(pipeline: StableDiffusionPipeline, rows: pd.DataFrame) -> Tensor:
        seeds: list[Seed] = [(params.seed, "picture", kind, 0)] * len(rows)
        return first_latents(pipeline, seeds, params.data.size)

    return start


def held_out_pictures(table: pd.DataFrame, kind: str, level: int, params: Params) -> pd.DataFrame:
    """Prompts and paths of held-out pictures, in a seeded order."""
    held_out = table.query("split == 'test'").reset_index(drop=True)
    order = torch.randperm(len(held_out), generator=torch_generator(params.seed, "base model", kind)).tolist()
    chosen = held_out.iloc[order[: Config.of(params).pictures]]
    return sheets.listed([prompt(row, level, 0) for _, row in chosen.iterrows()], list(chosen["path"]))
