"""What a page shows, as frozen values: tables, figures and sentences, each with the numbers that it records."""

import html
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib import figure
from PIL.Image import Image

from atelier.evaluation.intervals import Interval

DIGITS = 10  # significant digits of a written number: beyond them, machines differ


@dataclass(frozen=True)
class Metric:
    """A number of ``metrics.json``: a value or an interval, the number of pictures it was measured on, its unit."""

    value: float | Interval
    n: int
    unit: str = "1"

    def entry(self) -> dict[str, float | int | str | None]:
        """As JSON; NaN becomes null."""
        nan = float("nan")
        interval = self.value if isinstance(self.value, Interval) else Interval(float(self.value), nan, nan, 0)
        numbers = {"value": interval.mean, "low": interval.low, "high": interval.high}
        rounded = {key: float(f"{x:.{DIGITS}g}") if x == x else None for key, x in numbers.items()}
        return {**rounded, "n": self.n, "repeats": interval.n, "unit": self.unit}


Metrics = Mapping[str, Metric]


@dataclass(frozen=True)
class Table:
    """A table: written to ``tables/NAME.csv`` in full and displayed with three significant digits."""

    name: str
    frame: pd.DataFrame
    caption: str
    metrics: Metrics = field(default_factory=dict)

    def csv(self) -> str:
        return str(self.frame.to_csv(float_format=f"%.{DIGITS}g"))

    def html(self) -> str:
        return str(self.frame.to_html(float_format=significant, na_rep="–", border=0))


@dataclass(frozen=True)
class Data:
    """Rows behind a figure: written to ``tables/NAME.csv`` as they are, without the index, and not displayed."""

    name: str
    frame: pd.DataFrame
    metrics: Metrics = field(default_factory=dict)

    def csv(self) -> str:
        return str(self.frame.to_csv(index=False))


@dataclass(frozen=True)
class Figure:
    """A figure and its caption, which says n and what intervals are over."""

    name: str
    figure: figure.Figure
    caption: str
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Sheet:
    """A contact sheet of the picture browser, and the setting that its pictures were made in: a value an axis."""

    values: tuple[str, ...]
    picture: Image


@dataclass(frozen=True)
class Browser:
    """Pictures to be looked at side by side, on sheets of equal layout: a row a variant, a column a prompt.

    The grid of tiles, ``side`` px each and one every ``step`` px, ends at a sheet's lower right corner.
    """

    name: str
    sheets: Sequence[Sheet]  # the first stands on the page
    axes: Sequence[str]  # what sheets differ in, in words
    rows: Sequence[str]  # in words: the real works if ``real``, what all others are compared with, the others
    real: bool
    noun: str  # what a column is: a prompt, a work
    columns: Sequence[str]
    side: int
    step: int
    caption: str
    metrics: Metrics = field(default_factory=dict)

    def described(self, files: Sequence[str]) -> dict[str, Any]:
        """What the page is told of it; ``files``: the sheets' addresses."""
        sheets = [{"file": file, "values": list(sheet.values)} for file, sheet in zip(files, self.sheets, strict=True)]
        listed = {"axes": list(self.axes), "rows": list(self.rows), "columns": list(self.columns)}
        return {**listed, "noun": self.noun, "real": self.real, "side": self.side, "step": self.step, "sheets": sheets}


@dataclass(frozen=True)
class Text:
    """Sentences or lines that numbers made."""

    text: str
    metrics: Metrics = field(default_factory=dict)


Item = Table | Data | Figure | Browser | Text


def coded(function: Callable[..., Any]) -> str:
    """A function's place, the first line of what it says of itself, and its code, which unfolds."""
    name = f"{function.__module__}.{function.__qualname__}"
    said = (inspect.getdoc(function) or "").partition("\n")[0].replace("``", "")
    head = f"<code>{name}</code> {html.escape(said)}"
    code = html.escape(inspect.getsource(function).rstrip())
    return f"<details><summary>{head}</summary><pre><code>{code}</code></pre></details>"


def significant(value: float, digits: int = 3) -> str:
    """A number with three significant digits, without an exponent where it is of ordinary size."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)))
    if not -5 < exponent < 7:
        return f"{value:.{digits - 1}e}"
    rounded = round(value, digits - 1 - exponent)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{decimals}f}"
