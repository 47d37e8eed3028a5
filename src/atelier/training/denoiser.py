"""The denoising task of the base's training and of every fine-tuning."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor, nn

from atelier.diffusion import KINDS, flow_path, flow_target, noised, signal_and_noise, v_target
from atelier.models.latents import Latents
from atelier.seeds import torch_generator
from atelier.training.loop import Task
from atelier.training.order import Turn

# (samples, number of each sample's prompt, whether to use the empty prompt) -> embeddings (b, tokens, width)
Embed = Callable[[Sequence[int], Sequence[int], Sequence[bool]], Tensor]


class Examples(NamedTuple):
    """Training examples: n latents, their names, the number of prompts of each, and the prompts' embeddings."""

    latents: Latents
    names: Sequence[str]
    prompts: int  # per latent
    condition: Embed


class Draw(NamedTuple):
    """All random numbers of one sample's turn: ``z_0``'s posterior noise, timestep, noise to predict, prompt."""

    posterior: Tensor
    t: int
    eps: Tensor
    prompt: int
    empty: bool


class Denoised(NamedTuple):
    """One step of a batch: clean and noised latents, the denoiser's output, the batch's turns, and the noise added.

    Latents are (b, c, h, w), ``alpha`` and ``s`` (b, 1, 1, 1), on the denoiser's device. ``sigma``, noise over signal
    (b,), is on the CPU, so that selecting samples by it does not wait for the device.
    """

    z0: Tensor
    zt: Tensor
    alpha: Tensor
    s: Tensor
    output: Tensor
    batch: Sequence[Turn]
    sigma: Tensor
    eps: Tensor


Extra = Callable[[Denoised], dict[str, Tensor]]  # additional loss terms of a step, scalars


def draw(seed: int, name: str, epoch: int, shape: torch.Size, steps: int, prompts: int, empty_share: float) -> Draw:
    """A function of (seed, sample, epoch), so that trainings of different models use the same noise."""
    generator = torch_generator(seed, "draw", name, epoch)
    return Draw(
        posterior=torch.randn(shape, generator=generator),
        t=int(torch.randint(steps, (), generator=generator)),
        eps=torch.randn(shape, generator=generator),
        prompt=int(torch.randint(prompts, (), generator=generator)),
        empty=float(torch.rand((), generator=generator)) < empty_share,
    )


def path(scheduler: SchedulerMixin) -> tuple[Tensor, Tensor, Tensor]:
    """Signal, noise and the denoiser's time input at each training step; (steps,) float32 each."""
    if scheduler.config.get("prediction_type", "flow_prediction") == "flow_prediction":  # flow matching's says nothing
        signal, noise = flow_path(scheduler.config.num_train_timesteps)
        return signal.float(), noise.float(), (noise * scheduler.config.num_train_timesteps).float()
    alphas, sigmas = signal_and_noise(scheduler.betas)
    return alphas.float(), sigmas.float(), torch.arange(len(alphas))


def target(kind: str, z0: Tensor, eps: Tensor, alpha: Tensor, s: Tensor) -> Tensor:
    """The training target of a denoiser of this kind for ``alpha z0 + s eps``."""
    if kind == "v_prediction":
        return v_target(z0, eps, alpha, s)
    return flow_target(z0, eps) if kind == "flow_prediction" else eps


def task(
    unet: UNet2DConditionModel,
    trainable: dict[str, nn.Parameter],
    scheduler: SchedulerMixin,
    examples: Examples,
    *,
    empty_share: float,
    seed: int,
    device: torch.device,
    extra: Extra | None = None,
) -> Task:
    """Denoising: mean squared error in the scheduler's parameterisation (Ho et al. 2020, eq. 14).

    ``extra``: additional loss terms, means over the batch's samples.
    """
    kind = scheduler.config.prediction_type
    if kind not in KINDS:
        raise ValueError(f"a denoiser that predicts '{kind}' is not known here; expected one of {', '.join(KINDS)}")
    alphas, sigmas, times = path(scheduler)
    latents, names, prompts, condition = examples

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        shape = latents.mean.shape[1:]
        draws = [draw(seed, names[turn.sample], turn.epoch, shape, len(alphas), prompts, empty_share) for turn in batch]
        chosen = [turn.sample for turn in batch]
        z0 = latents.drawn(chosen, torch.stack([d.posterior for d in draws]))
        eps, t = torch.stack([d.eps for d in draws]), torch.tensor([d.t for d in draws])
        alpha, s = alphas[t].view(-1, 1, 1, 1), sigmas[t].view(-1, 1, 1, 1)
        embeddings = condition(chosen, [d.prompt for d in draws], [d.empty for d in draws])
        sigma, wanted = (s / alpha).flatten(), target(kind, z0, eps, alpha, s)
        zt = noised(z0, eps, alpha, s)
        # copy all inputs before the denoiser starts: a later copy would wait for the device's running work
        time, z0, zt, alpha, s, wanted, words, eps = (
            each.to(device) for each in (times[t], z0, zt, alpha, s, wanted, embeddings, eps)
        )
        output = unet(zt, time, words).sample.float()
        terms = {"denoising": (output - wanted).square().mean()}
        return terms | (extra(Denoised(z0, zt, alpha, s, output, batch, sigma, eps)) if extra else {})

    return Task(trainable=trainable, samples=names, losses=losses, means=True)
