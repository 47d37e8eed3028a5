"""What is learnt of accepted candidates (GRAFT, P-GRAFT), and of steps of trajectories by a policy gradient (DDPO).

The denoiser is called with whatever conditions its pipeline gives it, so that any diffusers denoiser can be trained.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor, nn

from atelier.diffusion import clean_estimate, noise_estimate, noised
from atelier.methods.partial import partial_flow_loss, partial_loss, renoised, trained_timesteps
from atelier.methods.policy_gradient import clipped_loss, log_probability, step_moments
from atelier.training import denoiser
from atelier.training.loop import Task
from atelier.training.order import Turn

EMPTY_PROMPTS = 0.1  # share of prompts left empty, where guidance compares with what they give

# (noised latents, time inputs, number of each sample, whether its prompt is empty) -> the denoiser's output
Call = Callable[[Tensor, Tensor, Sequence[int], Sequence[bool]], Tensor]


class Learnt(NamedTuple):
    """Accepted candidates: last states, or states at t_I (target ``x_I``), with the level from which on is learnt.

    ``t_I`` None: all levels, which is GRAFT. ``alpha_I``, ``s_I``: of target ``x_I``; None: states are last ones.
    """

    states: Tensor  # (n, c, h, w), alpha_I z_0 + s_I eps
    names: Sequence[str]
    t_I: float | None = None
    alpha_I: float | None = None
    s_I: float | None = None


def accepted_task(
    call: Call,
    trainable: dict[str, nn.Parameter],
    scheduler: SchedulerMixin,
    learnt: Learnt,
    *,
    empty_share: float,
    seed: int,
    device: torch.device,
    kind: str | None = None,
) -> Task:
    """Denoising of last states at levels t >= t_I, or P-GRAFT's bounded loss of states at t_I (``methods.partial``).

    ``kind``: what the denoiser predicts, where the scheduler does not tell.
    """
    kind = kind or scheduler.config.prediction_type
    alphas, sigmas, times = denoiser.path(scheduler)
    chosen = learnt_levels(times, learnt)
    renoises = learnt.alpha_I is not None and learnt.s_I is not None

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        names, shape = learnt.names, learnt.states.shape[1:]
        draws = [
            denoiser.draw(seed, names[turn.sample], turn.epoch, shape, len(chosen), 1, empty_share) for turn in batch
        ]
        numbers = [turn.sample for turn in batch]
        start, eps = learnt.states[numbers], torch.stack([each.eps for each in draws])
        t = chosen[[each.t for each in draws]]
        alpha, s = alphas[t].view(-1, 1, 1, 1), sigmas[t].view(-1, 1, 1, 1)
        start, eps, alpha, s, time = (each.to(device) for each in (start, eps, alpha, s, times[t]))
        if not renoises:
            output = call(noised(start, eps, alpha, s), time, numbers, [each.empty for each in draws]).float()
            return {"denoising": (output - denoiser.target(kind, start, eps, alpha, s)).square().mean()}
        assert learnt.alpha_I is not None
        assert learnt.s_I is not None
        zt = renoised(start, eps, learnt.alpha_I, learnt.s_I, alpha, s).float()
        output = call(zt, time, numbers, [each.empty for each in draws])
        levels = learnt.alpha_I, learnt.s_I, alpha, s
        if kind == "flow_prediction":  # in noise, nothing would be learnt where no signal is left
            return {"partial": partial_flow_loss(output, start, eps, *levels).mean()}
        return {"partial": partial_loss(noise_estimate(kind, zt, output, alpha, s), eps, *levels).mean()}

    return Task(trainable=trainable, samples=learnt.names, losses=losses, means=True)


def empty_prompts(guidance: float) -> float:
    """Share of prompts that a training leaves empty: what guidance needs, and nothing else does."""
    return EMPTY_PROMPTS if guidance > 1 else 0.0


def learnt_levels(times: Tensor, learnt: Learnt) -> Tensor:
    """Numbers of the training steps that are drawn from; for ``x_I`` without t_I itself, where nothing is learnt."""
    if learnt.t_I is None:
        return torch.arange(len(times))
    kept = torch.from_numpy(trained_timesteps(times.double().numpy(), learnt.t_I))
    if learnt.alpha_I is not None:
        kept = kept[kept > learnt.t_I]
        if not len(kept):
            raise ValueError(f"t_I: {learnt.t_I:g} is the last training timestep, nothing is above it")
    return torch.searchsorted(times.double(), kept)


# ------------------------------------------------------------------------------------------------ policy gradients


class Steps(NamedTuple):
    """Steps of sampled trajectories, each from a state to the next: samples of a policy gradient (n,)."""

    states: Tensor  # (n, c, h, w) before the step
    following: Tensor  # after it
    times: Tensor  # (n,) timesteps, as the denoiser takes them
    levels: Tensor  # (n, 4) float64: alpha, s before the step, and after it
    noise: Tensor  # (n, c, h, w) that the step added, from which its probability then follows
    advantage: Tensor  # (n,)
    names: Sequence[str]


def policy_task(
    call: Call,
    trainable: dict[str, nn.Parameter],
    kind: str,
    steps: Steps,
    *,
    guidance: float,
    clip: float,
    device: torch.device,
) -> Task:
    """PPO's clipped loss of sampled steps, of the guided denoiser that sampled them (DDPO, eq. 5 with clipping)."""

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        numbers = [turn.sample for turn in batch]
        picked = (steps.states, steps.following, steps.times, steps.levels, steps.noise, steps.advantage)
        zt, following, times, levels, noise, advantage = (each[numbers].to(device) for each in picked)
        alpha, s, alpha_next, s_next = levels.view(-1, 4, 1, 1, 1).unbind(1)
        output = guided(call, zt, times, numbers, guidance)
        z0, eps = clean_estimate(kind, zt, output, alpha, s), noise_estimate(kind, zt, output, alpha, s)
        mean, deviation = step_moments(z0, eps, alpha, s, alpha_next, s_next)
        noise, following = (
            noise.to(deviation.dtype),
            following.to(deviation.dtype),
        )  # small differences of large numbers
        old = log_probability(deviation * noise, torch.zeros_like(noise), deviation)  # where the state was drawn
        new = log_probability(following, mean, deviation)
        loss = clipped_loss(new, old, advantage, clip)
        ratio = (new - old).exp().detach()
        outside = ((ratio - 1).abs() > clip).float().mean()
        return {"policy": loss.mean(), "outside": outside, "shift": (new - old).detach().abs().mean()}

    return Task(trainable=trainable, samples=steps.names, losses=losses, means=True)


def guided(call: Call, zt: Tensor, times: Tensor, numbers: Sequence[int], guidance: float) -> Tensor:
    """The output with classifier-free guidance (Ho and Salimans 2021, eq. 6), as the pipeline combines both."""
    if guidance <= 1:
        return call(zt, times, numbers, [False] * len(numbers)).float()
    empty = [True] * len(numbers) + [False] * len(numbers)
    both = call(torch.cat([zt, zt]), torch.cat([times, times]), [*numbers, *numbers], empty).float()
    without, with_prompt = both.chunk(2)
    return without + guidance * (with_prompt - without)
