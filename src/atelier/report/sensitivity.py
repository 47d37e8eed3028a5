"""Whether a measure can tell: real works, decoded works, the untuned model and a control in one table."""

from collections.abc import Mapping, Sequence

import pandas as pd

from atelier.evaluation import tables
from atelier.evaluation.tables import REAL, RECONSTRUCTED, RECONSTRUCTED_TRAINING
from atelier.params import STARTS
from atelier.report.items import Table
from atelier.verdicts import SATURATED

DISTANCES = ("fd", "fd_rec", "kd", "fd_haar", "fwd", "pr", "pr_rec", "psd", "psd_rec", "psd10")
# whose distances to held-out works are the floor: what a denoiser paints is decoded, what a decoder returns is not
OF_DENOISERS, OF_DECODERS = RECONSTRUCTED, REAL
Column = tuple[str, str]  # works or a model; of which split, or from which start
WORKS: dict[Column, str] = {
    ("works", "training"): REAL,
    ("reconstructed works", "held out"): RECONSTRUCTED,
    ("reconstructed works", "training"): RECONSTRUCTED_TRAINING,
}
CAPTION = (
    "floor: what reconstructed works (of a decoder: real ones) have; saturated: the floor is more than four fifths of "
    "the untuned model's distance, which leaves too little to tell"
)


def floors(values: tables.Values, row: str) -> dict[str, float]:
    """The value of each distance below which no model gets: that of a reference row.

    Of a distance to reconstructed works, that of other works, reconstructed.
    """
    rows = {measure: RECONSTRUCTED_TRAINING if measure.endswith("_rec") else row for measure in DISTANCES}
    return {measure: float(values[key].mean()) for measure, cell in rows.items() if (key := (measure, cell)) in values}


def numbers(values: tables.Values, cells: Mapping[Column, str]) -> pd.DataFrame:
    """Distances of the reference rows and of cells, one row per measure; only what was measured."""
    columns = {**WORKS, **cells}
    measured = [measure for measure in DISTANCES if any((measure, cell) in values for cell in columns.values())]
    nan = float("nan")
    frame = pd.DataFrame(
        {
            label: [float(values[measure, cell].mean()) if (measure, cell) in values else nan for measure in measured]
            for label, cell in columns.items()
        },
        index=pd.Index([measure.upper() for measure in measured], name="measure"),
    )
    return frame.dropna(axis="columns", how="all")


def sensitivity(distances: pd.DataFrame, floor: Sequence[float], untuned: str) -> pd.DataFrame:
    """``distances`` (a row a measure, columns of two levels) with each measure's floor and whether it is saturated.

    Saturated by the distance of the column (``untuned``, start); a start that was not measured has no such column.
    """
    frame = distances.copy()
    frame["floor", ""] = list(floor)
    for start in [start for start in STARTS if (untuned, start) in distances]:
        distance = distances[untuned, start]
        high = (frame["floor", ""] > SATURATED * distance).map({True: "yes", False: "no"})
        frame["saturated", start] = high.where(frame["floor", ""].notna() & distance.notna(), "")
    return frame


def table(values: tables.Values, models: Sequence[tuple[str, Mapping[str, str]]], row: str, count: str) -> Table:
    """Distances of reference rows and models, floors, and which measures are saturated.

    ``models``: each model and its cells by start, the untuned one first; ``row``: as in ``floors``; ``count``: n, for
    the caption.
    """
    cells = {(model, start): cell for model, by_start in models for start, cell in by_start.items()}
    distances, floor = numbers(values, cells), floors(values, row)
    listed = [floor.get(name.lower(), float("nan")) for name in distances.index]
    frame = sensitivity(distances, listed, models[0][0])
    return Table("sensitivity", frame, f"Distances, bias taken off; {CAPTION}; {count}.")
