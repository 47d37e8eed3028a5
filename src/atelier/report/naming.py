"""Measures and cells in words, for sentences, tables and figures that a reader understands without the code's names."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from bs4 import BeautifulSoup, Tag
from matplotlib.figure import Figure
from matplotlib.text import Text

from atelier.claims import Comparison, path_of
from atelier.params import CORRECTED, read

MEASURES = Path(__file__).with_name("measures.yaml")
NAMES = "names.yaml"  # beside a study's claims
SIDES = re.compile(r"( less | over )")  # of a row that compares two cells
NOTHING = "nothing"  # the cell that has 0 in every measure
MANY = 2  # models that are named one by one
PROMPTS = {"0": "plain descriptions", "1": "with style and artist", "2": "with emotion and reason"}
CELL = re.compile(rf"(?P<model>[^@]+)@(?P<level>\d)/(?P<guidance>[\d.]+)(?P<start>/{CORRECTED})?")


def measure(name: str) -> str:
    """``fd``: Fréchet distance to real works; of one style, ``high/Cubism``: error of high frequencies (Cubism)."""
    stem, _, style = name.partition("/")
    words = _measures().get(stem, stem.replace("_", " "))
    return f"{words} ({style.replace('_', ' ')})" if style else words


def comparison(study: str, compared: Comparison) -> tuple[str, str, str]:
    """Its measure, what changed, and the reference, in words; guidance that both sides share stands with the first.

    A reference is "" where it is nothing.
    """
    named = measure(compared.measure)
    if compared.reference == [NOTHING]:
        one, settings = _side([_split(study, cell) for cell in compared.changed])
        return named, f"{one} {settings}".strip(), ""
    changed, reference = ([_split(study, cell) for cell in each] for each in (compared.changed, compared.reference))
    (one, settings), (other, against) = _side(changed), _side(reference)
    if settings == against:
        return f"{named} {settings}".strip(), one, other
    return named, f"{one} {settings}".strip(), f"{other} {against}".strip()


def sentence(study: str, compared: Comparison) -> str:
    """``comparison`` in one line."""
    named, changed, reference = comparison(study, compared)
    return f"{named}: {changed}{f' against {reference}' if reference else ''}"


def table(study: str, html: str) -> str:
    """A table with models and cells in words; a measure, or a row of two cells, says its words on hover."""
    soup = BeautifulSoup(html, "html.parser")
    for cell in soup.find_all(["th", "td"]):
        if isinstance(cell, Tag) and (name := cell.string):
            if (words := label(study, name)) != name:
                cell.string = words
            elif hover := _hover(study, name):
                cell.clear()
                cell.append(soup.new_tag("abbr", attrs={"title": hover}, string=name))
    return str(soup)


def figure(study: str, drawn: Figure) -> None:
    """Set a figure's models and cells in words: in legends, beside axes and in titles."""
    for text in drawn.findobj(Text):
        if isinstance(text, Text) and (words := label(study, text.get_text())) != text.get_text():
            text.set_text(words)
    for axis in (side for axes in drawn.axes for side in (axes.xaxis, axes.yaxis)):
        shown = [text.get_text() for text in axis.get_ticklabels()]  # texts that every drawing sets anew
        if (words_of := [label(study, name) for name in shown]) != shown:
            axis.set_ticks(axis.get_ticklocs(), labels=words_of)


K = TypeVar("K")


def rows(study: str, shown: Mapping[str, K]) -> dict[str, K]:
    """The rows of a sheet of pictures, with their labels in words."""
    return {label(study, name): row for name, row in shown.items()}


def label(study: str, name: str) -> str:
    """A model or cell in words, with its start; as it is where it has no name."""
    names, (stem, dash, start) = cells(study), name.rpartition("-")
    if dash and start == CORRECTED and stem in names:
        return f"{names[stem]}, corrected start"
    return names.get(name, name)


def _hover(study: str, name: str) -> str:
    """What a measure is, or which two cells a row compares; "" where that is no news."""
    sides = SIDES.split(name)
    if len(sides) == 1:
        return _measures().get(name.lower(), "")
    words = [label(study, side) for side in sides[::2]]
    return f"{words[0]}{sides[1]}{words[1]}" if len(words) == 2 and words != sides[::2] else ""


def model(study: str, name: str) -> str:
    """A model or another cell that is no model's pictures at a guidance scale, in words."""
    names = cells(study)
    if name in names:
        return names[name]
    stem, plus, decoder = name.partition("+")
    if plus and stem in names and decoder in names:
        return f"{names[stem]}, with {names[decoder]}"
    return name.replace("-", " ").replace("_", " ")


def _split(study: str, cell: str) -> tuple[str, tuple[str, str, str]]:
    """A cell's model in words, and how it painted: prompts, guidance, start; all "" of what is no model's pictures."""
    match = CELL.fullmatch(cell)
    if match is None:
        return model(study, cell), ("", "", "")
    plain = "from " if match["level"] == "0" else ""
    prompts = f"{plain}{PROMPTS[match['level']]}, " if match["level"] != "1" or study == "prompt_enrichment" else ""
    return model(study, match["model"]), (prompts, match["guidance"], ", from a corrected start" if match[4] else "")


def _side(cells: Sequence[tuple[str, tuple[str, str, str]]]) -> tuple[str, str]:
    """The models of one side, counted where they are many, and how they painted."""
    models = list(dict.fromkeys(model for model, _ in cells))
    how: dict[tuple[str, str], list[str]] = {}
    for _, (prompts, guidance, start) in cells:
        scales = how.setdefault((prompts, start), [])
        scales += [guidance] if guidance and guidance not in scales else []
    settings = [
        f"{prompts}at guidance {' and '.join(scales)}{start}" for (prompts, start), scales in how.items() if scales
    ]
    return " and ".join(models) if len(models) <= MANY else _counted(models), "; ".join(settings)


def _counted(models: Sequence[str]) -> str:
    """How many models, with what their names begin with where that is one."""
    begins = {model.partition(",")[0] for model in models}
    return f"{begins.pop()}, mean of {len(models)} models" if len(begins) == 1 else f"{len(models)} models"


def cell(study: str, name: str) -> str:
    """A model in words, with guidance and start where it has them."""
    model, settings = _side([_split(study, name)])
    return f"{model} {settings}".strip()


@cache
def cells(study: str) -> Mapping[str, str]:
    """A study's names of models and cells; empty where it has no file. Raises ValueError for one that is no YAML."""
    path = path_of(study).with_name(NAMES)
    return read(path) if path.is_file() else {}


@cache
def _measures() -> Mapping[str, str]:
    return read(MEASURES)
