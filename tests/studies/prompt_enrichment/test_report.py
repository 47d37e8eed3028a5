"""The page of prompts at three levels, on made-up measures: what its tables hold, record, count and leave out."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from atelier import claims, params, verdicts
from atelier.data.pictures import Pictures, in_memory
from atelier.data.prompts import prompt
from atelier.evaluation.intervals import Interval
from atelier.evaluation.tables import REFERENCE_ROWS, write_rows
from atelier.params import CORRECTED, STARTS, WHITE, cell_name
from atelier.report import starts, words
from atelier.report.items import Table, Text
from atelier.sampling import store
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN
from atelier.studies.prompt_enrichment import report
from atelier.studies.prompt_enrichment.report import Results
from atelier.workspace import Workspace

ROOT = Path(__file__).parents[3]
PROFILE = ROOT / "profiles" / "smoke.yaml"
PARAMS = params.load(PROFILE)  # 2 repeats of 3 pictures, one training seed, guidance 4 and 16, levels 0 and 2 beside 1
TUNED = "rank8-unconditional"
LOW, HIGH = 4.0, 16.0
COUNT = "n = 6 pictures a cell in 2 repeats, 1 training seed, against 2 held-out works"
MEASURES = ("fd", "fd_mean", "fd_spread", "kd", "fd_haar", "fwd", "pr", "psd", "psd10", "style", "precision", "recall")
MEASURES += ("fd_rec", "pr_rec", "psd_rec")
# from white noise level 1 takes 40 off, level 2 another 4; tuning 10; guidance 16 doubles all; from the corrected start
# all are 50 nearer, and level 2 is 4 farther than level 1
LESS = {WHITE: (0.0, 40.0, 44.0), CORRECTED: (50.0, 70.0, 66.0)}
VALUES = {
    cell_name(model, level, scale, start): (base - less) * (1 + (scale == HIGH))
    for start, steps in LESS.items()
    for model, base in {UNTUNED: 100.0, UNTUNED_AGAIN: 100.0, TUNED: 90.0}.items()
    for level, less in enumerate(steps)
    for scale in (LOW, HIGH)
}
DECODER = {cell_name("untuned-decoder", 0, scale, start): 95.0 for scale in (LOW, HIGH) for start in STARTS}
CONTROL = {"full-mixed@1/4": 50.0}
REAL_WORKS = dict(zip(REFERENCE_ROWS, (10.0, 85.0, 5.0), strict=True))


def rows(values: dict[str, float], n: int = 6) -> pd.DataFrame:
    """Two pseudo-values around each value, and a measure of all pictures that is biased by 1000; PSD is FD / 100."""
    listed = []
    for cell, value in values.items():
        for measure in MEASURES:
            scale = 0.01 if measure == "psd" else 1.0
            groups = {"group0": (value - 2) * scale, "group1": (value + 2) * scale}
            listed.append({"measure": measure, "n": n, "whole": value + 1000, **groups, "cell": cell})
    return pd.DataFrame(listed)


def by_artist(level1_known: float, level1_unknown: float) -> pd.DataFrame:
    """The untuned model's cells by whether it knows the artist; level 0 is at 100."""
    known = {f"untuned-known@{level}/4": value for level, value in {0: 100.0, 1: level1_known}.items()}
    unknown = {f"untuned-unknown@{level}/4": value for level, value in {0: 100.0, 1: level1_unknown}.items()}
    return pd.concat([rows(known, n=4), rows(unknown, n=2)])


def work(title: str, emotions: list[str]) -> dict[str, Any]:
    return {
        "path": f"{title}.png", "painting": title, "title": title, "art_style": "Cut_Out", "artist": "Ann Example",
        "emotions": emotions, "utterances": ["it glows"] * len(emotions), "split": "test",
    }  # fmt: skip


WORKS = pd.DataFrame([work("a boat", []), work("a house", ["awe"])])


@pytest.fixture
def results() -> Results:
    """In the repository, which has the poster's table."""
    table = pd.concat([rows(VALUES | DECODER | CONTROL | REAL_WORKS)], ignore_index=True)
    return Results(PARAMS, Workspace(ROOT), table, WORKS)


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def pictures(n: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (n, 3, 64, 64), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


# --------------------------------------------------------------------------------------------------- tables


def test_distances_are_means_of_pseudo_values_of_the_models_that_paint_all_levels(results: Results) -> None:
    table = report.distances(results)
    assert list(table.frame.index.unique("model")) == [UNTUNED, TUNED]  # neither decoder nor control nor other noise
    assert list(table.frame.index.unique("level")) == [0, 1, 2]
    assert table.frame.loc[(UNTUNED, 1, HIGH, WHITE), "fd"] == pytest.approx(120)
    assert table.frame.loc[(UNTUNED, 1, HIGH, CORRECTED), "fd_rec"] == pytest.approx(60)
    assert len(table.frame) == 2 * 3 * 2 * 2
    assert table.caption.startswith(f"Distances, bias taken off; {COUNT}; fd and kd on the evaluator's features")


def test_curves_record_every_measure_of_their_model(results: Results) -> None:
    base, tuned = report.guidance(results)
    assert (base.name, tuned.name) == ("guidance_untuned", f"guidance_{TUNED}")
    assert len(base.metrics) == 3 * 2 * 2 * len(MEASURES)
    assert base.metrics["fd/untuned/level-1/guidance-4/corrected"].value.mean == pytest.approx(30)
    assert not set(base.metrics) & set(tuned.metrics)
    metric = tuned.metrics[f"fd/{TUNED}/level-2/guidance-4"]
    assert isinstance(metric.value, Interval)
    assert (metric.value.mean, metric.n, metric.unit) == (pytest.approx(46), 6, "1")
    assert COUNT in base.caption
    axes = [axis.get_ylabel() for axis in base.figure.axes[: len(starts.AXES)]]
    assert axes == list(starts.AXES.values())
    legend = [text.get_text() for text in base.figure.legends[0].get_texts()]
    assert legend == [f"level {level}, {start}" for start in ("white noise", "corrected start") for level in (0, 1, 2)]
    drawn = [container.lines[0].get_ydata().tolist() for container in base.figure.axes[0].containers]
    assert drawn == [[100, 200], [60, 120], [56, 112], [50, 100], [30, 60], [34, 68]]


def test_attributes_are_of_all_pictures_at_once_and_only_what_was_measured(results: Results) -> None:
    table = report.attributes(results)
    assert list(table.frame) == ["style", "precision", "recall"]
    assert table.frame.loc[(UNTUNED, 0, LOW, WHITE), "style"] == pytest.approx(1100)
    assert COUNT in table.caption


def test_side_by_side_steps_from_level_to_level(results: Results) -> None:
    frame = report.side_by_side(results).frame
    assert list(frame.index) == [(f"level {a} to {a + 1}", scale) for scale in (LOW, HIGH) for a in (0, 1)]
    first = frame.loc[("level 0 to 1", LOW)]
    assert first["FD paper"] == pytest.approx(100 * (75.22 / 83.17 - 1))
    assert first["FD here"] == pytest.approx(-40)
    assert first["FD corrected"] == pytest.approx(-40)  # 50 to 30
    assert first["PSD paper"] == pytest.approx(0.14 - 0.18)  # a difference, not per cent
    assert first["PSD here"] == pytest.approx(-0.40)


def test_side_by_side_has_no_paper_where_the_poster_has_no_such_scale(results: Results) -> None:
    protocol = {**PARAMS.protocol.model_dump(mode="json"), "guidance": [7.5]}
    sections = {"protocol": protocol, "vae_decoder": {**_section("vae_decoder"), "guidance": [7.5]}}
    halved = {cell.replace("/4", "/7.5"): value for cell, value in VALUES.items() if "/4" in cell}
    changed = replace(results, params=params.with_sections(sections, PROFILE), table=rows(halved))
    assert list(report.side_by_side(changed).frame) == [
        f"{measure} {start}" for measure in ("FD", "PR", "PSD") for start in ("here", "corrected")
    ]


def test_sensitivity_calls_what_the_decoder_hides_saturated(results: Results) -> None:
    table = report.sensitivity(results)
    assert table.frame.loc["FD", ("floor", "")] == pytest.approx(85)
    assert table.frame.loc["FD", ("saturated", WHITE)] == "yes"  # 85 of the 60 of level 1
    assert table.frame.loc["FD_REC", ("floor", "")] == pytest.approx(5)
    assert table.frame.loc["FD_REC", ("saturated", CORRECTED)] == "no"
    assert ("full-mixed", WHITE) in table.frame
    assert report.floors(results)["pr_rec"] == pytest.approx(5)


def test_a_step_that_helps_from_white_noise_alone_is_named(results: Results) -> None:
    text = report.disagreements(results).text
    assert "FD of untuned@2/4 against untuned@1/4: -4 (-4 to -4) from white noise, +4 (+4 to +4) from the" in text
    assert "against untuned@0/4" not in text


def test_interventions_are_against_the_untuned_model_with_least_words(results: Results) -> None:
    frame = report.interventions(results).frame
    names = [f"{TUNED}, level 0", "untuned, level 1", "untuned, level 2", "tuned decoder"]
    assert list(frame.index) == [(name, scale, s) for scale in (LOW, HIGH) for s in STARTS for name in names]
    assert frame.loc[(f"{TUNED}, level 0", LOW, WHITE)].to_dict() == pytest.approx(
        {"FD": -10, "FD_REC": -10, "KD": -10, "FWD": -10, "PR": -10, "PR_REC": -10, "PSD": -0.10, "PSD_REC": -10}
    )
    assert frame.loc[("untuned, level 2", HIGH, WHITE), "FD"] == pytest.approx(-44)
    assert frame.loc[("tuned decoder", HIGH, WHITE), "FD"] == pytest.approx(100 * (95 / 200 - 1))
    assert frame.loc[("tuned decoder", HIGH, CORRECTED), "FD"] == pytest.approx(100 * (95 / 100 - 1))


def test_interventions_do_without_a_decoder_that_was_not_measured(results: Results) -> None:
    frame = report.interventions(replace(results, table=rows(VALUES))).frame
    assert "tuned decoder" not in frame.index.get_level_values("intervention")
    assert len(frame) == 2 * 6


def test_parts_of_fd_are_of_the_untuned_model(results: Results) -> None:
    table = report.parts_of_fd(results)
    assert set(table.frame.index.get_level_values("model")) == {UNTUNED}
    assert list(table.frame) == ["fd", "fd_mean", "fd_spread", "share between means", "precision", "recall"]
    few = results.table[~results.table["measure"].isin(["precision", "recall"])].reset_index(drop=True)
    without = report.parts_of_fd(replace(results, table=few)).frame
    assert list(without) == ["fd", "fd_mean", "fd_spread", "share between means"]


def test_acquaintance_is_the_step_to_the_protocols_level(results: Results) -> None:
    table = pd.concat([results.table, by_artist(70.0, 110.0)], ignore_index=True)
    item = report.acquaintance(replace(results, table=table))
    assert isinstance(item, Table)
    assert item.frame.loc[("artists known", "FD", LOW, WHITE), "change"] == pytest.approx(-30)
    assert item.frame.loc[("artists unknown", "FD", LOW, WHITE), "change"] == pytest.approx(10)
    assert len(item.frame) == 2 * 4  # nothing at 16 nor from the other start, which have too few pictures here
    assert "n = 2 to 4 pictures a cell, 1 training seed." in item.caption
    assert "level 1 less level 0" in item.caption


def test_acquaintance_says_that_known_artists_are_not_named(results: Results) -> None:
    item = report.acquaintance(results)
    assert isinstance(item, Text)
    assert "not known" in item.text


# ------------------------------------------------------------------------------------------------- pictures


def test_prompts_are_of_the_first_annotated_work(results: Results) -> None:
    lines = report.prompts(results).text.splitlines()
    assert lines == [f"level {level}: {prompt(WORKS.iloc[1], level, 0)}" for level in (0, 1, 2)]
    assert "it glows" in lines[2]
    without = replace(results, works=WORKS.iloc[:1])  # no annotations in the data
    assert "boat" in report.prompts(without).text


def test_every_level_is_beside_the_fewest_words(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    listed = pd.DataFrame({"prompt": ["a boat"], "path": ["a boat.png"], "repeat": 0, "place": 0})

    def cell(folders: list[Path]) -> tuple[Pictures, pd.DataFrame]:
        (folder,) = folders
        read.append(folder.relative_to(Workspace(ROOT).samples).as_posix())
        return in_memory(pictures(1)), listed

    monkeypatch.setattr(store, "read", cell)
    monkeypatch.setattr(report.prepare, "pictures", lambda table, **_: in_memory(pictures(len(table))))
    shown = report.browser(results)
    assert shown.rows[:3] == [
        "the real work", "the untuned base, plain descriptions", "the untuned base, with style and artist",
    ]  # fmt: skip
    assert len(shown.rows) == 1 + 2 * 3
    assert read[0] == f"prompt_enrichment/untuned/0/level-0/guidance-{LOW:g}"
    assert f"prompt_enrichment-protocol-level/untuned/0/guidance-{LOW:g}" in read  # copied from who painted it
    assert {each.rpartition("/")[2] for each in read} == {
        f"guidance-{scale}{end}" for scale in ("4", "16") for end in ("", f"-{CORRECTED}")
    }


# ---------------------------------------------------------------------------------------- evidence, loading


def test_evidence_holds_the_cells_of_three_studies(results: Results) -> None:
    evidence = report.evidence(results)
    assert {cell for _, cell in evidence.values} == {*VALUES, *DECODER, *CONTROL, *REAL_WORKS}
    assert evidence.counts == {"": 6}
    assert [(part.measure, part.changed, part.reference) for part in evidence.null_comparisons] == [
        (measure, ["untuned-again@1/4"], ["untuned@1/4"])
        for measure in ("fd", "pr", "psd", "fd_rec", "pr_rec", "psd_rec")
    ]
    assert evidence.resolutions["style", "untuned@0/4"] == pytest.approx(2 / 6)


def test_verdicts_follow_from_the_evidence(results: Results) -> None:
    decided = {v.claim: v for v in verdicts.decide(claims.load("prompt_enrichment"), report.evidence(results))}
    # level 1 is nearer and level 2 adds less than half of that; tuning with least words is farther than level 1
    assert decided["A5"].verdict == verdicts.SUPPORTED
    assert decided["A6"].verdict == verdicts.REVERSED
    assert all(finding.compared is not None for verdict in decided.values() for finding in verdict.findings)


def test_headline_was_recorded(results: Results) -> None:
    names = report.headline(results)
    assert names == [f"fd/untuned/level-{level}/guidance-4" for level in (0, 1, 2)]
    assert set(names) <= set(report.guidance(results)[0].metrics)


def test_results_are_the_compared_rows_and_held_out_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path)
    compared = workspace.compared("prompt_enrichment")
    compared.parent.mkdir(parents=True)
    write_rows(rows(VALUES), compared)
    manifest = SimpleNamespace(table=pd.concat([WORKS, WORKS.assign(split="train")]))
    monkeypatch.setattr("atelier.data.prepare.works", {workspace.manifests: manifest}.__getitem__)
    with pytest.raises(ValueError, match="no samples of rank8-unconditional, untuned"):
        report.load(PARAMS, workspace)
    for name in (UNTUNED, TUNED):
        (workspace.samples / "prompt_enrichment" / name).mkdir(parents=True)
    loaded = report.load(PARAMS, workspace)
    assert loaded.count == COUNT
    assert len(loaded.table) == len(VALUES) * len(MEASURES)


def _section(study: str) -> dict[str, Any]:
    section: dict[str, Any] = PARAMS.section(study).model_dump(mode="json")
    return section


# ---------------------------------------------------------------------------------------- phrases of captions


def test_phrases_of_captions() -> None:
    change = Interval(1.234, 0.7, 1.768, 5)
    assert words.seeds(PARAMS) == "1 training seed"
    assert words.pictures(PARAMS, 40, "condition") == "n = 40 pictures a condition in 2 repeats, 1 training seed"
    assert words.against_works(PARAMS, 2) == COUNT  # the protocol's number of pictures
    assert words.plus_minus(change) == "+1.23 ± 0.53"
    assert words.plus_minus(change, sign="") == "1.23 ± 0.53"
    large = Interval(-1823.4, -1993.0, 1653.8, 5)
    assert words.plus_minus(large) == "-1820 ± 3500"
    assert words.signed(large) == "-1820 (-1990 to +1650)"
    assert words.plus_minus(Interval(3e8, 2e8, 4e8, 5)) == "+3e+08 ± 1e+08"
    assert words.signed(change) == "+1.23 (+0.7 to +1.77)"
    assert words.signed(change, ".2f") == "+1.23 (+0.70 to +1.77)"
    assert words.unsigned(change) == "1.234 (0.700 to 1.768)"
