"""Whether a measure can tell: real works, decoded works, the untuned model and a control in one table."""

from collections.abc import Mapping, Sequence

import pandas as pd

from atelier.evaluation import tables
from atelier.evaluation.tables import REAL, RECONSTRUCTED, RECONSTRUCTED_TRAINING, REFERENCE_ROWS
from atelier.report.items import Table
from atelier.report.starts import NAMES

SATURATED = 0.8  # a floor above this share of the untuned model's distance leaves a change too little room
DISTANCES = ("fd", "fd_rec", "kid", "fd_haar", "fwd", "pr", "pr_rec", "psd", "psd_rec", "psd10")
# whose distances to held-out works are the floor: what a denoiser paints is decoded, what a decoder returns is not
OF_DENOISERS, OF_DECODERS = RECONSTRUCTED, REAL
CAPTION = (
    "floor: the value below which no model can get; saturated: the floor is more than four fifths of the untuned "
    "model's distance, so that the measure cannot tell"
)


def floors(values: tables.Values, row: str) -> dict[str, float]:
    """The value of each distance below which no model gets: that of a reference row.

    Of a distance to reconstructed works, that of other works, reconstructed.
    """
    rows = {measure: RECONSTRUCTED_TRAINING if measure.endswith("_rec") else row for measure in DISTANCES}
    return {measure: float(values[key].mean()) for measure, cell in rows.items() if (key := (measure, cell)) in values}


def numbers(values: tables.Values, cells: Mapping[str, str]) -> pd.DataFrame:
    """Distances of the reference rows and of cells (label -> cell), one row per measure; only what was measured."""
    columns = {**{row: row for row in REFERENCE_ROWS}, **cells}
    measured = [measure for measure in DISTANCES if any((measure, cell) in values for cell in columns.values())]
    nan = float("nan")
    return pd.DataFrame(
        {
            label: [float(values[measure, cell].mean()) if (measure, cell) in values else nan for measure in measured]
            for label, cell in columns.items()
        },
        index=pd.Index([measure.upper() for measure in measured], name="measure"),
    ).dropna(axis="columns", how="all")


def sensitivity(distances: pd.DataFrame, floor: Sequence[float], untuned: Mapping[str, str]) -> pd.DataFrame:
    """``distances`` (a row a measure, a column a set) with each measure's floor and whether it is saturated.

    ``untuned``: start -> the column of the untuned model; a start that was not measured has no column.
    """
    frame = distances.assign(floor=list(floor))
    for start, column in untuned.items():
        if column in frame:
            high = (frame["floor"] > SATURATED * frame[column]).map({True: "yes", False: "no"})
            frame[f"saturated, {NAMES[start]}"] = high.where(frame["floor"].notna() & frame[column].notna(), "")
    return frame


def table(values: tables.Values, models: Mapping[str, Mapping[str, str]], row: str, count: str) -> Table:
    """Distances of reference rows and models, floors, and which measures are saturated.

    ``models``: model -> start -> cell, the untuned one first; ``row``: as in ``floors``; ``count``: n, for the caption.
    """
    columns = {model: {start: f"{model}, {NAMES[start]}" for start in cells} for model, cells in models.items()}
    cells = {columns[model][start]: cell for model, by_start in models.items() for start, cell in by_start.items()}
    distances, floor = numbers(values, cells), floors(values, row)
    listed = [floor.get(name.lower(), float("nan")) for name in distances.index]
    frame = sensitivity(distances, listed, next(iter(columns.values())))
    return Table("sensitivity", frame, f"Distances, bias taken off; {CAPTION}; {count}.")
