"""The interactive notebook runs without a hand on its sliders, and says what is missing."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from atelier import params, paths
from atelier.training import leaks

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "explore_signal_leak.ipynb"


def executed(folder: Path) -> nbformat.NotebookNode:
    (folder / "notebooks").mkdir()
    (folder / "dvc.yaml").touch()  # a repository's root
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=200, resources={"metadata": {"path": folder / "notebooks"}})
    return client.execute()


@pytest.mark.slow
def test_it_executes_and_answers(in_tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "LEAKS", tmp_path / "build" / "leaks")
    leaks.fit_all(params.load())
    for name in ("params.yaml", "build/base"):
        source = in_tiny_world / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, tmp_path / name)
    done = executed(tmp_path)
    said = done.cells[-1]["outputs"][0]["text"]
    assert said.startswith("a change of seed is answered in ")
    panels = [output for cell in done.cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in panels)


@pytest.mark.slow
def test_without_a_pipeline_it_says_so(in_tiny_world: Path, tmp_path: Path) -> None:
    shutil.copyfile(in_tiny_world / "params.yaml", tmp_path / "params.yaml")
    with pytest.raises(CellExecutionError, match="nothing to explore yet"):
        executed(tmp_path)
