"""Rows of several studies' measures, collected for one study's page.

If the page read the studies' tables directly, it would be rerun whenever anything else in them changed.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd

from atelier.evaluation.tables import read_rows, write_rows


def collect(tables: Iterable[Path], cells: Collection[str], out: Path) -> None:
    """Write the rows of these cells, in the order of the tables."""
    rows = pd.concat([read_rows(table) for table in tables], ignore_index=True)
    write_rows(rows[rows["cell"].isin(cells)], out)
