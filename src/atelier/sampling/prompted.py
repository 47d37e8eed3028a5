"""What a pipeline tells its denoiser of a prompt, whatever pipeline it is: seen at the denoiser's first call.

Every pipeline encodes prompts its own way (one encoder or three, pooled texts, masks, sizes). A call without guidance
is stopped where the denoiser would begin, and what it was given is kept, for trainings to give it again.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from atelier.data.checks import check_texts
from atelier.sampling.trajectories import denoiser_of
from atelier.training.accepted import Call

NOISED = ("sample", "hidden_states", "timestep")  # what is another at every call


class _Stopped(Exception):
    """The denoiser was about to be called."""


class Prompted(NamedTuple):
    """A denoiser's arguments for ``number`` prompts and the empty one: tensors of as many rows, the rest as it came."""

    prompts: dict[str, Any]
    empty: dict[str, Any]
    number: int

    @classmethod
    def of(cls, pipeline: Any, prompts: Sequence[str], latents: Tensor) -> "Prompted":
        """``latents`` (1, c, h, w) or more: any of the size that will be trained."""
        check_texts(prompts, "prompts")
        return cls(_seen(pipeline, prompts, latents), _seen(pipeline, [""], latents), len(prompts))

    def call(self, network: nn.Module, prompt_numbers: Sequence[int]) -> Call:
        """A task's denoiser; ``prompt_numbers``: the number of each sample's prompt."""

        def output(zt: Tensor, times: Tensor, samples: Sequence[int], empty: Sequence[bool]) -> Tensor:
            rows = [
                self.number if none else prompt_numbers[sample] for sample, none in zip(samples, empty, strict=True)
            ]
            given = _rows(self.prompts, self.empty, rows, self.number, zt)
            made: Tensor = network(zt, timestep=times, **{**given, "return_dict": False})[0]
            return made[:, : zt.shape[1]]  # some tell a variance, too

        return output


def _seen(pipeline: Any, prompts: Sequence[str], latents: Tensor) -> dict[str, Any]:
    """Keyword arguments of the denoiser's first call, on the CPU."""
    keywords: dict[str, Any] = {}

    def stop(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        keywords.update(named)
        raise _Stopped

    network = denoiser_of(pipeline)
    hook = network.register_forward_pre_hook(stop, with_kwargs=True)
    first = latents[:1].expand(len(prompts), *latents.shape[1:]).to(pipeline.device, network.dtype)
    height, width = (side * pipeline.vae_scale_factor for side in latents.shape[2:])
    try:
        pipeline(list(prompts), latents=first, height=height, width=width, guidance_scale=1.0, num_inference_steps=1)
    except _Stopped:
        pass
    finally:
        hook.remove()
    return {name: _moved(value) for name, value in keywords.items() if name not in NOISED}


def _moved(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    return {key: _moved(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _rows(prompts: Any, empty: Any, rows: Sequence[int], count: int, like: Tensor) -> Any:
    """Arguments of some prompts, of which number ``count`` is the empty one."""
    if isinstance(prompts, Mapping):
        return {name: _rows(prompts[name], empty[name], rows, count, like) for name in prompts}
    if not isinstance(prompts, Tensor) or len(prompts) != count or prompts.shape[1:] != empty.shape[1:]:
        return prompts
    chosen = torch.cat([prompts, empty])[list(rows)]
    return chosen.to(like.device, like.dtype if chosen.is_floating_point() else chosen.dtype)
