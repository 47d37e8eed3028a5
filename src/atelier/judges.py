"""What judges a base: the evaluator and the bars that came with the data, and the artists whom a shipped base knows.

The stage ``judges`` keeps them in ``build``, or notes there that the data has none.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import Field
from torch import Tensor

from atelier import params, paths
from atelier.data.artemis import artist_and_title
from atelier.evidence import Interval, wilson_interval
from atelier.metrics import alignment
from atelier.models import evaluator as evaluators
from atelier.models import stored
from atelier.models.evaluator import Evaluator

# inside the data folder; any may be absent
SHIPPED_EVALUATOR, SHIPPED_BARS, SHIPPED_CARD = "evaluator", "report/bars.json", "base/card.json"
ABSENT = "absent.txt"


class Bar(params.Section, extra="ignore"):
    """A value against the least or the most that it may be; neither: it is only told."""

    name: str
    value: float
    n: params.Positive
    least: float | None = None
    most: float | None = None
    low: float | None = None  # of an interval
    high: float | None = None
    unit: str = "1"

    @property
    def met(self) -> bool | None:
        """Whether it is met; a share is held to the low end of its interval where it has one."""
        if self.least is not None:
            return (self.value if self.low is None else self.low) >= self.least
        return self.value <= self.most if self.most is not None else None

    @property
    def asked(self) -> str:
        if self.least is not None:
            return f"at least {self.least:.3g}"
        return "reported" if self.most is None else f"at most {self.most:.3g}"

    @property
    def interval(self) -> Interval:
        """The value, with its interval where it has one."""
        nan = float("nan")
        return Interval(self.value, nan if self.low is None else self.low, nan if self.high is None else self.high, 0)


class Bars(params.Section, extra="ignore"):
    bars: list[Bar]


class Lessons(params.Section, extra="ignore"):
    """Of a shipped base's card, what it was asked to learn."""

    seen: list[str] = Field(default_factory=list)


class Card(params.Section, extra="ignore"):
    asked: Lessons = Lessons()


def keep(data: params.Data, source: str) -> None:
    """Fill ``build/evaluator``, ``build/bars.json`` and ``build/known_artists.json`` from the data folder.

    ``source``: of the base; only a shipped one's card says whom it knows. What is there but damaged: ValueError.
    """
    folder = Path(data.folder)
    given, bars_given = folder / SHIPPED_EVALUATOR, folder / SHIPPED_BARS
    with paths.replacing(paths.EVALUATOR) as part:
        if given.is_dir():
            evaluators.save(evaluators.load(given), part, stored.load_json(given / evaluators.CARD))
            print(f"{given}: kept")
        else:
            (part / ABSENT).write_text("the data folder has no evaluator\n")
            print(f"{folder}: no evaluator")
    found = read_bars(bars_given) if bars_given.is_file() else []
    stored.save_json({"bars": [bar.model_dump() for bar in found]}, paths.BARS)
    print(f"{bars_given}: {len(found)} bars")
    card = folder / SHIPPED_CARD
    known: list[str] = []
    if source == "shipped" and card.is_file():
        seen = params.checked(Card, stored.load_json(card), str(card)).asked.seen
        known = [artist_and_title(f"{slug}_")[0] for slug in seen]
    stored.save_json({"artists": known}, paths.KNOWN_ARTISTS)


def evaluator() -> Evaluator | None:
    """The evaluator that the stage kept; None where the data has none."""
    return None if (paths.EVALUATOR / ABSENT).is_file() else evaluators.load(paths.EVALUATOR)


def known_artists() -> list[str]:
    """The artists, as works' rows name them, whom the base learnt by name; none where the data does not say."""
    return list(stored.load_json(paths.KNOWN_ARTISTS)["artists"])


def bars() -> list[Bar]:
    """The bars that the stage kept; none where the data has none."""
    return read_bars(paths.BARS)


def read_bars(path: Path) -> list[Bar]:
    """The bars of a file; ValueError, a line a fault."""
    return params.checked(Bars, stored.load_json(path), str(path)).bars


def table(bars: Sequence[Bar]) -> pd.DataFrame:
    """Bars as a page shows them."""
    said = {True: "yes", False: "no", None: ""}
    rows = [
        {
            "measure": bar.name,
            "value": f"{bar.value:.3g} {bar.unit}".removesuffix(" 1"),
            "95 % interval": "" if bar.low is None or bar.high is None else f"{bar.low:.3g} to {bar.high:.3g}",
            "asked": bar.asked,
            "n": bar.n,
            "met": said[bar.met],
        }
        for bar in bars
    ]
    return pd.DataFrame(rows).set_index("measure")


def share_seen(model: Evaluator, pictures: Tensor, attribute: str, wanted: Sequence[str]) -> Interval | None:
    """Share of pictures (n, 3, h, w) uint8 in which the evaluator sees what was wanted, with its score interval.

    ``wanted``: a class each. What the evaluator has no class for ("" is such) does not count; None where nothing does.
    """
    if len(pictures) != len(wanted):
        raise ValueError(f"each picture needs what was wanted: {len(pictures)} pictures, {len(wanted)} names")
    asked = [at for at, name in enumerate(wanted) if name in model.classes[attribute]]
    if not asked:
        return None
    seen = alignment.attributes(model, pictures[asked] / 255)[attribute].idxmax(axis=1)
    right = sum(name == wanted[at] for name, at in zip(seen, asked, strict=True))
    return wilson_interval(right, len(asked))
