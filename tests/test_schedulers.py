"""Every scheduler class that diffusers exports either says its first step, and rightly, or is refused in one line."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, schedulers
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin

from atelier.methods.signal_leak import PixelLeak, add_leak, first_step, initial_latents
from atelier.models.schedulers import started

STEPS = 20
NAMES = sorted(name for name in dir(schedulers) if name.endswith("Scheduler"))
ARGUMENTS: dict[str, dict[str, object]] = {  # what a class cannot be built without
    "AmusedScheduler": {"mask_token_id": 3},
    "VQDiffusionScheduler": {"num_vec_classes": 5},
    "RFD4ProteinaScheduler": {"schedule_mode": "log", "noise_mode": "tan", "tsr_k": 1.0, "tsr_sigma": 1.0},
}
# no noise can be added, or not with a number of steps alone; tokens; steps that go from a picture to noise
REFUSED = {
    "AmusedScheduler", "BlockRefinementScheduler", "ConsistencyDecoderScheduler", "DDIMInverseScheduler",
    "DPMSolverMultistepInverseScheduler", "DiscreteDDIMScheduler", "EntropyBoundScheduler", "HeliosDMDScheduler",
    "HeliosScheduler", "IPNDMScheduler", "KarrasVeScheduler", "LTXEulerAncestralRFScheduler", "PiflowScheduler",
    "RFD4ProteinaScheduler", "RePaintScheduler", "SCMScheduler", "ScoreSdeVeScheduler", "ScoreSdeVpScheduler",
    "VQDiffusionScheduler",
}  # fmt: skip
LEAK = PixelLeak(np.full((4, 8, 8), 2.0), np.ones((4, 8, 8)), 10)


def built(name: str) -> SchedulerMixin:
    """The scheduler with its defaults; a class that needs a package that is not installed skips the test."""
    try:
        return getattr(schedulers, name)(**ARGUMENTS.get(name, {}))
    except ImportError as error:
        pytest.skip(" ".join(str(error).split())[:80])


def calls(scheduler: SchedulerMixin, steps: int = STEPS) -> list[Callable[[], object]]:
    """The three ways in which a scheduler is used."""
    z = torch.ones(2, 4, 8, 8)
    return [
        lambda: first_step(scheduler, steps),
        lambda: add_leak(z, z, scheduler, steps),
        lambda: initial_latents(LEAK, scheduler, 2, torch.Generator().manual_seed(0), steps),
    ]


def refusals(scheduler: SchedulerMixin) -> set[str]:
    """What each use of a scheduler says; empty where all work."""
    said = []
    for call in calls(scheduler):
        try:
            call()
        except ValueError as error:
            said.append(str(error))
    assert len(said) in (0, 3), said
    return set(said)


@pytest.mark.filterwarnings("ignore:.*holds no signal")
@pytest.mark.parametrize("name", NAMES)
def test_a_scheduler_says_its_first_step_or_is_refused_by_name(name: str) -> None:
    scheduler = built(name)
    lines = refusals(scheduler)
    assert bool(lines) == (name in REFUSED)
    if lines:
        (line,) = lines
        assert line.startswith(f"{name}: ")
        assert "lacks" in line
        assert "\n" not in line
        return
    step, fresh = first_step(scheduler, STEPS), type(scheduler).from_config(scheduler.config)
    noise, leak = (torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(seed)).double() for seed in (1, 2))
    fresh.set_timesteps(STEPS)
    shown = add_leak(leak, noise, scheduler, STEPS) * getattr(fresh, "init_noise_sigma", 1.0)
    if hasattr(fresh, "scale_model_input"):
        shown = fresh.scale_model_input(shown, fresh.timesteps[0])
    torch.testing.assert_close(shown, step.alpha * leak + step.s * noise, rtol=0, atol=1e-5)
    assert is_a_mixture(scheduler, step.alpha, step.s)


def is_a_mixture(scheduler: SchedulerMixin, alpha: float, s: float) -> bool:
    """By the schedule that a class has beside its ``add_noise``, or by what its paper says of alpha and s."""
    if hasattr(scheduler, "alphas_cumprod"):
        step = first_step(scheduler, STEPS)
        kept = float(scheduler.alphas_cumprod[round(float(step.time))])
        return [alpha, s] == pytest.approx([kept**0.5, (1 - kept) ** 0.5], abs=1e-4)
    variance = scheduler.config.get("sigma_data", 1.0) ** 2
    flow, preserving = alpha + s, variance * alpha**2 + s**2
    return flow == pytest.approx(1, abs=1e-6) or preserving == pytest.approx(1, abs=1e-4)


def test_most_classes_of_diffusers_work() -> None:
    """The README's sentence."""
    assert len(NAMES) > 40
    works = [name for name in NAMES if name not in REFUSED]
    print(f"\n{len(works)} of {len(NAMES)} classes work: {', '.join(works)}")
    assert len(works) >= 30
    assert {kind.name for kind in KarrasDiffusionSchedulers} <= set(works)


@pytest.mark.parametrize(
    ("steps", "kind", "said"),
    [
        (0, ValueError, "steps must be at least 1, got 0"),
        (-3, ValueError, "steps must be at least 1, got -3"),
        (2.5, TypeError, "steps must be a whole number, got float 2.5"),
        (True, TypeError, "steps must be a whole number, got bool True"),
        (5000, ValueError, "DDIMScheduler: .*timesteps that a number of steps, 5000, sets alone"),
    ],
)
def test_steps_that_cannot_be_taken_are_refused(steps: object, kind: type[Exception], said: str) -> None:
    for call in calls(DDIMScheduler(), steps):  # type: ignore[arg-type]
        with pytest.raises(kind, match=said) as refused:
            call()
        assert "\n" not in str(refused.value)


def test_a_single_step_has_a_direction_too() -> None:
    with pytest.raises(ValueError, match="go from a picture to noise"):
        first_step(schedulers.DPMSolverMultistepInverseScheduler(), 1)
    assert first_step(DDIMScheduler(timestep_spacing="trailing"), 1).s > 0.99


class Mixing(DDIMScheduler):
    """A scheduler of somebody's, whose ``add_noise`` is another function each time."""

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return original_samples * noise + 1


def test_what_is_no_mixture_or_no_scheduler_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Mixing: .* lacks an add_noise that returns alpha signal \+ s noise"):
        first_step(Mixing(), 5)
    for value in (None, 3, "ddim"):
        with pytest.raises(ValueError, match=f"{type(value).__name__}: a scheduler that cannot add noise"):
            first_step(value, 5)


def test_a_refused_call_draws_nothing_and_a_scheduler_is_left_as_it_was() -> None:
    generator = torch.Generator().manual_seed(4)
    before = generator.get_state()
    with pytest.raises(ValueError, match="IPNDMScheduler"):
        initial_latents(LEAK, schedulers.IPNDMScheduler(), 2, generator, STEPS)
    assert torch.equal(generator.get_state(), before)
    scheduler = DDIMScheduler()
    timesteps = scheduler.timesteps.clone()
    started(scheduler, 3)
    assert torch.equal(scheduler.timesteps, timesteps)


@pytest.mark.parametrize(
    ("n", "generators", "kind", "said"),
    [
        (0, [], ValueError, "n must be at least 1, got 0"),
        (0, None, ValueError, "n must be at least 1, got 0"),
        (2, [], ValueError, "generator: expected one generator or 2, got 0"),
        (3, [1, 2], ValueError, "generator: expected one generator or 3, got 2"),
        (2.0, None, TypeError, "n must be a whole number"),
        (1, "numpy", TypeError, r"generator: expected a torch\.Generator, got Generator"),
    ],
)
def test_pictures_and_generators_must_be_as_many(n, generators, kind: type[Exception], said: str) -> None:
    seeded = [torch.Generator().manual_seed(seed) for seed in generators] if isinstance(generators, list) else None
    one = np.random.default_rng(0) if generators == "numpy" else torch.Generator()
    with pytest.raises(kind, match=said):
        initial_latents(LEAK, DDIMScheduler(), n, one if seeded is None else seeded, STEPS)  # type: ignore[arg-type]
