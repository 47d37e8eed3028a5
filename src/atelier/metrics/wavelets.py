"""Frechet wavelet distance (Veeramacheneni et al. 2024): a Frechet distance per frequency band, without a network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from atelier.data.checks import FloatArray, Samples, came, check_whole, image_batches, picture_array, real_array

from .features import haar_step

LEVEL = 4  # the paper's; at 64 px a packet is 4x4 in each channel


def haar_packets(images: Samples, level: int = LEVEL) -> FloatArray:
    """Full Haar wavelet packet transform of (n, c, h, w) in [0, 1]: (4^level, n, c h w / 4^level), orthonormal.

    Every band is split again, unlike in the wavelet transform. Raises ValueError as ``picture_array`` does, for a level
    below 1, and for sides that 2^level does not divide.
    """
    level = check_whole(level, "level")
    return np.concatenate([_packets(batch, level) for batch in image_batches(images, "images")], axis=1)


def _packets(batch: FloatArray, level: int) -> FloatArray:
    height, width = batch.shape[-2:]
    if height % 2**level or width % 2**level:
        raise ValueError(f"level {level} needs sides that {2**level} divides, got {height}x{width}")
    bands = batch[None]  # (packets, n, c, h, w)
    for _ in range(level):
        approximation, details = haar_step(bands)
        split = np.concatenate([approximation[..., None, :, :], details], axis=-3)  # (packets, n, c, 4, h/2, w/2)
        bands = np.moveaxis(split, -3, 1).reshape(-1, *approximation.shape[1:])
    return bands.reshape(len(bands), len(batch), -1)


class Bands(NamedTuple):
    """Gaussian fits of packets' coefficients: means (packets, d), and A (packets, r, d) with A^T A the covariance."""

    mean: FloatArray
    root: FloatArray


def bands(packets: FloatArray) -> Bands:
    """Fit ``haar_packets``' output, finite floats (packets, n, d), n >= 2; ValueError otherwise."""
    packets = real_array(packets, "packets", "(packets, n, d)")
    n, d = packets.shape[1:]
    if n < 2:
        raise ValueError(f"packets: a covariance needs at least 2 pictures, got {n}")
    mean = packets.mean(axis=1)
    factor = (packets - mean[:, None]) / np.sqrt(n - 1)
    return Bands(mean, np.asarray(np.linalg.qr(factor, mode="r")) if n > d else factor)


def distance_from_bands(real: Bands, generated: Bands) -> float:
    """Mean Frechet distance over packets, computed in one batch because there are hundreds of small ones.

    Raises ValueError for packets of different shapes, TypeError for anything but ``Bands``.
    """
    for name, value in (("real", real), ("generated", generated)):
        if not isinstance(value, Bands):
            raise TypeError(f"{name}: expected Bands, got {came(value)}")
    if real.mean.shape != generated.mean.shape:
        raise ValueError(f"real, generated: packets of {real.mean.shape} and {generated.mean.shape}: not one space")
    means = ((real.mean - generated.mean) ** 2).sum()
    traces = (real.root**2).sum() + (generated.root**2).sum()
    shared = np.linalg.svd(real.root @ generated.root.swapaxes(1, 2), compute_uv=False).sum()  # as in frechet.py
    return float(means + traces - 2 * shared) / len(real.mean)


def frechet_wavelet_distance(real: Samples, generated: Samples, level: int = LEVEL) -> float:
    """Mean over packets of the Frechet distance of their coefficients (Veeramacheneni et al. 2024, eq. 5), Haar.

    Pictures (n, c, h, w) and (m, c, h, w) in [0, 1] of one size. Biased upward for small n, as every Frechet
    distance. Raises ValueError as ``haar_packets`` does, for a single picture, and for sets of different sizes.
    """
    sets = {"real": picture_array(real, "real"), "generated": picture_array(generated, "generated")}
    for name, images in sets.items():
        if len(images) < 2:
            raise ValueError(f"{name}: a covariance needs at least 2 pictures, got {len(images)}")
    return distance_from_bands(*(bands(haar_packets(images, level)) for images in sets.values()))
