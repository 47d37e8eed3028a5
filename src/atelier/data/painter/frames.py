"""A frame of reference: where a thing stands, how large it is and which way it looks; outlines in its units."""

from dataclasses import dataclass

import numpy as np

from atelier.data.painter import shapes
from atelier.data.painter.shapes import Array

Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """Origin (x, y) and unit length in the picture; ``side`` -1 mirrors left and right."""

    x: float
    y: float
    scale: float
    side: int = 1

    def place(self, outline: Array) -> Array:
        """An outline (n, 2) in the frame's units, in the picture's."""
        return np.array([self.x, self.y]) + outline * np.array([self.side * self.scale, self.scale])

    def polygon(self, *points: Point) -> Array:
        """Straight edges."""
        return self.place(shapes.polygon(*points))

    def mirrored(self, *half: Point) -> Array:
        """A symmetric shape from its right half, top to bottom."""
        return self.polygon(*half, *[(-u, v) for u, v in half[::-1]])

    def box(self, left: float, top: float, right: float, bottom: float) -> Array:
        """An upright rectangle."""
        return self.place(shapes.box(left, top, right, bottom))

    def ellipse(self, u: float, v: float, ru: float, rv: float, turn: float = 0.0) -> Array:
        """An ellipse."""
        return self.place(shapes.ellipse(u, v, ru, rv, turn))

    def disc(self, u: float, v: float, radius: float) -> Array:
        """A small circle."""
        return self.place(shapes.ellipse(u, v, radius, radius, corners=14))

    def blob(self, rng: np.random.Generator, u: float, v: float, ru: float, rv: float, rough: float = 0.12) -> Array:
        """A wavering ellipse."""
        return self.place(shapes.blob(rng, u, v, ru, rv, rough))

    def ribbon(self, start: float, end: float, *points: Point) -> Array:
        """A band from width ``start`` to width ``end``."""
        return self.place(shapes.ribbon(points, start, end))
