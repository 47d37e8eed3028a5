"""The page of the retuned decoder, on made-up numbers: what its tables hold, record and leave out."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

import contact_sheets
from atelier import claims, params, verdicts
from atelier.data.pictures import in_memory
from atelier.evaluation.tables import REAL, REFERENCE_ROWS
from atelier.params import CORRECTED, STARTS, WHITE, cell_name
from atelier.report.items import Table, Text
from atelier.report.study import Study
from atelier.studies.vae_decoder import report
from atelier.studies.vae_decoder.decoding import Repainted
from atelier.studies.vae_decoder.params import Config
from atelier.workspace import Workspace

ROOT = Path(__file__).parents[3]
PARAMS = params.load(ROOT / "profiles" / "smoke.yaml")  # two repeats of three pictures, one training seed
CONFIG = Config.of(PARAMS).model_copy(update={"models": ["untuned", "rank8-mixed"], "guidance": [4.0]})
DISTANCES = {"fd": 10.0, "fwd": 1.0, "pr": 100.0, "psd": 0.2, "psd10": 0.1}
DISTANCES |= {"fd_rec": 8.0, "pr_rec": 50.0, "psd_rec": 0.3}
STYLES = ("Cubism", "Mosaic", "Woodcut")


def row(measure: str, cell: str, values: Sequence[float], n: int = 6, style: str = "") -> dict[str, object]:
    groups = {f"group{number}": value for number, value in enumerate(values)}
    return {"measure": measure, "cell": cell, "n": n, "whole": float(np.mean(values)), "style": style, **groups}


def generated(cells: Sequence[str], scale: float = 1.0) -> pd.DataFrame:
    rows = [
        row(name, cell, [scale * value - 0.01, scale * value + 0.01])
        for cell in cells
        for name, value in DISTANCES.items()
    ]
    return pd.DataFrame(rows).drop(columns="style")


def group(seed: int) -> Repainted:
    """Five works: two of each of the first styles, and one of the last."""
    pictures = torch.randint(256, (2, 5, 3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    styles = np.array([STYLES[number // 2] for number in range(5)], dtype=object)
    return Repainted(in_memory(pictures[0]), in_memory(pictures[1]), styles)


@pytest.fixture
def results() -> report.Results:
    names = ["original", *CONFIG.variants]
    errors = {"psnr": 20.0, "mse": 0.01, "lpips": 0.2, "pr": 50.0, "high": 0.4, "psd": 0.3, "fd": 5.0}
    rows = [
        row(measure, name, [value + number - 0.5, value + number + 0.5], n=10)
        for number, name in enumerate(names)
        for measure, value in errors.items()
    ]
    by_style = [
        row(measure, name, [value - 1, value + 1], n=4, style=style)
        for style in STYLES[:2]
        for name, factor in (("original", 1.0), ("all", 0.5))
        for measure, value in (("psnr", 20 / factor), ("pr", 50 * factor), ("lpips", 2.0))
        if (style, measure) != ("Mosaic", "lpips")
    ]
    cells = [cell_name(model, 1, 4.0, start) for model in CONFIG.models for start in STARTS]
    decoded = {
        start: [cell_name(f"{model}+{name}", 1, 4.0, start) for model in CONFIG.models for name in CONFIG.variants]
        for start in STARTS
    }
    return report.Results(
        params=PARAMS,
        config=CONFIG,
        cards={name: {"unchanged": f"{name}-0123456789abcdef"} for name in CONFIG.variants},
        history=pd.DataFrame({"step": [1, 2, 3, 4], "mse": [8.0, 4.0, 2.0, 1.0]}).assign(decoder="all"),
        works={name: [group(0), group(1)] for name in names},
        reconstructions=pd.DataFrame(rows).drop(columns="style"),
        by_style=pd.DataFrame(by_style),
        compared=pd.concat([generated(REFERENCE_ROWS, 0.9), generated(cells)], ignore_index=True),
        # a retuned decoder is farther by a tenth from white noise, nearer by a fifth from the corrected start
        redecoded=pd.concat([generated(decoded[WHITE], 1.1), generated(decoded[CORRECTED], 0.8)], ignore_index=True),
        first_pictures={f"untuned, {name}": torch.zeros(3, 3, 8, 8, dtype=torch.uint8) for name in ("original", "all")},
        poster={
            (block, "mixed", 4.0): {
                "fd": value, "fd_sd": 2.0, "pr": value, "pr_sd": 3.0, "psd": value / 100, "psd_sd": 0.01,
            }
            for block, value in {"B": 50.0, "C": 60.0}.items()
        },
    )  # fmt: skip


def test_reconstructions_end_with_training_works_and_record_every_measure_on_all_works(
    results: report.Results,
) -> None:
    table = report.reconstructions(results)
    assert list(table.frame.index) == ["original", *CONFIG.variants, REAL]
    assert list(table.frame.columns) == ["psnr", "mse", "lpips", "pr", "psd", "high", "fd"]  # no judge: no column
    assert table.frame.loc["original", "pr"] == pytest.approx(50)
    assert table.frame.loc[REAL, "pr"] == pytest.approx(90)
    assert np.isnan(table.frame.loc[REAL, "psnr"])
    assert "n = 10 held-out works in 2 groups, 1 training seed" in table.caption
    assert f"{REAL}: n = 6" in table.caption
    metric = table.metrics["reconstructed/psnr/original"]
    assert (metric.value.mean, metric.n, metric.unit) == (pytest.approx(20), 10, "dB")
    assert table.metrics["reconstructed/fd/all"].unit == "1"
    assert len(table.metrics) == 7 * 4


def test_changes_are_taken_group_by_group(results: report.Results) -> None:
    frame = report.changes(results).frame
    assert list(frame.index) == CONFIG.variants
    assert frame.loc["mse-lpips", "pr"] == "+2 ± 0"  # the groups differ, the change does not


def test_styles_are_in_per_cent_of_the_original_and_only_of_those_that_were_measured(results: report.Results) -> None:
    frame = report.styles(results).frame
    assert list(frame.index) == ["Cubism", "Mosaic"]  # too few works of Woodcut
    assert frame.loc["Cubism", "n"] == 4
    assert frame.loc["Cubism", "pr"].startswith("-50 ")
    assert frame.loc["Cubism", "psnr"].startswith("+20 ")  # dB
    assert pd.isna(frame.loc["Mosaic", "lpips"])


def test_a_work_of_each_style_is_shown_and_the_middle_enlarged(results: report.Results) -> None:
    for item in (report.works(results), report.zoomed(results)):
        rows, columns, side, *_ = contact_sheets.tiles(item.figure).shape
        # at 0.75 inches a side of 16 px is repeated five times, and half of it ten times
        assert (item.name, rows, columns, side) in [("works", 3, 3, 5 * 16), ("zoomed", 3, 3, 10 * 8)]
        plt.close(item.figure)


def test_works_are_beside_what_every_decoder_makes_of_them(results: report.Results) -> None:
    shown = report.browser(results)
    assert shown.rows[:2] == ["the work itself", "the original decoder"]
    assert len(shown.rows) == 2 + len(CONFIG.variants)
    assert list(shown.columns[:4]) == ["Cubism 1", "Mosaic 1", "Woodcut 1", "Cubism 2"]  # in turn
    assert len(set(shown.columns)) == len(shown.columns) == results.n_works
    plt.close("all")


def test_losses_are_means_of_the_first_and_last_fifth_without_terms_that_no_variant_has(
    results: report.Results,
) -> None:
    optimisation = CONFIG.optimisation.model_copy(update={"steps": 5})
    longer = CONFIG.model_copy(update={"optimisation": optimisation})
    history = pd.DataFrame({"step": [1, 3, 5, 5], "mse": [8.0, 4.0, 2.0, 1.0]}).assign(decoder="all")
    table = report.losses(replace(results, config=longer, history=history))
    assert table.frame.loc["all"].to_dict() == {("mse", "first fifth"): 8.0, ("mse", "last fifth"): 1.5}
    assert "5 steps of" in table.caption


def test_decoders_are_named_with_their_weights_and_the_network_of_the_loss(results: report.Results) -> None:
    table = report.decoders(results)
    assert table.frame.loc["all", "ffl"] == CONFIG.decoders["all"].ffl
    assert "`trunk`" in table.caption
    assert "all-01234567" in report.frozen(results).text


def test_an_exchanged_decoder_is_recorded_with_its_interval_and_n(results: report.Results) -> None:
    table = report.exchanged(results)
    assert set(table.frame.columns) == set(DISTANCES)
    assert list(table.frame.index.unique("start")) == [WHITE, CORRECTED]
    assert len(table.frame) == 2 * 2 * len(CONFIG.variants)
    assert table.frame.loc[("rank8-mixed", 4.0, WHITE, "all"), "fd"] == "+1 ± 0"
    assert table.frame.loc[("rank8-mixed", 4.0, CORRECTED, "all"), "fd"] == "-2 ± 0"
    assert table.metrics["fd/rank8-mixed+all/guidance-4/corrected"].value.mean == pytest.approx(-2)
    metric = table.metrics["pr/untuned+mse/guidance-4"]
    assert (metric.value.mean, metric.n) == (pytest.approx(10), 6)
    assert "n = 6 pictures a cell in 2 repeats, 1 training seed" in table.caption


def test_generated_pictures_stand_below_real_ones(results: report.Results) -> None:
    frame = report.generated(results).frame
    assert list(frame.index[:3]) == [(name, "", "", "") for name in REFERENCE_ROWS]
    assert list(frame.index[3:5]) == [("untuned", "4", WHITE, "original"), ("untuned", "4", WHITE, "all")]
    assert len(frame) == 3 + 2 * 2 * 2
    assert frame.loc[("untuned", "4", WHITE, "all"), "fd"].startswith("11 ± ")
    assert frame.loc[("untuned", "4", CORRECTED, "all"), "fd"].startswith("8 ± ")


def test_decoders_that_help_from_one_start_alone_are_named(results: report.Results) -> None:
    text = report.disagreements(results).text
    assert "FD of rank8-mixed+all@1/4 against rank8-mixed@1/4: +1 (+1 to +1) from white noise, -2 (-2 to -2)" in text
    assert "what turns" not in text  # the parts of FD were not measured


def test_the_floor_of_a_decoder_is_that_of_other_works(results: report.Results) -> None:
    assert report.floors(results) == pytest.approx({name: 0.9 * value for name, value in DISTANCES.items()})
    frame = report.sensitivity(results).frame
    assert set(frame["saturated", WHITE]) == {"yes"}  # nine tenths
    assert frame.loc["PR", ("works", "training")] == frame.loc["PR", ("floor", "")]


def test_the_poster_stands_beside_ours_in_per_cent(results: report.Results) -> None:
    blocks, changes = report.poster(results)
    assert isinstance(blocks, Table)
    assert isinstance(changes, Table)
    row = blocks.frame.loc[("mixed", 4.0, "FD")]
    assert list(row.iloc[:2]) == ["50.00 ± 2.00", "60.00 ± 2.00"]
    assert row["here, with"].startswith("11 ± ")
    numbers = changes.frame.loc[("mixed", 4.0)]
    assert numbers[["FD paper", "FD here", "PSD paper", "PSD here"]].tolist() == pytest.approx([20, 10, 0.1, 0.02])
    assert numbers["FD corrected"] == pytest.approx(-20)


def test_without_a_model_of_the_poster_there_is_a_sentence(results: report.Results) -> None:
    (sentence,) = report.poster(replace(results, config=CONFIG.model_copy(update={"models": ["untuned"]}), poster={}))
    assert isinstance(sentence, Text)
    unmeasured = replace(results, redecoded=generated(["untuned+all@1/4"]))
    assert isinstance(report.poster(unmeasured)[0], Text)


def test_the_last_variant_is_shown_where_none_has_the_whole_loss(results: report.Results) -> None:
    config = CONFIG.model_copy(update={"variants": ["mse", "mse-lpips"]})
    fewer = replace(results, config=config)
    assert fewer.main == "mse-lpips"
    assert report.headline(fewer)[-1] == "reconstructed/psnr/mse-lpips"
    assert fewer.decoders == ["original", "mse", "mse-lpips"]


def test_evidence_of_reconstructions_is_over_groups_of_works(results: report.Results) -> None:
    evidence = report.evidence(results)
    assert (evidence.counts[""], evidence.counts["B2"]) == (6, 10)
    assert evidence.over_of("B2") == evidence.over_of("N2") == "intervals over 2 groups of works, 1 training seed"
    assert evidence.over_of("B1") == "intervals over repeats of sampling, for the adapters at hand"
    assert {("mse", "original"), ("fd", "untuned@1/4"), ("fd", "rank8-mixed+all@1/4")} <= set(evidence.values)


@pytest.mark.parametrize(("falling", "said"), [(1, "supported"), (2, "reversed")])
def test_high_frequencies_are_judged_in_nine_of_ten_styles_and_over_all(
    results: report.Results, falling: int, said: str
) -> None:
    """Squared error raises the error by 0.2, but for some styles where it lowers it."""
    styles = [part.measure.partition("/")[2] for part in claims.findings("vae_decoder")["N2"].parts]
    rows = [
        row("high", name, [value - 0.1, value + 0.1], n=number, style=style)
        for number, style in enumerate(styles, 10)
        for name, value in (("original", 0.5), ("mse", 0.3 if number < 10 + falling else 0.7))
    ]
    evidence = report.evidence(replace(results, by_style=pd.DataFrame(rows)))
    (verdict,) = verdicts.decide(claims.findings("vae_decoder"), evidence)
    assert evidence.counts_of(verdict) == [*range(10, 20), 10]
    assert verdict.holding == 10 - falling + 1
    assert verdict.verdict == said


def test_the_headline_was_recorded(results: report.Results) -> None:
    assert set(report.headline(results)) <= set(report.reconstructions(results).metrics)


def test_cards_of_claims_and_of_the_finding_are_shown_from_the_pages_evidence(
    results: report.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "load", lambda params, workspace: results)
    monkeypatch.setattr(report, "headline", lambda results: [])
    study = Study("vae_decoder", results.params, Workspace(tmp_path))
    for name in ("N2", "B1", "B2"):
        study.verdict(name)
    study.plan()
    study.finish()
    content = json.loads((study.folder / "metrics.json").read_text())
    assert (list(content["findings"]), sorted(content["verdicts"])) == (["N2"], ["B1", "B2"])
    rows = pd.read_csv(study.folder / "tables" / "claim_N2_groups.csv")
    assert rows["part"].unique().tolist() == [11]
    assert len(rows) == rows["part"].nunique() * 2  # groups
