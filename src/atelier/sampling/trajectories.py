"""Sample whole trajectories: states kept on the way, in two parts where an adapter is on for the first steps alone.

For any diffusers text-to-image pipeline with a step callback and any scheduler. A state is what the scheduler holds
before its step number N; ``level`` says its timestep, and its signal and noise where states are ``alpha z_0 + s eps``.
Noise at a step is drawn from the picture's seed, so that no picture depends on the others in its batch.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from atelier.data.checks import check_number, check_texts, check_whole
from atelier.methods.partial import two_part_schedule
from atelier.seeds import torch_generator

Seed = tuple[str | int, ...]


class Solver(NamedTuple):
    """How trajectories are sampled. ``eta``: 0 is deterministic, 1 has DDPM's noise, of samplers that have it."""

    guidance: float
    steps: int
    batch: int
    eta: float = 0.0


class Level(NamedTuple):
    """A state of the grid: the step before which it stands, its timestep, signal, noise, and the scheduler's units."""

    number: int
    t: float
    alpha: float
    s: float
    factor: float  # times the scheduler's state is ``alpha z_0 + s eps``


class Parts(NamedTuple):
    """The tuned network takes ``number`` steps, then the base; ``on`` and ``off`` change to each of them."""

    number: int
    on: Callable[[], Any]
    off: Callable[[], Any]


class Trajectory(NamedTuple):
    """Last states (b, c, h, w), and states before some steps by their number; float32, on the CPU."""

    last: Tensor
    kept: dict[int, Tensor]


# ------------------------------------------------------------------------------------------------ the grid


def settled_grid(scheduler: SchedulerMixin, steps: int) -> SchedulerMixin:
    """A copy of the scheduler with its grid of ``steps`` set."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(check_whole(steps, "steps"))
    return scheduler


def solving(scheduler: SchedulerMixin, eta: float) -> SchedulerMixin:
    """The scheduler whose steps have the noise that ``eta`` says; DDIM and others take it at each step.

    DPM-Solver++ of first order is DDIM on any path, a flow's, too, and its stochastic form is eta = 1. ValueError for
    another eta or order of it.
    """
    if not eta or not isinstance(scheduler, DPMSolverMultistepScheduler):
        return scheduler
    if (eta, scheduler.config.solver_order, scheduler.config.algorithm_type) != (1.0, 1, "dpmsolver++"):
        raise ValueError(f"eta: {eta:g} is no noise of DPM-Solver, of which order 1 has that of 1")
    return type(scheduler).from_config(scheduler.config, algorithm_type="sde-dpmsolver++")


def step_levels(scheduler: SchedulerMixin, steps: int) -> tuple[Tensor, Tensor]:
    """Timesteps (steps,), and signal and noise before and after each step (steps, 4) float64: of DDIM, or of a flow."""
    grid = settled_grid(scheduler, steps)
    if predicts(grid) == "flow_prediction":
        noise = grid.sigmas.double()
        return grid.timesteps, torch.stack([1 - noise[:-1], noise[:-1], 1 - noise[1:], noise[1:]], 1)
    stride, abar = grid.config.num_train_timesteps // steps, grid.alphas_cumprod.double()
    following = [
        abar[t - stride] if t >= stride else grid.final_alpha_cumprod.double() for t in grid.timesteps.tolist()
    ]
    now, then = abar[grid.timesteps], torch.stack(following)
    return grid.timesteps, torch.stack([now.sqrt(), (1 - now).sqrt(), then.sqrt(), (1 - then).sqrt()], 1)


def level(scheduler: SchedulerMixin, steps: int, share: float) -> Level:
    """The state after this share of the steps (0 to 1, both excluded), on the scheduler's own grid.

    ValueError for a share that no inner step has, and for a grid on which ``two_part_schedule`` leaves the adapter
    another number of steps, as one that repeats timesteps may.
    """
    grid = settled_grid(scheduler, steps)
    number = round(check_number(share, "share") * len(grid.timesteps))
    if not 1 <= number < len(grid.timesteps):
        raise ValueError(f"share: {share:g} of {len(grid.timesteps)} steps leaves one part without any")
    t = float(grid.timesteps[number])
    if len(two_part_schedule(grid.timesteps.cpu(), t).tuned) != number:
        raise ValueError(f"share: step {number} is the second call at timestep {t:g}; take another share or steps")
    alpha, s, factor = _signal_and_noise(grid, number, t)
    return Level(number, t, alpha, s, factor)


def _signal_and_noise(grid: SchedulerMixin, number: int, t: float) -> tuple[float, float, float]:
    """Signal, noise, and what turns the scheduler's units into theirs."""
    sigmas = getattr(grid, "sigmas", None)
    if predicts(grid) == "flow_prediction":
        if sigmas is None:
            raise ValueError(f"{type(grid).__name__}: expected a scheduler that tells its noise levels")
        return 1.0 - float(sigmas[number]), float(sigmas[number]), 1.0
    if sigmas is None:
        abar = float(grid.alphas_cumprod[int(t)])
        return abar**0.5, (1.0 - abar) ** 0.5, 1.0
    sigma = float(sigmas[number])
    alpha = (1.0 + sigma**2) ** -0.5
    # schedulers that begin with other noise than of variance 1 hold z_0 + sigma eps
    return alpha, sigma * alpha, 1.0 if float(grid.init_noise_sigma) == 1.0 else alpha


def predicts(scheduler: SchedulerMixin) -> str:
    """What a denoiser of this scheduler predicts; schedulers of flow matching know one kind only."""
    return str(scheduler.config.get("prediction_type", "flow_prediction"))


# ------------------------------------------------------------------------------------------------ sampling


def trajectories(
    pipeline: Any,
    prompts: Sequence[str],
    latents: Tensor,
    seeds: Sequence[Seed],
    solver: Solver,
    *,
    keep: Sequence[int] = (),
    parts: Parts | None = None,
) -> Iterator[Trajectory]:
    """One trajectory per prompt, first latent (n, c, h, w) and seed of later noise, a batch at a time.

    ``keep``: numbers of steps before which states are kept. First latents are white noise of variance 1, which the
    pipeline brings into its scheduler's units. ValueError for other numbers of prompts, latents or seeds.
    """
    check_texts(prompts, "prompts")
    if not len(prompts) == len(latents) == len(seeds):
        raise ValueError(f"prompts, latents, seeds: expected as many, got {len(prompts)}, {len(latents)}, {len(seeds)}")
    for first in range(0, len(prompts), check_whole(solver.batch, "batch")):
        count = min(solver.batch, len(prompts) - first)
        # every batch has the same size, the last is padded, so that a picture does not depend on how many there are
        rows = [min(number, len(prompts) - 1) for number in range(first, first + solver.batch)]
        batch = _batch(
            pipeline, [prompts[n] for n in rows], latents[rows], [seeds[n] for n in rows], solver, keep, parts
        )
        yield Trajectory(batch.last[:count], {number: states[:count] for number, states in batch.kept.items()})


def _batch(
    pipeline: Any,
    prompts: Sequence[str],
    latents: Tensor,
    seeds: Sequence[Seed],
    solver: Solver,
    keep: Sequence[int],
    parts: Parts | None,
) -> Trajectory:
    kept: dict[int, Tensor] = {}
    grid = settled_grid(pipeline.scheduler, solver.steps).timesteps

    def after(_: Any, number: int, t: Any, given: dict[str, Any]) -> dict[str, Any]:
        if not bool(torch.as_tensor(t) == grid[number].to(torch.as_tensor(t))):
            raise ValueError(
                f"the pipeline samples on another grid than its scheduler's: {float(t):g} at step {number}"
            )
        if number + 1 in keep:
            kept[number + 1] = given["latents"].float().cpu()
        if parts is not None and number + 1 == parts.number:
            parts.off()
        return given

    side = {
        "height": latents.shape[2] * pipeline.vae_scale_factor,
        "width": latents.shape[3] * pipeline.vae_scale_factor,
    }
    noise = {"eta": solver.eta} if solver.eta else {}
    network, usual = denoiser_of(pipeline), pipeline.scheduler
    if parts is not None:
        parts.on()
    pipeline.scheduler = solving(usual, solver.eta)
    try:
        last = pipeline(
            list(prompts),
            latents=latents.to(pipeline.device, network.dtype),
            generator=noise_generators(seeds),
            guidance_scale=solver.guidance,
            num_inference_steps=solver.steps,
            callback_on_step_end=after,
            output_type="latent",
            **side,
            **noise,
        ).images
    finally:
        pipeline.scheduler = usual
        if parts is not None:
            parts.on()
    return Trajectory(last.float().cpu(), kept)


def noise_generators(seeds: Sequence[Seed]) -> list[torch.Generator]:
    """The generators of pictures' later noise: each draws a state's noise (1, c, h, w) at every step that adds some."""
    return [torch_generator(*seed, "later noise") for seed in seeds]


def denoiser_of(pipeline: Any) -> Any:
    """A pipeline's network. ValueError for one that has none under a name of diffusers'."""
    for name in ("unet", "transformer"):
        if (network := getattr(pipeline, name, None)) is not None:
            return network
    raise ValueError(f"{type(pipeline).__name__}: expected a pipeline with a unet or a transformer")


def adapter_parts(pipeline: Any, number: int) -> Parts:
    """Two parts by switching the denoiser's adapter on and off."""
    network = denoiser_of(pipeline)
    return Parts(number, network.enable_adapters, network.disable_adapters)


def network_parts(pipeline: Any, tuned: Any, base: Any, number: int) -> Parts:
    """Two parts by two networks in turn, which is faster than an adapter that is not merged."""
    return Parts(number, lambda: setattr(pipeline, "unet", tuned), lambda: setattr(pipeline, "unet", base))
