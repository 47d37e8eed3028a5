"""What the page of post-training in pixel space rests on: its formulas, whose code stands at its end."""

from atelier.methods.pixel_space import clean_pixel_loss, pixel_loss
from atelier.methods.preference import dpo_loss, implicit_accuracy, simpo_loss
from atelier.metrics.masked import high_power

FORMULAS = (pixel_loss, clean_pixel_loss, dpo_loss, simpo_loss, implicit_accuracy, high_power)
