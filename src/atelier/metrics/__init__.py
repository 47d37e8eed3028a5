"""Statistics of pictures (n, c, h, w) in [0, 1], and distances of generated to real ones, in float64."""

from .features import haar_statistics
from .frechet import Moments, frechet_distance, frechet_distance_from_moments
from .kernel import kernel_distance, subset_kernel_distance
from .masked import high_power
from .neighbours import nearest, precision_recall_density_coverage
from .spectra import (
    SpectrumMean,
    log_power_error,
    log_power_ratios,
    mean_power_spectrum,
    mean_residual_spectrum,
    power_spectrum_mean,
    power_spectrum_slope,
    power_spectrum_slope_distance,
    power_spectrum_slopes,
    radial_power,
    residual_spectrum_distance,
    residual_spectrum_label,
    residual_spectrum_mean,
    spectrum_distance,
    spectrum_slope,
)
from .wavelets import frechet_wavelet_distance

__all__ = [
    "Moments",
    "SpectrumMean",
    "frechet_distance",
    "frechet_distance_from_moments",
    "frechet_wavelet_distance",
    "haar_statistics",
    "high_power",
    "kernel_distance",
    "log_power_error",
    "log_power_ratios",
    "mean_power_spectrum",
    "mean_residual_spectrum",
    "nearest",
    "power_spectrum_mean",
    "power_spectrum_slope",
    "power_spectrum_slope_distance",
    "power_spectrum_slopes",
    "precision_recall_density_coverage",
    "radial_power",
    "residual_spectrum_distance",
    "residual_spectrum_label",
    "residual_spectrum_mean",
    "spectrum_distance",
    "spectrum_slope",
    "subset_kernel_distance",
]
