"""The base or a post-training of it as what paints, and what its pictures depend on."""

from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline

from atelier.files import check_seal
from atelier.models import base
from atelier.params import Params
from atelier.sampling.sampler import with_ddim
from atelier.studies.pixel_space.params import UNTUNED, Config
from atelier.studies.pixel_space.pictures import folder
from atelier.studies.pixel_space.train import check_seed, tuned_pipeline
from atelier.workspace import Workspace


def inputs_of(params: Params, workspace: Workspace, variant: str, seed: int) -> list[Path]:
    """What a variant's pictures depend on, but for first latents; ValueError for an unknown variant or seed."""
    inputs = [workspace.base, workspace.manifests, folder(workspace)]
    if variant != UNTUNED:
        check_seed(params, variant, seed)
        inputs.append(workspace.adapter(Config.STUDY, variant, seed))
        inputs.append(workspace.named(params.data.folder) / "conversions")  # what variants of another kind begin with
    return inputs


def key_of(params: Params, variant: str) -> dict[str, Any]:
    """The parameters that a variant's pictures depend on."""
    config = Config.of(params)
    training = None if variant == UNTUNED else config.trainings[variant].model_dump(mode="json")
    return {"guidance": config.guidance, "rank": config.rank, "training": training}


def load(params: Params, workspace: Workspace, variant: str, seed: int) -> StableDiffusionPipeline:
    """The pipeline of a variant and training seed; the base's for ``UNTUNED``."""
    if variant == UNTUNED:
        return with_ddim(base.load(check_seal(workspace.base)))
    return with_ddim(tuned_pipeline(params, workspace, variant, seed))
