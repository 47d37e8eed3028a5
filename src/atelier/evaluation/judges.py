"""Stage ``judges``: the evaluator, the quality bars and the base's known artists, copied from the data folder.

They are kept in ``build``, with a note there if the data folder has none. ``Judges`` are what measures see pictures
with: the evaluator, or the field's networks where ``field_judges`` names them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd
from pydantic import Field
from torch import Tensor

from atelier.data.checks import FloatArray, check_picture_tensor
from atelier.data.names import artist_and_title
from atelier.data.pictures import Pictures, in_memory
from atelier.evaluation import field
from atelier.evaluation.intervals import Interval, wilson_interval
from atelier.files import check_seal, write_text
from atelier.machine import accelerator
from atelier.metrics import alignment
from atelier.models import evaluator as evaluators
from atelier.models import stored
from atelier.models.clip import Clip
from atelier.models.evaluator import Evaluator
from atelier.params import FIELD_MAIN, Params, Positive, Section, validated
from atelier.workspace import Workspace, replacing

# inside the data folder; any may be absent
SHIPPED_EVALUATOR, SHIPPED_BARS, SHIPPED_CARD = "evaluator", "report/bars.json", "base/card.json"
ABSENT = "absent.txt"


class Bar(Section, extra="ignore"):
    """A measured value with its required minimum or maximum; with neither it is only reported."""

    name: str
    value: float
    n: Positive
    least: float | None = None
    most: float | None = None
    low: float | None = None  # ends of an interval
    high: float | None = None
    unit: str = "1"

    @property
    def met(self) -> bool | None:
        """Whether the requirement is met; a minimum is compared with the interval's low end where there is one."""
        if self.least is not None:
            return (self.value if self.low is None else self.low) >= self.least
        return self.value <= self.most if self.most is not None else None

    @property
    def requirement(self) -> str:
        if self.least is not None:
            return f"at least {self.least:.3g}"
        return "reported" if self.most is None else f"at most {self.most:.3g}"

    @property
    def interval(self) -> Interval:
        """The value, with its interval where it has one."""
        nan = float("nan")
        return Interval(self.value, nan if self.low is None else self.low, nan if self.high is None else self.high, 0)


class Bars(Section, extra="ignore"):
    bars: list[Bar]


class KnownArtists(Section):
    artists: list[str]


class TrainedOn(Section, extra="ignore"):
    """The part of a shipped base's card that says what it was trained on."""

    known_artists: list[str] = Field(default_factory=list, alias="seen")


class Card(Section, extra="ignore"):
    trained_on: TrainedOn = Field(default_factory=TrainedOn, alias="asked")


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/evaluator``, ``build/bars.json`` and ``build/known_artists.json`` from the data folder.

    Artists are read from a shipped base's card only. Raises ValueError for a damaged file.
    """
    folder = workspace.named(params.data.folder)
    evaluator_folder, bars_file = folder / SHIPPED_EVALUATOR, folder / SHIPPED_BARS
    with replacing(workspace.evaluator) as part:
        if evaluator_folder.is_dir():
            evaluators.save(
                evaluators.load(evaluator_folder), part, stored.load_json(evaluator_folder / evaluators.CARD)
            )
            print(f"{evaluator_folder}: kept")
        else:
            write_text(part / ABSENT, "the data folder has no evaluator\n")
            print(f"{folder}: no evaluator")
    shipped = read_bars(bars_file) if bars_file.is_file() else []
    stored.save_json(stored.with_checksum({"bars": [bar.model_dump() for bar in shipped]}), workspace.bars)
    print(f"{bars_file}: {len(shipped)} bars")
    card = folder / SHIPPED_CARD
    known: list[str] = []
    if params.base.source == "shipped" and card.is_file():
        slugs = validated(Card, stored.load_json(card), str(card)).trained_on.known_artists
        known = [artist_and_title(f"{slug}_")[0] for slug in slugs]
    stored.save_json(stored.with_checksum({"artists": known}), workspace.known_artists)


def evaluator(folder: Path) -> Evaluator | None:
    """Load the stage's evaluator; None if the data has none. Raises ValueError for a damaged one."""
    return None if (check_seal(folder) / ABSENT).is_file() else evaluators.load(folder)


class Judges(NamedTuple):
    """Networks that see pictures. Distances compare the features of ``main``, which is the evaluator if it is None."""

    evaluator: Evaluator | None = None
    networks: Mapping[str, field.Judge] = MappingProxyType({})  # of ``field_judges``, by name

    @property
    def main(self) -> str | None:
        """Inception, as FID has it; DINOv2 where only that is named; else None."""
        return next((name for name in FIELD_MAIN if name in self.networks), None)

    @property
    def clip(self) -> Clip | None:
        """The network of CLIPScore."""
        network = self.networks["clip"].network if "clip" in self.networks else None
        return network if isinstance(network, Clip) else None


def features(by: Judges, pictures: Tensor) -> FloatArray | None:
    """The features (n, d) that distances compare, of pictures (n, 3, h, w) uint8; None where no network sees them.

    Raises ValueError for floats and other shapes.
    """
    if by.main is not None:
        return field.features(by.networks[by.main], pictures)
    check_picture_tensor(pictures, "pictures", ("uint8",))
    return None if by.evaluator is None else alignment.features(by.evaluator, pictures / 255)


def load(params: Params, workspace: Workspace) -> Judges:
    """The stage's evaluator and the networks that ``field_judges`` names. Raises ValueError for damaged ones."""
    networks = field.judges(params.field_judges, workspace.root, accelerator(params.machine).device)
    return Judges(evaluator(workspace.evaluator), networks)


def known_artists(path: Path) -> list[str]:
    """Artists that the base was trained on, as named in the works table; empty if the data does not say.

    Raises ValueError for a damaged file.
    """
    return list(validated(KnownArtists, stored.load_checked_json(path), str(path)).artists)


def read_bars(path: Path) -> list[Bar]:
    """Read the bars of a file, the stage's or the data's; ValueError, one line per error. The stage's may be empty."""
    return validated(Bars, stored.load_checked_json(path), str(path)).bars


def table(bars: Sequence[Bar]) -> pd.DataFrame:
    """Format bars as a table for a page."""
    said = {True: "yes", False: "no", None: ""}
    rows = [
        {
            "measure": bar.name,
            "value": f"{bar.value:.3g} {bar.unit}".removesuffix(" 1"),
            "95 % interval": "" if bar.low is None or bar.high is None else f"{bar.low:.3g} to {bar.high:.3g}",
            "required": bar.requirement,
            "n": bar.n,
            "met": said[bar.met],
        }
        for bar in bars
    ]
    return pd.DataFrame(rows).set_index("measure")


def share_seen(model: Evaluator, pictures: Tensor | Pictures, attribute: str, wanted: Sequence[str]) -> Interval | None:
    """Share of pictures (n, 3, h, w) uint8 that the evaluator classifies as wanted, with its score interval.

    ``wanted``: one class name per picture; names that the evaluator does not know (such as "") are left out. None if no
    picture is left. Raises ValueError for floats and other shapes.
    """
    pictures = in_memory(pictures)
    if len(pictures) != len(wanted):
        raise ValueError(f"each picture needs what was wanted: {len(pictures)} pictures, {len(wanted)} names")
    rows = [row for row, name in enumerate(wanted) if name in model.classes[attribute]]
    if not rows:
        return None
    seen = (alignment.attributes(model, batch / 255)[attribute] for batch in pictures[rows].batches())
    predicted = pd.concat(seen).idxmax(axis=1)
    right = sum(name == wanted[row] for name, row in zip(predicted, rows, strict=True))
    return wilson_interval(right, len(rows))
