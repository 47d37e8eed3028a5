"""Measure distances between styles of real works, as a scale for the distances of models."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from atelier.data import prepare
from atelier.data.pictures import Pictures
from atelier.evaluation import judges
from atelier.evaluation.groups import group, measured, reference_alone, simple
from atelier.evaluation.intervals import t_interval
from atelier.evaluation.tables import read_rows, write_rows
from atelier.params import Params
from atelier.workspace import Workspace

OUT = "styles.csv"  # in the folder of measures
GROUPS = 5  # groups of a style's works, in place of repeats


def main(params: Params, workspace: Workspace) -> None:
    """Write ``build/measures/styles.csv``."""
    works = prepare.works(workspace.manifests).table
    parts = [works[works["split"] == split] for split in ("test", "train")]
    table = pd.concat(parts, ignore_index=True)
    pictures, styles = prepare.pictures(table, params.data, workspace), table["art_style"].to_numpy()
    by_style = {style: pictures[styles == style] for style in sorted(set(styles))}
    rows = between_styles(by_style, judges.load(params, workspace))
    write_rows(rows, workspace.measures / OUT)


def between_styles(works: Mapping[str, Pictures], by: judges.Judges) -> pd.DataFrame:
    """Distances between styles, and within each style; one row per measure and pair.

    Half of each style's works are the reference and half are measured, so that no work is on both sides. Styles with
    too few works for two groups of two are left out.
    """
    works = {style: pictures for style, pictures in works.items() if len(pictures) >= 8}
    # every second work, so that both halves contain the same artists
    references = {style: reference_alone(group(pictures[::2], by)) for style, pictures in works.items()}
    rows = [pd.DataFrame({name: [] for name in ("style", "reference", "measure", "n")})]
    for style, pictures in works.items():
        half = pictures[1::2]
        count = min(GROUPS, len(half) // 2)
        groups = [group(half[first::count], by) for first in range(count)]
        for reference_style, reference in references.items():
            rows.append(measured(reference, groups, simple).assign(style=style, reference=reference_style))
    return pd.concat(rows, ignore_index=True)


def load(measures: Path) -> pd.DataFrame:
    """Load the table, with an interval over groups per row."""
    table = read_rows(measures / OUT)
    groups = table.filter(regex=r"^group\d+$").to_numpy()
    intervals = [t_interval(row[np.isfinite(row)].tolist()) for row in groups]  # a small style has fewer groups
    shown = table[["style", "reference", "measure", "n"]]
    return shown.assign(
        value=[each.mean for each in intervals],
        low=[each.low for each in intervals],
        high=[each.high for each in intervals],
    )
