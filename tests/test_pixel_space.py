"""Losses on decoded latents: oracle 9, a linear decoder's metric, sums written out, slices, windows, graphs."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn

from atelier.diffusion import (
    KINDS,
    STABLE_DIFFUSION_BETAS,
    clean_estimate,
    flow_path,
    noise_estimate,
    noised,
    scaled_linear_betas,
    signal_and_noise,
)
from atelier.methods.pixel_space import clean_pixel_loss, cropped, pixel_error, pixel_errors, pixel_loss
from atelier.models import base
from atelier.models.autoencoders import Window
from atelier.models.latents import unscaled
from atelier.training.denoiser import target
from atelier.training.slices import in_slices

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = [0, 100, 500, 951, 999]
Decode = Callable[[Tensor], Tensor]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def levels(kind: str = "epsilon") -> tuple[Tensor, Tensor]:
    """Signal and noise at five steps of a schedule, (5, 1, 1, 1) each."""
    betas = scaled_linear_betas(*STABLE_DIFFUSION_BETAS)
    alpha, s = flow_path() if kind == "flow_prediction" else signal_and_noise(betas)
    return alpha[STEPS].view(-1, 1, 1, 1), s[STEPS].view(-1, 1, 1, 1)


def latents(side: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Clean latents, noise, and a prediction of it, (5, 4, side, side) each."""
    z0, eps, error = (randn(len(STEPS), 4, side, side, seed=seed) for seed in range(3))
    return z0, eps, eps + 0.3 * error


def network() -> nn.Module:
    """A small decoder, no linear one, that draws each sample's picture from that sample alone."""
    torch.manual_seed(3)
    layers = [nn.Conv2d(4, 6, 3, padding=1), nn.SiLU(), nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 3, padding=1)]
    return nn.Sequential(*layers).double().requires_grad_(False)


def autoencoder() -> AutoencoderKL:
    """Attention and group normalisation, as Stable Diffusion's decoder has them; 2 px a latent element."""
    torch.manual_seed(4)
    made = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    return made.double().eval().requires_grad_(False)


@pytest.fixture(params=["network", "autoencoder"])
def decode(request: pytest.FixtureRequest) -> Decode:
    if request.param == "network":
        return network()
    vae = autoencoder()
    return lambda z: vae.decode(unscaled(vae, z)).sample


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    """A loss's values, and the gradient of their sum."""
    x = at.detach().clone().requires_grad_()
    values = loss(x)
    return values.detach(), torch.autograd.grad(values.sum(), x)[0]


def close(actual: Tensor, expected: Tensor, share: float = 1e-12) -> None:
    """Equal up to a share of the largest number."""
    torch.testing.assert_close(actual, expected, rtol=share, atol=share * float(expected.abs().max()))


# ------------------------------------------------------------------------------------------------ values


def test_with_no_decoder_the_loss_is_the_noises_error_times_the_noise_squared() -> None:
    """Oracle 9: and ``s^2 / alpha^2`` times in the clean form, so that the ratio of both is ``alpha^2``."""
    (z0, eps, eps_hat), (alpha, s) = latents(), levels()
    error = (eps - eps_hat).square().mean((1, 2, 3))
    noisy = pixel_loss(lambda z: z, z0, eps, eps_hat, alpha, s)
    estimate = clean_estimate("epsilon", noised(z0, eps, alpha, s), eps_hat, alpha, s)
    clean = clean_pixel_loss(lambda z: z, z0, estimate)
    assert noisy.shape == clean.shape == (len(STEPS),)
    torch.testing.assert_close(noisy, s.flatten() ** 2 * error, rtol=1e-11, atol=0)
    torch.testing.assert_close(clean, (s / alpha).flatten() ** 2 * error, rtol=1e-11, atol=0)
    torch.testing.assert_close(noisy / clean, alpha.flatten() ** 2, rtol=1e-11, atol=0)
    abar = torch.cumprod(1 - scaled_linear_betas(*STABLE_DIFFUSION_BETAS), 0)[STEPS]
    torch.testing.assert_close(noisy, (1 - abar) * error, rtol=1e-11, atol=0)


def test_a_linear_decoders_loss_is_the_latent_loss_in_its_metric() -> None:
    """``s^2 e^T D^T D e`` over a picture's elements, for the error e of the noise; its gradient ``2 s^2 D^T D e``."""
    (z0, eps, eps_hat), (alpha, s) = latents(), levels()
    matrix = randn(4 * 36, 3 * 144, seed=7)
    metric = matrix @ matrix.T / len(matrix.T)
    values, found = gradient(
        lambda x: pixel_loss(lambda z: (z.flatten(1) @ matrix).view(-1, 3, 12, 12), z0, eps, x, alpha, s), eps_hat
    )
    error = (eps_hat - eps).flatten(1)
    close(values, s.flatten() ** 2 * ((error @ metric) * error).sum(1), 1e-11)
    close(found, (2 * s.view(-1, 1) ** 2 * (error @ metric)).view_as(eps), 1e-11)


def test_value_and_gradient_agree_with_equation_2_written_out(decode: Decode) -> None:
    """One sample at a time, both branches in one graph, of which the target is cut off by hand."""
    (z0, eps, eps_hat), (alpha, s) = latents(), levels()

    def by_hand(x: Tensor) -> Tensor:
        losses = []
        for i in range(len(STEPS)):
            a, b = alpha[i].item(), s[i].item()
            wanted = decode((a * z0[i] + b * eps[i])[None]).detach()
            gap = (wanted - decode((a * z0[i] + b * x[i])[None])).flatten()
            losses.append((gap @ gap) / gap.numel())
        return torch.stack(losses)

    found, expected = (
        gradient(loss, eps_hat) for loss in (lambda x: pixel_loss(decode, z0, eps, x, alpha, s), by_hand)
    )
    assert bool((expected[0] > 0).all())
    close(found[0], expected[0])
    close(found[1], expected[1])


@pytest.mark.parametrize("given", [False, True])
def test_value_and_gradient_agree_with_equation_8_written_out(decode: Decode, given: bool) -> None:
    (z0, eps, eps_hat), (alpha, s) = latents(), levels()
    zt = noised(z0, eps, alpha, s)
    x = decode(z0).detach() + (0.1 * randn(5, 3, 12, 12, seed=9) if given else 0)

    def by_hand(each: Tensor) -> Tensor:
        estimates = [(zt[i] - s[i].item() * each[i]) / alpha[i].item() for i in range(len(STEPS))]
        gaps = [(x[i] - decode(estimate[None])[0]).flatten() for i, estimate in enumerate(estimates)]
        return torch.stack([(gap @ gap) / gap.numel() for gap in gaps])

    def loss(each: Tensor) -> Tensor:
        return clean_pixel_loss(decode, z0, clean_estimate("epsilon", zt, each, alpha, s), x if given else None)

    found, expected = gradient(loss, eps_hat), gradient(by_hand, eps_hat)
    close(found[0], expected[0], 1e-11)
    close(found[1], expected[1], 1e-11)


def test_gradcheck() -> None:
    z0, eps, eps_hat = (x[:2, :, :2, :2].contiguous() for x in latents())
    alpha, s = (level[1:3] for level in levels())
    decoder = network()
    x = eps_hat.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pixel_loss(decoder, z0, eps, x, alpha, s), x)
    assert torch.autograd.gradcheck(lambda x: clean_pixel_loss(decoder, z0, x), x)
    assert torch.autograd.gradcheck(lambda x: noise_estimate("v_prediction", z0, x, alpha, s), x)
    assert torch.autograd.gradcheck(lambda x: noise_estimate("flow_prediction", z0, x, alpha, s), x)


def test_without_noise_or_error_there_is_no_loss_to_the_bit(decode: Decode) -> None:
    (z0, eps, eps_hat), (alpha, s) = latents(), levels()
    for predicted, noise in ((eps_hat, 0 * s), (eps, s)):
        values, found = gradient(lambda x, n=noise: pixel_loss(decode, z0, eps, x, alpha, n), predicted)
        assert torch.equal(values, torch.zeros_like(values))
        assert torch.equal(found, torch.zeros_like(found))
    values, found = gradient(lambda x: clean_pixel_loss(decode, z0, x), z0)
    assert torch.equal(values, torch.zeros_like(values))
    assert torch.equal(found, torch.zeros_like(found))


def test_without_signal_the_noisy_form_is_finite_and_the_clean_form_of_a_flow_too() -> None:
    """A flow's last step; an estimate from the noise divides by 0 there."""
    z0, eps, eps_hat = latents()
    none, all_noise = torch.zeros(5, 1, 1, 1, dtype=torch.float64), torch.ones(5, 1, 1, 1, dtype=torch.float64)
    decoder, zt = network(), noised(z0, eps, none, all_noise)
    assert bool(pixel_loss(decoder, z0, eps, eps_hat, none, all_noise).isfinite().all())
    flow = clean_estimate("flow_prediction", zt, eps_hat - z0, none, all_noise)
    assert bool(clean_pixel_loss(decoder, z0, flow).isfinite().all())
    noise = clean_estimate("epsilon", zt, eps_hat, none, all_noise)
    assert not bool(clean_pixel_loss(decoder, z0, noise).isfinite().any())


# ------------------------------------------------------------------------------------------------ parameterisations


@pytest.mark.parametrize("kind", KINDS)
def test_one_prediction_gives_one_loss_through_each_parameterisation(kind: str) -> None:
    """What a denoiser outputs if it holds that the noise was ``eps_hat``: the target of the latent that fits it."""
    (z0, eps, eps_hat), (alpha, s) = latents(), levels(kind)
    if kind == "flow_prediction":  # without signal, as at its last step, every latent fits
        z0, eps, eps_hat, alpha, s = (each[:-1] for each in (z0, eps, eps_hat, alpha, s))
    zt = noised(z0, eps, alpha, s)
    output = target(kind, (zt - s * eps_hat) / alpha, eps_hat, alpha, s)
    found = noise_estimate(kind, zt, output, alpha, s)
    close(found, eps_hat, 1e-11)
    close(*(pixel_loss(network(), z0, eps, each, alpha, s) for each in (found, eps_hat)), 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exact_output_gives_the_noise(kind: str) -> None:
    (z0, eps, _), (alpha, s) = latents(), levels(kind)
    found = noise_estimate(kind, noised(z0, eps, alpha, s), target(kind, z0, eps, alpha, s), alpha, s)
    torch.testing.assert_close(found, eps, rtol=0, atol=1e-14)


# ------------------------------------------------------------------------------------------------ graphs, windows


def test_the_target_has_no_graph() -> None:
    decoder, seen = network(), []

    def watched(z: Tensor) -> Tensor:
        made: Tensor = decoder(z)
        seen.append((torch.is_grad_enabled(), made.requires_grad))
        return made

    z0, eps, eps_hat = (x.requires_grad_() for x in latents())
    alpha, s = levels()
    pixel_loss(watched, z0.detach(), eps, eps_hat, alpha, s).sum().backward()
    assert seen == [(False, False), (True, True)]
    assert eps.grad is None
    assert eps_hat.grad is not None
    seen.clear()
    clean_pixel_loss(watched, z0.detach(), eps_hat).sum().backward()
    assert seen == [(False, False), (True, True)]
    x = torch.zeros(5, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    clean_pixel_loss(watched, z0.detach(), eps_hat, x).sum().backward()
    assert x.grad is None
    assert seen[2:] == [(True, True)]  # given pictures spare a decoding


@pytest.mark.parametrize("window", [None, Window(1, 2, 3)])
@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_the_gradient_in_slices_is_that_of_one_graph(decode: Decode, size: int, window: Window | None) -> None:
    (z0, eps, eps_hat), (alpha, s) = latents(), levels()

    def noisy(at: slice, part: Tensor) -> Tensor:
        return pixel_loss(decode, z0[at], eps[at], part, alpha[at], s[at], window).sum() / len(STEPS)

    def clean(at: slice, part: Tensor) -> Tensor:
        estimates = clean_estimate("epsilon", noised(z0, eps, alpha, s)[at], part, alpha[at], s[at])
        return clean_pixel_loss(decode, z0[at], estimates, window=window).sum() / len(STEPS)

    for loss in (noisy, clean):
        value, found = gradient(lambda x, f=loss: in_slices(f, 1 * x, size), eps_hat)
        whole, expected = gradient(lambda x, f=loss: f(slice(None), x), eps_hat)
        assert float((value / whole - 1).abs()) <= 1e-12
        assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-12


def test_a_window_is_cut_out_of_the_noisy_latents_of_both_branches(decode: Decode) -> None:
    (z0, eps, eps_hat), (alpha, s) = latents(), levels()
    window, seen = Window(1, 2, 3), []

    def watched(z: Tensor) -> Tensor:
        seen.append(z.detach())
        return decode(z)

    found = pixel_loss(watched, z0, eps, eps_hat, alpha, s, window)
    assert torch.equal(seen[0], noised(z0, eps, alpha, s)[:, :, 1:4, 2:5])
    assert torch.equal(seen[1], noised(z0, eps_hat, alpha, s)[:, :, 1:4, 2:5])
    parts = [cropped(each, window) for each in (z0, eps, eps_hat)]
    assert torch.equal(found, pixel_loss(decode, *parts, alpha, s))
    assert torch.equal(clean_pixel_loss(decode, z0, eps, window=window), clean_pixel_loss(decode, *parts[:2]))


def test_windows_that_tile_the_latent_average_to_the_whole_where_a_decoder_sees_one_element_at_a_time() -> None:
    """And not where it sees neighbours: what a window costs in truth."""
    (z0, eps, eps_hat), (alpha, s) = latents(), levels()
    torch.manual_seed(5)
    local = nn.Sequential(nn.Conv2d(4, 6, 1), nn.SiLU(), nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 1))
    tiles = [Window(top, left, 3) for top in (0, 3) for left in (0, 3)]
    gaps = []
    for decoder in (local.double().requires_grad_(False), network()):
        whole = pixel_loss(decoder, z0, eps, eps_hat, alpha, s)
        parts = torch.stack([pixel_loss(decoder, z0, eps, eps_hat, alpha, s, tile) for tile in tiles])
        gaps.append(float((parts.mean(0) / whole - 1).abs().max()))
    assert gaps[0] <= 1e-12 < 1e-3 < gaps[1]


def test_a_given_picture_is_compared_with_its_window() -> None:
    """A window of a picture is the latent's, times two here."""
    z0, estimate, _ = latents()
    decoder, window = network(), Window(1, 2, 3)
    x = randn(5, 3, 12, 12, seed=9)
    part = cropped(x, Window(2, 4, 6))
    assert torch.equal(part, x[..., 2:8, 4:10])
    found = clean_pixel_loss(decoder, z0, estimate, part, window)
    expected = (part - decoder(estimate[..., 1:4, 2:5])).square().mean((1, 2, 3))
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match=r"x: expected the shape \(5, 3, 6, 6\) of the decoded latents, got .*12, 12"):
        clean_pixel_loss(decoder, z0, estimate, x, window)


# ------------------------------------------------------------------------------------------------ types, refusals


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    """The same numbers as of float32 latents that hold them; a decoder that returns halves loses no more than they."""
    halves = [x.to(dtype) for x in latents()]
    alpha, s = (level.float() for level in levels())
    decoder, seen = network().float(), []

    def watched(z: Tensor) -> Tensor:
        seen.append(z.dtype)
        return decoder(z)

    found = pixel_loss(watched, *halves, alpha, s)
    assert seen == [torch.float32] * 2
    assert torch.equal(found, pixel_loss(decoder, *(x.float() for x in halves), alpha, s))
    coarse = pixel_loss(lambda z: decoder(z).to(dtype), *halves, alpha, s)
    assert found.dtype == coarse.dtype == torch.float32
    estimates = clean_pixel_loss(watched, *halves[:2]), clean_pixel_loss(decoder, *(x.float() for x in halves[:2]))
    assert torch.equal(*estimates)
    for kind in KINDS:
        made = noise_estimate(kind, *halves[:2], alpha, s)
        assert made.dtype == torch.float32
        assert torch.equal(made, noise_estimate(kind, *(x.float() for x in halves[:2]), alpha, s))


def test_a_schedule_in_float64_does_not_change_the_type_that_a_decoder_gets() -> None:
    z0, eps, eps_hat = (x.float() for x in latents())
    alpha, s = levels()
    found = pixel_loss(network().float(), z0, eps, eps_hat, alpha, s)  # else the decoder would refuse float64
    assert found.dtype == torch.float32
    expected = pixel_loss(network(), z0.double(), eps.double(), eps_hat.double(), alpha, s)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize(
    ("decode", "error", "says"),
    [
        (lambda z: autoencoder().decode(z), TypeError, "what decode returns: expected a tensor .* got DecoderOutput"),
        (lambda z: z[:1], ValueError, r"what decode returns: expected 5 pictures, got shape \(1, 4, 6, 6\)"),
        (lambda z: z.flatten(1), ValueError, r"what decode returns: expected a non-empty \(n, c, h, w\)"),
        (lambda z: (255 * z).to(torch.uint8), ValueError, "what decode returns: expected floats"),
        (None, TypeError, "decode: expected a callable from latents to pictures, got NoneType None"),
    ],
)
def test_what_a_decoder_returns_is_checked(decode: Decode, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        pixel_loss(decode, *latents(), *levels())
    with pytest.raises(error, match=says):
        clean_pixel_loss(decode, *latents()[:2])


@pytest.mark.parametrize(
    "window", [Window(0, 0, 7), Window(4, 0, 3), Window(0, 4, 3), Window(-1, 0, 3), Window(0, 0, 0)]
)
def test_a_window_outside_the_latent_is_refused(window: Window) -> None:
    with pytest.raises(ValueError, match=r"window\.(top|left|side) must be"):
        cropped(latents()[0], window)
    with pytest.raises(ValueError, match=r"window\.(top|left|side) must be"):
        pixel_loss(network(), *latents(), *levels(), window)


def test_levels_of_another_shape_and_latents_that_do_not_match_are_refused() -> None:
    (z0, eps, eps_hat), (alpha, s) = latents(), levels()
    with pytest.raises(ValueError, match="s: expected floats"):
        pixel_loss(network(), z0, eps, eps_hat, alpha, s.flatten())
    with pytest.raises(ValueError, match="eps_hat: expected the shape of z0"):
        pixel_loss(network(), z0, eps, eps_hat[:1], alpha, s)
    with pytest.raises(ValueError, match="z0_hat: expected the shape of z0"):
        clean_pixel_loss(network(), z0, eps[:1])
    with pytest.raises(ValueError, match="output: expected the shape of zt"):
        noise_estimate("epsilon", z0, eps[..., :3], alpha, s)


# ------------------------------------------------------------------------------------------------ pipelines


@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_through_a_denoisers_output(kind: str) -> None:
    (z0, eps, eps_hat), (alpha, s) = latents(), levels(kind)
    if kind == "flow_prediction":
        z0, eps, eps_hat, alpha, s = (each[:-1] for each in (z0, eps, eps_hat, alpha, s))
    zt, decoder = noised(z0, eps, alpha, s), network()
    output = target(kind, (zt - s * eps_hat) / alpha, eps_hat, alpha, s)
    noisy = pixel_error(decoder, kind, z0, eps, output, alpha, s)
    close(noisy, pixel_loss(decoder, z0, eps, eps_hat, alpha, s), 1e-9)
    clean = pixel_error(decoder, kind, z0, eps, output, alpha, s, "clean")
    close(clean, clean_pixel_loss(decoder, z0, (zt - s * eps_hat) / alpha), 1e-9)
    window = Window(1, 2, 3)
    part = pixel_error(decoder, kind, z0, eps, output, alpha, s, "clean", window)
    close(part, clean_pixel_loss(decoder, z0, (zt - s * eps_hat) / alpha, window=window), 1e-9)
    assert not torch.allclose(part, clean)


def shaped_as_sd(version: str, kind: str) -> StableDiffusionPipeline:
    """Stable Diffusion 1.5 or 2.1 in shape, but few channels: their denoisers' layers and heads, their schedule."""
    pipeline = base.build("tiny", 64, ["a glass on the beach"], 0)
    heads = {"1.5": 2, "2.1": (2, 4)}[version]
    torch.manual_seed(5)
    pipeline.unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=heads,
        cross_attention_dim=pipeline.text_encoder.config.hidden_size, use_linear_projection=version == "2.1",
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    start, end = STABLE_DIFFUSION_BETAS
    pipeline.scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=start, beta_end=end, prediction_type=kind
    )
    return pipeline


SHAPES = [("1.5", "epsilon"), ("2.1", "epsilon"), ("2.1", "v_prediction")]


@pytest.mark.parametrize(("version", "kind"), SHAPES)
def test_readmes_call_runs_on_pipelines_shaped_as_stable_diffusion(version: str, kind: str) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (call,) = (block for block in blocks if "pixel_errors" in block)
    pipeline = shaped_as_sd(version, kind)
    given = {"torch": torch, "pipeline": pipeline, "z0": randn(2, 4, 8, 8).float(), "prompts": ["a boat", "a glass"]}
    exec(call, given)
    loss = given["loss"]
    assert loss.shape == ()
    assert float(loss.detach()) > 0
    gradients = [parameter.grad for parameter in pipeline.unet.parameters()]
    assert sum(each is not None and bool(each.abs().sum() > 0) for each in gradients) > 10
    assert all(parameter.grad is None for parameter in pipeline.vae.parameters())


@pytest.mark.parametrize(("version", "kind"), SHAPES)
@pytest.mark.parametrize("form", ["noisy", "clean"])
def test_errors_of_a_pipeline_are_the_losses_of_its_schedule(version: str, kind: str, form: str) -> None:
    pipeline = shaped_as_sd(version, kind)
    z0, eps, output = (randn(3, 4, 8, 8, seed=seed).float() for seed in range(3))
    t = torch.tensor([0, 400, 999])
    found = pixel_errors(pipeline, z0, eps, t, output, form)
    betas = scaled_linear_betas(*STABLE_DIFFUSION_BETAS)
    alpha, s = (level[t].view(-1, 1, 1, 1) for level in signal_and_noise(betas))
    vae = pipeline.vae.double()
    z0, eps, output = z0.double(), eps.double(), output.double()
    expected = pixel_error(lambda z: vae.decode(unscaled(vae, z)).sample, kind, z0, eps, output, alpha, s, form)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-6)
    zt = pipeline.scheduler.add_noise(z0, eps, t)  # what the output is of
    torch.testing.assert_close(zt.double(), noised(z0, eps, alpha, s), rtol=0, atol=1e-5)


def test_a_pipeline_without_noise_of_this_kind_is_refused() -> None:
    pipeline, z = shaped_as_sd("1.5", "epsilon"), randn(2, 4, 8, 8)
    with pytest.raises(ValueError, match=r"^t: expected int32 or int64 \(n,\), got float64$"):
        pixel_errors(pipeline, z, z, randn(2), z)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="expected a scheduler of epsilon or v_prediction, got FlowMatchEuler"):
        pixel_errors(pipeline, z, z, torch.tensor([1, 2]), z)
