"""A loss through a large frozen network: its gradient in slices of the batch, or of a part of each picture."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from atelier.models.autoencoders import Window
from atelier.seeds import torch_generator

Loss = Callable[[slice, Tensor], Tensor]  # (slice of the batch, these rows of the input) -> a scalar


class _HandedOver(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Loss, size: int) -> Tensor:
        values, gradients = [], []
        for start in range(0, len(x), size):
            rows = slice(start, min(start + size, len(x)))
            with torch.enable_grad():
                part = x[rows].detach().requires_grad_(True)
                value = loss(rows, part)
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

    The graph of ``loss`` is held for one slice at a time, and freed before backpropagation through whatever computed
    ``x``. Exact up to the order of the sum. Second derivatives raise RuntimeError.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        parts = range(0, len(x), size)
        return torch.stack(
            [loss(slice(start, min(start + size, len(x))), x[start : start + size]) for start in parts]
        ).sum()
    total: Tensor = _HandedOver.apply(x, loss, size)
    return total


def drawn_window(sides: Sequence[int], crop: int, seed: int, *turn: str | int) -> Window:
    """A random square of ``crop`` elements within a latent of these sides."""
    generator = torch_generator(seed, "window", *turn)
    top, left = (int(torch.randint(side - crop + 1, (), generator=generator)) for side in sides)
    return Window(top, left, crop)
