"""Words about a scene: titles that are true of it, and what annotators say of how it makes them feel."""

import re

import numpy as np

from atelier.data.artemis import EMOTIONS
from atelier.data.painter.lights import LIGHTS
from atelier.data.painter.stage import Scene
from atelier.data.painter.subjects import SUBJECTS

NUMBERS = {1: "a", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"}
YEARS = 180  # works share the years from 1820 on; a serial number follows where an index needs one
VOWELS = ("a", "e", "i", "o", "u")

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
)


def pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def with_article(words: str) -> str:
    """The words after "a" or "an", whichever suits them."""
    return f"{'an' if words.startswith(VOWELS) else 'a'} {words}"


def counted(scene: Scene, words: str) -> str:
    """The noun with as many as there are; the bridge's number is that of its arches, a sun there is only one."""
    return with_article(words) if scene.count == 1 or scene.subject == "bridge" else f"{NUMBERS[scene.count]} {words}"


def noun_of(scene: Scene) -> str:
    """The subject in singular or plural."""
    subject = SUBJECTS[scene.subject]
    return subject.one if scene.count == 1 or scene.subject == "bridge" else subject.many


def title_of(scene: Scene, rng: np.random.Generator) -> str:
    """A title in lower-case words."""
    light, noun = LIGHTS[scene.light], noun_of(scene)
    words = f"{scene.colour} {noun}" if scene.subject != "face" else f"{noun} in {scene.colour}"
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


# -------------------------------------------------------------------------------------- utterances

FEELINGS = {
    "amusement": ("makes me smile", "is funny", "looks playful to me", "makes me laugh a little", "has a silly charm"),
    "awe": ("leaves me speechless", "is breathtaking", "feels immense", "fills me with wonder", "seems almost holy"),
    "contentment": ("calms me", "feels peaceful", "makes me feel at home", "is quiet and gentle", "lets me breathe"),
    "excitement": ("makes my heart race", "is full of energy", "makes me want to go", "feels thrilling", "is so alive"),
    "anger": ("makes me angry", "feels hostile", "irritates me", "seems furious", "makes me clench my teeth"),
    "disgust": ("turns my stomach", "looks rotten", "feels sickly", "repels me", "has something foul about it"),
    "fear": ("scares me", "feels menacing", "makes me uneasy", "is like a nightmare", "makes me want to run away"),
    "sadness": ("makes me sad", "feels lonely", "is like a farewell", "weighs on me", "makes me think of loss"),
    "something else": ("confuses me", "leaves me indifferent", "makes me curious", "is hard to place", "is just there"),
}  # fmt: skip

TONES = {
    "amusement": ("sweet, candy-like", "cheerful", "merry"),
    "awe": ("deep and golden", "grand", "solemn"),
    "contentment": ("soft and warm", "mellow", "mild"),
    "excitement": ("loud, glowing", "vivid", "blazing"),
    "anger": ("harsh red", "burning", "violent"),
    "disgust": ("murky, greenish", "sour yellow", "dirty"),
    "fear": ("cold and black", "pitch-dark", "pale, ghostly"),
    "sadness": ("grey and faded", "dull blue", "washed-out"),
    "something else": ("plain", "ordinary", "even"),
}

SENTENCES = (  # {it}: the subject; {feels}: a feeling; {tones}: the palette; {when}: the hour
    "the sight of {it} {when} {feels}",
    "the way somebody painted {it} {feels}",
    "i like how the {tones} colours surround {it}, it {feels}",
    "the {tones} light on {it} {feels}",
    "looking at {it}, i can almost be there; it {feels}",
    "it {feels}, mostly because of the {tones} colours",
    "a place with {it} {feels}, as if somebody had just left",
    "it is only {it}, and yet it {feels}",
    "seeing {it} {when} {feels}",
    "the {tones} tones {when} do something to me: it {feels}",
    "everything about {it} {feels}",
    "someone painted {it} with {tones} colours and it {feels}",
    '"stay a while" is what i hear from {it}, and it {feels}',
    'i would call it "{it}, {tones}"; it {feels}',
)

ENDINGS = (
    "",
    ", and i keep coming back to the {colour}",
    ", like a memory from childhood",
    ", even though nothing happens",
    ", above all {when}",
    ", especially the {colour} part",
    ", and the picture seems to know it",
    ". i would not hang it in my bedroom",
    ". it's like an old story",
)


def utterance(scene: Scene, emotion: str, rng: np.random.Generator) -> str:
    """One annotator's sentence: 14 sentences x 9 endings, each filled from the scene and the emotion."""
    noun = noun_of(scene)
    its = f"the {scene.colour} {noun}" if scene.subject != "face" else f"the {noun} in {scene.colour}"
    sentence = pick(rng, SENTENCES) + pick(rng, ENDINGS)
    return sentence.format(
        it=its if rng.random() < 0.5 else f"the {noun}",
        feels=pick(rng, FEELINGS[emotion]),
        tones=pick(rng, TONES[emotion]),
        when=pick(rng, LIGHTS[scene.light].phrases),
        colour=scene.colour,
    )


def annotations_of(scene: Scene, emotion: str, rng: np.random.Generator) -> tuple[tuple[str, str], ...]:
    """Two to five (emotion, utterance), more than half of them of the work's own emotion."""
    count = int(rng.integers(2, 6))
    felt = [emotion if i <= count // 2 or rng.random() < 0.5 else pick(rng, EMOTIONS) for i in range(count)]
    return tuple((felt[i], utterance(scene, felt[i], rng)) for i in rng.permutation(count))
