"""Stage ``flow``: pictures of held-out prompts by the flow base, with corrected noise and without, and by the control.

All cells of a seed begin with the same white noise and are painted by diffusers' own Euler sampler, without guidance.
"""

from functools import partial

import pandas as pd
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from atelier import machine, scratch
from atelier.methods.inverse_noise import corrected
from atelier.models.latents import encode_prompts
from atelier.models.noise_corrector import velocity
from atelier.params import Params
from atelier.sampling.conditions import Condition, Start, paint_conditions, white_noise, write_conditions
from atelier.sampling.held_out import held_out_table
from atelier.sampling.store import Location, guidance_folder
from atelier.studies.shaping import flow_base
from atelier.studies.shaping.correct import load_control, load_corrector, trained
from atelier.studies.shaping.flow_base import BASE, exact, folder
from atelier.studies.shaping.flow_params import GUIDANCE, longer, uncorrected, with_corrector
from atelier.studies.shaping.params import Config
from atelier.workspace import Workspace, replacing

PROCESSES = "several"  # share batches of pictures

MODEL = "flow"  # the folder of all cells' pictures, in the study's
NOISE = "picture"  # the seed of first latents, as of every study


def main(params: Params, workspace: Workspace, training_seed: str) -> None:
    """Write ``build/samples/shaping/flow/SEED``, a folder a cell."""
    seed, params = params.protocol.training_seed(training_seed), exact(params)
    config, out = Config.of(params).flow, workspace.samples / Config.STUDY / MODEL / training_seed
    inputs = [workspace.base, workspace.manifests, folder(workspace) / BASE, trained(workspace, seed)]
    run = scratch.of_stage(params, workspace, __name__, out, inputs, flow=config.model_dump(mode="json"), seed=seed)
    by_base, by_control = conditions(params, workspace, seed), controls(params, workspace, seed)
    paint_conditions(params, by_base, partial(flow_base.load, params, workspace), run)
    paint_conditions(params, by_control, partial(load_control, params, workspace, seed), run)
    machine.leave_to_main()
    with replacing(out) as part:
        write_conditions([*by_base, *by_control], run, part)
    scratch.discard(run)


def location(cell: str) -> Location:
    """Where a cell's pictures are."""
    return Location(Config.STUDY, MODEL, GUIDANCE, condition=cell)


def conditions(params: Params, workspace: Workspace, seed: int) -> list[Condition]:
    """The flow base in k and 2k steps from white noise, and in k steps from corrected noise."""
    config, table = Config.of(params).flow, prompts(params, workspace, seed)
    plain = [
        _condition(uncorrected(k), table, white_noise(params, NOISE), k)
        for k in sorted({*config.steps, *(2 * k for k in config.steps)})
    ]
    starts = {k: partial(corrected_noise, params, workspace, seed, k) for k in config.steps}
    return [*plain, *(_condition(with_corrector(k), table, start, k) for k, start in starts.items())]


def controls(params: Params, workspace: Workspace, seed: int) -> list[Condition]:
    """The flow base that was trained longer, in k steps from white noise."""
    table, noise = prompts(params, workspace, seed), white_noise(params, NOISE)
    return [_condition(longer(k), table, noise, k) for k in Config.of(params).flow.steps]


def prompts(params: Params, workspace: Workspace, seed: int) -> pd.DataFrame:
    """The held-out prompts of a seed's repeats."""
    level, each = params.protocol.prompts.level, Config.of(params).flow.pictures
    return held_out_table(params, workspace.manifests, level, each, seed)


def _condition(cell: str, table: pd.DataFrame, start: Start, steps: int) -> Condition:
    return Condition(f"{cell}/{guidance_folder(GUIDANCE)}", table, start, GUIDANCE, steps)


def corrected_noise(
    params: Params, workspace: Workspace, seed: int, k: int, pipeline: StableDiffusionPipeline, rows: pd.DataFrame
) -> Tensor:
    """First latents (n, c, h, w) of rows: the white noise of the other cells, corrected for ``k`` steps."""
    network = load_corrector(workspace, seed, k, pipeline.unet).to(pipeline.device)
    words = encode_prompts(pipeline, list(rows["prompt"]))
    return moved(network, white_noise(params, NOISE)(pipeline, rows), words, params)


@torch.no_grad()
def moved(network: UNet2DConditionModel, eps: Tensor, words: Tensor, params: Params) -> Tensor:
    """White noise (n, c, h, w) corrected for prompts' embeddings, in batches."""
    place, steps = next(network.parameters()).device, Config.of(params).flow.corrector_steps
    batches = zip(eps.split(params.sampling.batch), words.split(params.sampling.batch), strict=True)
    return torch.cat([corrected(velocity(network, w.to(place)), e.to(place), steps).cpu() for e, w in batches])
