"""LPIPS's formula: against a loop written out, gradients in float64, and where features are equal or zero."""

import math

import pytest
import torch
from torch import Tensor

from atelier.methods.perceptual import directions, perceptual_distance

STAGES = ((5, 6, 4), (3, 3, 2))  # channels, height, width


def stages(seed: int, n: int = 3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, *shape, generator=generator, dtype=dtype) for shape in STAGES]


def weights(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    return [torch.rand(shape[0], generator=generator, dtype=dtype) for shape in STAGES]


def by_loops(features: list[Tensor], others: list[Tensor], weighed: list[Tensor], i: int) -> float:
    total = 0.0
    for one, other, weight in zip(features, others, weighed, strict=True):
        _, channels, height, width = one.shape
        for y in range(height):
            for x in range(width):
                a, b = one[i, :, y, x].tolist(), other[i, :, y, x].tolist()
                long_a, long_b = (math.sqrt(sum(v * v for v in vector)) + 1e-10 for vector in (a, b))
                squares = [float(weight[c]) * (a[c] / long_a - b[c] / long_b) ** 2 for c in range(channels)]
                total += sum(squares) / (height * width)
    return total


def test_it_agrees_with_loops() -> None:
    found = perceptual_distance(stages(0), stages(1), weights())
    expected = [by_loops(stages(0), stages(1), weights(), i) for i in range(3)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_known_values(dtype: torch.dtype, rtol: float) -> None:
    """Opposite vectors are 4 apart, orthogonal ones 2, whatever their lengths."""
    x = torch.zeros(2, 2, 1, 1, dtype=dtype)
    y = torch.zeros(2, 2, 1, 1, dtype=dtype)
    x[:, 0], y[0, 0], y[1, 1] = 3.0, -0.1, 7.0
    found = perceptual_distance([x], [y], [torch.full((2,), 0.5, dtype=dtype)])
    torch.testing.assert_close(found, torch.tensor([2.0, 1.0], dtype=dtype), rtol=rtol, atol=0)


def test_identity_symmetry_and_independence_of_the_features_scale() -> None:
    one, other, weighed = stages(0), stages(1), weights()
    distance = perceptual_distance(one, other, weighed)
    assert torch.equal(perceptual_distance(one, one, weighed), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(perceptual_distance(other, one, weighed), distance)
    torch.testing.assert_close(perceptual_distance([100 * x for x in one], other, weighed), distance, rtol=1e-8, atol=0)
    assert torch.equal(perceptual_distance([x[1:2] for x in one], [x[1:2] for x in other], weighed), distance[1:2])


def test_gradcheck() -> None:
    one, other = ([x.requires_grad_() for x in stages(seed, n=2)] for seed in (0, 1))
    assert torch.autograd.gradcheck(
        lambda a, b, c, d: perceptual_distance([a, b], [c, d], weights()), (*one, *other), atol=1e-7
    )


def test_gradients_are_finite_where_features_are_equal_and_where_they_are_zero() -> None:
    x = torch.zeros(1, 3, 2, 2, requires_grad=True)  # a dead place; the root of its sum of squares has no slope
    perceptual_distance([x], [torch.zeros_like(x)], [torch.ones(3)]).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))
    y = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    perceptual_distance([y], [y.detach()], [torch.ones(3)]).sum().backward()
    assert y.grad is not None
    assert torch.equal(y.grad, torch.zeros_like(y))


def test_directions_are_of_unit_length_or_zero() -> None:
    x = stages(0)[0]
    x[0, :, 0, 0] = 0
    length = directions(x).norm(dim=1)
    assert length[0, 0, 0] == 0
    torch.testing.assert_close(length.flatten()[1:], torch.ones(len(length.flatten()) - 1, dtype=torch.float64))


def test_stages_that_do_not_match_are_refused() -> None:
    one, weighed = stages(0), weights()
    with pytest.raises(ValueError, match="stages do not match: 2, 1, and 2 of weights"):
        perceptual_distance(one, one[:1], weighed)
    with pytest.raises(ValueError, match="stages do not match: 0, 0, and 0"):
        perceptual_distance([], [], [])
    with pytest.raises(ValueError, match=r"stage 0: .* got \(3, 5, 6, 4\), \(3, 3, 3, 2\), \(5,\)"):
        perceptual_distance(one, one[::-1], weighed)
    with pytest.raises(ValueError, match=r"stage 0: .*weights \(c,\), got .*\(3,\)"):
        perceptual_distance(one, one, weighed[::-1])
