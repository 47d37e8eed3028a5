"""P-GRAFT: fine-tuning towards accepted states of an intermediate noise level (Anil et al. 2025, arXiv:2510.02692).

Whole trajectories are sampled and their ends scored. Of accepted ones the state ``x_I`` at t_I is kept; a tuned copy
learns noise levels from t_I up and samples down to t_I, the base from there. The paper does not print its loss; this
one is derived: ``x_t = a x_I + b eps'`` with ``a = alpha_t / alpha_I`` and ``b^2 = s_t^2 - a^2 s_I^2``, for a network
that predicts noise or whose output was converted to it (`atelier.diffusion`). A flow has signal 1 - t and noise t.

Target ``x_I``: ``renoised`` states and ``partial_loss``, or ``partial_flow_loss``. Target ``x_0``: the accepted ends,
noised as in ordinary training (``diffusion.noised``) at ``trained_timesteps``. **They have one law only for a
stochastic sampler, and then it is softer than GRAFT's; with a deterministic one ``x_I`` gives GRAFT's law and ``x_0``
another** (``tests/test_partial.py``): say which sampler wherever a number stands.

Latents are floats (n, c, h, w), levels numbers or floats (n, 1, 1, 1), or one for all. ValueError for integers, other
shapes and a level t below I; TypeError for what is no tensor and no number. Of latents no value is read, and of levels
none on an accelerator, so that nothing waits for it: there a t below I gives NaN. Results have torch's promoted type.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atelier.data.checks import (
    FLOATS,
    array_of,
    came,
    check_alike,
    check_number,
    dtype_of,
    in_full_precision,
    shape_of,
)

LATENTS = "(n, c, h, w)"
Level = Tensor | float

# ------------------------------------------------------------------------------------------------ training


def renoised(x_I: Tensor, eps: Tensor, alpha_I: Level, s_I: Level, alpha_t: Level, s_t: Level) -> Tensor:
    """``x_t = a x_I + b eps'``, the state of t >= I with noise ``eps`` (n, c, h, w) added (P-GRAFT, derived)."""
    check_alike(LATENTS, x_I=x_I, eps=eps)
    a, b = signal_and_noise_from(*_checked_levels(x_I, alpha_I, s_I, alpha_t, s_t))
    return a * x_I + b * eps


def partial_target(eps: Tensor, alpha_I: Level, s_I: Level, alpha_t: Level, s_t: Level) -> Tensor:
    """``s_t eps' / b``, the noise whose mean given x_t is the tuned network's output (P-GRAFT, derived); infinite at I.

    Its variance grows without bound near t_I: train by ``partial_loss``, which has the same minimiser.
    """
    check_alike(LATENTS, eps=eps)
    levels = _checked_levels(eps, alpha_I, s_I, alpha_t, s_t)
    return levels[3] * eps / signal_and_noise_from(*levels)[1]


def partial_loss(predicted: Tensor, eps: Tensor, alpha_I: Level, s_I: Level, alpha_t: Level, s_t: Level) -> Tensor:
    """``|| eps' - (b / s_t) eps_theta(x_t) ||^2``, mean over elements, (n,) (P-GRAFT, derived, bounded form).

    ``predicted``: the noise predicted of ``renoised`` states; ``eps``: that which was added to them. It is the squared
    error to ``partial_target`` times b^2 / s_t^2. At t_I itself b is 0 and nothing is learnt. Half precision is
    computed in float32.
    """
    check_alike(LATENTS, predicted=predicted, eps=eps)
    levels = _checked_levels(eps, alpha_I, s_I, alpha_t, s_t)
    share = signal_and_noise_from(*levels)[1] / levels[3]
    return (in_full_precision(eps) - share * in_full_precision(predicted)).square().mean((1, 2, 3))


def partial_flow_loss(
    output: Tensor, x_I: Tensor, eps: Tensor, alpha_I: Level, s_I: Level, alpha_t: Level, s_t: Level
) -> Tensor:
    """``|| eps' (1 + alpha_t s_I^2 / (alpha_I^2 s_t)) - (b / s_t) (x_I / alpha_I + u_theta) ||^2``, (n,) (derived).

    ``partial_loss`` of a flow's velocity ``output``, over ``alpha_t^2``, so that it does not vanish where a state has
    no signal left: there it is ``|| eps' - x_I / alpha_I - u_theta ||^2``. For ``alpha_I = 1, s_I = 0`` it is the
    ordinary flow loss. Half precision is computed in float32.
    """
    check_alike(LATENTS, output=output, x_I=x_I, eps=eps)
    levels = _checked_levels(eps, alpha_I, s_I, alpha_t, s_t)
    first, noise_I, last, noise_t = levels
    share = signal_and_noise_from(*levels)[1] / noise_t
    weight = 1 + last * noise_I.square() / (first.square() * noise_t)
    wanted = weight * in_full_precision(eps)
    return (wanted - share * (in_full_precision(x_I) / first + in_full_precision(output))).square().mean((1, 2, 3))


def signal_and_noise_from(alpha_I: Level, s_I: Level, alpha_t: Level, s_t: Level) -> tuple[Tensor, Tensor]:
    """``a = alpha_t / alpha_I`` and ``b = sqrt(s_t^2 - a^2 s_I^2)``: what noising from I to t keeps and adds (derived).

    Levels of any shapes that broadcast, the result in theirs, numbers as float64. ValueError for alpha_I not above 0
    and s_t below a s_I, which is a t below I, but on an accelerator NaN.
    """
    levels = {"alpha_I": alpha_I, "s_I": s_I, "alpha_t": alpha_t, "s_t": s_t}
    first, noise_I, last, noise_t = (_level(value, name) for name, value in levels.items())
    a = last / first
    # as a product: it loses no digits where both squares are near 1, and at t = I it is 0
    below = noise_t - a * noise_I
    if below.device.type == "cpu":
        if not bool((first > 0).all()):
            raise ValueError("alpha_I: expected values above 0, of a state that has some signal, got others")
        if not bool((below >= 0).all()):
            raise ValueError("alpha_t, s_t: expected a noise level t from alpha_I, s_I up, got one below, or NaN")
    return a, (below * (noise_t + a * noise_I)).sqrt()


def _level(value: Level, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.tensor(check_number(value, name), dtype=torch.float64)
    if dtype_of(value) not in FLOATS:
        raise ValueError(f"{name}: expected floats, got {came(value)}")
    return in_full_precision(value)


def _checked_levels(latents: Tensor, alpha_I: Level, s_I: Level, alpha_t: Level, s_t: Level) -> list[Tensor]:
    """Levels that are one for all or one for each latent; (n,) would broadcast along the latents' width."""
    levels = [_level(v, n) for v, n in ((alpha_I, "alpha_I"), (s_I, "s_I"), (alpha_t, "alpha_t"), (s_t, "s_t"))]
    each = (len(latents), 1, 1, 1)
    for level, name in zip(levels, ("alpha_I", "s_I", "alpha_t", "s_t"), strict=True):
        if shape_of(level) != each and level.numel() != 1:
            raise ValueError(f"{name}: expected floats {each} or (), got {came(level)}")
    return levels


# ------------------------------------------------------------------------------------------------ timesteps


class TwoParts(NamedTuple):
    """A sampling grid in two parts: steps that the tuned network takes, then steps of the base from t_I on.

    The state before step ``len(tuned)`` is the one at t_I: of the base's trajectories it is the ``x_I`` to keep.
    """

    tuned: npt.NDArray[Any]
    base: npt.NDArray[Any]


def two_part_schedule(timesteps: Any, t_I: float) -> TwoParts:
    """The steps with the adapter, t > t_I, and the steps without, t <= t_I (Anil et al. 2025, algorithm 2).

    ``timesteps``: where the sampler's steps start, (steps,), falling, repeated where it calls the network
    twice (a scheduler's ``timesteps``); the parts keep their type. The timestep decides, not the number of a step, so
    that samplers agree; multistep samplers carry outputs of the tuned part across. ValueError for a t_I not
    on the grid, and for its first, which leaves nothing to the adapter; GRAFT, whose adapter takes all, needs no parts.
    """
    grid = _timesteps(timesteps)
    t_I = check_number(t_I, "t_I")
    if (grid[1:] > grid[:-1]).any():  # differences of unsigned numbers would wrap around
        raise ValueError("timesteps: expected falling ones, from noise to data, got rising ones")
    if not (grid == t_I).any():
        nearest = grid[np.abs(grid - t_I).argmin()]
        raise ValueError(f"t_I: {t_I:g} is not a timestep of the sampling grid, nearest is {nearest:g}")
    count = int((grid > t_I).sum())
    if count == 0:
        raise ValueError(f"t_I: {t_I:g} is the grid's first timestep, no step is left to the adapter")
    return TwoParts(grid[:count], grid[count:])


def trained_timesteps(timesteps: Any, t_I: float) -> npt.NDArray[Any]:
    """The training ``timesteps`` (steps,) that are at least ``t_I``, in their order (P-GRAFT).

    For target ``x_0`` all are used; for ``x_I`` the loss is constant at t_I itself. ValueError where none is.
    """
    grid = _timesteps(timesteps)
    t_I = check_number(t_I, "t_I")
    chosen = grid[grid >= t_I]
    if not chosen.size:
        raise ValueError(f"t_I: {t_I:g} is above all training timesteps, the largest is {grid.max():g}")
    return chosen


def _timesteps(values: Any) -> npt.NDArray[Any]:
    grid = array_of(values, "timesteps")
    if grid.ndim != 1 or not grid.size or grid.dtype.kind not in "fiu" or not np.isfinite(grid).all():
        raise ValueError(f"timesteps: expected finite numbers (steps,), at least one, got {came(grid)}")
    return grid.copy()  # the parts are no views of the caller's, and lie in memory as torch reads it
