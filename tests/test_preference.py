"""Preference losses: oracle 10, sums written out, published constants, the mean outside the logarithm, gradients."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from atelier.methods.preference import (
    dpo_loss,
    error_gap,
    hinge_loss,
    implicit_accuracy,
    ipo_loss,
    reference_gap,
    simpo_loss,
)

Loss = Callable[..., Tensor]
WITH_REFERENCE: list[Loss] = [dpo_loss, hinge_loss, ipo_loss]
BETA = 5.0


def errors(count: int = 4, n: int = 6) -> list[Tensor]:
    """Mean squared errors of n pairs: winner, loser, and both of the reference."""
    return list(torch.rand(count, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2)


def of_squares(seed: int, n: int = 3, shape: tuple[int, ...] = (4, 64, 64)) -> Tensor:
    """Squared errors of each element, as of latents."""
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(loss: Loss, parts: list[Tensor], *more: float) -> tuple[Tensor, list[Tensor]]:
    leaves = [part.clone().requires_grad_() for part in parts]
    value = loss(*leaves, *more)
    return value.detach(), list(torch.autograd.grad(value, leaves))


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# ------------------------------------------------------------------------------------------------ values


def test_dpo_and_its_gradient_agree_with_equation_4_written_out() -> None:
    """Each pair's weight is ``beta sigma(-beta gap) / n``, up on the winner's error, down on the loser's."""
    parts = errors()
    losses, weights = [], []
    for w, l, w_ref, l_ref in zip(*(part.tolist() for part in parts), strict=True):
        inside = -BETA * ((w - w_ref) - (l - l_ref))
        losses.append(-math.log(sigma(inside)))
        weights.append(BETA * sigma(-inside) / 6)
    value, found = gradients(dpo_loss, parts, BETA)
    assert float(value) == pytest.approx(sum(losses) / 6, rel=1e-12)
    expected = torch.tensor(weights, dtype=torch.float64)
    for gradient, sign in zip(found, (1, -1, -1, 1), strict=True):
        torch.testing.assert_close(gradient, sign * expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("margin", [0.0, 1.5])
def test_simpo_and_its_gradient_agree_with_equation_5_written_out(margin: float) -> None:
    parts = errors(2)
    insides = [-BETA * (w - l) - margin for w, l in zip(*(part.tolist() for part in parts), strict=True)]
    value, (winner, loser) = gradients(lambda w, l: simpo_loss(w, l, BETA, margin), parts)
    assert float(value) == pytest.approx(sum(-math.log(sigma(inside)) for inside in insides) / 6, rel=1e-12)
    expected = torch.tensor([BETA * sigma(-inside) / 6 for inside in insides], dtype=torch.float64)
    torch.testing.assert_close(winner, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(loser, -expected, rtol=1e-12, atol=0)


def test_hinge_and_ipo_agree_with_sums_written_out() -> None:
    parts = errors()
    gaps = [(l - lr) - (w - wr) for w, l, wr, lr in zip(*(part.tolist() for part in parts), strict=True)]
    assert any(BETA * gap > 1 for gap in gaps)
    assert any(BETA * gap < 1 for gap in gaps)
    hinge, (winner, *_) = gradients(hinge_loss, parts, BETA)
    assert float(hinge) == pytest.approx(sum(max(0.0, 1 - BETA * gap) for gap in gaps) / 6, rel=1e-12)
    slopes = torch.tensor([BETA / 6 if BETA * gap < 1 else 0.0 for gap in gaps], dtype=torch.float64)
    torch.testing.assert_close(winner, slopes, rtol=1e-12, atol=0)
    ipo, (winner, *_) = gradients(ipo_loss, parts, BETA)
    assert float(ipo) == pytest.approx(sum((gap - 1 / (2 * BETA)) ** 2 for gap in gaps) / 6, rel=1e-12)
    slopes = torch.tensor([-2 * (gap - 1 / (2 * BETA)) / 6 for gap in gaps], dtype=torch.float64)
    torch.testing.assert_close(winner, slopes, rtol=1e-12, atol=0)


def test_gradcheck() -> None:
    parts = [part.requires_grad_() for part in errors()]
    for loss in WITH_REFERENCE:
        assert torch.autograd.gradcheck(lambda *p, f=loss: f(*p, BETA), parts)
    assert torch.autograd.gradcheck(lambda w, l: simpo_loss(w, l, BETA, 0.5), parts[:2])


def test_dpo_is_simpo_of_errors_relative_to_the_reference() -> None:
    winner, loser, winner_reference, loser_reference = errors()
    relative = winner - winner_reference, loser - loser_reference
    assert torch.equal(dpo_loss(*errors(), BETA), simpo_loss(*relative, BETA))
    assert torch.equal(reference_gap(*errors()), error_gap(*relative))
    assert torch.equal(error_gap(winner, loser), loser - winner)


# ------------------------------------------------------------------------------------------------ oracle 10


@pytest.mark.parametrize("beta", [1e-3, 1.0, 2500.0])
def test_at_the_reference_the_losses_are_known(beta: float) -> None:
    """Also with winners and losers of very different errors; nothing is won or lost, which is half of the pairs."""
    winner, loser = errors(2)
    parts = (winner, 7 * loser, winner, 7 * loser)
    assert float(dpo_loss(*parts, beta)) == pytest.approx(math.log(2), rel=1e-15)
    assert float(hinge_loss(*parts, beta)) == 1
    assert float(ipo_loss(*parts, beta)) == pytest.approx(1 / (4 * beta**2), rel=1e-12)
    assert float(implicit_accuracy(reference_gap(*parts))) == 0.5


def test_simpo_of_equal_errors_is_log_2_without_a_margin_and_more_with_one() -> None:
    (winner,) = errors(1)
    assert float(simpo_loss(winner, winner, BETA)) == pytest.approx(math.log(2), rel=1e-15)
    assert float(simpo_loss(winner, winner, BETA, 1.0)) == pytest.approx(math.log(1 + math.e), rel=1e-15)
    # at a gap of margin / beta a pair has lost its margin's worth
    assert float(simpo_loss(winner, winner + 1.0 / BETA, BETA, 1.0)) == pytest.approx(math.log(2), rel=1e-12)


@pytest.mark.parametrize("loss", [*WITH_REFERENCE, simpo_loss])
def test_a_step_down_lowers_the_winners_error_and_raises_the_losers(loss: Loss) -> None:
    """At the reference, or at equal errors; the two pull equally, so that what the pair shares is left alone."""
    (same,) = errors(1)
    count = 2 if loss is simpo_loss else 4
    _, found = gradients(loss, [same] * count, BETA)
    assert bool((found[0] > 0).all())
    assert torch.equal(found[1], -found[0])
    if count == 4:
        assert torch.equal(found[2], -found[0])
        assert torch.equal(found[3], found[0])


# ------------------------------------------------------------------------------------------------ published forms


def published(winner: Tensor, loser: Tensor, winner_ref: Tensor, loser_ref: Tensor, beta_dpo: float) -> Tensor:
    """Diffusion-DPO's code: half of beta, of mean errors."""
    inside = -0.5 * beta_dpo * ((winner - loser) - (winner_ref - loser_ref))
    return -1 * logsigmoid(inside).mean()


def diffusers_logits(winner: Tensor, loser: Tensor, winner_ref: Tensor, loser_ref: Tensor) -> Tensor:
    """diffusers' script: the reference's difference less the model's."""
    return (winner_ref - loser_ref) - (winner - loser)


def test_three_conventions_of_beta_give_one_loss() -> None:
    """5000 with one half, 2500 without, and 0.5 * 5000 / 16384 of errors summed over 4 x 64 x 64."""
    squares = [of_squares(seed) for seed in range(4)]
    means, sums = ([one.mean((1, 2, 3)) for one in squares], [one.sum((1, 2, 3)) for one in squares])
    loss = float(dpo_loss(*means, 2500.0))
    assert abs(loss - math.log(2)) > 0.1
    assert float(published(*means, 5000.0)) == pytest.approx(loss, rel=1e-10)
    assert float(-logsigmoid(2500.0 * diffusers_logits(*means)).mean()) == pytest.approx(loss, rel=1e-10)
    beta_sum = 0.5 * 5000 / 16384
    assert round(beta_sum, 4) == 0.1526
    assert float(dpo_loss(*sums, beta_sum)) == pytest.approx(loss, rel=1e-10)
    assert float(simpo_loss(*sums[:2], beta_sum)) == pytest.approx(float(simpo_loss(*means[:2], 2500.0)), rel=1e-10)


def test_hinge_and_ipo_are_those_of_diffusers_script() -> None:
    parts = errors()
    logits = diffusers_logits(*parts)
    assert float(hinge_loss(*parts, BETA)) == pytest.approx(float(torch.relu(1 - BETA * logits).mean()), rel=1e-12)
    assert float(ipo_loss(*parts, BETA)) == pytest.approx(float(((logits - 1 / (2 * BETA)) ** 2).mean()), rel=1e-12)


def test_the_mean_is_outside_the_logarithm() -> None:
    """diffusers' issue 6702: a mean inside lets a pair that is won pay for one that is lost, and weighs all alike."""
    gap = torch.tensor([0.8, -0.8], dtype=torch.float64)
    none = torch.zeros(2, dtype=torch.float64)

    def inside_out(winner: Tensor, loser: Tensor, *reference: Tensor) -> Tensor:
        return -logsigmoid((BETA * diffusers_logits(winner, loser, *reference)).mean())

    parts = [none, gap, none, none]
    right, (weights, *_) = gradients(dpo_loss, parts, BETA)
    wrong, (alike, *_) = gradients(inside_out, parts)
    assert float(wrong) == pytest.approx(math.log(2), rel=1e-12)
    assert float(right) == pytest.approx((math.log1p(math.exp(-4)) + math.log1p(math.exp(4))) / 2, rel=1e-12)
    assert float(alike[1] / alike[0]) == pytest.approx(1, rel=1e-12)
    assert float(weights[1] / weights[0]) == pytest.approx(math.exp(4), rel=1e-12)
    simpo, (weights_without, *_) = gradients(simpo_loss, parts[:2], BETA)
    assert float(simpo) == pytest.approx(float(right), rel=1e-12)
    torch.testing.assert_close(weights_without, weights, rtol=1e-12, atol=0)
    assert float(hinge_loss(*parts, BETA)) == pytest.approx(2.5)  # of 0 and 5; of their mean it would be 1
    assert float(ipo_loss(*parts, BETA)) == pytest.approx((0.7**2 + 0.9**2) / 2)  # and 0.01


# ------------------------------------------------------------------------------------------------ accuracy


def test_a_tie_counts_one_half() -> None:
    gap = torch.tensor([0.3, 0.0, -0.2, 1e-9])
    assert float(implicit_accuracy(gap)) == 2.5 / 4
    assert float(implicit_accuracy(-gap)) == 1.5 / 4
    assert float(implicit_accuracy(2500 * gap)) == 2.5 / 4
    assert float(implicit_accuracy(torch.zeros(3))) == 0.5


def test_accuracy_agrees_with_a_count_and_has_no_graph() -> None:
    parts = [part.requires_grad_() for part in errors()]
    accuracy = implicit_accuracy(reference_gap(*parts))
    won = [(l - lr) > (w - wr) for w, l, wr, lr in zip(*(part.tolist() for part in parts), strict=True)]
    assert 0 < sum(won) < 6
    assert float(accuracy) == pytest.approx(sum(won) / 6)
    assert not accuracy.requires_grad


def test_a_training_that_diverged_has_no_accuracy() -> None:
    assert math.isnan(float(implicit_accuracy(torch.tensor([1.0, math.nan, 1.0]))))
    assert float(implicit_accuracy(torch.tensor([math.inf, -math.inf]))) == 0.5


# ------------------------------------------------------------------------------------------------ types, refusals


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    """float16 ends at 65504, which 2500 times a gap of 30 passes."""
    halves = [(30 * part).to(dtype) for part in errors()]
    singles = [part.float() for part in halves]
    for loss in WITH_REFERENCE:
        assert loss(*halves, 2500.0).dtype == torch.float32
        assert torch.equal(loss(*halves, 2500.0), loss(*singles, 2500.0))
    assert torch.equal(simpo_loss(*halves[:2], 2500.0, 1.0), simpo_loss(*singles[:2], 2500.0, 1.0))
    assert reference_gap(*halves).dtype == error_gap(*halves[:2]).dtype == torch.float32
    gap = torch.tensor([1.0, 0.0, -1.0] * 700, dtype=dtype)
    assert implicit_accuracy(gap).dtype == torch.float32
    assert float(implicit_accuracy(gap)) == pytest.approx(0.5, abs=1e-7)


def test_large_gaps_neither_overflow_nor_lose_their_gradient() -> None:
    """A pair that is lost by far: the loss is beta times the gap, its slope beta; one that is won: both are 0."""
    high, low, none = torch.tensor([3.0]), torch.tensor([0.0]), torch.zeros(1)
    for loss, reference in ((simpo_loss, []), (dpo_loss, [none, none])):
        value, (winner, loser, *_) = gradients(loss, [high, low, *reference], 2500.0)
        assert float(value) == 7500
        assert float(winner) == -float(loser) == 2500
        value, (winner, *_) = gradients(loss, [low, high, *reference], 2500.0)
        assert float(value) == float(winner) == 0


@pytest.mark.parametrize("loss", [*WITH_REFERENCE, simpo_loss])
@pytest.mark.parametrize("beta", [0, -1.0, math.nan, math.inf])
def test_beta_is_above_0(loss: Loss, beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be finite and above 0"):
        loss(*errors(2 if loss is simpo_loss else 4), beta)


def test_errors_of_other_shapes_are_refused_by_name() -> None:
    """A scalar for the batch, or one that would broadcast over it, is what a mean taken too early leaves."""
    winner, loser, winner_reference, loser_reference = errors()
    with pytest.raises(ValueError, match=r"loser: expected a non-empty \(n,\), got shape \(\)"):
        simpo_loss(winner, loser.mean(), BETA)
    with pytest.raises(ValueError, match=r"loser_reference: expected the shape \(6,\) of winner, got \(1,\)"):
        dpo_loss(winner, loser, winner_reference, loser_reference[:1], BETA)
    with pytest.raises(ValueError, match="margin must be finite"):
        simpo_loss(winner, loser, BETA, -1.0)
