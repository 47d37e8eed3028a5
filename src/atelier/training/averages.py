"""Exponential moving averages (EMA) of parameters during training."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Averages = Mapping[float, dict[str, Tensor]]  # half-life in steps -> parameters by name


class Average(NamedTuple):
    """One average: its name in checkpoints, its half-life in steps, its values by parameter."""

    name: str
    half_life: float
    warm_up: bool  # use a shorter half-life in the first steps
    values: dict[str, Tensor]

    def update(self, trainable: Mapping[str, nn.Parameter], step: int) -> None:
        """One EMA update after ``step``."""
        keep = 0.5 ** (1 / self.half_life)
        if self.warm_up:
            keep = min(keep, (1 + step) / (10 + step))
        values = list(self.values.values())
        torch._foreach_lerp_(values, [trainable[name].detach() for name in self.values], 1 - keep)

    def state(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint."""
        return {f"{self.name}/{name}": value for name, value in self.values.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore values from a checkpoint; KeyError for a missing one."""
        for name, value in self.values.items():
            value.copy_(tensors[f"{self.name}/{name}"])


def started(
    trainable: Mapping[str, nn.Parameter], names: Sequence[str], ema: float, averages: Averages
) -> tuple[Average | None, list[Average]]:
    """The average that replaces the parameters at the end (None for ``ema`` 0), and the additional averages.

    All start from the current parameters. Additional averages have no warm-up, so that they differ even in short runs;
    their values are stored in the dictionaries of ``averages``.
    """

    def copies() -> dict[str, Tensor]:
        return {name: trainable[name].detach().clone() for name in names}

    for values in averages.values():
        values.update(copies())
    beside = [Average(f"average-{half_life:g}", half_life, False, values) for half_life, values in averages.items()]
    return (Average("average", ema, True, copies()) if ema else None), beside
