"""Candidates: what is kept of them, in which order, and that a kill loses one batch at most."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from atelier.evaluation.rewards import colour, colour_named
from atelier.methods.rejection import best_of_n, top_k
from atelier.params import Params
from atelier.studies.shaping import candidates, select
from atelier.studies.shaping.params import Config, Rule, Shaping
from atelier.workspace import Workspace

STATES = ["state-25", "state-50", "state-75"]


def place(workspace: Workspace, solver: str, seed: int = 0) -> Path:
    return candidates.folder(workspace, seed, solver)


def test_each_prompt_has_its_candidates_by_both_solvers(shaped: Workspace, config: Params) -> None:
    for solver in ("ode", "sde"):
        table = candidates.listed(place(shaped, solver))
        assert table["number"].tolist() == list(range(8))
        assert table["set"].tolist() == [0] * 4 + [1] * 4
        assert table.groupby("set")["prompt"].nunique().tolist() == [1, 1]
        assert table["prompt"].nunique() == 2
        assert all(colour_named(prompt) for prompt in table["prompt"])
        assert table["reward"].tolist() == table["reward_colour"].tolist()
        assert {f"reward_{name}" for name in Config.of(config).rewards} <= set(table)
        assert np.isfinite(table.filter(like="reward").to_numpy()).all()


def test_rewards_are_of_the_pictures_that_are_kept(shaped: Workspace) -> None:
    table = candidates.listed(place(shaped, "ode"))
    shown = candidates.tensors(place(shaped, "ode"), "pictures")
    assert shown.dtype == torch.uint8
    np.testing.assert_allclose(colour(shown, table["prompt"].tolist()), table["reward"])


def test_both_solvers_begin_with_equal_noise_and_part_at_once(shaped: Workspace) -> None:
    ode, sde = (candidates.tensors(place(shaped, solver), "state-25") for solver in ("ode", "sde"))
    assert ode.shape == sde.shape
    assert not torch.equal(ode, sde)
    alike = torch.corrcoef(torch.stack([ode[0].flatten(), sde[0].flatten()]))[0, 1]
    other = torch.corrcoef(torch.stack([ode[0].flatten(), sde[1].flatten()]))[0, 1]
    assert alike > other


def test_picked_rows_come_in_the_order_asked_for(shaped: Workspace) -> None:
    shards = candidates.shards_of(place(shaped, "ode"))
    assert len(shards) == 2  # of four
    for name in (*STATES, "last"):
        everything = candidates.picked(shards, name)
        assert torch.equal(candidates.picked(shards, name, [6, 1, 3]), everything[[6, 1, 3]])
    with pytest.raises(ValueError, match="1 of the candidates"):
        candidates.picked(shards, "last", [2, 99])


def test_a_killed_stage_paints_what_is_left_alone(
    shaped: Workspace, config: Params, monkeypatch: pytest.MonkeyPatch, with_candidates: Path
) -> None:
    (shaped.root / "build/shaping/candidates").unlink()
    real, calls = candidates.trajectories, []

    def deadly(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(candidates, "trajectories", deadly)
    with pytest.raises(KeyboardInterrupt):
        candidates.write(config, shaped, 0)
    candidates.write(config, shaped, 0)
    assert len(calls) == 1 + 1 + 3  # one batch before, one lost, three of four afterwards
    assert hashes(candidates.folder(shaped, 0)) == hashes(with_candidates / "build/shaping/candidates/0")
    assert not list(shaped.scratch.glob("shaping-candidates-*"))
    shutil.rmtree(shaped.root / "build/shaping/candidates")


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert len(files) == 2 * 3 + 1
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ------------------------------------------------------------------------------------------------ selection


def table(n: int) -> pd.DataFrame:
    return pd.DataFrame({"reward": np.random.default_rng(24).normal(size=n)})


def test_a_rule_accepts_the_same_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(64)
    for chunk in (1, 7, 64):
        monkeypatch.setattr(select, "CHUNK", chunk)
        best = select.chosen(Shaping(), Rule(k=2, m=16), rows)
        assert best.tolist() == np.flatnonzero(top_k(rows["reward"], 2, 16)).tolist()
        four = select.chosen(Shaping(), Rule(k=1, m=4), rows)
        assert four.tolist() == np.flatnonzero(best_of_n(rows["reward"], 4)).tolist()
        least = select.chosen(Shaping(), Rule(least=0.5), rows)
        assert least.tolist() == np.flatnonzero(rows["reward"] >= 0.5).tolist()


def test_the_control_takes_as_many_of_each_prompt_whatever_their_reward() -> None:
    rows = table(64)
    plain = select.chosen(Shaping(method="plain"), Rule(k=2, m=16), rows)
    assert plain.tolist() == [0, 1, 16, 17, 32, 33, 48, 49]
    assert plain.tolist() == select.chosen(Shaping(method="plain"), Rule(k=2, m=16), -rows).tolist()


def test_a_threshold_that_accepts_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no candidate has a reward of 9"):
        select.chosen(Shaping(), Rule(least=9.0), table(8))
