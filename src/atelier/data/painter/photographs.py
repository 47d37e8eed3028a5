"""The same scenes as a camera sees them: soft shading, cast shadows, textured surfaces, an exposure."""

import numpy as np

from atelier.data.painter.canvas import Canvas, blurred, blurred_colours, field, grey, grid
from atelier.data.painter.lights import LIGHTS
from atelier.data.painter.shapes import Array
from atelier.data.painter.stage import BACKDROP, GROUND

CAMERAS = ("box-camera", "field-camera", "pocket-camera")
ROUGHNESS = np.array([0.06, 0.20, 0.12, 0.08])  # of backdrop, ground, subject, detail
OCTAVES = ((4, 0.4), (8, 0.33), (16, 0.33), (32, 0.25), (64, 0.2))  # with the edges, power falls as f ** -2


def develop(canvas: Canvas, light: str, rng: np.random.Generator) -> Array:
    """The photograph in canvas pixels, in [0, 1]."""
    side, unit = canvas.side, canvas.unit
    x, y = grid(side)
    surface = field(rng, side, OCTAVES)
    picture = canvas.lit * (1 + ROUGHNESS[canvas.part] * surface)[..., None]

    cast = np.roll(canvas.subject & (y > 0.25), (round(1.6 * unit), round(-3.2 * canvas.sun_side * unit)), (0, 1))
    depth = np.where(canvas.part == GROUND, 0.42, np.where(canvas.part == BACKDROP, 0.12, 0.0))
    picture = picture * (1 - depth * blurred(cast * 1.0, 1.6 * unit))[..., None]

    focus = blurred(canvas.subject * 1.0, 1.0 * unit)[..., None]
    picture = picture * focus + blurred_colours(picture, rng.uniform(0.0, 0.6) * unit) * (1 - focus)
    picture = picture + 0.7 * (picture - blurred_colours(picture, 0.7 * unit))  # cameras sharpen
    bright = np.clip(grey(picture) - 0.7, 0, 1)
    picture = picture + 0.5 * blurred(bright, 3.0 * unit)[..., None]

    vignette: Array = 1 - rng.uniform(0.15, 0.6) * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    exposure = LIGHTS[light].exposure * np.exp(0.22 * rng.standard_normal())
    warmth = 1 + np.array([0.05, 0.0, -0.05]) * rng.standard_normal()
    film = 0.014 * field(rng, side, ((32, 0.6), (64, 0.8)))
    raw = picture * (vignette * exposure)[..., None] * warmth + film[..., None]
    raw = np.maximum(raw, 0.0)
    return 0.04 + 0.88 * raw / (1 + raw**6) ** (1 / 6)  # film's toe and shoulder: no black, and nothing burns out
