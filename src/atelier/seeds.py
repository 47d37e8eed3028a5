"""Random generators seeded by names: a draw depends on what it is for, never on what ran before it."""

import hashlib

import numpy as np
import torch


def seed_of(*names: str | int) -> int:
    """A 63-bit seed hashed from names, e.g. ``seed_of(seed, "noise", work, epoch)``; the same on every machine."""
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def torch_generator(*names: str | int) -> torch.Generator:
    """A new CPU generator seeded by these names."""
    return torch.Generator().manual_seed(seed_of(*names))


def numpy_generator(*names: str | int) -> np.random.Generator:
    """A new PCG64 generator seeded by these names."""
    return np.random.Generator(np.random.PCG64(seed_of(*names)))


def evenly(n: int, count: int) -> list[int]:
    """``count`` indices (at most n) evenly spaced over n; on a table sorted by style, equally many of each style."""
    return [int(i * n / min(n, count)) for i in range(min(n, count))]
