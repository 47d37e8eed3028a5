"""Measures and cells in words, for sentences that a reader of a page understands without the code's names."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from atelier.claims import Comparison, path_of
from atelier.params import CORRECTED, read

MEASURES = Path(__file__).with_name("measures.yaml")
NAMES = "names.yaml"  # beside a study's claims
MANY = 2  # models that are named one by one
PROMPTS = {"0": "plain descriptions", "1": "with style and artist", "2": "with emotion and reason"}
CELL = re.compile(rf"(?P<model>[^@]+)@(?P<level>\d)/(?P<guidance>[\d.]+)(?P<start>/{CORRECTED})?")


def measure(name: str) -> str:
    """``fd``: Fréchet distance to real works; of one style, ``high/Cubism``: error of high frequencies (Cubism)."""
    stem, _, style = name.partition("/")
    words = _measures().get(stem, stem.replace("_", " "))
    return f"{words} ({style.replace('_', ' ')})" if style else words


def comparison(study: str, compared: Comparison) -> tuple[str, str, str]:
    """Its measure, what changed, and the reference, in words; guidance that both sides share stands with the first."""
    named = measure(compared.measure)
    changed, reference = ([_split(study, cell) for cell in each] for each in (compared.changed, compared.reference))
    (one, settings), (other, against) = _side(changed), _side(reference)
    if settings == against:
        return f"{named} {settings}".strip(), one, other
    return named, f"{one} {settings}".strip(), f"{other} {against}".strip()


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
    prompts = f"{PROMPTS[match['level']]}, " if match["level"] != "1" or study == "prompt_enrichment" else ""
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
    return " and ".join(models) if len(models) <= MANY else f"{len(models)} models", "; ".join(settings)


@cache
def cells(study: str) -> Mapping[str, str]:
    """A study's names of models and cells; empty where it has no file. Raises ValueError for one that is no YAML."""
    path = path_of(study).with_name(NAMES)
    return read(path) if path.is_file() else {}


@cache
def _measures() -> Mapping[str, str]:
    return read(MEASURES)
