"""What the page of the signal leak rests on: its formulas, whose code stands at its end."""

from atelier.methods.signal_leak import (
    add_leak,
    covariance_from_white_noise,
    frequency_snr,
    low_components,
    lowest_frequencies,
    mean_of_posterior,
)
from atelier.metrics.kernel import kernel_distance

FORMULAS = (
    add_leak,
    lowest_frequencies,
    low_components,
    frequency_snr,
    mean_of_posterior,
    covariance_from_white_noise,
    kernel_distance,
)
