"""The order of samples, a function of seed and step only, so that a resumed run continues in the same order."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

from atelier.seeds import torch_generator


class Turn(NamedTuple):
    """A sample and its epoch; its noise may depend on these and the seed only."""

    sample: int
    epoch: int


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int) -> tuple[int, ...]:
    """The order of ``size`` samples in one epoch."""
    return tuple(torch.randperm(size, generator=torch_generator(seed, "order", epoch)).tolist())


def turns(seed: int, step: int, batch: int, size: int) -> list[Turn]:
    """The batch of a step (from 0); batches cross the end of an epoch, so that all have the same size."""
    if size < 1 or batch < 1:
        raise ValueError(f"a batch needs at least one sample and one place, got {size} samples, batch {batch}")
    positions = range(step * batch, (step + 1) * batch)
    return [
        Turn(permutation(seed, position // size, size)[position % size], position // size) for position in positions
    ]


def share(batch: Sequence[Turn], rank: int, ranks: int) -> Sequence[Turn]:
    """One rank's turns of a batch: neighbours, as many as the others' or one fewer or more; all of it for one rank."""
    return batch[rank * len(batch) // ranks : (rank + 1) * len(batch) // ranks]
