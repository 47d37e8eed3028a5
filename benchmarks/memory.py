"""What each stage takes of memory at most, by the number of pictures.

``PYTHONPATH=tests python benchmarks/memory.py [N ...]``: stages and worlds of `tests/test_memory.py`, each stage a
process. A line a stage and size, as it is measured: its peak resident MiB at N pictures of 64 px, by default 300, 600,
1,200 and 2,400. Two CPU minutes a size, and more where it starts.
``... memory.py table FILE ...`` joins such lines, of one run or of several: a column a size, and ``exponent``, of the
peak in N over all sizes.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from atelier.cli import exit_code
from conftest import paint_tiny_world
from peaks import STAGES, peaks, world

SIZES = (300, 600, 1200, 2400)
COLUMNS = ["stage", "pictures", "MiB"]


def measure(sizes: list[int]) -> None:
    """Print the lines of these sizes."""
    with tempfile.TemporaryDirectory() as folder:
        (tiny := Path(folder) / "tiny").mkdir()
        paint_tiny_world(tiny, timeout=None)
        for size in sizes:
            for stage, peak in peaks(world(Path(folder) / str(size), tiny, size), timeout=None):
                print(f"{stage},{size},{peak:.0f}", flush=True)


def table(files: list[Path]) -> pd.DataFrame:
    """A row a stage, a column a size, and the slope of log peak over log size: 0 is flat, 1 linear."""
    lines = pd.concat([pd.read_csv(file, names=COLUMNS) for file in files])
    found = lines.pivot(index="stage", columns="pictures", values="MiB").loc[list(STAGES)]
    slopes = np.polyfit(np.log(found.columns.to_numpy(float)), np.log(found.to_numpy(float).T), 1)[0]
    return found.assign(exponent=slopes.round(3))


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["table"]:
        print(table([Path(file) for file in arguments[1:]]).to_csv(), end="")
    else:
        measure([int(argument) for argument in arguments] or list(SIZES))


if __name__ == "__main__":
    raise SystemExit(exit_code(main, sys.argv[1:]))
