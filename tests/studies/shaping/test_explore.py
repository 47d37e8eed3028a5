"""The panel of shaping: what is accepted, what the base makes of its states, and which law that is."""

import numpy as np
import pytest
import torch

from atelier import params
from atelier.studies.shaping import explore
from atelier.studies.shaping.explore import PICTURES, Choice, Explorer
from atelier.workspace import Workspace


@pytest.fixture
def explorer(shaped: Workspace) -> Explorer:
    return explore.load(params.load(shaped.params_file), shaped)


def test_what_is_accepted_is_the_best_of_a_prompt(explorer: Explorer) -> None:
    every = explorer.candidates_of(Choice(1, 2, 0.5))
    assert set(every["set"]) == {1}
    assert list(every["reward"]) == sorted(every["reward"], reverse=True)
    shaped = explorer.shaped(Choice(1, 2, 0.5))
    assert list(shaped.rewards) == list(every["reward"][:2])
    assert len(shaped.pictures) == len(shaped.continued) == len(shaped.continued_rewards) == PICTURES
    assert explorer.shaped(Choice(1, 2, 0.5)) is shaped


@pytest.mark.parametrize("level", [0.25, 0.5, 0.75])
def test_by_the_deterministic_sampler_every_level_gives_the_accepted_pictures(explorer: Explorer, level: float) -> None:
    """GRAFT and P-GRAFT have one law there: the last state is a function of that at the level."""
    shaped = explorer.shaped(Choice(0, 3, level, "deterministic"))
    apart = (shaped.continued.int() - shaped.pictures.int()).abs()
    assert int(apart.max()) <= 1  # batches of other sizes round differently
    rows = explorer.candidates_of(Choice(0, 1, 1.0)).iloc[np.zeros(PICTURES, int)]  # of one prompt
    assert shaped.continued_rewards == pytest.approx(explorer.reward(shaped.pictures, rows), abs=0.05)


def test_by_the_stochastic_sampler_pictures_are_new_and_the_seed_decides_them(explorer: Explorer) -> None:
    first, second = (explorer.shaped(Choice(0, 1, 0.25, "stochastic", seed)) for seed in (1, 2))
    assert torch.equal(first.pictures, second.pictures)  # one is accepted
    assert not torch.equal(first.continued, first.pictures)
    assert not torch.equal(first.continued, second.continued)
    assert not torch.equal(first.continued[0], first.continued[1])


def test_the_whole_trajectory_is_graft(explorer: Explorer) -> None:
    shaped = explorer.shaped(Choice(0, 2, 1.0))
    assert torch.equal(shaped.pictures, shaped.continued)


def test_the_panel_shows_what_its_controls_say(explorer: Explorer) -> None:
    panel = explore.Panel(explorer)
    pictures, histogram = panel.picture.value, panel.histogram.value
    assert pictures[:4] == histogram[:4] == b"\x89PNG"
    panel.controls["accepted"].value = 3
    assert panel.choice().accepted == 3
    assert panel.histogram.value != histogram
    panel.controls["level"].value = 0.75
    panel.controls["sampler"].value = "deterministic"
    assert panel.choice() == Choice(0, 3, 0.75, "deterministic", 1)
    panel.choose("GRAFT")
    assert panel.choice() == Choice(0, panel.presets["reset"]["accepted"], 1.0)
    assert panel.prompt.value == explorer.prompts[0]
    panel.choose("reset")
    assert (panel.picture.value, panel.histogram.value) == (pictures, histogram)
    assert panel.controls["level"].options[-1] == ("1", 1.0)


def test_the_laws_expectation_is_what_the_rule_accepts() -> None:
    """Of all candidates as F: Best-of-N prefers the best, taking all prefers none, and sums are what is accepted."""
    every = np.arange(8.0)
    edges = np.arange(9.0) - 0.5
    assert explore.expected(every, 8, edges) == pytest.approx(np.ones(8))
    best = explore.expected(every, 1, edges)
    assert best.sum() == pytest.approx(1)
    assert best == pytest.approx(np.diff((np.arange(9) / 8) ** 8))  # F^8 differenced: N u^(N - 1) over each place
    assert explore.expected(every, 3, edges).sum() == pytest.approx(3)


def test_without_candidates_it_says_what_to_run(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="dvc repro shaping-untuned"):
        explore.load(params.load(workspace.params_file), workspace)
