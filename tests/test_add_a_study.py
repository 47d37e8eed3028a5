"""docs/add_a_study.md, performed: its steps add a study in a temporary clone and run it to its page."""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from atelier.pipeline import scrub
from smoke_clone import repro, run

GUIDE = Path(__file__).parent.parent / "docs" / "add_a_study.md"
BLOCK = re.compile(r"^```(?P<language>\w+) (?P<targets>[\w-]+=.*)\n(?P<content>(?:.*\n)*?)```$", re.MULTILINE)

pytestmark = [pytest.mark.pipeline, pytest.mark.long]


def steps(text: str) -> Iterator[tuple[str, str, str]]:
    """What is done to which file with which content: ``file``, ``append``, ``append-to-list`` or ``notebook``."""
    for block in BLOCK.finditer(text):
        for target in block["targets"].split():
            kind, _, path = target.partition("=")
            yield kind, path, block["content"]


def notebook(text: str) -> nbformat.NotebookNode:
    """A notebook from the text of its cells."""
    cells = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        kind, _, content = part.partition("\n")
        if kind.strip() == "markdown":
            lines = [line.removeprefix("#").removeprefix(" ") for line in content.strip().splitlines()]
            cells.append(new_markdown_cell("\n".join(lines)))
        else:
            tags = {"tags": ["parameters"]} if kind.strip() == "parameters" else {}
            cells.append(new_code_cell(content.strip(), metadata=tags))
    return scrub.clean(new_notebook(cells=cells))


def perform(root: Path) -> None:
    for kind, name, content in steps(GUIDE.read_text()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            path.write_text(content)
        elif kind == "append":
            path.write_text(path.read_text().rstrip("\n") + "\n\n" + content)
        elif kind == "append-to-list":
            before = path.read_text()
            assert before.rstrip().endswith(")")
            path.write_text(before.rstrip()[:-1] + content + ")\n")
        else:
            path.write_text(scrub.text(notebook(content)))


def test_the_guide_adds_a_study_that_runs_to_its_page(clone: Path) -> None:
    """The clone is committed after its run, so that git shows what the steps change."""
    perform(clone)
    changed = run(clone, "git", "status", "--porcelain", "--untracked-files=all").stdout.splitlines()
    new = [line[3:] for line in changed if line.startswith("??")]
    edited = [line[3:] for line in changed if line[1] == "M" and "dvc.lock" not in line]
    assert len(new) <= 6, new
    assert sorted(edited) == ["params.yaml", "profiles/smoke.yaml", "src/atelier/studies/__init__.py"]
    ran = repro(clone)
    stages = set(ran)
    assert stages == {"check", "luminance-measure", "luminance", "site"}
    page = (clone / "build/site/luminance/luminance.html").read_text()
    assert "as light as the works" in page
    assert "luminance" in (clone / "build/site/index.html").read_text()
