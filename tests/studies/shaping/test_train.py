"""Trainings of accepted candidates and by policy gradient: what is learnt, and that a kill changes nothing."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from atelier import params
from atelier.methods.policy_gradient import advantages
from atelier.models import base
from atelier.models.adapters import WEIGHTS
from atelier.models.latents import encode_prompts
from atelier.params import Params
from atelier.sampling.sampler import with_ddim
from atelier.studies.shaping import candidates, prompts, report_load
from atelier.studies.shaping import shaped as model
from atelier.studies.shaping import train as training
from atelier.studies.shaping.params import Config
from atelier.studies.shaping.train import Setup
from atelier.training import denoiser, loop
from atelier.training.accepted import Learnt, accepted_task
from atelier.training.conversion import add_conversion
from atelier.training.order import Turn, turns
from atelier.workspace import Workspace
from linked import SHARED, linked
from studies.shaping.conftest import OF_STUDY

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = 24
TRAINED = ("graft", "pgraft-50", "pgraft-50-x0", "graft-sde", "best-of-2", "plain", "policy", "graft-2")


@pytest.fixture(scope="module")
def left(with_candidates: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Adapters of these variants, trained once."""
    names = [*SHARED, *OF_STUDY]
    workspace, threads = linked(tmp_path_factory.mktemp("left"), with_candidates, names), torch.get_num_threads()
    torch.set_num_threads(1)
    config = params.load(workspace.params_file)
    for variant in TRAINED:
        training.train(config, workspace, variant, 0)
    torch.set_num_threads(threads)
    return workspace


def card(workspace: Workspace, variant: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace.adapter("shaping", variant, 0) / "card.json").read_text())
    return found


def history(workspace: Workspace, variant: str) -> pd.DataFrame:
    return pd.read_csv(workspace.adapter("shaping", variant, 0) / "history.csv")


def weights(workspace: Workspace, variant: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(workspace.adapter("shaping", variant, 0) / WEIGHTS)


# ------------------------------------------------------------------------------------------------ what a run leaves


def test_all_have_equal_candidates_updates_and_parameters(left: Workspace) -> None:
    numbers = {sum(value.numel() for value in weights(left, variant).values()) for variant in TRAINED}
    assert len(numbers) == 1
    for variant in TRAINED:
        assert card(left, variant)["candidates"] == 8
        assert list(history(left, variant)["step"]) == list(range(1, STEPS + 1))
    assert {variant: card(left, variant)["accepted"] for variant in TRAINED} == {
        **dict.fromkeys(TRAINED, 2),
        "best-of-2": 4,
        "policy": 8,
    }


def test_what_is_accepted_has_higher_rewards_than_candidates(left: Workspace) -> None:
    for variant in ("graft", "pgraft-50", "graft-sde", "best-of-2", "graft-2"):
        assert card(left, variant)["accepted_reward"] >= card(left, variant)["candidates_reward"]
    ode, sde = card(left, "graft"), card(left, "graft-sde")
    assert ode["candidates_reward"] == card(left, "plain")["candidates_reward"] != sde["candidates_reward"]
    assert ode["accepted_reward"] == card(left, "pgraft-50")["accepted_reward"]
    assert ode["accepted_reward"] > card(left, "best-of-2")["accepted_reward"]


def test_each_variant_learns_something_else(left: Workspace) -> None:
    """But for the control: what it takes may be the best by chance."""
    digests = {v: hashlib.sha256((left.adapter("shaping", v, 0) / WEIGHTS).read_bytes()).hexdigest() for v in TRAINED}
    del digests["plain"]
    assert len(set(digests.values())) == len(digests), digests


def test_the_control_learns_the_first_of_every_prompt(left: Workspace) -> None:
    table = candidates.listed(candidates.folder(left, 0, "ode"))
    assert card(left, "plain")["accepted_reward"] == pytest.approx(table["reward"].iloc[[0, 4]].mean())


def test_the_card_tells_the_level(left: Workspace) -> None:
    assert card(left, "graft")["level"] == {"steps": 4, "t_I": None}
    scheduler = model.load(params.load(left.params_file), left).scheduler
    scheduler.set_timesteps(4)
    assert card(left, "pgraft-50")["level"] == {"steps": 2, "t_I": float(scheduler.timesteps[2])}


# ------------------------------------------------------------------------------------------------ what is learnt


def test_without_a_level_it_is_the_ordinary_denoising_loss(shaped: Workspace, config: Params) -> None:
    """Equal to the task of every other study on the same latents and prompts, sample for sample."""
    pipeline = base.load(shaped.base)
    trainable = add_conversion(pipeline.unet, 2, 0)
    last = candidates.tensors(candidates.folder(shaped, 0, "ode"), candidates.LAST)
    names, texts = [f"candidate-{n}" for n in range(8)], ["a red boat", "a blue house"]
    words, empty = encode_prompts(pipeline, texts), encode_prompts(pipeline, [""])[0]
    given = {"empty_share": 0.5, "seed": 3, "device": torch.device("cpu")}

    def condition(samples: Any, numbers: Any, none: Any) -> Tensor:
        return torch.where(torch.tensor(none)[:, None, None], empty, words[[sample // 4 for sample in samples]])

    from atelier.models.latents import Latents
    from atelier.sampling.prompted import Prompted

    examples = denoiser.Examples(Latents(last, torch.zeros_like(last)), names, 1, condition)
    ordinary = denoiser.task(pipeline.unet, trainable, pipeline.scheduler, examples, **given)
    call = Prompted.of(pipeline, texts, last).call(pipeline.unet, [n // 4 for n in range(8)])
    ours = accepted_task(call, trainable, pipeline.scheduler, Learnt(last, names), **given)
    for step in range(3):
        batch = turns(5, step, 4, 8)
        torch.testing.assert_close(ours.losses(batch)["denoising"], ordinary.losses(batch)["denoising"])


@pytest.mark.parametrize(("guidance", "empty"), [(1.0, False), (4.0, True)])
def test_prompts_are_left_empty_for_guidance_alone(
    shaped: Workspace, config: Params, guidance: float, empty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = Config.of(config).model_copy(update={"guidance": guidance})
    setup = Setup(config.model_copy(update={section.STUDY: section}), shaped, "plain", 0)
    seen: list[bool] = []

    def call(zt: Tensor, times: Tensor, samples: Any, none: Any) -> Tensor:
        seen.extend(none)
        return zt

    monkeypatch.setattr(training.Prompted, "call", lambda *_: call)
    table = candidates.listed(candidates.folder(shaped, 0, "ode"))
    task = setup.task(table, candidates.shards_of(candidates.folder(shaped, 0, "ode")))
    for epoch in range(20):
        task.losses([Turn(sample, epoch) for sample in range(len(table))])
    assert any(seen) is empty


@pytest.mark.parametrize("target", ["x_I", "x_0"])
def test_levels_below_the_state_are_never_trained(shaped: Workspace, target: str) -> None:
    pipeline = base.load(shaped.base)
    trainable = add_conversion(pipeline.unet, 2, 0)
    states, seen = torch.randn(8, pipeline.unet.config.in_channels, 8, 8), []
    abar = pipeline.scheduler.alphas_cumprod[600].item()
    learnt = Learnt(states, [str(n) for n in range(8)], 600.0)
    if target == "x_I":
        learnt = learnt._replace(alpha_I=abar**0.5, s_I=(1 - abar) ** 0.5)

    def call(zt: Tensor, times: Tensor, samples: Any, empty: Any) -> Tensor:
        seen.extend(times.tolist())
        return zt

    task = accepted_task(
        call, trainable, pipeline.scheduler, learnt, empty_share=0.0, seed=1, device=torch.device("cpu")
    )
    for epoch in range(100):
        loss = sum(task.losses([Turn(sample, epoch) for sample in range(8)]).values())
        assert torch.isfinite(torch.as_tensor(loss))
    assert min(seen) in ((600, 601, 602) if target == "x_0" else (601, 602, 603))
    assert max(seen) > 990


def test_the_bounded_loss_learns_the_noise_of_all_levels_at_once(shaped: Workspace) -> None:
    """Of one state alone the best prediction is known: the loss is then 0, and for another one above."""
    pipeline = base.load(shaped.base)
    abar = pipeline.scheduler.alphas_cumprod
    alpha_I, s_I = float(abar[300].sqrt()), float((1 - abar[300]).sqrt())
    state = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def best(zt: Tensor, times: Tensor, samples: Any, empty: Any) -> Tensor:
        alpha, s = abar[times].sqrt().view(-1, 1, 1, 1), (1 - abar[times]).sqrt().view(-1, 1, 1, 1)
        a = alpha / alpha_I
        return s * (zt - a * state) / (s**2 - a**2 * s_I**2)  # minus s times the score of N(a x_I, b^2)

    for call, above in ((best, False), (lambda zt, *_: zt, True)):
        learnt = Learnt(state, ["one"], 300.0, alpha_I, s_I)
        given = {"empty_share": 0.0, "seed": 1, "device": torch.device("cpu")}
        task = accepted_task(call, {}, pipeline.scheduler, learnt, **given)
        losses = [float(task.losses([Turn(0, epoch)])["partial"]) for epoch in range(20)]
        assert (max(losses) > 0.1) is above
        if not above:
            assert max(losses) < 1e-4


def test_states_teach_no_denoiser_of_v_that_begins_without_signal(
    shaped: Workspace, config: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last states do, as does v that begins with some; the base of the other test cases is a flow."""

    def loaded(zero: bool) -> Any:
        pipeline = base.load(shaped.base)
        changed = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": zero}
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **changed)
        return with_ddim(pipeline)

    monkeypatch.setattr(model, "load", lambda *_: loaded(True))
    with pytest.raises(ValueError, match=r"^shaping.trainings.pgraft-50.target: x_I teaches a base that predicts v"):
        Setup(config, shaped, "pgraft-50", 0)
    for variant in ("graft", "pgraft-50-x0"):
        Setup(config, shaped, variant, 0)
    monkeypatch.setattr(model, "load", lambda *_: loaded(False))
    Setup(config, shaped, "pgraft-50", 0)


# ------------------------------------------------------------------------------------------------ rounds


def test_a_later_round_goes_on_from_the_adapter_before(left: Workspace) -> None:
    config = params.load(left.params_file)
    setup = Setup(config, left, "graft-2", 0)
    before = weights(left, "graft")
    for name, value in setup.trainable.items():
        stored = before[f"unet.{name.replace('.default', '')}"]
        assert torch.equal(value.detach(), stored)
    assert card(left, "graft-2")["candidates_reward"] != card(left, "graft")["candidates_reward"]


# ------------------------------------------------------------------------------------------------ policy gradient


def test_the_probability_of_a_step_when_it_was_sampled_is_found_again(left: Workspace, tmp_path: Path) -> None:
    """Before the first update both probabilities are equal: so are levels, noise, guidance and conditions to DDIM's."""
    config = params.load(left.params_file)
    setup = Setup(config, left, "policy", 0)
    run = setup.run()._replace(scratch=tmp_path)
    rows = setup.policy_table().query("round == 0").reset_index(drop=True)
    rows = setup.sampled(rows, 0, run)
    steps, owners = setup.steps(rows, 0, run)
    assert len(owners) == len(steps.states) == len(rows) * 3  # the last step adds hardly any noise
    task = setup.policy_task(rows, 0, run)
    with torch.no_grad():
        terms = task.losses([Turn(sample, 0) for sample in range(len(owners))])
    assert float(terms["shift"]) < 1e-5
    assert float(terms["outside"]) == 0
    expected = advantages(rows["reward"], rows["set"], Config.of(config).policy.most)
    torch.testing.assert_close(steps.advantage[: len(rows)].double(), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_the_policy_samples_anew_in_every_round(left: Workspace) -> None:
    seen = history(left, "policy")
    assert seen["reward"].nunique() == 2
    assert seen["outside"].iloc[0] == 0
    assert card(left, "policy")["rewards"] == seen["reward"].drop_duplicates().tolist()
    table = Setup(params.load(left.params_file), left, "policy", 0).policy_table()
    assert table.groupby(["set", "round"]).size().tolist() == [2] * 4


# ------------------------------------------------------------------------------------------------ kills


@pytest.mark.parametrize(("variant", "step"), [("pgraft-50", 9), ("policy", 17), ("graft-2", 9)])
def test_a_killed_training_ends_with_the_same_bytes(
    left: Workspace, tmp_path: Path, variant: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in a step: of the policy in its second round, of the second round after its candidates."""
    names = [*SHARED, *OF_STUDY, "build/adapters/shaping/graft"]
    workspace = linked(tmp_path / "killed", left.root, names)
    config, real, calls = params.load(workspace.params_file), loop._step, []

    def deadly(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(loop, "_step", deadly)
    with pytest.raises(KeyboardInterrupt):
        training.train(config, workspace, variant, 0)
    painted: list[int] = []
    paint = candidates.trajectories
    monkeypatch.setattr(candidates, "trajectories", lambda *a, **k: (painted.append(1), paint(*a, **k))[1])
    training.train(config, workspace, variant, 0)
    assert len(calls) <= STEPS + 5 + 1  # one interval of checkpoints, and the step that was lost
    assert not painted
    for name in (WEIGHTS, "history.csv", "card.json"):
        ours, theirs = (place.adapter("shaping", variant, 0) / name for place in (workspace, left))
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(("variant", "seed"), [("nothing", 0), ("graft", 9)])
def test_unknown_variants_and_seeds_are_refused(shaped: Workspace, config: Params, variant: str, seed: int) -> None:
    with pytest.raises(ValueError, match=r"shaping\.trainings|protocol\.training_seeds"):
        training.train(config, shaped, variant, seed)


def test_prompts_of_candidates_and_held_out_ones_are_of_different_works(shaped: Workspace, config: Params) -> None:
    asked, held = prompts.of_candidates(config, shaped, 0), prompts.held_out(config, shaped, 0)
    assert not set(asked["path"]) & set(held["path"])
    assert list(held["place"]) == [0, 1, 2, 0, 1, 2]


def test_prompts_of_two_seeds_candidates_differ(shaped: Workspace, config: Params) -> None:
    section, n = Config.of(config), len(prompts.works(config, shaped, prompts.TRAINING))
    half = section.candidates.model_copy(update={"prompts": n // 2})
    many = config.model_copy(update={section.STUDY: section.model_copy(update={"candidates": half})})
    first, second = (set(prompts.of_candidates(many, shaped, seed)["path"]) for seed in (0, 1))
    assert len(first) == len(second) == n // 2 >= 2
    assert not first & second


def test_the_page_reads_every_card(left: Workspace) -> None:
    for variant in TRAINED:
        found, written = report_load.card(left.adapter("shaping", variant, 0) / "card.json"), card(left, variant)
        assert (found["candidates"], found["accepted"]) == (written["candidates"], written["accepted"])
        assert len(found["rewards"]) == (2 if variant == "policy" else 0)
