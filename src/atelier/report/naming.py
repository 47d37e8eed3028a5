"""Measures and cells in words, for sentences that a reader of a page understands without the code's names."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from atelier.claims import Comparison, path_of
from atelier.params import CORRECTED, read

MEASURES = Path(__file__).with_name("measures.yaml")
NAMES = "names.yaml"  # beside a study's claims
PROMPTS = {"0": "plain descriptions", "1": "with style and artist", "2": "with emotion and reason"}
CELL = re.compile(rf"(?P<model>[^@]+)@(?P<level>\d)/(?P<guidance>[\d.]+)(?P<start>/{CORRECTED})?")


def measure(name: str) -> str:
    """``fd``: Fréchet distance to real works; of one style, ``high/Cubism``: error of high frequencies (Cubism)."""
    stem, _, style = name.partition("/")
    words = _measures().get(stem, stem.replace("_", " "))
    return f"{words} ({style.replace('_', ' ')})" if style else words


def comparison(study: str, compared: Comparison) -> tuple[str, str, str]:
    """Its measure, what changed, and the reference, in words; the guidance that all share stands with the first."""
    changed, reference = ([_split(study, cell) for cell in each] for each in (compared.changed, compared.reference))
    settings = {setting for _, setting in (*changed, *reference)}
    if len(settings) == 1 and (shared := settings.pop()):
        return (
            f"{measure(compared.measure)} {shared}",
            _joined([model for model, _ in changed]),
            _joined([model for model, _ in reference]),
        )
    sides = [_joined([f"{model} {setting}".strip() for model, setting in each]) for each in (changed, reference)]
    return measure(compared.measure), *sides  # type: ignore[return-value]


def _split(study: str, cell: str) -> tuple[str, str]:
    """A cell's model in words, and how it painted: ``at guidance 16``; "" of a cell that is no model's pictures."""
    match = CELL.fullmatch(cell)
    if match is None:
        return _model(study, cell), ""
    prompts = f"{PROMPTS[match['level']]}, " if match["level"] != "1" or study == "prompt_enrichment" else ""
    start = ", from a corrected start" if match["start"] else ""
    return _model(study, match["model"]), f"{prompts}at guidance {match['guidance']}{start}"


def _model(study: str, name: str) -> str:
    names = cells(study)
    if name in names:
        return names[name]
    model, plus, decoder = name.partition("+")
    if plus and model in names and decoder in names:
        return f"{names[model]}, with {names[decoder]}"
    return name.replace("-", " ").replace("_", " ")


def _joined(names: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(names))


@cache
def cells(study: str) -> Mapping[str, str]:
    """A study's names of models and cells; empty where it has no file. Raises ValueError for one that is no YAML."""
    path = path_of(study).with_name(NAMES)
    return read(path) if path.is_file() else {}


@cache
def _measures() -> Mapping[str, str]:
    return read(MEASURES)
