"""The page of shaping, on made-up measures: what its tables hold, its sentences, its verdicts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

import contact_sheets
from atelier import claims, params, verdicts
from atelier.files import read_table
from atelier.methods.partial import signal_and_noise_from
from atelier.report import figures as report_figures
from atelier.report import study as studies
from atelier.report.items import Figure, Item, Table, Text
from atelier.studies.shaping import report
from atelier.studies.shaping.params import UNTUNED, UNTUNED_SDE, Config, corrected
from atelier.studies.shaping.report_arms import MEASURES
from atelier.studies.shaping.report_law import gaussian_means
from atelier.studies.shaping.report_load import PRINTED
from atelier.studies.shaping.report_results import CHOOSING, DECIDING, PAPER, REWARD, SOLVERS, Results
from atelier.workspace import Workspace

ROOT = Path(__file__).parents[3]
STUDY = params.load(ROOT / "profiles" / "study.yaml")
CONFIG = Config.of(STUDY)
GROUPS = len(STUDY.protocol.groups)
SPREAD = np.linspace(-0.01, 0.01, GROUPS)  # of a measure over groups
FLOWS = [f"flow-{steps}{kind}" for steps in (4, 8, 16) for kind in ("", "-inc", "-longer")]
TIMES = (250, 500, 750)
UNSEEN = {"Results", "evidence", "headline", "load"}
Measured = Mapping[tuple[str, str], Sequence[float]]


def having(variants: Sequence[str], rounds: bool = True) -> params.Params:
    """The profile ``study`` with these variants of round one, and with later rounds or without."""
    second, third = (CONFIG.second, CONFIG.third) if rounds else ([], [])
    known = {name: CONFIG.trainings[name] for name in (*variants, *second, *third)}
    fewer = {"variants": list(variants), "second": second, "third": third, "trainings": known}
    return STUDY.model_copy(update={"shaping": CONFIG.model_copy(update=fewer)})


def measures(config: Config, changed: Measured) -> pd.DataFrame:
    """Every cell, with 1 in all measures and groups but for what is ``changed``; three levels, nine flows."""
    names = (UNTUNED, UNTUNED_SDE, *config.names)
    every = (REWARD, CHOOSING, DECIDING, *(f"reward_{name}" for name in config.rewards), *MEASURES)
    listed = {(name, cell): list(1 + SPREAD) for cell in (*names, *map(corrected, names)) for name in every}
    listed |= {("law_p", f"accepted-{name}"): [0.4] * GROUPS for name in ("threshold", "best-of-4", "top-10")}
    listed |= {("shift_share", name): list(0.8 + SPREAD) for name in ("graft", "graft-sde") if name in config.names}
    listed |= {("variance_rank", "levels"): [1.0] * GROUPS}
    listed |= {("gap_slope", name): list(-0.8 + SPREAD) for name in config.names}
    for name in {"kl", "kl_paths", "kl_aimed", "fd_base", "recall_base"}:  # against the base's pictures
        for base in (UNTUNED, UNTUNED_SDE):
            del listed[name, base], listed[name, corrected(base)]
    for at, t in enumerate(TIMES):
        listed["variance", f"t-{t}"] = list(0.2 + 0.3 * at + SPREAD)
        swept = [name for name in ("graft", "pgraft-50") if name in config.names]
        listed |= {("gap", f"{name}-t-{t}"): list(0.9 - 0.2 * at + SPREAD) for name in swept}
    for cell in FLOWS:
        steps = int(cell.split("-")[1])
        listed |= {(name, cell): list(1 + SPREAD) for name in ("fd_rec", "fd", "recall", "near_features")}
        listed["flops", cell] = [steps * 1e9 + (1e9 if cell.endswith("-inc") else 0)] * GROUPS
        if cell.count("-") == 1:
            listed |= {(f"round_trip_{way}", cell): list(1e-5 + 1e-4 * SPREAD) for way in ("data", "noise")}
            listed |= {("convergence", cell): list(0.9 + SPREAD)}
            listed |= {(f"noise_p_{what}", cell): [1e-5] * GROUPS for what in ("mean", "covariance")}
            listed |= {("noise_distance", each): list(1 + SPREAD) for each in (cell, f"{cell}-inc")}
    listed |= {key: list(values) for key, values in changed.items()}
    return pd.DataFrame(
        {"measure": name, "cell": cell, "n": 100 * len(values), "whole": float(np.mean(values)),
         **{f"group{group}": value for group, value in enumerate(values)}}
        for (name, cell), values in listed.items()
    )  # fmt: skip


def law(p: float = 0.4) -> pd.DataFrame:
    """Three rules by both samplers."""
    return pd.DataFrame(
        {"rule": rule, "solver": solver, "k": k, "m": 16, "judges": 16, "candidates": 400_000, "n": 100_000,
         "statistic": 9.0, "dof": 9, "p": p}
        for rule, k in (("threshold", np.nan), ("best-of-4", 1), ("top-10", 2)) for solver in ("ode", "sde")
    )  # fmt: skip


def results(profile: params.Params = STUDY, changed: Measured | None = None, **fields: object) -> Results:
    """A page's results, with two pictures a row."""
    config = Config.of(profile)
    pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    made = Results(
        params=profile,
        config=config,
        rows=measures(config, changed or {}),
        law=law(),
        histogram=pd.DataFrame(
            {"rule": rule, "solver": "ode", "low": at / 2, "high": (at + 1) / 2, "observed": 30.0 + at, "expected": 31}
            for rule in ("threshold", "best-of-4", "top-10") for at in (0, 1)
        ),
        cards={
            name: [{"candidates": 3072, "accepted": 320, "rewards": [0.2, 0.6]}] * GROUPS
            for name in config.names
        },
        browsed=contact_sheets.browsed((UNTUNED, UNTUNED_SDE, *config.names), pictures),
        noise=pd.DataFrame(
            {"k": k, "variance": 1 + at / 10, "p_normal": (at + 0.5) / 4} for k in (4, 8) for at in range(4)
        ),
        parts=pd.DataFrame(
            {"part": ["denoiser", "decoder"], "counted": [1.01e9, 2e9], "by_hand": [1e9, np.nan]}
        ),
        paper=read_table(ROOT / "docs" / "papers" / PAPER, PRINTED),
    )  # fmt: skip
    return replace(made, **fields)


def items(page: Results) -> Iterator[Item]:
    """Everything that the notebook shows."""
    for name in report.__all__:
        if name not in UNSEEN:
            shown = getattr(report, name)(page)
            yield from shown if isinstance(shown, list) else [shown]


def named(page: Results, kind: type[Item], name: str) -> Item:
    (found,) = (item for item in items(page) if isinstance(item, kind) and item.name == name)
    return found


def decided(page: Results) -> dict[str, verdicts.Verdict]:
    known = claims.load("shaping")
    return {verdict.claim: verdict for verdict in verdicts.decide(known, report.evidence(page))}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    with plt.rc_context({"figure.max_open_warning": 0}):
        yield
    plt.close("all")


# ------------------------------------------------------------------------------------------------ the whole page

PAGES = {
    "all": STUDY,
    "first round": having(CONFIG.variants, rounds=False),
    "graft": having(("graft",), rounds=False),
    "policy": having(("policy",), rounds=False),
    "stochastic": having(("graft-sde", "pgraft-50-sde"), rounds=False),
}


@pytest.mark.parametrize("name", PAGES)
def test_whatever_is_trained_has_its_page(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_figures, "contact_sheet", lambda *_, **__: plt.figure())
    page = results(PAGES[name])
    shown = list(items(page))
    names = [(type(item), item.name) for item in shown if not isinstance(item, Text)]
    assert len(set(names)) == len(names)
    recorded = {metric for item in shown for metric in item.metrics}
    assert set(report.headline(page)) <= recorded
    assert {f"reward/{variant}" for variant in page.config.names} <= recorded
    decided(page)


def test_a_page_of_what_was_not_measured_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_figures, "contact_sheet", lambda *_, **__: plt.figure())
    none = pd.DataFrame()
    page = results(law=law()[:0], histogram=results().histogram[:0], cards={}, noise=none, parts=none)
    page = replace(page, rows=page.rows[page.rows["measure"] == REWARD])
    said = "\n".join(item.text for item in items(page) if isinstance(item, Text))
    for what in ("no test of accepted", "inverts no flow", "not tested", "No flow's", "at two levels"):
        assert what in said, what
    assert {verdict.verdict for verdict in decided(page).values()} <= {verdicts.UNMET, verdicts.UNDECIDED}
    assert ["does not measure" in line for line in report.answer(page).text.splitlines()[:4]] == [
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("name", ["all", "graft"])
def test_the_notebook_runs_and_shows_everything(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = results(PAGES[name])
    study = studies.Study("shaping", page.params, Workspace(tmp_path))
    monkeypatch.setattr(studies.Study, "begin", lambda *_: study)
    monkeypatch.setattr(report, "load", lambda *_: page)
    monkeypatch.setattr(studies, "display", lambda *_, **__: None)
    cells = json.loads((ROOT / "notebooks" / "shaping.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    variables: dict[str, object] = {}
    for source in code:
        exec(source, variables)
        assert source.startswith("# papermill") or len(source.splitlines()) <= 8
    written = json.loads((study.folder / "metrics.json").read_text())
    assert list(written["verdicts"]) == [f"F{number}" for number in range(1, 5)]
    assert {each for each in report.__all__ if f"report.{each}(" not in "".join(code)} == UNSEEN
    if name == "all":
        figures = {path.stem for path in (study.folder / "figures").iterdir()}
        drawn = {"browser_01", "accepted", "rewards", "price", "levels", "rounds", "noise_law", "operations"}
        assert figures == drawn | {f"evidence_F{number}" for number in range(1, 5)}


# ------------------------------------------------------------------------------------------------ the answer


def test_every_line_of_the_answer_says_something_of_its_claim() -> None:
    lines = report.answer(results(changed=BETTER)).text.splitlines()
    assert [line[:2] for line in lines[:4]] == [f"F{number}" for number in range(1, 5)]
    assert "0 fail at p = 0.01" in lines[0]
    assert "rises, +0.4 (+0.39" in lines[0]
    assert "80 (79" in lines[0]
    assert "+0.4 (+0.395 to +0.405) beside plain, which nobody selected for" in lines[0]
    assert "pgraft-50, chosen on one half of the prompts, has more reward than GRAFT on the other (+0.2" in lines[1]
    assert "rank correlation 1" in lines[2]
    assert "gap of learning falls with t (-0.8" in lines[2]
    assert "below that of 16 steps without" in lines[3]
    assert "0.562 times the operations" in lines[3]
    assert "second-hand" in lines[4]
    assert len(lines) == 5  # the profile study has every arm
    none = report.answer(results(PAGES["policy"])).text.splitlines()
    assert all("does not measure" in none[number] for number in (1,))
    assert none[5].startswith("Left out in this profile: graft, pgraft-25,")
    assert "policy" not in none[5]


def test_the_answer_turns_with_the_numbers() -> None:
    worse = {(REWARD, "graft"): list(0.6 + SPREAD), ("fd_rec", "flow-8-inc"): list(1.4 + SPREAD)}
    lines = report.answer(results(changed={**BETTER, **worse}, law=law(0.001))).text.splitlines()
    assert "6 fail" in lines[0]
    assert "falls, -0.4" in lines[0]
    assert "above that of 16 steps" in lines[3]


def test_a_change_stands_beside_what_training_alone_changed() -> None:
    """Of arms by the control's sampler and of as many updates; not of the control itself."""
    changed = {(REWARD, "plain"): list(0.7 + SPREAD * 2), (REWARD, "graft"): list(0.9 + SPREAD)}
    changed |= {(REWARD, corrected("plain")): list(0.6 + SPREAD)}
    page = results(changed=changed)
    table, other = (named(page, Table, name) for name in ("arms", "arms_corrected"))
    assert isinstance(table, Table)
    assert isinstance(other, Table)
    assert table.frame.loc["graft", "reward, change"].startswith("-0.1 ")
    assert table.frame.loc["graft", "reward, beside plain"].startswith("+0.2 ")
    assert other.frame.loc["graft-corrected", "reward, beside plain"].startswith("+0.4 ")
    assert table.metrics["selected/reward/graft"].value.mean == pytest.approx(0.2)
    without = [UNTUNED, UNTUNED_SDE, "plain", "graft-sde", "policy", "graft-2"]
    assert set(table.frame.loc[without, "reward, beside plain"]) == {""}


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        ({}, []),
        ({(REWARD, "plain"): list(0.995 + SPREAD[::-1])}, []),
        ({(REWARD, "plain"): list(0.8 + SPREAD * 2)}, ["mean reward -0.2 "]),
        ({(REWARD, "plain"): list(0.8 + SPREAD * 2), ("fd_rec", "plain"): list(3 + SPREAD * 2)}, ["FD +2 "]),
    ],
)
def test_a_control_that_is_not_the_base_is_told(moved: Measured, said: Sequence[str]) -> None:
    texts = [item.text for item in report.rewards(results(changed=moved)) if isinstance(item, Text)]
    assert len(texts) == (1 if said else 0)
    for words in said:
        assert words in texts[0]
        assert SOLVERS["ode"] in texts[0]


@pytest.mark.parametrize("name", ["all", "stochastic", "policy"])
def test_wherever_rewards_stand_so_does_their_sampler(name: str) -> None:
    page = results(PAGES[name], changed=BETTER)
    deterministic, stochastic = SOLVERS.values()
    for item in items(page):
        if isinstance(item, Table) and any(metric.startswith((REWARD, "change/reward")) for metric in item.metrics):
            assert "sampler" in item.frame, item.name
            told = item.frame["sampler"]
            sde = [
                str(cell).removesuffix("-corrected").endswith("-sde") or "policy" in str(cell) for cell in told.index
            ]
            assert list(told) == [stochastic if each else deterministic for each in sde], item.name
    for line in report.answer(page).text.splitlines()[:3]:
        assert "reward" not in line or "does not measure" in line or deterministic in line or stochastic in line, line


# ------------------------------------------------------------------------------------------------ verdicts

BETTER = {
    (REWARD, "graft"): list(1.4 + SPREAD * 0.5),
    (CHOOSING, "pgraft-50"): list(1.2 + SPREAD),
    (DECIDING, "pgraft-50"): list(1.2 + SPREAD * 0.5),
    (REWARD, "pgraft-50"): list(1.5 + SPREAD),
    ("fd_rec", "flow-8-inc"): list(0.7 + 0.5 * SPREAD),
}


def test_what_the_paper_says_would_be_supported() -> None:
    assert {name: verdict.verdict for name, verdict in decided(results(changed=BETTER)).items()} == dict.fromkeys(
        (f"F{number}" for number in range(1, 5)), verdicts.SUPPORTED
    )


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("F1", {(REWARD, "graft"): list(0.6 + SPREAD * 0.5)}),
        ("F1", {("shift_share", "graft"): list(1.8 + SPREAD)}),  # 180 % of what the law predicts
        ("F2", {(DECIDING, "graft"): list(1.4 + SPREAD)}),
        ("F3", {("gap_slope", "graft"): list(0.4 + SPREAD * 0.5)}),
        ("F3", {("variance_rank", "levels"): [-0.5] * GROUPS}),
        ("F4", {("fd_rec", "flow-8-inc"): list(1.4 + SPREAD * 0.5)}),
    ],
)
def test_the_opposite_is_reversed(name: str, changed: Measured) -> None:
    assert decided(results(changed={**BETTER, **changed}))[name].verdict == verdicts.REVERSED


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("F1", {("shift_share", "graft"): list(0.2 + SPREAD)}),  # a fifth of what the law predicts
        ("F2", {(DECIDING, "graft"): list(1.2 + SPREAD)}),
        ("F4", {("fd_rec", "flow-8-inc"): list(1.0 + SPREAD)}),
    ],
)
def test_too_little_is_not_seen(name: str, changed: Measured) -> None:
    assert decided(results(changed={**BETTER, **changed}))[name].verdict == verdicts.NOT_SEEN


@pytest.mark.parametrize("name", ["F2", "F3"])
def test_a_level_that_is_not_above_the_base_has_no_verdict(name: str) -> None:
    """Though it is above GRAFT."""
    changed = {(DECIDING, "pgraft-50"): list(0.8 + SPREAD * 0.5), (DECIDING, "graft"): list(0.5 + SPREAD)}
    verdict = decided(results(changed={**BETTER, **changed}))[name]
    assert verdict.verdict == verdicts.UNMET
    assert verdict.reason is not None
    assert verdict.reason.part.reference == ["untuned"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({("round_trip_data", "flow-8"): list(2e-3 + 1e-3 * SPREAD)}, "ROUND_TRIP_DATA of flow-8"),
        ({("round_trip_noise", "flow-8"): list(2e-3 + 1e-3 * SPREAD)}, "ROUND_TRIP_NOISE of flow-8"),
        ({("convergence", "flow-8"): list(1.3 + SPREAD)}, "CONVERGENCE of flow-8"),
        ({(f"noise_p_{what}", "flow-8"): [0.2] * GROUPS for what in ("mean", "covariance")}, "NOISE_P of flow-8"),
        ({("flops", "flow-8-inc"): [17e9] * GROUPS}, "FLOPS of flow-8-inc against flow-16"),
    ],
)
def test_without_its_conditions_the_flow_has_no_verdict(changed: Measured, reason: str) -> None:
    verdict = decided(results(changed={**BETTER, **changed}))["F4"]
    assert verdict.verdict == verdicts.UNMET
    assert verdict.reason is not None
    assert verdict.reason.part.name.startswith(reason)


def test_one_of_both_tests_of_the_noise_is_enough_and_counts_twice() -> None:
    page = results(
        changed={("noise_p_mean", "flow-8"): [0.9] * GROUPS, ("noise_p_covariance", "flow-8"): [0.004] * GROUPS}
    )
    assert page.interval("noise_p", "flow-8").mean == pytest.approx(0.008)


def test_without_the_law_of_accepted_samples_there_is_no_verdict_on_what_they_teach() -> None:
    page = results(changed={**BETTER, ("law_p", "accepted-best-of-4"): [0.005] * GROUPS})
    verdict = decided(page)["F1"]
    assert verdict.verdict == verdicts.UNMET
    assert verdict.reason is not None
    assert verdict.reason.part.changed == ["accepted-best-of-4"]
    assert decided(page)["F2"].verdict == verdicts.SUPPORTED


def test_the_level_is_chosen_on_one_half_and_judged_on_the_other() -> None:
    best = {(CHOOSING, "pgraft-25"): list(1.3 + SPREAD), (DECIDING, "pgraft-75"): list(9 + SPREAD)}
    page = results(changed=best)
    assert page.chosen == "pgraft-25"
    assert page.values[DECIDING, "pgraft-chosen"] == pytest.approx(1 + SPREAD)
    assert page.values[DECIDING, "pgraft-chosen-corrected"] == pytest.approx(1 + SPREAD)
    assert page.solver_of("pgraft-chosen") == SOLVERS["ode"]
    assert page.partial == ["pgraft-25", "pgraft-50", "pgraft-75"]  # neither x_0 nor the stochastic one


def test_evidence_counts_what_was_measured() -> None:
    evidence = report.evidence(results())
    assert evidence.counts["F4"] == [100 * GROUPS] * 2
    assert evidence.counts["F1"] == [100 * GROUPS] * 3
    assert evidence.over_of("F2") == f"intervals over {GROUPS} groups of repeats, {GROUPS} training seeds"


# ------------------------------------------------------------------------------------------------ tables


def test_the_gaussian_example_is_that_of_the_fact_sheet() -> None:
    means = gaussian_means()
    assert [round(each, 3) for each in means] == [0.0, 1.2, 1.2, 0.998, 0.831]
    frame = report.laws(results()).frame
    assert list(frame.iloc[:, -1]) == ["1.200", "1.200", "0.998", "0.831"]


def test_the_gaussian_example_is_what_samples_give() -> None:
    """Simulated with the schedule of ``methods.partial``: kept states reweighted, then mapped back by both samplers."""
    rng = np.random.default_rng(0)
    x0 = 2 * rng.standard_normal(2_000_000)
    alpha, variance = 0.6, 4.0
    a, b = (float(each) for each in signal_and_noise_from(1.0, 0.0, alpha, (1 - alpha**2) ** 0.5))
    state = a * x0 + b * rng.standard_normal(len(x0))
    at_level = alpha**2 * variance + 1 - alpha**2
    weight = np.exp(0.3 * x0)
    weight /= weight.sum()
    kernel = alpha * variance / at_level
    stretch = (variance / at_level) ** 0.5
    means = gaussian_means()
    assert weight @ x0 == pytest.approx(means.graft, abs=0.01)
    assert weight @ (kernel * state) == pytest.approx(means.stochastic, abs=0.01)
    assert weight @ (stretch * state) == pytest.approx(means.deterministic_x0, abs=0.01)
    assert weight @ (stretch * (x0 / stretch)) == pytest.approx(means.deterministic, abs=0.01)


def test_variants_stand_beside_graft_by_the_same_sampler() -> None:
    page = results(changed={(REWARD, "graft-sde"): list(2 + SPREAD), (REWARD, "pgraft-50-sde"): list(1.5 + SPREAD)})
    frame = named(page, Table, "samplers").frame
    column = "reward less GRAFT's by this sampler"
    assert frame.loc["pgraft-50-sde", column].startswith("-0.5 (-0.5")
    assert frame.loc["pgraft-50", column].startswith("+0 (")
    assert frame.loc["graft", column] == ""
    assert dict(frame["aims, beside GRAFT, at"].items()) == {
        "graft": "", "pgraft-25": "the same law", "pgraft-50": "the same law", "pgraft-75": "the same law",
        "pgraft-50-x0": "another law", "graft-sde": "", "pgraft-50-sde": "a softer law",
    }  # fmt: skip


def test_changes_are_against_the_base_by_the_same_sampler_and_from_the_same_start() -> None:
    bases = {(REWARD, UNTUNED_SDE): list(3 + SPREAD), (REWARD, corrected(UNTUNED)): list(5 + SPREAD)}
    page = results(changed=bases)
    white, moved = named(page, Table, "arms"), named(page, Table, "arms_corrected")
    assert white.frame.loc["graft-sde", "reward, change"].startswith("-2 (-2")
    assert white.frame.loc["graft", "reward, change"].startswith("+0 (")
    assert white.frame.loc[UNTUNED, "reward, change"] == ""
    assert white.frame.loc["graft", "KL of stochastic paths (nats)"].startswith("1 ±")
    assert white.frame.loc["graft", "of the predicted (%)"].startswith("80 (")
    assert moved.frame.loc["graft-corrected", "reward, change"].startswith("-4 (-4")


def test_the_rival_stands_beside_graft_by_its_sampler() -> None:
    table, said = report.policy(results(changed={(REWARD, "policy-fast"): list(2 + SPREAD)}))
    assert isinstance(table, Table)
    assert list(table.frame.index) == ["policy", "policy-slow", "policy-fast", "graft-sde", UNTUNED_SDE]
    assert set(table.frame["sampler"]) == {SOLVERS["sde"]}
    assert table.frame.loc["policy", "rounds of samples"] == str(CONFIG.policy.rounds)
    assert isinstance(said, Text)
    assert (
        "Of 3 settings of the rival, learning rates 0.0001, 0.0003, 0.001, policy-fast has the most reward" in said.text
    )
    (_, said) = report.policy(results(PAGES["policy"]))
    assert isinstance(said, Text)
    assert "one setting here" in said.text
    assert f"of 2 rounds to the last: 0.2 to 0.6, {SOLVERS['sde']}" in said.text
    assert report.policy(results(PAGES["graft"])) == []


def test_rounds_begin_with_the_base() -> None:
    (figure,) = report.rounds(results())
    assert set(figure.metrics) >= {f"round/reward/{number}" for number in range(4)}
    assert report.rounds(results(PAGES["first round"])) == []


def test_accepted_samples_are_tested_by_rule() -> None:
    figure, table = report.accepted(results())
    assert isinstance(figure, Figure)
    assert [axis.get_title() for axis in figure.figure.axes] == [
        f"{rule}, ODE (n = 61)" for rule in ("threshold", "best-of-4", "top-10")
    ]
    assert "best-of-4: the best of 4, A(r) = F(r)^3" in figure.caption
    assert isinstance(table, Table)
    assert list(table.frame["p"]) == [0.4] * 6
    assert list(table.frame["tried as"]) == ["threshold"] * 2 + ["1 of 16"] * 2 + ["2 of 16"] * 2
    assert table.metrics["law_p/top-10/ode"].n == 100_000


def test_levels_are_drawn_by_step_and_by_share() -> None:
    figure, table = report.bias_and_variance(results(changed=BETTER))
    assert isinstance(figure, Figure)
    assert [axis.get_xlabel() for axis in figure.figure.axes] == ["step t", "step t", "share of steps with the adapter"]
    line = figure.figure.axes[2].containers[0].lines[0]
    assert list(line.get_xdata()) == [0.25, 0.5, 0.75, 1.0]
    assert isinstance(table, Table)
    assert list(table.frame.index) == [str(t) for t in TIMES]
    assert table.frame.loc["500", "gap of graft"].startswith("0.7 ±")
    assert "rank correlation 1" in report.ranks(results()).text


def test_what_is_no_bound_and_what_is_weak_evidence_says_so() -> None:
    table = named(results(), Table, "arms")
    columns = [str(column) for column in table.frame.columns if "KL" in str(column)]
    assert columns == ["KL, lower bound (nats)", "KL of stochastic paths (nats)"]
    assert "none for pictures by the deterministic sampler" in str(table.caption)
    assert "falls for any denoiser, the untuned base too" in report.ranks(results()).text
    assert "weak evidence" in report.answer(results()).text.splitlines()[2]
    many = str(report.bias_and_variance(results())[0].caption)
    assert f"another training seed, {SOLVERS['ode']}" in many
    protocol = STUDY.protocol.model_copy(update={"training_seeds": [0], "repeats": GROUPS})
    alone = results(STUDY.model_copy(update={"protocol": protocol}))
    assert f"with one training seed, of the same prompts, {SOLVERS['sde']}" in str(
        report.bias_and_variance(alone)[0].caption
    )


def test_flows_are_ordered_by_kind_and_steps() -> None:
    table = named(results(changed=BETTER), Table, "operations")
    assert list(table.frame.index) == [f"flow-{k}{kind}" for kind in ("", "-inc", "-longer") for k in (4, 8, 16)]
    assert table.frame.loc["flow-8-inc", "GFLOPs a picture"] == "9"
    assert table.frame.loc["flow-8-inc", "fd_rec"].startswith("0.7 ±")
    parts = named(results(), Table, "operations_by_part")
    assert parts.frame.loc["denoiser", "apart (%)"] == pytest.approx(1.0)
    trips = named(results(), Table, "round_trips")
    assert list(trips.frame.index) == ["flow-4", "flow-8", "flow-16"]


def test_all_variants_are_beside_the_base() -> None:
    page = results()
    assert report.browser(page).rows == [UNTUNED, UNTUNED_SDE, *page.config.names]


# ------------------------------------------------------------------------------------------------ the paper's numbers


def test_the_papers_table_is_that_of_its_page() -> None:
    """What the abstract's page prints: task, data, measure, value, rank, in eight rows."""
    printed = results().paper[results().paper["source"] == "abstract page"]
    told = [
        (row["dataset"], row["measure"] if isinstance(row["measure"], str) else "", row["value"], row["rank"])
        for _, row in printed.iterrows()
    ]
    assert [each[:2] for each in told] == [
        ("CelebA-HQ 256x256", "FID"), ("GenAI-Bench", ""), ("T2ICompBench++ (val)", "VQAScore"),
        ("GenEval", "VQAScore"),
        ("LSUN Church 256x256", "FID"), ("QM9", "Mol Stability"), ("PubLayNet (test)", "Alignment"),
        ("PubLayNet (test)", "Alignment"),
    ]  # fmt: skip
    assert [each[2] for each in told if each[2] == each[2]] == [8.02, 76.15, 80.96, 7.26, 0.9261, 7.2, 0.071]
    assert [each[3] for each in told] == [55, 41, 17, 14, 10, 9, 4, 4]


def test_what_is_derived_follows_from_what_is_printed() -> None:
    table = results().paper.set_index(["dataset", "source"])["value"]
    gain = 1 + table["not said", "abstract"] / 100
    for data in ("GenEval", "T2ICompBench++ (val)"):
        assert table[data, "derived"] == pytest.approx(table[data, "abstract page"] / gain, abs=0.006)


def test_second_hand_numbers_are_marked_and_ours_name_their_sampler() -> None:
    frame = report.paper(results(changed=BETTER)).frame
    assert list(frame.loc[["Inverse noise correction"], "source"]) == ["second-hand, from public notes"]
    gain = frame[frame["paper"] == "8.81"].iloc[0]
    assert gain["here"].startswith(f"reward {CONFIG.reward}, pgraft-50, {SOLVERS['ode']}: +50 (")
    assert (
        "8 Euler steps with correction 0.7, 16 without 1" in frame[frame["data"] == "CelebA-HQ 256x256"].iloc[0]["here"]
    )
    assert frame[frame["data"] == "QM9"].iloc[0]["here"] == "not a picture; not run here"
