"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020) from nearest neighbours."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from .features import FloatArray, Samples, feature_pair

BLOCK = 1024  # rows of distances at a time: 1024 x n x 8 bytes


def neighbour_radius(features: FloatArray, k: int) -> FloatArray:
    """(n, d) -> (n,): distance to the k-th nearest other sample, 1 <= k < n."""
    # cdist sums (x - y)^2, so d(x, x) is 0 and d(x, y) = d(y, x) to the last bit; by x.y products neither would hold.
    blocks = (cdist(features[i : i + BLOCK], features) for i in range(0, len(features), BLOCK))
    return np.concatenate([np.partition(block, k, axis=1)[:, k] for block in blocks])  # index 0 is the sample itself


def nearest(samples: Samples, known: Samples) -> tuple[np.ndarray, FloatArray]:
    """The nearest of ``known`` (m, d) to each sample (n, d): index (n,) and Euclidean distance (n,), float64.

    Ties give the first. Raises ValueError for different d, an empty matrix or values that are not finite.
    """
    x, y = feature_pair(known, samples, at_least=1)
    indices, distances = [], []
    for start in range(0, len(y), BLOCK):
        block = cdist(y[start : start + BLOCK], x)
        indices.append(block.argmin(axis=1))
        distances.append(block.min(axis=1))
    return np.concatenate(indices), np.concatenate(distances)


def precision_recall_density_coverage(real: Samples, generated: Samples, k: int = 5) -> dict[str, float]:
    """Features (n, d), (m, d) -> {"precision", "recall", "density", "coverage"} (Naeem et al. 2020).

    A sample's ball extends to the k-th nearest other sample of its set, border excluded (strict <).
      precision: share of generated samples inside any real ball
      recall:    share of real samples inside any generated ball
      density:   real balls around a generated sample, mean, divided by k (may exceed 1)
      coverage:  share of real balls that hold a generated sample
    A set against itself scores 1 in all four (without duplicates among its k nearest). For equal laws expect coverage
    ``1 - prod_{i<k} (n-1-i)/(n+m-1-i)``. Float64, memory 1024 x max(n, m) distances.
    Raises ValueError for different d, k < 1, k >= n or k >= m, values that are not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    x, y = feature_pair(real, generated, at_least=k + 1)
    real_radius, generated_radius = neighbour_radius(x, k), neighbour_radius(y, k)
    balls = np.zeros(len(y), dtype=np.int64)  # real balls around each generated sample
    recalled = np.zeros(len(x), dtype=bool)
    nearest = np.full(len(x), np.inf)
    for start in range(0, len(y), BLOCK):
        rows = slice(start, start + BLOCK)
        distance = cdist(y[rows], x)  # (block, n)
        balls[rows] = (distance < real_radius).sum(axis=1)
        recalled |= (distance < generated_radius[rows, None]).any(axis=0)
        nearest = np.minimum(nearest, distance.min(axis=0))
    return {
        "precision": float((balls > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(balls.sum() / (k * len(y))),
        "coverage": float((nearest < real_radius).mean()),
    }
