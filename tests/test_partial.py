"""P-GRAFT: states noised on have the law of ordinary noising; what each sampler and target gives, in closed form."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, HeunDiscreteScheduler, PNDMScheduler
from torch import Tensor
from torch.autograd import gradcheck

from atelier import diffusion
from atelier.methods.partial import (
    partial_flow_loss,
    partial_loss,
    partial_target,
    renoised,
    signal_and_noise_from,
    trained_timesteps,
    two_part_schedule,
)
from tolerance import assert_close

ALPHA, S = diffusion.signal_and_noise(diffusion.scaled_linear_betas(0.00085, 0.012))
PATH = diffusion.flow_path(100)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def as_latents(x: Tensor) -> Tensor:
    return x.reshape(-1, 1, 1, 1)


# ------------------------------------------------------------------------------------------------ noise added


@pytest.mark.parametrize(("schedule", "first", "last"), [((ALPHA, S), 200, 700), (PATH, 30, 80), (PATH, 30, 99)])
def test_states_noised_on_have_the_moments_of_clean_latents_noised_at_once(
    schedule: tuple[Tensor, Tensor], first: int, last: int
) -> None:
    """x_t is linear in z_0, eps and eps': its coefficients say its law, and those of the noises add up to s_t^2."""
    (alpha_I, alpha_t), (s_I, s_t) = (row[[first, last]].tolist() for row in schedule)
    one, zero = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)

    def x_t(z0: Tensor, eps: Tensor, more: Tensor) -> float:
        return float(renoised(diffusion.noised(z0, eps, alpha_I, s_I), more, alpha_I, s_I, alpha_t, s_t))

    signal, kept, added = x_t(one, zero, zero), x_t(zero, one, zero), x_t(zero, zero, one)
    assert signal == pytest.approx(alpha_t, rel=1e-13, abs=1e-16)
    assert kept**2 + added**2 == pytest.approx(s_t**2, rel=1e-13)
    assert added > 0.1


def test_the_marginal_of_many_states_is_that_of_direct_noising() -> None:
    z0 = 1 + 2 * normal(200_000, 1, 1, 1)
    x_I = diffusion.noised(z0, normal(*z0.shape, seed=1), ALPHA[200], S[200])
    x_t = renoised(x_I, normal(*z0.shape, seed=2), ALPHA[200], S[200], ALPHA[700], S[700])
    sd = math.sqrt(float(4 * ALPHA[700] ** 2 + S[700] ** 2))
    assert float(x_t.mean()) == pytest.approx(float(ALPHA[700]), abs=4 * sd / 200_000**0.5)
    assert float(x_t.var()) == pytest.approx(sd**2, rel=4 * (2 / 200_000) ** 0.5)
    joint = float(((x_t - ALPHA[700]) * (z0 - 1)).mean())
    assert joint == pytest.approx(4 * float(ALPHA[700]), abs=4 * 2 * sd * 1.5 / 200_000**0.5)


def test_noising_on_in_two_steps_is_noising_on_in_one() -> None:
    a1, b1 = signal_and_noise_from(ALPHA[100], S[100], ALPHA[300], S[300])
    a2, b2 = signal_and_noise_from(ALPHA[300], S[300], ALPHA[900], S[900])
    a, b = signal_and_noise_from(ALPHA[100], S[100], ALPHA[900], S[900])
    assert_close(a1 * a2, a)
    assert_close((a2 * b1) ** 2 + b2**2, b**2)


def test_from_clean_latents_it_is_ordinary_noising() -> None:
    z0, eps = normal(3, 4, 2, 2), normal(3, 4, 2, 2, seed=1)
    alpha, s = as_latents(ALPHA[[5, 500, 999]]), as_latents(S[[5, 500, 999]])
    assert_close(renoised(z0, eps, 1.0, 0.0, alpha, s), diffusion.noised(z0, eps, alpha, s))
    assert_close(partial_target(eps, 1.0, 0.0, alpha, s), eps)
    predicted = normal(3, 4, 2, 2, seed=2)
    assert_close(partial_loss(predicted, eps, 1.0, 0.0, alpha, s), (eps - predicted).square().mean((1, 2, 3)))


def test_at_the_level_itself_nothing_is_added_and_nothing_learnt() -> None:
    x, eps = normal(1000, 1, 1, 1), normal(1000, 1, 1, 1, seed=1)
    alpha, s = as_latents(ALPHA), as_latents(S)
    assert torch.equal(renoised(x, eps, alpha, s, alpha, s), x)  # at each of the 1000, without rounding below 0
    assert torch.equal(partial_loss(x, eps, alpha, s, alpha, s), eps.square().mean((1, 2, 3)))
    one = renoised(x.float(), eps.float(), alpha.float(), s.float(), alpha.float(), s.float())
    assert torch.equal(one, x.float())


@pytest.mark.parametrize("schedule", [(ALPHA, S), PATH])
def test_levels_below_are_refused_and_each_above_is_not(schedule: tuple[Tensor, Tensor]) -> None:
    alpha, s = (row.float() for row in schedule)
    for first in (0, 1, 40, 97):
        signal_and_noise_from(alpha[first], s[first], alpha[first:], s[first:])
        for below in range(first):
            with pytest.raises(ValueError, match="from alpha_I, s_I up, got one below"):
                signal_and_noise_from(alpha[first], s[first], alpha[below], s[below])
    with pytest.raises(ValueError, match="alpha_I: expected values above 0"):
        signal_and_noise_from(0.0, 1.0, 0.0, 1.0)


def test_nothing_waits_for_a_device() -> None:
    latents = torch.empty(4, 4, 8, 8, device="meta")
    levels = [torch.empty(4, 1, 1, 1, device="meta") for _ in range(4)]
    assert renoised(latents, latents, *levels).device.type == "meta"
    assert partial_loss(latents, latents, *levels).shape == (4,)


# ------------------------------------------------------------------------------------------------ the loss


def newton(loss: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """The minimum of a quadratic loss."""
    start = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(loss(start), start)[0]
    return -torch.linalg.solve(torch.autograd.functional.hessian(loss, start), slope)


@pytest.mark.parametrize(
    ("schedule", "first", "last"), [((ALPHA, S), 400, 401), ((ALPHA, S), 400, 990), (PATH, 40, 80)]
)
def test_the_bounded_loss_has_the_minimiser_of_the_unbounded_one(
    schedule: tuple[Tensor, Tensor], first: int, last: int
) -> None:
    """At one level a linear network is least squares: both losses, and the normal equations, give one solution."""
    (alpha_I, alpha_t), (s_I, s_t) = (row[[first, last]].tolist() for row in schedule)
    levels, eps = (alpha_I, s_I, alpha_t, s_t), normal(500, 1, 1, 1, seed=1)
    x = renoised(0.5 + normal(500, 1, 1, 1), eps, *levels)
    inputs = torch.stack([x, torch.ones_like(x), x**2])

    def network(weights: Tensor) -> Tensor:
        return (weights.view(-1, 1, 1, 1, 1) * inputs).sum(0)

    bounded = newton(lambda w: partial_loss(network(w), eps, *levels).mean(), 3)
    unbounded = newton(lambda w: (partial_target(eps, *levels) - network(w)).square().mean(), 3)
    system = inputs.flatten(1).T
    solved = torch.linalg.lstsq(system, partial_target(eps, *levels).reshape(-1, 1)).solution[:, 0]
    assert_close(bounded, solved, relative=1e-8)
    assert_close(unbounded, solved, relative=1e-8)


def test_of_a_flow_it_is_the_loss_of_noise_over_the_signal_left() -> None:
    """``alpha_t^2`` times the flow's loss is that of the noise that its velocity says; both have one minimiser."""
    generator = torch.Generator().manual_seed(3)
    x_I, eps, velocity = (torch.randn(5, 2, 3, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    t = torch.tensor([0.4, 0.5, 0.7, 0.9, 0.999], dtype=torch.float64).view(-1, 1, 1, 1)
    levels = 0.6, 0.4, 1 - t, t
    x_t = renoised(x_I, eps, *levels)
    of_noise = partial_loss(x_t + (1 - t) * velocity, eps, *levels)
    assert_close((1 - t).flatten() ** 2 * partial_flow_loss(velocity, x_I, eps, *levels), of_noise)


def test_of_a_flow_something_is_learnt_where_no_signal_is_left() -> None:
    """At t = 1 the noise is the state itself, whatever the velocity; the flow's loss still is of the velocity."""
    x_I, eps = torch.randn(2, 1, 2, 2, dtype=torch.float64), torch.randn(2, 1, 2, 2, dtype=torch.float64)
    velocity = torch.zeros(2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    found = partial_flow_loss(velocity, x_I, eps, 0.6, 0.4, 0.0, 1.0)
    assert_close(found, (eps - x_I / 0.6).square().mean((1, 2, 3)))
    found.sum().backward()
    assert velocity.grad is not None
    assert (velocity.grad != 0).all()
    of_noise = partial_loss(renoised(x_I, eps, 0.6, 0.4, 0.0, 1.0), eps, 0.6, 0.4, 0.0, 1.0)
    assert of_noise.abs().max() < 1e-12


@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.0])
def test_of_v_it_is_its_squared_error_times_what_vanishes_with_the_signal(alpha: float) -> None:
    """The curvature along a change of v is twice its square times ``(b alpha / s)^2``; without signal v is all one."""
    x_I, eps, v, change = (normal(3, 2, 2, 2, seed=seed) for seed in range(4))
    s = math.sqrt(1 - alpha**2)
    levels = 0.6, 0.8, alpha, s
    x_t, b = renoised(x_I, eps, *levels), signal_and_noise_from(*levels)[1]

    def loss(v: Tensor) -> Tensor:
        return partial_loss(diffusion.noise_estimate("v_prediction", x_t, v, alpha, s), eps, *levels)

    curvature = loss(v + change) + loss(v - change) - 2 * loss(v)
    assert_close(curvature, 2 * (b * alpha / s) ** 2 * change.square().mean((1, 2, 3)), absolute=1e-12)
    if alpha == 0:
        assert torch.equal(loss(v + change), loss(v))


def test_of_a_flow_from_clean_latents_it_is_the_ordinary_loss() -> None:
    z0, eps, velocity = (torch.randn(3, 2, 2, 2, dtype=torch.float64) for _ in range(3))
    expected = (eps - z0 - velocity).square().mean((1, 2, 3))
    assert_close(partial_flow_loss(velocity, z0, eps, 1.0, 0.0, 0.3, 0.7), expected)


def test_the_bounded_loss_does_not_grow_near_the_level() -> None:
    eps, predicted = normal(2000, 1, 1, 1), normal(2000, 1, 1, 1, seed=1)
    bounded, unbounded = [], []
    for last in (401, 410, 500, 900):
        levels = ALPHA[400], S[400], ALPHA[last], S[last]
        bounded.append(float(partial_loss(predicted, eps, *levels).mean()))
        squared = (partial_target(eps, *levels) - predicted).square()
        unbounded.append(float(squared.mean()))
        weight = (signal_and_noise_from(*levels)[1] / S[last]) ** 2
        assert_close(partial_loss(predicted, eps, *levels), weight * squared.mean((1, 2, 3)))  # the weight b^2 / s_t^2
    assert max(bounded) < 2.2  # two independent normal numbers
    assert min(bounded) > 0.8
    assert unbounded[0] > 50
    assert all(value > 0.9 for value in bounded)


def test_losses_have_their_gradients_and_compute_half_precision_in_float32() -> None:
    x, eps = normal(2, 1, 2, 2).requires_grad_(), normal(2, 1, 2, 2, seed=1).requires_grad_()
    levels = (0.8, 0.6, as_latents(torch.tensor([0.6, 0.28])).double(), as_latents(torch.tensor([0.8, 0.96])).double())
    for function in (renoised, partial_loss):
        assert gradcheck(lambda *args, f=function: f(*args, *levels), (x, eps))
    assert gradcheck(lambda eps: partial_target(eps, *levels), (eps,))
    assert partial_loss(x.half(), eps.half(), 0.8, 0.6, 0.6, 0.8).dtype == torch.float32
    assert partial_flow_loss(x.half(), x.half(), eps.half(), 0.8, 0.2, 0.6, 0.4).dtype == torch.float32
    gradcheck(lambda u: partial_flow_loss(u, x, eps, 0.8, 0.2, 0.6, 0.4), [x.clone().requires_grad_()])


def test_as_noise_a_flows_target_is_the_velocity_of_its_path_from_the_level() -> None:
    """x_t = a(t) x_I + b(t) eps' moves at a' x_I + b' eps', which is what the noise target converts to."""
    t_I, t, h = 0.3, 0.7, 1e-5
    x_I, eps = normal(5, 1, 1, 1), normal(5, 1, 1, 1, seed=1)

    def at(time: float) -> Tensor:
        return renoised(x_I, eps, 1 - t_I, t_I, 1 - time, time)

    moved = (at(t + h) - at(t - h)) / (2 * h)
    assert_close(diffusion.eps_from_flow(at(t), moved, t), partial_target(eps, 1 - t_I, t_I, 1 - t, t), relative=1e-8)


# ------------------------------------------------------------------------------------------------ laws

SD, STRENGTH, ALPHA_I, S_I = 2.0, 0.3, 0.6, 0.8  # data N(0, 4), r = x, tilt exp(0.3 r)
SD_I = math.sqrt(ALPHA_I**2 * SD**2 + S_I**2)
NODES, WEIGHTS = (torch.from_numpy(row) for row in np.polynomial.hermite_e.hermegauss(40))


def trajectories(stochastic: bool) -> tuple[Tensor, Tensor, Tensor]:
    """x_I, x_0 and the weights of accepted trajectories: quadrature over x_I and, for an SDE, the noise after it."""
    u, v = torch.meshgrid(NODES, NODES, indexing="ij")
    x_I = SD_I * u
    x_0 = sampled_from(x_I, v, stochastic)
    weight = torch.outer(WEIGHTS, WEIGHTS) * torch.exp(STRENGTH * x_0)
    return x_I.flatten(), x_0.flatten(), (weight / weight.sum()).flatten()


def sampled_from(x_I: Tensor, noise: Tensor, stochastic: bool) -> Tensor:
    """The base's exact sampler from t_I: the posterior of a reverse SDE, or the probability flow ODE's map."""
    if not stochastic:
        return SD / SD_I * x_I
    return ALPHA_I * SD**2 / SD_I**2 * x_I + SD * S_I / SD_I * noise


def tuned_noise(target: str, x_I: Tensor, x_0: Tensor, weight: Tensor, alpha: float, s: float) -> tuple[float, float]:
    """The affine network (slope, offset), exact for Gaussian laws, that minimises the tuning loss at one level."""
    n = len(weight)
    eps = NODES.repeat(n)  # each accepted state with each noise
    mass = (weight[:, None] * (WEIGHTS / WEIGHTS.sum())).flatten()

    if target == "x_I":
        x = renoised(as_latents(x_I.repeat_interleave(40)), as_latents(eps), ALPHA_I, S_I, alpha, s)

        def losses(output: Tensor) -> Tensor:
            return partial_loss(output, as_latents(eps), ALPHA_I, S_I, alpha, s)
    else:
        x = diffusion.noised(as_latents(x_0.repeat_interleave(40)), as_latents(eps), alpha, s)

        def losses(output: Tensor) -> Tensor:
            return (output - as_latents(eps)).square().mean((1, 2, 3))

    weights = newton(lambda w: (mass * losses(w[0] * x + w[1])).sum(), 2)
    return float(weights[0]), float(weights[1])


def level(sigma: float) -> tuple[float, float]:
    return 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)


def tuned_mean_at_the_level(target: str, x_I: Tensor, x_0: Tensor, weight: Tensor) -> float:
    """Mean of x_I that the tuned network samples from noise, by the flow dy / dsigma = eps, y = x / alpha, of Heun."""
    # a first level with more signal would leave its mean out, as 2.4 / sigma of it
    sigmas = np.geomspace(20_000.0, S_I / ALPHA_I * (1 + 1e-9), 160)
    slopes = [tuned_noise(target, x_I, x_0, weight, *level(sigma)) for sigma in sigmas]
    y = 0.0  # the mean of the first noise; the network is affine, so that the mean moves by itself
    for at in range(len(sigmas) - 1):
        step = sigmas[at + 1] - sigmas[at]

        def velocity(y: float, at: int) -> float:
            return slopes[at][0] * y * level(sigmas[at])[0] + slopes[at][1]

        first = velocity(y, at)
        y += step * (first + velocity(y + step * first, at + 1)) / 2
    return y * ALPHA_I


@pytest.mark.parametrize(
    ("target", "stochastic", "expected"),
    [("x_I", False, 1.200), ("x_0", False, 0.998), ("x_I", True, 0.831), ("x_0", True, 0.831)],
)
def test_the_final_mean_depends_on_target_and_sampler(target: str, stochastic: bool, expected: float) -> None:
    """methods.md 5.2: tuned down to t_I by the loss's own minimiser, then the base's sampler of the same kind."""
    x_I, x_0, weight = trajectories(stochastic)
    assert float((weight * x_0).sum()) == pytest.approx(STRENGTH * SD**2, rel=1e-9)  # what is accepted: GRAFT's 1.200
    at_level = torch.tensor(tuned_mean_at_the_level(target, x_I, x_0, weight), dtype=torch.float64)
    final = float(sampled_from(at_level, torch.zeros(()), stochastic))  # both kinds are linear
    assert final == pytest.approx(expected, abs=1e-3)


def test_the_four_means_in_closed_form() -> None:
    shift = STRENGTH * SD**2
    accepted_states = {False: SD_I / SD * shift, True: ALPHA_I * shift}  # mean of x_I; noised ends have the latter
    back = {kind: float(sampled_from(torch.ones(()), torch.zeros(()), kind)) for kind in (False, True)}
    assert shift == pytest.approx(1.2)
    assert back[False] * accepted_states[False] == pytest.approx(1.2)
    assert back[False] * ALPHA_I * shift == pytest.approx(0.998, abs=5e-4)
    assert back[True] * accepted_states[True] == pytest.approx(0.831, abs=5e-4)


# ------------------------------------------------------------------------------------------------ timesteps


def test_a_grid_is_split_at_the_level() -> None:
    parts = two_part_schedule([981, 741, 501, 261, 21], 501)
    assert parts.tuned.tolist() == [981, 741]
    assert parts.base.tolist() == [501, 261, 21]
    assert two_part_schedule([981, 741, 501, 261, 21], 21).base.tolist() == [21]
    flow = torch.linspace(1000, 100, 10)
    assert two_part_schedule(flow, 700.0).tuned.tolist() == [1000, 900, 800]
    assert two_part_schedule(flow, 700.0).base.dtype == np.float32
    assert two_part_schedule(np.array([200, 100, 50], np.uint8), 100).tuned.tolist() == [200]


@pytest.mark.parametrize("kind", [DDIMScheduler, PNDMScheduler, HeunDiscreteScheduler])
def test_schedulers_grids_are_split_at_each_of_their_timesteps(kind: type) -> None:
    scheduler = kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.set_timesteps(10)
    timesteps = scheduler.timesteps
    for t_I in timesteps.unique().tolist()[:-1]:
        parts = two_part_schedule(timesteps, t_I)
        assert np.concatenate(parts).tolist() == timesteps.tolist()
        assert parts.tuned.min() > t_I == parts.base[0]


@pytest.mark.parametrize(
    ("timesteps", "t_I", "message"),
    [
        ([981, 741, 501], 500, "t_I: 500 is not a timestep of the sampling grid, nearest is 501"),
        ([981, 741, 501], 981, "t_I: 981 is the grid's first timestep"),
        ([501, 741, 981], 741, "timesteps: expected falling ones"),
        ([981, math.nan], 981, "timesteps: expected finite numbers"),
        ([[981, 741]], 741, "timesteps: expected finite numbers"),
    ],
)
def test_other_grids_and_levels_off_them_are_refused(timesteps: list, t_I: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        two_part_schedule(timesteps, t_I)


def test_ends_are_noised_from_the_level_up() -> None:
    assert trained_timesteps(range(1000), 501).tolist() == list(range(501, 1000))
    assert trained_timesteps(torch.tensor([0.1, 0.5, 0.9]), 0.3).tolist() == pytest.approx([0.5, 0.9])
    assert trained_timesteps([3, 1, 2], 2).tolist() == [3, 2]
    with pytest.raises(ValueError, match="t_I: 1000 is above all training timesteps, the largest is 999"):
        trained_timesteps(range(1000), 1000)
