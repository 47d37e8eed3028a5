"""What a denoiser learns, in the base's training and in every fine-tuning: the noise in a noised latent."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor, nn

from atelier.data.latents import Moments
from atelier.diffusion import flow_path, flow_target, noised, signal_and_noise, v_target
from atelier.seeds import torch_generator
from atelier.training.loop import Task
from atelier.training.order import Pick

KINDS = ("epsilon", "v_prediction", "flow_prediction")
# (samples, which of a sample's prompts, whether the prompt is left empty) -> embeddings (b, tokens, width)
Condition = Callable[[Sequence[int], Sequence[int], Sequence[bool]], Tensor]


class Draw(NamedTuple):
    """All chance in one sample's turn: ``z_0``'s posterior noise, the step, the noise to find, the prompt."""

    posterior: Tensor
    t: int
    eps: Tensor
    prompt: int
    empty: bool


class Denoised(NamedTuple):
    """A batch's step: what was noised, what came of it, what the denoiser said of that; and whose turn it was.

    Shapes are a latent's, (b, c, h, w), those of ``alpha`` and ``s`` (b, 1, 1, 1), all of it where the denoiser is. But
    ``sigma``, noise over signal (b,), is on the CPU: who asks which samples count must not wait for the device.
    """

    z0: Tensor
    zt: Tensor
    alpha: Tensor
    s: Tensor
    output: Tensor
    batch: Sequence[Pick]
    sigma: Tensor


Extra = Callable[[Denoised], dict[str, Tensor]]  # further loss terms of a step, scalars


def draw(seed: int, name: str, epoch: int, shape: torch.Size, steps: int, prompts: int, empty_share: float) -> Draw:
    """A function of (seed, sample, epoch): two trainings that differ in nothing but the model see the same noise."""
    generator = torch_generator(seed, "draw", name, epoch)
    return Draw(
        posterior=torch.randn(shape, generator=generator),
        t=int(torch.randint(steps, (), generator=generator)),
        eps=torch.randn(shape, generator=generator),
        prompt=int(torch.randint(prompts, (), generator=generator)),
        empty=float(torch.rand((), generator=generator)) < empty_share,
    )


def path(scheduler: SchedulerMixin) -> tuple[Tensor, Tensor, Tensor]:
    """Signal, noise and the time that the denoiser is told, at each training step; (steps,) float32 each."""
    if scheduler.config.prediction_type == "flow_prediction":
        signal, noise = flow_path(scheduler.config.num_train_timesteps)
        return signal.float(), noise.float(), (noise * scheduler.config.num_train_timesteps).float()
    alphas, sigmas = signal_and_noise(scheduler.betas)
    return alphas.float(), sigmas.float(), torch.arange(len(alphas))


def target(kind: str, z0: Tensor, eps: Tensor, alpha: Tensor, s: Tensor) -> Tensor:
    """What a denoiser of this kind is to say of ``alpha z0 + s eps``."""
    if kind == "v_prediction":
        return v_target(z0, eps, alpha, s)
    return flow_target(z0, eps) if kind == "flow_prediction" else eps


def task(
    unet: UNet2DConditionModel,
    trainable: dict[str, nn.Parameter],
    scheduler: SchedulerMixin,
    latents: Moments,
    condition: Condition,
    *,
    names: Sequence[str],
    prompts: int,
    empty_share: float,
    seed: int,
    device: torch.device,
    extra: Extra | None = None,
) -> Task:
    """Denoising, mean squared error in the parameterisation that the scheduler states (Ho et al. 2020, eq. 14).

    ``extra``: loss terms beside it.
    """
    kind = scheduler.config.prediction_type
    if kind not in KINDS:
        raise ValueError(f"a denoiser that predicts '{kind}' is not known here; expected one of {', '.join(KINDS)}")
    alphas, sigmas, times = path(scheduler)

    def losses(batch: Sequence[Pick]) -> dict[str, Tensor]:
        shape = latents.mean.shape[1:]
        draws = [draw(seed, names[pick.sample], pick.epoch, shape, len(alphas), prompts, empty_share) for pick in batch]
        chosen = [pick.sample for pick in batch]
        z0 = latents.mean[chosen] + latents.std[chosen] * torch.stack([d.posterior for d in draws])
        eps, t = torch.stack([d.eps for d in draws]), torch.tensor([d.t for d in draws])
        alpha, s = alphas[t].view(-1, 1, 1, 1), sigmas[t].view(-1, 1, 1, 1)
        embeddings = condition(chosen, [d.prompt for d in draws], [d.empty for d in draws])
        sigma, wanted = (s / alpha).flatten(), target(kind, z0, eps, alpha, s)
        zt = noised(z0, eps, alpha, s)
        # all that the step needs, before the denoiser begins: a copy to the device waits for what is under way there
        time, z0, zt, alpha, s, wanted, words = (
            each.to(device) for each in (times[t], z0, zt, alpha, s, wanted, embeddings)
        )
        output = unet(zt, time, words).sample.float()
        terms = {"denoising": (output - wanted).square().mean()}
        return terms | (extra(Denoised(z0, zt, alpha, s, output, batch, sigma)) if extra else {})

    return Task(trainable=trainable, samples=names, losses=losses)
