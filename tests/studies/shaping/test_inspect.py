"""What is looked at by noise level: states lead where they should, shares and gaps are formulas', a kill goes on."""

import numpy as np
import pandas as pd
import pytest
import torch

from atelier.evaluation import tables
from atelier.evaluation.tables import read_rows
from atelier.params import Params
from atelier.sampling.sampler import settled
from atelier.studies.shaping import candidates, learning
from atelier.studies.shaping import inspect as stage
from atelier.studies.shaping import shaped as model
from atelier.studies.shaping.inspect import Part, parts, variance_rows
from atelier.studies.shaping.law_tables import as_measures, chi_squares, histograms
from atelier.studies.shaping.learning import BASE, HELD_OUT, LEARNT, NOISE_ONLY, errors_of, gap_rows, swept
from atelier.studies.shaping.params import Config
from atelier.workspace import Workspace

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def pipeline(shaped: Workspace, config: Params):  # type: ignore[no-untyped-def]
    return settled(model.load(config, shaped), torch.device("cpu"))


# ------------------------------------------------------------------------------------------------ parts


def test_groups_of_one_seed_share_its_candidates_out(config: Params) -> None:
    assert parts(config) == [Part(0, 0, 1), Part(1, 0, 1)]
    protocol = config.protocol.model_copy(update={"training_seeds": [3], "repeats": 3})
    alone = parts(config.model_copy(update={"protocol": protocol}))
    assert alone == [Part(3, 0, 3), Part(3, 1, 3), Part(3, 2, 3)]
    assert sorted(number for part in alone for number in part.numbers(8, 100)) == list(range(8))
    assert [len(part.numbers(8, 2)) for part in alone] == [2, 2, 2]
    assert alone[0].numbers(8, 0) == [0]
    assert [part.numbers(2, 1) for part in alone] == [[0], [1], [0]]  # fewer than groups: shared


# ------------------------------------------------------------------------------------------------ variance


def test_the_kept_states_are_those_of_the_candidates(shaped: Workspace, config: Params, pipeline) -> None:  # type: ignore[no-untyped-def]
    """Continued without noise of their own from just before the end, states give what the candidate became."""
    place = candidates.folder(shaped, 0, "sde")
    found = dict(stage.states_of(config, shaped, pipeline, Part(0, 0, 1), [4, 0]))
    assert list(found) == [0, 1, 2, 3]
    assert torch.equal(found[2], candidates.tensors(place, "state-50")[[4, 0]])
    solver = candidates.painting(config, candidates.listed(place), "sde", (7, "shaping", "candidates", 0)).solver
    table = candidates.listed(place)
    again = stage.continued(
        pipeline, table["prompt"].iloc[[4, 0]].tolist(), found[0], 0, [(7, "shaping", "candidates", 0, 4),
        (7, "shaping", "candidates", 0, 0)], solver,
    )  # fmt: skip
    torch.testing.assert_close(again, candidates.tensors(place, "last")[[4, 0]], rtol=1e-4, atol=1e-4)


def given(config: Config, left: dict[int, float], groups: int, states: int, each: int) -> list[pd.DataFrame]:
    """Rewards of continuations of states, of which a share ``left`` of variance 4 is left at t."""
    generator, found = np.random.default_rng(1), []
    for _ in range(groups):
        rows = []
        for t, share in left.items():
            means = generator.normal(0, np.sqrt(4 * (1 - share)), states)
            values = generator.normal(means[:, None], np.sqrt(4 * share), (states, each)).ravel()
            columns = {f"reward_{name}": values for name in config.rewards}
            columns |= {f"total_reward_{name}": np.full(len(values), 4.0) for name in config.rewards}
            rows.append(
                pd.DataFrame(
                    {
                        "t": t,
                        "state": np.arange(states).repeat(each),
                        "draw": np.tile(np.arange(each), states),
                        **columns,
                    }
                )
            )
        found.append(pd.concat(rows, ignore_index=True))
    return found


def test_rows_of_variance_are_the_shares_that_were_planted(config: Params) -> None:
    section, left = Config.of(config), {900: 0.9, 600: 0.5, 300: 0.1}
    table = variance_rows(section, given(section, left, 3, 400, 8)).set_index(["measure", "cell"])
    for t, share in left.items():
        row = table.loc[("variance", f"t-{t}")]
        assert row["whole"] == pytest.approx(share, rel=0.1)
        assert row[["group0", "group1", "group2"]].mean() == pytest.approx(row["whole"], rel=1e-6)
        of_main = table.loc[(f"left_{section.reward}", f"t-{t}")]
        assert of_main["low"] < 4 * share < of_main["high"]
        assert of_main["n"] == 1200
    assert table.loc[("variance_rank", "levels")][["group0", "group1", "group2"]].tolist() == [1, 1, 1]
    wrong = variance_rows(section, given(section, {900: 0.1, 600: 0.5, 300: 0.9}, 2, 400, 8))
    assert wrong.set_index(["measure", "cell"])["whole"]["variance_rank", "levels"] == -1


# ------------------------------------------------------------------------------------------------ learning


def test_errors_are_of_pictures_that_were_learnt_and_of_others(
    shaped: Workspace,
    few: Params,
    pipeline,  # type: ignore[no-untyped-def]
) -> None:
    held, rows = learning.accepted(few, shaped, Part(0, 0, 1), "graft", HELD_OUT, 10)
    learnt, own = learning.accepted(few, shaped, Part(0, 0, 1), "graft", LEARNT, 10)
    place = [candidates.folder(shaped, seed, "ode") for seed in (0, 1)]
    assert torch.equal(learnt, candidates.tensors(place[0], "last", own["number"].tolist()))
    assert torch.equal(held, candidates.tensors(place[1], "last", rows["number"].tolist()))
    network = learning.tuned_networks(pipeline, shaped)
    table = errors_of(few, shaped, pipeline, network, Part(0, 0, 1))
    assert network("graft", 0) is network("graft", 0)  # kept, until another seed's is asked for
    assert network("graft", 1) is not network("graft", 0)
    assert set(table["model"]) == {"graft", "pgraft-50", BASE, NOISE_ONLY}
    assert set(table["pictures"]) == {HELD_OUT, LEARNT}
    assert table["t"].nunique() == Config.of(few).inspected.times
    by = table.set_index(["t", "pictures", "model"])["error"]
    assert (by[:, HELD_OUT, "graft"] != by[:, HELD_OUT, BASE]).all()
    assert torch.isfinite(torch.tensor(table["error"])).all()


def test_of_one_seed_the_other_solver_s_pictures_are_held_out(shaped: Workspace, few: Params) -> None:
    protocol = few.protocol.model_copy(update={"training_seeds": [0]})
    alone = few.model_copy(update={"protocol": protocol})
    held, rows = learning.accepted(alone, shaped, Part(0, 0, 2), "graft", HELD_OUT, 10)
    place = candidates.folder(shaped, 0, "sde")
    assert torch.equal(held, candidates.tensors(place, "last", rows["number"].tolist()))


def test_a_merged_adapter_leaves_the_base_as_it_was(shaped: Workspace, few: Params, pipeline) -> None:  # type: ignore[no-untyped-def]
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    network = learning.tuned_network(pipeline, shaped.adapter("shaping", "graft", 0))
    after = pipeline.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(not torch.equal(before[name], value) for name, value in network.state_dict().items() if name in before)


def test_gaps_are_those_of_planted_errors(few: Params, pipeline) -> None:  # type: ignore[no-untyped-def]
    sigmas = learning.denoiser.path(pipeline.scheduler)[1]
    steps = len(sigmas)
    at = [steps // 4, steps // 2, 3 * steps // 4]
    rows = []
    for t in at:
        gap = 10 ** (1 - 2 * t / steps)
        s = float(sigmas[t])
        noise = gap * s**2 + 0.1
        for kind, of_base in ((HELD_OUT, 0.4), (LEARNT, 0.5)):
            errors = {NOISE_ONLY: noise, BASE: of_base, "graft": 0.1, "pgraft-50": 0.1}
            rows += [{"t": t, "pictures": kind, "model": name, "error": x, "n": 5} for name, x in errors.items()]
    table = gap_rows(few, pipeline, [pd.DataFrame(rows)] * 2).set_index(["measure", "cell"])
    assert table.loc[("gap_slope", "graft")]["group1"] == pytest.approx(-2)
    assert table.loc[("gap", f"graft-t-{at[0]}")]["whole"] == pytest.approx(1 - 2 * at[0] / steps)
    assert table.loc[("gap", f"graft-t-{at[0]}")]["n"] == 10
    # gained 0.4 on learnt pictures and 0.3 on others
    noise = 10 ** (1 - 2 * at[1] / steps) * float(sigmas[at[1]]) ** 2 + 0.1
    assert table.loc[("excess", f"graft-t-{at[1]}")]["whole"] == pytest.approx(0.1 / noise)
    cells = set(table.loc["gap"].index)
    assert f"pgraft-50-t-{at[0]}" not in cells  # its adapter is off there
    assert f"pgraft-50-t-{at[2]}" in cells


def test_only_the_level_differs_in_a_sweep(config: Params) -> None:
    assert swept(Config.of(config)) == ["graft", "pgraft-25", "pgraft-50"]


# ------------------------------------------------------------------------------------------------ law


def test_every_rule_is_tried_on_the_candidates_at_hand(config: Params) -> None:
    section = Config.of(config)
    rewards = np.random.default_rng(2).normal(np.linspace(-1, 1, 600)[:, None], 1, (600, 8))
    table = chi_squares(section, {"ode": rewards, "sde": rewards[:100]}, 7)
    assert set(table["rule"]) == set(section.rules)
    of_ode = table[table["solver"] == "ode"].set_index("rule")
    assert (of_ode["p"] > 0.001).all()
    assert of_ode.loc["best-of-2", "n"] == 1200
    assert of_ode.loc["best-of-4", ["k", "m", "judges", "candidates"]].tolist() == [1, 4, 4, 4800]
    rows = as_measures(table, 2)
    assert rows.loc[rows["cell"] == "accepted-threshold", "group1"].item() == of_ode.loc["threshold", "p"]
    # planted: rivals that are better than their judges
    better = rewards + 2.0 * (np.arange(8) < 4)
    assert (
        chi_squares(section, {"ode": better}, 7).set_index("rule").loc[["best-of-4", "threshold"], "p"] < 1e-4
    ).all()
    assert chi_squares(section, {"ode": rewards[:5]}, 7).empty


def test_histograms_of_accepted_rewards_lie_on_their_law(config: Params) -> None:
    section = Config.of(config)
    rewards = np.random.default_rng(3).normal(size=(4000, 40))
    table = histograms(section, {"ode": rewards}, 7)
    for _, rows in table.groupby("rule"):
        n = rows["observed"].sum()
        assert rows["expected"].sum() == pytest.approx(n, rel=1e-6)
        assert (rows["observed"] - rows["expected"]).abs().max() < 0.03 * n
    of_best = table[table["rule"] == "best-of-4"]
    assert of_best["observed"].iloc[: len(of_best) // 2].sum() < 0.25 * of_best["observed"].sum()


# ------------------------------------------------------------------------------------------------ the stage


def test_the_stage_writes_its_tables_and_goes_on_after_a_kill(
    shaped: Workspace, few: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = stage.errors_of, []

    def killed(*arguments):  # type: ignore[no-untyped-def]
        calls.append("killed")
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "errors_of", killed)
    with pytest.raises(KeyboardInterrupt):
        stage.write(few, shaped)
    assert calls == ["killed"]
    assert not (shaped.measures / stage.LEVELS).exists()

    continuing = stage.continued
    monkeypatch.setattr(stage, "errors_of", real)
    monkeypatch.setattr(stage, "continued", lambda *each: (calls.append(each[3]), continuing(*each))[1])
    stage.write(few, shaped)
    assert calls[1:] == [0, 1, 2, 3]  # the second group alone

    rows = read_rows(shaped.measures / stage.LEVELS)
    known = tables.values(rows)
    assert len(known) == len(rows)  # no measure of a cell twice
    assert {("variance_rank", "levels"), ("gap_slope", "graft"), ("kl_paths", "graft-sde")} <= set(known)
    assert all(np.isfinite(values).all() for values in known.values())
    paths = rows[rows["measure"] == "kl_paths"].set_index("cell")["whole"]
    assert (paths > 0).all()
    assert len(rows[rows["measure"] == "variance"]) == 4
    law, shown = read_rows(shaped.measures / stage.LAW), read_rows(shaped.measures / stage.HISTOGRAM)
    assert law.empty  # four prompts say nothing
    assert set(shown["rule"]) == set(Config.of(few).rules)
    assert not list(shaped.scratch.glob("measures-shaping_levels*"))
