"""The page of fine-tuning, on made-up measures: what its tables hold, record, count and leave out."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from atelier import claims, params, verdicts
from atelier.data.pictures import Pictures, in_memory
from atelier.evaluation import judges, tables
from atelier.evaluation.intervals import Interval
from atelier.metrics.spectra import residual_spectrum_label
from atelier.params import CORRECTED, STARTS, WHITE, cell_name
from atelier.report.items import Data, Figure, Table, Text
from atelier.report.study import Study
from atelier.sampling import store
from atelier.sampling.store import UNTUNED, UNTUNED_AGAIN
from atelier.studies.art_finetuning import report, report_results
from atelier.studies.art_finetuning.params import Config
from atelier.studies.art_finetuning.report import Results
from atelier.workspace import Workspace

ROOT = Path(__file__).parents[3]
PROFILE = ROOT / "profiles" / "smoke.yaml"
PARAMS = params.load(PROFILE)  # 2 repeats of 3 pictures, one training seed, guidance 4 and 16
VARIANTS = Config.of(PARAMS).variants
LOW, HIGH = 4.0, 16.0
COUNT = "n = 6 pictures a cell in 2 repeats, 1 training seed, against 2 held-out works"
MEASURES = ("fd", "fd_mean", "fd_spread", "kd", "fd_haar", "fwd", "pr", "psd", "psd10", "near_features", "near_pixels")
MEASURES += ("fd_rec", "pr_rec", "psd_rec")
SHARES = ("precision", "recall", "density", "coverage", "clip")
TUNED = {UNTUNED: 100.0, UNTUNED_AGAIN: 100.0} | {name: 80.0 + number for number, name in enumerate(VARIANTS)}
# from the corrected start all are nearer, and the last variant is farther than the base
STARTED = {UNTUNED: 50.0, UNTUNED_AGAIN: 50.0} | {name: 45.0 + number for number, name in enumerate(VARIANTS)}


def row(measure: str, cell: str, value: float, spread: float = 2.0) -> dict[str, Any]:
    """Two pseudo-values around a value, and a measure of all pictures that is biased by 1000."""
    groups = {"group0": value - spread, "group1": value + spread}
    return {"measure": measure, "n": 6, "whole": value + 1000, **groups, "cell": cell}


def measures(*skipped: str) -> pd.DataFrame:
    """Every model at both scales (twice as far at the high one) and starts, and real works; PSD is FD / 100."""
    rows = []
    values = {
        cell_name(model, 1, scale, start): x * (1 + (scale == HIGH))
        for start, of in {WHITE: TUNED, CORRECTED: STARTED}.items()
        for model, x in of.items()
        for scale in (LOW, HIGH)
    }
    values |= {tables.REAL: 20.0, tables.RECONSTRUCTED: 30.0, tables.RECONSTRUCTED_TRAINING: 10.0}
    values |= {"untuned@0/4": 70.0}  # of another study, at one scale
    for cell, value in values.items():
        for measure in (*MEASURES, *SHARES):
            scale = 0.01 if measure == "psd" else 1.0
            rows.append(row(measure, cell, value * scale, 2.0 * scale))
    table = pd.DataFrame(rows)
    return table[~table["measure"].isin(skipped)].reset_index(drop=True)


def errors() -> pd.DataFrame:
    """Of tuned models, 10 and 30 % under the untuned one's at t = 50, the reverse at t = 950."""
    rows = []
    for model in (UNTUNED, *Config.of(PARAMS).diagnosed):
        tuned = model != UNTUNED
        rows.append({"model": model, "timestep": 50, "group0": 1 - 0.1 * tuned, "group1": 1 - 0.3 * tuned, "n": 2})
        rows.append({"model": model, "timestep": 950, "group0": 1 + 0.1 * tuned, "group1": 1 + 0.3 * tuned, "n": 2})
    return pd.DataFrame(rows).set_index(["model", "timestep"])


def history() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"step": step, "denoising": 10.0 * step + number, "variant": name, "training_seed": 0}
            for number, name in enumerate(VARIANTS)
            for step in range(5)
        ]
    )


def styles(names: tuple[str, ...]) -> pd.DataFrame:
    """Distance 1 within a style; 10 times the sum of their numbers between styles."""
    pairs = [(a, b) for a in range(len(names)) for b in range(len(names))]
    rows = [
        {
            "style": names[a],
            "reference": names[b],
            "measure": measure,
            "n": 7 + a,
            "value": 10.0 * (a + b) if a != b else 1,
        }
        for a, b in pairs
        for measure in ("fd", "kd", "pr", "psd")
    ]
    return pd.DataFrame(rows, columns=["style", "reference", "measure", "n", "value"])


WORKS = pd.DataFrame({"path": ["a", "b", "c"], "split": ["test", "train", "test"]})


@pytest.fixture
def results() -> Results:
    """In the repository, which has the poster's table."""
    apart = styles(("Cubism", "Mosaic", "Woodcut"))
    return Results(PARAMS, Workspace(ROOT), measures(), apart, errors(), history(), WORKS)


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def pictures(n: int, seed: int) -> Tensor:
    return torch.randint(256, (n, 3, 64, 64), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def with_variants(results: Results, variants: list[str], diagnosed: list[str]) -> Results:
    """The same results, with these of the variants."""
    art = PARAMS.section("art_finetuning").model_dump(mode="json")
    adapters = {name: art["adapters"][name] for name in variants}
    sections = {
        "art_finetuning": {**art, "variants": variants, "adapters": adapters, "diagnosed": diagnosed},
        # sections that name models of this study
        "prompt_enrichment": {"models": variants[:1], "levels": [0, 2]},
        "vae_decoder": {**PARAMS.section("vae_decoder").model_dump(mode="json"), "models": [UNTUNED, *variants[:1]]},
    }
    return replace(results, params=params.with_sections(sections, PROFILE))


# --------------------------------------------------------------------------------------------------- tables


def test_distances_are_means_of_pseudo_values_and_all_measures_are_recorded(results: Results) -> None:
    table = report.distances(results)
    assert list(table.frame.index.unique("model")) == [UNTUNED, *VARIANTS]  # no reference rows
    assert list(table.frame.index[:4]) == [
        (UNTUNED, LOW, WHITE), (UNTUNED, LOW, CORRECTED), (UNTUNED, HIGH, WHITE), (UNTUNED, HIGH, CORRECTED)
    ]  # fmt: skip
    assert table.frame.loc[(UNTUNED, LOW, WHITE), "fd"] == pytest.approx(100)
    assert table.frame.loc[(UNTUNED, LOW, CORRECTED), "fd"] == pytest.approx(50)
    assert table.frame.loc[("rank4-conditional", HIGH, WHITE), "fd"] == pytest.approx(162)
    assert COUNT in table.caption
    assert residual_spectrum_label(64, 64) in table.caption
    assert len(table.metrics) == (1 + len(VARIANTS)) * 2 * 2 * len(MEASURES + SHARES)
    assert table.metrics["fd/untuned/guidance-16/corrected"].value.mean == pytest.approx(100)
    metric = table.metrics["fd/rank4-conditional/guidance-16"]
    assert isinstance(metric.value, Interval)
    assert (metric.value.mean, metric.n, metric.unit) == (pytest.approx(162), 6, "1")
    assert metric.value.low < 160 < 164 < metric.value.high


def test_shares_are_of_all_pictures_at_once(results: Results) -> None:
    table = report.coverage(results)
    assert list(table.frame) == list(SHARES)  # and none of what no evaluator saw
    assert table.frame.loc[(UNTUNED, LOW, WHITE), "recall"] == pytest.approx(1100)
    assert table.frame.loc[(UNTUNED, LOW, CORRECTED), "recall"] == pytest.approx(1050)
    assert "All repeats at once" in table.caption
    assert COUNT in table.caption


def test_sensitivity_sets_works_beside_the_base_and_the_control(results: Results) -> None:
    table = report.sensitivity(results)
    row = table.frame.loc["FD"]
    assert row["works"].tolist() + row["reconstructed works"].tolist() == [20, 30, 10]
    assert [row[name, start] for name in (UNTUNED, "full-mixed") for start in STARTS] == [100, 50, 86, 51]
    assert row["saturated"].tolist() == ["no", "no"]
    assert COUNT in table.caption
    uncontrolled = results.table[~results.table["cell"].str.startswith("full-mixed")].reset_index(drop=True)
    assert "full-mixed" not in report.sensitivity(replace(results, table=uncontrolled)).frame


def test_floors_are_of_decoded_works_and_of_others_where_the_reference_is_decoded(results: Results) -> None:
    floors = report.floors(results)
    assert floors["fd"] == floors["pr"] == 30
    assert floors["fd_rec"] == floors["pr_rec"] == 10
    assert floors["psd"] == pytest.approx(0.30)


def test_gap_is_the_share_of_the_way_to_real_works(results: Results) -> None:
    table = report.gap(results)
    assert table.frame.loc[("rank4-unconditional", LOW, WHITE), "fd"] == pytest.approx((100 - 80) / (100 - 20))
    assert table.frame.loc[("rank4-unconditional", LOW, WHITE), "fd_rec"] == pytest.approx((100 - 80) / (100 - 10))
    assert table.frame.loc[("rank4-unconditional", LOW, CORRECTED), "fd"] == pytest.approx((50 - 45) / (50 - 20))
    assert table.frame.loc[("full-mixed", HIGH, WHITE), "fd"] == pytest.approx((200 - 172) / (200 - 20))
    assert table.metrics["gap/fd/full-mixed"].value == pytest.approx((100 - 86) / (100 - 20))
    assert table.metrics["gap/fd/full-mixed/corrected"].value == pytest.approx((50 - 51) / (50 - 20))


def test_gap_records_nothing_without_the_control(results: Results) -> None:
    without = with_variants(results, ["rank8-unconditional"], [])
    table = report.gap(without)
    assert set(table.frame.index.get_level_values("variant")) == {"rank8-unconditional"}
    assert not table.metrics


def test_near_copies_of_every_model(results: Results) -> None:
    table = report.near(results)
    assert list(table.frame) == [(name, start) for name in ("near_features", "near_pixels") for start in STARTS]
    assert len(table.frame) == 2 * (1 + len(VARIANTS))
    assert table.frame.loc[(UNTUNED, LOW), "near_pixels"].tolist() == [100, 50]


def test_losses_are_of_the_first_and_last_fifth(results: Results) -> None:
    table = report.losses(results)  # 4 steps: 0 is the first fifth, 4 the last
    assert table.frame.loc["rank4-unconditional"].to_dict() == {"first fifth": 0.0, "last fifth": 40.0}
    assert table.frame.loc["full-mixed", "last fifth"] == 46.0
    assert "1 training seed." in table.caption


def test_every_step_is_kept_for_plots(results: Results) -> None:
    rows = report.history_rows(results)
    assert isinstance(rows, Data)
    assert rows.csv().splitlines()[0] == "step,denoising,variant,training_seed"
    assert len(rows.frame) == 5 * len(VARIANTS)
    assert report.history(results).caption == "Training loss, 4 steps of 4 pictures, 1 training seed."


def test_side_by_side_holds_changes_in_per_cent(results: Results) -> None:
    table = report.side_by_side(results)
    assert isinstance(table, Table)
    changes = table.frame.loc[("rank8-unconditional", LOW)]
    assert changes["FD paper"] == pytest.approx(100 * (68.49 / 75.63 - 1))  # block B, not C, of the poster
    assert changes["FD here"] == pytest.approx(-17)
    assert changes["FD corrected"] == pytest.approx(-4)
    assert changes["PSD here"] == pytest.approx(-17)
    assert "full-mixed" not in table.frame.index.get_level_values("variant")  # the poster has none
    assert COUNT in table.caption


def test_side_by_side_says_that_the_poster_has_none_of_the_variants(results: Results) -> None:
    control = with_variants(results, ["full-mixed"], [])
    assert report.side_by_side(control) == Text("none of these variants stands on the poster")


def test_slopes_rank_with_guidance(results: Results) -> None:
    table = report.slope_over_guidance(results)
    assert table.frame.loc[(UNTUNED, 1.0, WHITE), "correlation"] == pytest.approx(1.0)
    assert table.frame.loc[(UNTUNED, 1.0, CORRECTED), "correlation"] == pytest.approx(1.0)
    assert np.isnan(table.frame.loc[(UNTUNED, 0.0, WHITE), "correlation"])  # one scale has no rank
    assert "over 2 scales" in table.caption


def test_parts_of_fd_stand_beside_precision_and_recall(results: Results) -> None:
    table = report.parts_of_fd(results)
    assert list(table.frame) == ["fd", "fd_mean", "fd_spread", "share between means", "precision", "recall"]
    assert table.frame.loc[(UNTUNED, LOW, WHITE), "precision"] == pytest.approx(1100)
    assert table.frame.loc[(UNTUNED, LOW, CORRECTED), "share between means"] == pytest.approx(1)
    few = replace(results, table=measures("precision", "recall"))  # as with fewer pictures than neighbours
    assert list(report.parts_of_fd(few).frame) == ["fd", "fd_mean", "fd_spread", "share between means"]


# ------------------------------------------------------------------------------------------- styles, copies


def test_styles_within_and_between(results: Results) -> None:
    figure, table = report.between_styles(results)
    assert isinstance(figure, Figure)
    assert isinstance(table, Table)
    assert list(table.frame.index) == ["fd", "kd", "pr", "psd"]
    assert list(table.frame.loc["fd"]) == [1.0, 20.0, 10.0, 30.0]  # same, other, nearest and farthest
    assert "n from 7 works" in table.caption


def test_styles_with_too_few_works_are_not_shown(results: Results) -> None:
    assert report.between_styles(replace(results, styles=styles(()))) == []


def test_nearest_works_stand_below_the_pictures_that_copy_them(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = pictures(4, 0)
    made = in_memory(torch.stack([*pictures(1, 1), training[2]]))
    drawn: dict[str, Tensor] = {}
    monkeypatch.setattr(Results, "real", lambda self, split: in_memory(training))
    monkeypatch.setattr(Results, "generated", lambda self, model, guidance: made)
    monkeypatch.setattr(judges, "load", lambda params, workspace: judges.Judges())
    monkeypatch.setattr(report.figures, "contact_sheet", lambda rows: drawn.update(rows))
    figure = report.neighbours(results)
    assert "guidance 4" in figure.caption
    assert len(drawn) == 3 * 2 * 2  # untuned, rank8-mixed and full-mixed, in two spaces, with works
    labels, shown = list(drawn), list(drawn.values())
    assert labels[0] == "the untuned base, by features"
    assert labels[3].rstrip() == "nearest works to these, by pixels"
    assert all(torch.equal(row[0], training[2]) for row in shown)  # the copy comes first, and so does its work


def test_every_model_is_beside_the_base_at_both_ends(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = pd.DataFrame({"prompt": list("xy"), "path": ["c", "a"], "repeat": 0, "place": [0, 1]})
    works: list[str] = []

    def read(folders: list[Path]) -> tuple[Pictures, pd.DataFrame]:
        return in_memory(pictures(2, len(folders[0].name))), listed

    def real(table: pd.DataFrame, **_: object) -> Pictures:
        works.extend(table["path"])
        return in_memory(pictures(2, 0))

    monkeypatch.setattr(store, "read", read)
    monkeypatch.setattr(report.prepare, "pictures", real)
    shown = report.browser(results)
    assert shown.rows[:2] == ["the real work", "the untuned base"]
    assert len(shown.rows) == 2 + len(VARIANTS)
    assert works == ["c", "a"]
    settings = [(scale, start) for scale in ("4", "16") for start in ("white noise", "corrected start")]
    assert [sheet.values for sheet in shown.sheets] == settings
    assert not np.array_equal(np.asarray(shown.sheets[0].picture), np.asarray(shown.sheets[1].picture))


def test_spectra_are_of_works_the_base_and_the_highest_rank(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Results, "real", lambda self, split: pictures(2, 0))
    monkeypatch.setattr(Results, "generated", lambda self, model, guidance: pictures(3, int(guidance)))
    labels = [text.get_text() for text in report.spectra(results).figure.axes[0].get_legend().get_texts()]
    expected = ["works", UNTUNED, "rank8-unconditional", "rank8-conditional", "rank8-mixed"]
    assert [label.split(" (")[0] for label in labels] == expected
    assert "n = 2" in labels[0]
    assert report.residuals(results).caption.startswith("Mean residual spectra at guidance 16, white noise; ")


# -------------------------------------------------------------------------------------------------- reasons


def test_errors_are_relative_to_the_untuned_model_group_by_group(results: Results) -> None:
    figure = report.errors(results)
    assert isinstance(figure, Figure)
    assert set(figure.metrics) == {
        f"held-out error/{name}/timestep-{t}" for name in ("rank8-unconditional", "full-mixed") for t in (50, 950)
    }
    metric = figure.metrics["held-out error/full-mixed/timestep-50"]
    assert isinstance(metric.value, Interval)
    assert (metric.value.mean, metric.value.n, metric.n, metric.unit) == (pytest.approx(-20), 2, 2, "%")
    assert "n = 2 held-out works in 2 groups, 1 training seed" in figure.caption


def test_without_diagnosed_variants_there_are_no_errors(results: Results) -> None:
    assert isinstance(report.errors(with_variants(results, VARIANTS, [])), Text)


def test_what_the_first_latent_changes_stands_beside_what_tuning_does(results: Results) -> None:
    table = report.by_start(results)
    assert len(table.frame) == 1 + 2 * (1 + len(VARIANTS))  # other noise, too
    fd = {label: metric.value.mean for label, metric in table.metrics.items()}
    assert fd["change/fd/first-latent"] == pytest.approx(50 - 100)
    assert fd["change/fd/untuned-again/corrected"] == pytest.approx(0)
    assert fd["change/fd/full-mixed/white"] == pytest.approx(86 - 100)
    assert fd["change/fd/full-mixed/corrected"] == pytest.approx(51 - 50)
    assert table.frame.loc[("full-mixed", WHITE), "FD"] == "-14 ± 0"


def test_a_variant_that_helps_from_one_start_alone_is_named(results: Results) -> None:
    text = report.disagreements(results).text
    assert text.startswith(f"12 of {len(VARIANTS) * 2 * 6} changes have opposite signs at the two starts:")
    assert "FD of full-mixed@1/4 against untuned@1/4: -14 (-14 to -14) from white noise, +1 (+1 to +1) from the" in text
    assert "rank4-unconditional" not in text


def test_curves_are_of_one_start_each(results: Results) -> None:
    white, corrected = report.guidance(results)
    assert (white.name, corrected.name) == ("guidance_white", "guidance_corrected")
    lines = [figure.figure.axes[0].containers[0].lines[0].get_ydata() for figure in (white, corrected)]
    assert [list(line) for line in lines] == [[100, 200], [50, 100]]


# ---------------------------------------------------------------------------------------- evidence, loading


def test_evidence_compares_the_base_with_itself_under_two_noises(results: Results) -> None:
    evidence = report.evidence(results)
    assert [(part.measure, part.changed, part.reference) for part in evidence.null_comparisons] == [
        (measure, ["untuned-again@1/4"], ["untuned@1/4"])
        for measure in ("fd", "pr", "psd", "fd_rec", "pr_rec", "psd_rec")
    ]
    assert evidence.counts == {"": 6}
    assert evidence.over[""] == tables.described_groups(PARAMS)
    assert evidence.values["fd", "untuned@1/16"].tolist() == [198, 202]
    assert evidence.resolutions["recall", "untuned@1/16"] == pytest.approx(2 / 6)  # one picture of a group's three


def test_a_base_that_differs_from_itself_breaks_every_verdict(results: Results) -> None:
    table = results.table.copy()
    table.loc[(table["cell"] == "untuned-again@1/4") & (table["measure"] == "fd"), ["group0", "group1"]] += 50
    decided = verdicts.decide(claims.load("art_finetuning"), report.evidence(replace(results, table=table)))
    assert {verdict.verdict for verdict in decided} == {verdicts.BROKEN}


def test_the_base_from_the_corrected_start_is_compared_with_adapters_from_white_noise(results: Results) -> None:
    """It lies at 50 there, adapters at 80 and more; and farther than adapters when it lies at 90."""

    def decided(table: pd.DataFrame) -> verdicts.Verdict:
        evidence = report.evidence(replace(results, table=table))
        return verdicts.decide(claims.findings("art_finetuning"), evidence)[0]

    nearer = decided(results.table)
    assert (nearer.said, nearer.holding) == (verdicts.SUPPORTED, 5)
    table = results.table.copy()
    table.loc[(table["cell"] == "untuned@1/4/corrected") & (table["measure"] == "fd"), ["group0", "group1"]] += 40
    assert decided(table).verdict == verdicts.REVERSED


def test_headline_was_recorded(results: Results) -> None:
    names = report.headline(results)
    assert names[0] == "fd/untuned/guidance-4"
    assert names[1:4] == [f"fd/rank8-{regime}/guidance-4" for regime in ("unconditional", "conditional", "mixed")]
    assert names[4:] == ["change/fd/first-latent"]
    assert set(names) <= {*report.distances(results).metrics, *report.by_start(results).metrics}


def test_captions_count_training_seeds(results: Results) -> None:
    protocol = {**PARAMS.protocol.model_dump(mode="json"), "training_seeds": [0, 1]}
    with_ablations = ("latent_perceptual", "pixel_space")
    others = {name: {**params.read(PROFILE)[name], "ablation_seeds": [0, 1]} for name in with_ablations}
    sections = {"protocol": protocol, **others}
    two = replace(results, params=params.with_sections(sections, PROFILE))
    assert "n = 12 pictures a cell in 4 repeats, 2 training seeds, against" in report.distances(two).caption
    assert "training seeds" in report.evidence(two).over[""]


def test_works_by_artist_come_last() -> None:
    cells = ["untuned@1/4", "untuned-unknown@1/4", "untuned-known@1/4", "untuned@0/4", "untuned-known@0/4"]
    ordered = report_results.by_acquaintance_last(pd.DataFrame({"cell": cells}))["cell"]
    assert list(ordered) == [
        "untuned@1/4", "untuned@0/4", "untuned-known@1/4", "untuned-known@0/4", "untuned-unknown@1/4"
    ]  # fmt: skip


@pytest.mark.parametrize("folders", [[UNTUNED], [UNTUNED, UNTUNED_AGAIN, *VARIANTS, "removed"]])
def test_samples_must_be_of_the_variants_in_the_parameters(folders: list[str], tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for name in folders:
        (workspace.samples / "art_finetuning" / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no samples of full-mixed|removed, which no parameter names"):
        report.load(PARAMS, workspace)


def test_cards_of_claims_and_of_the_finding_are_shown_from_the_pages_evidence(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "load", lambda params, workspace: results)
    monkeypatch.setattr(report, "headline", lambda results: [])
    study = Study("art_finetuning", results.params, Workspace(tmp_path))
    for name in ("N1", "A1", "A2"):
        study.verdict(name)
    study.plan()
    study.finish()
    content = json.loads((study.folder / "metrics.json").read_text())
    assert (list(content["findings"]), sorted(content["verdicts"])) == (["N1"], ["A1", "A2"])
    rows = pd.read_csv(study.folder / "tables" / "claim_N1_groups.csv")
    assert rows["part"].unique().tolist() == [1, 2, 3, 4, 5]
    assert len(rows) == rows["part"].nunique() * 2  # groups
