"""What a feeling does to palette and light: one row per emotion, applied to the finished picture."""

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
    "amusement": Mood(0.75, 1.1, 1.4, (0.24, 0.10, 0.28), (1.0, 0.97, 0.76), 1.0, ("noon", "snow")),
    "awe": Mood(1.0, 1.25, 1.1, (0.05, 0.05, 0.32), (1.0, 0.92, 0.62), 0.2, ("dawn", "dusk", "night")),
    "contentment": Mood(0.85, 0.78, 0.85, (0.26, 0.19, 0.10), (1.0, 0.95, 0.84), 0.7, ("noon", "dawn")),
    "excitement": Mood(0.88, 1.25, 1.8, (0.20, 0.0, 0.22), (1.0, 0.96, 0.90), 0.9, ("noon", "dusk")),
    "anger": Mood(0.98, 1.25, 0.75, (0.30, 0.01, 0.01), (1.0, 0.76, 0.60), -1.0, ("storm", "dusk")),
    "disgust": Mood(1.0, 0.9, 0.75, (0.13, 0.16, 0.02), (0.86, 0.94, 0.52), -0.7, ("mist", "storm")),
    "fear": Mood(1.15, 1.2, 0.45, (0.0, 0.04, 0.06), (0.62, 0.84, 0.84), -0.6, ("night", "storm")),
    "sadness": Mood(0.95, 0.72, 0.45, (0.13, 0.16, 0.26), (0.74, 0.78, 0.92), -0.9, ("mist", "storm", "night")),
    "something else": Mood(1.0, 1.0, 1.0, (0.02, 0.02, 0.02), (1.0, 1.0, 1.0), 0.0, ("noon", "mist", "snow")),
}
NEUTRAL = Mood(1.0, 1.0, 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0.0, ())


def graded(picture: Array, mood: Mood, strength: float = 1.0) -> Array:
    """The picture (..., 3) in [0, 1] in the light of a mood: at strength 0 as it was, at 1 the mood, beyond it more."""

    def dialled(name: str) -> Array:
        plain = np.array(getattr(NEUTRAL, name))
        return plain + strength * (np.array(getattr(mood, name)) - plain)

    level = grey(picture)[..., None]
    chroma = np.maximum(dialled("chroma"), 0.0)
    coloured = np.clip(level + (picture - level) * chroma, 0.0, 1.0) ** np.maximum(dialled("gamma"), 0.2)
    contrasted = np.clip(0.5 + (coloured - 0.5) * dialled("contrast"), 0.0, 1.0)
    shadow, glare = dialled("shadow"), dialled("glare")
    return np.clip(shadow + (glare - shadow) * contrasted, 0.0, 1.0)
