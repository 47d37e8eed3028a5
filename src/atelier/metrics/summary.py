"""The distances that every study reports, of one generated set to one real set."""

from typing import NamedTuple

from torch import Tensor

from atelier.metrics.features import haar_statistics
from atelier.metrics.frechet import frechet_distance
from atelier.metrics.kernel import kernel_distance
from atelier.metrics.spectra import power_spectrum_slope_distance, residual_spectrum_distance

SLOPE_LOW = 2  # cycles a picture: at 64 px, [10, 32] is 1.7 octaves; [2, 32] is four


class Distances(NamedTuple):
    """Lower is closer. FD and KID on Haar statistics (no network); PR and PSD as Sickert et al. 2025 define them.

    ``psd`` fits slopes from 2 cycles a picture, ``psd10`` from 10, as is usual in the literature on art.
    """

    fd: float
    kid: float
    pr: float
    psd: float
    psd10: float


def distances(real: Tensor, generated: Tensor) -> Distances:
    """All distances between (n, 3, h, w) and (m, 3, h, w), in [0, 1]."""
    real_features, generated_features = haar_statistics(real), haar_statistics(generated)
    return Distances(
        fd=frechet_distance(real_features, generated_features),
        kid=kernel_distance(real_features, generated_features),
        pr=residual_spectrum_distance(real, generated),
        psd=power_spectrum_slope_distance(real, generated, low=SLOPE_LOW),
        psd10=power_spectrum_slope_distance(real, generated, low=10),
    )
