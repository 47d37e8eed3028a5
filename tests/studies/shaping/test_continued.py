"""Continued trajectories are the pipeline's own, and the divergence of chains is what Gaussian algebra says."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor

from atelier.models import base
from atelier.sampling.sampler import first_latents, with_ddim
from atelier.sampling.trajectories import Solver, trajectories
from atelier.studies.shaping import continued as module
from atelier.studies.shaping.continued import continued, path_divergence
from atelier.training.conversion import scheduler_for

PROMPTS = ["a red house by a lake", "two green trees", "a yellow boat"]
SEEDS = [("test", number) for number in range(3)]


@pytest.fixture(scope="module", params=["base", "flow"])
def pipeline(request: pytest.FixtureRequest) -> StableDiffusionPipeline:
    """By DDIM, and as a flow by its Euler's method, which has another name for noise at steps."""
    made = with_ddim(base.build("tiny", 64, PROMPTS, seed=1))
    if request.param == "flow":
        made.scheduler = scheduler_for("flow_prediction", made.scheduler)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_from_the_start_it_is_the_pipeline_s_own_trajectory(
    pipeline: StableDiffusionPipeline, guidance: float, one_thread: None
) -> None:
    first = first_latents(pipeline, SEEDS, 64)
    solver = Solver(guidance, 4, 3, eta=1.0)
    (made,) = trajectories(pipeline, PROMPTS, first, SEEDS, solver, keep=[2])
    again = continued(pipeline, PROMPTS, first, 0, SEEDS, solver)
    torch.testing.assert_close(again, made.last, rtol=1e-4, atol=1e-4)
    other = continued(pipeline, PROMPTS, first, 0, [("other", number) for number in range(3)], solver)
    assert (other - made.last).abs().mean() > 0.05


def test_without_noise_a_kept_state_leads_to_its_trajectory_s_end(
    pipeline: StableDiffusionPipeline, one_thread: None
) -> None:
    first, solver = first_latents(pipeline, SEEDS, 64), Solver(4.0, 4, 2)
    made = list(trajectories(pipeline, PROMPTS, first, SEEDS, solver, keep=[1, 3]))
    last = torch.cat([each.last for each in made])
    for number in (1, 3):
        states = torch.cat([each.kept[number] for each in made])
        torch.testing.assert_close(
            continued(pipeline, PROMPTS, states, number, SEEDS, solver), last, rtol=1e-4, atol=1e-4
        )
    assert (continued(pipeline, PROMPTS, states, 1, SEEDS, solver) - last).abs().mean() > 0.01  # the wrong step
    with pytest.raises(ValueError, match="expected as many"):
        continued(pipeline, PROMPTS, states[:2], 3, SEEDS, solver)


# ------------------------------------------------------------------------------------------------ divergence

SPREAD, SIDE = 0.5, 4  # variance of normal data


class Normal:
    """The exact denoiser of data that are N(mean, SPREAD), by element."""

    def __init__(self, scheduler: DDIMScheduler, mean: float) -> None:
        self.scheduler, self.mean = scheduler, mean

    def __call__(self, state: Tensor, t: Tensor, words: Tensor) -> SimpleNamespace:
        abar = self.scheduler.alphas_cumprod[int(t)]
        noise = (1 - abar).sqrt() * (state - abar.sqrt() * self.mean) / (abar * SPREAD + 1 - abar)
        return SimpleNamespace(sample=noise)


@pytest.fixture
def normal(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(module, "encode_prompts", lambda _, prompts: torch.zeros(len(prompts), 1, 1))
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False)
    return SimpleNamespace(unet=Normal(scheduler, 0.0), scheduler=scheduler, device=torch.device("cpu"))


class NormalFlow(Normal):
    """The exact velocity of such data on a flow's path."""

    def __call__(self, state: Tensor, t: Tensor, words: Tensor) -> SimpleNamespace:
        s = float(t) / 1000
        gain = (1 - s) * SPREAD / ((1 - s) ** 2 * SPREAD + s**2)
        return SimpleNamespace(sample=(state - self.mean - gain * (state - (1 - s) * self.mean)) / s)


def ends(pipeline: SimpleNamespace, mean: float, number: int, n: int, steps: int = 40) -> Tensor:
    """Last states of the chain whose first ``number`` steps are the tuned denoiser's."""
    first = torch.randn(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    seeds = [("end", row) for row in range(n)]
    denoiser, calls = type(pipeline.unet), iter(range(steps))

    def switching(state: Tensor, t: Tensor, words: Tensor) -> SimpleNamespace:
        now = denoiser(pipeline.scheduler, mean if next(calls) < number else 0.0)
        output: SimpleNamespace = now(state, t, words)
        return output

    chain = SimpleNamespace(unet=switching, scheduler=pipeline.scheduler, device=pipeline.device)
    return continued(chain, [""] * n, first, 0, seeds, Solver(1.0, steps, n, eta=1.0))


@pytest.mark.parametrize("number", [40, 20])
def test_paths_differ_by_at_least_as_much_as_their_ends(normal: SimpleNamespace, number: int) -> None:
    mean, n = 0.4, 400
    first = torch.randn(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    tuned, seeds = Normal(normal.scheduler, mean), [("path", row) for row in range(n)]
    paths = path_divergence(normal, tuned, [""] * n, first, seeds, Solver(1.0, 40, 100), number)
    assert paths.shape == (n,)
    # of normals with the same linear part, means alone differ, and by no chance: paths are all equally far apart
    torch.testing.assert_close(paths, paths.mean().expand(n), rtol=1e-3, atol=1e-6)
    shifted, still = (ends(normal, each, number, n).double() for each in (mean, 0.0))
    shift, spread = float((shifted - still).mean()), float(still.var())
    at_ends = SIDE**2 * shift**2 / (2 * spread)
    assert float(paths.mean()) > 0.99 * at_ends
    if number == 40:  # most of the data's own divergence; the chain starts from white noise in both
        assert float(paths.mean()) < 1.6 * at_ends
        assert at_ends == pytest.approx(SIDE**2 * mean**2 / (2 * SPREAD), rel=0.25)


@pytest.mark.parametrize("number", [1, 2])
def test_of_a_flow_s_pictures_it_is_a_bound_where_the_base_takes_the_last_step(
    normal: SimpleNamespace, number: int
) -> None:
    """Two steps from noise 1 to 0.5, with noise, and on to 0, without: of the second the result says nothing.

    An element of the state between is N(mean / 2, 1 / 4) by the tuned flow and N(0, 1 / 4) by the base.
    """
    mean, n, scheduler = 0.4, 400, scheduler_for("flow_prediction", normal.scheduler)
    flow = SimpleNamespace(unet=NormalFlow(scheduler, 0.0), scheduler=scheduler, device=normal.device)
    first, seeds = torch.randn(4, 1, SIDE, SIDE), [("path", row) for row in range(4)]
    paths = path_divergence(
        flow, NormalFlow(scheduler, mean), [""] * 4, first, seeds, Solver(1.0, 2, 4), None if number == 2 else number
    )
    torch.testing.assert_close(paths, torch.full((4,), SIDE**2 * mean**2 / 2).double(), rtol=0.01, atol=0)
    shifted, still = (ends(flow, each, number, n, steps=2).double() for each in (mean, 0.0))
    at_ends = SIDE**2 * float((shifted - still).mean()) ** 2 / (2 * float(still.var()))
    # the base's step maps both laws alike, so that nothing is lost; the tuned one's also shifts its own
    assert at_ends / float(paths.mean()) == pytest.approx(1 if number == 1 else 9, rel=0.1)


def test_a_denoiser_is_no_way_from_itself(normal: SimpleNamespace) -> None:
    paths = path_divergence(normal, normal.unet, [""] * 2, torch.randn(2, 1, SIDE, SIDE), SEEDS[:2], Solver(1.0, 10, 2))
    assert paths.tolist() == [0, 0]
