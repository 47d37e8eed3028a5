"""Reconstruction quality (PSNR), and a linear patch code as a baseline for autoencoders."""

import math

import torch
from torch import Tensor

from atelier.data.checks import Samples, check_whole, picture_tensor

PATCH = 8  # pixels per latent element of an f8 autoencoder
OVERSHOOT = 0.5  # how far a reconstruction may leave [0, 1]: a linear code does by 0.3; pictures in [-1, 1] are refused


def psnr(real: Samples, reconstructed: Samples) -> float:
    """Peak signal-to-noise ratio of the pooled squared error, dB, in float64 on the CPU. Equal sets: inf.

    Both (n, 1 or 3, h, w) in [0, 1], of one shape; ``reconstructed`` may leave that range by up to 0.5, as a linear
    code does. Raises ValueError as ``picture_array`` (8-bit pictures divide by 255 first), and for different shapes.
    """
    one, other = picture_tensor(real, "real"), picture_tensor(reconstructed, "reconstructed", OVERSHOOT)
    if one.shape != other.shape:
        shapes = f"{tuple(one.shape)} and {tuple(other.shape)}"
        raise ValueError(f"real, reconstructed: psnr compares pictures of one shape, got {shapes}")
    error = float((one - other).square().mean())
    return -10 * math.log10(error) if error else math.inf


def linear_patch_code(train: Samples, pictures: Samples, coefficients: int) -> Tensor:
    """Reconstruct ``pictures`` from ``train``'s leading principal components of 8x8 patches, one per latent channel.

    (n, 1 or 3, h, w) in [0, 1], sides multiples of 8 -> float64, which may leave [0, 1]. An autoencoder that does not
    beat it has learnt nothing nonlinear. Raises ValueError as ``picture_array``, for other sides, for different
    numbers of channels, and unless ``coefficients`` is from 1 to 64 a channel.
    """
    known, x = picture_tensor(train, "train"), picture_tensor(pictures, "pictures")
    if known.shape[1] != x.shape[1]:
        raise ValueError(f"train, pictures: expected equally many channels, got {known.shape[1]} and {x.shape[1]}")
    coefficients = check_whole(coefficients, "coefficients", least=1, most=x.shape[1] * PATCH**2)
    rows = _patches(known, "train")
    mean = rows.mean(0)
    _, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean))
    axes = vectors[:, -coefficients:]
    coded = (_patches(x, "pictures") - mean) @ axes @ axes.T + mean
    return _pictures(coded, x.shape)


def _patches(pictures: Tensor, name: str) -> Tensor:
    """(n, c, h, w) -> (n h/8 w/8, c 64)."""
    n, c, h, w = pictures.shape
    if h % PATCH or w % PATCH:
        raise ValueError(f"{name}: patches of {PATCH} pixels do not fill pictures of {h} x {w}")
    split = pictures.reshape(n, c, h // PATCH, PATCH, w // PATCH, PATCH)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(-1, c * PATCH**2)


def _pictures(rows: Tensor, shape: torch.Size) -> Tensor:
    n, c, h, w = shape
    return rows.reshape(n, h // PATCH, w // PATCH, c, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)
