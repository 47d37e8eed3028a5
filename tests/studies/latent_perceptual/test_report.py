"""The page of the latent perceptual loss, on made-up measures: what its tables hold, its sentences, its captions."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

import contact_sheets
from atelier import claims, params, verdicts
from atelier.data.pictures import Pictures, in_memory
from atelier.evaluation.intervals import Interval
from atelier.files import write_seal
from atelier.report import figures as report_figures
from atelier.report.items import Figure, Item, Table, Text
from atelier.sampling import store
from atelier.studies.latent_perceptual import explore, measure, report, report_features, report_results
from atelier.studies.latent_perceptual import pictures as sources
from atelier.studies.latent_perceptual.features import DEEP, FACTORS, METHODS, PAIRS
from atelier.studies.latent_perceptual.measure import real_cells
from atelier.studies.latent_perceptual.params import Config, PostTraining, protocol_of
from atelier.studies.latent_perceptual.report_pictures import BANDS, MEASURES
from atelier.studies.latent_perceptual.report_results import CLEAN, Results, change_text
from atelier.studies.latent_perceptual.sample import all_conditions
from atelier.workspace import Workspace

ROOT = Path(__file__).parents[3]
PROFILES = {
    name: params.load(ROOT / "profiles" / f"{name}.yaml")
    for name in ("smoke", "embedded", "study", "paintings", "paper", "paper-lite")
}
EMBEDDED, STUDY = PROFILES["embedded"], PROFILES["study"]
EACH = EMBEDDED.section("latent_perceptual").pictures  # a repeat
STUDY_LONGER = Config.of(STUDY).trainings["plain-longer"].longer
ABLATIONS = {
    "separate": PostTraining(loss="perceptual", norm="separate"),
    "depth-2": PostTraining(loss="perceptual", depth=2),
}
GROUPS = 4
SPREAD = np.array([-0.3, -0.1, 0.1, 0.3])  # of a measure over groups
Measured = Mapping[tuple[str, str], Sequence[float]]


def rows(profile: params.Params, changed: Measured | None = None) -> pd.DataFrame:
    """Every cell that the profile measures, each 10 in all measures and groups, but for what is ``changed``."""
    config, groups = Config.of(profile), len(profile.protocol.groups)
    listed = {
        (name, cell): [10.0] * groups
        for cell in (*real_cells("photographs"), *real_cells("works"))
        for name in (*MEASURES, *BANDS)
    }
    listed |= {
        (name, arm.cell): [10.0] * len(protocol_of(profile, arm.variant).protocol.groups)
        for arm in all_conditions(profile)
        for name in (*MEASURES, *BANDS)
    }
    listed |= {("fd", f"gain-in-{steps}"): [2.0] * groups for steps in config.steps}
    listed |= {
        ("relative_gain", cell): [0.1] * len(protocol_of(profile, changed).protocol.groups)
        for cell, (_, changed) in measure.ages(profile).items()
    }
    listed |= {("unsteadiness", name): [0.5] * groups for name in config.followed}
    listed |= {("log_half_life", name): [3.0] * groups for name in config.followed}
    listed |= {("outliers", DEEP): [0.02] * groups, ("reversed", PAIRS): [0.3] * groups}
    listed |= {key: list(values) for key, values in (changed or {}).items()}
    return pd.DataFrame(
        {"measure": name, "cell": cell, "n": 20 * len(values), "whole": 1 + float(np.mean(values)),
         **{f"group{group}": value for group, value in enumerate(values)}}
        for (name, cell), values in listed.items()
    )  # fmt: skip


def histories(profile: params.Params) -> pd.DataFrame:
    """Two steps of every variant: denoising errors 3 and 1, a term of 1 beside them where there is one."""
    return pd.DataFrame(
        {"step": step, "learning_rate": 0.0, "denoising": error + seed / 3, "variant": name, "training_seed": seed,
         "latent_perceptual": float("nan") if training.loss == "plain" else 1.0}
        for name, training in Config.of(profile).trainings.items()
        for seed in profile.protocol.training_seeds
        for step, error in ((1, 3.0), (2, 1.0))
    )  # fmt: skip


def losses(groups: int) -> pd.DataFrame:
    """Stages of 2, 4 and 5 on a step that counts, a hundredfold on one that does not; the cosine follows the group."""
    return pd.DataFrame(
        {"group": group, "t": t, "sigma": sigma, "stage1": 2.0 * scale, "stage2": 4.0 * scale, "stage3": 5.0 * scale,
         "loss": 3.0, "cosine": 0.5 + group / 10}
        for group in range(groups)
        for t, sigma, scale in ((10, 0.1, 1.0), (900, 9.0, 100.0))
    )  # fmt: skip


def cosines(perceptual: Sequence[float], reweighted: Sequence[float]) -> pd.DataFrame:
    """Of both losses' gradients with the denoiser's, two batches a group."""
    listed = [
        (group, batch, name, "denoising", value)
        for name, values in {"perceptual": perceptual, "reweighted": reweighted}.items()
        for group, value in enumerate(values)
        for batch in range(2)
    ]
    return pd.DataFrame(listed, columns=["group", "batch", "of", "against", "cosine"])


def interpolations(groups: int) -> pd.DataFrame:
    """Two works a group; nearest is farther as a latent everywhere, and nearer as a picture in one work of the two."""
    error = {"nearest": 3.0, "bilinear": 2.0, "bicubic": 1.0}
    return pd.DataFrame(
        {"group": group, "picture": work, "method": method, "factor": factor, "latent_error": error[method],
         "distance": 0.1 if method == "nearest" and work == 0 else 0.5}
        for group in range(groups)
        for work in range(2)
        for method in METHODS
        for factor in FACTORS
    )  # fmt: skip


def spectra(profile: params.Params, power: Mapping[str, float]) -> pd.DataFrame:
    """Rings of power 4 for held-out pictures and every cell, but for those of ``power``."""
    listed = [("frequency", 0, [0.0, 1.0, 2.0, 4.0])]
    listed += [(f"held-out {kind}", 0, [9.0, 4.0, 4.0, 4.0]) for kind in ("photographs", "works")]
    listed += [
        (arm.cell, group, [9.0] + [power.get(arm.cell, 4.0)] * 3)
        for arm in all_conditions(profile)
        for group in range(len(protocol_of(profile, arm.variant).protocol.groups))
    ]
    return pd.DataFrame(
        {"cell": cell, "group": group, **{f"ring{ring}": value for ring, value in enumerate(values)}}
        for cell, group, values in listed
    )


def results(profile: params.Params = EMBEDDED, changed: Measured | None = None, **fields: object) -> Results:
    """A page's results, with two pictures a row and features of three stages of 8, 16 and 32 elements a side."""
    config, groups = Config.of(profile), len(profile.protocol.groups)
    pictures = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    made = Results(
        params=profile,
        config=config,
        latent_side=8,
        kind="painted photographs",
        n_held_out={"photographs": 300, "works": 250},
        weights={
            name: [None if one.loss == "plain" else 0.125] * len(protocol_of(profile, name).protocol.training_seeds)
            for name, one in config.trainings.items()
        },
        history=histories(profile),
        rows=rows(profile, changed),
        spectra=spectra(profile, {"lpl": 2.0}),
        losses=losses(groups),
        gradients=cosines([0.4] * groups, [0.6] * groups),
        outliers=pd.DataFrame(
            {"group": group, "stage": stage, "down": down, "maps": 50, "masked": 10 * group, "far": group,
             "farthest": 20.0 + group} for group in range(groups) for stage, down in ((1, 8.0), (2, 2.0))
        ),
        interpolated=interpolations(groups),
        maps=[torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side)) for side in (8, 16, 32)],
        decoded=dict.fromkeys((CLEAN, "nearest, 1.3"), pictures),
        browsed=contact_sheets.browsed(config.names, pictures),
        post_trainings=pd.DataFrame({"data": ["ImageNet"], "resolution": [256], "steps": [9], "fid_without": [10.0],
                                     "fid_with": [8.0]}),
        parameterisations=pd.DataFrame(
            {"epsilon": [4.5], "epsilon_with": [3.8], "v_prediction": [4.6], "v_prediction_with": [3.9],
             "flow_prediction": [4.7], "flow_prediction_with": [4.0]}, index=pd.Index(["fid"], name="measure")),
    )  # fmt: skip
    return replace(made, **fields)


def items(page: Results) -> Iterator[Item]:
    """Everything that the notebook shows."""
    for name in report.__all__:
        if name not in ("Results", "evidence", "floors", "headline", "load"):
            shown = getattr(report, name)(page)
            yield from shown if isinstance(shown, list) else [shown]


def having(profile: params.Params, more: Mapping[str, PostTraining]) -> params.Params:
    """A profile that trains these, too."""
    section = Config.of(profile)
    trainings = {**section.trainings, **more}
    changed = section.model_copy(update={"variants": [*section.variants, *more], "trainings": trainings})
    return profile.model_copy(update={"latent_perceptual": changed})


ABLATED = having(EMBEDDED, ABLATIONS)


def without(profile: params.Params, *variants: str) -> params.Params:
    """A profile that does not train these."""
    section = Config.of(profile)
    trainings = {name: one for name, one in section.trainings.items() if name not in variants}
    followed = [name for name in section.followed if name in trainings]
    listed = {key: [name for name in getattr(section, key) if name in trainings] for key in ("variants", "ablations")}
    changed = section.model_copy(update={**listed, "trainings": trainings, "followed": followed})
    return profile.model_copy(update={"latent_perceptual": changed})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few maps of noise; no figure stays open."""
    monkeypatch.setattr(report_features, "WHITE_MAPS", 10)
    yield
    plt.close("all")


# ------------------------------------------------------------------------------------------------ the whole page


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_has_its_page(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_figures, "contact_sheet", lambda *_, **__: plt.figure())
    page = results(PROFILES[name])
    shown = list(items(page))
    names = [(type(item), item.name) for item in shown if not isinstance(item, Text)]
    assert len(set(names)) == len(names)
    recorded = [metric for item in shown for metric in item.metrics]
    assert len(set(recorded)) == len(recorded), "recorded twice"
    assert set(report.headline(page)) <= set(recorded)
    assert {f"fd/{variant}" for variant in page.config.names} <= set(recorded)


def test_a_profile_of_plain_training_alone_has_a_page() -> None:
    page = results(without(EMBEDDED, "lpl", "reweighted"), gradients=cosines([], []))
    shown = [item for item in items(page) if not isinstance(item, Text)]
    assert {"measures", "variants", "browser"} <= {item.name for item in shown}
    assert not {"ablations", "changes", "gradients", "history_term", "spectra_over_plain"} & {x.name for x in shown}
    assert report.effect(page).text.startswith("This profile does not train")
    assert report.answer(page).text.startswith("This profile does not train")
    assert report.headline(page) == ["fd/plain", "direction/cosine"]


def test_evidence_counts_pictures_inspected_ones_and_feature_maps() -> None:
    page = results(STUDY)
    evidence = report.evidence(page)
    assert evidence.counts[""] == page.n == len(STUDY.protocol.all_repeats) * page.config.pictures
    assert evidence.counts["C1"] == [100, 100]  # 20 a group in these measures, of five seeds
    assert evidence.counts["C12"][0] == 50 * page.groups  # maps
    assert evidence.over_of("C1") == "intervals over 5 groups of repeats, 5 training seeds"
    assert evidence.over_of("C11") == "intervals over 5 groups of held-out photographs"
    assert evidence.over_of("C5") == "intervals over 3 groups of repeats, 3 training seeds"
    assert evidence.null_comparisons[0].changed == ["again"]


def test_a_variant_of_fewer_seeds_has_fewer_values_and_they_pair_with_its_baseline() -> None:
    page = results(STUDY, {("fd", "lpl-short"): [9.0, 8.0, 7.0], ("fd", "separate"): [10.0, 9.0, 8.0]})
    assert len(page.values["fd", "lpl"]) == 5
    assert list(page.values["fd", "separate"]) == [10.0, 9.0, 8.0]
    assert page.change("fd", "separate", "lpl-short")[:3] == (1.0, 1.0, 1.0)
    # one picture of a group of 20, however many groups there are
    assert page.resolutions["precision", "lpl"] == pytest.approx(1 / 20)
    assert page.resolutions["precision", "separate"] == pytest.approx(1 / 20)


def test_floors_are_of_reconstructed_pictures() -> None:
    _, held_out, training = real_cells("photographs")
    changed = {("fd", held_out): [3.0] * 5, ("fd_rec", training): [2.0] * 5, ("fd_rec", held_out): [0.0] * 5}
    assert {name: report.floors(results(STUDY, changed))[name] for name in ("fd", "fd_rec", "pr")} == {
        "fd": 3.0,
        "fd_rec": 2.0,
        "pr": 10.0,
    }


def test_a_loss_that_helps_is_supported() -> None:
    nearer = [7.9, 8.0, 8.0, 8.0, 8.1]
    evidence = report.evidence(results(STUDY, {("fd_rec", "lpl"): nearer}))
    known = {name: claim for name, claim in claims.load("latent_perceptual").items() if name in ("C1", "C7")}
    decided = {verdict.claim: verdict for verdict in verdicts.decide(known, evidence)}
    interval = next(each.compared.interval for each in decided["C1"].findings if each.part.changed == ["lpl"])
    assert interval.mean == pytest.approx(-2.0)
    assert interval.high < 0
    assert decided["C1"].verdict != verdicts.REVERSED


@pytest.mark.parametrize(
    ("interval", "digits", "text"),
    [
        (Interval(1.23456, 0.5, 1234.5, 4), 3, "+1.23 (+0.5 to +1230)"),
        (Interval(-0.0004, -1.26, 1e-13, 4), 2, "-0.0004 (-1.3 to +0)"),
        (Interval(-1e-14, -1e-14, -1e-14, 4), 3, "+0 (alike)"),
    ],
)
def test_changes_in_words(interval: Interval, digits: int, text: str) -> None:
    assert change_text(interval, digits) == text


# ------------------------------------------------------------------------------------------------ training


def test_variants_lists_the_settings_that_a_loss_uses() -> None:
    table = report.variants(results(STUDY))
    assert list(table.frame.loc["plain", ["kind", "loss", "tau", "share"]]) == ["base", "plain", "", ""]
    assert list(table.frame.loc["reweighted", ["depth", "tau", "share"]]) == ["", "4.0", "0.2"]
    assert table.frame.loc["depth-2", "depth"] == "2"
    assert table.frame.loc["plain-longer", "steps"] == str(round(1000 * STUDY_LONGER))
    assert table.frame.loc["lpl-older", "steps"] == "200 + 500"
    assert list(table.frame.loc["lpl-older", ["seeds", "learns"]]) == ["3", "photographs"]
    assert list(table.frame.loc["lpl-works", ["seeds", "learns"]]) == ["5", "works"]
    assert "the whole denoiser, on painted photographs" in table.caption
    assert not {"seeds", "learns"} & set(report.variants(results()).frame)  # one seed, and no works
    # the term is 1, the denoising error 2 to 2 + 4/3 by seed
    assert table.frame.loc["lpl", "measured share"] == f"{1 / (1 + 2 + 2 / 3):.2f}"
    assert table.frame.loc["lpl", "weight"] == "0.125"
    assert "5 training seeds" in table.caption


def test_history_is_the_first_seeds_with_ten_digits() -> None:
    page = results(STUDY)
    page.history.loc[page.history["variant"] == "lpl", "denoising"] = 1 / 3
    data = report.history(page)
    lines = data.csv().splitlines()
    assert lines[0] == "variant,step,learning_rate,denoising,latent_perceptual"
    assert lines[1:3] == ["plain,1,0,3,", "plain,2,0,1,"]
    assert "lpl,1,0,0.3333333333,1" in lines
    assert len(lines) == 1 + 2 * len(page.config.names)


def test_the_term_is_drawn_where_a_variant_has_it() -> None:
    page = results()
    assert [figure.name for figure in report.curves(page)] == ["history", "history_term"]
    plain = replace(page, history=page.history.query("variant == 'plain'").drop(columns="latent_perceptual"))
    assert [figure.name for figure in report.curves(plain)] == ["history"]


# ------------------------------------------------------------------------------------------------ what the loss sees


def test_stages_are_of_the_steps_that_count() -> None:
    page = results()
    table = report.stages(page)
    assert list(table.frame["loss"]) == [f"{x:.3f} ({x:.3f} to {x:.3f})" for x in (2, 4, 5)]
    assert list(table.frame["over the stage before"]) == ["", "2.00 (2.00 to 2.00)", "1.25 (1.25 to 1.25)"]
    assert list(table.frame["weight"]) == ["1", "0.5", "0.25"]
    assert set(table.metrics) == {"stage/stage1", "stage/stage2", "stage/stage3", "stage/stage2/ratio",
                                  "stage/stage3/ratio"}  # fmt: skip
    assert "n = 8 held-out photographs in 4 groups" in table.caption
    assert report.premise(page).text.endswith("in 1 of 2 stages.")


def test_a_stage_of_the_same_side_is_no_doubling() -> None:
    page = results()
    page = replace(page, maps=[page.maps[0], page.maps[1], page.maps[1]])
    assert "stage/stage3/ratio" not in report.stages(page).metrics
    assert report.premise(page).text.endswith("in 1 of 1 stages.")


def test_separate_statistics_do_not_see_scaled_features() -> None:
    table = report.shifted(results())
    assert table.metrics["shifted/separate"].value == pytest.approx(0.0, abs=1e-9)
    assert table.metrics["shifted/predicted"].value > 0.1
    assert table.metrics["shifted/predicted"].n == 2


def test_direction_is_of_the_steps_that_count() -> None:
    page = results()
    figure = report.direction(page)
    assert figure.metrics["direction/cosine"].value.mean == pytest.approx(0.65)
    assert "steps up to 10 of these count" in figure.caption


def test_gradients_are_compared_where_there_are_any() -> None:
    (table,) = report.gradients(results())
    assert table.frame.loc[("perceptual", "denoising"), "cosine"] == "0.40 (0.40 to 0.40)"
    assert table.metrics["gradient/reweighted/denoising"].n == 2 * GROUPS
    assert "n = 8 batches of 16" in table.caption
    assert report.gradients(results(gradients=cosines([], []))) == []


def test_outliers_are_counted_over_all_groups() -> None:
    table = report.outliers(results())
    assert table.frame.loc["2", "with a masked patch (%)"] == "30.00"
    assert table.frame.loc["2", "beyond 10 deviations (%)"] == "3.00"
    assert table.frame.loc["2", "farthest (deviations)"] == "23.0"
    assert table.metrics["outliers/deep"].n == 200  # of stage 2 alone
    assert table.metrics["outliers/deep"].value.mean == pytest.approx(0.02)


def test_masked_elements_are_orange() -> None:
    page = results()
    deep = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    deep[:, 1, 10:13, 10:13] = 100.0
    figure = report.outlier_maps(replace(page, maps=[page.maps[0], deep])).figure
    assert contact_sheets.labels(figure) == ["decoded", "stage 2, channel 1"]
    picture = contact_sheets.tiles(figure)[-1, -1]
    pixel = len(picture) // 32
    assert picture[11 * pixel, 11 * pixel].tolist() == [255, 159, 0]
    assert len(set(picture[0, 0].tolist())) == 1  # grey


def test_reversals_are_shares_of_pictures() -> None:
    page = results()
    table = report.reversals(page)
    assert [table.frame.loc[f"nearest, by {factor:g}", "share of pictures"] for factor in FACTORS] == ["0.50"] * 3
    assert table.metrics["reversed/pairs"].value.mean == pytest.approx(0.3)
    assert "reversal/nearest" not in table.metrics  # not measured here
    listed = report.interpolated(page).frame
    assert listed.loc[("nearest", "3", "2.67"), "squared error of latents"] == "3.000 (3.000 to 3.000)"
    assert listed.loc[("nearest", "3", "2.67"), "perceptual distance"] == "0.300 (0.300 to 0.300)"


# ------------------------------------------------------------------------------------------------ pictures


def test_measures_list_real_pictures_and_what_was_before() -> None:
    white, fixed = report.measures(results(STUDY, {("fd", "lpl"): [6.0, 7.0, 8.0, 9.0, 10.0]}))
    names = list(white.frame.index)
    assert names[:5] == [*real_cells("photographs"), "untuned-plain", "plain"]
    assert names[-2:] == ["again", "again-plain-short"]
    assert names.index("untuned-plain-v") == names.index("plain-v") - 1
    assert not {"untuned-plain-older", "untuned-plain-short", "lpl-works"} & set(names)
    assert white.frame.loc["lpl", "fd"] == 9.0  # of all pictures together
    assert white.frame.loc["lpl", "fd less bias"] == 8.0
    assert white.metrics["fd/lpl"].value.mean == 8.0
    assert white.metrics["fd/lpl"].n == 100
    assert white.metrics["fd/separate"].n == 60
    assert "n = 2500 pictures a row in 5 repeats, 5 training seeds" in white.caption
    assert (
        "or n = 1500 pictures a row in 3 repeats, 3 training seeds, against 300 held-out photographs" in white.caption
    )
    assert list(fixed.frame.index) == [
        f"{name}-corrected" for name in ("untuned-plain", "plain", "lpl", "reweighted", "again")
    ]
    assert "1500" not in fixed.caption


def test_works_have_a_table_of_their_own() -> None:
    changed = {
        ("fd", "lpl-works"): [6.0, 7.0, 8.0, 9.0, 10.0], ("fd", "lpl-works-corrected"): [3.0, 4.0, 5.0, 6.0, 7.0],
    }  # fmt: skip
    measured, changes = report.on_works(results(STUDY, changed))
    assert set(measured.frame.index) >= {*real_cells("works"), "lpl-works", "lpl-works-corrected", "again-plain-works"}
    assert "lpl" not in measured.frame.index
    assert "250 held-out works" in measured.caption
    assert changes.frame.loc["lpl-works", "against"] == "plain-works"
    assert changes.frame.loc["lpl-works", "fd"].startswith("-2 (")
    assert changes.frame.loc["lpl-works", "fd, corrected start"].startswith("-5 (")
    assert report.on_works(results()) == []


def test_a_page_without_photographs_is_one_of_works() -> None:
    page = results(kind="works", n_held_out={"works": 250})
    assert page.noun == "works"
    white, _ = report.measures(page)
    assert list(white.frame.index)[:3] == [*real_cells("works")]
    assert "against 250 held-out works" in white.caption
    assert report.on_works(page) == []
    assert report.answer(page).text.startswith("1. On works, from white noise")


def test_a_measure_that_was_not_taken_is_left_out() -> None:
    page = results()
    lacking = page.rows[
        ~(
            (page.rows["measure"] == "style")
            | (page.rows["cell"] == real_cells("photographs")[0]) & (page.rows["measure"] == "clip")
        )
    ]
    frame = report.measures(replace(page, rows=lacking))[0].frame
    assert "style" not in frame
    assert np.isnan(frame.loc[real_cells("photographs")[0], "clip"])


def test_changes_are_against_plain_of_the_same_kind_and_age() -> None:
    page = results(STUDY, {("fd", "plain-v"): [20.0] * 5, ("fd", "lpl-v"): [15.0, 15.0, 16.0, 17.0, 17.0]})
    figure, table = report.changes(page)
    assert isinstance(figure, Figure)
    assert isinstance(table, Table)
    assert dict(table.frame["against"])["lpl-v"] == "plain-v"
    assert dict(table.frame["against"])["lpl-oldest"] == "plain-oldest"
    assert dict(table.frame["against"])["separate"] == "plain-short"
    assert not {"plain-flow", "lpl-works"} & set(table.frame.index)
    assert table.frame.loc["lpl-flow", "fd, corrected start"] == ""  # a flow has no leak
    assert table.frame.loc["lpl", "fd, corrected start"] == "+0 (alike)"
    assert table.metrics["change/fd/lpl-v"].value.mean == pytest.approx(-4.0)
    assert table.frame.loc["lpl-v", "fd"].startswith("-4 (-5.2")
    assert table.frame.loc["depth-1", "fd"] == "+0 (alike)"
    axis = figure.figure.axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels[-1] == "plain, other noise"
    assert axis.lines[0].get_xdata()[labels.index("lpl-v")] == pytest.approx(-20.0)  # per cent


def test_spectra_are_ratios_without_the_mean() -> None:
    over_real, over_plain = report.spectra(results())
    lines = {line.get_label(): line.get_ydata() for line in over_real.figure.axes[0].lines}
    np.testing.assert_allclose(lines["lpl"], 0.5)
    np.testing.assert_allclose(lines["untuned-plain"], 1.0)
    assert {line.get_label() for line in over_plain.figure.axes[0].lines} >= {"lpl", "reweighted"}
    assert "plain" not in {line.get_label() for line in over_plain.figure.axes[0].lines}


def test_bands_compare_with_plain() -> None:
    table = report.bands(results(changed={("high", "lpl"): 10 + SPREAD, ("high", "plain"): [9.0] * 4}))
    label = BANDS["high"]
    assert table.frame.loc[label, "lpl"] == "10.000"
    assert table.frame.loc[label, "lpl less plain"].startswith("+1 (+0.59")
    assert table.metrics["change/high/lpl"].value.mean == pytest.approx(1.0)
    assert table.frame.loc[label, "lpl less plain, corrected"] == "+0 (alike)"
    assert "untuned-plain less plain" not in table.frame


# ------------------------------------------------------------------------------------------------ ablations


def test_a_grid_is_drawn_from_three_values_on() -> None:
    assert report.ablation_curves(results(ABLATED)) == []  # depths of 2 and 5
    page = results(STUDY, {("fd", "tau-2"): [7.0] * 3, ("fd", "depth-1"): [6.0] * 3})
    figures = {figure.name: figure for figure in report.ablation_curves(page)}
    assert set(figures) == {"ablation_depth", "ablation_tau", "ablation_share"}
    assert "smallest for 2" in figures["ablation_tau"].caption
    axis = figures["ablation_depth"].figure.axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2", "3", "4", "5"]  # not pixels
    assert axis.lines[0].get_ydata()[0] == pytest.approx(-4.0)


def test_ablations_change_one_setting_of_the_main_variant() -> None:
    (table,) = report.ablations(results(STUDY, {("fd", "separate"): [13.0] * 3, ("fd", "plain-short"): [11.0] * 3}))
    names = ["separate", "equal", "depth-1", "depth-2", "depth-3", "depth-4", "pixels", "unmasked"]
    assert list(table.frame.index) == names
    assert table.frame.loc["separate", "changed"] == "norm: separate"
    assert table.frame.loc["pixels", "changed"] == "depth: pixels"
    assert table.frame.loc["separate", "fd less lpl-short's"] == "+3 (alike)"
    assert table.frame.loc["separate", "fd less plain-short's"] == "+2 (alike)"
    assert "n = 1500 pictures a row in 3 repeats" in table.caption
    assert set(table.metrics) == {f"ablation/fd/{name}" for name in names}
    assert report.ablations(results()) == []


def test_gains_by_steps_age_and_average() -> None:
    double = {("unsteadiness", "lpl"): [1.0] * 5, ("unsteadiness", "plain"): [0.5] * 5}
    (table,) = report.gains(results(STUDY, double))
    assert table.frame.loc["in 250 steps", "gain of fd"] == "+2 (alike)"
    assert table.frame.loc["after 1500 steps", "gain, share of plain's fd"] == "+0.1 (alike)"
    assert table.frame.loc["lpl: best half-life, log2", "log2 of steps"] == "+3 (alike)"
    assert table.metrics["unsteadiness/ratio"].value.mean == pytest.approx(1.0)  # log2
    assert table.metrics["unsteadiness/lpl"].n == 40 * 5
    assert table.metrics["gain/gain-after-0"].n == 60
    assert table.metrics["gain/steps/250"].n == 100
    curves = {figure.name: figure for figure in report.followed_curves(results(STUDY))}
    assert "5, 10, 25, 50, 100, 250" in curves["steps"].caption
    assert "n = 500 pictures a row" in curves["steps"].caption
    assert "8, 16, 32, 64, 128, 256" in curves["averages"].caption
    assert "n = 2500 pictures a row" in curves["averages"].caption
    (short,) = report.gains(results())
    assert list(short.frame.index) == ["after 0 steps"]
    assert report.followed_curves(results()) == []


def test_the_papers_parameterisations_stand_beside_ours() -> None:
    changed = {("fd", "lpl"): [8.0] * 5, ("fd", "lpl-v"): [7.0] * 5}
    frame = report.side_by_side(results(STUDY, changed)).frame
    assert list(frame.loc[("epsilon", "fd")]) == ["4.5 to 3.8", "10 to 8", "-2 (alike)"]
    assert frame.loc[("v_prediction", "fd"), "our change"] == "-3 (alike)"
    short = report.side_by_side(results(changed={("fd", "lpl"): [8.0] * 4})).frame
    assert list(short.loc[("v_prediction", "fd")]) == ["4.6 to 3.9", "not trained", "not trained"]
    assert report.paper_post_training(results()).frame["change (%)"].tolist() == [pytest.approx(-20.0)]


# ------------------------------------------------------------------------------------------------ sentences


@pytest.mark.parametrize(
    ("with_loss", "sentence"),
    [
        (8 + SPREAD, "the loss lowers fd (-2 (-2.4"),
        (12 + SPREAD, "the loss raises fd (+2 (+1.59"),
        (10 + SPREAD, "the loss is not seen to change fd (+0 (-0.41"),
    ],
)
def test_five_sentences_answer(with_loss: Sequence[float], sentence: str) -> None:
    changed = {("fd", "lpl"): with_loss, ("fd", "lpl-corrected"): 9 + SPREAD, ("fd", "reweighted"): [9.5] * 4}
    text = report.answer(results(changed={**changed, ("fd", "again"): 10 - SPREAD}))
    lines = text.text.splitlines()
    assert [line[:3] for line in lines] == [f"{number}. " for number in range(1, 6)]
    assert lines[0].startswith(f"1. On painted photographs, from white noise, {sentence}")
    assert "; from noise with the leak it lowers fd (-1 (-1.41" in lines[0]
    assert "% of plain's fd, where the paper has -20 to -20 % of FID; precision changes by +0 (alike)" in lines[1]
    assert lines[2].startswith("3. More weight on little noise, without a decoder, lowers fd (-0.5 (alike))")
    assert "what the decoder sees beside" in lines[2]
    assert lines[3].startswith("4. What that costs is not measured here")
    assert f"over 4 groups of {EACH} pictures, 1 training seed: " in lines[4]
    assert "other noise alone changes it by +0 (-0.41" in lines[4]
    assert text.metrics["answer/fd_per_cent"].value.mean == pytest.approx(10 * (np.mean(with_loss) - 10))


def test_the_price_is_plain_training_for_as_long() -> None:
    line = report.answer(results(STUDY, {("fd", "plain-longer"): [8.0, 8.1, 7.9, 8.0, 8.0]})).text.splitlines()[3]
    assert line.startswith(f"4. In the time that it takes, plain training makes {STUDY_LONGER:g} times the steps, ")
    assert "and the loss is worse than that (+2 (" in line


def test_a_smallest_effect_that_four_of_five_studies_find() -> None:
    """By simulation: of studies with this scatter and such an effect, about 80 % have an interval without 0."""
    line = report.answer(results(changed={("fd", "lpl"): 9 + SPREAD})).text.splitlines()[4]
    effect = float(line.split("would find a change of ")[1].split(" ")[0])
    rng = np.random.default_rng(0)
    studies = rng.normal(effect, SPREAD.std(ddof=1), size=(4000, len(SPREAD)))
    t = studies.mean(1) / (studies.std(1, ddof=1) / len(SPREAD) ** 0.5)
    assert np.mean(t > 3.182) == pytest.approx(0.8, abs=0.03)  # Student's 97.5 % quantile of 3 degrees of freedom


def test_what_plain_training_does_in_words() -> None:
    text = report.effect(results(changed={("fd", "untuned-plain"): [30.0] * 4}))
    assert text.text.startswith("Plain post-training brings the base nearer (-20 (alike)).")
    assert f"{4 * EACH} pictures a row are fewer than the 500" in text.text
    assert "So short a training" not in text.text
    assert text.metrics["change/fd/plain-from-untuned"].value.mean == pytest.approx(-20.0)


def test_a_plain_training_that_changes_nothing_says_little() -> None:
    assert "So short a training says little" in report.effect(results()).text


def test_reasons_are_drawn_where_no_gain_is_seen() -> None:
    changed = {("fd", "reweighted"): 11 + SPREAD, ("fd", "lpl"): 13 - SPREAD, ("fd", "separate"): 9 + SPREAD}
    text = report.reasons(results(ABLATED, changed))
    assert "1. More weight on little noise, without a decoder, raises fd" in text.text
    assert "   The loss is worse than that" in text.text
    assert "   farther from the denoiser's own (-0.2 (alike))." in text.text
    assert "3. Of 2 variants" in text.text  # none is trained for longer: no gap in the numbers
    assert "better than plain: separate (-1 (" in text.text
    conclusion = text.text.splitlines()[-1]
    for reason in ("features do harm", "turns from the denoiser's own", "with separate ones it does better"):
        assert reason in conclusion
    assert text.metrics["gradient/perceptual-less-reweighted/denoising"].n == 2 * GROUPS


def test_a_gain_needs_no_reasons() -> None:
    text = report.reasons(results(changed={("fd", "lpl"): 7 + SPREAD})).text
    assert "The loss is better than that" in text
    assert "No gain is seen" not in text


def test_longer_plain_training_is_a_reason_of_its_own() -> None:
    text = report.reasons(results(STUDY, {("fd", "plain-longer"): [8.0, 8.1, 7.9, 8.0, 8.0]})).text
    assert f"3. The loss is worse than plain for {STUDY_LONGER:g} times the steps" in text
    assert "its time is better spent on plain steps" in text
    assert "4. Of 8 variants" in text


def test_without_a_control_gradients_still_have_their_line() -> None:
    page = results(without(EMBEDDED, "reweighted"))
    page = replace(page, gradients=page.gradients.query("of == 'perceptual'"))
    text = report.reasons(page)
    assert text.text.startswith("1. Cosine of the loss with squared error")
    assert text.metrics == {}


# ------------------------------------------------------------------------------------------------ loading


def test_what_training_left_is_read_by_variant_and_seed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    profile = without(STUDY, *Config.of(STUDY).names[2:])
    assert Config.of(profile).names == ["plain", "lpl"]
    for name in Config.of(profile).names:
        for seed in STUDY.protocol.training_seeds:
            folder = workspace.build / "adapters" / "latent_perceptual" / name / str(seed)
            folder.mkdir(parents=True)
            weight = None if name.startswith("plain") else seed / 4
            (folder / "card.json").write_text(json.dumps({"weight": weight}))
            (folder / "history.csv").write_text(f"step,denoising\n1,{seed}\n")
            write_seal(folder)
    weights = report_results.weights(profile, workspace)
    assert weights["lpl"] == [seed / 4 for seed in STUDY.protocol.training_seeds]
    assert weights["plain"] == [None] * 5
    history = report_results.histories(profile, workspace)
    assert len(history) == 2 * 5
    assert (history["denoising"] == history["training_seed"]).all()


def test_what_is_beside_each_other_learns_the_same_and_is_of_all_its_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base first, then the main variants that learn photographs, and no ablation; from both starts."""
    asked: list[Path] = []

    def read(folders: list[Path]) -> tuple[Pictures, pd.DataFrame]:
        asked.extend(folders)
        return in_memory(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)), pd.DataFrame()

    listed = pd.DataFrame({"path": ["a"]})
    monkeypatch.setattr(store, "read", read)
    monkeypatch.setattr(sources.Sources, "split", lambda *_: listed)
    monkeypatch.setattr(sources, "kind_of", lambda _: sources.PAINTED)
    browsed = report_results.browsed(STUDY, Workspace(Path("root")))
    assert list(browsed.variants)[:3] == [
        "the base, not trained further", "training without the loss", "training with the loss",
    ]  # fmt: skip
    assert not [name for name in browsed.variants if "works" in name or "threshold" in name]
    starts_of = {name: len(cells) for name, cells in browsed.variants.items()}
    assert {n for name, n in starts_of.items() if "flow" not in name} == {2}
    assert {n for name, n in starts_of.items() if "flow" in name} == {1}  # which ends in pure noise: no corrected start
    assert {path.parts[-3] for path in asked if path.parts[-2] == "lpl"} == {str(seed) for seed in range(5)}
    assert browsed.real == "the real photograph"


# ------------------------------------------------------------------------------------------------ the explorer


def explorer() -> explore.Explorer:
    """Two works that are decoded already, by two stages of 2 and 4 channels; estimates are right."""
    stages = [torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(side))
              for channels, side in ((2, 16), (4, 32))]  # fmt: skip
    done = explore.Decoded(torch.zeros(3, 3, 32, 32, dtype=torch.uint8), stages, stages)
    pipeline = SimpleNamespace(vae=SimpleNamespace(decoder=SimpleNamespace(up_blocks=[None])), vae_scale_factor=8)
    noise = torch.tensor([0.1, 0.3, 5.0])
    works = pd.DataFrame({"path": ["a", "b"]})
    decoded = {(work, step): done for work in range(2) for step in range(3)}
    return explore.Explorer(EMBEDDED, Workspace(), pipeline, works, noise, decoded)  # type: ignore[arg-type]


def test_planted_outliers_cost_in_their_stage_alone() -> None:
    plain = explorer().compare(0, 1, explore.Choice(stage=1, channel=2))
    planted = explorer().compare(0, 1, explore.Choice(stage=1, channel=2, planted=3, mask="none"))
    assert plain.weighted == [0.0, 0.0]
    assert planted.weighted[0] == 0.0
    assert planted.weighted[1] > 0.01
    changed = planted.maps[1] - planted.maps[0]
    assert int((changed != 0).sum()) == 9
    masked = explorer().compare(0, 1, explore.Choice(stage=1, channel=2, planted=3))
    assert masked.sides == [16, 32]
    assert not masked.valid.all()
    assert masked.squared.isnan().equal(~masked.valid)


def test_a_sheet_names_what_it_shows() -> None:
    choice = explore.Choice(stage=1, channel=2, planted=3, mask="none")
    figure = explore.drawn(explorer().decode(0, 1).pictures, explorer().compare(0, 1, choice), choice)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[:3] == ["work", "its latent decoded", "its estimate decoded"]
    assert titles[3].startswith("loss of ")
    assert titles[4:6] == ["map 2 of the latent", "map 2 of the estimate"]
    assert titles[6] == "0 of 1024 masked"


def test_the_panel_follows_its_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore, "drawn", lambda *_: plt.figure(figsize=(1, 1)))  # the sheet itself takes a while
    panel = explore.Panel(explorer())
    assert panel.text.value.startswith("step 1, noise 0.3 of signal: counts (threshold 0.5)")
    panel.controls["noise"].value = 3.0
    assert panel.text.value.startswith("step 2, noise 5 of signal: does not count")
    panel.controls["stage"].value = 2
    assert panel.controls["channel"].max == 3
    panel.controls["channel"].value = 3
    panel.controls["stage"].value = 1
    assert panel.controls["channel"].value == 1  # no more than the stage has
    assert {choice.channel for _, _, choice in panel.explorer.sheets} == {0, 1, 3}
    assert bytes(panel.picture.value).startswith(b"\x89PNG")
    panel.choose("too noisy")
    assert "does not count" in panel.text.value
    panel.choose("reset")
    assert (panel.controls["noise"].value, panel.controls["channel"].value) == (0.3, 0)
    assert panel.text.value.startswith("step 1, noise 0.3 of signal: counts")
    assert panel.time.value.startswith("answered in ")


def test_nothing_to_explore_before_the_pipeline_has_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to explore yet"):
        explore.load(EMBEDDED, Workspace(tmp_path))
