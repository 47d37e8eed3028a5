"""Measures of every cell: rewards as they were computed, halves apart, predictions of the accepted law, bounds."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from atelier import claims, verdicts
from atelier.evaluation import tables
from atelier.evaluation.tables import RECONSTRUCTED
from atelier.params import Params
from atelier.sampling.store import read
from atelier.studies.shaping import (
    candidates,
    flow_measure,
    inspect,
    invert,
    noise_law,
    prompts,
    report,
    rewards,
    sample,
)
from atelier.studies.shaping import measure as stage
from atelier.studies.shaping.measure import base_of, choosing, half_of, predicted_shifts, scores_of
from atelier.studies.shaping.params import UNTUNED, Config
from atelier.studies.shaping.sample import Condition, all_conditions, location_of
from atelier.workspace import Workspace

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_cell_is_compared_with_the_base_of_its_solver_and_start(config: Params) -> None:
    section = Config.of(config)
    assert {each.cell: base_of(each) for each in all_conditions(config)}["graft-sde"] == "untuned-sde"
    as_it_is = config.model_copy(update={section.STUDY: section.model_copy(update={"model": "base"})})
    assert {each.cell: base_of(each) for each in all_conditions(as_it_is)}.items() >= {
        "untuned": "untuned",
        "graft": "untuned",
        "graft-corrected": "untuned-corrected",
        "graft-sde": "untuned-sde",
        "policy-corrected": "untuned-sde-corrected",
    }.items()


def test_halves_are_of_works_and_have_every_style(shaped: Workspace, config: Params) -> None:
    paths = [f"{style}/{number:02d}.png" for style in ("a", "b", "c") for number in range(11)]
    half = half_of(reversed([*paths, *paths]))
    assert len(half) == 17
    assert {sum(path.startswith(style) for path in half) for style in ("a", "b", "c")} == {5, 6}
    assert choosing(config, shaped) <= set(prompts.works(config, shaped, prompts.HELD_OUT)["path"])


def test_scores_by_halves_are_the_reward_in_one_and_nothing_in_the_other() -> None:
    judged = {"colour": lambda shown, rows: np.array([1.0, 2, 3]), "style": lambda shown, rows: np.zeros(3)}
    found = scores_of(judged, "colour", None, pd.DataFrame(), np.array([True, False, True]))
    assert found["reward"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(found["reward_choosing"], [1, np.nan, 3])
    np.testing.assert_array_equal(found["reward_deciding"], [np.nan, 2, np.nan])
    assert set(found) == {"reward", "reward_colour", "reward_style", "reward_choosing", "reward_deciding"}


def test_of_few_rewards_there_is_no_bound() -> None:
    """Of ten rewards a half the estimate is all chance: between equal laws it was several nats in one case."""
    generator = np.random.default_rng(0)

    def group(n: int) -> Any:
        chooses = np.arange(n) % 2 == 0
        own = generator.random(n)
        halves = {stage.CHOOSING: np.where(chooses, own, np.nan), stage.DECIDING: np.where(chooses, np.nan, own)}
        return SimpleNamespace(n=n, features=generator.normal(size=(n, 3)), per_picture=halves)

    assert "kl" not in stage.against(group(20), group(20))
    assert 0 <= stage.against(group(400), group(400))["kl"] < 0.05


def test_the_predicted_shift_is_that_of_the_best_candidates(shaped: Workspace, config: Params) -> None:
    shifts, refused = predicted_shifts(config, shaped, "graft")
    for seed, shift in enumerate(shifts):
        table = candidates.listed(candidates.folder(shaped, seed, "ode"))
        best = table.groupby("set")["reward"].max().mean()  # the best of four
        assert shift == pytest.approx(best - table["reward"].mean())
    assert refused == pytest.approx(0.75)
    by_sde, _ = predicted_shifts(config, shaped, "graft-sde")
    assert by_sde.tolist() != shifts.tolist()


def test_the_stage_measures_every_cell(shaped: Workspace, few: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    for variant in (UNTUNED, *Config.of(few).names):
        for seed in few.protocol.training_seeds:
            sample.write(few, shaped, variant, seed)
    real, calls = stage.cell_rows, []

    def killed(*arguments):  # type: ignore[no-untyped-def]
        calls.append(arguments[4].cell)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(stage, "cell_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        stage.write(few, shaped)
    stage.write(few, shaped)
    assert len(calls) == len(all_conditions(few)) + 1  # the one that was cut, again

    inspect.write(few, shaped)
    found = stage.load(few, shaped.measures)
    known = tables.values(found.rows)
    assert stage.cells(few) | {RECONSTRUCTED} <= set(found.rows["cell"])
    condition = Condition("graft", "ode")
    shown, listed = read(location_of(few, condition).folders(shaped.samples, few.protocol.training_seeds))
    asked = listed[["prompt", "path"]].join(
        prompts.works(few, shaped, prompts.HELD_OUT).set_index("path")[["subject", "art_style"]], on="path"
    )
    own = rewards.rewards_of(few, shaped)["colour"](shown, asked)
    for number, repeats in enumerate(few.protocol.groups):
        assert known["reward", "graft"][number] == pytest.approx(own[listed["repeat"].isin(repeats)].mean())
    assert ("fd_base", "graft") in known
    assert ("fd_base", "untuned") not in known
    assert ("predicted_shift", "graft-sde") in known
    assert known["kl_aimed", "graft"][0] == pytest.approx(np.log(4) - 0.75, abs=1e-6)
    share = (known["reward", "graft"] - known["reward", "untuned"]) / known["predicted_shift", "graft"]
    np.testing.assert_allclose(known["shift_share", "graft"], share, rtol=1e-9)
    page_of_what_was_written(few, shaped, known)


def page_of_what_was_written(few: Params, shaped: Workspace, known: tables.Values) -> None:
    """The page, from what the stages above have left and a flow's tables in their stage's format."""
    config = Config.of(few)
    parts = write_flow(few, shaped)
    (shaped.root / "docs").mkdir()
    (shaped.root / "docs" / "papers").symlink_to(ROOT / "docs" / "papers")
    page = report.load(few, shaped)
    assert list(page.browsed.variants)[:3] == ["the untuned base", "the untuned base, stochastic sampler", "GRAFT"]
    assert len(page.browsed.variants) == 2 + len(config.names)
    setting = f"{config.guidance:g}", "white noise"
    assert all(next(iter(cells)) == setting for cells in page.browsed.variants.values())
    stochastic = read(location_of(few, Condition("untuned-sde", "sde")).folders(shaped.samples, [0, 1]))
    shown, listed = page.browsed.variants["the untuned base, stochastic sampler"][setting]
    assert listed.equals(stochastic[1])
    assert shown[:2].load().equal(stochastic[0][:2].load())
    assert page.cards == {name: [{"candidates": 8, "accepted": 2, "rewards": []}] * 2 for name in config.names}
    np.testing.assert_array_equal(page.values["reward", "graft"], known["reward", "graft"])
    assert page.chosen == "pgraft-50"
    assert page.values["noise_p", "flow-8"].tolist() == [pytest.approx(0.02)] * 2
    assert page.interval("flops", "flow-16").mean > page.interval("flops", "flow-8-inc").mean
    assert page.law.empty  # four prompts say nothing
    assert page.parts["part"].tolist() == parts
    decided = verdicts.decide(claims.load(config.STUDY), report.evidence(page))
    assert [verdict.claim for verdict in decided] == ["F1", "F2", "F3", "F4"]
    names = set(report.__all__) - {"Results", "evidence", "headline", "load"}
    assert {name for name in names if not getattr(report, name)(page)} == {"policy", "rounds"}  # of no variant here
    assert "Left out in this profile: pgraft-25" in report.answer(page).text
    plt.close("all")


def write_flow(params: Params, workspace: Workspace) -> list[str]:
    """Tables as ``flow_measure`` writes them, of eight steps; returns the parts of operations."""
    parts = pd.DataFrame(
        {"part": ["denoiser", "corrector", "text encoder", "decoder"], "counted": [4e6, 1e6, 1e6, 2e6],
         "by_hand": [4e6, 1e6, np.nan, np.nan]}
    )  # fmt: skip
    section = Config.of(params)
    flow = section.flow.model_copy(update={"steps": [8]})
    eight = params.model_copy(update={section.STUDY: section.model_copy(update={"flow": flow})})
    rows = [flow_measure.of_operations(eight, parts)]
    rows += [flow_measure.row("fd_rec", cell, 6, 5.0, [4.0, 6.0]) for cell in flow.cells]
    rows += [flow_measure.constant(params, f"noise_p_{name}", "flow-8", 8, 0.01) for name in ("mean", "covariance")]
    rows += [flow_measure.row(f"round_trip_{way}", "flow-8", 8, 1e-4, [1e-4, 2e-4]) for way in ("data", "noise")]
    waves = np.random.default_rng(0).normal(size=(8, 4))
    law = noise_law.by_direction(waves).assign(k=8, channel=0, row=[0, 0, 1, 1], column=[0, 1, 0, 1])
    rates = pd.DataFrame({"k": 8, "step": [0, 1], "picture": 0, "eta_l": [0.5, 1.2], "rate": [0.4, np.nan]})
    written = {
        flow_measure.OUT: pd.concat(rows, ignore_index=True),
        flow_measure.FLOPS: parts,
        flow_measure.NOISE_LAW: law,
        flow_measure.CONVERGENCE: rates[list(invert.COLUMNS)],
    }
    for name, table in written.items():
        tables.write_rows(table, workspace.measures / name)
    return parts["part"].tolist()
