"""First latents that carry a mean: the coefficients of Stable Diffusion's own schedule, and statistics."""

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from atelier.methods.signal_leak import carrying


def ddim(spacing: str) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing=spacing, steps_offset=1
    )


@pytest.mark.parametrize(
    ("spacing", "alpha", "s"), [("leading", 0.0759967, 0.9971081), ("trailing", 0.0682649, 0.9976672)]
)
def test_coefficients_are_those_of_the_first_step_that_the_scheduler_takes(
    spacing: str, alpha: float, s: float
) -> None:
    one, none = torch.ones(1, 4, 1, 1), torch.zeros(1, 4, 8, 8)
    assert carrying(one, none, ddim(spacing), 50).flatten().tolist() == pytest.approx([alpha] * 256, abs=1e-6)
    assert carrying(0 * one, none + 1, ddim(spacing), 50).flatten().tolist() == pytest.approx([s] * 256, abs=1e-6)


def test_a_flow_begins_in_noise_and_a_scheduler_is_left_as_it_was() -> None:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    flow = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    assert torch.equal(carrying(torch.ones(1, 4, 1, 1), noise, flow, 20), noise)
    scheduler = ddim("leading")
    before = scheduler.timesteps.clone()
    carrying(torch.ones(1, 4, 1, 1), noise, scheduler, 50)
    assert torch.equal(scheduler.timesteps, before)


def test_the_mean_is_added_and_the_noise_stays_white() -> None:
    n = 4000
    means = torch.tensor([3.0, -1.0]).view(1, 2, 1, 1).expand(n, 2, 1, 1)
    noise = torch.randn(n, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    latents = carrying(means, noise, ddim("leading"), 50)
    assert latents.shape == noise.shape
    for channel, mean in enumerate((3.0, -1.0)):
        values = latents[:, channel].flatten()
        assert float(values.mean()) == pytest.approx(0.0759967 * mean, abs=5 / len(values) ** 0.5)
        assert float(values.var()) == pytest.approx(0.9971081**2, abs=5 * (2 / len(values)) ** 0.5)
