"""Kernel distance: against the definition, unbiased, in blocks."""

import numpy as np
import pytest

from atelier.metrics import kernel, kernel_distance


def by_definition(real: np.ndarray, generated: np.ndarray) -> float:
    """Unbiased squared MMD, one pair at a time."""

    def mean(first, second, same):
        pairs = [(x, y) for i, x in enumerate(first) for j, y in enumerate(second) if not (same and i == j)]
        return sum((np.dot(x, y) / len(x) + 1) ** 3 for x, y in pairs) / len(pairs)

    return mean(real, real, True) + mean(generated, generated, True) - 2 * mean(real, generated, False)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (9, 9), (11, 6), (6, 11)])
@pytest.mark.parametrize("block", [4, 1024])
def test_definition(n, m, block, monkeypatch):
    monkeypatch.setattr(kernel, "BLOCK", block)  # 4: several blocks, the last one short, diagonals in each
    generator = np.random.default_rng(0)
    real, generated = generator.standard_normal((n, 3)), generator.standard_normal((m, 3)) + 0.5
    assert kernel_distance(real, generated) == pytest.approx(by_definition(real, generated), rel=1e-12, abs=1e-13)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (40, 12)])
def test_mean_is_the_population_value(n, m):
    """N(0, I) against itself: 0. Against the point c: 1 + 3/d + (|c|^2/d + 1)^3 - 2 (1 + 3 |c|^2/d^2), by moments."""
    d, draws = 8, 400
    generator = np.random.default_rng(1)
    equal = [
        kernel_distance(generator.standard_normal((n, d)), generator.standard_normal((m, d))) for _ in range(draws)
    ]
    point = np.full((m, d), 0.7)
    square = (point[0] ** 2).sum()
    truth = 1 + 3 / d + (square / d + 1) ** 3 - 2 * (1 + 3 * square / d**2)
    shifted = [kernel_distance(generator.standard_normal((n, d)), point) for _ in range(draws)]
    for values, expected in ((equal, 0.0), (shifted, truth)):
        error = np.std(values) / np.sqrt(draws)
        assert abs(np.mean(values) - expected) < 4 * error
        assert 4 * error < 0.25 * truth  # else the line above would pass for anything; diagonals left in add 1 to 4


def test_refusals():
    with pytest.raises(ValueError, match="at least 2 generated samples, got 1"):
        kernel_distance(np.zeros((3, 2)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="d=2, generated d=3"):
        kernel_distance(np.zeros((3, 2)), np.zeros((3, 3)))
