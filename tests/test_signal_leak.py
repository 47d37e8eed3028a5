"""Signal leaks: statistics in one pass, an exact split of frequencies, first latents right for every scheduler."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    IPNDMScheduler,
    KDPM2DiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from atelier.diffusion import scaled_linear_betas, signal_and_noise
from atelier.methods.signal_leak import (
    FrequencyLeak,
    Leak,
    PixelLeak,
    add_leak,
    covariance_from_white_noise,
    frequency_snr,
    from_low_components,
    initial_latents,
    load,
    low_components,
    lowest_frequencies,
    mean_of_posterior,
    save,
)
from atelier.models import base
from shapes import text_of

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ddim(spacing: str, **kind: object) -> DDIMScheduler:
    return DDIMScheduler(**SD, timestep_spacing=spacing, steps_offset=1, **kind)


# ------------------------------------------------------------------------------------------------ frequencies


def test_the_constant_term_of_a_constant_latent_is_its_side_times_it() -> None:
    z = np.broadcast_to(np.array([3.0, -0.5])[None, :, None, None], (1, 2, 64, 64))
    assert low_components(z, [(0, 0)])[0, 0] == pytest.approx([64 * 3.0, -32.0], rel=1e-12)


def test_coefficients_are_the_sums_of_cosines_that_define_them() -> None:
    z = np.random.default_rng(1).normal(size=(2, 3, 4, 6))
    rows, columns = np.arange(4) + 0.5, np.arange(6) + 0.5
    for u, v in [(0, 0), (1, 0), (0, 3), (2, 5)]:
        wave = np.outer(np.cos(np.pi * rows * u / 4), np.cos(np.pi * columns * v / 6))
        scale = ((1 if u == 0 else 2) / 4 * (1 if v == 0 else 2) / 6) ** 0.5
        expected = scale * (z * wave).sum(axis=(2, 3))
        np.testing.assert_allclose(low_components(z, [(u, v)])[:, 0], expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 8), (6, 10)])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_low_and_high_frequencies_make_the_whole(shape: tuple[int, int], count: int) -> None:
    z = np.random.default_rng(2).normal(size=(3, 4, *shape))
    chosen = lowest_frequencies(*shape, count)
    low = from_low_components(low_components(z, chosen), chosen, shape)
    rest = z - low
    np.testing.assert_allclose(low_components(rest, chosen), 0.0, atol=1e-12)
    np.testing.assert_allclose((low * rest).sum(axis=(2, 3)), 0.0, atol=1e-11)  # orthogonal
    np.testing.assert_allclose(low_components(low, chosen), low_components(z, chosen), atol=1e-12)


@pytest.mark.parametrize(
    ("count", "taken"), [(0, 0), (1, 1), (2, 3), (3, 3), (4, 4), (5, 6), (6, 6), (10, 11), (64, 64)]
)
def test_equal_frequencies_are_taken_together(count: int, taken: int) -> None:
    chosen = lowest_frequencies(8, 8, count)
    assert len(chosen) == taken
    assert {(v, u) for u, v in chosen} == set(chosen)  # no direction is favoured
    if chosen:
        others = [u**2 + v**2 for u in range(8) for v in range(8) if (u, v) not in chosen]
        assert min(others, default=999) > max(u**2 + v**2 for u, v in chosen)


def test_frequencies_of_an_oblong_are_told_apart_by_cycles_a_length() -> None:
    assert lowest_frequencies(8, 16, 3) == [(0, 0), (0, 1), (0, 2), (1, 0)]  # two along it are as long as one across
    with pytest.raises(ValueError, match="from 0 to 64, got 65"):
        lowest_frequencies(8, 8, 65)


# ------------------------------------------------------------------------------------------------ fitting


def correlated(n: int, seed: int = 5) -> torch.Tensor:
    """Latents (n, 2, 4, 4) whose channels share a mean, far from zero."""
    own = generator(seed)
    shared = torch.randn(n, 1, 1, 1, generator=own, dtype=torch.float64)
    return (
        1e4
        + shared * torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
        + torch.randn(n, 2, 4, 4, generator=own, dtype=torch.float64)
    )


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_one_pass_in_batches_gives_the_statistics_of_all(batch: int) -> None:
    z = correlated(50)
    pixel = PixelLeak.fit(z.split(batch))
    np.testing.assert_allclose(pixel.mean, z.mean(0).numpy(), rtol=1e-13)
    np.testing.assert_allclose(pixel.std, z.std(0, unbiased=True).numpy(), rtol=1e-8)
    assert pixel.n == 50
    leak = FrequencyLeak.fit(z.split(batch), frequencies=3)
    low = low_components(z.numpy(), leak.frequencies).reshape(50, -1)
    np.testing.assert_allclose(leak.low_mean, low.mean(axis=0), rtol=1e-13, atol=1e-9)
    np.testing.assert_allclose(leak.low_covariance, np.cov(low.T), atol=1e-7)
    rest = z.numpy() - from_low_components(low.reshape(50, 3, 2), leak.frequencies, (4, 4))
    np.testing.assert_allclose(leak.rest.std, rest.std(axis=0, ddof=1), rtol=1e-7)
    assert leak.n == 50


def test_several_leaks_of_one_reading_are_those_of_several() -> None:
    z = correlated(20)
    batches = iter(z.split(7))  # read once: there is no second time
    for number, leak in zip((0, 1, 3), FrequencyLeak.fit_several(batches, [0, 1, 3]), strict=True):
        alone = FrequencyLeak.fit(z.split(7), number)
        assert leak.frequencies == alone.frequencies
        np.testing.assert_array_equal(leak.low_covariance, alone.low_covariance)
        np.testing.assert_array_equal(leak.rest.std, alone.rest.std)


def test_without_frequencies_the_rest_is_all() -> None:
    z = correlated(20)
    leak, pixel = FrequencyLeak.fit([z], frequencies=0), PixelLeak.fit([z])
    np.testing.assert_array_equal(leak.rest.std, pixel.std)
    assert torch.equal(leak.sample(3, generator(1)), pixel.sample(3, generator(1)))


def test_latents_that_cannot_be_fitted_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two pictures, got 1"):
        PixelLeak.fit([torch.zeros(1, 4, 8, 8)])
    with pytest.raises(ValueError, match="at least two pictures, got 0"):
        FrequencyLeak.fit([], frequencies=3)
    with pytest.raises(ValueError, match="several shapes"):
        PixelLeak.fit([torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 4)])
    with pytest.raises(ValueError, match="finite"):
        PixelLeak.fit([torch.full((2, 4, 8, 8), float("nan"))])
    with pytest.raises(ValueError, match="shaped"):
        PixelLeak.fit([torch.zeros(2, 8, 8)])


# ------------------------------------------------------------------------------------------------ sampling


def test_low_frequencies_are_sampled_as_they_were_fitted() -> None:
    """Mean and covariance within 5 standard errors, before the rest is added."""
    leak, n = FrequencyLeak.fit([correlated(40)], frequencies=3), 20_000
    alone = leak._replace(rest=leak.rest._replace(mean=0 * leak.rest.mean, std=0 * leak.rest.std))
    found = low_components(alone.sample(n, generator(3)).double().numpy(), leak.frequencies).reshape(n, -1)
    variances = np.diag(leak.low_covariance)
    assert (np.abs(found.mean(axis=0) - leak.low_mean) < 5 * np.sqrt(variances / n) + 1e-2).all()  # float32 of 4e4
    spread = np.sqrt((np.outer(variances, variances) + leak.low_covariance**2) / n)
    assert (np.abs(np.cov(found.T) - leak.low_covariance) < 5 * spread + 1e-2).all()
    assert abs(leak.low_covariance[0, 1]) > 5 * spread[0, 1]  # there is something to find


def test_elements_are_sampled_as_they_were_fitted() -> None:
    leak, n = PixelLeak.fit([torch.randn(30, 3, 4, 4, generator=generator(8)) * 2 + 1]), 20_000
    found = leak.sample(n, generator(4))
    assert found.dtype == torch.float32
    assert (np.abs(found.mean(0).numpy() - leak.mean) < 5 * leak.std / n**0.5).all()
    assert (np.abs(found.std(0).numpy() - leak.std) < 5 * leak.std / (2 * n) ** 0.5).all()


def test_fewer_pictures_than_coefficients_vary_as_those_pictures_do() -> None:
    z = torch.randn(7, 4, 8, 8, generator=generator(6))
    leak = FrequencyLeak.fit([z], frequencies=3)  # 12 coefficients
    assert leak.n == 7
    assert np.linalg.matrix_rank(leak.low_covariance) == 6
    alone = leak._replace(rest=leak.rest._replace(mean=0 * leak.rest.mean, std=0 * leak.rest.std))
    found = low_components(alone.sample(5000, generator(2)).double().numpy(), leak.frequencies).reshape(5000, -1)
    seen = low_components(z.double().numpy(), leak.frequencies).reshape(7, -1)
    span = np.linalg.svd(seen - seen.mean(axis=0))[2][:6]
    off = (found - leak.low_mean) - (found - leak.low_mean) @ span.T @ span
    assert np.abs(off).max() < 1e-4
    assert np.isfinite(found).all()


def test_components_can_be_set_and_nothing_else_changes() -> None:
    z = torch.randn(20, 4, 8, 8, generator=generator(9))
    leak = FrequencyLeak.fit([z], frequencies=1)
    low = torch.zeros(3, 1, 4)
    low[:, 0, 2] = torch.tensor([-16.0, 0.0, 16.0])  # a mean of -2, 0, 2
    made, plain = leak.sample(3, generator(1), low), leak.sample(3, generator(1), 0 * low)
    expected = torch.zeros(3, 4, 8, 8)
    expected[:, 2] = torch.tensor([-2.0, 0.0, 2.0]).view(3, 1, 1)
    torch.testing.assert_close(made - plain, expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"expected shape \(3, 1, 4\)"):
        leak.sample(3, generator(1), torch.zeros(3, 4))


# ------------------------------------------------------------------------------------------------ schedulers

SCHEDULERS = [
    DDIMScheduler,
    PNDMScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
    EulerDiscreteScheduler,
    EulerAncestralDiscreteScheduler,
    LMSDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
]


def first_input(latents: torch.Tensor, scheduler: SchedulerMixin, steps: int) -> torch.Tensor:
    """What a pipeline of diffusers shows its denoiser first when it is given ``latents``."""
    scheduler.set_timesteps(steps)
    return scheduler.scale_model_input(latents * scheduler.init_noise_sigma, scheduler.timesteps[0])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("kind", SCHEDULERS, ids=lambda kind: kind.__name__)
def test_the_denoiser_first_sees_what_training_shows_it(
    kind: type[SchedulerMixin], spacing: str, prediction: str
) -> None:
    scheduler = kind(**SD, timestep_spacing=spacing, steps_offset=1, prediction_type=prediction)
    noise = torch.randn(400, 4, 4, 4, generator=generator(1), dtype=torch.float64)
    leak = 3.0 + 2.0 * torch.randn(400, 4, 4, 4, generator=generator(2), dtype=torch.float64)
    latents = add_leak(leak, noise, scheduler, 50)
    fresh = kind.from_config(scheduler.config)
    fresh.set_timesteps(50)
    alphas, sigmas = signal_and_noise(scaled_linear_betas(SD["beta_start"], SD["beta_end"]))
    t = round(float(fresh.timesteps[0]))
    seen = first_input(latents, fresh, 50)
    torch.testing.assert_close(seen, alphas[t] * leak + sigmas[t] * noise, rtol=0, atol=1e-4)
    alpha, s = float(alphas[t]), float(sigmas[t])
    assert float(seen.mean()) == pytest.approx(3 * alpha, abs=5 / seen.numel() ** 0.5)
    assert float(seen.var()) == pytest.approx((2 * alpha) ** 2 + s**2, abs=5 * (2 / seen.numel()) ** 0.5)


@pytest.mark.parametrize(
    ("spacing", "alpha", "s"), [("leading", 0.0759967, 0.9971081), ("trailing", 0.0682649, 0.9976672)]
)
def test_coefficients_are_those_of_the_first_step_that_the_scheduler_takes(
    spacing: str, alpha: float, s: float
) -> None:
    one, none = torch.ones(1, 4, 1, 1), torch.zeros(1, 4, 8, 8)
    assert add_leak(one, none, ddim(spacing), 50).flatten().tolist() == pytest.approx([alpha] * 256, abs=1e-6)
    assert add_leak(0 * one, none + 1, ddim(spacing), 50).flatten().tolist() == pytest.approx([s] * 256, abs=1e-6)


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=1),
        ddim("trailing", rescale_betas_zero_snr=True),
        EulerDiscreteScheduler(**SD, timestep_spacing="trailing", rescale_betas_zero_snr=True),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_where_the_first_step_holds_no_signal_a_leak_is_nothing_and_it_says_so(scheduler: SchedulerMixin) -> None:
    noise = torch.randn(2, 4, 8, 8, generator=generator(2))
    with pytest.warns(UserWarning, match="holds no signal"):
        latents = add_leak(torch.ones(2, 4, 8, 8), noise, scheduler, 20)
    torch.testing.assert_close(latents, noise, rtol=0, atol=6e-3)


def test_a_scheduler_that_cannot_add_noise_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="IPNDMScheduler: a scheduler that cannot add noise"):
        add_leak(torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8), IPNDMScheduler(), 20)


def test_a_scheduler_is_left_as_it_was() -> None:
    scheduler = ddim("leading")
    before = scheduler.timesteps.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add_leak(torch.ones(1, 4, 1, 1), torch.randn(1, 4, 8, 8, generator=generator(1)), scheduler, 50)
    assert torch.equal(scheduler.timesteps, before)


def test_white_pictures_give_white_first_latents() -> None:
    """q0 = N(0, I): the first latent is N(0, I), too, element by element and between elements."""
    white = FrequencyLeak.fit(torch.randn(4000, 1, 4, 4, generator=generator(1)).split(500), frequencies=0)
    latents = initial_latents(white, ddim("leading"), 4000, generator(2), 50).flatten(1).double()
    assert (latents.mean(0).abs() < 5 / 4000**0.5).all()
    error = torch.cov(latents.T) - torch.eye(16)
    assert float(error.abs().max()) < 5 * (2 / 4000) ** 0.5


def test_the_noise_is_what_the_generator_gives_without_a_leak() -> None:
    leak = PixelLeak.fit([torch.randn(9, 4, 8, 8, generator=generator(3)) + 5])
    latents = initial_latents(leak, ddim("leading"), 4, generator(7), 50)
    noise = torch.randn(4, 4, 8, 8, generator=generator(7))
    own = generator(7)
    torch.randn(4, 4, 8, 8, generator=own)
    expected = add_leak(leak.sample(4, own), noise, ddim("leading"), 50)
    assert torch.equal(latents, expected)


def test_a_picture_with_its_own_generator_does_not_depend_on_the_others() -> None:
    leak = FrequencyLeak.fit([torch.randn(9, 4, 8, 8, generator=generator(3))], frequencies=3)
    three = initial_latents(leak, ddim("leading"), 3, [generator(seed) for seed in (1, 2, 3)], 50)
    alone = initial_latents(leak, ddim("leading"), 1, [generator(2)], 50)
    assert torch.equal(three[1:2], alone)
    with pytest.raises(ValueError, match="expected one generator or 3, got 2"):
        initial_latents(leak, ddim("leading"), 3, [generator(1), generator(2)], 50)


def test_snr_by_frequency() -> None:
    alphas, sigmas = signal_and_noise(scaled_linear_betas(SD["beta_start"], SD["beta_end"]))
    alpha, s = float(alphas[-1]), float(sigmas[-1])
    z = np.random.default_rng(3).normal(size=(2000, 1, 4, 4)) + 2.0
    square = np.square(low_components(z, lowest_frequencies(4, 4, 16))).mean(axis=(0, 2))
    found = frequency_snr(square, alpha, s)
    assert found[0] == pytest.approx(0.0046820 * (4 * 4 * 4 + 1), rel=0.02)  # mean 2 on 4 x 4: 8, squared 64
    assert found[1:] == pytest.approx(0.0046820, rel=0.2)
    with pytest.raises(ValueError, match="must be positive"):
        frequency_snr(square, 1.0, 0.0)


def test_the_best_guess_of_gaussians_is_regressions() -> None:
    mix = np.random.default_rng(1).normal(size=(3, 3))
    covariance, alpha, s = mix @ mix.T, 0.5, 0.8
    z0 = np.random.default_rng(2).multivariate_normal(np.zeros(3), covariance, 200_000)
    zt = alpha * z0 + s * np.random.default_rng(3).normal(size=z0.shape)
    found = np.linalg.lstsq(zt, z0, rcond=None)[0].T
    np.testing.assert_allclose(mean_of_posterior(covariance, alpha, s), found, atol=0.02)
    # of one coefficient, the text's formula
    assert mean_of_posterior(np.array([[3.0]]), alpha, s)[0, 0] == pytest.approx(alpha * 3 / (alpha**2 * 3 + s**2))


def test_ddim_with_a_perfect_denoiser_leaves_the_spread_that_theory_says() -> None:
    """A thousand DDIM steps with the exact denoiser of correlated Gaussians, from white noise."""
    mix = np.random.default_rng(4).normal(size=(3, 3))
    covariance = 20 * mix @ mix.T  # strong beside the noise of the last step, as a picture's mean is
    scheduler = DDIMScheduler(**SD, set_alpha_to_one=True, clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(1000)
    alphas, sigmas = signal_and_noise(scheduler.betas)
    x = torch.eye(3, dtype=torch.float64)  # linear, so that the unit vectors tell all
    for t in scheduler.timesteps:
        alpha, s = float(alphas[t]), float(sigmas[t])
        guess = torch.from_numpy(mean_of_posterior(covariance, alpha, s)) @ x
        x = scheduler.step((x - alpha * guess) / s, t, x).prev_sample
    expected = covariance_from_white_noise(covariance, float(alphas[-1]), float(sigmas[-1]))
    np.testing.assert_allclose((x @ x.T).numpy(), expected, rtol=0.02, atol=0.02 * expected.max())


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("frequencies", [None, 0, 3])
def test_a_leak_comes_back_as_it_was_saved(frequencies: int | None, tmp_path: Path) -> None:
    z = torch.randn(9, 4, 8, 6, generator=generator(3))
    leak: Leak = PixelLeak.fit([z]) if frequencies is None else FrequencyLeak.fit([z], frequencies)
    save(leak, tmp_path / "leak.safetensors", {"pictures": "nine", "vae": "abc"})
    again, provenance = load(tmp_path / "leak.safetensors")
    assert provenance == {"pictures": "nine", "vae": "abc"}
    assert type(again) is type(leak)
    assert again.n == 9
    assert torch.equal(again.sample(2, generator(1)), leak.sample(2, generator(1)))
    first = (tmp_path / "leak.safetensors").read_bytes()
    save(leak, tmp_path / "leak.safetensors", {"vae": "abc", "pictures": "nine"})
    assert (tmp_path / "leak.safetensors").read_bytes() == first


def test_files_that_hold_no_leak_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "leak.safetensors"
    with pytest.raises(ValueError, match="not a readable signal leak"):
        load(path)
    leak = FrequencyLeak.fit([torch.randn(9, 4, 8, 8, generator=generator(3))], frequencies=3)
    save(leak, path, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match="not a readable signal leak"):
        load(path)
    for wrong in (
        leak._replace(low_mean=leak.low_mean[:-1]),
        leak._replace(frequencies=[(0, 0), (0, 1), (9, 0)]),
        leak._replace(low_covariance=leak.low_covariance * np.nan),
        leak._replace(rest=leak.rest._replace(std=-leak.rest.std)),
        leak._replace(rest=leak.rest._replace(mean=leak.rest.mean[0])),
    ):
        save(wrong, path, {})
        with pytest.raises(ValueError, match="not a readable signal leak"):
            load(path)


# ------------------------------------------------------------------------------------------------ pipelines


def tiny_sd() -> StableDiffusionPipeline:
    return base.build("tiny", 64, ["a boat at night"], seed=1)


def tiny_sdxl() -> StableDiffusionXLPipeline:
    words = base.build("tiny", 64, ["a boat at night"], seed=1).tokenizer
    torch.manual_seed(1)
    text = text_of(words)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), use_linear_projection=True, transformer_layers_per_block=(1, 1),
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 6 * 8,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, norm_num_groups=4, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae, CLIPTextModel(text), CLIPTextModelWithProjection(text), words, words, unet,
        EulerDiscreteScheduler(**SD, timestep_spacing="leading", steps_offset=1),
    )  # fmt: skip


@pytest.mark.parametrize("kind", [tiny_sd, tiny_sdxl], ids=lambda kind: kind.__name__)
def test_a_pipeline_from_disk_begins_with_the_leak(kind: Callable[[], DiffusionPipeline], tmp_path: Path) -> None:
    """Through the public function alone; an oblong picture; the denoiser's first input is the training's."""
    kind().save_pretrained(tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    channels, steps = pipeline.unet.config.in_channels, 4
    leak = FrequencyLeak.fit([4.0 + torch.randn(20, channels, 8, 12, generator=generator(3))], frequencies=3)
    latents = initial_latents(leak, pipeline.scheduler, 2, generator(1), steps)
    seen = []
    pipeline.unet.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    pictures = pipeline(
        ["a boat", "night"], latents=latents, num_inference_steps=steps, guidance_scale=1.0, height=64, width=96,
        output_type="np",
    ).images  # fmt: skip
    assert pictures.shape == (2, 64, 96, 3)
    assert np.isfinite(pictures).all()
    assert len(seen) == steps  # no call more than without
    own = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    own.set_timesteps(steps)
    alphas, sigmas = signal_and_noise(own.betas)
    t = int(own.timesteps[0])
    noise = torch.randn(2, channels, 8, 12, generator=generator(1))
    after = generator(1)
    torch.randn(2, channels, 8, 12, generator=after)
    expected = float(alphas[t]) * leak.sample(2, after) + float(sigmas[t]) * noise
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-4)
