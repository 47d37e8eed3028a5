"""One picture: subject, hour, hand and mood are drawn, each from a separate generator, and painted."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from atelier.data.annotations import EMOTIONS
from atelier.data.painter.canvas import OVERSAMPLING, prepare, reduced
from atelier.data.painter.lights import LIGHTS
from atelier.data.painter.moods import MOODS, graded
from atelier.data.painter.photographs import CAMERAS, develop
from atelier.data.painter.shapes import Array
from atelier.data.painter.stage import Scene
from atelier.data.painter.styles import STYLES, render
from atelier.data.painter.subjects import SUBJECTS, set_scene
from atelier.data.painter.utterances import annotations_of
from atelier.data.painter.words import dated, slug_of, title_of
from atelier.seeds import numpy_generator

STRENGTHS = (0.75, 1.25)  # of a work's emotion, where no strength is given
LEVELS = 63  # steps of a colour channel: the eye does not miss the rest, the files are a fifth smaller

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Work:
    """A work of art and all that is true of it."""

    picture: Pixels  # (h, w, 3)
    art_style: str
    artist: str  # slug
    subject: str
    emotion: str
    strength: float  # of the emotion: 0 none, 1 as in ``moods``
    light: str
    colour: str
    count: int
    title: str
    painting: str  # file name without suffix
    annotations: tuple[tuple[str, str], ...]  # (emotion, utterance)


@dataclass(frozen=True)
class Photograph:
    """A photograph and all that is true of it."""

    picture: Pixels  # (h, w, 3)
    camera: str  # slug
    subject: str
    light: str
    colour: str
    count: int
    title: str
    painting: str


def paint_work(
    seed: int,
    index: int,
    size: int = 64,
    *,
    style: str | None = None,
    artist: str | None = None,
    subject: str | None = None,
    emotion: str | None = None,
    strength: float | None = None,
) -> Work:
    """Work number ``index`` of a world: a pure function of its arguments. What is None is drawn.

    Fixing one attribute leaves the draws of the others as they were.
    """
    draw = partial(numpy_generator, seed, "work", index)
    style, artist = _hand(style, artist, draw("style"), draw("artist"))
    subject, emotion = _content(draw, subject, emotion)
    mood = MOODS[emotion]
    if strength is None:
        strength = round(float(draw("strength").uniform(*STRENGTHS)), 2)
    scene = _scene(draw, subject, emotion)
    picture = _pixels(graded(reduced(render(prepare(scene, size), style, artist, draw("hand"))), mood, strength))
    title = title_of(scene, draw("title"))
    painting = f"{artist}_{dated(slug_of(title), index)}"
    said = annotations_of(scene, emotion, draw("annotations"))
    return Work(
        picture, style, artist, subject, emotion, strength, scene.light, scene.colour, scene.count, title, painting,
        said,
    )  # fmt: skip


def subject_mask(
    seed: int, index: int, size: int = 64, *, subject: str | None = None, emotion: str | None = None
) -> NDArray[np.bool_]:
    """Where the subject of ``paint_work``'s picture is: the pixels (size, size) that it covers at least by half.

    The same for every artist, as they see it before they paint: a hand may move an edge by a px or two. ``subject`` and
    ``emotion``: as ``paint_work`` got them.
    """
    draw = partial(numpy_generator, seed, "work", index)
    covered = prepare(_scene(draw, *_content(draw, subject, emotion)), size).subject
    share = covered.reshape(size, OVERSAMPLING, size, OVERSAMPLING).mean(axis=(1, 3))
    return np.asarray(share >= 0.5)


def paint_photograph(seed: int, index: int, size: int = 64, *, subject: str | None = None) -> Photograph:
    """Photograph number ``index`` of a world: a pure function of its arguments."""
    draw = partial(numpy_generator, seed, "photograph", index)
    subject = _chosen("subject", subject, SUBJECTS, draw("subject"))
    camera = _chosen("camera", None, CAMERAS, draw("camera"))
    scene = set_scene(subject, draw("scene"), tuple(LIGHTS), float(draw("smile").uniform(-0.6, 1)))
    picture = _pixels(reduced(develop(prepare(scene, size), scene.light, draw("film"))))
    title = title_of(scene, draw("title"))
    painting = f"{camera}_{dated(slug_of(title), index)}"
    return Photograph(picture, camera, subject, scene.light, scene.colour, scene.count, title, painting)


Draw = Callable[[str], np.random.Generator]  # what is drawn -> its generator


def _content(draw: Draw, subject: str | None, emotion: str | None) -> tuple[str, str]:
    """What a work depicts and says."""
    return _chosen("subject", subject, SUBJECTS, draw("subject")), _chosen(
        "emotion", emotion, EMOTIONS, draw("emotion")
    )


def _scene(draw: Draw, subject: str, emotion: str) -> Scene:
    mood = MOODS[emotion]
    return set_scene(subject, draw("scene"), mood.lights, mood.smile)


def _hand(
    style: str | None, artist: str | None, style_rng: np.random.Generator, artist_rng: np.random.Generator
) -> tuple[str, str]:
    """Style and artist; an artist alone settles the style."""
    if style is None and artist is not None:
        homes = {name: home for home, artists in STYLES.items() for name in artists}
        return homes[_chosen("artist", artist, homes, artist_rng)], artist
    style = _chosen("style", style, STYLES, style_rng)
    return style, _chosen(f"artist of {style}", artist, STYLES[style], artist_rng)


def _chosen(what: str, given: str | None, known: Iterable[str], rng: np.random.Generator) -> str:
    """The given name, if it is known; a drawn one where none is given."""
    options = tuple(known)
    if given is None:
        return options[int(rng.integers(len(options)))]
    if given not in options:
        raise ValueError(f"{what}: expected one of {', '.join(options)}, got {given!r}")
    return given


def _pixels(picture: Array) -> Pixels:
    """[0, 1] to 8 bits, in 64 even steps."""
    steps = np.floor(np.clip(picture, 0.0, 1.0) * LEVELS + 0.5)
    return np.floor(steps * (255 / LEVELS) + 0.5).astype(np.uint8)
