"""Prompts at the other levels: of the same works and noise, measured by cells, collected for the page."""

from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier import params
from atelier.data import prepare
from atelier.evaluation import judges
from atelier.evaluation.cells import by_known_artist
from atelier.evaluation.tables import write_rows
from atelier.files import write_seal
from atelier.params import CORRECTED, STARTS, WHITE, Params
from atelier.sampling import store
from atelier.sampling.store import TABLE
from atelier.studies.art_finetuning import measure as tuned_measure
from atelier.studies.art_finetuning import sample as tuned_sample
from atelier.studies.prompt_enrichment import collect, measure, sample
from atelier.studies.prompt_enrichment.params import Config
from atelier.workspace import Workspace

SMOKE = params.load(Path(__file__).parents[3] / "profiles" / "smoke.yaml")


@pytest.fixture
def config(workspace: Workspace, art_adapters: Path) -> Params:
    workspace.adapters.symlink_to(art_adapters)
    return params.load(workspace.params_file)


def paint(config: Params, workspace: Workspace, stage: ModuleType, model: str) -> None:
    """A model's pictures of all training seeds."""
    for seed in config.protocol.training_seeds:
        stage.main(config, workspace, model, str(seed))


def test_levels_are_of_the_same_works_and_noise(config: Params, workspace: Workspace) -> None:
    paint(config, workspace, tuned_sample, "untuned")
    for model in ("untuned", "mixed"):
        paint(config, workspace, sample, model)

    def read(*location: Any) -> tuple[Tensor, pd.DataFrame]:
        found = store.Location(*location).folders(workspace.samples, config.protocol.training_seeds)
        pictures, listed = store.read(found)
        return pictures.load(), listed

    for guidance in (1.0, 4.0):
        cells = {"untuned": read("art_finetuning", "untuned", guidance)}
        cells |= {
            f"{model}@{level}": read("prompt_enrichment", model, guidance, WHITE, f"level-{level}")
            for model in ("untuned", "mixed")
            for level in (0, 2)
        }
        tables = {name: table for name, (_, table) in cells.items()}
        assert {tuple(pictures.shape) for pictures, _ in cells.values()} == {(12, 3, 64, 64)}
        for name, table in tables.items():
            assert list(table["path"]) == list(tables["untuned"]["path"]), name
        corrected, listed = read("prompt_enrichment", "mixed", guidance, CORRECTED, "level-2")
        pd.testing.assert_frame_equal(listed, tables["mixed@2"])
        assert not torch.equal(corrected, cells["mixed@2"][0])
        texts = [list(tables[name]["prompt"]) for name in ("untuned@0", "untuned", "untuned@2")]
        assert all(two.startswith(one) and two != one for one, two in zip(texts[0], texts[1], strict=True))
        assert sum(two != one for one, two in zip(texts[1], texts[2], strict=True)) > 0
        names = list(cells)
        for number, one in enumerate(names):
            assert not any(torch.equal(cells[one][0], cells[two][0]) for two in names[number + 1 :])
    with pytest.raises(ValueError, match=r"prompt_enrichment\.models: no 'conditional'"):
        sample.main(config, workspace, "conditional", "0")
    with pytest.raises(ValueError, match=r"protocol\.training_seeds: 2 is not one of \[0, 1\]"):
        sample.main(config, workspace, "mixed", "2")


def test_every_cell_has_its_folder() -> None:
    config = Config.of(SMOKE)
    models = ("untuned", *config.models)
    cells = {name: location for model in models for name, location in measure.cells(SMOKE, model).items()}
    conditions = len(config.levels) * len(SMOKE.protocol.guidance) * len(STARTS)
    assert len(cells) == len(set(cells.values())) == conditions * len(models)
    assert config.samples(SMOKE) == len(cells) * len(SMOKE.protocol.all_repeats) * SMOKE.protocol.pictures
    assert cells["rank8-unconditional@0/16"] == (
        "prompt_enrichment", "rank8-unconditional", 16.0, WHITE, "level-0",
    )  # fmt: skip
    assert cells["untuned@2/4/corrected"] == ("prompt_enrichment", "untuned", 4.0, CORRECTED, "level-2")


def test_known_and_unknown_artists_share_out_a_cells_pictures(
    config: Params, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every level."""
    protocol = config.protocol.model_copy(update={"pictures": 8, "guidance": [4.0]})
    config = config.model_copy(update={"protocol": protocol})
    cells = {**tuned_measure.cells(config, "untuned"), **measure.cells(config, "untuned")}
    paint(config, workspace, tuned_sample, "untuned")
    paint(config, workspace, sample, "untuned")
    artist_of = prepare.works(workspace.manifests).table.set_index("path")["artist"]
    painted = store.Location("art_finetuning", "untuned", 4.0)
    listed = store.listed(painted.folders(workspace.samples, config.protocol.training_seeds))
    artists = list(dict.fromkeys(artist_of.loc[listed["path"]]))
    monkeypatch.setattr(judges, "known_artists", lambda path: [])
    assert by_known_artist(config, workspace, cells).empty
    monkeypatch.setattr(judges, "known_artists", lambda path: artists[: len(artists) // 2])
    rows = by_known_artist(config, workspace, cells)
    kd = rows[rows["measure"] == "kd"].set_index("cell")["n"]
    for level in (0, 1, 2):
        for end in ("", "/corrected"):
            assert kd[f"untuned-known@{level}/4{end}"] + kd[f"untuned-unknown@{level}/4{end}"] == len(listed)
    assert {name.split("@")[0] for name in kd.index} == {"untuned-known", "untuned-unknown"}


def test_the_stage_measures_every_cell_of_a_model(config: Params, workspace: Workspace) -> None:
    for model in ("untuned", "mixed"):
        paint(config, workspace, sample, model)
        measure.main(config, workspace, model)
    table = measure.load(config, workspace.measures)
    assert set(table["cell"]) == {*measure.cells(config, "untuned"), *measure.cells(config, "mixed")}
    assert table[["whole", "group0", "group1"]].notna().all(axis=None)


def test_what_is_collected_are_the_pages_cells_of_three_studies(config: Params, workspace: Workspace) -> None:
    """Each row as it was measured; rows of other cells are left where they are."""
    cells = {
        "art_finetuning/untuned.csv": "untuned@1/4",
        "art_finetuning/conditional.csv": "conditional@1/4",  # whose page is another
        "art_finetuning/mixed.csv": "mixed@1/4",
        "art_finetuning/full.csv": "full@1/4",
        "prompt_enrichment/untuned.csv": "untuned-known@0/4",
        "prompt_enrichment/mixed.csv": "mixed@2/1/corrected",
        "vae_decoder/plain-words.csv": "untuned-decoder@0/4",
    }
    for number, (name, cell) in enumerate(cells.items()):
        row = {"measure": "fd", "n": 6, "whole": 1 / (number + 3), "group0": 1.0, "group1": 2.0, "cell": cell}
        target = workspace.measures / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_rows(pd.DataFrame([row]), target)
    for model, seed in product(("untuned", "mixed"), config.protocol.training_seeds):
        for guidance, start in product(config.protocol.guidance, STARTS):
            folder = store.Location("art_finetuning", model, guidance, start).folder(workspace.samples, seed)
            folder.mkdir(parents=True)
            files = [f"{number}.png" for number in range(collect.SHOWN + 3)]
            pd.DataFrame({"file": files}).to_csv(folder / TABLE, index=False)
            for file in files:
                (folder / file).write_bytes(f"{model} {seed} {guidance:g} {file}".encode())
            write_seal(folder)
    collect.main(config, workspace)
    guidance = config.protocol.guidance[0]
    shown = store.Location(collect.SHOWN_OF, "mixed", guidance).folder(workspace.samples, 0)
    assert len(list(shown.glob("*.png"))) == len(pd.read_csv(shown / TABLE)) == collect.SHOWN
    assert (shown / "3.png").read_bytes() == f"mixed 0 {guidance:g} 3.png".encode()
    assert [path.name for path in (workspace.samples / collect.SHOWN_OF / "mixed").iterdir()] == ["0"]
    compared = workspace.build / "compared" / "prompt_enrichment.csv"
    rows = pd.read_csv(compared, dtype=str)
    wanted = collect.cells(config)
    assert list(rows["cell"]) == [cell for cell in cells.values() if cell in wanted]
    assert set(cells.values()) - set(rows["cell"]) <= {"conditional@1/4", "full@1/4"}
    assert "conditional@1/4" not in set(rows["cell"])
    written = {path: path.read_text() for path in workspace.measures.rglob("*.csv")}
    for line in compared.read_text().splitlines()[1:]:
        assert any(line in text.splitlines() for text in written.values())
