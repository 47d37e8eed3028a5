"""Input checks shared by all metrics (feature matrices (n, d), pictures (n, c, h, w)), and a feature space without a
network: Haar statistics of opponent colours, for data sets too small for Inception's 2048 dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

FloatArray: TypeAlias = npt.NDArray[np.float64]
Samples: TypeAlias = "npt.NDArray[Any] | torch.Tensor"

BATCH = 32  # pictures in float64 at a time
HAAR_LEVELS = 5  # deepest level; each level must leave at least 2x2 means
LEVEL_RMS = 1 / 255 / np.sqrt(12)  # RMS rounding error of an 8-bit picture in [0, 1], the same in each orthonormal band
RANGE_SLACK = 1e-6  # allows only for the float32 rounding of a clamp

# Rows: luminance, red against green, yellow against blue; orthonormal, so that energies add up to that of RGB.
OPPONENT = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])


def feature_matrix(features: Samples) -> FloatArray:
    """Features as a float64 matrix (n, d), n, d >= 1.

    Raises ValueError for another number of axes, an empty matrix, numbers that are not real, or not finite.
    """
    array = _numpy(features)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"features must be real numbers, got {array.dtype}")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"features must be a non-empty matrix (n, d), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("features are not all finite")
    return array.astype(np.float64, copy=False)


def feature_pair(real: Samples, generated: Samples, at_least: int) -> tuple[FloatArray, FloatArray]:
    """Two feature matrices (n, d) and (m, d) of one feature space, n, m >= ``at_least``; ValueError otherwise."""
    pair = feature_matrix(real), feature_matrix(generated)
    if pair[0].shape[1] != pair[1].shape[1]:
        raise ValueError(f"real features have d={pair[0].shape[1]}, generated d={pair[1].shape[1]}: not one space")
    for name, matrix in zip(("real", "generated"), pair, strict=True):
        if len(matrix) < at_least:
            raise ValueError(f"need at least {at_least} {name} samples, got {len(matrix)}")
    return pair


def image_batch(images: Samples) -> FloatArray:
    """Pictures as float64 (n, c, h, w), values in [0, 1].

    Raises ValueError for integers (8-bit pictures divide by 255 first), another number of axes, an empty batch,
    non-finite values, and values outside [0, 1].
    """
    array = _numpy(images)
    if array.dtype.kind != "f":
        raise ValueError(f"pictures must be floats in [0, 1], got {array.dtype}")
    if array.ndim != 4 or array.size == 0:
        raise ValueError(f"pictures must be a non-empty batch (n, c, h, w), got shape {array.shape}")
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("pictures are not all finite")
    if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
        raise ValueError(f"pictures must be floats in [0, 1], got values from {low:.4g} to {high:.4g}")
    return array.astype(np.float64, copy=False)


def image_batches(images: Samples) -> Iterator[FloatArray]:
    """``image_batch`` of 32 pictures at a time, so that no second copy of a set is held. Refuses an empty set too."""
    for start in range(0, max(len(images), 1), BATCH):
        yield image_batch(images[start : start + BATCH])


def opponent_colours(images: FloatArray) -> FloatArray:
    """(n, 3, h, w) RGB to (R+G+B)/sqrt 3, (R-G)/sqrt 2, (R+G-2B)/sqrt 6, orthonormal; (n, 1, h, w) is unchanged."""
    if images.shape[1] == 1:
        return images
    if images.shape[1] != 3:
        raise ValueError(f"opponent colours need 1 or 3 channels, got {images.shape[1]}")
    return np.einsum("oc,nchw->nohw", OPPONENT, images)


def haar_step(images: FloatArray) -> tuple[FloatArray, FloatArray]:
    """One level of the orthonormal 2-D Haar transform (Mallat 1989): (..., h, w), both sides even.

    Returns the approximation (..., h/2, w/2) and the details (..., 3, h/2, w/2): differences along x (vertical
    edges), along y (horizontal edges), along both (diagonals). Energies add up to the input's.
    """
    a, b = images[..., 0::2, 0::2], images[..., 0::2, 1::2]
    c, d = images[..., 1::2, 0::2], images[..., 1::2, 1::2]
    details = np.stack([a - b + c - d, a + b - c - d, a - b - c + d], axis=-3) / 2
    return (a + b + c + d) / 2, details


def haar_inverse(approximation: FloatArray, details: FloatArray) -> FloatArray:
    """The inverse of ``haar_step``: (..., h, w) and (..., 3, h, w) to (..., 2 h, 2 w)."""
    x, y, xy = np.moveaxis(details, -3, 0)
    images = np.empty((*approximation.shape[:-2], 2 * approximation.shape[-2], 2 * approximation.shape[-1]))
    images[..., 0::2, 0::2] = (approximation + x + y + xy) / 2
    images[..., 0::2, 1::2] = (approximation - x + y - xy) / 2
    images[..., 1::2, 0::2] = (approximation + x - y - xy) / 2
    images[..., 1::2, 1::2] = (approximation - x - y + xy) / 2
    return images


def haar_levels(height: int, width: int) -> int:
    """Levels used on (height, width) pictures: at most 5, sides must halve, and 2x2 means must be left."""
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

    Float64. Raises ValueError as ``image_batch`` does, for other numbers of channels, and where no level fits (odd
    sides or sides below 4).
    """
    return np.concatenate([_haar_statistics(batch) for batch in image_batches(images)])


def _haar_statistics(images: FloatArray) -> FloatArray:
    approximation = opponent_colours(images)
    levels = haar_levels(*approximation.shape[-2:])
    if levels == 0:
        raise ValueError(f"no Haar level fits {approximation.shape[-2]}x{approximation.shape[-1]} pictures")
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


def _numpy(samples: Any) -> npt.NDArray[Any]:
    """A numpy view or copy; tensors are detached and moved to the CPU, bfloat16 (unknown to numpy) becomes float32."""
    if not hasattr(samples, "detach"):
        return np.asarray(samples)
    tensor = samples.detach().cpu()
    return np.asarray((tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy())
