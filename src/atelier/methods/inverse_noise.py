"""Inverse noise correction (Anil et al. 2025, arXiv:2510.02692): exact inversion of a flow's Euler sampler.

Data are mapped back to the noise that the deployed sampler makes them of; a second flow then learns that noise's law.
The sampler must be the same in both directions: grid, guidance, precision. ``velocity`` is any function of x
(n, ...) and a time, a number, that returns a tensor of x's shape and type. ``times`` (steps + 1,): the grid from noise
to data, strictly rising or falling, numbers (a flow in `atelier.diffusion` goes from t = 1 to 0, its steps eta are
negative). Every function raises ValueError for integers, other shapes and grids, TypeError for what is no tensor.

The second flow, the noise corrector, goes from N(0, I) to the inverted noise on another path, ``noise_path``, on
which nothing is to be learnt where that noise is N(0, I) already. The paper's path is not known here; this one is ours.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from atelier.data.checks import (
    FLOATS,
    came,
    check_alike,
    check_finite,
    check_finite_tensor,
    check_number,
    check_tensor,
    check_whole,
    dtype_of,
    number_row,
    shape_of,
)

Velocity: TypeAlias = Callable[[Tensor, float], Tensor]

EXACT = ("float32", "float64")  # half precision cannot be inverted to any use
ROUNDING = 1024  # differences below this many rounding errors of x say nothing on how fast they shrink


class Inversion(NamedTuple):
    """Noise ``z`` (n, ...) and how well each step was inverted, (n, steps) each, in the order of ``times``.

    ``residual``: of the step's equation at the returned state, root mean square over its elements. ``lipschitz``: the
    largest ratio of successive differences, over ``|eta|``: seen along the iteration, so an estimate of L from below;
    NaN where no difference was above rounding, or one was not finite. ``bound``: ``error_bound`` of both, root mean
    square as well. It is of this step alone: earlier steps enlarge an error by up to 1 / (1 - eta L) each, and rounding
    with it. A flow that contracts much loses digits that no iteration brings back; round trips show it (``sampled``).
    """

    z: Tensor
    residual: Tensor
    lipschitz: Tensor
    bound: Tensor


def sampled(velocity: Velocity, z: Tensor, times: Any) -> Tensor:
    """``x_{k+1} = x_k + eta v(x_k, t_k)``, ``eta = t_{k+1} - t_k``: explicit Euler from noise ``z`` (n, ...) to data.

    Differentiable; no value is read: NaN gives NaN. Floats of any precision. Anil et al. 2025, section 5.
    """
    _check_samples(z, "z")
    grid = _grid(times)
    x = z
    for t, following in pairwise(grid):
        x = x + (following - t) * _called(velocity, x, t)
    return x


@torch.no_grad()
def inverted(
    velocity: Velocity, x: Tensor, times: Any, iterations: int = 50, tolerance: float = 0.0, relaxation: float = 1.0
) -> Inversion:
    """``x_k = x_{k+1} - eta v(x_k, t_k)`` solved for x_k, last step first, by fixed-point iteration from x_{k+1}.

    Anil et al. 2025, algorithm 6. ``x``: data (n, ...), float32 or float64, finite. Each sample takes up to
    ``iterations`` of them, until its residual is at most ``tolerance`` (root mean square), and stays: the result does
    not depend on the others of its batch. Each step calls ``velocity`` once more, for the residual. The iteration
    converges for eta L < 1 (lemma 5.1), for a linear v exactly where eta's spectral radius is below 1; where it does
    not, residuals and bounds say so, nothing is raised. ``relaxation`` below 1 goes only that part of the way: slower
    where it converges, and also to solutions at which eta v stretches by 1 or more without folding (ours).
    """
    _check_samples(x, "x", EXACT)
    check_finite_tensor(x, "x")
    grid = _grid(times)
    iterations, tolerance = check_whole(iterations, "iterations"), check_number(tolerance, "tolerance", least=0)
    relaxation = check_number(relaxation, "relaxation", least=0, most=2, open_ends=True)
    steps = []
    for t, following in zip(grid[-2::-1], grid[:0:-1], strict=True):
        x, residual, contraction = _step_inverted(velocity, x, t, following - t, iterations, tolerance, relaxation)
        lipschitz = contraction / abs(following - t)
        steps.append((residual, lipschitz, error_bound(residual, following - t, lipschitz)))
    return Inversion(x, *(torch.stack(rows[::-1], 1) for rows in map(list, zip(*steps, strict=True))))


def _step_inverted(
    velocity: Velocity, x: Tensor, t: float, eta: float, iterations: int, tolerance: float, relaxation: float
) -> tuple[Tensor, Tensor, Tensor]:
    """x_k of one step, its residual, and the largest ratio of differences of eta v to differences of y, (n,) each."""
    y, following = x, x - eta * _called(velocity, x, t)
    residual = _norm(following - y)  # of the equation at y: y + eta v(y) - x_{k+1} = y - following
    contraction = torch.full_like(residual, -math.inf)
    floor = ROUNDING * torch.finfo(x.dtype).eps * _norm(x)
    for _ in range(iterations):
        active = ~(residual <= tolerance)
        if not bool(active.any()):
            break
        each = active.view(-1, *[1] * (x.ndim - 1))
        before = following
        y = torch.where(each, torch.lerp(y, following, relaxation), y)
        following = torch.where(each, x - eta * _called(velocity, y, t), following)
        ratio = _norm(following - before) / (relaxation * residual)  # of differences of eta v and of y
        contraction = torch.maximum(contraction, torch.where(active & (residual > floor), ratio, -math.inf))
        residual = torch.where(active, _norm(following - y), residual)
    return y, residual, torch.where(contraction == -math.inf, math.nan, contraction)


def error_bound(residual: Tensor, eta: float, lipschitz: Tensor | float) -> Tensor:
    """``residual / (1 - |eta| L)``, no less than a step's pre-image error (derived, for Anil et al.'s lemma 5.1).

    ``residual``: (n,) or any shape, the result in its shape and type; ``eta``: the step, of either sign; ``lipschitz``:
    L of v in x, a number or one for each. With an estimate from below the bound is an estimate, too. Infinite where
    ``|eta| L >= 1``, where nothing is certain. Equality for ``v = -L x``, eta above 0. NaN gives NaN.
    """
    check_tensor(residual, "residual", "(...)")
    if isinstance(lipschitz, Tensor):
        if dtype_of(lipschitz) not in FLOATS or shape_of(lipschitz) not in (shape_of(residual), ()):
            raise ValueError(f"lipschitz: expected floats {shape_of(residual)}, got {came(lipschitz)}")
    else:
        lipschitz = check_number(lipschitz, "lipschitz", least=0)
    left = 1 - abs(check_number(eta, "eta")) * torch.as_tensor(lipschitz, dtype=residual.dtype, device=residual.device)
    return torch.where(left <= 0, torch.where(residual.isnan(), residual, math.inf), residual / left)


def noise_path(z: Tensor, eps: Tensor, theta: Tensor | float) -> tuple[Tensor, Tensor]:
    """``z_theta = cos(theta) z + sin(theta) eps`` and its velocity ``cos(theta) eps - sin(theta) z``.

    Conditional flow matching (Lipman et al. 2023, eq. 14, on a variance-preserving path): a network that is trained to
    predict the velocity of inverted noise ``z`` and white noise ``eps`` (n, ...), theta from pi/2 (``eps``) to 0
    (``z``), is what ``corrected`` takes. ``theta``: a number, or floats (n, 1, ..., 1), or one. NaN gives NaN.
    """
    check_alike("(...)", z=z, eps=eps)
    if z.ndim < 2:
        raise ValueError(f"z: expected samples (n, ...), got shape {shape_of(z)}")
    if isinstance(theta, Tensor):
        each = (len(z), *[1] * (z.ndim - 1))
        if dtype_of(theta) not in FLOATS or (shape_of(theta) != each and theta.numel() != 1):
            raise ValueError(f"theta: expected a number or floats {each}, got {came(theta)}")
        theta = theta.to(z.dtype)
    else:
        theta = torch.tensor(check_number(theta, "theta"), dtype=torch.float64, device=z.device)
    cosine, sine = theta.cos().to(z.dtype), theta.sin().to(z.dtype)
    return cosine * z + sine * eps, cosine * eps - sine * z


def corrected(velocity: Velocity, eps: Tensor, steps: int) -> Tensor:
    """White noise ``eps`` (n, ...) to the law of inverted noise, by the midpoint rule on equal parts of cos(theta).

    ``velocity``: of x and theta, of ``noise_path``; called twice a step. Where it is 0, as for N(0, I), nothing moves;
    a shift of the mean is exact in any number of steps, a change of the covariance nearly (Anil et al. 2025, section 5;
    the rule is ours). Differentiable; no value is read: NaN gives NaN.
    """
    _check_samples(eps, "eps")
    steps, x = check_whole(steps, "steps"), eps
    for step in range(steps):
        first, middle = (math.acos((step + part) / steps) for part in (0.0, 0.5))
        half = x - _called(velocity, x, first) / (2 * steps * math.sin(first))
        x = x - _called(velocity, half, middle) / (steps * math.sin(middle))
    return x


def _called(velocity: Velocity, x: Tensor, t: float) -> Tensor:
    """The velocity at x; one of another shape would broadcast, one of another type change the precision."""
    if not callable(velocity):
        raise TypeError(f"velocity: expected a function of x and t, got {came(velocity)}")
    v = velocity(x, t)
    if not isinstance(v, Tensor):
        raise TypeError(f"velocity: expected a tensor {shape_of(x)}, got {came(v)}")
    if v.shape != x.shape or v.dtype != x.dtype:
        raise ValueError(f"velocity: expected {came(x)}, as x, got {came(v)}")
    return v


def _norm(x: Tensor) -> Tensor:
    """Root mean square of each sample, (n,)."""
    return x.flatten(1).square().mean(1).sqrt()


def _check_samples(x: Tensor, name: str, dtypes: tuple[str, ...] = FLOATS) -> None:
    check_tensor(x, name, "(...)", dtypes)
    if x.ndim < 2:
        raise ValueError(f"{name}: expected samples (n, ...), got shape {shape_of(x)}")


def _grid(times: Any) -> list[float]:
    row = number_row(times, "times")
    if row.size < 2:
        raise ValueError(f"times: expected at least two, from noise to data, got {row.size}")
    check_finite(row, "times")
    steps = np.diff(row)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError("times: expected strictly rising or falling ones, got others")
    return [float(t) for t in row]
