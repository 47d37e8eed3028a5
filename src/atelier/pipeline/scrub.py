"""Notebooks without what differs from run to run or from machine to machine.

``clean`` is for sources under git, ``scrub`` for executed notebooks: two runs of the same bits give the same bytes.
"""

import ast
import errno
import os
import pprint
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from atelier.files import FileFault, reading

INJECTED = "injected-parameters"  # papermill's tag
PAINTED, OTHER = "painted-world", "other-data"  # tags of cells for profiles of the painted world, or for all others
PAINTED_BY = ("smoke", "embedded", "study")  # profiles of that world, whose base was made for it
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"
BINARY = ("image/png", "image/jpeg", "image/webp")
ADDRESS = re.compile(r"(?<=\bat )0x[0-9a-fA-F]{5,16}\b|\b0x7f[0-9a-fA-F]{10}\b")
CELL_FILE = re.compile(r"[^\s\"'<>]*/ipykernel_\d+/\d+\.py")
STYLER = re.compile(r"\bT_[0-9a-f]{5}(?![0-9a-f])")  # pandas draws a random name for each styled table


def read(path: Path) -> NotebookNode:
    """The notebook in a file. Raises ValueError, naming the file, when it is absent or no notebook of version 4."""
    try:
        with reading(path):
            notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    except FileFault as fault:
        if fault.errno not in (None, errno.ENOENT):
            raise
        what = "no such notebook" if fault.errno == errno.ENOENT else "not a notebook"
        raise FileFault(f"{path}: {what}") from fault
    if notebook.get("nbformat") != 4:
        raise ValueError(f"{path}: notebook format {notebook.get('nbformat')}, expected 4")
    return notebook


def text(notebook: NotebookNode) -> str:
    """What a notebook's file holds: keys sorted, one newline at the end."""
    return str(nbformat.writes(notebook, version=nbformat.NO_CONVERT)).rstrip("\n") + "\n"


def clean(notebook: NotebookNode) -> NotebookNode:
    """A copy without outputs, counts and injected parameters, with fixed ids and metadata; idempotent."""
    cells = [dict(cell) for cell in notebook.cells if INJECTED not in tags(cell)]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return _fixed(cells)


def of_profile(notebook: NotebookNode, profile: str) -> NotebookNode:
    """A copy with the sentences that fit a profile's data and base: cells with the other tag are left out."""
    left_out = OTHER if profile in PAINTED_BY else PAINTED
    chosen = deepcopy(notebook)
    chosen.cells = [cell for cell in chosen.cells if left_out not in tags(cell)]
    for cell in chosen.cells:
        if kept := [tag for tag in tags(cell) if tag not in (PAINTED, OTHER)]:
            cell["metadata"]["tags"] = kept
        else:
            cell["metadata"].pop("tags", None)
    return chosen


def scrub(notebook: NotebookNode) -> NotebookNode:
    """A copy of an executed notebook with its results and nothing of when, where and by which process they came."""
    cells = [dict(cell) for cell in notebook.cells]
    for position, cell in enumerate(cells, start=1):
        if cell["cell_type"] == "code":
            cell["outputs"] = _outputs(cell["outputs"], f"T_{position:02d}")
        if INJECTED in tags(cell):
            cell["source"] = _laid_out(cell["source"])
    return _fixed(cells)


def tags(cell: Any) -> list[str]:
    return sorted(cell["metadata"].get("tags", []))


def _fixed(cells: list[dict[str, Any]]) -> NotebookNode:
    """A notebook of these cells; ids are positions, and of the metadata the tags alone remain."""
    kept = ("cell_type", "source", "outputs", "execution_count", "attachments")
    fixed = [
        {key: cell[key] for key in kept if key in cell}
        | {"id": f"cell-{position:02d}", "metadata": {"tags": tags(cell)} if tags(cell) else {}}
        for position, cell in enumerate(cells, start=1)
    ]
    content = {"cells": fixed, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    notebook = nbformat.from_dict(deepcopy(content))
    nbformat.validate(notebook)
    return notebook


def _outputs(outputs: list[Any], table: str) -> list[Any]:
    kept: list[Any] = []
    for output in outputs:
        if output.get("name") == "stderr" or WIDGET in output.get("data", {}):
            continue
        output = _without_machine(output, f"{table}_{len(kept)}")
        if kept and output["output_type"] == kept[-1]["output_type"] == "stream":
            kept[-1]["text"] += output["text"]  # stderr had split it, at a place that depends on timing
        else:
            kept.append(output)
    return kept


def _without_machine(value: Any, table: str) -> Any:
    """Memory addresses, absolute paths and random names replaced in all strings of an output, pictures left alone."""
    if isinstance(value, dict):
        return {key: part if key in BINARY else _without_machine(part, table) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_machine(part, table) for part in value]
    if not isinstance(value, str):
        return value
    value = STYLER.sub(table, ADDRESS.sub("0x…", CELL_FILE.sub("<cell>", value)))
    for place, name in ((Path.cwd(), "."), (Path(os.path.expanduser("~")), "~")):
        if len(place.parts) > 1:  # a home of "/" would match in every path
            value = re.sub(re.escape(str(place)) + r"(?![\w.-])", name, value)
    return value


def _laid_out(source: str) -> str:
    """Papermill's assignments, laid out for reading, and the same with black, which papermill uses, and without."""
    lines = []
    for node in ast.parse(source).body:
        assert isinstance(node, ast.Assign)
        start = f"{ast.unparse(node.targets[0])} = "
        try:
            value = pprint.pformat(ast.literal_eval(node.value), width=100 - len(start), sort_dicts=False)
        except ValueError:  # float('inf') is no literal
            value = ast.unparse(node.value)
        lines.append(start + value.replace("\n", "\n" + " " * len(start)))
    return "\n".join(lines)
