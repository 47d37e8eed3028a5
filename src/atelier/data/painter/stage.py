"""A scene and the stage that it is built on: shapes from back to front, already lit by the hour."""

from dataclasses import dataclass, field, replace

import numpy as np

from atelier.data.painter.lights import COLOURS, Light
from atelier.data.painter.shapes import Array, Colour, blob, box, darker, ellipse, lighter, mix, ridge

BACKDROP, GROUND, SUBJECT, DETAIL = range(4)  # what a shape is for; details are never outlined
WHITE, INK = COLOURS["white"], (0.09, 0.08, 0.11)


@dataclass(frozen=True)
class Shape:
    """One area of a scene."""

    outline: Array  # (n, 2)
    top: Colour
    bottom: Colour
    volume: float  # 0 flat, 1 round
    grain: float  # direction of strokes and hatching, radians
    part: int


@dataclass(frozen=True)
class Scene:
    """What is depicted, in shapes and in the words that are true of it."""

    subject: str
    light: str
    colour: str
    count: int
    phrases: tuple[str, ...]
    shapes: tuple[Shape, ...]
    sun_side: float  # -1: light falls from the left, 1: from the right


@dataclass
class Stage:
    """Collects shapes while a subject is being set up."""

    rng: np.random.Generator
    light_name: str
    light: Light
    colour: Colour
    count: int
    smile: float
    shapes: list[Shape] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)

    def between(self, low: float, high: float) -> float:
        """A uniform number."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Whether something happens."""
        return bool(self.rng.random() < probability)

    def either_side(self) -> int:
        """-1 or 1: which way something looks."""
        return 1 if self.chance(0.5) else -1

    def one_of(self, *names: str) -> Colour:
        """One of the named colours."""
        return COLOURS[names[int(self.rng.integers(len(names)))]]

    def add(
        self,
        outline: Array,
        colour: Colour,
        *,
        bottom: Colour | None = None,
        volume: float = 0.0,
        grain: float = 0.0,
        part: int = SUBJECT,
        far: float = 0.0,
        shines: bool = False,
    ) -> None:
        """Put a shape in front of all others; ``far`` in [0, 1] fades it into the air."""
        top, low = (self.lit(c, far, shines) for c in (colour, bottom or colour))
        self.shapes.append(Shape(outline, top, low, volume, grain, part))

    def lit(self, colour: Colour, far: float, shines: bool) -> Colour:
        """The colour as the hour shows it."""
        if shines:
            return colour
        r, g, b = (c * a for c, a in zip(colour, self.light.ambient, strict=True))
        return mix((r, g, b), self.light.sky_low, min(0.85, far * self.light.haze * 1.6))

    def dark(self) -> bool:
        """Whether windows are lit."""
        return self.light_name in ("night", "dusk", "storm")

    def sky(self) -> None:
        """Sky with clouds, or with a moon and stars."""
        self.add(box(-0.1, -0.1, 1.1, 1.1), self.light.sky_top, bottom=self.light.sky_low, part=BACKDROP, shines=True)
        if self.light_name == "night":
            self.moon_and_stars()
        elif self.light_name != "mist" and self.chance(0.75):
            self.clouds()

    def moon_and_stars(self) -> None:
        """A clear night, or a moonless one."""
        for x, y in self.rng.uniform((0.03, 0.03), (0.97, 0.38), (int(self.rng.integers(3, 9)), 2)):
            self.add(ellipse(x, y, 0.013, 0.013, corners=8), (0.85, 0.87, 0.95), part=DETAIL, shines=True)
        if self.chance(0.6):
            x, y, r = self.between(0.12, 0.88), self.between(0.1, 0.22), self.between(0.05, 0.085)
            self.add(ellipse(x, y, r, r), (0.97, 0.95, 0.80), part=GROUND, shines=True)
            self.phrases.append("under the moon")

    def clouds(self) -> None:
        """Two to four banks of cloud, heavy in a storm."""
        heavy = self.light_name == "storm"
        colour = darker(self.light.sky_top, 0.3) if heavy else mix(self.light.sky_low, (1.0, 1.0, 1.0), 0.55)
        for _ in range(int(self.rng.integers(2, 5))):
            x, y = self.between(0.0, 1.0), self.between(0.05, 0.3)
            wide = self.between(0.12, 0.26) * (1.5 if heavy else 1.0)
            outline = blob(self.rng, x, y, wide, wide * self.between(0.22, 0.4), 0.2)
            self.add(outline, colour, volume=0.3, part=BACKDROP, shines=True)
        self.phrases.append("under dark clouds" if heavy else "with clouds")

    def land(self, y: float) -> None:
        """A far hill and a meadow that begins at height ``y``."""
        white = self.light_name == "snow"
        meadow = (0.93, 0.95, 0.99) if white else mix(self.one_of("green", "yellow", "green"), (0.5, 0.5, 0.25), 0.35)
        hill = mix(meadow, (0.35, 0.45, 0.65), 0.45)
        self.add(ridge(self.rng, y - self.between(0.05, 0.12), 0.03), hill, grain=0.15, part=BACKDROP, far=0.8)
        self.add(ridge(self.rng, y, 0.015), lighter(meadow, 0.12), bottom=darker(meadow, 0.15), grain=0.1, part=GROUND)

    def water(self, y: float) -> None:
        """Water from height ``y`` down, reflecting the sky, with a few crests."""
        top, low = mix(self.light.sky_low, (0.2, 0.5, 0.65), 0.55), mix(self.light.sky_top, (0.05, 0.25, 0.4), 0.6)
        top, low = (darker(c, 0.55 if self.light_name == "night" else 0.0) for c in (top, low))
        self.add(box(-0.1, y, 1.1, 1.1), top, bottom=low, part=GROUND, shines=True)
        for _ in range(int(self.rng.integers(5, 10))):
            x, depth = self.between(0.0, 1.0), self.between(0.04, 1.0)
            wave = ellipse(x, y + depth * (1 - y), 0.05 + 0.09 * depth, 0.006 + 0.008 * depth)
            self.add(wave, lighter(top, 0.25), part=DETAIL, shines=True)

    def room(self, y: float) -> None:
        """A wall, and a table or floor from height ``y`` down."""
        names = ("blue", "green", "yellow", "pink", "brown", "grey", "violet", "orange")
        wall, table = self.one_of(*names), self.one_of("brown", "white", "grey", "orange", "blue")
        if self.light_name == "night":
            self.light = replace(self.light, ambient=(0.70, 0.54, 0.42))  # a lamp
        wall, table = mix(wall, (0.75, 0.72, 0.66), 0.5), mix(table, (0.7, 0.6, 0.5), 0.4)
        self.add(box(-0.1, -0.1, 1.1, y), lighter(wall, 0.2), bottom=darker(wall, 0.12), grain=1.2, part=BACKDROP)
        tilt = self.between(-0.03, 0.03)
        top = np.array([(-0.1, y - tilt), (1.1, y + tilt), (1.1, 1.1), (-0.1, 1.1)])
        self.add(top, lighter(table, 0.1), bottom=darker(table, 0.2), grain=0.1, part=GROUND)

    def places(self, margin: float, spread: float) -> list[tuple[float, float]]:
        """(x, nearness in [0, 1]) of every copy of the subject, the far ones first."""
        slots = (np.arange(self.count) + 0.5) / self.count * (1 - 2 * margin) + margin
        slots = slots + self.rng.uniform(-spread, spread, self.count) / self.count
        nearness = np.sort(self.rng.uniform(0, 1, self.count))
        return list(zip(self.rng.permutation(slots).tolist(), nearness.tolist(), strict=True))
