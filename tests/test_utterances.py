"""What annotators say: several hundred sentences that fit every scene, each emotion with its own, all of them drawn."""

import re
from collections import Counter
from string import Formatter

import numpy as np
import pytest

from atelier.data.annotations import EMOTIONS
from atelier.data.painter.lights import COLOURS, LIGHTS
from atelier.data.painter.stage import Scene
from atelier.data.painter.subjects import SUBJECTS
from atelier.data.painter.utterances import (
    AGREEING,
    ANY,
    SLOTS,
    annotations_of,
    checked_table,
    filled,
    sentence,
    table,
    utterance,
)

SENTENCES = table()["sentences"]
SHORTEST, LONGEST = 5, 34  # words
NAMED = {  # words that name an emotion outright
    "amusement": r"smil|laugh|funny|amus|happy",
    "awe": r"\bawe\b|wonder|amaz|breath|stunned|speechless|impressed",
    "contentment": r"content|calm|happy|peace|relaxed",
    "excitement": r"excit|thrill",
    "anger": r"angry|\bmad\b|furious|\brage\b|cross",
    "disgust": r"disgust|\bsick\b|gross|repulsive",
    "fear": r"scar[ey]|afraid|frighten|fear|anxious|nervous",
    "sadness": r"\bsad\b|sorrow|cry\b|tears",
    "something else": r"curious|confuse|puzzle|bored|indifferent|neutral|mixed|surprised",
}


def scenes() -> list[Scene]:
    """Every subject, in each of its numbers, with every hour and colour that it may have."""
    return [
        Scene(name, light, colour, count, (), (), 1.0)
        for name, kind in SUBJECTS.items()
        for count in sorted(set(kind.counts))
        for light, colour in zip(kind.lights * 2, kind.colours * 2, strict=False)
    ]


def boats(count: int) -> Scene:
    """Red boats at dusk."""
    return Scene("boat", "dusk", "red", count, (), (), 1.0)


def slots_of(line: str) -> set[str]:
    """The slots of a sentence."""
    return {name for _, name, _, _ in Formatter().parse(line) if name is not None}


def written(**changes: str) -> str:
    """A small table as YAML; ``changes`` name a section's lines for awe."""
    lines = {"feelings": "moves me", "tones": "grand", "sentences": "{it} {is} great"} | changes
    said = [f"{key}: {{any: ['{{it}} {{feels}}'], " if key == "sentences" else f"{key}: {{" for key in lines]
    return "\n".join(
        head + ", ".join(f"{emotion}: ['{line if emotion == 'awe' else 'plain'}']" for emotion in EMOTIONS) + "}"
        for head, line in zip(said, lines.values(), strict=True)
    )


def test_there_are_several_hundred_and_no_two_alike() -> None:
    lines = [line for lines in SENTENCES.values() for line in lines]
    assert len(lines) >= 300
    assert len({re.sub(r"\W+", " ", line) for line in lines}) == len(lines)
    assert set(SENTENCES) == {ANY, *EMOTIONS}
    assert set().union(*map(slots_of, lines)) == {*SLOTS, *AGREEING}
    for section in ("feelings", "tones"):
        assert all(len(set(found)) == len(found) >= 6 for found in table()[section].values())


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_an_emotion_has_its_own(emotion: str) -> None:
    own = SENTENCES[emotion]
    assert len(own) >= 25
    assert sum(bool(re.search(NAMED[emotion], line)) for line in own) >= 5
    palette = sum("{tones}" in line for line in own)
    assert 3 <= palette <= len(own) // 2


def test_every_sentence_suits_every_scene() -> None:
    rng = np.random.default_rng(0)
    for key, lines in SENTENCES.items():
        for line in lines:
            assert "{colour} {noun}" not in line, line  # a face has no colour: {a_colour_noun} and {it} know that
            for scene in scenes():
                emotion = key if key in EMOTIONS else EMOTIONS[int(rng.integers(len(EMOTIONS)))]
                text = filled(line, scene, emotion, rng)
                assert text == text.lower().strip(), text
                assert not re.search(r"[{}]|  | [,.?!]", text), text
                assert not re.search(r"\ba [aeio]|\ban (?!hour)[^aeiou]", text), text
                assert SHORTEST <= len(text.split()) <= LONGEST, text
                said = {name for name in COLOURS if name in re.findall(r"\w+", text)}
                tones = set(re.findall(r"\w+", " ".join(table()["tones"][emotion])))
                assert said <= {scene.colour} | tones, text


@pytest.fixture
def said() -> list[tuple[str, str]]:
    """The sentence and the words of 2,000 draws, the emotions in turn."""
    every, drawn = scenes(), []
    for i in range(2000):
        emotion = EMOTIONS[i % len(EMOTIONS)]
        line = sentence(emotion, np.random.default_rng(i))
        drawn.append((line, utterance(every[i * 7 % len(every)], emotion, np.random.default_rng(i))))
    return drawn


def test_they_all_occur(said: list[tuple[str, str]]) -> None:
    lines = Counter(line for line, _ in said)
    assert len(lines) >= 300
    assert max(lines.values()) < 40
    assert len({text for _, text in said}) > 0.94 * len(said)
    for line, text in said:
        assert re.fullmatch(re.sub(r"\\{\w+\\}", ".*", re.escape(line)), text), (line, text)


def test_utterances_depend_on_the_generator_alone() -> None:
    for seed in range(50):
        one, two = (annotations_of(boats(2), "awe", np.random.default_rng(seed)) for _ in range(2))
        assert one == two
    assert len({utterance(boats(1), "fear", np.random.default_rng(seed)) for seed in range(100)}) > 80


def test_one_and_many_agree() -> None:
    line = "{a_noun}, {this} {noun}: {they} {is}, {was}, {has}, {do}, seem{s}; {them}; {a_colour_noun}"
    one, many = (filled(line, boats(count), "awe", np.random.default_rng(0)) for count in (1, 3))
    assert one == "a boat, this boat: it is, was, has, does, seems; it; a red boat"
    assert many == "boats, these boats: they are, were, have, do, seem; them; red boats"
    bridge = Scene("bridge", "dusk", "orange", 3, (), (), 1.0)
    assert filled("{a_colour_noun} {is}", bridge, "awe", np.random.default_rng(0)) == "an orange bridge is"
    face = Scene("face", "noon", "red", 1, (), (), 1.0)
    assert filled("{a_colour_noun}", face, "awe", np.random.default_rng(0)) == "a face in red"


def test_the_palette_is_named_only_where_it_shows() -> None:
    lines = [sentence("awe", np.random.default_rng(seed), shown=False) for seed in range(500)]
    assert not any("{tones}" in line for line in lines)
    assert len(set(lines)) > 60
    strange = re.compile("|".join(f"{tones} (colours|light|tones|world)" for tones in table()["tones"]["fear"]))
    for seed in range(300):
        for emotion, text in annotations_of(boats(1), "amusement", np.random.default_rng(seed)):
            assert emotion != "fear" or not strange.search(text), text


def test_hours_are_true(said: list[tuple[str, str]]) -> None:
    every = scenes()
    whole = {phrase: name for name, light in LIGHTS.items() for phrase in light.phrases}
    for i, (line, text) in enumerate(said):
        if "{when}" in line:
            hours = {name for phrase, name in whole.items() if phrase in text}
            assert every[i * 7 % len(every)].light in hours, text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", r"^utterances.yaml: not YAML \("),
        ("- sentences", r"^utterances.yaml: expected feelings, tones, sentences$"),
        (written().replace("anger", "joy"), r"^utterances.yaml: feelings: expected amusement, awe, .*something else$"),
        (written().replace("any:", "all:"), r"^utterances.yaml: sentences: expected any, amusement, .*$"),
        (written().replace("['{it} {is} great']", "[]"), r"^utterances.yaml: sentences: awe: expected a list of .*$"),
        (written(sentences="a {mood}"), r"^utterances.yaml: sentences: awe: 'a \{mood\}' has slots .*: mood$"),
        (written(sentences="{it:>9}"), r"^utterances.yaml: sentences: awe: '\{it:>9\}' has slots .*: it$"),
        (written(sentences="{it.real}"), r"^utterances.yaml: sentences: awe: .* has slots .*: it.real$"),
        (written(sentences="{it"), r"^utterances.yaml: sentences: awe: '\{it' is no sentence \(.*\)$"),
        (written(sentences="{tones}"), r"^utterances.yaml: sentences: awe: every sentence names the palette, .*$"),
        (written(feelings="likes {it}"), r"^utterances.yaml: feelings: awe: 'likes \{it\}' has slots .*: it$"),
        (written().replace("{feels}", "waits"), r"^utterances.yaml: sentences: any: '\{it\} waits' tells no emotion"),
    ],
)  # fmt: skip
def test_a_bad_table_is_refused_in_one_line(text: str, expected: str) -> None:
    assert checked_table(written())["sentences"]["awe"] == ["{it} {is} great"]
    with pytest.raises(ValueError, match=expected) as refusal:
        checked_table(text)
    assert "\n" not in str(refusal.value)
