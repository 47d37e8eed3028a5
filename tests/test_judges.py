"""What judges a base: truth, evaluator and bars as the data folder has them, damaged, or not at all."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from atelier import params
from atelier.data import prepare
from atelier.data.painter import paint_corpus
from atelier.evaluation import judges
from atelier.files import write_seal
from atelier.models import evaluator as evaluators
from atelier.models.evaluator import Evaluator
from atelier.workspace import Workspace

pytestmark = pytest.mark.usefixtures("one_thread")

SMOKE = params.load(Path(__file__).parents[1] / "profiles" / "smoke.yaml")  # its data folder is "data"
BAR = {"name": "base, subject", "value": 0.9, "n": 500, "least": 0.8, "most": None, "low": 0.87, "high": 0.93,
       "unit": "1", "met": True}  # fmt: skip


@pytest.fixture(scope="module")
def corpus() -> tuple[Tensor, list[dict]]:
    pixels, records = paint_corpus(24, 8, 5, 64, 1)[:2]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), list(records)


@pytest.fixture
def model(corpus: tuple[Tensor, list[dict]]) -> Evaluator:
    return evaluators.build(evaluators.classes_of(corpus[1]), [str(record["title"]) for record in corpus[1]], 1).eval()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty data folder."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def kept(data: Path) -> Workspace:
    """The workspace that has this data."""
    return Workspace(data.parent)


def keep(source: str, kept: Workspace) -> None:
    """The stage, of a base from this source."""
    judges.main(SMOKE.model_copy(update={"base": SMOKE.base.model_copy(update={"source": source})}), kept)


# ---------------------------------------------------------------------------------------------- the stage


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_the_data_has_is_kept_with_equal_bytes(data: Path, kept: Workspace, model: Evaluator) -> None:
    evaluators.save(model, data / "evaluator", {"made": "here"})
    (data / "evaluator" / "history.csv").write_text("not of the evaluator")
    (data / "report").mkdir()
    (data / "report" / "bars.json").write_text(json.dumps({"bars": [BAR], "more": 1}))
    for _ in range(2):  # again over what is there
        keep("shipped", kept)
    shipped = files_of(data / "evaluator")
    assert shipped.pop("history.csv")
    made = files_of(kept.evaluator)
    assert made.pop("SHA256SUMS")
    assert made == shipped
    found = judges.evaluator(kept.evaluator)
    assert found is not None
    assert found.classes == model.classes
    assert [{**bar.model_dump(), "met": bar.met} for bar in judges.read_bars(kept.bars)] == [BAR]


def test_a_data_folder_without_them_is_said_to_have_none(
    kept: Workspace, model: Evaluator, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluators.save(model, kept.evaluator, {})  # of another data folder
    keep("shipped", kept)
    assert judges.evaluator(kept.evaluator) is None
    assert judges.read_bars(kept.bars) == []
    assert "no evaluator" in capsys.readouterr().out


def test_a_damaged_evaluator_is_refused_and_nothing_is_left_in_its_place(
    data: Path, kept: Workspace, model: Evaluator
) -> None:
    evaluators.save(model, data / "evaluator", {})
    (data / "evaluator" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"model\.safetensors: not readable") as caught:
        keep("shipped", kept)
    assert len(str(caught.value).splitlines()) == 1
    assert not kept.evaluator.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "bars: missing"),
        (json.dumps({"bars": [{**BAR, "value": "high"}]}), "bars.0.value: "),
        (json.dumps({"bars": [{**BAR, "value": float("nan")}]}), "bars.0.value: "),
        (json.dumps({"bars": [{**BAR, "n": 0}]}), "bars.0.n: "),
        (json.dumps({"bars": [{key: value for key, value in BAR.items() if key != "n"}]}), "bars.0.n: missing"),
    ],
)
def test_bars_that_are_none_are_refused_in_one_line(data: Path, kept: Workspace, content: str, said: str) -> None:
    (data / "report").mkdir()
    (data / "report" / "bars.json").write_text(content)
    with pytest.raises(ValueError, match=r"bars\.json: ") as caught:
        keep("shipped", kept)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_table_of_bars_says_what_was_asked_and_whether_it_is_met() -> None:
    others = [
        {**BAR, "name": "most", "value": 0.31, "least": None, "most": 0.3, "low": None, "high": None, "met": False},
        {**BAR, "name": "told", "value": 26.04, "unit": "dB", "least": None, "low": None, "high": None, "met": None},
    ]
    shown = judges.table([judges.Bar(**bar) for bar in (BAR, *others)])
    assert shown.loc["base, subject"].to_list() == ["0.9", "0.87 to 0.93", "at least 0.8", 500, "yes"]
    assert shown.loc["most"].to_list() == ["0.31", "", "at most 0.3", 500, "no"]
    assert shown.loc["told"].to_list() == ["26 dB", "", "reported", 500, ""]


# ---------------------------------------------------------------------------------------------- what is seen


def test_a_share_counts_what_has_a_class_and_nothing_else(corpus: tuple[Tensor, list[dict]], model: Evaluator) -> None:
    pictures = corpus[0][:6]
    names = model.logits(model.features(pictures / 255))["subject"].argmax(1)
    seen = [model.classes["subject"][at] for at in names]
    other = next(name for name in model.classes["subject"] if name != seen[1])
    share = judges.share_seen(model, pictures, "subject", [seen[0], other, seen[2], "", "unicorn", seen[5]])
    assert share is not None
    assert (share.mean, share.n) == (3 / 4, 4)
    assert share.low < share.mean < share.high
    assert judges.share_seen(model, pictures, "subject", [""] * 6) is None
    with pytest.raises(ValueError, match="6 pictures, 1 names"):
        judges.share_seen(model, pictures, "subject", ["cat"])


# ---------------------------------------------------------------------------------------------- truth


def test_a_shipped_base_says_whose_works_it_learnt(data: Path, kept: Workspace) -> None:
    keep("shipped", kept)
    assert judges.known_artists(kept.known_artists) == []
    (data / "base").mkdir()
    card = data / "base" / "card.json"
    card.write_text(json.dumps({"asked": {"seen": ["marie-de-la-tour", "x"], "more": 1}}))
    keep("shipped", kept)
    assert judges.known_artists(kept.known_artists) == ["Marie de la Tour", "X"]
    keep("train", kept)  # another base than the one that the data folder holds
    assert judges.known_artists(kept.known_artists) == []
    card.write_text(json.dumps({"asked": {"seen": "all"}}))
    with pytest.raises(ValueError, match=r"card.json: asked.seen: input should be a valid list"):
        keep("shipped", kept)


def test_truth_names_subject_and_emotion_of_every_picture(workspace: Workspace) -> None:
    manifests = workspace.manifests
    known = prepare.truth(manifests)
    assert known is not None
    assert list(known.columns) == ["art_style", "painting", "subject", "emotion"]
    works, photographs = (
        prepare.with_truth(read(manifests).table, manifests) for read in (prepare.works, prepare.photographs)
    )
    assert len(works) + len(photographs) == len(known)
    assert (works[["subject", "emotion"]] != "").all(axis=None)
    assert (photographs["subject"] != "").all()
    assert (photographs["emotion"] == "").all()
    assert list(works["path"]) == list(prepare.works(manifests).table["path"])


def test_where_nothing_is_known_it_says_nothing(workspace: Workspace, tmp_path: Path) -> None:
    table = prepare.works(workspace.manifests).table
    write_seal(tmp_path)
    assert set(prepare.with_truth(table, tmp_path)["subject"]) == {""}
    known = table.head(1)[["art_style", "painting"]].assign(subject="cat", emotion="awe")
    known.to_csv(tmp_path / prepare.TRUTH, index=False)
    write_seal(tmp_path)
    subjects = prepare.with_truth(table, tmp_path)["subject"]
    assert subjects.value_counts().to_dict() == {"": len(table) - 1, "cat": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a CSV"),
        (b"\xff\xfe\x00\x01", "not a CSV"),
        (b"art_style,painting,subject\n", "columns missing: emotion"),
        (b"art_style,painting,subject,emotion\nCubism,a_b\n", "row 2: "),
        (b"art_style,painting,subject,emotion\nCubism,a_b,cat,\nCubism,,cat,awe\n", "row 3: "),
        (b"art_style,painting,subject,emotion\nCubism,a,cat,\nCubism,a,dog,\n", "row 3: the picture is listed twice"),
        (b'art_style,painting,subject,emotion\n"Cubism,a,cat,awe\n', "not a CSV"),
    ],
)
def test_a_truth_that_is_none_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "truth.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"truth\.csv: ") as caught:
        prepare.read_truth(path)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_no_names_are_read_as_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("kind,art_style,painting,subject,emotion\nwork,NA,null,None,\n")
    assert prepare.read_truth(path).iloc[0].to_list() == ["NA", "null", "None", ""]
