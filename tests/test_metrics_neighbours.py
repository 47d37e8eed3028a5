"""Precision, recall, density, coverage: the published package's integers, closed forms, borders, blocks."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from prdc import compute_prdc

from atelier.metrics import neighbours, precision_recall_density_coverage


def counts(scores: dict[str, float], n: int, m: int, k: int) -> dict[str, int]:
    """The integers behind the shares; they must be integers."""
    sizes = {"precision": m, "recall": n, "density": k * m, "coverage": n}
    exact = {name: scores[name] * size for name, size in sizes.items()}
    assert all(abs(value - round(value)) < 1e-6 for value in exact.values())
    return {name: round(value) for name, value in exact.items()}


@pytest.mark.parametrize(("n", "m", "k", "spread"), [(2000, 2000, 5, 1.0), (500, 700, 5, 0.9), (300, 200, 3, 1.2)])
def test_integers_of_the_published_package(n, m, k, spread):
    generator = np.random.default_rng(0)
    real, generated = generator.standard_normal((n, 64)), spread * generator.standard_normal((m, 64))
    ours = precision_recall_density_coverage(real, generated, k)
    assert counts(ours, n, m, k) == counts(compute_prdc(real, generated, k), n, m, k)


def test_a_set_with_itself_scores_one():
    features = np.random.default_rng(1).standard_normal((1500, 16))  # more than a block of 1024
    scores = precision_recall_density_coverage(features, features)
    assert scores == {"precision": 1.0, "recall": 1.0, "density": 1.0, "coverage": 1.0}


def test_closed_forms_for_equal_laws():
    """Of the n + m - 1 others around a real sample, the k nearest are all real with the product's probability; and a
    generated sample is among the k nearest of n with probability k / n, so that the mean density is 1."""
    n, m, k, draws = 200, 300, 5, 60
    generator = np.random.default_rng(2)
    scores = [
        precision_recall_density_coverage(generator.standard_normal((n, 4)), generator.standard_normal((m, 4)), k)
        for _ in range(draws)
    ]
    uncovered = np.prod([(n - 1 - i) / (n + m - 1 - i) for i in range(k)])
    for name, truth in (("coverage", 1 - uncovered), ("density", 1.0)):
        values = np.array([score[name] for score in scores])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(draws)
        assert values.std() / np.sqrt(draws) < 0.01  # 4 of them still tell k = 5 from 4 (coverage 0.990 and 0.975)


def test_by_hand_on_a_line():
    real = np.array([[0.0], [1.0], [3.0]])  # k = 1: radii 1, 1, 2; balls (-1, 1), (0, 2), (1, 5)
    generated = np.array([[-1.0], [0.5], [10.0], [11.0]])  # radii 1.5, 1.5, 1, 1; -1 lies on the border of (-1, 1)
    scores = precision_recall_density_coverage(real, generated, k=1)
    assert scores == {"precision": 1 / 4, "recall": 2 / 3, "density": 2 / 4, "coverage": 2 / 3}


def test_blocks_do_not_matter(monkeypatch):
    generator = np.random.default_rng(3)
    real, generated = generator.standard_normal((50, 6)), generator.standard_normal((61, 6))
    whole = precision_recall_density_coverage(real, generated)
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    assert precision_recall_density_coverage(real, generated) == whole


@pytest.mark.parametrize(
    ("n", "m", "k", "line"),
    [
        (5, 9, 5, "at least 6 real samples, got 5"),
        (9, 5, 5, "at least 6 generated samples, got 5"),
        (9, 9, 0, "k must be at least 1"),
    ],
)
def test_refusals(n, m, k, line):
    with pytest.raises(ValueError, match=line):
        precision_recall_density_coverage(np.zeros((n, 2)), np.zeros((m, 2)), k)


def test_the_nearest_is_found_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    samples, known = rng.normal(size=(30, 4)), rng.normal(size=(50, 4))
    gaps = np.sqrt(((samples[:, None] - known) ** 2).sum(2))
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    places, distances = neighbours.nearest(samples, known)
    np.testing.assert_array_equal(places, gaps.argmin(1))
    np.testing.assert_allclose(distances, gaps.min(1), rtol=1e-12)
    assert neighbours.nearest(known[[3]], known)[1][0] == 0.0


def most_memory(call: Callable[[], object]) -> int:
    """Bytes that Python and numpy hold at most while a call runs, beyond what they held before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


USES: dict[str, Callable[[np.ndarray], object]] = {
    "radius": lambda x: neighbours.neighbour_radius(x, 5),
    "nearest": lambda x: neighbours.nearest(x, x + 0.1),
    "all four": lambda x: precision_recall_density_coverage(x, x + 0.1),
}


@pytest.mark.parametrize("use", USES)
def test_memory_is_one_block_of_distances_and_grows_with_n_and_not_with_pairs(
    use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", 64)
    peaks = {}
    for n in (1000, 2000, 4000):
        features = np.random.default_rng(0).normal(size=(n, 4))
        peaks[n] = most_memory(lambda x=features: USES[use](x))
        held = 2 * features.nbytes + 200 * n  # features that are made, radii, counts
        assert peaks[n] < 64 * n * 8 * (1 + 1 / 8) + held, f"n = {n}: more than a block and its comparison"
    assert peaks[4000] < 2.2 * peaks[2000] < 2.2**2 * peaks[1000]


@pytest.mark.parametrize("k", [0, 50, -1, 2.0])
def test_a_neighbour_that_there_is_not_is_refused(k: int) -> None:
    with pytest.raises((ValueError, TypeError), match="k must be"):
        neighbours.neighbour_radius(np.random.default_rng(0).normal(size=(50, 3)), k)
