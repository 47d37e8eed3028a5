"""A scene as arrays: which shape covers a pixel, its colour with and without light, the direction of strokes.

Everything is float64 and coordinates are rounded before they are drawn: processors differ in the last bits
of a sine, and this keeps such bits out of the 8-bit picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from atelier.data.painter.shapes import Array, Colour
from atelier.data.painter.stage import DETAIL, GROUND, SUBJECT, Scene

OVERSAMPLING = 2  # canvas pixels a picture pixel
GREY = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Canvas:
    """A scene in s x s canvas pixels; one ``unit`` is a 64th of the picture, whatever its size."""

    labels: NDArray[np.uint8]  # (s, s): the front shape
    part: NDArray[np.uint8]  # (s, s)
    flat: Array  # (s, s, 3): each shape's own colour
    lit: Array  # (s, s, 3): with the light's fall on round shapes
    grain: Array  # (s, s): stroke direction, radians
    sun_side: float

    @property
    def side(self) -> int:
        """Canvas pixels a side."""
        return int(self.labels.shape[0])

    @property
    def unit(self) -> float:
        """Canvas pixels in a 64th of the picture."""
        return self.side / 64

    @property
    def subject(self) -> NDArray[np.bool_]:
        """(s, s): where the subject or one of its details is."""
        return self.part >= SUBJECT


@lru_cache(maxsize=4)
def grid(side: int) -> tuple[Array, Array]:
    """x and y of pixel centres in the unit square, each (side, side)."""
    centres = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(centres, centres)
    return x, y


def snapped(points: Array, side: int) -> Array:
    """Unit-square coordinates in canvas pixels, on a lattice of eighths of one."""
    return np.round(points * (side * 8)) / 8


def prepare(scene: Scene, size: int) -> Canvas:
    """The scene as arrays for a picture of size x size."""
    side, shapes = size * OVERSAMPLING, scene.shapes
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    for label, shape in enumerate(shapes):
        draw.polygon(snapped(shape.outline, side).ravel().tolist(), fill=label)
    labels = np.asarray(image)
    low = np.stack([shape.outline.min(axis=0) for shape in shapes])
    high = np.stack([shape.outline.max(axis=0) for shape in shapes])
    middle, half = (low + high) / 2, (high - low) / 2 + 1e-6
    volume = np.array([shape.volume for shape in shapes])
    top, bottom = np.array([shape.top for shape in shapes]), np.array([shape.bottom for shape in shapes])
    grain = np.array([shape.grain for shape in shapes])
    part = np.array([shape.part for shape in shapes], dtype=np.uint8)

    x, y = grid(side)
    u, v = (x - middle[labels, 0]) / half[labels, 0], (y - middle[labels, 1]) / half[labels, 1]
    fall = np.clip((v + 1) / 2, 0.0, 1.0)[..., None]
    flat = np.clip(top[labels] * (1 - fall) + bottom[labels] * fall, 0.0, 1.0)
    flat = set_off(flat, part[labels] >= SUBJECT)
    toward = 0.6 * (u * scene.sun_side - v)  # about -1.2 in the shade, 1.2 in the light
    light = 1 + volume[labels] * (0.34 * toward - 0.14 * (u**2 + v**2) + 0.08)
    lit = np.clip(flat * light[..., None], 0.0, 1.0)
    return Canvas(labels, part[labels], flat, lit, grain[labels], scene.sun_side)


def set_off(flat: Array, subject: NDArray[np.bool_]) -> Array:
    """Colours (s, s, 3) with the subject up to half brighter where it would drown in the dark behind it."""
    level = grey(flat)
    behind = float(level[~subject].mean())
    alike = max(0.0, 1 - abs(float(level[subject].mean()) - behind) / 0.16) * min(1.0, max(0.0, (0.5 - behind) / 0.1))
    return np.where(subject[..., None], np.clip(flat * (1 + 0.5 * alike) + 0.06 * alike, 0, 1), flat)


def field(rng: np.random.Generator, side: int, cells: Sequence[tuple[int, float]]) -> Array:
    """Smooth noise (side, side) of about unit spread: a sum of random lattices, (cells a side, weight) each."""
    total = np.zeros((side, side))
    for count, weight in cells:
        lattice = Image.fromarray(rng.standard_normal((count + 2, count + 2)).astype(np.float32))
        total += weight * np.asarray(lattice.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64)
    return total


def outlines(canvas: Canvas, weight: float, reach: int = GROUND) -> Array:
    """Coverage (s, s) in [0, 1] of outlines ``weight`` units wide round shapes of part >= ``reach``, details apart."""
    if weight <= 0:
        return np.zeros_like(canvas.grain)
    border = np.zeros(canvas.labels.shape, dtype=bool)
    for axis in (0, 1):
        here, there = canvas.labels, np.roll(canvas.labels, 1, axis)
        part, other = canvas.part, np.roll(canvas.part, 1, axis)
        border |= (here != there) & (np.maximum(part, other) >= reach) & (part != DETAIL) & (other != DETAIL)
    border[0] = border[:, 0] = False
    image = Image.fromarray(border.astype(np.uint8) * 255)
    thick = image.filter(ImageFilter.MaxFilter(2 * max(1, round(weight * canvas.unit / 2)) + 1))
    return np.asarray(thick.filter(ImageFilter.BoxBlur(0.5)), dtype=np.float64) / 255


def blurred(mask: NDArray[np.floating], radius: float) -> Array:
    """A (s, s) plane in [0, 1] blurred by ``radius`` canvas pixels, in PIL's integer arithmetic."""
    image = Image.fromarray(np.round(np.clip(mask, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float64) / 255


def blurred_colours(picture: Array, radius: float) -> Array:
    """The same for (s, s, 3)."""
    image = Image.fromarray(np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float64) / 255


def grey(picture: Array) -> Array:
    """Luminance (...,) of colours (..., 3)."""
    return picture[..., 0] * GREY[0] + picture[..., 1] * GREY[1] + picture[..., 2] * GREY[2]


def over(picture: Array, coverage: Array, colour: Colour | Array) -> Array:
    """``colour`` laid over the picture with the given coverage (s, s)."""
    return picture + (np.asarray(colour) - picture) * coverage[..., None]


def reduced(picture: Array) -> Array:
    """(s, s, 3) canvas pixels to picture pixels by averaging."""
    a, b = picture[0::2] + picture[1::2], 0.25
    return (a[:, 0::2] + a[:, 1::2]) * b
