"""The subjects: how each is built and named, and what may vary about it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from atelier.data.painter import indoors, outdoors
from atelier.data.painter.lights import COLOURS, LIGHTS
from atelier.data.painter.stage import Scene, Stage


@dataclass(frozen=True)
class Subject:
    """One subject; repeated entries are likelier."""

    build: Callable[[Stage], None]
    one: str  # how titles name it
    many: str
    counts: tuple[int, ...]
    colours: tuple[str, ...]
    lights: tuple[str, ...]


ANY_SKY = tuple(LIGHTS)
ROOM = ("dawn", "noon", "dusk", "night")
SUNNY = ("dawn", "noon", "dusk", "mist")

SUBJECTS = {
    "boat": Subject(
        outdoors.boat, "boat", "boats", (1, 1, 2, 3), ("red", "white", "orange", "yellow", "blue", "brown"), ANY_SKY
    ),
    "house": Subject(
        outdoors.house, "house", "houses", (1, 1, 1, 2), ("red", "white", "yellow", "blue", "pink", "grey"), ANY_SKY
    ),
    "tree": Subject(
        outdoors.tree, "tree", "trees", (1, 1, 2, 3), ("green", "green", "orange", "pink", "yellow", "red"), ANY_SKY
    ),
    "face": Subject(
        indoors.face, "face", "faces", (1,), ("red", "blue", "green", "white", "black", "violet", "yellow"), ROOM
    ),
    "flowers": Subject(
        indoors.flowers, "flowers", "flowers", (3, 5, 7), ("red", "yellow", "white", "pink", "violet", "blue"), ROOM
    ),
    "mountain": Subject(
        outdoors.mountain, "mountain", "mountains", (1, 2, 3), ("blue", "violet", "brown", "grey", "green"), ANY_SKY
    ),
    "fish": Subject(
        indoors.fish, "fish", "fish", (1, 1, 2, 3), ("orange", "red", "yellow", "violet", "grey", "pink"), ROOM
    ),
    "sun": Subject(outdoors.sun, "sun", "suns", (1,), ("yellow", "orange", "red", "white", "pink"), SUNNY),
    "bird": Subject(
        outdoors.bird, "bird", "birds", (1, 1, 2), ("red", "blue", "yellow", "black", "white", "brown"), ANY_SKY
    ),
    "bridge": Subject(
        outdoors.bridge, "bridge", "bridges", (1, 2, 3), ("grey", "brown", "red", "white", "yellow"), ANY_SKY
    ),
    "apples": Subject(
        indoors.apples, "apples", "apples", (2, 3, 4, 5, 6), ("red", "green", "yellow", "orange"), ROOM
    ),
    "cat": Subject(indoors.cat, "cat", "cats", (1, 1, 2), ("black", "orange", "white", "grey", "brown"), ROOM),
}  # fmt: skip


def set_scene(subject: str, rng: np.random.Generator, likely_lights: tuple[str, ...], smile: float) -> Scene:
    """A scene of the subject; four in ten take their light from ``likely_lights`` where the subject allows."""
    kind = SUBJECTS[subject]
    likely = [name for name in likely_lights if name in kind.lights] or list(kind.lights)
    lights = likely if rng.random() < 0.4 else list(kind.lights)
    light, colour = lights[int(rng.integers(len(lights)))], kind.colours[int(rng.integers(len(kind.colours)))]
    count = kind.counts[int(rng.integers(len(kind.counts)))]
    sun_side = -1.0 if rng.random() < 0.5 else 1.0
    stage = Stage(rng, light, LIGHTS[light], COLOURS[colour], count, smile)
    kind.build(stage)
    return Scene(subject, light, colour, count, tuple(stage.phrases), tuple(stage.shapes), sun_side)
