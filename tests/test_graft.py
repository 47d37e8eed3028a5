"""The public ``graft`` on a pipeline shaped as Stable Diffusion 2.1, with three schedulers; killed, it goes on."""

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

from atelier.evaluation.rewards import brightness
from atelier.methods.rejection import Kept
from atelier.models import base
from atelier.models.adapters import WEIGHTS
from atelier.sampling import graft as module
from atelier.sampling.graft import Grafted, graft, two_parts
from atelier.sampling.prompted import Prompted
from atelier.sampling.trajectories import Level, Solver, adapter_parts, level, trajectories

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPTS = ["a red boat", "a blue house"]
SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
SCHEDULERS = {
    "ddim": DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"),
    "euler": EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading", prediction_type="v_prediction"),
    "dpm": DPMSolverMultistepScheduler(**SCHEDULE, algorithm_type="dpmsolver++", prediction_type="v_prediction"),
}
STEPS, NUMBER = 4, 2


def pipeline(scheduler: str = "ddim") -> StableDiffusionPipeline:
    """Stable Diffusion 2.1 with few channels: linear projections, heads by block, v prediction."""
    words = base.train_tokenizer(PROMPTS, 700)
    torch.manual_seed(24)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=words.model_max_length, bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=16, attention_head_dim=(1, 2, 2, 2), use_linear_projection=True,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, norm_num_groups=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    made = StableDiffusionPipeline(
        vae, text, words, unet, SCHEDULERS[scheduler], None, None, requires_safety_checker=False
    )
    made.set_progress_bar_config(disable=True)
    return made


def run(folder: Path, pipe: Any = None, reward: Any = brightness, **changes: Any) -> Grafted:
    settings = {"each": 4, "rule": Kept.top_k(2, 4), "level": 0.5, "steps": STEPS, "batch": 4, "rank": 2, "updates": 12}
    settings |= {"learning_rate": 0.01, "checkpoint_every": 5, "guidance": 3.0, "tell": lambda _: None}
    return graft(pipe or pipeline(), reward, PROMPTS, folder, **settings | changes)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def switched(pipe: Any, call: Callable[[], Any]) -> list[bool]:
    """Whether the adapter was on at every call of the denoiser."""
    seen: list[bool] = []
    layer = next(part for part in pipe.unet.modules() if isinstance(part, BaseTunerLayer))
    hook = pipe.unet.register_forward_pre_hook(lambda *_: seen.append(not layer.disable_adapters))
    call()
    hook.remove()
    return seen


# ------------------------------------------------------------------------------------------------ three schedulers


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_an_adapter_is_trained_and_takes_the_first_part_alone(scheduler: str, tmp_path: Path) -> None:
    pipe = pipeline(scheduler)
    done = run(tmp_path, pipe)
    assert (done.candidates, done.accepted) == (8, 4)
    assert done.accepted_reward > done.reward
    assert done.level == level(pipe.scheduler, STEPS, 0.5)
    assert done.level is not None
    assert done.level.number == NUMBER

    seeds, noise = [("p", 0), ("p", 1)], torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    how = Solver(3.0, STEPS, 2)

    def whole(parts: Any = None) -> Any:
        (found,) = trajectories(pipe, PROMPTS, noise, seeds, how, keep=[1, NUMBER, 3], parts=parts)
        return found

    tuned, both = whole(), whole(adapter_parts(pipe, NUMBER))
    pipe.unet.disable_adapters()
    untuned = whole()
    pipe.unet.enable_adapters()
    assert torch.equal(both.kept[NUMBER], tuned.kept[NUMBER])
    assert not torch.equal(both.kept[1], untuned.kept[1])
    assert not torch.equal(both.kept[3], tuned.kept[3])
    assert switched(pipe, lambda: whole(adapter_parts(pipe, NUMBER))) == [True] * NUMBER + [False] * (STEPS - NUMBER)

    after = two_parts(pipe, done.level)
    asked = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "latents": noise, "height": 64, "width": 64}
    for _ in range(2):  # the adapter is on again when the next call begins
        with_callback = pipe(PROMPTS, callback_on_step_end=after, output_type="latent", **asked).images
        assert torch.equal(with_callback, both.last)


def test_states_of_three_schedulers_are_the_same_at_the_same_level() -> None:
    """In their own units they differ by Euler's factor; at many steps the paths are one."""
    noise, steps = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), 200
    found: dict[str, tuple[Level, Tensor]] = {}
    for name in SCHEDULERS:
        pipe = pipeline(name)
        place = level(pipe.scheduler, steps, 0.5)
        seeds = [("p", 0), ("p", 1)]
        (path,) = trajectories(pipe, PROMPTS, noise, seeds, Solver(1.0, steps, 2), keep=[place.number])
        found[name] = place, path.kept[place.number] * place.factor
    ddim, euler, dpm = (found[name] for name in SCHEDULERS)
    assert euler[0].factor == pytest.approx(euler[0].alpha)
    assert ddim[0].factor == dpm[0].factor == 1
    for other in (euler, dpm):
        assert other[0].alpha == pytest.approx(ddim[0].alpha, rel=0.02)
        assert other[0].alpha ** 2 + other[0].s ** 2 == pytest.approx(1)
        assert (other[1] - ddim[1]).abs().max() < 0.05


# ------------------------------------------------------------------------------------------------ what is told


def test_the_cost_is_told_before_anything_is_sampled(tmp_path: Path) -> None:
    said: list[str] = []

    def reward(pictures: Tensor, prompts: Any) -> Any:
        said.append("reward")
        return brightness(pictures)

    run(tmp_path, reward=reward, tell=said.append)
    assert said[0].startswith("graft: 8 candidates in 64 calls of the denoiser, a picture each; 48 samples in training")
    stored = sum(path.stat().st_size for path in (tmp_path / "candidates").glob("*.safetensors"))
    assert f"{stored / 2**20:.1f} MiB" in said[0]
    assert said[1:3] == ["reward", "reward"]


@pytest.mark.parametrize(("guidance", "empty"), [(3.0, True), (1.0, False)])
def test_guidance_costs_a_second_evaluation_and_empty_prompts(guidance: float, empty: bool, tmp_path: Path) -> None:
    """Calls, a picture each, are those that were told; without guidance no training sample loses its prompt."""
    pipe, said, rows = pipeline(), list[str](), list[int]()
    blank = Prompted.of(pipe, [""], torch.zeros(1, 4, 8, 8)).prompts["encoder_hidden_states"]
    learnt: list[bool] = []

    def watched(network: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            learnt.extend(torch.equal(words, blank[0]) for words in named["encoder_hidden_states"])
        else:
            rows.append(len(arguments[0]))

    hook = pipe.unet.register_forward_pre_hook(watched, with_kwargs=True)
    run(tmp_path, pipe, guidance=guidance, tell=said.append)
    hook.remove()
    told = int(said[0].split(" calls")[0].split()[-1])
    asked = len(PROMPTS) + 1  # what a training reads of its prompts and of the empty one
    assert told == sum(rows) - asked == 8 * STEPS * (2 if guidance > 1 else 1)
    assert any(learnt) is empty


def test_a_reward_by_clip_is_any_callable(tmp_path: Path) -> None:
    torch.manual_seed(1)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    texts = base.train_tokenizer(PROMPTS, 700)
    clip = CLIPModel(
        CLIPConfig(
            text_config={**small, "vocab_size": len(texts), "eos_token_id": texts.eos_token_id},
            vision_config={**small, "image_size": 64, "patch_size": 16},
            projection_dim=8,
        )
    )

    @torch.no_grad()
    def reward(pictures: Tensor, prompts: Any) -> Tensor:
        words = texts(list(prompts), padding=True, return_tensors="pt")
        found: Tensor = clip(pixel_values=pictures / 127.5 - 1, **words).logits_per_image.diagonal()
        return found

    done = run(tmp_path, reward=reward)
    assert done.accepted_reward > done.reward


def test_the_file_is_diffusers_own_and_the_reward_can_be_learnt(tmp_path: Path) -> None:
    """Loaded into a new pipeline it paints as the trained one; without a level all levels are learnt."""
    pipe = pipeline()
    done = run(tmp_path, pipe, level=1.0)
    assert done.level is None
    assert two_parts(pipe, done.level) is None
    again = pipeline()
    again.load_lora_weights(tmp_path, weight_name=WEIGHTS, use_safetensors=True)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    asked = {"num_inference_steps": STEPS, "latents": noise, "output_type": "latent"}
    torch.testing.assert_close(again(PROMPTS, **asked).images, pipe(PROMPTS, **asked).images)
    assert not torch.equal(pipeline()(PROMPTS, **asked).images, pipe(PROMPTS, **asked).images)


# ------------------------------------------------------------------------------------------------ kills


def killed(when: Callable[[pytest.MonkeyPatch], None], folder: Path) -> None:
    """Run in a process of its own, which ``when`` makes kill itself."""
    child = os.fork()
    if child == 0:
        try:
            when(pytest.MonkeyPatch())
            run(folder)
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def deadly(owner: Any, name: str, number: int) -> Callable[[pytest.MonkeyPatch], None]:
    """The ``number``th call kills the process."""

    def when(patch: pytest.MonkeyPatch) -> None:
        real, calls = getattr(owner, name), []

        def call(*arguments: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        patch.setattr(owner, name, call)

    return when


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)
    run(folder)
    return digest(folder / WEIGHTS)


@pytest.mark.parametrize(
    ("owner", "name", "number", "left"),
    [
        ("module", "trajectories", 2, (1, 2)),  # one batch of two is there, and no reward
        ("module", "number_row", 2, (0, 1)),  # both batches, and one's rewards
        ("loop", "_step", 9, (0, 0)),  # a checkpoint at 5 of 12 steps
    ],
)
def test_killed_it_goes_on(
    owner: str,
    name: str,
    number: int,
    left: tuple[int, int],
    undisturbed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from atelier.training import loop

    killed(deadly({"module": module, "loop": loop}[owner], name, number), tmp_path)
    painted, judged = [], []
    real = module.trajectories
    monkeypatch.setattr(module, "trajectories", lambda *a, **k: (painted.append(1), real(*a, **k))[1])
    done = run(tmp_path, reward=lambda pictures, prompts: (judged.append(1), brightness(pictures))[1])
    assert (len(painted), len(judged)) == left
    assert digest(tmp_path / WEIGHTS) == undisturbed
    assert done.accepted == 4
    first = 5 if owner == "loop" else 0
    assert f"first executed {first}, executed here {12 - first}" in capsys.readouterr().out


def test_a_finished_run_is_read_again_and_another_is_refused(undisturbed: str, tmp_path: Path) -> None:
    run(tmp_path)
    pipe = pipeline()
    run(tmp_path, pipe, reward=None)  # nothing is scored twice
    assert digest(tmp_path / WEIGHTS) == undisturbed
    assert any(bool(value.abs().sum() > 0) for name, value in pipe.unet.named_parameters() if "lora_B" in name)
    with pytest.raises(ValueError, match="holds a run with other prompts, share; take another folder"):
        graft(
            pipeline(), brightness, ["a boat"], tmp_path, each=4, rule=Kept.top_k(2, 4), level=0.25, steps=STEPS,
            batch=4, rank=2, updates=12, learning_rate=0.01, checkpoint_every=5, guidance=3.0,
        )  # fmt: skip
    with pytest.raises(ValueError, match="has an adapter already"):
        run(tmp_path, pipe)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"level": 0.1}, "leaves one part without any"),
        ({"rule": Kept.threshold(2.0)}, "none of 8 candidates is accepted"),
        ({"reward": lambda pictures, prompts: [1.0]}, "expected 4 finite numbers"),
        ({"reward": lambda pictures, prompts: np.full(4, np.nan)}, "expected 4 finite numbers"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        run(tmp_path, **changes)
