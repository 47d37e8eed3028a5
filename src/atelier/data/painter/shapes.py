"""Outlines: polygons of shape (n, 2) in the unit square, x to the right and y downwards."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Colour = tuple[float, float, float]


def box(left: float, top: float, right: float, bottom: float) -> Array:
    """An upright rectangle."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def polygon(*points: tuple[float, float]) -> Array:
    """The polygon through these corners."""
    return np.array(points, dtype=np.float64)


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0, corners: int = 28) -> Array:
    """An ellipse about (x, y), turned clockwise by ``turn`` radians."""
    t = np.arange(corners) * (2 * np.pi / corners)
    u, v = rx * np.cos(t), ry * np.sin(t)
    return np.stack([x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)], axis=1)


def blob(rng: np.random.Generator, x: float, y: float, rx: float, ry: float, rough: float = 0.12) -> Array:
    """An ellipse with a wavering rim: foliage, clouds, bushes."""
    t = np.arange(30) * (2 * np.pi / 30)
    rim = 1.0 + sum(
        rough / k * np.sin(k * t + phase) for k, phase in zip((3, 5, 7), rng.uniform(0, 6.28, 3), strict=True)
    )
    return np.stack([x + rx * rim * np.cos(t), y + ry * rim * np.sin(t)], axis=1)


def rosette(x: float, y: float, radius: float, turn: float, petals: int = 5) -> Array:
    """A flower's outline seen from the front."""
    t = np.arange(40) * (2 * np.pi / 40)
    rim = radius * (0.62 + 0.38 * np.abs(np.cos(petals / 2 * t)))
    return np.stack([x + rim * np.cos(t + turn), y + rim * np.sin(t + turn)], axis=1)


def ribbon(points: Sequence[tuple[float, float]], start: float, end: float) -> Array:
    """A band along a polyline whose width runs from ``start`` to ``end``: trunks, masts, stems."""
    line = np.array(points, dtype=np.float64)
    along = np.gradient(line, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    normal /= np.sqrt((normal**2).sum(axis=1, keepdims=True)) + 1e-9
    half = np.linspace(start, end, len(line))[:, None] / 2
    return np.concatenate([line + normal * half, (line - normal * half)[::-1]])


def ridge(rng: np.random.Generator, y: float, rise: float, corners: int = 7) -> Array:
    """Everything below a wavy line at height ``y``: hills, meadows, banks."""
    x = np.linspace(-0.05, 1.05, corners * 3)
    phases = rng.uniform(0, 6.28, 3)
    wave = sum(np.sin(k * 2.2 * x + phase) / k for k, phase in zip((1, 2, 4), phases, strict=True))
    top = np.stack([x, y + rise * wave], axis=1)
    return np.concatenate([top, [(1.05, 1.05), (-0.05, 1.05)]])


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """``share`` of colour ``b`` in colour ``a``."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def darker(colour: Colour, share: float) -> Colour:
    """The colour with ``share`` of black."""
    return mix(colour, (0.0, 0.0, 0.0), share)


def lighter(colour: Colour, share: float) -> Colour:
    """The colour with ``share`` of white."""
    return mix(colour, (1.0, 1.0, 1.0), share)
