"""Count what people said: ``votes FILE...``, tables saved from pages of ``ab``, or such and the pages' keys.

Keys are read from ``sittings`` and from beside the files. Prints the paper's table, each rater's table and the
agreement among raters, and writes all three as CSV to ``sittings/votes``.
"""

from pathlib import Path

from atelier.evaluation.people import results, votes
from atelier.evaluation.people.page import KEY
from atelier.files import write_table
from atelier.params import Params
from atelier.studies.pixel_space.ab import OUT
from atelier.workspace import Workspace


def main(params: Params, workspace: Workspace, *files: str) -> None:
    """Read, resolve, count, print and write."""
    paths = [Path(file) for file in files]
    tables = [path for path in paths if not path.name.endswith(KEY)]
    if not tables:
        raise ValueError(f"usage: python -m atelier pixel_space votes FILE... (CSV files, and keys *{KEY})")
    folder = workspace.named(OUT)
    known = {key.page: key for path in paths if path not in tables for key in [votes.read_key(path)]}
    for place in {folder, *(path.parent for path in tables)}:
        known = {**(votes.keys_of(place) if place.is_dir() else {}), **known}
    counted = results.tables(votes.read(tables, known))
    print(results.printed(counted))
    for name, table in counted._asdict().items():
        write_table(folder / "votes" / f"{name}.csv", table)
    print(f"\n{folder / 'votes'}: results.csv, raters.csv, agreement.csv")
