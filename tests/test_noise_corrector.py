"""Correction of noise: the path, its integration, a corrector that recovers a law, a sampler that recovers its data."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from atelier.methods.inverse_noise import corrected, inverted, noise_path, sampled
from atelier.models import base, noise_corrector
from atelier.params import Optimisation
from atelier.seeds import torch_generator
from atelier.training import noise_corrector as matching
from atelier.training.order import turns
from tolerance import assert_close

Velocity = Callable[[Tensor, float], Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------ the path


def test_the_path_ends_in_both_noises_and_its_velocity_is_its_derivative() -> None:
    z, eps, h = normal(4, 2, 3, 3), normal(4, 2, 3, 3, seed=1), 1e-6
    assert torch.equal(noise_path(z, eps, 0.0)[0], z)
    assert_close(noise_path(z, eps, math.pi / 2)[0], eps, absolute=1e-15)
    theta = torch.tensor([0.1, 0.5, 1.0, 1.5], dtype=torch.float64).view(-1, 1, 1, 1)
    ahead, behind = (noise_path(z, eps, theta + step)[0] for step in (h, -h))
    assert_close(noise_path(z, eps, theta)[1], (ahead - behind) / (2 * h), absolute=1e-8)


def gaussian(mean: float, deviation: float) -> Velocity:
    """The best velocity for z ~ N(mean, deviation^2): E[cos eps - sin z | x], exactly."""

    def velocity(x: Tensor, theta: float) -> Tensor:
        c, s = math.cos(theta), math.sin(theta)
        spread = (c * deviation) ** 2 + s**2
        apart = (x - c * mean) / spread
        return c * (s * apart) - s * (mean + c * deviation**2 * apart)

    return velocity


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_white_noise_stays_and_a_shift_is_exact_in_any_number_of_steps(steps: int) -> None:
    eps = normal(50, 3)
    assert_close(corrected(gaussian(0.0, 1.0), eps, steps), eps, absolute=1e-14)
    assert_close(corrected(gaussian(0.7, 1.0), eps, steps), eps + 0.7, absolute=1e-12)


@pytest.mark.parametrize("deviation", [0.9, 1.2])
def test_two_steps_give_the_spread_of_noise_that_is_nearly_white(deviation: float) -> None:
    """The flow multiplies by the deviation; two steps of the midpoint rule are within 1 % of it."""
    eps = normal(50, 3)
    assert_close(corrected(gaussian(0.0, deviation), eps, 2), deviation * eps, relative=0.01)


def mixture(apart: float, deviation: float) -> Velocity:
    """The best velocity where each element of z is N(apart, deviation^2) or N(-apart, deviation^2), half and half."""

    def velocity(x: Tensor, theta: float) -> Tensor:
        above = torch.sigmoid(
            2 * math.cos(theta) * apart * x / ((math.cos(theta) * deviation) ** 2 + math.sin(theta) ** 2)
        )
        return above * gaussian(apart, deviation)(x, theta) + (1 - above) * gaussian(-apart, deviation)(x, theta)

    return velocity


def test_the_rule_is_of_second_order() -> None:
    """Half the step, a quarter of the error, of a law with two peaks against many steps."""
    velocity, eps = mixture(0.9, 0.5), normal(50, 3)
    exact = corrected(velocity, eps, 2000)
    errors = [float((corrected(velocity, eps, n) - exact).abs().max()) for n in (40, 80, 160)]
    assert errors[0] / errors[1] > 3.2
    assert errors[1] / errors[2] > 3.2


def mixture_cdf(x: np.ndarray, apart: float, deviation: float) -> np.ndarray:
    return (stats.norm.cdf(x, apart, deviation) + stats.norm.cdf(x, -apart, deviation)) / 2


def test_the_best_velocity_of_a_law_with_two_peaks_gives_that_law() -> None:
    """Kolmogorov and Smirnov on 20,000 draws; white noise itself is far from it."""
    eps = normal(20_000, 1)
    made = corrected(mixture(0.9, 0.3), eps, 40).flatten().numpy()
    assert stats.kstest(made, mixture_cdf, args=(0.9, 0.3)).pvalue > 0.01
    assert stats.kstest(eps.flatten().numpy(), mixture_cdf, args=(0.9, 0.3)).pvalue < 1e-6


# ------------------------------------------------------------------------------------------------ a trained corrector

SIDE, SETTINGS = 2, Optimisation(
    steps=500, batch=128, learning_rate=0.004, decay="cosine", warmup=20, beta2=0.99, weight_decay=0.0, clip=1.0,
    ema=0, checkpoint_every=500,
)  # fmt: skip


def small_corrector() -> torch.nn.Module:
    denoiser = base._unet(SIDE, 1, 8, (8, 8), 1, 4)
    return noise_corrector.build(denoiser, 32, seed=0)


def fitted(network: torch.nn.Module, noise: Tensor, words: Tensor) -> None:
    """Train in place, without checkpoints."""
    names = [str(number) for number in range(len(noise))]
    task = matching.task(network, noise, names, words, seed=1, device=torch.device("cpu"))
    optimiser = torch.optim.AdamW(task.trainable.values(), lr=SETTINGS.learning_rate, betas=(0.9, SETTINGS.beta2))
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, SETTINGS.steps)
    for step in range(SETTINGS.steps):
        loss = task.losses(turns(1, step, SETTINGS.batch, len(noise)))["velocity"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        plan.step()
    network.eval()


def made_by(network: torch.nn.Module, n: int, words: Tensor) -> Tensor:
    eps = torch.randn(n, 1, SIDE, SIDE, generator=torch_generator("white"))
    with torch.no_grad():
        return corrected(noise_corrector.velocity(network, words.expand(n, -1, -1)), eps, 8)


def test_an_untrained_corrector_corrects_nothing(one_thread: None) -> None:
    words = torch.zeros(1, 3, 8)
    eps = torch.randn(6, 1, SIDE, SIDE, generator=torch_generator("white"))
    assert torch.equal(made_by(small_corrector(), 6, words), eps)


@pytest.mark.long
def test_a_corrector_recovers_a_law_that_is_not_normal(one_thread: None) -> None:
    """Noise in which all elements of a picture have one sign of two peaks: the law of their mean, and of one alone."""
    n, words = 4000, torch.zeros(1, 3, 8)
    generator = torch_generator("peaks")
    signs = torch.randint(2, (n, 1, 1, 1), generator=generator) * 2.0 - 1
    noise = 0.9 * signs + 0.4 * torch.randn(n, 1, SIDE, SIDE, generator=generator)
    network = small_corrector()
    fitted(network, noise, words.expand(n, -1, -1))
    made = made_by(network, 2000, words)
    white = torch.randn(made.shape, generator=torch_generator("other"))

    def far(x: Tensor) -> float:
        return float(stats.kstest(x.mean((1, 2, 3)).numpy(), mixture_cdf, args=(0.9, 0.2)).statistic)

    assert far(made) < 0.06 < 0.2 < far(white)
    assert float(made.mean((1, 2, 3)).abs().mean()) == pytest.approx(0.9, abs=0.06)
    kurtosis = float(stats.kurtosis(made.mean((1, 2, 3)).numpy()))
    assert kurtosis < -1.2  # two peaks; a normal law has 0, the target -1.8


# ------------------------------------------------------------------------------------------------ a corrected sampler


def test_a_corrected_sampler_recovers_the_covariance_of_a_linear_flows_data() -> None:
    """Oracle 13: data that the flow does not make of white noise; with its inverted noise's law, covariances are back.

    Each entry is within 3 of its sampling deviations, of the same data drawn anew.
    """
    d, n, times = 4, 20_000, np.linspace(1.0, 0.0, 21)
    a = torch.diag(torch.tensor([0.6, 0.2, -0.3, -0.5], dtype=torch.float64)) + 0.05
    factor = normal(d, d, seed=5) / 2 + torch.eye(d, dtype=torch.float64)
    wanted = factor @ factor.T

    def flow(x: Tensor, t: float) -> Tensor:
        return x @ a.T

    data = normal(n, d, seed=1) @ factor.T
    z = inverted(flow, data, times, 60).z
    assert_close(sampled(flow, z, times), data, absolute=1e-10)
    law = torch.cov(z.T, correction=0)

    def best(x: Tensor, theta: float) -> Tensor:
        """The best velocity for z ~ N(0, law)."""
        c, s = math.cos(theta), math.sin(theta)
        inverse = torch.linalg.inv(c**2 * law + s**2 * torch.eye(d, dtype=torch.float64))
        return x @ (c * s * inverse - s * c * inverse @ law)

    eps = normal(n, d, seed=2)
    made = torch.cov(sampled(flow, corrected(best, eps, 30), times).T, correction=0)
    deviation = ((wanted**2 + torch.outer(wanted.diag(), wanted.diag())) * 2 / n).sqrt()  # of two sets of n
    assert ((made - wanted).abs() < 3 * deviation).all()
    uncorrected = torch.cov(sampled(flow, eps, times).T, correction=0)
    assert ((uncorrected - wanted).abs() > 3 * deviation).any()
