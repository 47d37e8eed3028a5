"""The interactive notebooks run without a hand on their sliders, and say what is missing; panels show what they say."""

import re
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from atelier import params
from atelier.files import read_json
from atelier.methods.latent_perceptual import latent_perceptual_loss
from atelier.studies.latent_perceptual import explore as decoder_features
from atelier.studies.shaping import candidates, convert, rewards
from atelier.studies.signal_leak import explore as signal_leak
from atelier.studies.signal_leak import fit
from atelier.workspace import Workspace
from linked import linked

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NEEDS = {  # what the pipeline left
    "explore_signal_leak": ["build/base", "build/leaks"],
    "explore_decoder_features": ["build/base", "build/manifests", "data/wikiart"],
    "explore_shaping": ["build/base", "build/shaping", "data/trunk"],
}

TOUR, CLAIM = "00_tour", "A4"


def executed(name: str, folder: Path) -> nbformat.NotebookNode:
    (folder / "notebooks").mkdir()
    (folder / "dvc.yaml").touch()  # a repository's root
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=200, resources={"metadata": {"path": folder / "notebooks"}})
    return client.execute()


@pytest.mark.long
@pytest.mark.parametrize("name", NEEDS)
def test_it_executes_and_shows_its_panel(name: str, workspace: Workspace, tmp_path: Path) -> None:
    if name == "explore_signal_leak":
        fit.main(params.load(workspace.params_file), workspace)
    if name == "explore_shaping":
        config = params.load(workspace.params_file)
        rewards.main(config, workspace)
        convert.main(config, workspace)
        candidates.write(config, workspace, config.protocol.training_seeds[0])
    bare = linked(tmp_path / "bare", workspace.root, ["params.yaml", *NEEDS[name]])
    done = executed(name, bare.root)
    panels = [output for cell in done.cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in panels)


@pytest.mark.long
@pytest.mark.parametrize("name", [*NEEDS, TOUR])
def test_without_a_pipeline_it_says_so(name: str, tiny_world: Path, tmp_path: Path) -> None:
    bare = linked(tmp_path, tiny_world, ["params.yaml"])
    with pytest.raises(CellExecutionError, match=r"nothing to (explore|tour) yet: run make repro"):
        executed(name, bare.root)


@pytest.mark.pipeline
def test_the_tour_comes_to_the_pages_verdict(smoke_run: Path, tmp_path: Path) -> None:
    """Its own arithmetic gives the table's values, and its last cell says what the pipeline's page says."""
    names = ["params.yaml", "data", *(f"build/{path.name}" for path in (smoke_run / "build").iterdir())]
    done = executed(TOUR, linked(tmp_path, smoke_run, names).root)
    code = [cell for cell in done.cells if cell["cell_type"] == "code"]
    said = "".join(output.get("text", "") for cell in code for output in cell["outputs"])
    [gap] = re.findall(r"largest difference from what was computed above: (\S+)", said)
    assert float(gap) < 1e-9
    assert "the table's values say the same: True" in said
    published = read_json(smoke_run / "build" / "studies" / "art_finetuning" / "metrics.json")["verdicts"][CLAIM]
    assert f"parts hold: {published['said']}\n" in said
    assert published["answer"] in "".join(output.get("data", {}).get("text/html", "") for output in code[-1]["outputs"])


def test_a_leaks_panel_shows_what_its_controls_say(workspace: Workspace) -> None:
    config = params.load(workspace.params_file)
    fit.main(config, workspace)
    panel = signal_leak.Panel(signal_leak.load(config, workspace))
    explorer, first = panel.explorer, panel.picture.value
    white, leaky = explorer.painted.values()
    assert not torch.equal(white, leaky)
    assert all(slider.disabled for slider in panel.channels)
    panel.controls["set means"].value = True
    assert not any(slider.disabled for slider in panel.channels)
    panel.channels[0].value = 2.0
    assert panel.choice().means == (2.0, 0.0, 0.0, 0.0)
    assert panel.picture.value != first
    panel.channels[0].value = 0.0
    panel.controls["set means"].value = False
    assert panel.picture.value == first
    assert len(explorer.painted) == 4  # each choice once
    panel.choose("pixels alone")
    assert panel.choice() == signal_leak.Choice(signal_leak.FREQUENCIES, 0)
    assert len(explorer.painted) == 5  # once for all that a preset changes
    panel.choose("colour by hand")
    assert panel.choice().means == (2.0, *[0.0] * (len(panel.channels) - 1))
    assert panel.picture.value != first
    panel.choose("reset")
    assert panel.picture.value == first
    assert not panel.controls["set means"].value


def test_a_decoders_panel_shows_the_loss_and_masks_what_was_planted(workspace: Workspace) -> None:
    explorer = decoder_features.load(params.load(workspace.params_file), workspace)
    step, last = explorer.step_of(0.3), explorer.depth - 1
    plain = explorer.compare(1, step, decoder_features.Choice(last))
    decoded = explorer.decode(1, step)
    loss = latent_perceptual_loss(decoded.targets, decoded.predictions, decoded.pictures.shape[-1])
    assert sum(plain.weighted) == pytest.approx(float(loss), rel=1e-5)
    planted = explorer.compare(1, step, decoder_features.Choice(last, planted=4))
    square = (planted.maps[1] != plain.maps[1]).nonzero()
    assert len(square) == 4 * 4
    assert not planted.valid[square[:, 0], square[:, 1]].any()
    assert planted.squared.isnan().equal(~planted.valid)
    counted = explorer.compare(1, step, decoder_features.Choice(last, planted=4, mask="none"))
    assert counted.weighted[last] > planted.weighted[last]
    assert counted.weighted[:last] == planted.weighted[:last]  # of this stage alone
    panel = decoder_features.Panel(explorer)
    first = panel.picture.value
    panel.controls["noise"].value = 10.0
    assert panel.picture.value != first
    assert "does not count" in panel.text.value
    panel.controls["noise"].value = 0.3
    assert panel.picture.value == first
