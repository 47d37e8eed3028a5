"""What the page of the prompts rests on: its formulas, whose code stands at its end."""

from atelier.data.prompts import prompt
from atelier.metrics.frechet import frechet_distance_from_moments
from atelier.metrics.spectra import power_spectrum_slope_distance, residual_spectrum_distance

FORMULAS = (prompt, frechet_distance_from_moments, residual_spectrum_distance, power_spectrum_slope_distance)
