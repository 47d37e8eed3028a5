"""One's own model and data: another base folder, pictures without captions and without photographs."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from atelier import params
from atelier.data import prepare
from atelier.evaluation import judges
from atelier.params import Params
from atelier.sampling import starts, store
from atelier.studies.base_model import sample
from atelier.studies.base_model.params import Config
from atelier.studies.base_model.report_results import folder_of
from atelier.training import autoencoder
from atelier.training import base as base_training
from atelier.training.base import fetch, keep_history
from atelier.workspace import Workspace
from linked import linked


def changed(config: Params, section: str, **values: object) -> Params:
    """``config`` with values of one section replaced, checked as if they stood in a file."""
    content = config.model_dump(mode="json")
    return params.check({**content, section: {**content[section], **values}}, "changed")


def weights(folder: Path) -> dict[str, bytes]:
    """A pipeline's weights, and its words; settings of the tokenizer are written with more keys the second time."""
    files = [*folder.rglob("*.safetensors"), folder / "tokenizer" / "tokenizer.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def config(workspace: Workspace) -> Params:
    return params.load(workspace.params_file)


@pytest.fixture
def empty(tmp_path: Path) -> Workspace:
    """A workspace in which nothing has run."""
    return Workspace(tmp_path / "empty")


def test_a_base_from_another_folder_is_that_base(config: Params, workspace: Workspace, empty: Workspace) -> None:
    fetch(changed(config, "base", source="folder", location=str(workspace.base)), empty)
    assert weights(empty.base) == weights(workspace.base)
    assert (empty.base / "history.csv").read_bytes() == (workspace.base / "history.csv").read_bytes()
    shutil.copytree(workspace.base, empty.root / "mine")
    fetch(changed(config, "base", source="folder", location="mine"), empty)
    assert weights(empty.base) == weights(workspace.base)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, None),
        (b"step,learning_rate,part\n", None),
        (b"", "No columns"),
        (b"step,part\n1,denoiser\n", "learning_rate"),
        (b"step,learning_rate,denoising,part\n1,0.1,lots,denoiser\n", "no numbers in denoising"),
        (b"step,learning_rate,part\n1,0.1,a,b,c\n1,2\n", "no numbers in learning_rate, step"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_a_history_that_is_none_is_left_out_by_name_and_stops_nothing(
    content: bytes | None, said: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, target = tmp_path / "found.csv", tmp_path / "history.csv"
    if content is not None:
        found.write_bytes(content)
    keep_history(found, target)
    assert target.read_text().strip() == "step,learning_rate,part"
    told = capsys.readouterr().err
    assert len(told.splitlines()) == (said is not None)
    assert said is None or (said in told and str(found) in told)


def test_a_shipped_base_lies_in_the_data_folder(
    config: Params, workspace: Workspace, empty: Workspace, tmp_path: Path
) -> None:
    shutil.copytree(workspace.base, tmp_path / "data" / "base")
    shipped = changed(changed(config, "base", source="shipped"), "data", folder=str(tmp_path / "data"))
    fetch(shipped, empty)
    assert weights(empty.base) == weights(workspace.base)


@pytest.mark.parametrize(
    ("values", "said"), [({"source": "folder"}, "location"), ({"source": "hub", "location": "a/b"}, "revision")]
)
def test_a_source_that_is_not_told_where_is_refused(config: Params, values: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        changed(config, "base", **values)


def test_unseen_styles_reach_the_autoencoder_alone(
    config: Params, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one's own pictures: the autoencoder learns all of the training split, the denoiser some of its styles."""
    untrained = linked(tmp_path / "untrained", tiny_world, ["data", "build/manifests", "build/pictures"])
    recipe = config.base.train.model_dump(mode="json") | {"photographs": 0, "works": 0}
    learnt = prepare.works(untrained.manifests).table.query("split == 'train'")
    unseen = [str(style) for style in learnt["art_style"].unique()[:2]]
    own = changed(config, "base", train={**recipe, "unseen_styles": unseen})
    seen: dict[str, list[str]] = {}
    for module, name in ((autoencoder, "task"), (base_training, "denoiser_task")):
        real = getattr(module, name)

        def spy(*given: Any, real: Any = real, name: str = name) -> Any:
            seen[name] = next(list(x) for x in given if isinstance(x, list) and isinstance(x[0], str))
            return real(*given)

        monkeypatch.setattr(module, name, spy)
    base_training.train(own, untrained)
    assert seen["task"] == list(learnt["path"])
    assert seen["denoiser_task"] == list(learnt.loc[~learnt["art_style"].isin(unseen), "path"])
    assert len(seen["denoiser_task"]) < len(seen["task"])
    wrong = changed(config, "base", train={**recipe, "unseen_styles": ["Dada"]})
    with pytest.raises(ValueError, match=r"unseen_styles: no works of Dada among those it learns"):
        base_training.train(wrong, untrained)


def bare_folder(tiny_world: Path, tmp_path: Path) -> Path:
    """Works as somebody may bring them: pictures at <style>/<artist>_<title>, nothing else."""
    if "ATELIER_REAL_INPUTS" in os.environ:
        source = Path(os.environ["ATELIER_REAL_INPUTS"]) / "paintings" / "wikiart"
    else:
        print("ATELIER_REAL_INPUTS is unset: painted works stand in for real ones")
        source = tiny_world / "data" / "wikiart"
    for style in sorted(path for path in source.iterdir() if path.is_dir()):
        for picture in sorted(style.iterdir())[:12]:
            (tmp_path / "mine" / "wikiart" / style.name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, tmp_path / "mine" / "wikiart" / style.name / picture.name)
    return tmp_path / "mine"


def test_works_without_captions_or_photographs_go_through(config: Params, tiny_world: Path, tmp_path: Path) -> None:
    config = changed(config, "data", folder=str(bare_folder(tiny_world, tmp_path)), annotations=False)
    mine = linked(tmp_path / "bare", tiny_world, ["build/base"])
    report = prepare.prepare(config.data, config.seed, mine)
    assert report["photographs"]["works"] == 0
    starts.main(config, mine)
    sample.main(config, mine)
    settings = Config.of(config)
    pictures, listed = store.read([folder_of(mine.samples, "works", settings.measured_at)])
    assert len(pictures) == len(listed) == settings.pictures
    assert all(text for text in listed["prompt"])
    pictures, listed = store.read([folder_of(mine.samples, "photographs", settings.measured_at)])
    assert len(pictures) == len(listed) == 0
    for guidance in settings.guidance:
        for sheet in ("subjects", "styles", "emotions"):
            pictures, listed = store.read([folder_of(mine.samples, sheet, guidance)])
            assert len(pictures) == len(listed) > 0
    assert set(store.read([folder_of(mine.samples, "subjects", guidance)])[1]["wanted"]) == {""}
    judges.main(config, mine)
    assert judges.evaluator(mine.evaluator) is None
    assert judges.read_bars(mine.bars) == []
