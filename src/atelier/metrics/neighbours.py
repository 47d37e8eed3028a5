"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020) from nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial.distance import cdist

from atelier.data.checks import FloatArray, Samples, check_whole, feature_matrix, feature_pair

BLOCK = 1024  # rows of distances at a time: 1024 x n x 8 bytes


def _blocks(samples: FloatArray, known: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
    """Rows of ``samples`` (n, d), and their distances (b, m) to ``known`` (m, d), b <= BLOCK.

    All blocks are written to the same memory: a block is to be reduced, not kept, before the next is taken.
    """
    # cdist sums (x - y)^2, so d(x, x) is 0 and d(x, y) = d(y, x) to the last bit; by x.y products neither would hold.
    memory = np.empty((min(BLOCK, len(samples)), len(known)))
    for start in range(0, len(samples), BLOCK):
        rows = slice(start, min(start + BLOCK, len(samples)))
        yield rows, cdist(samples[rows], known, out=memory[: rows.stop - rows.start])


def neighbour_radius(features: Samples, k: int) -> FloatArray:
    """(n, d) -> (n,): distance to the k-th nearest other sample, 1 <= k < n, float64.

    Memory: 1024 x n distances. Raises ValueError for another k, an empty matrix or values that are not finite.
    """
    x = feature_matrix(features)
    k = check_whole(k, "k", least=1, most=len(x) - 1)
    radius = np.empty(len(x))
    for rows, distance in _blocks(x, x):
        distance.partition(k, axis=1)  # in place; index 0 is the sample itself
        radius[rows] = distance[:, k]
    return radius


def nearest(samples: Samples, known: Samples) -> tuple[np.ndarray, FloatArray]:
    """The nearest of ``known`` (m, d) to each sample (n, d): index (n,) and Euclidean distance (n,), float64.

    Ties give the first. Memory: 1024 x m distances. Raises ValueError for different d, an empty matrix or values that
    are not finite.
    """
    y, x = feature_pair(samples, known, at_least=1, names=("samples", "known"))
    indices, distances = np.empty(len(y), dtype=np.intp), np.empty(len(y))
    for rows, distance in _blocks(y, x):
        indices[rows], distances[rows] = distance.argmin(axis=1), distance.min(axis=1)
    return indices, distances


def precision_recall_density_coverage(real: Samples, generated: Samples, k: int = 5) -> dict[str, float]:
    """Features (n, d), (m, d) -> {"precision", "recall", "density", "coverage"} (Naeem et al. 2020).

    A sample's ball extends to the k-th nearest other sample of its set, border excluded (strict <).
      precision: share of generated samples inside any real ball
      recall:    share of real samples inside any generated ball
      density:   real balls around a generated sample, mean, divided by k (may exceed 1)
      coverage:  share of real balls that hold a generated sample
    A set against itself scores 1 in all four (without duplicates among its k nearest). For equal laws expect coverage
    ``1 - prod_{i<k} (n-1-i)/(n+m-1-i)``. Memory beyond that of the features in float64: 1024 x max(n, m) distances, and
    an eighth of that to compare them (`benchmarks/neighbours.py`).
    Raises ValueError for different d, k < 1, k >= n or k >= m, values that are not finite.
    """
    k = check_whole(k, "k")
    x, y = feature_pair(real, generated, at_least=k + 1)
    real_radius, generated_radius = neighbour_radius(x, k), neighbour_radius(y, k)
    balls = np.zeros(len(y), dtype=np.int64)  # real balls around each generated sample
    recalled = np.zeros(len(x), dtype=bool)
    nearest = np.full(len(x), np.inf)
    for rows, distance in _blocks(y, x):  # (block, n)
        balls[rows] = (distance < real_radius).sum(axis=1)
        recalled |= (distance < generated_radius[rows, None]).any(axis=0)
        nearest = np.minimum(nearest, distance.min(axis=0))
    return {
        "precision": float((balls > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(balls.sum() / (k * len(y))),
        "coverage": float((nearest < real_radius).mean()),
    }
