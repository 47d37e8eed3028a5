"""The commands ``ab`` and ``votes``: from folders to a page, from saved tables to the paper's."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from atelier.data.images import save_picture
from atelier.evaluation.people import votes as reading
from atelier.params import WHITE
from atelier.sampling.store import Location
from atelier.studies.pixel_space import ab, votes
from atelier.studies.pixel_space.params import Config
from atelier.workspace import Workspace

PARAMS: Any = SimpleNamespace(protocol=SimpleNamespace(training_seeds=[0, 1]))


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parameters that these commands read."""
    section = SimpleNamespace(STUDY="pixel_space", sitting=2, guidance=4.0)
    monkeypatch.setattr(Config, "of", classmethod(lambda cls, params: section))


def painted(folder: Path, seed: int, names: tuple[str, ...] = ("0-0000.png", "0-0001.png", "0-0002.png")) -> Path:
    draw = np.random.default_rng(seed)
    for name in names:
        save_picture(draw.integers(0, 256, (8, 8, 3), np.uint8), folder / name)
    return folder


def test_two_folders_become_a_page_and_its_tables_the_papers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace(tmp_path)
    a = painted(tmp_path / "mine" / "sharp" / "out", 1)
    b = painted(tmp_path / "mine" / "soft" / "out", 2, ("0-0000.png", "0-0001.png", "0-0002.png", "odd.png"))
    ab.main(PARAMS, workspace, str(a), str(b))
    said = capsys.readouterr().out.splitlines()
    (page,) = (tmp_path / "sittings").glob("*.html")
    (path,) = (tmp_path / "sittings").glob("*.key.json")
    assert said == [
        "pictures without a counterpart of the same name, left out: 1",
        f"{page}: 3 pairs in 2 sittings, for raters",
        f"{path}: its key, which `votes` needs and no rater may see",
    ]
    key = reading.read_key(path)
    assert (key.a, key.b) == ("sharp", "soft")
    rows = [
        ("Ada", meant.sitting, name, meant.question, "left" if meant.left == "A" else "right", 900)
        for name, meant in key.shown.items()
    ]
    table = tmp_path / "ada.csv"
    pd.DataFrame(rows, columns=list(reading.COLUMNS)).to_csv(table, index=False)
    votes.main(PARAMS, workspace, str(table))
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "A: sharp, B: soft"
    assert printed.splitlines()[3].split()[:6] == ["flaws", "1", "3", "100.0", "0.0", "0.0"]
    stored = pd.read_csv(tmp_path / "sittings" / "votes" / "results.csv")
    assert stored["win"].tolist() == [100, 100]
    assert pd.read_csv(tmp_path / "sittings" / "votes" / "raters.csv")["rater"].tolist() == ["Ada", "Ada"]
    moved = path.rename(tmp_path / "kept.key.json")  # beside the table, or named
    votes.main(PARAMS, workspace, str(table))
    elsewhere = tmp_path / "elsewhere" / "k.key.json"
    elsewhere.parent.mkdir()
    moved.rename(elsewhere)
    votes.main(PARAMS, workspace, str(table), str(elsewhere))
    with pytest.raises(ValueError, match="the key of its page is not at hand"):
        votes.main(PARAMS, workspace, str(table))


def test_the_studys_own_pictures_of_all_seeds_are_the_default(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for seed in (0, 1):
        for place, name in enumerate(("both", "untuned")):
            painted(Location("pixel_space", name, 4.0, WHITE, name).folder(workspace.samples, seed), 2 * seed + place)
    ab.main(PARAMS, workspace)
    (path,) = (tmp_path / "sittings").glob("*.key.json")
    key = reading.read_key(path)
    assert (key.a, key.b) == ("both", "untuned")
    assert {meant.name for meant in key.shown.values()} == {f"{seed}/0-000{i}.png" for seed in (0, 1) for i in range(3)}


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(ValueError, match=r"the study has not painted it yet; name two folders: make ab A=") as caught:
        ab.main(PARAMS, workspace)
    assert "\n" not in str(caught.value)
    for arguments in (["a"], ["a", "b", "c", "d"]):
        with pytest.raises(ValueError, match="usage: python -m atelier pixel_space ab"):
            ab.main(PARAMS, workspace, *arguments)
    for arguments in ([], ["x.key.json"]):
        with pytest.raises(ValueError, match=r"usage: python -m atelier pixel_space votes FILE|x\.key\.json"):
            votes.main(PARAMS, workspace, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("a", "b", "named"),
    [
        ("r/both/0/both/guidance-4", "r/untuned/0/untuned/guidance-4", ("both/0/both", "untuned/0/untuned")),
        ("x/sharp", "y/sharp", ("x", "y")),
        ("one", "two", ("one", "two")),
        ("x", "x/below", ("x", "x/below")),
    ],
)
def test_folders_are_called_by_what_tells_them_apart(a: str, b: str, named: tuple[str, str]) -> None:
    assert ab.labels(Path(a), Path(b)) == named
