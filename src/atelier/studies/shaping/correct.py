"""Stage ``correct``: from one training seed, a corrector of the noise of each number of steps, and the control.

A corrector learns the law of the inverted noise; the control is the flow base trained further on the same works, in as
many steps of as many works, without correction. Both see the works' first prompt.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from atelier import machine, scratch
from atelier.files import check_seal, write_table
from atelier.models import noise_corrector
from atelier.models.adapters import tuned
from atelier.params import Params
from atelier.seeds import seed_of
from atelier.studies.shaping import flow_base, invert
from atelier.studies.shaping.flow_base import BASE, INVERTED, TRAINED, exact, folder
from atelier.studies.shaping.invert import Works, works_of
from atelier.studies.shaping.params import Config
from atelier.training import denoiser
from atelier.training import noise_corrector as matching
from atelier.training.conversion import add_conversion
from atelier.training.loop import fit
from atelier.training.lora import save_adapter, save_denoiser
from atelier.training.run import HISTORY
from atelier.workspace import Workspace, replacing

CONTROL = "longer"  # its folder, beside the folders by number of steps


def main(params: Params, workspace: Workspace, training_seed: str) -> None:
    """Write ``build/shaping/flow/trained/SEED``."""
    seed = params.protocol.training_seed(training_seed)
    config, out, works = Config.of(params), trained(workspace, seed), works_of(params, workspace)
    key = {"flow": config.flow.model_dump(mode="json"), "rank": config.rank, "training_seed": seed}
    inputs = [workspace.base, workspace.cache, folder(workspace) / BASE, folder(workspace) / INVERTED]
    run = scratch.of_stage(params, workspace, __name__, out, inputs, **key)
    pipeline = flow_base.load(params, workspace)
    networks, histories = {}, {}
    for k in config.flow.steps:
        networks[k], histories[str(k)] = corrector(params, workspace, pipeline, works, k, seed, run)
    histories[CONTROL] = control(params, pipeline, works, seed, run)
    with replacing(out) as part:
        for k, network in networks.items():
            save_denoiser(network, part / str(k), card(key, histories[str(k)], works))
        save_adapter(pipeline.unet, part / CONTROL, card(key, histories[CONTROL], works))
        for name, history in histories.items():
            write_table(part / name / HISTORY, history)
    scratch.discard(run)


def trained(workspace: Workspace, training_seed: int) -> Path:
    return folder(workspace) / TRAINED / str(training_seed)


def corrector(
    params: Params,
    workspace: Workspace,
    pipeline: StableDiffusionPipeline,
    works: Works,
    k: int,
    training_seed: int,
    run: Path,
) -> tuple[UNet2DConditionModel, pd.DataFrame]:
    """A corrector of the noise for ``k`` steps, trained, and its history."""
    config, seed = Config.of(params).flow, seed_of(params.seed, Config.STUDY, training_seed)
    accelerate = machine.accelerator(exact(params).machine)
    network = noise_corrector.build(pipeline.unet, config.width, seed)
    noise = invert.load(workspace, k)["noise"]
    task = matching.task(network, noise, works.names, works.words, seed=seed, device=accelerate.device)
    history = fit(task, config.optimisation, seed=seed, scratch=run / str(k), accelerator=accelerate)
    return network, history


def control(
    params: Params, pipeline: StableDiffusionPipeline, works: Works, training_seed: int, run: Path
) -> pd.DataFrame:
    """Train an adapter of the flow base, in place, as long as a corrector; returns its history."""
    config, seed = Config.of(params), seed_of(params.seed, Config.STUDY, training_seed)
    accelerate = machine.accelerator(exact(params).machine)
    unet = pipeline.unet.to(accelerate.device)
    trainable = add_conversion(unet, config.rank, seed)
    task = denoiser.task(
        unet,
        trainable,
        pipeline.scheduler,
        works.cache.first_prompts().examples(works.names),
        empty_share=0.0,
        seed=seed,
        device=accelerate.device,
    )
    return fit(task, config.flow.optimisation, seed=seed, scratch=run / CONTROL, accelerator=accelerate)


def card(key: Mapping[str, Any], history: pd.DataFrame, works: Works) -> dict[str, Any]:
    return {**key, "study": Config.STUDY, "steps": int(history["step"].iloc[-1]), "works": len(works.names)}


# ------------------------------------------------------------------------------------------------ what is read


def load_corrector(
    workspace: Workspace, training_seed: int, k: int, unet: UNet2DConditionModel
) -> UNet2DConditionModel:
    """A trained corrector. Raises ValueError for a damaged folder, or one that does not fit the denoiser."""
    return noise_corrector.load(check_seal(trained(workspace, training_seed)) / str(k), unet)


def load_control(params: Params, workspace: Workspace, training_seed: int) -> StableDiffusionPipeline:
    """The flow base trained longer. Raises ValueError for a damaged folder."""
    pipeline = flow_base.load(params, workspace)
    return tuned(pipeline, check_seal(trained(workspace, training_seed)) / CONTROL)
