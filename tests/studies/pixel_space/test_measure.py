"""What is measured of pictures, of pairs of them, of restored works and of winners is what its name says."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from atelier import params
from atelier.data.painter import paint_corpus
from atelier.evaluation.groups import group, reference_of
from atelier.evaluation.judges import Judges
from atelier.metrics import alignment
from atelier.metrics.masked import apart
from atelier.models import defect_judge, evaluator
from atelier.sampling import store
from atelier.studies.pixel_space import compared, measure, winners
from atelier.studies.pixel_space.choose import truth
from atelier.studies.pixel_space.params import UNTUNED, Config
from atelier.studies.pixel_space.pictures import card, pairs
from atelier.studies.pixel_space.sample import Condition, location_of
from atelier.training.defects import NAMES as DEFECTS
from atelier.workspace import Workspace
from studies.pixel_space.conftest import NAMES, Studied, fewer

GROUPS = ["group0", "group1"]
SEEN = ("fit", "style", "subject")


@pytest.fixture(scope="module")
def works() -> Tensor:
    pixels, _, _ = paint_corpus(24, 0, 5, 64, 1)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="module")
def judge() -> defect_judge.DefectJudge:
    return defect_judge.build("residual", DEFECTS, 1).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def seer() -> evaluator.Evaluator:
    classes = {name: ["Mosaic", "Woodcut"] for name in evaluator.ATTRIBUTES}
    return evaluator.build(classes, ["a boat at night", "two cats"], 1).eval()


@pytest.fixture(scope="module")
def tables(studied: Studied) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of the stage, killed at its end and run again, without anything being measured twice."""
    config, workspace = studied
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "pair_table", killed)
        with pytest.raises(KeyboardInterrupt):
            measure.main(config, workspace)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("painted", "of_works", "mirrored", "restored_rows", "winner_errors"):
            patch.setattr(measure, name, killed)
        measure.main(config, workspace)
    assert not list(workspace.scratch.glob("measures-pixel_space*"))
    return measure.load(workspace.measures)


def killed(*_: object) -> None:
    raise KeyboardInterrupt


# ------------------------------------------------------------------------------------------------ the stage


def test_every_cell_is_measured_and_no_other(studied: Studied, tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    table, _ = tables
    assert set(table["cell"]) == measure.cells(studied.params)
    assert not table.duplicated(["measure", "cell"]).any()
    assert np.isfinite(table[["whole", *GROUPS]].to_numpy()).all()
    of = table.groupby("cell")["measure"].agg(set)
    drawn = {"fd", "kd", "fd_rec", "psd", "high", "high_rec", "top", "defects", *(f"defect_{x}" for x in DEFECTS)}
    for cell in (UNTUNED, "both", "dpo-latent-corrected", "share-30", "real", "returned", "real-returned"):
        assert drawn <= of[cell], cell
        assert not {"fit", "subject", "style"} & of[cell]  # there is no evaluator in this world
    restored = {"high_inside", "high_outside", "top_inside", "top_outside"}
    for cell in (UNTUNED, *NAMES):
        assert restored <= of[cell], cell
    assert not restored & of["both-corrected"]
    assert [cell for cell in of.index if "winner_error" in of[cell]] == ["dpo-latent", "nothing"]
    outcomes = {"win_defects", "tie_defects", "lose_defects", "net_defects"}
    for cell in ("both-over-latent", "both-over-untuned", "both-over-latent-corrected", "share-30-over-untuned"):
        assert of[cell] == outcomes
    assert "share-30-over-untuned-corrected" not in of


def test_defects_are_those_that_the_measuring_judge_sees_in_the_files(
    studied: Studied, tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    config, workspace = studied
    judge = defect_judge.load(workspace.named(Config.of(config).judges) / "measuring")
    assert judge.kind == "residual"
    row = tables[0].query("measure == 'defects' and cell == 'both-corrected'").iloc[0]
    location = location_of(config, Condition("both", "corrected"))
    shown, listed = store.read(location.folders(workspace.samples, [0, 1]))
    scores = judge.score(shown.load() / 255).double().numpy()
    assert row["whole"] == pytest.approx(scores.mean(), rel=1e-6)
    assert row["n"] == len(shown)
    for number, repeats in enumerate(config.protocol.groups):  # a mean's pseudo-values are the groups' means
        assert row[f"group{number}"] == pytest.approx(scores[listed["repeat"].isin(repeats)].mean(), rel=1e-6)


def test_pairs_are_of_one_prompt_and_noise_and_ties_are_the_judges_noise(
    studied: Studied, tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    config, workspace = studied
    judge = defect_judge.load(workspace.named(Config.of(config).judges) / "measuring")

    def scores(name: str) -> np.ndarray:
        shown, _ = store.read(location_of(config, Condition(name)).folders(workspace.samples, [0, 1]))
        return judge.score(shown.load() / 255).double().numpy()

    shown, _ = store.read(location_of(config, Condition(UNTUNED)).folders(workspace.samples, [0, 1]))
    width = np.quantile(np.abs(scores(UNTUNED) - judge.score(shown.load().flip(-1) / 255).double().numpy()), 0.95)
    gap = scores("latent") - scores("both")
    found = tables[0].query("cell == 'both-over-latent'").set_index("measure")["whole"]
    assert found["win_defects"] == pytest.approx((gap > width).mean())  # both has fewer
    assert found["lose_defects"] == pytest.approx((gap < -width).mean())
    assert found["win_defects"] + found["tie_defects"] + found["lose_defects"] == pytest.approx(1)
    assert found["net_defects"] == pytest.approx(found["win_defects"] - found["lose_defects"])


def test_the_table_of_pairs_has_every_pair_of_main_variants_once(
    studied: Studied, tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    table, outcomes = tables
    whole = outcomes[outcomes["group"] == "whole"]
    assert len(whole) == 2 * 6  # starts, pairs of the base and three variants
    assert not outcomes.duplicated(["measure", "start", "A", "B", "group"]).any()
    np.testing.assert_allclose(outcomes[["win", "tie", "lose"]].sum(1), 1)
    assert set(outcomes["group"]) == {"whole", "0", "1"}
    one = whole.query("A == 'both' and B == 'latent' and start == 'white'").iloc[0]
    same = table.query("cell == 'both-over-latent'").set_index("measure")["whole"]
    assert (one["win"], one["lose"]) == pytest.approx((same["win_defects"], same["lose_defects"]))
    assert one["n"] == len(studied.params.protocol.all_repeats) * Config.of(studied.params).pictures
    net = one["win"] - one["lose"]
    assert one["error"] == pytest.approx(((one["win"] + one["lose"] - net**2) / one["n"]) ** 0.5)


def test_without_masks_nothing_is_said_of_restored_works(
    studied: Studied, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "is_restored", lambda folder: False)
    assert measure.restored_rows(*studied, UNTUNED).empty


# ------------------------------------------------------------------------------------------------ scores


def test_fit_is_the_evaluators_log_probability_of_the_style(
    works: Tensor, judge: defect_judge.DefectJudge, seer: evaluator.Evaluator
) -> None:
    found = measure.scores_of(measure.Judges(judge, Judges(seer), "Woodcut"), works)
    expected = alignment.attributes(seer, works / 255)["art_style"]["Woodcut"]
    np.testing.assert_allclose(found["fit"], expected, rtol=1e-6)
    strengths = judge(works / 255).double().numpy()
    np.testing.assert_allclose(found["defects"], strengths.sum(1), rtol=1e-6)
    np.testing.assert_allclose(found["defect_blur"], strengths[:, DEFECTS.index("blur")], rtol=1e-6)
    known = measure.scores_of(
        measure.Judges(judge, Judges(seer), "Woodcut"), works, alignment.features(seer, works / 255)
    )
    np.testing.assert_allclose(known["fit"], found["fit"], rtol=1e-5)
    for by in (measure.Judges(judge, Judges(), "Woodcut"), measure.Judges(judge, Judges(seer), "Baroque")):
        assert "fit" not in measure.scores_of(by, works)


def test_scores_are_measures_of_their_group(
    works: Tensor, judge: defect_judge.DefectJudge, seer: evaluator.Evaluator
) -> None:
    by, real = (
        measure.Judges(judge, Judges(seer), "Mosaic"),
        reference_of(works[:12], works[12:], works[:12], Judges(seer)),
    )
    part, scores = measure.scored_group(by, group(works[12:], Judges(seer)), works[12:])
    found = measure.of_group(real, part)
    assert found["defects"] == pytest.approx(scores["defects"].mean())
    assert found["fit"] == pytest.approx(scores["fit"].mean())
    assert {"precision", "coverage", "fd_rec"} <= found.keys()


def test_the_high_band_is_above_half_of_the_nyquist_frequency_and_its_error_two_sided(works: Tensor) -> None:
    real = reference_of(works[:12], works[12:], works[:12], Judges())
    rows, columns = np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)
    ring = np.rint(np.hypot(rows, columns) * 64)

    def changed(factor: float, low: float, high: float) -> dict[str, float]:
        made = group(works[:12], Judges())
        scaled = made.spectrum * np.fft.fftshift(np.where((ring > low) & (ring <= high), factor, 1.0))
        return measure.of_group(real, made._replace(spectrum=scaled))

    for factor, log in ((10.0, 1.0), (0.1, -1.0)):
        above = changed(factor, 16, 99)
        assert above["top"] == pytest.approx(log)
        assert above["high"] == above["high_rec"] == pytest.approx(1.0)
        assert changed(factor, 0, 16)["high"] == pytest.approx(0, abs=1e-12)
    both = changed(10.0, 16, 24)["high"], changed(0.1, 24, 32)["high"]
    assert 0 < both[0] < 1
    assert both[0] + both[1] == pytest.approx(1)


def test_a_blurred_background_is_seen_outside_the_subject_alone(works: Tensor) -> None:
    middle = np.zeros((24, 64, 64), bool)
    middle[:, 16:48, 16:48] = True
    blurred = torch.nn.functional.avg_pool2d(works.float(), 5, 1, 2, count_include_pad=False)
    half = torch.where(torch.from_numpy(middle)[:, None], works.float(), blurred).round().to(torch.uint8)
    found = measure.masked_errors(works, half, middle)
    assert found["top_outside"] < -0.5
    assert found["high_outside"] == -found["top_outside"]
    assert found["high_inside"] < 0.1
    other = measure.masked_errors(half, works, middle)  # too sharp counts, too
    assert other["high_outside"] == pytest.approx(found["high_outside"])
    assert other["top_outside"] > 0.5
    same = measure.masked_errors(works, works, middle)
    assert set(same.values()) == {0.0}
    assert set(measure.masked_errors(works, works, middle | True)) == {"high_inside", "top_inside"}
    assert apart(middle, 2)[0].sum() == 24 * 28**2


def test_with_an_evaluator_attributes_and_fit_are_measured_too(
    studied: Studied, judge: defect_judge.DefectJudge
) -> None:
    """And pairs are judged by fit, as by defects."""
    config, workspace = studied
    wanted, style = truth(workspace), str(card(workspace)["style"])
    classes = {name: ["awe", "fear"] for name in evaluator.ATTRIBUTES}
    classes |= {"subject": sorted(set(wanted["subject"])), "art_style": [style, "Other"]}
    seer = evaluator.build(classes, ["a boat at night", "two cats"], 1).eval()
    by = measure.Judges(judge, Judges(seer), style)
    made = {name: measure.painted(config, workspace, by, Condition(name)) for name in (UNTUNED, "both")}
    shown, listed = store.read(location_of(config, Condition("both")).folders(workspace.samples, [0, 1]))
    seen = alignment.attributes(seer, shown.load() / 255)
    found = {name: np.concatenate([part.per_picture[name] for part in made["both"].groups]) for name in SEEN}
    np.testing.assert_allclose(found["fit"], seen["art_style"][style], rtol=1e-5)
    np.testing.assert_array_equal(found["style"], seen["art_style"].idxmax(axis=1) == style)
    asked = wanted.loc[listed["path"], "subject"].to_numpy()
    np.testing.assert_array_equal(found["subject"], seen["subject"].idxmax(axis=1).to_numpy() == asked)
    assert np.isnan(made["both"].groups[0].per_picture["emotion"]).all()
    tie = compared.widths(measure.mirrored(config, workspace, by))
    assert set(tie) == {"defects", "fit"}
    assert all(width > 0 for width in tie.values())
    scores = {f"{name}{end}": made[UNTUNED].scores for name in (UNTUNED, *NAMES) for end in ("", "-corrected")}
    rows = compared.pair_rows(config, scores | {"both": made["both"].scores}, tie)
    gap = found["fit"] - made[UNTUNED].scores["fit"].to_numpy()
    win = rows.query("cell == 'both-over-untuned' and measure == 'win_fit'")["whole"].item()
    assert win == pytest.approx((gap > tie["fit"]).mean())


# ------------------------------------------------------------------------------------------------ pairs


def table(defects: list[float], repeats: list[int]) -> pd.DataFrame:
    places = [place for repeat in dict.fromkeys(repeats) for place in range(repeats.count(repeat))]
    return pd.DataFrame({"repeat": repeats, "place": places, "defects": defects, "fit": [-x for x in defects]})


def test_an_ablation_is_paired_with_the_base_of_its_own_seeds(workspace: Workspace) -> None:
    config = fewer(workspace, {"training_seeds": [0, 1, 2], "repeats": 1}, ablation_seeds=[0, 2])
    three = [0, 0, 1, 1, 2, 2]
    scores = {f"{name}{end}": table([1.0] * 6, three) for name in (UNTUNED, *NAMES[:-1]) for end in ("", "-corrected")}
    scores["share-30"] = table([0.0, 1.0, 2.0, 0.5], [0, 0, 2, 2])
    scores["both"] = table([0.0, 0.0, 1.0, 1.0, 2.0, 1.0], three)
    rows = compared.pair_rows(config, scores, {"defects": 0.5, "fit": 0.5}).set_index(["cell", "measure"])
    short = rows.loc["share-30-over-untuned"]
    assert short.loc["net_defects", "n"] == 4
    assert short.loc["win_defects", ["whole", "group0", "group1"]].tolist() == [0.25, 0.5, 0.0]
    assert short.loc["lose_defects", ["whole", "group0", "group1"]].tolist() == [0.25, 0.0, 0.5]
    assert np.isnan(short.loc["win_defects", "group2"])
    long = rows.loc["both-over-latent"]
    assert long.loc["net_defects", ["group0", "group1", "group2"]].tolist() == pytest.approx([1.0, 0.0, -0.5])
    for name in ("win", "tie", "lose", "net"):  # fit is the negative here, and more of it is better
        assert rows.loc[("both-over-latent", f"{name}_fit"), "whole"] == long.loc[f"{name}_defects", "whole"]


def test_pairs_of_other_prompts_are_refused(config: params.Params) -> None:
    scores = {name: table([0.0] * 4, [0, 1, 2, 3]) for name in (UNTUNED, *NAMES)}
    scores |= {f"{name}-corrected": each for name, each in scores.items()}
    scores["both"] = scores["both"].assign(place=1)
    with pytest.raises(ValueError, match="pairs: two cells' pictures are not of the same prompts and noise"):
        compared.pair_rows(config, scores, {"defects": 0.1})


# ------------------------------------------------------------------------------------------------ winners


def test_the_winners_error_is_the_bases_where_nothing_was_learnt(
    studied: Studied, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, workspace = studied
    changed = winners.winner_errors(config, workspace, "dpo-latent").iloc[0]
    assert changed["whole"] == pytest.approx(np.mean([changed[name] for name in GROUPS]))
    assert all(changed[name] != 0 for name in GROUPS)
    assert changed["n"] == len(pairs(workspace).winner)
    training = Config.of(config).trainings["dpo-latent"]
    monkeypatch.setattr(winners, "tuned_pipeline", lambda *_: winners.start(config, workspace, training))
    unchanged = winners.winner_errors(config, workspace, "dpo-latent").iloc[0]
    assert [unchanged[name] for name in GROUPS] == [0.0, 0.0]


def test_a_denoiser_that_knows_the_noise_has_no_error(studied: Studied, monkeypatch: pytest.MonkeyPatch) -> None:
    config, workspace = studied
    pipeline, preferred = winners.start(config, workspace, Config.of(config).trainings["both"]), pairs(workspace)
    t, eps = winners.draws(config, preferred.winner, 1000, 0)
    assert len(t) == winners.DRAWS * len(preferred.winner) == len({float(x) for x in eps[:, 0, 0, 0]})
    assert winners.mean_error(config, pipeline, preferred, 0) > 0.1
    real, given = pipeline.unet.forward, iter(eps.split(winners.BATCH))

    def knowing(*inputs: object, **named: object) -> object:
        said = real(*inputs, **named)
        said.sample = next(given)
        return said

    monkeypatch.setattr(pipeline.unet, "forward", knowing)
    assert winners.mean_error(config, pipeline, preferred, 0) == 0.0
