"""Conditional flow matching from white to inverted noise: the task of the noise corrector (Anil et al. 2025)."""

import math
from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from atelier.methods.inverse_noise import noise_path
from atelier.models.noise_corrector import time_of
from atelier.seeds import torch_generator
from atelier.training.loop import Task
from atelier.training.order import Turn


def task(
    network: UNet2DConditionModel,
    noise: Tensor,
    names: Sequence[str],
    words: Tensor,
    *,
    seed: int,
    device: torch.device,
) -> Task:
    """Mean squared error to the velocity of ``methods.inverse_noise.noise_path``, at theta uniform in [0, pi/2].

    ``noise``: inverted, (n, c, h, w); ``names``, ``words`` (n, tokens, width): of the pictures that it makes. Random
    numbers depend on (seed, name, epoch) only, so that correctors of other samplers see the same.
    """
    network.to(device).requires_grad_(True).train()

    def losses(batch: Sequence[Turn]) -> dict[str, Tensor]:
        chosen = [turn.sample for turn in batch]
        generators = [torch_generator(seed, "corrector", names[turn.sample], turn.epoch) for turn in batch]
        theta = torch.stack([torch.rand((), generator=each) for each in generators]) * (math.pi / 2)
        eps = torch.stack([torch.randn(noise.shape[1:], generator=each) for each in generators])
        x, wanted = noise_path(noise[chosen], eps, theta.view(-1, 1, 1, 1))
        x, time, shown, wanted = (each.to(device) for each in (x, time_of(theta), words[chosen], wanted))
        return {"velocity": (network(x, time, shown).sample.float() - wanted).square().mean()}

    return Task(trainable=dict(network.named_parameters()), samples=names, losses=losses)
