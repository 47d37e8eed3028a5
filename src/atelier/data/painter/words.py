"""Titles that are true of a scene, and the names of files made of them."""

import re

import numpy as np

from atelier.data.painter.lights import LIGHTS
from atelier.data.painter.stage import Scene
from atelier.data.painter.utterances import coloured_noun_of, noun_of, pick, plural, with_article

NUMBERS = {1: "a", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"}
YEARS = 180  # works share the years from 1820 on; a serial number follows where an index needs one

TITLES = (  # filled from one scene; each names the subject
    "{number_noun}",
    "{number_colour_noun}",
    "the {noun} {light}",
    "the {colour} {noun}",
    "the {colour} {noun} {light}",
    "{number_noun} {light}",
    "{number_colour_noun} {light}",
    "{number_colour_noun} {phrase}",
    "{number_noun} {phrase} {light}",
    "{number_colour_noun} {phrase} {light}",
    "the {colour} {noun} {phrase} {light}",
    "{opening}, {number_colour_noun}",
    "{opening}, the {noun} {phrase}",
    "{opening} with {number_colour_noun}",
    "study of {number_noun} {light}",
    "study of {number_colour_noun} {phrase}",
    "the {noun} {phrase}",
    "the {noun} {phrase} {light}",
    "{opening} and {number_colour_noun}",
    "{opening}, the {colour} {noun} {phrase}",
    "view of the {colour} {noun} {light}",
    "view of {number_noun} {phrase}",
    "memory of {number_colour_noun}",
    "memory of the {noun} {light}",
    "sketch of {number_noun} {phrase}",
    "sketch of the {colour} {noun} {light}",
)


def counted(scene: Scene, words: str) -> str:
    """The noun with as many as there are; the bridge's number is that of its arches, a sun there is only one."""
    return f"{NUMBERS[scene.count]} {words}" if plural(scene) else with_article(words)


def title_of(scene: Scene, rng: np.random.Generator) -> str:
    """A title in lower-case words."""
    light, noun, words = LIGHTS[scene.light], noun_of(scene), coloured_noun_of(scene)
    template = pick(rng, TITLES).replace("{colour} {noun}", "{colour_noun}")
    return template.format(
        number_noun=counted(scene, noun),
        number_colour_noun=counted(scene, words),
        noun=noun,
        colour_noun=words,
        phrase=pick(rng, scene.phrases),
        light=pick(rng, light.phrases),
        opening=pick(rng, light.openings),
    )


def slug_of(title: str) -> str:
    """Words joined by hyphens, as file names have them."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def dated(slug: str, index: int) -> str:
    """The slug with a year, and a serial number from the 181st on, that no other index has."""
    year, serial = 1820 + index * 37 % YEARS, index // YEARS  # 37 and 180 share no factor: years come mixed
    return f"{slug}-{year}" if serial == 0 else f"{slug}-{year}-{serial + 1}"
