"""A work's prompt at three levels of enrichment, from one table of templates (``prompts.yaml``).

Level 0 is a description (from the title), level 1 adds art style and artist, level 2 one annotator's emotion and its
reason. The poster names the levels but gives no templates; these are ours.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from string import Formatter
from typing import Any, Protocol

from ruamel.yaml import YAML, YAMLError

from atelier.data.annotations import EMOTIONS
from atelier.data.mending import decoded, repaired
from atelier.data.names import artist_and_title
from atelier.seeds import seed_of

LEVELS = (0, 1, 2)

_PLACEHOLDERS = {  # the placeholders that each list of templates must use
    "description": {"title"},
    "untitled": set(),
    "style_and_artist": {"style", "artist"},
    "style_only": {"style"},
    "feeling": {"emotion", "utterance"},
}


class Row(Protocol):
    """A row of the works table: a mapping, or a pandas Series."""

    def __getitem__(self, key: str, /) -> Any: ...


def prompt(work: Row, level: int, draw: int) -> str:
    """The prompt of a work (a row of ``Works.table``) at level 0, 1 or 2; ``draw`` picks templates and utterance.

    A pure function of its arguments. For the same draw, each level's prompt begins with that of the level below. A work
    without annotations has the same prompt at level 2 as at level 1.
    Raises ValueError for another level.
    """
    if level not in LEVELS:
        raise ValueError(f"prompt level: expected one of {LEVELS}, got {level!r}")
    text = _picked("description" if work["title"] else "untitled", work, draw).format(title=work["title"])
    if level >= 1:
        section = "style_and_artist" if work["artist"] else "style_only"
        text += _picked(section, work, draw).format(style=style_name(work["art_style"]), artist=work["artist"])
    if level >= 2 and len(work["emotions"]) > 0:
        index = _seed("annotation", work, draw) % len(work["emotions"])
        emotion, utterance = work["emotions"][index], " ".join(decoded(work["utterances"][index]).split())
        text += _picked("feeling", work, draw).format(emotion=templates()["emotions"][emotion], utterance=utterance)
    return text


def painted_row(record: Mapping[str, Any], caption: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a painted picture's truth and caption into one row, with the artist's name as the loader reads it."""
    artist, _, _ = artist_and_title(record["painting"])
    return {**record, **caption, "artist": artist}


def style_name(art_style: str) -> str:
    """A style's folder name in words: ``Ukiyo_e`` -> "Ukiyo-e", ``Northern_Renaissance`` -> "Northern Renaissance"."""
    art_style = repaired(art_style)
    return templates()["styles"].get(art_style, art_style.replace("_", " "))


@cache
def templates() -> Mapping[str, Any]:
    """Load and check the table of templates, once."""
    return checked_templates(files("atelier.data").joinpath("prompts.yaml").read_text(encoding="utf-8"))


def checked_templates(text: str) -> Mapping[str, Any]:
    """Parse the table from YAML; ValueError for a missing section or wrong placeholders."""
    try:
        table = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, RecursionError) as fault:
        raise ValueError(f"prompts.yaml: not YAML ({' '.join(str(fault).split())})") from fault
    if not isinstance(table, dict) or set(table) != {*_PLACEHOLDERS, "emotions", "styles"}:
        raise ValueError(f"prompts.yaml: expected the sections {', '.join((*_PLACEHOLDERS, 'emotions', 'styles'))}")
    for section, expected in _PLACEHOLDERS.items():
        _refuse_bad_templates(section, table[section], expected)
    if set(table["emotions"]) != set(EMOTIONS):
        raise ValueError(f"prompts.yaml: emotions: expected {', '.join(EMOTIONS)}")
    return table


def _refuse_bad_templates(section: str, lines: Sequence[str], expected: set[str]) -> None:
    if not isinstance(lines, list) or not lines:
        raise ValueError(f"prompts.yaml: {section}: expected a list of templates, got {lines!r}")
    for line in lines:
        try:
            used = {field for _, field, _, _ in Formatter().parse(line) if field is not None}
        except (TypeError, ValueError) as fault:
            raise ValueError(f"prompts.yaml: {section}: {line!r} is no template ({fault})") from fault
        if used != expected:
            raise ValueError(f"prompts.yaml: {section}: {line!r} fills {sorted(used)}, expected {sorted(expected)}")


def _picked(section: str, work: Row, draw: int) -> str:
    lines = templates()[section]
    return lines[_seed(section, work, draw) % len(lines)]


def _seed(purpose: str, work: Row, draw: int) -> int:
    return seed_of("prompt", purpose, work["art_style"], work["painting"], draw)
