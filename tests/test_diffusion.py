"""Oracles 1-3: the schedule's table, and conversions that return exactly what went in."""

import pytest
import torch
from diffusers import DDIMScheduler

from atelier import diffusion
from atelier.training.denoiser import target

SD = (0.00085, 0.012)
# index: alpha_t, s_t, SNR, sigma_t of Stable Diffusion's schedule, to the digits printed by an independent computation
TABLE = {
    999: (0.0682649, 0.9976672, 0.0046819, 14.6146),
    981: (0.0759967, 0.9971081, 0.0058091, 13.1204),
    951: (0.0903051, 0.9959142, 0.0082221, 11.0283),
    500: (0.5256736, 0.8506864, 0.3818504, 1.6183),
    200: (0.8681544, 0.4962942, 3.0599582, 0.5717),
    100: (0.9456339, 0.3252330, 8.4538937, 0.3439),
}


@pytest.mark.parametrize("t", TABLE)
def test_stable_diffusion_schedule_has_the_published_values(t: int) -> None:
    alpha, s = diffusion.signal_and_noise(diffusion.scaled_linear_betas(*SD))
    row = torch.stack([alpha[t], s[t], (alpha[t] / s[t]) ** 2, s[t] / alpha[t]])
    expected = torch.tensor(TABLE[t], dtype=torch.float64)
    assert torch.all((row - expected).abs() <= torch.tensor([5.1e-8, 5.1e-8, 5.1e-8, 5.1e-5]))


def test_schedule_agrees_with_diffusers_in_its_float32() -> None:
    theirs = DDIMScheduler(beta_start=SD[0], beta_end=SD[1], beta_schedule="scaled_linear").alphas_cumprod
    alpha, _ = diffusion.signal_and_noise(diffusion.scaled_linear_betas(*SD))
    torch.testing.assert_close(alpha**2, theirs.double(), rtol=2e-6, atol=0)


@pytest.mark.parametrize(("tau", "last"), [(1, 353), (3, 673), (4, 744), (5, 795), (6, 834), (20, 999)])
def test_noise_to_signal_thresholds_fall_on_the_known_steps(tau: float, last: int) -> None:
    alpha, s = diffusion.signal_and_noise(diffusion.scaled_linear_betas(*SD))
    assert int(torch.nonzero(s / alpha <= tau).max()) == last


@pytest.fixture
def draws() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    z0, eps = (torch.randn(100, 4, 3, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    alpha, s = diffusion.signal_and_noise(diffusion.scaled_linear_betas(*SD))
    t = torch.randint(0, 1000, (100,), generator=generator)
    return z0, eps, alpha[t].view(-1, 1, 1, 1), s[t].view(-1, 1, 1, 1), ((t.double() + 0.5) / 1000).view(-1, 1, 1, 1)


def test_exact_targets_give_back_the_clean_latent_and_the_noise(draws: tuple[torch.Tensor, ...]) -> None:
    z0, eps, alpha, s, t = draws
    zt, ft = diffusion.noised(z0, eps, alpha, s), diffusion.noised(z0, eps, 1 - t, t)
    v, u = diffusion.v_target(z0, eps, alpha, s), diffusion.flow_target(z0, eps)
    for got, expected in [
        (diffusion.z0_from_eps(zt, eps, alpha, s), z0),
        (diffusion.z0_from_v(zt, v, alpha, s), z0),
        (diffusion.eps_from_v(zt, v, alpha, s), eps),
        (diffusion.z0_from_flow(ft, u, t), z0),
        (diffusion.eps_from_flow(ft, u, t), eps),
    ]:
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow_prediction"])
def test_a_clean_estimate_from_the_exact_target_is_the_clean_latent(draws: tuple[torch.Tensor, ...], kind: str) -> None:
    """Of whatever kind a denoiser is; what it learns is what ``training.denoiser`` says."""
    z0, eps, alpha, s, t = draws
    if kind == "flow_prediction":
        alpha, s = 1 - t, t
    zt = diffusion.noised(z0, eps, alpha, s)
    estimate = diffusion.clean_estimate(kind, zt, target(kind, z0, eps, alpha, s), alpha, s)
    torch.testing.assert_close(estimate, z0, rtol=0, atol=1e-12)


def printed_flow_estimate(zt: torch.Tensor, d: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Table 1 of Berrada et al. 2024 as printed: ``(x_t - t D) / (1 - t)``."""
    return (zt - t * d) / (1 - t)


def test_the_printed_flow_estimate_is_right_for_noise_and_wrong_for_velocity(draws: tuple[torch.Tensor, ...]) -> None:
    z0, eps, _, _, t = draws
    zt = diffusion.noised(z0, eps, 1 - t, t)
    torch.testing.assert_close(printed_flow_estimate(zt, eps, t), z0, rtol=0, atol=1e-9)
    wrong = printed_flow_estimate(zt, diffusion.flow_target(z0, eps), t)
    assert (wrong - z0).abs().mean() > 0.1


def test_a_flows_clean_estimate_is_the_printed_one_of_the_noise_that_it_means(draws: tuple[torch.Tensor, ...]) -> None:
    """Whatever the denoiser says; given the velocity itself, the printed one is another."""
    zt, u, _, _, t = draws
    ours = diffusion.clean_estimate("flow_prediction", zt, u, 1 - t, t)
    torch.testing.assert_close(ours, printed_flow_estimate(zt, diffusion.eps_from_flow(zt, u, t), t), rtol=0, atol=1e-9)
    assert (ours - printed_flow_estimate(zt, u, t)).abs().mean() > 0.1


def test_a_flows_clean_estimate_is_finite_where_nothing_is_left_of_the_latent() -> None:
    eps, u = torch.ones(1, 4, 3, 3), torch.full((1, 4, 3, 3), 0.25)
    nothing, all_noise = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    assert torch.equal(diffusion.clean_estimate("flow_prediction", eps, u, nothing, all_noise), 0.75 * eps)


def test_betas_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="0 < start <= end < 1"):
        diffusion.scaled_linear_betas(0.02, 0.01)


@pytest.mark.parametrize("side", [8, 16, 64])
def test_matched_schedule_keeps_the_dc_terms_noise(side: int) -> None:
    betas = diffusion.resolution_matched_betas(side)
    alpha, s = diffusion.signal_and_noise(diffusion.scaled_linear_betas(*betas))
    # 19.177: Stable Diffusion's, from the table above; 1 % is what three digits of beta cost
    assert float((alpha[-1] / s[-1]) ** 2) * side**2 == pytest.approx(0.0046819 * 64**2, rel=0.01)


def test_matched_schedule_of_the_original_side_is_the_original() -> None:
    assert diffusion.resolution_matched_betas(64) == SD


def test_levels_of_latents_do_not_broadcast_along_their_width() -> None:
    z = torch.ones(3, 4, 3, 3)
    for level in (torch.full((3,), 0.5), torch.full((3, 1, 1), 0.5), torch.full((2, 1, 1, 1), 0.5)):
        with pytest.raises(ValueError, match=r"alpha: expected floats \(3, 1, 1, 1\) or \(\)"):
            diffusion.noised(z, z, level, 0.5)
    with pytest.raises(ValueError, match=r"alpha: expected floats \(\), got"):  # one latent has one level
        diffusion.noised(z[0], z[0], torch.full((4, 1, 1), 0.5), 0.5)
    assert torch.equal(diffusion.noised(z[0], z[0], 0.25, torch.tensor(0.5)), 0.75 * z[0])
    with pytest.raises(ValueError, match=r"eps: expected the shape of z0, \(3, 4, 3, 3\), got \(1, 4, 3, 3\)"):
        diffusion.flow_target(z, z[:1])


def test_min_snr_weights_are_the_papers() -> None:
    """At gamma = 5: steps with less signal than that keep their weight, others count as if they had 5."""
    snr = torch.tensor([0.01, 5.0, 50.0], dtype=torch.float64)
    torch.testing.assert_close(diffusion.min_snr_weight("epsilon", snr, 5.0), torch.tensor([1, 1, 0.1]).double())
    v = torch.tensor([0.01 / 1.01, 5 / 6, 5 / 51]).double()
    torch.testing.assert_close(diffusion.min_snr_weight("v_prediction", snr, 5.0), v)
    with pytest.raises(ValueError, match="flow_prediction"):
        diffusion.min_snr_weight("flow_prediction", snr, 5.0)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_the_same_error_of_the_clean_latent(kind: str) -> None:
    """Both kinds weigh the squared error of ``z0`` by min(snr, gamma): section 3.4 of Hang et al. 2023."""
    snr, gamma = torch.tensor([0.1, 3.0, 80.0], dtype=torch.float64), 5.0
    alpha, s = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    # an error e of the output is an error of z0 of s / alpha e for noise, and of s e for v
    of_z0 = (s / alpha if kind == "epsilon" else s).square()
    torch.testing.assert_close(diffusion.min_snr_weight(kind, snr, gamma) / of_z0, snr.clamp(max=gamma))
