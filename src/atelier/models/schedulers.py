"""The first step of a diffusers scheduler: what its denoiser is shown of a clean latent and of noise.

Read from the scheduler itself, whatever its class, by what it adds to one signal and to one noise. A scheduler from
which it cannot be read is refused: a ValueError of one line names its class and what it lacks.
"""

from typing import NamedTuple

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from atelier.data.checks import check_whole

TOLERANCE = 1e-4  # of a mixture that is to be linear: schedulers compute in float32
PROBE = (2, 3, 4, 5)  # latents of different sides, so that a mixture of anything else than (n, c, h, w) shows
SHOWN = 120  # characters of a scheduler's message that a refusal repeats


class FirstStep(NamedTuple):
    """A sampler's first step: the denoiser's time, and alpha and s of its input alpha z0 + s noise."""

    time: Tensor  # ()
    alpha: float
    s: float


def first_step(scheduler: SchedulerMixin, steps: int) -> FirstStep:
    """The scheduler's first step when sampling with ``steps`` steps, at least 1; ValueError as ``started``."""
    return first_step_of(started(scheduler, steps))


def started(scheduler: SchedulerMixin, steps: int) -> SchedulerMixin:
    """A copy with its timesteps set, because ``set_timesteps`` changes a scheduler.

    Raises ValueError for a scheduler that cannot add noise, whose timesteps are not set by a number of steps alone,
    that mixes noise with a signal in another way than alpha signal + s noise, or that goes from a picture to noise.
    """
    steps = check_whole(steps, "steps")
    name = type(scheduler).__name__
    if not (hasattr(scheduler, "scale_noise") or hasattr(scheduler, "add_noise")):
        lacks = "it lacks add_noise and scale_noise"
        raise ValueError(f"{name}: a scheduler that cannot add noise says nothing of its first step: {lacks}")
    copy = _with_timesteps(scheduler, steps)
    # a single step has no direction
    probe = copy if len(copy.timesteps) > 1 else _with_timesteps(scheduler, 2)
    (first_alpha, first_s), (last_alpha, last_s) = (
        [float(part) for part in _mixed_ones(probe, at)] for at in (probe.timesteps[:1], probe.timesteps[-1:])
    )
    if last_s * first_alpha > first_s * last_alpha:
        raise ValueError(f"{name}: it lacks a first step of noise, because its steps go from a picture to noise")
    return copy


def first_step_of(scheduler: SchedulerMixin) -> FirstStep:
    """The first step of a scheduler that ``started`` returned."""
    time, parts = scheduler.timesteps[0], _mixed_ones(scheduler, scheduler.timesteps[:1])
    alpha, s = (
        float(scheduler.scale_model_input(x, time) if hasattr(scheduler, "scale_model_input") else x) for x in parts
    )
    return FirstStep(time, alpha, s)


def mixed(scheduler: SchedulerMixin, signal: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Signal and noise (n, c, h, w) at ``time`` (1,), in the scheduler's units."""
    if hasattr(scheduler, "scale_noise"):  # a flow's
        return scheduler.scale_noise(signal, time, noise)
    return scheduler.add_noise(signal, noise, time.repeat(len(noise)))


def _with_timesteps(scheduler: SchedulerMixin, steps: int) -> SchedulerMixin:
    try:
        copy = type(scheduler).from_config(scheduler.config)
        # a flow's resolution-dependent shift does not change its first step
        shift = {"mu": 1.0} if copy.config.get("use_dynamic_shifting") else {}
        copy.set_timesteps(steps, **shift)
        timesteps = copy.timesteps
    except Exception as error:  # the fifty classes raise whatever they like
        raise _refused(scheduler, f"timesteps that a number of steps, {steps}, sets alone", error) from None
    if not isinstance(timesteps, Tensor) or timesteps.ndim != 1 or len(timesteps) == 0:
        raise _refused(scheduler, "timesteps", None)
    return copy


def _mixed_ones(scheduler: SchedulerMixin, time: Tensor) -> tuple[Tensor, Tensor]:
    """Alpha and s at ``time``, (1, 1, 1, 1) each, in the scheduler's units."""
    one, none = torch.ones(PROBE, dtype=torch.float64), torch.zeros(PROBE, dtype=torch.float64)
    try:
        alpha, s, both = (
            mixed(scheduler, signal, noise, time) for signal, noise in ((one, none), (none, one), (2 * one, 3 * one))
        )
        gap, scale = (both - (2 * alpha + 3 * s)).abs().max(), alpha.abs().max() + s.abs().max()
        mixes = alpha.shape == s.shape == PROBE and bool(gap <= TOLERANCE * scale)
    except Exception as error:  # as above
        raise _refused(scheduler, "an add_noise that takes a signal, noise and a timestep", error) from None
    if not mixes:  # of tokens; or NaN
        raise _refused(scheduler, "an add_noise that returns alpha signal + s noise", None)
    return alpha[:1, :1, :1, :1], s[:1, :1, :1, :1]


def _refused(scheduler: SchedulerMixin, lacks: str, error: Exception | None) -> ValueError:
    said = " ".join(str(error).split())[:SHOWN]
    because = f" ({type(error).__name__}{f': {said}' if said else ''})" if error is not None else ""
    return ValueError(f"{type(scheduler).__name__}: its first step cannot be read, it lacks {lacks}{because}")
