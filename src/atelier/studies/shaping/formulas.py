"""What the page of shaping distributions rests on: its formulas, whose code stands at its end."""

from atelier.methods.inverse_noise import error_bound, inverted, noise_path
from atelier.methods.partial import partial_flow_loss, partial_loss, renoised, two_part_schedule
from atelier.methods.policy_gradient import advantages, clipped_loss
from atelier.methods.rejection import best_of_n_probability, reshaped_reward, top_k_probability

FORMULAS = (
    top_k_probability,
    best_of_n_probability,
    reshaped_reward,
    renoised,
    partial_loss,
    partial_flow_loss,
    two_part_schedule,
    advantages,
    clipped_loss,
    inverted,
    error_bound,
    noise_path,
)
