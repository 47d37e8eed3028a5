"""Trajectories continued from a state, and how far two denoisers' laws of trajectories are from each other.

The pipeline's own call starts from noise alone; here its scheduler's steps are taken from any number on, with the same
noise for the same seeds (``sampling.trajectories``), so that from number 0 both give the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from atelier.data.checks import check_whole
from atelier.diffusion import clean_estimate, noise_estimate
from atelier.methods.policy_gradient import step_moments
from atelier.models.latents import encode_prompts
from atelier.sampling.trajectories import Seed, Solver, noise_generators, settled_grid, solving, step_levels

Output = Callable[[Tensor, Any], Tensor]  # (state (b, c, h, w), timestep) -> the guided output of a denoiser


def guided(network: Any, words: Tensor, empty: Tensor, guidance: float) -> Output:
    """A denoiser's output with classifier-free guidance, as the pipeline computes it; none for a guidance of 1."""

    def output(state: Tensor, t: Any) -> Tensor:
        if guidance <= 1:
            return network(state, t, words).sample
        both = torch.cat([empty.expand(len(words), -1, -1), words])
        without, with_it = network(torch.cat([state, state]), t, both).sample.chunk(2)
        return without + guidance * (with_it - without)

    return output


@torch.no_grad()
def continued(
    pipeline: Any, prompts: Sequence[str], states: Tensor, number: int, seeds: Sequence[Seed], solver: Solver
) -> Tensor:
    """Last states (n, c, h, w) of trajectories that stand at ``states`` before step ``number``, a batch at a time.

    One prompt, state and seed of the noise of the steps that are left, each. ValueError for another number of them.
    """
    if not len(prompts) == len(states) == len(seeds):
        raise ValueError(f"prompts, states, seeds: expected as many, got {len(prompts)}, {len(states)}, {len(seeds)}")
    check_whole(number, "number", least=0, most=solver.steps)
    words, empty = encode_prompts(pipeline, prompts), encode_prompts(pipeline, [""])
    last = []
    for first in range(0, len(states), solver.batch):
        part = slice(first, first + solver.batch)
        state, said, nothing = (x.to(pipeline.device) for x in (states[part], words[part], empty))
        output = guided(pipeline.unet, said, nothing, solver.guidance)
        last.append(_continued(pipeline, output, state, number, noise_generators(seeds[part]), solver))
    return torch.cat(last)


def _continued(
    pipeline: Any, output: Output, state: Tensor, number: int, generators: list[torch.Generator], solver: Solver
) -> Tensor:
    grid = settled_grid(solving(pipeline.scheduler, solver.eta), solver.steps)
    eta = {"eta": solver.eta} if isinstance(grid, DDIMScheduler) else {}
    given = {"generator": generators, **eta} if solver.eta else {}
    for t in grid.timesteps[number:]:
        state = grid.step(output(state, t), t, state, **given).prev_sample
    return state.float().cpu()


@torch.no_grad()
def path_divergence(
    pipeline: Any,
    tuned: Any,
    prompts: Sequence[str],
    latents: Tensor,
    seeds: Sequence[Seed],
    solver: Solver,
    number: int | None = None,
) -> Tensor:
    """``KL(tuned || base)`` of trajectories up to the last step with noise (eta = 1), nats, (n,) a trajectory.

    Both chains start alike and add Gaussian noise of equal variance at a step, so that their laws of trajectories
    differ by ``KL = E_tuned[sum over steps of |mean_tuned - mean_base|^2 / (2 sigma^2)]`` (the chain rule), the law of
    any state on them by no more (data processing). The mean of the result over trajectories, which the tuned chain
    takes, estimates it without bias. ``pipeline``: of the base; ``tuned``: the other denoiser, which takes the first
    ``number`` steps; None: all.

    Steps without noise are left out. One between equal levels, as DDIM's last may be, changes nothing. One that ends at
    noise 0, a flow's last, is a map: of the base in both chains where ``number`` leaves it to the base (P-GRAFT), and
    the result bounds the divergence of pictures; a map of each chain's own where tuned takes all steps (GRAFT), and the
    result bounds that of the states before it, not of pictures.
    """
    kind = pipeline.scheduler.config.prediction_type
    times, levels = step_levels(pipeline.scheduler, solver.steps)
    words, empty = encode_prompts(pipeline, prompts), encode_prompts(pipeline, [""])
    sums = []
    for first in range(0, len(latents), solver.batch):
        part = slice(first, first + solver.batch)
        state, said, nothing = (x.to(pipeline.device) for x in (latents[part], words[part], empty))
        outputs = [guided(network, said, nothing, solver.guidance) for network in (tuned, pipeline.unet)]
        generators = noise_generators(seeds[part])
        total = torch.zeros(len(state), dtype=torch.float64)
        for t, level in zip(times[:number], levels[:number].float().to(state.device), strict=True):
            means, deviation = zip(*(_moments(kind, state, output(state, t), level) for output in outputs), strict=True)
            total += _divergence(means[0], means[1], deviation[0])
            noise = torch.cat([torch.randn((1, *state.shape[1:]), generator=each) for each in generators])
            state = means[0] + deviation[0] * noise.to(state)
        sums.append(total)
    return torch.cat(sums)


def _moments(kind: str, state: Tensor, output: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the next state by a denoiser's output, eta = 1; ``level``: of ``step_levels``, (4,)."""
    z0, eps = (estimate(kind, state, output, *level[:2]) for estimate in (clean_estimate, noise_estimate))
    return step_moments(z0, eps, *level)


def _divergence(first: Tensor, second: Tensor, deviation: Tensor) -> Tensor:
    """``|mean_1 - mean_2|^2 / (2 sigma^2)`` of a step, (b,) float64; 0 where no noise is added."""
    sigma = float(deviation)
    if sigma <= 1e-6:
        return torch.zeros(len(first), dtype=torch.float64)
    return ((first.double() - second.double()).square().sum((1, 2, 3)) / (2 * sigma**2)).cpu()
