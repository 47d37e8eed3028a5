"""Kernel distance (KID on Inception features): unbiased, so usable with too few samples for the Frechet distance."""

from __future__ import annotations

import numpy as np

from atelier.data.checks import FloatArray, Samples, check_whole, feature_pair

BLOCK = 1024  # rows of the kernel matrix at a time: twice 1024 x n x 8 bytes


def polynomial_kernel(x: FloatArray, y: FloatArray) -> FloatArray:
    """(x.y / d + 1)^3, the kernel of KID (Binkowski et al. 2018): (n, d), (m, d) -> (n, m).

    Raises ValueError for different d, an empty matrix or values that are not finite.
    """
    return _kernel(*feature_pair(x, y, at_least=1, names=("x", "y")))


def _kernel(x: FloatArray, y: FloatArray) -> FloatArray:
    base = x @ y.T
    base /= x.shape[1]
    base += 1
    cube = base * base  # numpy's ** 3 takes several times as long
    cube *= base
    return cube


def kernel_distance(real: Samples, generated: Samples) -> float:
    """Squared maximum mean discrepancy of features (n, d) and (m, d), n, m >= 2, float64, over all samples.

    The U-statistic (Gretton et al. 2012, eq. 3), diagonals left out, any n and m: mean 0 under equal laws, so it is
    often negative there. Unlike most KID code it draws no random subsets (``subset_kernel_distance`` does).
    Raises ValueError for different d, a single sample, an empty matrix or values that are not finite.
    """
    x, y = feature_pair(real, generated, at_least=2)
    return _mean_within(x) + _mean_within(y) - 2 * _mean_between(x, y)


def _mean_within(x: FloatArray) -> float:
    """Mean kernel over ordered pairs of different samples, n (n - 1) of them."""
    total = 0.0
    for start in range(0, len(x), BLOCK):
        total += _sum_without_diagonal(_kernel(x[start : start + BLOCK], x), start)
    return total / (len(x) * (len(x) - 1))


def _sum_without_diagonal(block: FloatArray, start: int) -> float:
    """The sum of rows of the kernel matrix from ``start`` on, but for each sample's kernel with itself."""
    np.fill_diagonal(block[:, start:], 0)
    return float(block.sum())


def _mean_between(x: FloatArray, y: FloatArray) -> float:
    """Mean kernel over all n m pairs."""
    return sum(float(_kernel(x[i : i + BLOCK], y).sum()) for i in range(0, len(x), BLOCK)) / (len(x) * len(y))


def subset_kernel_distance(
    real: Samples, generated: Samples, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and standard deviation of ``kernel_distance`` over random subsets: KID as papers print it (torch-fidelity).

    Each subset is ``size`` of the n and ``size`` of the m samples, none twice. Draws are torch-fidelity's, number by
    number (numpy's ``RandomState``, whose stream is frozen), so that equal features in equal order give its values. The
    deviation is of the subsets, which overlap: no standard error. Float64, where torch-fidelity sums in the features'
    own type. Raises ValueError for fewer than ``size`` samples, different d, or values that are not finite;
    TypeError for counts that are none.
    """
    subsets, size = check_whole(subsets, "subsets"), check_whole(size, "size", least=2)
    seed = check_whole(seed, "seed", least=0, most=2**32 - 1)
    x, y = feature_pair(real, generated, at_least=size)
    draws = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        chosen = [samples[draws.choice(len(samples), size, replace=False)] for samples in (x, y)]
        values.append(_mean_within(chosen[0]) + _mean_within(chosen[1]) - 2 * _mean_between(*chosen))
    return float(np.mean(values)), float(np.std(values))
