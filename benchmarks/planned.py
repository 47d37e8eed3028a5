"""How right a plan's hours are: by kind of stage, what ``atelier plan`` predicts over what stages took.

``python benchmarks/planned.py PARAMS TIMINGS [SECONDS]``: the parameters of a run, and its table of timings
(`benchmarks/hours.py`), on the machine of the run; SECONDS of calibration, 30 by default. A ratio above 1 is a
prediction of more than it took. A stage that was killed counts from its last start: the median says most.
"""

import sys
import time
from pathlib import Path

import pandas as pd

from atelier import machine, params
from atelier.cli import exit_code
from atelier.files import reading
from atelier.planning import given as givens
from atelier.planning import stages
from atelier.planning.command import Options, Prices
from atelier.planning.work import groups
from atelier.workspace import Workspace

FILE = r"^(?:pipelines/\w+/dvc\.yaml:)?"  # before a stage's name
ITEM = r"@.*$"


def table(file: Path, timings: Path, seconds: float) -> pd.DataFrame:
    """By kind: how many ran, predicted seconds of one, and its ratio to the median and to the fastest that ran."""
    workspace, began, config = Workspace(), time.process_time(), params.load(file)
    shapes = givens.shapes(config, workspace)
    given, _ = givens.given(config, workspace, int(shapes.vae["latent_channels"]))
    listed = groups(config, given, stages.stages(params.read(file), workspace))
    machine.settle(config.machine.threads)
    prices = Prices(config, shapes, Options(file, seconds, None), began)
    print(prices.words)
    predicted = {each.kind: 3600 * priced.hours / each.number for each in listed if (priced := prices.of(each))}
    with reading(timings, "not a table of timings"):
        ran = pd.read_csv(timings, names=["stage", "seconds"], dtype={"stage": str, "seconds": float})
    kinds = ran["stage"].str.replace(FILE, "", regex=True).str.replace(ITEM, "", regex=True)
    found = ran.groupby(kinds)["seconds"].agg(["size", "median", "min"]).rename(columns={"size": "ran"})
    found["predicted"] = found.index.map(predicted)
    found["over median"], found["over fastest"] = (found["predicted"] / found[name] for name in ("median", "min"))
    return found.dropna()


def main(arguments: list[str]) -> None:
    if not 2 <= len(arguments) <= 3:
        raise ValueError("usage: python benchmarks/planned.py PARAMS TIMINGS [SECONDS]")
    file, timings, *seconds = arguments
    print(table(Path(file), Path(timings), float(seconds[0]) if seconds else 30.0).to_csv(float_format="%.3g"), end="")


if __name__ == "__main__":
    raise SystemExit(exit_code(main, sys.argv[1:]))
