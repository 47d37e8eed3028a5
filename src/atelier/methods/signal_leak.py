"""Exploiting the signal leak (Everaert et al. 2024): sampling begins from white noise, which training never reaches."""

from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from atelier.diffusion import noised, signal_and_noise


def carrying(means: Tensor, noise: Tensor, scheduler: SchedulerMixin, steps: int) -> Tensor:
    """First latents ``alpha z + s eps`` that carry ``means`` (n, c, 1, 1), as those of training do (section 3).

    ``noise`` (n, c, h, w) is white, ``alpha`` and ``s`` are those of the first of ``steps`` that the scheduler takes.
    """
    scheduler.set_timesteps(steps)
    alphas, sigmas = signal_and_noise(scheduler.betas)
    first = int(scheduler.timesteps[0])
    return noised(means, noise, alphas[first].float(), sigmas[first].float())
