"""The policy-gradient rival's mathematics: Gaussians, advantages, PPO's clip, and a bandit that it must solve."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch.distributions import Normal

from atelier.methods.policy_gradient import advantages, clipped_loss, log_probability, step_moments

GENERATOR = torch.Generator().manual_seed(24)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def test_a_step_is_the_schedulers() -> None:
    """diffusers' DDIM with the same noise, at every step of its grid, for eta 0, 0.5 and 1."""
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(7)
    abar = scheduler.alphas_cumprod.double()
    state, eps, drawn = noise(3, 2, 4, 4), noise(3, 2, 4, 4), noise(3, 2, 4, 4)
    for eta in (0.0, 0.5, 1.0):
        for t in scheduler.timesteps[:-1].tolist():
            before = abar[t - 1000 // 7]
            alpha, s, alpha_next, s_next = abar[t].sqrt(), (1 - abar[t]).sqrt(), before.sqrt(), (1 - before).sqrt()
            mean, deviation = step_moments((state - s * eps) / alpha, eps, alpha, s, alpha_next, s_next, eta)
            expected = scheduler.step(eps, t, state, eta=eta, variance_noise=drawn if eta else None).prev_sample
            torch.testing.assert_close(mean + deviation * drawn, expected, rtol=1e-5, atol=1e-5)


def test_on_a_flows_path_a_step_is_dpm_solvers_stochastic_one() -> None:
    """diffusers' first-order solver with the same noise, from nearly pure noise to data, by a velocity."""
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=1, final_sigmas_type="zero",
        algorithm_type="sde-dpmsolver++",
    )  # fmt: skip
    scheduler.set_timesteps(7)
    state, velocity, drawn = noise(3, 2, 4, 4), noise(3, 2, 4, 4), noise(3, 2, 4, 4)
    levels = scheduler.sigmas.double()
    for number, t in enumerate(scheduler.timesteps):
        s, s_next = levels[number], levels[number + 1]
        z0, eps = state - s * velocity, state + (1 - s) * velocity
        mean, deviation = step_moments(z0, eps, 1 - s, s, 1 - s_next, s_next)
        expected = scheduler.step(velocity, t, state, variance_noise=drawn).prev_sample
        torch.testing.assert_close(mean + deviation * drawn, expected, rtol=1e-4, atol=1e-4)


def test_noised_normal_data_come_back_to_their_law_on_any_path() -> None:
    """With eta = 1 and the exact posterior, the next state's variance is that of data noised to it."""
    for alpha, s, alpha_next, s_next in ((0.0, 1.0, 0.25, 0.75), (0.3, 0.7, 0.6, 0.4), (0.6, 0.8, 0.8, 0.6)):
        levels = [torch.tensor(value, dtype=torch.float64) for value in (alpha, s, alpha_next, s_next)]
        clean, eps = noise(200_000, 1, 1, 1), noise(200_000, 1, 1, 1)
        state = alpha * clean + s * eps
        kept = torch.randn(clean.shape, generator=GENERATOR, dtype=torch.float64)
        posterior = alpha / (alpha**2 + s**2) * state + s / (alpha**2 + s**2) ** 0.5 * kept  # a draw of z_0 given it
        rest = (state - alpha * posterior) / s
        mean, deviation = step_moments(posterior, rest, *levels)
        found = mean + deviation * noise(200_000, 1, 1, 1)
        assert float(found.var()) == pytest.approx(alpha_next**2 + s_next**2, rel=0.02)


def test_the_log_density_is_the_gaussians() -> None:
    state, mean, deviation = noise(4, 2, 3, 3), noise(4, 2, 3, 3), noise(4, 1, 1, 1).exp()
    expected = Normal(mean, deviation.expand_as(mean)).log_prob(state).mean((1, 2, 3))
    torch.testing.assert_close(log_probability(state, mean, deviation), expected)


def test_advantages_are_of_each_prompt_alone() -> None:
    found = advantages([1.0, 3.0, 100.0, 300.0, 7.0, 7.0], ["a", "a", "b", "b", "c", "c"], most=5.0)
    assert found.tolist() == [-1.0, 1.0, -1.0, 1.0, 0.0, 0.0]
    one = advantages([0.0] * 99 + [1.0], [0] * 100, most=5.0)
    assert one[-1] == 5.0
    assert one[0] == pytest.approx(-0.1005, abs=1e-4)
    assert advantages([0.1, 0.1, 0.1], [0, 0, 0], most=5.0).tolist() == [0.0, 0.0, 0.0]


def test_at_equal_policies_the_gradient_is_that_of_the_score() -> None:
    log_old, advantage = noise(6), noise(6)
    log_new = log_old.clone().requires_grad_()
    clipped_loss(log_new, log_old, advantage, 0.1).sum().backward()
    torch.testing.assert_close(log_new.grad, -advantage)


def test_beyond_the_clip_nothing_is_learnt_and_on_the_way_back_all_is() -> None:
    log_new = torch.tensor([0.3, -0.3, 0.3, -0.3], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    clipped_loss(log_new, torch.zeros(4, dtype=torch.float64), advantage, 0.1).sum().backward()
    assert log_new.grad is not None
    assert log_new.grad[:2].tolist() == [0.0, 0.0]
    torch.testing.assert_close(log_new.grad[2:], -advantage[2:] * log_new.detach()[2:].exp())


def test_a_bandit_is_solved() -> None:
    """One Gaussian step, reward -(x - 2)^2: its mean goes to 2, as long as each round may move it."""
    mean, generator = torch.zeros(1, dtype=torch.float64, requires_grad=True), torch.Generator().manual_seed(1)
    deviation = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    for _ in range(60):
        with torch.no_grad():
            state = mean + 0.5 * torch.randn(256, 1, 1, 1, generator=generator, dtype=torch.float64)
            old = log_probability(state, mean.expand_as(state), deviation)
        advantage = torch.from_numpy(advantages(-((state.flatten() - 2) ** 2).numpy(), np.zeros(256, int), 5.0))
        for _ in range(3):
            (slope,) = torch.autograd.grad(
                clipped_loss(log_probability(state, mean.expand_as(state), deviation), old, advantage, 0.2).mean(), mean
            )
            with torch.no_grad():
                mean -= 0.05 * slope
    assert mean.item() == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    "faulty",
    [
        lambda: advantages([1.0, np.nan], [0, 0], 5.0),
        lambda: advantages([1.0, 2.0], [0], 5.0),
        lambda: clipped_loss(noise(2), noise(3), noise(2), 0.1),
        lambda: clipped_loss(noise(2), noise(2), noise(2), -0.1),
        lambda: log_probability(noise(2, 1, 3, 3), noise(2, 1, 3, 4), torch.ones(1)),
    ],
)
def test_what_does_not_fit_is_refused(faulty) -> None:
    with pytest.raises(ValueError, match=r"expected|finite"):
        faulty()
