"""When a scene happens: what time of day and weather do to sky, ground and colours, and how one says it."""

from dataclasses import dataclass

from atelier.data.painter.shapes import Colour


@dataclass(frozen=True)
class Light:
    """One time of day or weather."""

    sky_top: Colour
    sky_low: Colour
    ambient: Colour  # multiplies every colour that does not shine by itself
    haze: float  # how fast distance fades into the sky
    phrases: tuple[str, ...]  # follow a noun
    openings: tuple[str, ...]  # precede one
    exposure: float  # of a photograph; a camera never quite makes up for the dark


LIGHTS = {
    "dawn": Light(
        (0.52, 0.62, 0.86), (1.0, 0.80, 0.66), (0.98, 0.84, 0.80), 0.35,
        ("at dawn", "at first light", "in the early morning"), ("dawn", "early morning"), 0.92,
    ),
    "noon": Light(
        (0.25, 0.55, 0.95), (0.76, 0.90, 1.0), (1.06, 1.04, 0.98), 0.15,
        ("at noon", "in the midday sun", "on a bright day"), ("noon", "midday"), 1.1,
    ),
    "dusk": Light(
        (0.30, 0.22, 0.48), (0.98, 0.52, 0.26), (0.74, 0.55, 0.56), 0.3,
        ("at dusk", "at sunset", "in the evening"), ("dusk", "evening"), 0.9,
    ),
    "night": Light(
        (0.04, 0.06, 0.19), (0.13, 0.18, 0.40), (0.42, 0.46, 0.64), 0.25,
        ("at night", "by night", "in the dark"), ("night", "midnight"), 0.85,
    ),
    "snow": Light(
        (0.74, 0.80, 0.88), (0.90, 0.93, 0.97), (0.98, 1.0, 1.04), 0.4,
        ("in the snow", "in winter", "under snow"), ("snow", "winter"), 1.05,
    ),
    "mist": Light(
        (0.70, 0.73, 0.76), (0.86, 0.86, 0.83), (0.90, 0.90, 0.90), 0.75,
        ("in mist", "in the fog", "in morning mist"), ("mist", "fog"), 1.0,
    ),
    "storm": Light(
        (0.17, 0.20, 0.27), (0.50, 0.52, 0.52), (0.58, 0.61, 0.66), 0.35,
        ("under a heavy sky", "before the storm", "in bad weather"), ("storm", "heavy weather"), 0.85,
    ),
}  # fmt: skip

COLOURS: dict[str, Colour] = {
    "red": (0.83, 0.16, 0.14),
    "orange": (0.94, 0.51, 0.13),
    "yellow": (0.96, 0.80, 0.22),
    "green": (0.25, 0.56, 0.24),
    "blue": (0.16, 0.38, 0.76),
    "violet": (0.50, 0.29, 0.66),
    "pink": (0.95, 0.58, 0.68),
    "brown": (0.50, 0.31, 0.17),
    "white": (0.96, 0.95, 0.92),
    "grey": (0.55, 0.56, 0.58),
    "black": (0.11, 0.11, 0.13),
}
