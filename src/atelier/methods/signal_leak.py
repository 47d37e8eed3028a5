"""Exploiting the signal leak (Everaert et al. 2024): sampling begins from white noise, which training never reaches."""

from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from atelier.diffusion import signal_and_noise


def first_step(scheduler: SchedulerMixin, steps: int) -> tuple[float, float]:
    """Signal and noise ``alpha, s`` of the first of ``steps`` that the scheduler takes; of a flow 0, 1."""
    if scheduler.config.get("prediction_type") == "flow_prediction":
        return 0.0, 1.0
    own = type(scheduler).from_config(scheduler.config)  # asked for steps, a scheduler is another one
    own.set_timesteps(steps)
    alphas, sigmas = signal_and_noise(own.betas)
    first = int(own.timesteps[0])
    return float(alphas[first]), float(sigmas[first])


def carrying(means: Tensor, noise: Tensor, scheduler: SchedulerMixin, steps: int) -> Tensor:
    """First latents ``alpha z + s eps`` that carry ``means`` (n, c, 1, 1), as those of training do (section 3).

    ``noise`` (n, c, h, w) is white.
    """
    alpha, s = first_step(scheduler, steps)
    return alpha * means + s * noise
