"""What the page of the base rests on: its formulas, whose code stands at its end."""

from atelier.diffusion import min_snr_weight, noised, resolution_matched_betas, signal_and_noise
from atelier.metrics.features import haar_statistics
from atelier.metrics.reconstruction import linear_patch_code

FORMULAS = (resolution_matched_betas, signal_and_noise, noised, min_snr_weight, haar_statistics, linear_patch_code)
