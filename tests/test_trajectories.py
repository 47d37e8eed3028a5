"""Trajectories: the sampler's own pictures, noise of each picture's own, levels of every kind of schedule."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

from atelier.models import base
from atelier.sampling.prompted import Prompted
from atelier.sampling.sampler import first_latents, last_latents, with_ddim
from atelier.sampling.trajectories import Solver, level, noise_generators, solving, step_levels, trajectories
from atelier.training.conversion import scheduler_for

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPTS = ["a red boat", "a blue house", "boat"]
SEEDS = [("x", number) for number in range(3)]


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    made = with_ddim(base.build("tiny", 64, PROMPTS, 1))
    made.set_progress_bar_config(disable=True)
    return made


def test_last_states_are_the_samplers(pipeline: StableDiffusionPipeline) -> None:
    noise = first_latents(pipeline, SEEDS, 64)
    found = list(trajectories(pipeline, PROMPTS, noise, SEEDS, Solver(4.0, 5, 2), keep=[2, 5]))
    expected = torch.cat(list(last_latents(pipeline, PROMPTS, noise, guidance=4.0, steps=5, batch=2)))
    assert torch.equal(torch.cat([each.last for each in found]), expected)
    assert torch.equal(torch.cat([each.kept[5] for each in found]), expected)  # before no step: the last
    assert [len(each.kept[2]) for each in found] == [2, 1]


def test_noise_at_steps_is_a_pictures_own(pipeline: StableDiffusionPipeline) -> None:
    """Alone, or third in a batch with others: the same; and one step's is what the generators draw."""
    noise, how = first_latents(pipeline, SEEDS, 64), Solver(4.0, 5, 3, eta=1.0)
    (together,) = trajectories(pipeline, PROMPTS, noise, SEEDS, how, keep=[1, 2])
    (alone,) = trajectories(pipeline, PROMPTS[2:], noise[2:], SEEDS[2:], how, keep=[1, 2])
    torch.testing.assert_close(alone.last, together.last[2:])
    (calm,) = trajectories(pipeline, PROMPTS, noise, SEEDS, how._replace(eta=0.0), keep=[1])
    assert not torch.allclose(calm.kept[1], together.kept[1], atol=0.1)
    drawn = torch.cat([torch.randn((1, *noise.shape[1:]), generator=each) for each in noise_generators(SEEDS)])
    difference = torch.corrcoef(torch.stack([(together.kept[1] - calm.kept[1]).flatten(), drawn.flatten()]))[0, 1]
    assert difference > 0.8


def test_levels_are_the_schedulers() -> None:
    schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    for scheduler in (DDIMScheduler(**schedule), PNDMScheduler(**schedule, skip_prk_steps=True)):
        place = level(scheduler, 10, 0.5)
        abar = scheduler.alphas_cumprod[int(place.t)].double()
        assert (place.alpha, place.s, place.factor) == pytest.approx((float(abar.sqrt()), float((1 - abar).sqrt()), 1))
    for scheduler in (EulerDiscreteScheduler(**schedule), DPMSolverMultistepScheduler(**schedule)):
        place = level(scheduler, 10, 0.5)
        abar = scheduler.alphas_cumprod[round(place.t)].double()
        assert place.number == 5
        assert place.alpha == pytest.approx(float(abar.sqrt()), rel=0.01)
    flow = level(FlowMatchEulerDiscreteScheduler(), 10, 0.5)
    assert flow.alpha + flow.s == pytest.approx(1)
    assert flow.t == pytest.approx(1000 * flow.s, abs=0.01)


def test_a_flows_steps_have_ddpms_noise_where_it_is_asked_for(pipeline: StableDiffusionPipeline) -> None:
    """By the stochastic form of the solver; the pipeline's own scheduler stays, and another amount is refused."""
    flow, usual = scheduler_for("flow_prediction", pipeline.scheduler), pipeline.scheduler
    noise, how = first_latents(pipeline, SEEDS, 64), Solver(1.0, 5, 3, eta=1.0)
    pipeline.scheduler = flow
    try:
        (noisy,) = trajectories(pipeline, PROMPTS, noise, SEEDS, how, keep=[1])
        (calm,) = trajectories(pipeline, PROMPTS, noise, SEEDS, how._replace(eta=0.0), keep=[1])
        assert pipeline.scheduler is flow
    finally:
        pipeline.scheduler = usual
    drawn = torch.cat([torch.randn((1, *noise.shape[1:]), generator=each) for each in noise_generators(SEEDS)])
    (_, levels) = step_levels(flow, 5)
    assert levels[0].tolist() == pytest.approx([0.001, 0.999, 0.2, 0.8], abs=1e-3)
    # from nearly pure noise: the same guess of the picture, and all noise new
    s_next = float(levels[0, 3])
    torch.testing.assert_close(noisy.kept[1] - s_next * drawn, calm.kept[1] - s_next * noise, rtol=0, atol=0.03)
    assert solving(flow, 0.0) is flow
    with pytest.raises(ValueError, match=r"eta: 0\.5 is no noise of DPM-Solver"):
        solving(flow, 0.5)


def test_levels_before_and_after_steps_are_the_grids() -> None:
    """Each step begins where the one before it ends, and the first with the scheduler's noisiest state."""
    for scheduler in (DDIMScheduler(set_alpha_to_one=False), scheduler_for("flow_prediction", DDIMScheduler())):
        times, levels = step_levels(scheduler, 10)
        assert levels.shape == (10, 4)
        torch.testing.assert_close(levels[1:, :2], levels[:-1, 2:])
        for number in range(1, 10):
            place = level(scheduler, 10, number / 10)
            assert place.t == float(times[number])
            assert levels[number, :2].tolist() == pytest.approx([place.alpha, place.s], abs=1e-6)
    ddim = DDIMScheduler(set_alpha_to_one=False)
    assert float(step_levels(ddim, 10)[1][-1, 2]) == pytest.approx(float(ddim.final_alpha_cumprod.sqrt()))
    assert step_levels(scheduler, 10)[1][-1].tolist()[2:] == [1.0, 0.0]  # of a flow, the data themselves


@pytest.mark.parametrize("share", [0.0, 0.04, 0.96, 1.0])
def test_a_level_needs_a_step_on_both_sides(share: float) -> None:
    with pytest.raises(ValueError, match="leaves one part without any"):
        level(DDIMScheduler(), 10, share)


def test_conditions_are_those_of_the_pipeline(pipeline: StableDiffusionPipeline) -> None:
    """The denoiser is given what it was given in sampling; the empty prompt where it is asked for."""
    noise, times = first_latents(pipeline, SEEDS, 64), torch.tensor([5, 900, 20])
    call = Prompted.of(pipeline, PROMPTS, noise).call(pipeline.unet, [2, 0, 1])
    words = pipeline.encode_prompt([PROMPTS[2], PROMPTS[0], ""], pipeline.device, 1, False)[0]
    with torch.no_grad():
        expected = pipeline.unet(noise, times, words).sample
        assert torch.equal(call(noise, times, [0, 1, 2], [False, False, True]), expected)
    assert not pipeline.unet._forward_pre_hooks


def test_numbers_that_differ_are_refused(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(ValueError, match="expected as many, got 3, 3, 2"):
        list(trajectories(pipeline, PROMPTS, torch.zeros(3, 4, 8, 8), SEEDS[:2], Solver(1.0, 2, 2)))
