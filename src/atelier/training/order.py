"""Which sample is seen when: a function of seed and step alone, so that a resumed run sees what it would have seen."""

from functools import lru_cache
from typing import NamedTuple

import torch

from atelier.seeds import torch_generator


class Pick(NamedTuple):
    """A sample and how often it has been drawn before: with the seed, all that its noise may depend on."""

    sample: int
    epoch: int


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int) -> tuple[int, ...]:
    """The order of ``size`` samples in one epoch."""
    return tuple(torch.randperm(size, generator=torch_generator(seed, "order", epoch)).tolist())


def picks(seed: int, step: int, batch: int, size: int) -> list[Pick]:
    """The batch of a step (from 0); batches run on over the end of an epoch, so that all have one size."""
    if size < 1 or batch < 1:
        raise ValueError(f"a batch needs at least one sample and one place, got {size} samples, batch {batch}")
    places = range(step * batch, (step + 1) * batch)
    return [Pick(permutation(seed, place // size, size)[place % size], place // size) for place in places]
