"""Frechet distance between Gaussian fits of two sets of features, without a matrix square root.

Biased upward for small n, and the bias can invert a ranking (tests show it): report n, use equal n, report KID too.
It is called FID only on Inception features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from atelier.data.checks import (
    FloatArray,
    Samples,
    array_of,
    came,
    check_finite,
    check_whole,
    feature_matrix,
    number_row,
)


@dataclass
class Moments:
    """Count, mean and scatter of features that arrive in batches; memory does not grow with their number.

    The scatter sum (x - mean)(x - mean)^T is kept as a factor F with F^T F = scatter: squaring it would lose half the
    digits of its small singular values, which is what the trace term sums.
    """

    count: int = 0
    mean: FloatArray = field(default_factory=lambda: np.zeros(0))  # (d,)
    factor: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))  # (r, d), r <= 2 d

    @classmethod
    def from_covariance(cls, count: int, mean: Samples, covariance: Samples) -> Self:
        """Published statistics: mean (d,) and covariance (d, d) of ``count`` samples.

        Raises ValueError for shapes that do not fit, asymmetry, a negative eigenvalue beyond rounding, and fewer than
        two samples.
        """
        count = check_whole(count, "count", least=2)
        centre, matrix = number_row(mean, "mean"), feature_matrix(covariance, "covariance")
        if matrix.shape != (len(centre), len(centre)):
            raise ValueError(f"covariance has shape {matrix.shape}, the mean has d={len(centre)}")
        check_finite(centre, "mean")
        return cls(count, centre, np.sqrt(count - 1) * covariance_factor(matrix))

    def update(self, features: Samples) -> Self:
        """Add a batch (b, d), b >= 1; returns self. ValueError as ``feature_matrix`` raises, or for another d."""
        batch = feature_matrix(features)
        centred = batch - batch[0]  # shift first: the mean of a far-off batch would round at its offset's scale
        offset = centred.mean(axis=0)
        return self.merge(Moments(len(batch), batch[0] + offset, centred - offset))

    def merge(self, added: Moments) -> Self:
        """Add the samples behind ``added`` (the update of Chan, Golub, LeVeque 1979, on factors); returns self.

        Raises ValueError for features of another d, TypeError for anything but ``Moments``.
        """
        _check_moments(added, "added")
        if self.count == 0:
            self.count, self.mean, self.factor = added.count, added.mean, reduced(added.factor)
        elif added.count:
            if self.mean.shape != added.mean.shape:
                raise ValueError(f"features of d={len(added.mean)} do not join features of d={len(self.mean)}")
            total = self.count + added.count
            step = added.mean - self.mean
            bridge = np.sqrt(self.count * (added.count / total)) * step
            self.factor = np.concatenate([self.factor, added.factor, bridge[None]])
            if len(self.factor) > 2 * len(step):  # not after each batch: QR costs d^2 per row however few rows are new
                self.factor = reduced(self.factor)
            self.mean = self.mean + step * (added.count / total)
            self.count = total
        return self

    @property
    def covariance(self) -> FloatArray:
        """(d, d), divided by n - 1; ValueError below two samples."""
        root = self.covariance_root()
        return root.T @ root

    def covariance_root(self) -> FloatArray:
        """A (r, d), r <= d, with A^T A = covariance; ValueError below two samples."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        return reduced(self.factor) / np.sqrt(self.count - 1)


def reduced(factor: FloatArray) -> FloatArray:
    """F (r, d) to R (min(r, d), d) of F = QR: R^T R = F^T F; ValueError for what is no matrix of finite floats."""
    factor = _matrix(factor, "factor")
    return np.asarray(np.linalg.qr(factor, mode="r")) if factor.shape[0] > factor.shape[1] else factor


def covariance_factor(covariance: FloatArray) -> FloatArray:
    """A = Lambda^{1/2} U^T (d, d), A^T A = covariance = U Lambda U^T; eigenvalues within rounding are set to 0.

    Raises ValueError for a matrix that is not square, not symmetric or has a negative eigenvalue beyond rounding.
    """
    covariance = feature_matrix(covariance, "covariance")
    if covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"covariance: expected (d, d), got shape {covariance.shape}")
    scale = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > 1e-6 * scale:  # published ones are often float32
        raise ValueError("covariance is not symmetric")
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    if values[0] < -1e-6 * scale * len(values):
        raise ValueError(f"covariance has the negative eigenvalue {values[0]:.3g}")
    values[values < len(values) * np.finfo(np.float64).eps * values[-1]] = 0
    return np.sqrt(values)[:, None] * vectors.T


def covariance_root_trace(root1: FloatArray, root2: FloatArray) -> float:
    """Tr((S1 S2)^{1/2}) = ||A B^T||_*, for S1 = A^T A, S2 = B^T B; A (r, d), B (s, d).

    The eigenvalues of S1 S2 = A^T (A B^T) B are the squared singular values of A B^T: real and never negative.
    Raises ValueError for different d.
    """
    root1, root2 = _matrix(root1, "root1"), _matrix(root2, "root2")
    if root1.shape[1] != root2.shape[1]:
        raise ValueError(f"root2: expected (s, {root1.shape[1]}) as root1 has, got shape {root2.shape}")
    return float(np.linalg.svd(root1 @ root2.T, compute_uv=False).sum())


def frechet_distance_from_moments(real: Moments, generated: Moments) -> float:
    """|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^{1/2}), Heusel et al. 2017, eq. 6; units: features squared.

    Rounding of the three traces may leave it below 0 by about 1e-14 of them; it is not clipped.
    Raises ValueError for different d or below two samples, TypeError for anything but ``Moments``.
    """
    _check_moments(real, "real")
    _check_moments(generated, "generated")
    if real.mean.shape != generated.mean.shape:
        raise ValueError(f"real features have d={len(real.mean)}, generated d={len(generated.mean)}: not one space")
    root1, root2 = real.covariance_root(), generated.covariance_root()
    means = float(((real.mean - generated.mean) ** 2).sum())
    return means + float((root1**2).sum() + (root2**2).sum()) - 2 * covariance_root_trace(root1, root2)


def frechet_distance(real: Samples, generated: Samples) -> float:
    """Frechet distance of features (n, d) and (m, d), n, m >= 2, float64 (FID on Inception features).

    Raises ValueError for different d, a single sample, an empty matrix or values that are not finite.
    """
    sets = {"real": feature_matrix(real, "real"), "generated": feature_matrix(generated, "generated")}
    for name, features in sets.items():
        if len(features) < 2:
            raise ValueError(f"{name}: a covariance needs at least 2 samples, got {len(features)}")
    return frechet_distance_from_moments(*(Moments().update(features) for features in sets.values()))


def _matrix(x: Samples, name: str) -> FloatArray:
    """A factor (r, d) of a covariance; it may have no rows."""
    array = array_of(x, name)
    return array if array.ndim == 2 and len(array) == 0 else feature_matrix(array, name)


def _check_moments(value: object, name: str) -> None:
    if not isinstance(value, Moments):
        raise TypeError(f"{name}: expected Moments, got {came(value)}")
