"""The interactive notebooks run without a hand on their sliders, and say what is missing."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from atelier import params, paths
from atelier.training import leaks

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NEEDS = {  # what the pipeline left, and what the last cell changes
    "explore_signal_leak": (["build/base"], "seed"),
    "explore_decoder_features": (["build/base", "build/manifests", "data/wikiart"], "work"),
}


def executed(name: str, folder: Path) -> nbformat.NotebookNode:
    (folder / "notebooks").mkdir()
    (folder / "dvc.yaml").touch()  # a repository's root
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=200, resources={"metadata": {"path": folder / "notebooks"}})
    return client.execute()


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_it_executes_and_answers(
    name: str, in_tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed, changed = NEEDS[name]
    if name == "explore_signal_leak":
        monkeypatch.setattr(paths, "LEAKS", tmp_path / "build" / "leaks")
        leaks.fit_all(params.load())
    shutil.copyfile("params.yaml", tmp_path / "params.yaml")
    for folder in needed:
        shutil.copytree(in_tiny_world / folder, tmp_path / folder)
    done = executed(name, tmp_path)
    said = done.cells[-1]["outputs"][0]["text"]
    assert said.startswith(f"a change of {changed} is answered in ")
    panels = [output for cell in done.cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in panels)


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_without_a_pipeline_it_says_so(name: str, in_tiny_world: Path, tmp_path: Path) -> None:
    shutil.copyfile("params.yaml", tmp_path / "params.yaml")
    with pytest.raises(CellExecutionError, match="nothing to explore yet"):
        executed(name, tmp_path)
