"""How long stages took: a line each in the scratch folder, outside of every output, and their sums by study.

``python benchmarks/hours.py [FILE ...]`` prints, of these files (by default this folder's own), each study's hours:
once, and for each training seed, which is what a further one costs. A stage that was killed counts from its last start.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from atelier.cli import TIMINGS, exit_code
from atelier.files import reading
from atelier.workspace import Workspace

SHARED = "all studies"
STAGE = re.compile(r"(?:pipelines/(?P<study>\w+)/dvc\.yaml:)?[\w-]+(?:@(?:.*-)?(?P<seed>\d+)$)?")


def table(files: Sequence[Path]) -> pd.DataFrame:
    """Hours by study: ``once``, ``seeds`` and ``a seed``. ValueError for a file that is none of timings."""
    parts = []
    for file in files:
        with reading(file, "not a table of timings"):
            parts.append(pd.read_csv(file, names=["stage", "seconds"], dtype={"stage": str, "seconds": float}))
    stages = pd.concat(parts, ignore_index=True)
    found = stages["stage"].str.extract(STAGE)
    stages = stages.assign(study=found["study"].fillna(SHARED), seed=found["seed"], hours=stages["seconds"] / 3600)
    once = stages[stages["seed"].isna()].groupby("study")["hours"].sum()
    seeded = stages[stages["seed"].notna()].groupby("study").agg({"hours": "sum", "seed": "nunique"})
    return pd.DataFrame(
        {"once": once, "seeds": seeded["seed"], "a seed": seeded["hours"] / seeded["seed"]},
    ).fillna(0.0)


def main(files: list[str]) -> None:
    print(table([Path(file) for file in files] or [Workspace().scratch / TIMINGS]).to_csv(float_format="%.3g"), end="")


if __name__ == "__main__":
    raise SystemExit(exit_code(main, sys.argv[1:]))
