"""What the page of fine-tuning on art rests on: its formulas, whose code stands at its end."""

from atelier.metrics.frechet import frechet_distance_from_moments
from atelier.metrics.kernel import kernel_distance
from atelier.metrics.neighbours import precision_recall_density_coverage
from atelier.metrics.spectra import power_spectrum_slope_distance, residual_spectrum_distance

FORMULAS = (
    frechet_distance_from_moments,
    kernel_distance,
    residual_spectrum_distance,
    power_spectrum_slope_distance,
    precision_recall_density_coverage,
)
