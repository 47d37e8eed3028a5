"""Randomness as a function of names: whatever is drawn depends on what it is for, never on what ran before."""

import hashlib

import numpy as np
import torch


def seed_of(*names: str | int) -> int:
    """A 63-bit seed that names determine, e.g. ``seed_of(seed, "noise", work, epoch)``; equal on every machine."""
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def torch_generator(*names: str | int) -> torch.Generator:
    """A CPU generator of its own for these names."""
    return torch.Generator().manual_seed(seed_of(*names))


def numpy_generator(*names: str | int) -> np.random.Generator:
    """A PCG64 generator of its own for these names."""
    return np.random.Generator(np.random.PCG64(seed_of(*names)))
