"""Policy gradients of a diffusion model's sampler (DDPO, Black et al. 2023, arXiv:2305.13301), with PPO's clipping.

A sampler with noise at every step is a policy: each step draws the next state from a Gaussian. Steps of trajectories
with a high reward are made likelier, while no step's probability leaves an interval about what it was when sampled.
States are floats (n, c, h, w), levels floats (n, 1, 1, 1) or one for all. ValueError for other shapes and types.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from atelier.data.checks import FloatArray, check_alike, check_finite, check_number, check_tensor, number_row
from atelier.methods.rejection import labels_of

LATENTS = "(n, c, h, w)"


def step_moments(
    z0: Tensor, eps: Tensor, alpha: Tensor, s: Tensor, alpha_next: Tensor, s_next: Tensor, eta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Mean (n, c, h, w) and deviation of the next, cleaner state, DDIM's with noise (Song et al. 2021, eq. 12 and 16).

    ``deviation = eta (s' / s) sqrt(s^2 - (alpha s' / alpha')^2)``: eq. 16 where ``alpha^2 + s^2 = 1``, and for eta = 1
    the law of the state that was noised to this one on any path ``alpha z_0 + s eps``, a flow's, too.
    ``z0``, ``eps``: the clean latent and the noise that are predicted of a state at ``alpha``, ``s``.
    """
    check_alike(LATENTS, z0=z0, eps=eps)
    kept = s.square() - (alpha * s_next / alpha_next).square()
    deviation = check_number(eta, "eta", least=0) * s_next / s * kept.clamp(min=0).sqrt()
    towards = (s_next.square() - deviation.square()).clamp(min=0).sqrt()
    return alpha_next * z0 + towards * eps, deviation


def log_probability(state: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Log-density of each state under a Gaussian, mean over elements, (n,).

    The public code's convention: of the density itself it would be the sum, and a clip would depend on the size.
    """
    check_alike(LATENTS, state=state, mean=mean)
    distance = (state - mean) / deviation
    return (-0.5 * distance.square() - torch.log(deviation) - 0.5 * np.log(2 * np.pi)).mean((1, 2, 3))


def advantages(rewards: Any, sets: Any, most: float) -> FloatArray:
    """Rewards (n,) less the mean of their set, over its deviation, clipped to ``most`` both ways (DDPO, section 4.3).

    ``sets``: labels (n,), a prompt's. 0 where all of a set are equal.
    """
    rewards = number_row(rewards, "rewards")
    labels = labels_of(sets, "sets", len(rewards))
    if not len(rewards):
        raise ValueError("rewards: expected one or more, got none")
    check_finite(rewards, "rewards")
    of_set = np.unique(labels, return_inverse=True)[1]
    number = np.bincount(of_set)
    centred = rewards - (np.bincount(of_set, rewards) / number)[of_set]
    deviation = np.sqrt(np.bincount(of_set, centred**2) / number)[of_set]
    # a set of equal rewards has a deviation of rounding errors alone
    some = deviation > 1e-12 * np.abs(rewards).max(initial=1.0)
    normed = np.divide(centred, deviation, out=np.zeros_like(centred), where=some)
    most = check_number(most, "most", least=0)
    return np.clip(normed, -most, most)


def clipped_loss(log_new: Tensor, log_old: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """``max(-A q, -A clip(q, 1 - c, 1 + c))`` with ``q = p_new / p_old``, (n,) (Schulman et al. 2017, eq. 7).

    At equal policies its gradient is that of ``-A log p``; where q has left the interval to the better side it is 0.
    """
    for name, row in (("log_new", log_new), ("log_old", log_old), ("advantage", advantage)):
        check_tensor(row, name, "(n,)")
    if not len(log_new) == len(log_old) == len(advantage):
        raise ValueError(
            f"log_new, log_old, advantage: expected as many, got {len(log_new)}, {len(log_old)}, {len(advantage)}"
        )
    clip = check_number(clip, "clip", least=0)
    ratio = (log_new - log_old).exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))
