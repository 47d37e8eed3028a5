"""What the page of shaping distributions rests on: its formulas, whose code stands at its end."""

from atelier.methods.inverse_noise import corrected, error_bound, inverted, noise_path, sampled
from atelier.methods.partial import partial_flow_loss, partial_loss, renoised, two_part_schedule
from atelier.methods.policy_gradient import advantages, clipped_loss
from atelier.methods.rejection import (
    best_of_n_probability,
    reshaped_reward,
    threshold_probability,
    top_k_probability,
)
from atelier.studies.shaping.law import divergence_of, place_shares
from atelier.studies.shaping.trade_off import relative_gap, variance_of

FORMULAS = (
    threshold_probability,
    top_k_probability,
    best_of_n_probability,
    reshaped_reward,
    place_shares,
    divergence_of,
    renoised,
    partial_loss,
    partial_flow_loss,
    two_part_schedule,
    variance_of,
    relative_gap,
    advantages,
    clipped_loss,
    sampled,
    inverted,
    error_bound,
    noise_path,
    corrected,
)
