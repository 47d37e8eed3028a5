"""A loss behind a large frozen network: its gradient computed in slices of the batch, and handed on in one piece."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Loss = Callable[[slice, Tensor], Tensor]  # (places in the batch, these rows of what is learnt) -> a scalar


class _HandedOver(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Loss, size: int) -> Tensor:
        values, gradients = [], []
        for start in range(0, len(x), size):
            places = slice(start, min(start + size, len(x)))
            with torch.enable_grad():
                part = x[places].detach().requires_grad_(True)
                value = loss(places, part)
            gradients.append(torch.autograd.grad(value, part)[0])
            values.append(value.detach())
        ctx.save_for_backward(torch.cat(gradients))
        return torch.stack(values).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[0] * gradient, None, None


def in_slices(loss: Loss, x: Tensor, size: int) -> Tensor:
    """The sum of ``loss`` over slices of at most ``size`` rows of ``x`` (n, ...), n > 0; a scalar.

    What ``loss`` keeps for its gradient is held for one slice at a time, and freed before whatever made ``x`` is run
    backwards. Exact up to the order of the sum. A gradient of its gradient is a RuntimeError.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        parts = range(0, len(x), size)
        return torch.stack([loss(slice(at, min(at + size, len(x))), x[at : at + size]) for at in parts]).sum()
    found: Tensor = _HandedOver.apply(x, loss, size)
    return found
