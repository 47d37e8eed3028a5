"""The model that is shaped: a flow, whose path ends in pure noise, or the base as it is.

Acceptance by a reward cannot move what the first latent decides, since sampling begins with noise whatever was learnt.
A base whose noisiest states still have signal reads such things as the colour from them; a flow cannot.
"""

from pathlib import Path

from diffusers import StableDiffusionPipeline

from atelier.files import check_seal
from atelier.models import base
from atelier.models.adapters import converted
from atelier.params import Params
from atelier.sampling.sampler import with_ddim
from atelier.studies.shaping import flow_base
from atelier.studies.shaping.params import Config
from atelier.workspace import Workspace


def load(params: Params, workspace: Workspace) -> StableDiffusionPipeline:
    """The model with the sampler that all of the study's pictures are by. Raises ValueError for a damaged folder."""
    pipeline = base.load(check_seal(workspace.base))
    if Config.of(params).model == "flow":
        return converted(pipeline, check_seal(flow_base.folder(workspace) / flow_base.BASE))
    return with_ddim(pipeline)


def inputs(params: Params, workspace: Workspace) -> list[Path]:
    """What the model is made of."""
    of_flow = [flow_base.folder(workspace) / flow_base.BASE] if Config.of(params).model == "flow" else []
    return [workspace.base, *of_flow]
