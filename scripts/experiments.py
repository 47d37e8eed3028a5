"""``python scripts/experiments.py [...]``: what ``dvc exp show`` says, in columns that fit a terminal.

DVC gives a column to each metric, parameter and dependency, hundreds in all. Here each is a row and each experiment a
column; only what differs between the experiments is shown. Arguments are those of ``dvc exp show``.
"""

import io
import re
import subprocess
import sys

import pandas as pd

INPUTS = r"^(src|world|data|docs|notebooks|build/(?!studies/\w+/))"  # of stages, by their hashes
SHOW = ("dvc", "exp", "show", "--csv", "--only-changed", "--drop", INPUTS)
LONG = re.compile(r"^build/studies/(\w+)/summary\.json:|^params\.yaml:")
WIDTH = 24  # of a column


def table(csv: str) -> pd.DataFrame:
    """A row a metric or parameter, a column an experiment, from the CSV of ``dvc exp show``."""
    rows = pd.read_csv(io.StringIO(csv), dtype=str, keep_default_na=False)
    if "Experiment" in rows:  # an experiment's name; that of a commit or the workspace is in rev
        rows["rev"] = rows.pop("Experiment").where(lambda name: name != "", rows["rev"])
    shown = rows.drop(columns=["typ", "Created", "parent", "State", "Executor"], errors="ignore").set_index("rev").T
    shown.index = shown.index.map(lambda name: LONG.sub(lambda match: f"{match[1]}: " if match[1] else "", name))
    return shown.apply(lambda values: values.str.slice(0, WIDTH)).rename_axis(columns=None)


def main(arguments: list[str]) -> int:
    done = subprocess.run([*SHOW, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode == 0:
        shown = table(done.stdout)
        print(shown.to_string() if len(shown) else "nothing differs")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
