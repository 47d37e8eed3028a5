"""What the page of the latent perceptual loss rests on: its formulas, whose code stands at its end."""

from atelier.methods.latent_perceptual import (
    depth_weights,
    latent_perceptual_loss,
    outlier_mask,
    stage_distance,
    standardised,
    threshold,
)
from atelier.metrics.neighbours import precision_recall_density_coverage

FORMULAS = (
    threshold,
    depth_weights,
    outlier_mask,
    standardised,
    stage_distance,
    latent_perceptual_loss,
    precision_recall_density_coverage,
)
