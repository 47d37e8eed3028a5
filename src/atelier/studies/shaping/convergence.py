"""Whether the fixed point of a step's inversion is approached as fast as its contraction promises (Anil et al. 2025).

Lemma 5.1: differences shrink by ``|eta| L`` an iteration, or faster. Both sides are measured apart from each other: the
rate along the iteration, ``|eta| L`` where it begins and at its solution, by differences of the velocity itself.
"""

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd
import torch
from torch import Tensor

from atelier.methods.inverse_noise import ROUNDING, Velocity, sampled

POWERS = 6  # of the derivative, applied to a direction, until its largest one shows
NUDGE = 1e-2  # of a difference of the velocity, root mean square, over the state's


def rates(velocity: Velocity, z: Tensor, times: Sequence[float], iterations: int) -> pd.DataFrame:
    """A line for each step of the sampler and each noise ``z`` (n, ...): step, picture, eta_l, rate.

    ``rate`` is NaN where fewer than two differences were above rounding.
    """
    parts, x = [], z
    for step, (t, following) in enumerate(pairwise(times)):
        eta, ahead = following - t, sampled(velocity, x, [t, following]).detach()
        white = torch.randn(x.shape, generator=torch.Generator().manual_seed(step)).to(x)
        slopes = [slope(velocity, at, t, eta, way) for at in (x, ahead) for way in (white, ahead - x)]
        measures = {"eta_l": torch.stack(slopes).amax(0), "rate": rate(velocity, ahead, t, eta, iterations)}
        columns = {name: values.cpu().numpy() for name, values in measures.items()}
        parts.append(pd.DataFrame({"step": step, "picture": range(len(z)), **columns}))
        x = ahead
    return pd.concat(parts, ignore_index=True)


@torch.no_grad()
def rate(velocity: Velocity, x: Tensor, t: float, eta: float, iterations: int) -> Tensor:
    """The factor by which differences of successive iterates shrink, (n,): the geometric mean of all above rounding.

    ``x``: the state after the step (n, ...), from which ``y = x - eta v(y)`` is iterated.
    """
    y, changes = x, []
    for _ in range(iterations):
        following = x - eta * velocity(y, t)
        changes.append(_norm(following - y))
        y = following
    sizes = torch.stack(changes)
    # a difference counts as long as it and all before it are above rounding
    counted = (sizes > ROUNDING * torch.finfo(x.dtype).eps * _norm(x)).long().cumprod(0).sum(0)
    last = sizes.gather(0, (counted - 1).clamp(min=0)[None])[0]
    factor = (last / sizes[0]) ** (1 / (counted - 1).clamp(min=1))
    return torch.where(counted >= 2, factor, torch.nan)


@torch.no_grad()
def slope(velocity: Velocity, x: Tensor, t: float, eta: float, direction: Tensor) -> Tensor:
    """``|eta| L`` at each of ``x`` (n, ...), (n,): the largest stretch of ``eta v`` from a direction to its main one.

    From below: L is the largest over all directions and states.
    """
    here, size = velocity(x, t), NUDGE * _norm(x)
    largest = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    each = (-1, *[1] * (x.ndim - 1))
    for _ in range(POWERS):
        step = direction * (size / _norm(direction).clamp(min=torch.finfo(x.dtype).tiny)).view(each)
        direction = eta * (velocity(x + step, t) - here)
        largest = torch.maximum(largest, _norm(direction) / size)
    return largest


def _norm(x: Tensor) -> Tensor:
    """Root mean square of each sample, (n,)."""
    return x.flatten(1).square().mean(1).sqrt()
