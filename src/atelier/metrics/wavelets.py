"""Frechet wavelet distance (Veeramacheneni et al. 2024): a Frechet distance per frequency band, without a network."""

from __future__ import annotations

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
    return reduce(merged, (bands(_packets(batch, level)) for batch in image_batches(images, "images")))


def merged(one: Bands, other: Bands) -> Bands:
    """The fits of both sets of pictures together (Chan, Golub, LeVeque 1979, on factors).

    Raises ValueError for packets of different shapes, TypeError for anything but ``Bands``.
    """
    _check_bands(one=one, other=other)
    total, step = one.n + other.n, other.mean - one.mean
    bridge = np.sqrt(one.n * (other.n / total)) * step
    factor = np.concatenate([one.factor, other.factor, bridge[:, None]], axis=1)
    return Bands(total, one.mean + step * (other.n / total), _reduced(factor))


def _reduced(factor: FloatArray) -> FloatArray:
    """F (packets, r, d) to R (packets, d, d) of F = QR where r is well above d: a QR costs as much for few new rows."""
    return np.asarray(np.linalg.qr(factor, mode="r")) if factor.shape[1] > 2 * factor.shape[2] else factor


def distance_from_bands(real: Bands, generated: Bands) -> float:
    """Mean Frechet distance over packets, computed in one batch because there are hundreds of small ones.

    Raises ValueError for packets of different shapes and below two pictures, TypeError for anything but ``Bands``.
    """
    _check_bands(real=real, generated=generated)
    roots = []
    for name, fitted in (("real", real), ("generated", generated)):
        if fitted.n < 2:
            raise ValueError(f"{name}: a covariance needs at least 2 pictures, got {fitted.n}")
        short = fitted.factor.shape[1] <= fitted.factor.shape[2]
        factor = fitted.factor if short else np.asarray(np.linalg.qr(fitted.factor, mode="r"))
        roots.append(factor / np.sqrt(fitted.n - 1))
    means = ((real.mean - generated.mean) ** 2).sum()
    traces = sum((root**2).sum() for root in roots)
    shared = np.linalg.svd(roots[0] @ roots[1].swapaxes(1, 2), compute_uv=False).sum()  # as in frechet.py
    return float(means + traces - 2 * shared) / len(real.mean)


def _check_bands(**fits: Bands) -> None:
    """Refuse what is no pair of fits in one space."""
    for name, value in fits.items():
        if not isinstance(value, Bands):
            raise TypeError(f"{name}: expected Bands, got {came(value)}")
    one, other = fits.values()
    if one.mean.shape != other.mean.shape:
        raise ValueError(f"{', '.join(fits)}: packets of {one.mean.shape} and {other.mean.shape}: not one space")


def frechet_wavelet_distance(real: Samples, generated: Samples, level: int = LEVEL) -> float:
    """Mean over packets of the Frechet distance of their coefficients (Veeramacheneni et al. 2024, eq. 5), Haar.

    Pictures (n, c, h, w) and (m, c, h, w) in [0, 1] of one size. Biased upward for small n, as every Frechet
    distance. Raises ValueError as ``haar_packets`` does, for a single picture, and for sets of different sizes.
    """
    sets = [picture_array(real, "real"), picture_array(generated, "generated")]
    return distance_from_bands(*(bands_of(images, level) for images in sets))
