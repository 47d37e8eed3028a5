"""What annotators say of how a work makes them feel: sentences of ``utterances.yaml``, filled from the scene."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from string import Formatter
from typing import Any

import numpy as np
from ruamel.yaml import YAML, YAMLError

from atelier.data.annotations import EMOTIONS
from atelier.data.painter.lights import LIGHTS
from atelier.data.painter.stage import Scene
from atelier.data.painter.subjects import SUBJECTS

ANY = "any"  # sentences for whatever emotion
OF_EMOTION = 0.6  # share of the utterances that take a sentence of their emotion
VOWELS = ("a", "e", "i", "o", "u")

SLOTS = ("it", "noun", "a_noun", "a_colour_noun", "colour", "when", "tones", "feels")
AGREEING = {  # slots that agree with the subject: of one, of many
    "is": ("is", "are"),
    "was": ("was", "were"),
    "has": ("has", "have"),
    "do": ("does", "do"),
    "s": ("s", ""),
    "they": ("it", "they"),
    "them": ("it", "them"),
    "this": ("this", "these"),
}

Table = Mapping[str, Mapping[str, Sequence[str]]]


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def with_article(words: str) -> str:
    """The words after "a" or "an", whichever suits them."""
    return f"{'an' if words.startswith(VOWELS) else 'a'} {words}"


def plural(scene: Scene) -> bool:
    """Whether there are several; a bridge's number is that of its arches."""
    return scene.count > 1 and scene.subject != "bridge"


def noun_of(scene: Scene) -> str:
    """The subject in singular or plural."""
    subject = SUBJECTS[scene.subject]
    return subject.many if plural(scene) else subject.one


def coloured_noun_of(scene: Scene) -> str:
    """The subject with its colour; of a face that is the colour of the clothes."""
    noun = noun_of(scene)
    return f"{noun} in {scene.colour}" if scene.subject == "face" else f"{scene.colour} {noun}"


def utterance(scene: Scene, emotion: str, rng: np.random.Generator, *, shown: bool = True) -> str:
    """One annotator's words; ``shown``: the picture has this emotion's mood, so that its palette can be named."""
    return filled(sentence(emotion, rng, shown=shown), scene, emotion, rng)


def annotations_of(scene: Scene, emotion: str, rng: np.random.Generator) -> tuple[tuple[str, str], ...]:
    """Two to five (emotion, utterance), more than half of them of the work's emotion."""
    count = int(rng.integers(2, 6))
    felt = [emotion if i <= count // 2 or rng.random() < 0.5 else pick(rng, EMOTIONS) for i in range(count)]
    order = rng.permutation(count)
    return tuple((felt[i], utterance(scene, felt[i], rng, shown=felt[i] == emotion)) for i in order)


def sentence(emotion: str, rng: np.random.Generator, *, shown: bool = True) -> str:
    """A sentence to be filled; one that names the palette only where the picture has that of the emotion."""
    options = table()["sentences"][emotion if rng.random() < OF_EMOTION else ANY]
    return pick(rng, options if shown else [line for line in options if "{tones}" not in line])


def filled(line: str, scene: Scene, emotion: str, rng: np.random.Generator) -> str:
    """The sentence in words of the scene."""
    noun, coloured, many = noun_of(scene), coloured_noun_of(scene), plural(scene)
    plain = rng.random() < 0.5 or "{colour}" in line  # the colour is not said twice
    return line.format(
        it=f"the {noun if plain else coloured}",
        noun=noun,
        a_noun=noun if many else with_article(noun),
        a_colour_noun=coloured if many else with_article(coloured),
        colour=scene.colour,
        when=pick(rng, LIGHTS[scene.light].phrases),
        tones=pick(rng, table()["tones"][emotion]),
        feels=pick(rng, table()["feelings"][emotion]),
        **{slot: words[many] for slot, words in AGREEING.items()},
    )


# ------------------------------------------------------------------------------------- the table


@cache
def table() -> Table:
    """Feelings, tones and sentences, read once a process and checked."""
    return checked_table(files("atelier.data.painter").joinpath("utterances.yaml").read_text(encoding="utf-8"))


def checked_table(text: str) -> Table:
    """The table from its YAML; ValueError, one line, for a missing emotion or a slot that nothing fills."""
    try:
        table = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, RecursionError) as fault:
        raise ValueError(f"utterances.yaml: not YAML ({' '.join(str(fault).split())})") from fault
    sections: dict[str, tuple[Iterable[str], tuple[str, ...]]] = {  # with the keys and the slots of each
        "feelings": (EMOTIONS, ()),
        "tones": (EMOTIONS, ()),
        "sentences": ((ANY, *EMOTIONS), (*SLOTS, *AGREEING)),
    }
    _refuse_other_keys("utterances.yaml", table, sections)
    for section, (keys, slots) in sections.items():
        _refuse_other_keys(f"utterances.yaml: {section}", table[section], keys)
        for key, lines in table[section].items():
            _refuse_bad_lines(f"utterances.yaml: {section}: {key}", lines, set(slots))
    for line in table["sentences"][ANY]:
        if "{feels}" not in line:
            raise ValueError(f"utterances.yaml: sentences: {ANY}: {line!r} tells no emotion, expected {{feels}}")
    return table


def _refuse_other_keys(where: str, table: Any, expected: Iterable[str]) -> None:
    if not isinstance(table, dict) or set(table) != set(expected):
        raise ValueError(f"{where}: expected {', '.join(expected)}")


def _refuse_bad_lines(where: str, lines: Any, slots: set[str]) -> None:
    if not isinstance(lines, list) or not lines:
        raise ValueError(f"{where}: expected a list of sentences, got {lines!r}")
    for line in lines:
        try:
            parts = [part[1:] for part in Formatter().parse(line) if part[1] is not None]
        except (TypeError, ValueError) as fault:
            raise ValueError(f"{where}: {line!r} is no sentence ({fault})") from fault
        unknown = sorted(str(name) for name, spec, conversion in parts if name not in slots or spec or conversion)
        if unknown:
            raise ValueError(f"{where}: {line!r} has slots that nothing fills: {', '.join(unknown)}")
    if not any("{tones}" not in line for line in lines):
        raise ValueError(f"{where}: every sentence names the palette, expected one without {{tones}}")
