"""The flow whose noise is corrected: the base's conversion, in Euler's method, and its velocity in both directions.

The pictures are painted by diffusers' own sampler; what is inverted is that sampler step for step: its grid, the whole
numbers that it shows the denoiser as times, no guidance, float32.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from diffusers import StableDiffusionPipeline
from torch import Tensor, no_grad

from atelier.files import check_seal
from atelier.models import base
from atelier.models.adapters import converted
from atelier.params import Params
from atelier.studies.shaping.params import Config
from atelier.training.conversion import scheduler_for
from atelier.workspace import Workspace

KIND = "flow_prediction"
BASE, INVERTED, TRAINED = "base", "inverted", "trained"  # in ``folder``


def folder(workspace: Workspace) -> Path:
    """Everything of the flow but pictures and measures."""
    return workspace.build / Config.STUDY / "flow"


def exact(params: Params) -> Params:
    """The parameters with full precision: half cannot be inverted, and both directions must have the same."""
    return params.model_copy(update={"machine": params.machine.model_copy(update={"precision": "fp32"})})


def shipped(params: Params, workspace: Workspace) -> Path | None:
    """The conversion to a flow that lies beside the base; None where none came with it."""
    if params.base.source == "shipped":
        beside = workspace.named(params.data.folder)
    elif params.base.source == "folder" and params.base.location:
        beside = workspace.named(params.base.location).parent
    else:
        return None
    conversion = beside / "conversions" / KIND
    return conversion if conversion.is_dir() else None


def load(params: Params, workspace: Workspace) -> StableDiffusionPipeline:
    """The flow base, with the sampler whose noise is corrected. Raises ValueError for a damaged folder."""
    pipeline = converted(base.load(check_seal(workspace.base)), check_seal(folder(workspace) / BASE))
    return with_euler(pipeline, Config.of(params).flow.shift)


def with_euler(pipeline: StableDiffusionPipeline, shift: float) -> StableDiffusionPipeline:
    """The same flow in Euler's method; ``shift`` below 1: shorter steps near the picture."""
    scheduler = scheduler_for(KIND, pipeline.scheduler)
    pipeline.scheduler = type(scheduler).from_config(scheduler.config, flow_shift=shift)
    return pipeline


class Euler(NamedTuple):
    """The sampler of a number of steps: its times from noise to data, and the denoiser's input at each but the last."""

    times: list[float]
    inputs: dict[float, Tensor]

    @classmethod
    def of(cls, pipeline: StableDiffusionPipeline, steps: int) -> "Euler":
        scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(steps)
        times = scheduler.sigmas.tolist()
        return cls(times, dict(zip(times[:-1], scheduler.timesteps, strict=True)))

    def velocity(self, pipeline: StableDiffusionPipeline, words: Tensor) -> Callable[[Tensor, float], Tensor]:
        """The denoiser without guidance, for prompts' embeddings (n, tokens, width)."""

        @no_grad()
        def called(x: Tensor, t: float) -> Tensor:
            output: Tensor = pipeline.unet(x, self.inputs[t].to(x.device), words).sample
            return output

        return called
