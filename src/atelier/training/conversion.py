"""Convert the base to v prediction or to a flow's velocity: an adapter on all layers and another scheduler.

Used to test whether a loss depends on what the denoiser predicts, with as few other differences as possible.
"""

from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import nn

from atelier.files import filling, remove
from atelier.training.lora import add_adapter, save_adapter

KINDS = ("v_prediction", "flow_prediction")


def scheduler_for(kind: str, scheduler: SchedulerMixin) -> SchedulerMixin:
    """``scheduler``'s noise with v prediction; or the flow's straight path with Euler's method."""
    if kind == "v_prediction":
        return DDIMScheduler.from_config(scheduler.config, prediction_type=kind)
    if kind == "flow_prediction":
        return DPMSolverMultistepScheduler(
            prediction_type=kind, use_flow_sigmas=True, solver_order=1, final_sigmas_type="zero"
        )
    raise ValueError(f"a base is converted to one of {', '.join(KINDS)}, not to '{kind}'")


def add_conversion(unet: UNet2DConditionModel, rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Add an adapter to every convolution and linear layer; returns its parameters by name."""
    layers = [name for name, part in unet.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    return add_adapter(unet, rank, seed, layers)


def save_conversion(pipeline: StableDiffusionPipeline, kind: str, folder: Path, card: dict[str, Any]) -> None:
    """Write the adapter in half precision, its scheduler, and a card."""
    remove(folder)
    save_adapter(pipeline.unet.half(), folder, card)
    with filling(folder / "scheduler"):
        scheduler_for(kind, pipeline.scheduler).save_pretrained(folder / "scheduler")
