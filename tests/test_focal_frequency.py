"""Focal frequency loss: against the authors' package, a transform written out, Parseval's theorem and gradcheck."""

import itertools
import math

import pytest
import torch
from focal_frequency_loss import FocalFrequencyLoss
from torch import Tensor

from atelier.methods.focal_frequency import focal_frequency_loss

OPTIONS = [
    {"alpha": alpha, "patch_factor": patches, "average_spectrum": average, "log_matrix": log, "batch_matrix": batch}
    for alpha, patches, average, log, batch in itertools.product(
        (0.0, 0.5, 1.0, 2.0), (1, 2, 4), (False, True), (False, True), (False, True)
    )
]


def pictures(seed: int, shape: tuple[int, ...] = (3, 3, 16, 24), dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def theirs(options: dict) -> FocalFrequencyLoss:
    return FocalFrequencyLoss(
        1.0,
        options["alpha"],
        options["patch_factor"],
        options["average_spectrum"],
        options["log_matrix"],
        options["batch_matrix"],
    )


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("shape", [(3, 3, 16, 24), (2, 1, 20, 12), (1, 3, 64, 64)])
def test_value_and_gradient_agree_with_the_package_for_all_options(
    shape: tuple[int, ...], dtype: torch.dtype, rtol: float
) -> None:
    worst = 0.0
    for options in OPTIONS:
        target = pictures(1, shape, dtype)
        found = []
        for loss in (lambda x, y, o=options: focal_frequency_loss(x, y, **o), theirs(options)):
            pred = pictures(0, shape, dtype).requires_grad_()
            value = loss(pred, target)
            value.backward()
            assert pred.grad is not None
            found.append((value.detach(), pred.grad))
        worst = max(worst, abs(float(found[0][0] / found[1][0]) - 1))
        torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=rtol * float(found[1][1].abs().max()))
    print(f"\nlargest relative gap to the package, {dtype}, {shape}: {worst:.1e}")
    assert worst <= rtol


def by_sums(pred: Tensor, target: Tensor, alpha: float) -> float:
    """One picture channel (h, w), the transform as its definition has it."""
    h, w = pred.shape
    squares = []
    for u in range(h):
        for v in range(w):
            value = sum(
                complex(float(pred[y, x] - target[y, x])) * complex(math.cos(angle), math.sin(angle))
                for y in range(h)
                for x in range(w)
                for angle in [-2 * math.pi * (u * y / h + v * x / w)]
            )
            squares.append(abs(value) ** 2 / (h * w))
    weights = [square ** (alpha / 2) for square in squares]
    return sum(weight / max(weights) * square for weight, square in zip(weights, squares, strict=True)) / (h * w)


@pytest.mark.parametrize("shape", [(4, 6), (5, 3), (1, 4)])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_it_agrees_with_the_transform_written_out(shape: tuple[int, int], alpha: float) -> None:
    one, other = pictures(2, (1, 1, *shape)), pictures(3, (1, 1, *shape))
    expected = by_sums(one[0, 0], other[0, 0], alpha)
    assert float(focal_frequency_loss(one, other, alpha)) == pytest.approx(expected, rel=1e-12)


def test_alpha_zero_is_the_mean_squared_error_and_no_alpha_is_above_it() -> None:
    one, other = pictures(4), pictures(5)
    error = float((one - other).square().mean())
    for log in (False, True):
        assert float(focal_frequency_loss(one, other, 0.0, log_matrix=log)) == pytest.approx(error, rel=1e-12)
    for options in OPTIONS:
        if not options["average_spectrum"]:
            assert float(focal_frequency_loss(one, other, **options)) <= error * (1 + 1e-12)
    constant = other + 0.25  # all in one frequency: its weight is 1
    assert float(focal_frequency_loss(constant, other)) == pytest.approx(1 / 16, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equal_pictures_give_zero_and_a_finite_gradient(dtype: torch.dtype) -> None:
    for options in OPTIONS:
        one = pictures(6, dtype=dtype).requires_grad_()
        loss = focal_frequency_loss(one, one.detach().clone(), **options)
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert one.grad is not None
        assert torch.equal(one.grad, torch.zeros_like(one))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_under_autocast_too(dtype: torch.dtype) -> None:
    """Sides that half precision's transform refuses, and values whose squares it cannot hold."""
    one, other = pictures(7, (2, 3, 12, 20), dtype) * 300, pictures(8, (2, 3, 12, 20), dtype) * 300
    expected = focal_frequency_loss(one.float(), other.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = focal_frequency_loss(one, other)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_the_gradient_is_that_of_the_distance_with_the_weights_held() -> None:
    """The weights carry no gradient: for alpha = 0 they are constant and gradcheck applies to the loss itself."""
    one, other = pictures(9, (2, 2, 4, 6)).requires_grad_(), pictures(10, (2, 2, 4, 6))
    for patches, average in ((1, False), (2, False), (1, True)):
        assert torch.autograd.gradcheck(
            lambda x, p=patches, a=average: focal_frequency_loss(x, other, 0.0, p, a), (one,)
        )
    loss = focal_frequency_loss(one, other)
    (gradient,) = torch.autograd.grad(loss, one)
    # homogeneous of degree 2 while the weights are held: the sum of x dL/dx is twice the loss
    assert float((gradient * (one - other)).sum().detach()) == pytest.approx(2 * float(loss.detach()), rel=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    one = pictures(11, (2, 3, 12, 20))
    with pytest.raises(ValueError, match=r"of one shape, got \(2, 3, 12, 20\) and \(1, 3, 12, 20\)"):
        focal_frequency_loss(one, one[:1])
    with pytest.raises(ValueError, match="of one shape"):
        focal_frequency_loss(one[0], one[0])
    with pytest.raises(ValueError, match="12x20 pictures cannot be cut into 5 a side"):
        focal_frequency_loss(one, one, patch_factor=5)
    with pytest.raises(ValueError, match="cut into 0 a side"):
        focal_frequency_loss(one, one, patch_factor=0)
    for alpha in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="alpha: expected at least 0"):
            focal_frequency_loss(one, one, alpha)


def test_integers_rgba_and_channels_last_are_refused() -> None:
    """A difference of 8-bit pictures wraps around: without a word it made the loss three times too large."""
    one, other = ((255 * pictures(seed)).to(torch.uint8) for seed in (12, 13))
    for dtype in (torch.uint8, torch.int64, torch.bool, torch.complex64):
        with pytest.raises(ValueError, match=r"pred: expected floats \(n, c, h, w\), got"):
            focal_frequency_loss(one.to(dtype), other.to(dtype))
    with pytest.raises(ValueError, match="divided by 255 first"):
        focal_frequency_loss(one, other)
    rgba = torch.cat([pictures(12), torch.ones_like(pictures(12)[:, :1])], 1)
    for x in (rgba, pictures(12).movedim(1, -1)):
        with pytest.raises(ValueError, match=r"pred: .* channels"):
            focal_frequency_loss(x, x)
