"""A feature space without a network: Haar statistics of opponent colours, for data sets too small for Inception's 2048
dimensions."""

from __future__ import annotations

import numpy as np

from atelier.data.checks import FloatArray, Samples, check_whole, image_batches, real_array

HAAR_LEVELS = 5  # deepest level; each level must leave at least 2x2 means
LEVEL_RMS = 1 / 255 / np.sqrt(12)  # RMS rounding error of an 8-bit picture in [0, 1], the same in each orthonormal band

# Rows: luminance, red against green, yellow against blue; orthonormal, so that energies add up to that of RGB.
OPPONENT = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])


def opponent_colours(images: FloatArray) -> FloatArray:
    """(n, 3, h, w) RGB to (R+G+B)/sqrt 3, (R-G)/sqrt 2, (R+G-2B)/sqrt 6, orthonormal; (n, 1, h, w) is unchanged.

    Finite floats of any range. Raises ValueError for other numbers of channels.
    """
    images = real_array(images, "images", "(n, c, h, w)")
    if images.shape[1] == 1:
        return images
    if images.shape[1] != 3:
        raise ValueError(f"images: opponent colours need 1 or 3 channels, got {images.shape[1]}")
    return np.einsum("oc,nchw->nohw", OPPONENT, images)


def haar_step(images: FloatArray) -> tuple[FloatArray, FloatArray]:
    """One level of the orthonormal 2-D Haar transform (Mallat 1989): finite floats (..., h, w), both sides even.

    Returns the approximation (..., h/2, w/2) and the details (..., 3, h/2, w/2): differences along x (vertical
    edges), along y (horizontal edges), along both (diagonals). Energies add up to the input's.
    Raises ValueError for odd sides.
    """
    images = real_array(images, "images", "(..., h, w)")
    height, width = images.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"images: a Haar step halves both sides, {height}x{width} cannot be halved")
    a, b = images[..., 0::2, 0::2], images[..., 0::2, 1::2]
    c, d = images[..., 1::2, 0::2], images[..., 1::2, 1::2]
    details = np.stack([a - b + c - d, a + b - c - d, a - b - c + d], axis=-3) / 2
    return (a + b + c + d) / 2, details


def haar_inverse(approximation: FloatArray, details: FloatArray) -> FloatArray:
    """The inverse of ``haar_step``: (..., h, w) and (..., 3, h, w) to (..., 2 h, 2 w); ValueError for other shapes."""
    approximation = real_array(approximation, "approximation", "(..., h, w)")
    details = real_array(details, "details", "(..., 3, h, w)")
    if details.shape != (*approximation.shape[:-2], 3, *approximation.shape[-2:]):
        raise ValueError(f"details: expected (..., 3, h, w) for {approximation.shape}, got shape {details.shape}")
    x, y, xy = np.moveaxis(details, -3, 0)
    images = np.empty((*approximation.shape[:-2], 2 * approximation.shape[-2], 2 * approximation.shape[-1]))
    images[..., 0::2, 0::2] = (approximation + x + y + xy) / 2
    images[..., 0::2, 1::2] = (approximation - x + y - xy) / 2
    images[..., 1::2, 0::2] = (approximation + x - y - xy) / 2
    images[..., 1::2, 1::2] = (approximation - x - y + xy) / 2
    return images


def haar_levels(height: int, width: int) -> int:
    """Levels used on (height, width) pictures: at most 5, sides must halve, and 2x2 means must be left."""
    height, width = check_whole(height, "height"), check_whole(width, "width")
    levels = 0
    while levels < HAAR_LEVELS and height % 2 == width % 2 == 0 and min(height, width) >= 4:
        height, width, levels = height // 2, width // 2, levels + 1
    return levels


def haar_statistics(images: Samples) -> FloatArray:
    """At most 51 features per picture, without a network: (n, 1 or 3, h, w) in [0, 1] to (n, d).

    Per opponent-colour channel (see ``opponent_colours``), in this order:
      1. the mean;
      2. for levels 1 (finest) to J, for differences along x, along y, along both: log RMS of the Haar coefficients;
      3. log RMS of the approximation at level J minus the mean (the coarse layout).
    RMS is per coefficient of the orthonormal transform; logs are natural, of sqrt(energy + q^2), with q = 1/255/sqrt 12
    the RMS rounding error of 8-bit pictures, below which energies mean nothing. J = ``haar_levels(h, w)``, at most 5:
    d = 3 (3 J + 2) = **51 for 64x64 RGB** (17 grey) and for every larger size that is a multiple of 32; 42 for 32x32.

    Float64. Raises ValueError as ``picture_array`` does, and where no level fits (odd sides or sides below 4).
    """
    return np.concatenate([_haar_statistics(batch) for batch in image_batches(images, "images")])


def _haar_statistics(images: FloatArray) -> FloatArray:
    approximation = opponent_colours(images)
    levels = haar_levels(*approximation.shape[-2:])
    if levels == 0:
        raise ValueError(f"images: no Haar level fits {approximation.shape[-2]}x{approximation.shape[-1]} pictures")
    mean = approximation.mean(axis=(-2, -1), keepdims=True)
    bands = []
    for _ in range(levels):
        approximation, details = haar_step(approximation)
        bands.append(_log_rms(details))  # (n, c, 3)
    coarse = _log_rms(approximation - mean * 2**levels)  # each orthonormal step doubles the mean
    statistics = np.concatenate([mean[..., 0], *bands, coarse[..., None]], axis=-1)  # (n, c, 3 J + 2)
    return statistics.reshape(len(statistics), -1)


def _log_rms(coefficients: FloatArray) -> FloatArray:
    """log sqrt(mean square + q^2) over the last two axes."""
    return 0.5 * np.log((coefficients**2).mean(axis=(-2, -1)) + LEVEL_RMS**2)
