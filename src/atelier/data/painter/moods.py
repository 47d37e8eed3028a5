"""What a feeling does to palette and light: one row an emotion, applied to the finished picture."""

from dataclasses import dataclass

import numpy as np

from atelier.data.painter.canvas import grey
from atelier.data.painter.shapes import Array, Colour


@dataclass(frozen=True)
class Mood:
    """Palette and light of one emotion."""

    gamma: float  # > 1 darkens
    contrast: float
    chroma: float  # factor of saturation
    shadow: Colour  # what black drifts to
    glare: Colour  # what white drifts to
    smile: float  # of a face, -1 to 1
    lights: tuple[str, ...]  # the hours that suit it


MOODS = {
    "amusement": Mood(0.75, 1.1, 1.4, (0.22, 0.10, 0.26), (1.0, 0.96, 0.80), 1.0, ("noon", "snow")),
    "awe": Mood(1.05, 1.35, 1.15, (0.03, 0.02, 0.22), (1.0, 0.93, 0.70), 0.2, ("dawn", "dusk", "night")),
    "contentment": Mood(0.85, 0.82, 0.95, (0.20, 0.17, 0.10), (1.0, 0.94, 0.80), 0.7, ("noon", "dawn")),
    "excitement": Mood(0.92, 1.3, 1.75, (0.14, 0.0, 0.16), (1.0, 0.95, 0.85), 0.9, ("noon", "dusk")),
    "anger": Mood(1.25, 1.35, 1.1, (0.16, 0.0, 0.0), (1.0, 0.74, 0.62), -1.0, ("storm", "dusk")),
    "disgust": Mood(1.1, 0.85, 0.75, (0.10, 0.13, 0.02), (0.86, 0.92, 0.58), -0.7, ("mist", "storm")),
    "fear": Mood(1.35, 1.1, 0.55, (0.02, 0.04, 0.10), (0.74, 0.84, 0.92), -0.6, ("night", "storm")),
    "sadness": Mood(1.15, 0.85, 0.5, (0.07, 0.11, 0.19), (0.76, 0.83, 0.94), -0.9, ("mist", "storm", "night")),
    "something else": Mood(1.0, 1.0, 1.0, (0.02, 0.02, 0.02), (1.0, 1.0, 1.0), 0.0, ("noon", "mist", "snow")),
}


def graded(picture: Array, mood: Mood) -> Array:
    """The picture (..., 3) in [0, 1] in the light of a mood."""
    level = grey(picture)[..., None]
    coloured = np.clip(level + (picture - level) * mood.chroma, 0.0, 1.0) ** mood.gamma
    contrasted = np.clip(0.5 + (coloured - 0.5) * mood.contrast, 0.0, 1.0)
    shadow, glare = np.array(mood.shadow), np.array(mood.glare)
    return shadow + (glare - shadow) * contrasted
