"""What a notebook keeps: numbers with their intervals, files of what it shows, verdicts that cite a claim's words."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.display import Image
from matplotlib import pyplot as plt
from scipy import stats

from atelier import claims, params, verdicts
from atelier.claims import Claim, Comparison
from atelier.report import study as page
from atelier.report.items import Data, Figure, Metric, Table, Text
from atelier.report.study import Study
from atelier.verdicts import Evidence
from atelier.workspace import MARK, Workspace

ROOT = Path(__file__).parents[1]
SMOKE = params.load(ROOT / "profiles" / "smoke.yaml")
SHOWN, LOST = (
    Comparison(measure="fd", changed=[f"{name}@1/4"], reference=["untuned@1/4"], rule="below") for name in ("a", "b")
)
CLAIM = Claim(study="one", reach="direction", says="a < b & c", paper="p", rule="r", parts=[SHOWN, LOST])
EVEN = np.linspace(-0.01, 0.01, 5)
VALUES = {("fd", "a@1/4"): 1 + EVEN, ("fd", "untuned@1/4"): 2 - EVEN}
FRAME = pd.DataFrame({"fd": [1 / 3, float("nan")]}, index=pd.Index(["a", "b"], name="model"))


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, str]]]:
    """What is displayed, each with its metadata."""
    kept: list[tuple[Any, dict[str, str]]] = []
    monkeypatch.setattr(page, "display", lambda shown, metadata: kept.append((shown, metadata)))
    return kept


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, displayed: list[Any]) -> Study:
    """The study ``one``, whose report and claims are made up."""
    report = SimpleNamespace(
        load=lambda params, workspace: {"loaded": params, "from": workspace},
        evidence=lambda results: Evidence(VALUES, {}, {"": 20}, {"": "intervals over models"}),
        headline=lambda results: [],
    )
    monkeypatch.setitem(sys.modules, "atelier.studies.one.report", report)
    monkeypatch.setattr(claims, "load", {"one": {"A1": CLAIM}}.__getitem__)
    return Study("one", SMOKE, Workspace(tmp_path))


def metrics_of(study: Study) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((study.folder / "metrics.json").read_text())
    return content


def test_a_card_shows_the_verdict_and_keeps_its_numbers(study: Study, displayed: list[Any]) -> None:
    study.verdict("A1", "And more.")
    study.finish()
    content = metrics_of(study)
    cited = content["verdicts"]["A1"]
    assert (cited["verdict"], cited["reason"]) == (
        "undecided",
        "not measured: Fréchet distance to real works of b at guidance 4",
    )
    assert (cited["claim"], cited["says"]) == (CLAIM.digest, CLAIM.says)
    assert cited["p"] == {"supported": 1.0, "reversed": 1.0, "not seen": 1.0}
    assert cited["answer"].startswith(
        "Fréchet distance to real works at guidance 4, a against untuned: 1 against 2 (−1, "
    )
    assert cited["answer"].endswith("). Claimed: lower. 1 of 2 parts holds; 1 not measured. And more.")
    assert cited["paper"] == "The paper: p."
    assert (cited["numbers"]["change"], cited["numbers"]["n"]) == (pytest.approx(-1), 20)
    kept = content["metrics"]["claim/A1/1"]
    assert kept["value"] == pytest.approx(-1)
    assert (kept["n"], kept["repeats"]) == (20, 5)
    assert kept["low"] < -1 < kept["high"] < 0
    assert content["metrics"]["claim/A1/1/detectable"]["value"] > 0
    assert "claim/A1/2" not in content["metrics"]
    (card, metadata), (_, drawn) = displayed
    assert drawn["file"] == "figures/evidence_A1.webp"
    assert metadata["table"] == "tables/claim_A1.csv"
    assert "<b>A1: a &lt; b &amp; c</b>" in card.data
    assert "<b>undecided</b> (not measured: Fréchet distance to real works of b at guidance 4)" in card.data
    assert metadata["caption"].startswith("Claim A1: intervals over models; n = 20 a cell.")


def recomputed(rows: pd.DataFrame) -> tuple[float, float, dict[str, float]]:
    """A part's 95 % interval and p-values, from its rows of ``claim_NAME_groups.csv`` and scipy alone."""
    difference, margin, least = (rows[name].to_numpy() for name in ("difference", "margin", "least"))
    np.testing.assert_allclose(difference, rows["changed"] - rows["reference"], rtol=1e-12)

    def p_under(values: np.ndarray, sides: int) -> float:
        return min(1.0, sides * float(stats.ttest_1samp(values, 0, alternative="less").pvalue))

    interval = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    match rows["rule"].iloc[0]:
        case "below":
            larger = np.maximum(margin, least)
            p = (p_under(difference + margin, 2), p_under(-difference, 2), p_under(-difference - larger, 2))
        case "same":
            outside = min(p_under(margin - difference, 2), p_under(margin + difference, 2))
            p = (max(p_under(difference - margin, 1), p_under(-difference - margin, 1)), min(1.0, 2 * outside), 1.0)
        case "at least":
            p = (p_under(-difference - margin, 1), p_under(difference + margin, 2), 1.0)
    return interval.low, interval.high, dict(zip(("supported", "reversed", "not seen"), p, strict=True))


def test_every_part_can_be_recomputed_from_its_groups_alone(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    values = {("fd", f"{name}@1/4"): mean + rng.normal(size=5) for name, mean in {"a": 18, "b": 20.4}.items()}
    values |= {("fd", "untuned@1/4"): 20 + rng.normal(size=5)}
    ends = {"measure": "fd", "reference": ["untuned@1/4"]}
    asked = [
        {"changed": ["a@1/4"], "rule": "below", "least": {"share": 0.2}},
        {"changed": ["b@1/4"], "rule": "same", "share": 0.1},
        {"changed": ["b@1/4"], "rule": "at least", "margin": 1.0},
        {"changed": ["a@1/4", "b@1/4"], "rule": "below", "margin": 0.5},
        {"changed": ["lost@1/4"], "rule": "below"},
    ]
    one = CLAIM.model_copy(update={"parts": [Comparison.model_validate({**ends, **part}) for part in asked]})
    evidence = Evidence(values, {}, {"": 20}, {"": "models"})
    monkeypatch.setattr(study.report, "evidence", lambda results: evidence)
    monkeypatch.setattr(claims, "load", {"one": {"A1": one}}.__getitem__)
    study.verdict("A1")
    table = pd.read_csv(study.folder / "tables" / "claim_A1_groups.csv")
    assert list(table.columns) == [
        "part", "comparison", "rule", "group", "changed", "reference", "margin", "least", "difference", "resolution",
    ]  # fmt: skip
    assert table["part"].unique().tolist() == [1, 2, 3, 4]  # the last was not measured
    (verdict,) = verdicts.decide({"A1": one}, evidence)
    for number, rows in table.groupby("part"):
        low, high, p = recomputed(rows)
        shown = study.metrics[f"claim/A1/{number}"]
        assert (shown["low"], shown["high"]) == pytest.approx((low, high), rel=1e-9)
        ours = verdict.findings[number - 1].compared
        assert ours is not None
        assert list(p.values()) == pytest.approx([ours.supported_p, ours.reversed_p, ours.not_seen_p], rel=1e-9)
        assert 0 < min(p.values()) < 1


def test_a_summary_has_the_same_columns_in_every_study(study: Study, displayed: list[Any]) -> None:
    def summary() -> dict[str, float]:
        study.finish()
        content: dict[str, float] = json.loads((study.folder / "summary.json").read_text())
        return content

    empty = {"supported": 0, "reversed": 0, "not seen": 0, "undecided": 0, "no verdict": 0}
    assert summary() == empty
    study.verdict("A1")
    assert summary() == {**empty, "undecided": 1}
    study.record({"fd/a": Metric(2.0, 5)})
    study.report.headline = lambda results: ["fd/a"]
    assert summary() == {**empty, "undecided": 1, "headline": 2.0}


def test_a_finding_has_a_card_and_is_cited_apart(
    study: Study, displayed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = CLAIM.model_copy(update={"paper": "no paper claims it; seen first here", "parts": [SHOWN]})
    monkeypatch.setattr(claims, "findings", {"one": {"N1": finding}}.__getitem__)
    study.verdict("A1")
    study.verdict("N1")
    study.finish()
    content = metrics_of(study)
    assert (list(content["verdicts"]), list(content["findings"])) == (["A1"], ["N1"])
    cited = content["findings"]["N1"]
    assert (cited["verdict"], cited["claim"]) == ("supported", finding.digest)
    assert cited["paper"] == "No paper claims it; seen first here."
    assert content["metrics"]["claim/N1/1"]["value"] == pytest.approx(-1)
    assert (study.folder / "tables" / "claim_N1_groups.csv").is_file()
    assert "<b>N1: a &lt; b &amp; c</b>" in displayed[2][0].data
    assert "The rule, written when the first results had shown a like effect" in displayed[2][0].data
    assert "The rule, written before these pictures were made: r" in displayed[0][0].data


def test_a_page_without_claims_has_no_verdicts(study: Study) -> None:
    study.finish()
    assert not {"verdicts", "findings"} & set(metrics_of(study))
    assert metrics_of(study)["profile"] == "smoke"


def test_a_headline_that_was_never_recorded_is_refused_by_name(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study.report, "headline", lambda results: ["fd/a", "fd/b"])
    study.record({"fd/a": Metric(1.0, 5)})
    with pytest.raises(ValueError, match=r"never recorded: fd/b$"):
        study.finish()
    assert not study.folder.exists()
    study.record({"fd/b": Metric(2.0, 5)})
    study.finish()
    assert metrics_of(study)["headline"] == ["fd/a", "fd/b"]


def test_results_are_loaded_once(study: Study, tmp_path: Path) -> None:
    assert study.results() is study.results()
    assert study.results() == {"loaded": SMOKE, "from": Workspace(tmp_path)}


def test_a_table_is_written_in_full_and_displayed_short(study: Study, displayed: list[Any]) -> None:
    study.show(Table("distances", FRAME, "Distances of n = 5", {"fd/a": Metric(1 / 3, 5)}))
    assert (study.folder / "tables" / "distances.csv").read_text() == "model,fd\na,0.3333333333\nb,\n"
    ((shown, metadata),) = displayed
    assert "0.333<" in shown.data
    assert "–" in shown.data
    assert metadata == {"caption": "Distances of n = 5", "table": "tables/distances.csv"}
    assert study.metrics["fd/a"]["value"] == 0.3333333333


def test_data_is_written_as_it_is_and_not_displayed(study: Study, displayed: list[Any]) -> None:
    study.show(Data("behind", FRAME, {"fd/a": Metric(1.0, 5)}))
    assert (study.folder / "tables" / "behind.csv").read_text() == 'fd\n0.3333333333333333\n""\n'
    assert displayed == []
    assert list(study.metrics) == ["fd/a"]


def test_text_is_printed(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.show(Text("fd falls by 1", {"fd/a": Metric(1.0, 5)}))
    assert capsys.readouterr().out == "fd falls by 1\n"
    assert list(study.metrics) == ["fd/a"]


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_a_figure_is_stored_once_and_closed(
    study: Study, displayed: list[Any], monkeypatch: pytest.MonkeyPatch, in_pipeline: bool
) -> None:
    """The pipeline's notebook holds a preview, one run by hand the file itself; both name the file."""
    if in_pipeline:
        monkeypatch.setenv(MARK, "1")
    else:
        monkeypatch.delenv(MARK, raising=False)
    figure, axis = plt.subplots()
    axis.plot([1, 2])
    study.show(Figure("curve", figure, "A curve", {"fd/a": Metric(1.0, 5)}))
    assert not plt.fignum_exists(figure.number)
    stored = study.folder / "figures" / "curve.webp"
    ((image, metadata),) = displayed
    assert isinstance(image, Image)
    assert (image.data == stored.read_bytes()) is not in_pipeline
    assert image.alt == "A curve"
    assert metadata == {"caption": "A curve", "file": "figures/curve.webp"}
    assert list(study.metrics) == ["fd/a"]


@pytest.mark.parametrize(("mark", "folder"), [("1", "build/studies/one"), (None, "build/by-hand/one")])
def test_what_is_run_by_hand_lies_apart(
    mark: str | None, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mark:
        monkeypatch.setenv(MARK, mark)
    else:
        monkeypatch.delenv(MARK, raising=False)
    assert Study("one", SMOKE, Workspace()).folder == Path(folder)
    assert Study("one", SMOKE, Workspace(tmp_path)).folder == tmp_path / folder


def test_a_notebook_begins_in_the_root_with_papermills_sections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sections that papermill gave replace the file's; a None, and a name that is no section, do not."""
    monkeypatch.setattr(page.machine, "settle", lambda threads: None)
    (tmp_path / "params.yaml").write_bytes((ROOT / "profiles" / "smoke.yaml").read_bytes())
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    begun = Study.begin("one", {"seed": SMOKE.seed + 1, "sampling": None, "results": 3})
    assert Path.cwd() == tmp_path
    assert begun.workspace == Workspace()
    assert begun.params.seed == SMOKE.seed + 1
    assert begun.params.sampling == SMOKE.sampling
    with pytest.raises(ValueError, match="sampling"):
        Study.begin("one", {"sampling": {"stepz": 3}})


def test_a_notebook_outside_the_repository_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no dvc\.yaml here or above"):
        Study.begin("one", {})


@pytest.mark.parametrize("profile", ["smoke", "study"])
def test_short_profiles_say_what_they_are_worth(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    Study("one", SMOKE.model_copy(update={"profile": profile}), Workspace()).caveat()
    assert ("nothing on this page means anything" in capsys.readouterr().out) is (profile == "smoke")
