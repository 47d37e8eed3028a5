"""What the page of the decoder rests on: its formulas, whose code stands at its end."""

from atelier.methods.focal_frequency import focal_frequency_loss
from atelier.methods.perceptual import perceptual_distance
from atelier.metrics.spectra import log_power_error, power_spectrum_slope_distance, residual_spectrum_distance

FORMULAS = (
    focal_frequency_loss,
    perceptual_distance,
    residual_spectrum_distance,
    power_spectrum_slope_distance,
    log_power_error,
)
