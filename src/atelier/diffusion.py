"""Noise schedules and the eps / v / flow parameterisations, in float64, each with its equation.

Variance preserving: ``z_t = alpha_t z_0 + s_t eps`` with ``alpha_t^2 + s_t^2 = 1``; rectified flow:
``z_t = (1 - t) z_0 + t eps``. Latents are floats (n, c, h, w), or one (c, h, w), of one shape; ``alpha``, ``s`` and
``t`` are floats shaped (n, 1, 1, 1), or one for all, a number or (). Shapes and types are checked, values are not, so
that nothing waits for a device. Every function raises ValueError for integers and other shapes, TypeError for what is
no tensor.
"""

import torch
from torch import Tensor

from atelier.data.checks import (
    FLOATS,
    came,
    check_alike,
    check_choice,
    check_number,
    check_tensor,
    check_whole,
    dtype_of,
    in_full_precision,
    shape_of,
)

KINDS = ("epsilon", "v_prediction", "flow_prediction")  # what a denoiser may predict
LATENTS = "(..., c, h, w)"


def _check_levels(latents: Tensor, **named: Tensor | float) -> None:
    """Refuse levels that are neither one number nor one for each of these latents, (n, 1, 1, 1).

    Of shape (n,) they would broadcast along the latents' width.
    """
    each = (len(latents), *[1] * (latents.ndim - 1)) if latents.ndim > 3 else ()
    for name, level in named.items():
        if not isinstance(level, Tensor):
            check_number(level, name)
            continue
        shape = shape_of(level)
        if dtype_of(level) not in FLOATS or (shape != each and any(side != 1 for side in shape)):
            wanted = " or ".join(str(one) for one in {each: None, (): None})
            raise ValueError(f"{name}: expected floats {wanted}, got {came(level)}")


def scaled_linear_betas(start: float, end: float, steps: int = 1000) -> Tensor:
    """``beta_i = linspace(sqrt(start), sqrt(end), steps)_i^2`` (Rombach et al. 2022), (steps,) float64.

    Raises ValueError unless 0 < start <= end < 1 and steps >= 1.
    """
    start, end = check_number(start, "start"), check_number(end, "end")
    steps = check_whole(steps, "steps")
    if not 0.0 < start <= end < 1.0:
        raise ValueError(f"start, end: betas must satisfy 0 < start <= end < 1, got start={start}, end={end}")
    return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2


def signal_and_noise(betas: Tensor) -> tuple[Tensor, Tensor]:
    """``alpha_t = sqrt(prod_{i<=t} (1 - beta_i))`` and ``s_t = sqrt(1 - alpha_t^2)`` (Ho et al. 2020, eq. 4).

    ``betas``: floats (steps,) in [0, 1]; the result (steps,) each, float64. Raises ValueError for others.
    """
    check_tensor(betas, "betas", "(steps,)")
    if not bool(((betas >= 0) & (betas <= 1)).all()):  # a schedule is made once, not in a step
        raise ValueError("betas: expected values in [0, 1], got others")
    abar = torch.cumprod(1.0 - betas.double(), dim=0)
    return abar.sqrt(), (1.0 - abar).sqrt()


def flow_path(steps: int = 1000) -> tuple[Tensor, Tensor]:
    """``1 - t`` and ``t`` at ``t = 1/steps ... 1``, the straight path's signal and noise (Liu et al. 2023), float64.

    (steps,) each; ValueError for fewer than one step.
    """
    steps = check_whole(steps, "steps")
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    return 1.0 - t, t


def noised(z0: Tensor, eps: Tensor, alpha: Tensor, s: Tensor) -> Tensor:
    """``z_t = alpha_t z_0 + s_t eps`` (Ho et al. 2020, eq. 4); also a flow's, with 1 - t and t."""
    check_alike(LATENTS, z0=z0, eps=eps)
    _check_levels(z0, alpha=alpha, s=s)
    return alpha * z0 + s * eps


def v_target(z0: Tensor, eps: Tensor, alpha: Tensor, s: Tensor) -> Tensor:
    """``v = alpha_t eps - s_t z_0`` (Salimans and Ho 2022, appendix D)."""
    check_alike(LATENTS, z0=z0, eps=eps)
    _check_levels(z0, alpha=alpha, s=s)
    return alpha * eps - s * z0


def z0_from_eps(zt: Tensor, eps: Tensor, alpha: Tensor, s: Tensor) -> Tensor:
    """``z0_hat = (z_t - s_t eps_hat) / alpha_t`` (Ho et al. 2020, eq. 15)."""
    check_alike(LATENTS, zt=zt, eps=eps)
    _check_levels(zt, alpha=alpha, s=s)
    return (zt - s * eps) / alpha


def z0_from_v(zt: Tensor, v: Tensor, alpha: Tensor, s: Tensor) -> Tensor:
    """``z0_hat = alpha_t z_t - s_t v_hat`` (Salimans and Ho 2022, appendix D)."""
    check_alike(LATENTS, zt=zt, v=v)
    _check_levels(zt, alpha=alpha, s=s)
    return alpha * zt - s * v


def eps_from_v(zt: Tensor, v: Tensor, alpha: Tensor, s: Tensor) -> Tensor:
    """``eps_hat = s_t z_t + alpha_t v_hat`` (Salimans and Ho 2022, appendix D)."""
    check_alike(LATENTS, zt=zt, v=v)
    _check_levels(zt, alpha=alpha, s=s)
    return s * zt + alpha * v


def flow_target(z0: Tensor, eps: Tensor) -> Tensor:
    """``u = eps - z_0``, the velocity of ``z_t = (1 - t) z_0 + t eps`` (Liu et al. 2023, eq. 1)."""
    check_alike(LATENTS, z0=z0, eps=eps)
    return eps - z0


def z0_from_flow(zt: Tensor, u: Tensor, t: Tensor) -> Tensor:
    """``z0_hat = z_t - t u_hat`` (Liu et al. 2023)."""
    check_alike(LATENTS, zt=zt, u=u)
    _check_levels(zt, t=t)
    return zt - t * u


def eps_from_flow(zt: Tensor, u: Tensor, t: Tensor) -> Tensor:
    """``eps_hat = z_t + (1 - t) u_hat`` (Liu et al. 2023)."""
    check_alike(LATENTS, zt=zt, u=u)
    _check_levels(zt, t=t)
    return zt + (1.0 - t) * u


def min_snr_weight(kind: str, snr: Tensor, gamma: float) -> Tensor:
    """Loss weights ``min(snr, gamma) / snr`` for noise, ``/ (snr + 1)`` for v (Hang et al. 2023, section 3.4).

    ``snr`` (n,): signal over noise, squared. ValueError for gamma below 0 and for a flow, which the paper leaves out.
    """
    check_choice(kind, "kind", KINDS[:2])
    check_tensor(snr, "snr", "(n,)")
    clipped = snr.clamp(max=check_number(gamma, "gamma", least=0))
    return clipped / (snr + 1 if kind == "v_prediction" else snr)


def clean_estimate(kind: str, zt: Tensor, output: Tensor, alpha: Tensor, s: Tensor) -> Tensor:
    """``z0_hat`` from a denoiser's output for ``z_t``; ``kind``: epsilon, v_prediction or flow_prediction, no other.

    Berrada Ifriqi et al. 2024, table 1, except for the flow: it divides by 1 - t, which is correct for a denoiser that
    predicts noise, not for one that predicts a velocity (``tests/test_diffusion.py``).
    """
    check_choice(kind, "kind", KINDS)
    check_alike(LATENTS, zt=zt, output=output)
    if kind == "v_prediction":
        return z0_from_v(zt, output, alpha, s)
    return z0_from_flow(zt, output, s) if kind == "flow_prediction" else z0_from_eps(zt, output, alpha, s)


def noise_estimate(kind: str, zt: Tensor, output: Tensor, alpha: Tensor, s: Tensor) -> Tensor:
    """``eps_hat`` from a denoiser's output for ``z_t``, both (n, c, h, w), half precision as float32.

    ``kind``: epsilon, v_prediction or flow_prediction, no other. Salimans and Ho 2022, appendix D, for v; Liu et al.
    2023 for a flow, whose ``s`` is the time t. Levels are read where the kind needs them: both for v, ``s`` for a flow.
    """
    check_choice(kind, "kind", KINDS)
    check_alike(LATENTS, zt=zt, output=output)
    zt, output = in_full_precision(zt), in_full_precision(output)
    if kind == "v_prediction":
        return eps_from_v(zt, output, alpha, s)
    return eps_from_flow(zt, output, s) if kind == "flow_prediction" else output


# Stable Diffusion's betas, and the latent side that they were chosen for
STABLE_DIFFUSION_BETAS = (0.00085, 0.012)
STABLE_DIFFUSION_SIDE = 64


def resolution_matched_betas(side: int) -> tuple[float, float]:
    """``(start, end)``: Stable Diffusion's betas scaled by one factor, for a latent of ``side``.

    Each absolute spatial frequency is then noised as in a latent of 64. The DC term's signal-to-noise ratio at the last
    step is ``SNR_T * side^2`` times the latent's variance; the factor makes it equal to Stable Diffusion's. Rounded to
    three significant digits, to be written in a configuration. ValueError for a side below 1.
    """
    side = check_whole(side, "side")

    def last_snr(factor: float) -> float:
        start, end = (beta * factor for beta in STABLE_DIFFUSION_BETAS)
        alpha, s = signal_and_noise(scaled_linear_betas(start, end))
        return float((alpha[-1] / s[-1]) ** 2)

    wanted = last_snr(1.0) * (STABLE_DIFFUSION_SIDE / side) ** 2
    low, high = 1e-6, 80.0
    for _ in range(80):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if last_snr(middle) > wanted else (low, middle)
    start, end = (float(f"{beta * middle:.3g}") for beta in STABLE_DIFFUSION_BETAS)
    return start, end
