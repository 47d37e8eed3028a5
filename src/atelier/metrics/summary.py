"""The distances between a generated and a real set that every study reports."""

from typing import NamedTuple

from atelier.data.checks import FloatArray, Samples, came, picture_tensor
from atelier.metrics.features import haar_statistics
from atelier.metrics.frechet import frechet_distance
from atelier.metrics.kernel import kernel_distance
from atelier.metrics.spectra import mean_power_spectrum, mean_residual_spectrum, spectrum_distance, spectrum_slope

SLOPE_LOW = 2  # cycles per picture: at 64 px, [10, 32] is 1.7 octaves; [2, 32] is four


class Distances(NamedTuple):
    """Lower is closer. Frechet and kernel distance of Haar statistics; PR and PSD as Sickert et al. 2025 define them.

    ``psd`` fits slopes from 2 cycles a picture, ``psd10`` from 10, as is usual in the literature on art.
    """

    fd_haar: float
    kd_haar: float
    pr: float
    psd: float
    psd10: float


class Measured(NamedTuple):
    """Statistics of one set of pictures: features (n, d), mean power spectrum and mean residual spectrum (h, w)."""

    features: FloatArray
    spectrum: FloatArray
    residual: FloatArray


def measure(pictures: Samples) -> Measured:
    """The statistics that the distances compare, from pictures (n, 1 or 3, h, w) in [0, 1].

    Raises ValueError as ``picture_array`` does, and for sides that no Haar level fits.
    """
    return Measured(haar_statistics(pictures), mean_power_spectrum(pictures), mean_residual_spectrum(pictures))


def distances(real: Measured, generated: Measured) -> Distances:
    """All distances between two measured sets of pictures of one size; TypeError for anything but ``Measured``."""
    for name, value in (("real", real), ("generated", generated)):
        if not isinstance(value, Measured):
            raise TypeError(f"{name}: expected Measured, got {came(value)}")
    slopes = [
        abs(spectrum_slope(real.spectrum, low) - spectrum_slope(generated.spectrum, low)) for low in (SLOPE_LOW, 10)
    ]
    return Distances(
        fd_haar=frechet_distance(real.features, generated.features),
        kd_haar=kernel_distance(real.features, generated.features),
        pr=spectrum_distance(real.residual, generated.residual),
        psd=slopes[0],
        psd10=slopes[1],
    )


def brightness_spread(pictures: Samples) -> float:
    """Standard deviation of the pictures' mean levels; (n, 1 or 3, h, w) in [0, 1], n >= 2.

    Too small where sampling starts from noise that training never reaches (Everaert et al. 2024).
    Raises ValueError as ``picture_array`` does (8-bit pictures divide by 255 first), and for a single picture.
    """
    x = picture_tensor(pictures, "pictures")
    if len(x) < 2:
        raise ValueError(f"pictures: a spread needs at least two pictures, got {len(x)}")
    return float(x.mean((1, 2, 3)).std())
