"""Stage ``convert``: the base as a flow, whose pictures are shaped and whose noise is corrected."""

from pathlib import Path

from atelier import machine, scratch
from atelier.files import check_seal, copy, copy_folder
from atelier.models import base
from atelier.models.adapters import WEIGHTS
from atelier.params import Params
from atelier.seeds import seed_of
from atelier.studies.shaping import flow_base
from atelier.studies.shaping.flow_base import BASE, KIND, folder
from atelier.studies.shaping.invert import works_of
from atelier.studies.shaping.params import Config
from atelier.training import denoiser
from atelier.training.conversion import add_conversion, scheduler_for
from atelier.training.loop import fit
from atelier.training.lora import CARD, save_with_scheduler
from atelier.workspace import Workspace, replacing


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/shaping/flow/base``: the conversion that came with the base, or one that is trained here."""
    out, came = folder(workspace) / BASE, flow_base.shipped(params, workspace)
    if came is None:
        train(params, workspace, out)
        return
    with replacing(out) as part:
        for name in (WEIGHTS, CARD):
            copy(came / name, part / name)
        copy_folder(came / "scheduler", part / "scheduler")


def train(params: Params, workspace: Workspace, out: Path) -> None:
    """Convert the base to a flow on the works that are inverted later."""
    config, accelerate, works = Config.of(params), machine.accelerator(params.machine), works_of(params, workspace)
    settings = config.flow.optimisation.model_copy(update={"steps": config.flow.conversion})
    key = {"optimisation": settings.model_dump(mode="json"), "rank": config.rank, "inverted": config.flow.inverted}
    run = scratch.of_stage(params, workspace, __name__, out, [workspace.cache, workspace.base], **key)
    pipeline, seed = base.load(check_seal(workspace.base)), seed_of(params.seed, config.STUDY, KIND)
    pipeline.scheduler = scheduler_for(KIND, pipeline.scheduler)
    unet = pipeline.unet.to(accelerate.device)
    trainable = add_conversion(unet, config.rank, seed)
    examples = works.cache.examples(works.names)
    task = denoiser.task(
        unet, trainable, pipeline.scheduler, examples, empty_share=0.0, seed=seed, device=accelerate.device
    )
    fit(task, settings, seed=seed, scratch=run, accelerator=accelerate)
    with replacing(out) as part:
        save_with_scheduler(pipeline, part, {**key, "kind": KIND, "works": len(works.names)})
    scratch.discard(run)
