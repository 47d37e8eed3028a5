"""Frechet wavelet distance (Veeramacheneni et al. 2024): a Frechet distance per frequency band, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
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
    """Gaussian fits of packets' coefficients: n pictures, means (packets, d), F (packets, r, d), F^T F the scatter.

    As ``Moments``, a stack of hundreds: memory does not grow with the number of pictures.
    """

    n: int
    mean: FloatArray
    factor: FloatArray


def bands(packets: FloatArray) -> Bands:
    """Fit ``haar_packets``' output, finite floats (packets, n, d); ValueError otherwise."""
    packets = real_array(packets, "packets", "(packets, n, d)")
    mean = packets.mean(axis=1)
    return Bands(packets.shape[1], mean, _reduced(packets - mean[:, None]))


def bands_of(images: Samples, level: int = LEVEL) -> Bands:
    """Fit the packets of pictures (n, c, h, w) in [0, 1], 32 at a time. ValueError as ``haar_packets`` raises."""
    level = check_whole(level, "level")
    fits = (bands(_packets(batch, level)) for batch in image_batches(images, "images"))
    return reduce(lambda one, other: joined([one, other]), fits)


def joined(fits: Sequence[Bands]) -> Bands:
    """The fit of several sets of pictures together (Chan, Golub, LeVeque 1979, on factors).

    Raises ValueError for none and for packets of different shapes, TypeError for anything but ``Bands``.
    """
    if not fits:
        raise ValueError("fits: expected at least one, got none")
    for number, fit in enumerate(fits):
        _check_bands(**{"fits[0]": fits[0], f"fits[{number}]": fit})
    total = sum(fit.n for fit in fits)
    mean = np.sum([fit.mean * (fit.n / total) for fit in fits], axis=0)
    between = np.stack([np.sqrt(fit.n) * (fit.mean - mean) for fit in fits], axis=1)
    return Bands(total, mean, _reduced(np.concatenate([*(fit.factor for fit in fits), between], axis=1)))


def _reduced(factor: FloatArray) -> FloatArray:
    """F (packets, r, d) to R (packets, min(r, d), d) of F = QR: R^T R = F^T F."""
    return np.asarray(np.linalg.qr(factor, mode="r")) if factor.shape[1] > factor.shape[2] else factor


def distance_from_bands(real: Bands, generated: Bands) -> float:
    """Mean Frechet distance over packets, computed in one batch because there are hundreds of small ones.

    Raises ValueError for packets of different shapes and below two pictures, TypeError for anything but ``Bands``.
    """
    _check_bands(real=real, generated=generated)
    for name, fit in (("real", real), ("generated", generated)):
        if fit.n < 2:
            raise ValueError(f"{name}: a covariance needs at least 2 pictures, got {fit.n}")
    roots = [fit.factor / np.sqrt(fit.n - 1) for fit in (real, generated)]
    means = ((real.mean - generated.mean) ** 2).sum()
    traces = sum((root**2).sum() for root in roots)
    shared = np.linalg.svd(roots[0] @ roots[1].swapaxes(1, 2), compute_uv=False).sum()  # as in frechet.py
    return float(means + traces - 2 * shared) / len(real.mean)


def _check_bands(**fits: Bands) -> None:
    """Refuse fits that are not of one space."""
    for name, value in fits.items():
        if not isinstance(value, Bands):
            raise TypeError(f"{name}: expected Bands, got {came(value)}")
    shapes = [fit.mean.shape for fit in fits.values()]
    if len(set(shapes)) > 1:
        raise ValueError(f"{', '.join(fits)}: packets of {shapes[0]} and {shapes[1]}: not one space")


def frechet_wavelet_distance(real: Samples, generated: Samples, level: int = LEVEL) -> float:
    """Mean over packets of the Frechet distance of their coefficients (Veeramacheneni et al. 2024, eq. 5), Haar.

    Pictures (n, c, h, w) and (m, c, h, w) in [0, 1] of one size. Biased upward for small n, as every Frechet
    distance. Raises ValueError as ``haar_packets`` does, for a single picture, and for sets of different sizes.
    """
    sets = [picture_array(real, "real"), picture_array(generated, "generated")]
    return distance_from_bands(*(bands_of(images, level) for images in sets))
