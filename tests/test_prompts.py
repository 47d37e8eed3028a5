"""Prompts: three levels, each beginning with the one below, drawn without state from one table."""

import pandas as pd
import pytest

from atelier.data import prompts
from atelier.data.annotations import EMOTIONS
from atelier.data.prompts import LEVELS, checked_templates, prompt, style_name, templates

WORK = {
    "art_style": "Post_Impressionism",
    "painting": "paul-cezanne_still-life-with-apples-1890",
    "artist": "Paul Cezanne",
    "title": "still life with apples",
    "emotions": ["awe", "something else"],
    "utterances": ["so {round} and\n ripe", "I am hungry"],
}
DRAWS = range(60)


def test_each_level_begins_with_the_one_below_and_adds_its_own_words() -> None:
    for draw in DRAWS:
        levels = [prompt(WORK, level, draw) for level in LEVELS]
        assert "still life with apples" in levels[0]
        assert "Cezanne" not in levels[0]
        assert levels[1].startswith(levels[0])
        assert "Paul Cezanne" in levels[1]
        assert "Post-Impressionism" in levels[1]
        assert levels[2].startswith(levels[1])
        felt = [("awe", "so {round} and ripe"), ("a feeling hard to name", "I am hungry")]
        assert sum(emotion in levels[2] and why in levels[2] for emotion, why in felt) == 1


def test_draws_reach_every_template_and_utterance_and_depend_on_nothing_else() -> None:
    forwards = {draw: prompt(WORK, 2, draw) for draw in DRAWS}
    backwards = {draw: prompt(pd.Series(WORK), 2, draw) for draw in reversed(DRAWS)}
    assert forwards == backwards
    sections = [templates()[section] for section in ("description", "style_and_artist", "feeling")]
    assert len({prompt(WORK, 0, draw) for draw in DRAWS}) == len(sections[0])
    assert len({prompt(WORK, 1, draw) for draw in DRAWS}) == len(sections[0]) * len(sections[1])
    for why in ("ripe", "hungry"):
        assert any(why in text for text in forwards.values())


def test_what_a_work_lacks_is_left_out() -> None:
    bare = {**WORK, "emotions": [], "utterances": []}
    assert prompt(bare, 2, 5) == prompt(bare, 1, 5) == prompt(WORK, 1, 5)
    nameless = {**WORK, "artist": "", "title": ""}
    for draw in DRAWS:
        assert prompt(nameless, 0, draw) in templates()["untitled"]
        assert " by " not in prompt(nameless, 1, draw)
        assert "Post-Impressionism" in prompt(nameless, 1, draw)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("Ukiyo_e", "Ukiyo-e"),
        ("Northern_Renaissance", "Northern Renaissance"),
        ("New_Realism", "New Realism"),
        ("Post_Impressionism", "Post-Impressionism"),
        ("Cubism", "Cubism"),
    ],
)
def test_style_names(folder: str, words: str) -> None:
    assert style_name(folder) == words


def test_another_level_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prompt level: expected one of \(0, 1, 2\), got 3"):
        prompt(WORK, 3, 0)


def table(**changes: str) -> str:
    """The YAML of a small table, sections replaced."""
    emotions = "{" + ", ".join(f"{emotion}: x" for emotion in EMOTIONS) + "}"
    sections = {name: f"['{''.join(f'{{{p}}}' for p in fills)}']" for name, fills in prompts._PLACEHOLDERS.items()}
    sections |= {"emotions": emotions, "styles": "{}"} | changes
    return "\n".join(f"{name}: {value}" for name, value in sections.items())


def test_small_table_is_sound() -> None:
    assert checked_templates(table())["untitled"] == [""]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("description: [", "not YAML"),
        ("- a list", "expected the sections description"),
        (table(extra="[]"), "expected the sections description"),
        (table(description="[]"), "description: expected a list of templates"),
        (table(description="'{title}'"), "description: expected a list of templates"),
        (table(description="['{titel}']"), r"fills \['titel'\], expected \['title'\]"),
        (table(description="['{title.__class__}']"), r"fills \['title.__class__'\], expected \['title'\]"),
        (table(description="['{title']"), "is no template"),
        (table(description="[1]"), "is no template"),
        (table(emotions="{awe: awe}"), "emotions: expected amusement"),
    ],
)
def test_faulty_table_is_refused_in_one_line(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=rf"prompts\.yaml: .*{why}") as refusal:
        checked_templates(text)
    assert "\n" not in str(refusal.value)
