"""Paint with the base: prompts of held-out photographs and works, and sheets of prompts that vary by one word."""

from pathlib import Path

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from atelier import scratch
from atelier.data import prepare
from atelier.data.prompts import prompt
from atelier.files import check_seal, write_seal, write_table
from atelier.models import base
from atelier.params import Params
from atelier.sampling.conditions import Condition, Start, paint_conditions, write_conditions
from atelier.sampling.sampler import Seed, first_latents, with_ddim
from atelier.sampling.store import guidance_folder
from atelier.seeds import torch_generator
from atelier.studies.base_model import sheets
from atelier.studies.base_model.params import Config
from atelier.workspace import Workspace, replacing


def main(params: Params, workspace: Workspace) -> None:
    """Write the base's pictures to ``build/samples/base_model``."""
    config, out, manifests = Config.of(params), workspace.samples / Config.STUDY, workspace.manifests
    conditions = all_conditions(params, manifests)
    present = [condition for condition in conditions if len(condition.table)]
    inputs = [workspace.base, manifests]
    run = scratch.of_stage(params, workspace, __name__, out, inputs, config=config.model_dump(mode="json"))
    if present:  # empty if the data has no photographs, or no truth table
        paint_conditions(params, present, lambda seed: with_ddim(base.load(check_seal(workspace.base))), False, run)
    with replacing(out) as part:
        write_conditions(params, present, False, run, part)
        for condition in conditions:
            write_table(part / condition.folder / "pictures.csv", condition.table)
            write_seal(part / condition.folder)
    scratch.discard(run)


def all_conditions(params: Params, manifests: Path) -> list[Condition]:
    """Held-out works and photographs at one scale, and sheets at every scale; a sheet's pictures share one latent."""
    config = Config.of(params)
    works, photographs = prepare.works(manifests).table, prepare.photographs(manifests).table
    once = {
        "works": held_out_pictures(works, "works", 1, params),
        "photographs": held_out_pictures(photographs, "photographs", 0, params),
    }
    steering = sheets.steering(prepare.with_truth(photographs, manifests), prepare.with_truth(works, manifests))
    listed = [(kind, table, [config.measured_at]) for kind, table in once.items()]
    listed += [(kind, table, config.guidance) for kind, table in steering.items()]
    return [
        Condition(
            f"{kind}/{guidance_folder(guidance)}",
            table,
            first_latents_of(params, kind, one=kind in steering),
            guidance,
            params.sampling.steps,
        )
        for kind, table, scales in listed
        for guidance in scales
    ]


def first_latents_of(params: Params, kind: str, one: bool) -> Start:
    """White noise per picture, or ``one`` for all."""

    def start(pipeline: StableDiffusionPipeline, rows: pd.DataFrame) -> Tensor:
        seeds: list[Seed] = [(params.seed, "picture", kind, 0 if one else number) for number in rows["place"].tolist()]
        return first_latents(pipeline, seeds, params.data.size)

    return start


def held_out_pictures(table: pd.DataFrame, kind: str, level: int, params: Params) -> pd.DataFrame:
    """Prompts and paths of held-out pictures, in a seeded order."""
    held_out = table.query("split == 'test'").reset_index(drop=True)
    order = torch.randperm(len(held_out), generator=torch_generator(params.seed, "base model", kind)).tolist()
    chosen = held_out.iloc[order[: Config.of(params).pictures]]
    return sheets.listed([prompt(row, level, 0) for _, row in chosen.iterrows()], list(chosen["path"]))
