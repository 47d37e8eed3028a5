"""Reconstruction quality (PSNR), and a linear patch code as a baseline for autoencoders."""

import math

import torch
from torch import Tensor

PATCH = 8  # pixels per latent element of an f8 autoencoder


def psnr(real: Tensor, reconstructed: Tensor) -> float:
    """Peak signal-to-noise ratio of the pooled squared error, dB; both (n, c, h, w) in [0, 1]. Equal sets: inf."""
    if real.shape != reconstructed.shape:
        shapes = f"{tuple(real.shape)} and {tuple(reconstructed.shape)}"
        raise ValueError(f"psnr compares pictures of one shape, got {shapes}")
    error = float((real.double() - reconstructed.double()).square().mean())
    return -10 * math.log10(error) if error else math.inf


def linear_patch_code(train: Tensor, pictures: Tensor, coefficients: int) -> Tensor:
    """Reconstruct ``pictures`` from ``train``'s leading principal components of 8x8 patches, one per latent channel.

    (n, 3, h, w) in [0, 1], sides multiples of 8. An autoencoder that does not beat it has learnt nothing nonlinear.
    """
    rows = _patches(train.double())
    mean = rows.mean(0)
    _, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean))
    axes = vectors[:, -coefficients:]
    coded = (_patches(pictures.double()) - mean) @ axes @ axes.T + mean
    return _pictures(coded, pictures.shape)


def _patches(pictures: Tensor) -> Tensor:
    """(n, c, h, w) -> (n h/8 w/8, c 64)."""
    n, c, h, w = pictures.shape
    if h % PATCH or w % PATCH:
        raise ValueError(f"patches of {PATCH} pixels do not fill pictures of {h} x {w}")
    split = pictures.reshape(n, c, h // PATCH, PATCH, w // PATCH, PATCH)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(-1, c * PATCH**2)


def _pictures(rows: Tensor, shape: torch.Size) -> Tensor:
    n, c, h, w = shape
    return rows.reshape(n, h // PATCH, w // PATCH, c, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)
