"""Losses in pixels, and of preferences, against sums written out; slices, squares, shared noise, the reference."""

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor, nn

from atelier.diffusion import KINDS, clean_estimate, noise_estimate
from atelier.methods.pixel_space import Form, clean_pixel_loss, cropped, pixel_loss
from atelier.models import base
from atelier.models.autoencoders import Window
from atelier.models.latents import unscaled
from atelier.studies.pixel_space.loss import (
    DENOISING,
    LATENT,
    PIXEL,
    Drawn,
    Pixels,
    Preferences,
    Preferred,
    alone,
    decoder,
    pixel_preferences,
    pixel_term,
    preference_task,
    without_adapter,
)
from atelier.studies.pixel_space.params import PostTraining
from atelier.studies.pixel_space.pictures import Pairs
from atelier.training import denoiser
from atelier.training.conversion import add_conversion
from atelier.training.denoiser import Denoised
from atelier.training.loop import Task
from atelier.training.order import Turn
from atelier.training.slices import drawn_window

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = [f"pair-{number}" for number in range(5)]
BATCH = [Turn(3, 0), Turn(0, 2), Turn(4, 0), Turn(1, 1), Turn(2, 0)]
METHODS = ("dpo", "simpo", "ipo", "hinge")


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: Tensor, expected: Tensor, share: float = 1e-12) -> None:
    """Equal up to a share of the largest number."""
    torch.testing.assert_close(found, expected, rtol=share, atol=share * float(expected.abs().max()))


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    """Attention and group normalisation; 2 px a latent element."""
    torch.manual_seed(4)
    made = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, latent_channels=4,
    )  # fmt: skip
    return made.double()


def pixels(vae: AutoencoderKL, kind: str = "epsilon", form: Form = "noisy", crop: int = 0, slices: int = 16) -> Pixels:
    return Pixels(decoder(vae), kind, form, crop, slices, 9, NAMES)


def levels(n: int) -> tuple[Tensor, Tensor]:
    alpha = torch.linspace(0.95, 0.2, n, dtype=torch.float64).view(-1, 1, 1, 1)
    return alpha, (1 - alpha**2).sqrt()


# ------------------------------------------------------------------------------------------------ works


def step_of(kind: str, output: Tensor) -> Denoised:
    z0, eps = (randn(*output.shape, seed=seed) for seed in (1, 2))
    alpha, s = levels(len(output))
    return Denoised(z0, alpha * z0 + s * eps, alpha, s, output, BATCH, (s / alpha).flatten(), eps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["noisy", "clean"])
@pytest.mark.parametrize("crop", [0, 3])
def test_the_pixel_term_is_the_mean_loss_and_its_gradient_that_of_one_graph(
    kind: str, form: Form, crop: int, vae: AutoencoderKL
) -> None:
    at = randn(5, 4, 6, 6, seed=3)
    window = drawn_window((6, 6), 3, 9, NAMES[3], 0) if crop else None

    def by_hand(output: Tensor) -> Tensor:
        step = step_of(kind, output)
        decode = lambda z: vae.decode(unscaled(vae, z)).sample  # noqa: E731
        if form == "clean":
            estimate = clean_estimate(kind, step.zt, output, step.alpha, step.s)
            return clean_pixel_loss(decode, step.z0, estimate, window=window).mean()
        eps_hat = noise_estimate(kind, step.zt, output, step.alpha, step.s)
        return pixel_loss(decode, step.z0, step.eps, eps_hat, step.alpha, step.s, window).mean()

    expected, gradient = value_and_gradient(lambda x: 0.7 * by_hand(x), at)
    for slices in (1, 2, 5, 16):
        term = pixel_term(pixels(vae, kind, form, crop, slices), 0.7)
        found, own = value_and_gradient(lambda x, term=term: term(step_of(kind, x))[PIXEL], at)
        close(found, expected)
        close(own, gradient)


def value_and_gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    x = at.detach().clone().requires_grad_()
    value = loss(x)
    return value.detach(), torch.autograd.grad(value, x)[0]


def test_a_square_is_one_for_the_batch_and_another_in_the_next_epoch(vae: AutoencoderKL) -> None:
    part = pixels(vae, crop=3)
    latents = randn(2, 4, 6, 6)
    assert part.window(latents, Turn(3, 0)) == drawn_window((6, 6), 3, 9, NAMES[3], 0)
    assert len({part.window(latents, Turn(3, epoch)) for epoch in range(20)}) > 5
    assert pixels(vae).window(latents, Turn(3, 0)) is None
    assert isinstance(part.window(latents, Turn(0, 0)), Window)


def test_pixels_alone_teach_and_the_latents_error_is_recorded() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    both = Task({}, ["a"], lambda batch: {DENOISING: (x**2).sum(), PIXEL: (3 * x).sum()})
    terms = alone(both, PIXEL).losses([Turn(0, 0)])
    assert {name: float(value.detach()) for name, value in terms.items()} == {DENOISING: 4.0, PIXEL: 6.0}
    torch.stack(list(terms.values())).sum().backward()
    assert x.grad is not None
    assert float(x.grad) == 3.0


# ------------------------------------------------------------------------------------------------ preferences


def drawn_by_hand(n: int = 5) -> Drawn:
    z0, eps = randn(n, 2, 4, 6, 6, seed=1), randn(n, 1, 4, 6, 6, seed=2).expand(-1, 2, -1, -1, -1).clone()
    alpha, s = (each[:, None].expand(-1, 2, -1, -1, -1) for each in levels(n))
    return Drawn(z0, eps, alpha, s, torch.zeros(n, 2), torch.zeros(n, 2, 1, 1), BATCH[:n])


def written_out(method: str, w: float, l: float, wr: float, lr: float, beta: float, margin: float) -> float:
    """One pair's loss, by the papers."""
    gap = (l - w) - (0 if method == "simpo" else lr - wr)
    if method in ("dpo", "simpo"):
        return math.log1p(math.exp(-(beta * gap - (margin if method == "simpo" else 0))))
    return (gap - 1 / (2 * beta)) ** 2 if method == "ipo" else max(0.0, 1 - beta * gap)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", ["noisy", "clean"])
def test_the_loss_of_pairs_in_pixels_is_written_out_and_its_mean_is_outside(
    method: str, form: Form, vae: AutoencoderKL
) -> None:
    drawn, output, unchanged = drawn_by_hand(), randn(5, 2, 4, 6, 6, seed=3), randn(5, 2, 4, 6, 6, seed=4)
    preferred = Preferred(PostTraining(method=method, terms="pixel"), beta=3.0, simpo_beta=3.0, margin=0.2)
    reference = None if method == "simpo" else unchanged
    part, factor = pixels(vae, form=form), 2.5
    errors = {}
    for name, made in (("own", output), ("reference", unchanged)):
        for side in range(2):
            given = (drawn.z0[:, side], drawn.eps[:, side], made[:, side], drawn.alpha[:, side], drawn.s[:, side])
            errors[name, side] = (factor * part.errors(*given, None)).tolist()
    expected = sum(
        written_out(method, *(errors[key][pair] for key in
                    (("own", 0), ("own", 1), ("reference", 0), ("reference", 1))), 3.0, 0.2)
        for pair in range(5)
    ) / 5  # fmt: skip
    terms = pixel_preferences(drawn, output, reference, preferred, part, factor, 0.7)
    assert list(terms) == [PIXEL, "pixel_accuracy"]
    assert float(terms[PIXEL]) == pytest.approx(0.7 * expected, rel=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("crop", [0, 3])
def test_slices_of_pairs_have_the_gradient_of_one_graph(method: str, crop: int, vae: AutoencoderKL) -> None:
    drawn, at = drawn_by_hand(), randn(5, 2, 4, 6, 6, seed=3)
    unchanged = None if method == "simpo" else randn(5, 2, 4, 6, 6, seed=4)
    preferred = Preferred(PostTraining(method=method, terms="pixel"), beta=3.0, simpo_beta=3.0, margin=0.2)
    window = drawn_window((6, 6), 3, 9, NAMES[3], 0) if crop else None

    def errors(made: Tensor) -> Tensor:
        part = pixels(vae)
        rows = [part.errors(drawn.z0[:, i], drawn.eps[:, i], made[:, i], drawn.alpha[:, i], drawn.s[:, i], window)
                for i in range(2)]  # fmt: skip
        return torch.stack(rows, 1)

    reference = None if unchanged is None else errors(unchanged).detach()
    expected, gradient = value_and_gradient(lambda x: preferred.loss(errors(x), reference), at)
    accuracies = []
    for slices in (1, 2, 4, 6, 16):
        part = pixels(vae, crop=crop, slices=slices)
        accuracies.append(float(pixel_preferences(drawn, at, unchanged, preferred, part, 1.0, 1.0)["pixel_accuracy"]))
        found, own = value_and_gradient(
            lambda x, part=part: pixel_preferences(drawn, x, unchanged, preferred, part, 1.0, 1.0)[PIXEL], at
        )
        close(found, expected)
        close(own, gradient)
    assert accuracies == pytest.approx([float(preferred.accuracy(errors(at), reference))] * 5, abs=1e-6)


# ------------------------------------------------------------------------------------------------ a denoiser


@pytest.fixture
def pipeline() -> StableDiffusionPipeline:
    return base.build("tiny", 64, ["a boat at night"], seed=1)


def preferences(pipeline: StableDiffusionPipeline, noise: str = "shared") -> Preferences:
    width = pipeline.unet.config.cross_attention_dim
    winner, loser = (randn(5, 4, 8, 8, seed=seed).float() for seed in (5, 6))
    pairs = Pairs(winner, loser, randn(5, 3, width, seed=7).float(), randn(3, width, seed=8).float())
    return Preferences(pipeline.unet, pipeline.scheduler, pairs, noise, 4, torch.device("cpu"))


def adapted(pipeline: StableDiffusionPipeline) -> dict[str, nn.Parameter]:
    """An adapter that changes something."""
    trainable = add_conversion(pipeline.unet, 2, seed=3)
    torch.manual_seed(2)
    for value in trainable.values():
        value.data.normal_(0, 0.1)
    return trainable


def task_of(pipeline: StableDiffusionPipeline, trainable: dict[str, nn.Parameter], **training: str) -> Task:
    part = Pixels(decoder(pipeline.vae), "epsilon", "noisy", 0, 3, 4, NAMES)
    preferred = Preferred(PostTraining(**training), beta=3.0, simpo_beta=3.0, margin=0.2)  # type: ignore[arg-type]
    return preference_task(preferences(pipeline), trainable, preferred, part, factor=2.0, weight=0.5)


def test_without_its_adapter_the_denoiser_is_the_base_to_the_bit_and_has_it_again_after(
    pipeline: StableDiffusionPipeline,
) -> None:
    drawn = preferences(pipeline).drawn(BATCH)
    expected = preferences(pipeline).output(drawn).detach()
    adapted(pipeline)
    own = preferences(pipeline)
    changed = own.output(drawn)
    found = own.reference(drawn)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert changed.requires_grad
    assert float((changed - expected).detach().abs().max()) > 1e-3
    assert torch.equal(own.output(drawn), changed)
    with pytest.raises(KeyboardInterrupt), without_adapter(pipeline.unet):
        raise KeyboardInterrupt
    assert torch.equal(own.output(drawn), changed)


@pytest.mark.parametrize("method", ["dpo", "ipo", "hinge"])
def test_at_the_reference_the_loss_is_its_constant_and_half_of_the_pairs_are_in_order(
    method: str, pipeline: StableDiffusionPipeline
) -> None:
    """log 2 of DPO: an untrained adapter changes nothing."""
    trainable = add_conversion(pipeline.unet, 2, seed=3)
    terms = task_of(pipeline, trainable, method=method, terms="both").losses(BATCH)
    constant = {"dpo": math.log(2), "ipo": 1 / 36, "hinge": 1.0}[method]
    assert float(terms[LATENT].detach()) == pytest.approx(constant, rel=1e-6)
    assert float(terms[PIXEL].detach()) == pytest.approx(0.5 * constant, rel=1e-6)
    assert float(terms["accuracy"]) == float(terms["pixel_accuracy"]) == 0.5
    assert float(terms["winner"]) == pytest.approx(float(terms["winner_reference"]), rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_of_pairs_in_latents_is_written_out(method: str, pipeline: StableDiffusionPipeline) -> None:
    pairs = preferences(pipeline).pairs
    alphas, sigmas, _ = denoiser.path(pipeline.scheduler)

    def errors() -> list[tuple[float, float]]:
        found = []
        for turn in BATCH:
            own = denoiser.draw(4, NAMES[turn.sample], turn.epoch, pairs.winner.shape[1:], 1000, 1, 0.1)
            words = (pairs.empty if own.empty else pairs.embeddings[turn.sample])[None]
            each = []
            for z0 in (pairs.winner[turn.sample], pairs.loser[turn.sample]):
                zt = alphas[own.t] * z0 + sigmas[own.t] * own.eps
                with torch.no_grad():
                    output = pipeline.unet(zt[None], torch.tensor([own.t]), words).sample[0]
                each.append(float((output - own.eps).square().mean()))
            found.append((each[0], each[1]))
        return found

    reference = errors()
    trainable = adapted(pipeline)
    terms = task_of(pipeline, trainable, method=method, terms="latent").losses(BATCH)
    own = errors()
    expected = sum(written_out(method, *pair, *base, 3.0, 0.2) for pair, base in zip(own, reference, strict=True)) / 5
    assert float(terms[LATENT].detach()) == pytest.approx(expected, rel=1e-4)
    assert PIXEL not in terms
    gaps = [(l - w) - (0 if method == "simpo" else lr - wr) for (w, l), (wr, lr) in zip(own, reference, strict=True)]
    assert float(terms["accuracy"]) == pytest.approx(sum(gap > 0 for gap in gaps) / 5)
    assert float(terms["winner"]) == pytest.approx(sum(w for w, _ in own) / 5, rel=1e-4)
    assert float(terms["loser"]) == pytest.approx(sum(l for _, l in own) / 5, rel=1e-4)
    assert ("winner_reference" in terms) == (method != "simpo")
    assert all(not value.requires_grad for name, value in terms.items() if name not in (LATENT, PIXEL))


def test_what_teaches_is_what_the_terms_say(pipeline: StableDiffusionPipeline) -> None:
    trainable = add_conversion(pipeline.unet, 2, seed=3)
    for terms, expected in (("latent", {LATENT}), ("pixel", {PIXEL}), ("both", {LATENT, PIXEL})):
        found = task_of(pipeline, trainable, method="simpo", terms=terms).losses(BATCH)
        assert {name for name, value in found.items() if value.requires_grad} == expected
    found[PIXEL].backward()
    assert any(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in trainable.values())
    frozen = [*pipeline.vae.parameters(), *(p for p in pipeline.unet.parameters() if not p.requires_grad)]
    assert all(parameter.grad is None for parameter in frozen)


def test_a_pair_shares_noise_timestep_and_prompt_or_noise_is_separate(pipeline: StableDiffusionPipeline) -> None:
    shared, separate = (preferences(pipeline, noise).drawn(BATCH) for noise in ("shared", "separate"))
    assert torch.equal(shared.eps[:, 0], shared.eps[:, 1])
    assert torch.equal(separate.eps[:, 0], shared.eps[:, 0])
    assert not (separate.eps[:, 0] == separate.eps[:, 1]).any()
    for drawn in (shared, separate):
        assert torch.equal(drawn.time[:, 0], drawn.time[:, 1])
        assert torch.equal(drawn.alpha[:, 0], drawn.alpha[:, 1])
        assert torch.equal(drawn.words[:, 0], drawn.words[:, 1])
        assert torch.equal(drawn.z0[:, 0], preferences(pipeline).pairs.winner[[3, 0, 4, 1, 2]])
    alphas, sigmas, told = denoiser.path(pipeline.scheduler)
    t = [denoiser.draw(4, NAMES[turn.sample], turn.epoch, torch.Size([4, 8, 8]), 1000, 1, 0.1).t for turn in BATCH]
    assert shared.time[:, 0].tolist() == told[t].tolist()
    assert torch.equal(shared.s[:, 1].flatten(), sigmas[t])
    fixed = preferences(pipeline).drawn(BATCH, [0, 10, 20, 999, 7])
    assert fixed.time[:, 0].tolist() == [0, 10, 20, 999, 7]
    assert torch.equal(fixed.alpha[:, 0].flatten(), alphas[[0, 10, 20, 999, 7]])
    assert torch.equal(fixed.eps, shared.eps)


def test_a_square_of_pairs_is_cut_from_both_pictures(vae: AutoencoderKL) -> None:
    seen: list[Tensor] = []

    def watched(z: Tensor) -> Tensor:
        seen.append(z.detach())
        return z

    drawn, output = drawn_by_hand(2), randn(2, 2, 4, 6, 6, seed=3)
    part = Pixels(watched, "epsilon", "noisy", 3, 16, 9, NAMES)
    preferred = Preferred(PostTraining(method="simpo", terms="pixel"), 1.0, 1.0, 0.0)
    pixel_preferences(drawn, output, None, preferred, part, 1.0, 1.0)
    window = drawn_window((6, 6), 3, 9, NAMES[3], 0)
    zt = (drawn.alpha * drawn.z0 + drawn.s * drawn.eps).flatten(0, 1)
    assert torch.equal(seen[0], cropped(zt, window))
    assert seen[1].shape == (4, 4, 3, 3)
