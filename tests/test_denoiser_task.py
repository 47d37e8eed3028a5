"""The denoiser's task: chance as a function of (seed, name, epoch), and the loss against its equation in float64."""

import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor, nn

from atelier.models.latents import Latents
from atelier.training import denoiser
from atelier.training.caches import Cache
from atelier.training.order import Turn, turns
from tolerance import assert_close

N, SHAPE, PROMPTS, TOKENS, WIDTH = 6, torch.Size([4, 3, 5]), 3, 7, 2
NAMES = [f"Style/work-{i}.png" for i in range(N)]
CPU = torch.device("cpu")
BATCH = [Turn(4, 0), Turn(1, 0), Turn(4, 1), Turn(0, 7)]


class Toy(nn.Module):
    """A denoiser that can be written down: 0.3 x + t/1000 + the embedding's mean."""

    def forward(self, x: Tensor, t: Tensor, embeddings: Tensor) -> SimpleNamespace:
        assert x.dtype == embeddings.dtype == torch.float32
        return SimpleNamespace(
            sample=0.3 * x + (t / 1000 + embeddings.mean((1, 2)).to(x.dtype))[:, None, None, None].to(x.dtype)
        )


@pytest.fixture
def cache() -> Cache:
    generator = torch.Generator().manual_seed(1)
    mean, std = torch.randn(N, *SHAPE, generator=generator), torch.rand(N, *SHAPE, generator=generator)
    embeddings = torch.randn(N, PROMPTS, TOKENS, WIDTH, generator=generator)
    which = torch.arange(N * PROMPTS).view(N, PROMPTS)
    empty = torch.randn(TOKENS, WIDTH, generator=generator)
    return Cache(Latents(mean, std), which, embeddings.flatten(0, 1), empty)


def scheduler(kind: str = "epsilon") -> DDIMScheduler | DPMSolverMultistepScheduler:
    if kind == "flow_prediction":
        return DPMSolverMultistepScheduler(prediction_type=kind, use_flow_sigmas=True)
    return DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=kind)


def loss_of(
    cache: Cache, kind: str, empty_share: float, batch: Sequence[Turn], unet: nn.Module | None = None
) -> Tensor:
    task = denoiser.task(
        unet or Toy(), {}, scheduler(kind), cache.examples(NAMES), empty_share=empty_share, seed=5, device=CPU
    )
    terms = task.losses(batch)
    assert list(terms) == ["denoising"]
    return terms["denoising"]


def draw(seed: int = 5, name: str = NAMES[0], epoch: int = 0, prompts: int = 3, share: float = 0.5) -> denoiser.Draw:
    return denoiser.draw(seed, name, epoch, SHAPE, 1000, prompts, share)


def same(one: denoiser.Draw, two: denoiser.Draw) -> list[bool]:
    return [torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(one, two, strict=True)]


def test_a_draw_is_a_function_of_seed_name_and_epoch() -> None:
    first = draw()
    torch.manual_seed(99)
    draw(name=NAMES[3])
    assert all(same(draw(), first))
    for other in (draw(seed=6), draw(name=NAMES[1]), draw(epoch=1)):
        assert not torch.equal(other.posterior, first.posterior)
        assert not torch.equal(other.eps, first.eps)
        assert other.t != first.t
    assert not torch.equal(first.posterior, first.eps)


def test_variants_that_differ_in_their_prompts_see_the_same_noise() -> None:
    for other in (draw(share=0.0), draw(share=1.0), draw(prompts=1)):
        assert same(other, draw())[:3] == [True, True, True]


def test_draws_have_their_distributions() -> None:
    """Five standard errors of 2,000 draws."""
    draws = [draw(epoch=epoch, share=0.2) for epoch in range(2000)]
    for values in (torch.stack([d.eps for d in draws]), torch.stack([d.posterior for d in draws])):
        assert abs(float(values.mean())) < 5 / math.sqrt(values.numel())
        assert abs(float(values.var()) - 1) < 5 * math.sqrt(2 / values.numel())
    t = torch.tensor([float(d.t) for d in draws])
    assert abs(float(t.mean()) - 499.5) < 5 * 288.7 / math.sqrt(2000)
    assert (t.min() < 10, t.max() > 989, t.max() <= 999) == (True, True, True)
    assert abs(sum(d.empty for d in draws) / 2000 - 0.2) < 5 * math.sqrt(0.16 / 2000)
    assert {d.prompt for d in draws} == {0, 1, 2}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow_prediction"])
@pytest.mark.parametrize("empty_share", [0.0, 0.5, 1.0])
def test_the_loss_is_its_equation_in_float64(cache: Cache, kind: str, empty_share: float) -> None:
    abar, product = [], 1.0
    for i in range(1000):
        root = math.sqrt(0.00085) + (math.sqrt(0.012) - math.sqrt(0.00085)) * i / 999
        product *= 1 - root**2
        abar.append(product)
    squares = []
    for turn in BATCH:
        d = denoiser.draw(5, NAMES[turn.sample], turn.epoch, SHAPE, 1000, PROMPTS, empty_share)
        alpha, s, told = math.sqrt(abar[d.t]), math.sqrt(1 - abar[d.t]), float(d.t)
        if kind == "flow_prediction":
            alpha, s, told = 1 - (d.t + 1) / 1000, (d.t + 1) / 1000, float(d.t + 1)
        z0 = cache.latents.mean[turn.sample].double() + cache.latents.std[turn.sample].double() * d.posterior.double()
        eps = d.eps.double()
        embedding = (cache.empty if d.empty else cache.words[cache.which[turn.sample, d.prompt]]).double()
        output = 0.3 * (alpha * z0 + s * eps) + told / 1000 + embedding.mean()
        target = {"epsilon": eps, "v_prediction": alpha * eps - s * z0, "flow_prediction": eps - z0}[kind]
        squares.append((output - target).square())
    expected = torch.stack(squares).mean()
    assert_close(loss_of(cache, kind, empty_share, BATCH), expected, relative=1e-5, absolute=1e-7)


class Remembering(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, embeddings: Tensor) -> SimpleNamespace:
        self.seen.append(embeddings)
        return super().forward(x, t, embeddings)


def test_all_empty_is_always_the_empty_embedding_and_none_is_never(cache: Cache) -> None:
    for share, expected in ((1.0, True), (0.0, False)):
        unet = Remembering()
        for step in range(20):
            loss_of(cache, "epsilon", share, turns(5, step, 4, N), unet)
        seen = torch.cat(unet.seen)
        assert [torch.equal(row, cache.empty) for row in seen] == [expected] * 80


def test_a_sample_is_given_its_own_prompts_only(cache: Cache) -> None:
    unet = Remembering()
    batches = [turns(5, step, 4, N) for step in range(30)]
    for batch in batches:
        loss_of(cache, "epsilon", 0.0, batch, unet)
    used = set()
    for turn, row in zip([turn for batch in batches for turn in batch], torch.cat(unet.seen), strict=True):
        at = [torch.equal(row, own) for own in cache.words[cache.which[turn.sample].tolist()]]
        assert sum(at) == 1
        used.add((turn.sample, at.index(True)))
    assert len(used) == N * PROMPTS


@pytest.mark.parametrize("kind", ["sample", "x0"])
def test_another_parameterisation_is_refused_by_name(cache: Cache, kind: str) -> None:
    with pytest.raises(ValueError, match=f"a denoiser that predicts '{kind}' is not known here; expected one of"):
        loss_of(cache, kind, 0.0, BATCH)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow_prediction"])
def test_further_terms_see_the_noise_that_was_added(cache: Cache, kind: str) -> None:
    seen: list[denoiser.Denoised] = []

    def extra(step: denoiser.Denoised) -> dict[str, Tensor]:
        seen.append(step)
        return {"more": step.output.sum()}

    examples = cache.examples(NAMES)
    task = denoiser.task(Toy(), {}, scheduler(kind), examples, empty_share=0.5, seed=5, device=CPU, extra=extra)
    assert list(task.losses(BATCH)) == ["denoising", "more"]
    (step,) = seen
    draws = [denoiser.draw(5, NAMES[turn.sample], turn.epoch, SHAPE, 1000, PROMPTS, 0.5) for turn in BATCH]
    assert torch.equal(step.eps, torch.stack([one.eps for one in draws]))
    torch.testing.assert_close(step.alpha * step.z0 + step.s * step.eps, step.zt, rtol=0, atol=0)
