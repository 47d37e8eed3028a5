"""Frechet distance: against known truths, streamed, on rank-deficient sets, and where its bias inverts a ranking."""

import numpy as np
import pytest
import torch

from atelier.metrics import Moments, frechet_distance, frechet_distance_from_moments, kernel_distance


def transported(n: int, d: int, seed: int = 0, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray, float]:
    """Real features, an affine map of them by a symmetric positive M, and their exact distance.

    Such a map is the optimal transport, so the distance is |b|^2 + mean square of x - M x, also where the covariance
    has rank n - 1 < d, and without a square root. M and the covariance do not commute.
    """
    generator = np.random.default_rng(seed)
    centred = generator.standard_normal((n, d)) * np.linspace(0.1, 3, d)
    centred -= centred.mean(axis=0)
    basis, _ = np.linalg.qr(generator.standard_normal((d, d)))
    moved = centred @ (basis * generator.uniform(0.3, 2, d)) @ basis.T
    shift = generator.standard_normal(d)
    return centred + offset, moved + offset + shift, shift @ shift + ((centred - moved) ** 2).sum() / (n - 1)


@pytest.mark.parametrize("n", [50, 500, 2000])
@pytest.mark.parametrize("d", [16, 200])
def test_known_truth(n, d):
    real, generated, truth = transported(n, d)
    assert frechet_distance(real, generated) == pytest.approx(truth, rel=1e-12)  # 2e-15 measured; 6e-5 by sqrtm


def test_agrees_with_the_eigenvalues_of_the_product():
    generator = np.random.default_rng(1)  # two unrelated covariances of full rank, unequal n: no map between them known
    real, generated = generator.standard_normal((300, 12)), generator.uniform(size=(200, 12)) @ np.tri(12)
    first, second = np.cov(real.T), np.cov(generated.T)
    means = ((real.mean(0) - generated.mean(0)) ** 2).sum()
    roots = np.sqrt(np.linalg.eigvals(first @ second).real).sum()
    assert frechet_distance(real, generated) == pytest.approx(
        means + np.trace(first + second) - 2 * roots, rel=1e-10
    )  # eigvals lose digits by the condition number, about 1e3 here
    assert frechet_distance(generated, real) == pytest.approx(frechet_distance(real, generated), rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("n", [2, 20, 300])
def test_never_below_rounding(n, offset):
    real = np.random.default_rng(2).standard_normal((n, 64)) + offset
    duplicated = np.repeat(real, 2, axis=0)
    flat = real * (np.arange(64) < 3)  # rank 3
    for first, second in [(real, real), (real, real[::-1]), (duplicated, duplicated), (flat, flat), (flat, -flat)]:
        distance = frechet_distance(first, second)
        assert isinstance(distance, float)
        assert distance >= -1e-10
    # Traces of at most 130, so that 1e-10 is 1e-12 of them; with an offset the features themselves carry 1e-12.
    assert frechet_distance(real, real[::-1]) == pytest.approx(0, abs=1e-10)


def test_rigid_motions_and_units():
    real, generated, truth = transported(100, 24)
    rotation, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((24, 24)))
    assert frechet_distance(real @ rotation + 7, generated @ rotation + 7) == pytest.approx(truth, rel=1e-11)
    assert frechet_distance(3 * real, 3 * generated) == pytest.approx(9 * truth, rel=1e-11)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(("n", "d"), [(30, 64), (700, 24)])
def test_streaming_equals_one_shot(n, d, offset):
    real, generated, _ = transported(n, d, offset=offset)
    first, second, rest = Moments(), Moments(), Moments()
    for start in range(0, n, 13):  # 13 divides neither n: the last batch is short; 30 = 13 + 13 + 4, 700 = 53 * 13 + 11
        first.update(real[start : start + 13])
        (second if start < n / 2 else rest).update(generated[start : start + 13])
        assert len(first.factor) <= 2 * d
    merged = Moments().merge(second).merge(rest).merge(Moments())
    assert merged.count == first.count == n
    # Rounding of the features at the offset, 1e4 * 1e-16, is the only difference left.
    np.testing.assert_allclose(first.mean, real.mean(axis=0), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(first.covariance, np.cov(real.T), rtol=0, atol=1e-10)
    assert frechet_distance_from_moments(first, merged) == pytest.approx(frechet_distance(real, generated), rel=1e-10)


@pytest.mark.parametrize("n", [30, 700])
def test_published_statistics(n):
    real, generated, truth = transported(n, 64)
    pair = [Moments.from_covariance(n, x.mean(axis=0), np.cov(x.T)) for x in (real, generated)]
    assert frechet_distance_from_moments(*pair) == pytest.approx(truth, rel=1e-10)  # 1e-14 measured, also at rank 29
    # Against full rank, an eigenvalue of 1e-16 that should be 0 would enter by its root, 1e-8.
    other = np.random.default_rng(5).standard_normal((200, 64))
    pair[1] = Moments.from_covariance(200, other.mean(axis=0), np.cov(other.T))
    assert frechet_distance_from_moments(*pair) == pytest.approx(frechet_distance(real, other), rel=1e-10)


def test_torch_and_numpy_agree():
    real, generated, _ = transported(40, 8)
    tensors = torch.tensor(real, dtype=torch.float32, requires_grad=True), torch.tensor(generated, dtype=torch.float32)
    arrays = real.astype(np.float32), generated.astype(np.float32)
    assert frechet_distance(*tensors) == frechet_distance(*arrays)
    halves = torch.tensor(real, dtype=torch.bfloat16), torch.tensor(generated, dtype=torch.bfloat16)
    assert frechet_distance(*halves) == frechet_distance(*(half.double() for half in halves))


def test_bias_inverts_a_ranking_that_the_kernel_distance_gets_right():
    """A model of the law N(0, I_64) must beat one of 0.8 times its spread; at n = 48 it loses (1,000 references)."""
    generator = np.random.default_rng(4)

    def gap(distance, n):
        reference, true = generator.standard_normal((1000, 64)), generator.standard_normal((n, 64))
        return distance(reference, 0.8 * true) - distance(reference, true)

    # Every single draw: the gaps are -4 and +1.3, with sd 0.6 and 0.15.
    assert max(gap(frechet_distance, 48) for _ in range(6)) < 0
    assert min(gap(frechet_distance, 240) for _ in range(6)) > 0
    # The kernel distance is right on average at n = 48: 0.006 with sd 0.004 a draw, so 7 standard errors in 20 draws.
    gaps = np.array([gap(kernel_distance, 48) for _ in range(20)])
    assert gaps.mean() > 3 * gaps.std() / np.sqrt(len(gaps))


@pytest.mark.parametrize(
    ("real", "generated", "line"),
    [
        (np.zeros((1, 4)), np.zeros((5, 4)), "at least 2 samples, got 1"),
        (np.zeros((5, 4)), np.zeros((5, 3)), "d=4, generated d=3"),
        (np.full((5, 4), np.nan), np.zeros((5, 4)), "not all finite"),
        (np.zeros((5, 4)), np.full((5, 4), np.inf), "not all finite"),
        (np.zeros(5), np.zeros(5), r"shape \(5,\)"),
        (np.zeros((0, 4)), np.zeros((5, 4)), "non-empty"),
        (np.zeros((5, 4), dtype=complex), np.zeros((5, 4)), "complex128"),
    ],
)
def test_refusals(real, generated, line):
    with pytest.raises(ValueError, match=line):
        frechet_distance(real, generated)


def test_moments_refuse():
    with pytest.raises(ValueError, match="d=3 do not join features of d=4"):
        Moments().update(np.ones((2, 4))).update(np.ones((2, 3)))
    with pytest.raises(ValueError, match="at least 2 samples, got 0"):
        _ = Moments().covariance
    with pytest.raises(ValueError, match="negative eigenvalue"):
        Moments.from_covariance(10, np.zeros(2), np.diag([1.0, -1.0]))
    with pytest.raises(ValueError, match="not symmetric"):
        Moments.from_covariance(10, np.zeros(2), np.tri(2))
    with pytest.raises(ValueError, match="the mean has d=3"):
        Moments.from_covariance(10, np.zeros(3), np.eye(2))


def test_a_mean_of_several_rows_and_a_single_sample_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mean: expected numbers \(n,\)"):
        Moments.from_covariance(10, np.zeros((3, 2)), np.eye(2))
    with pytest.raises(ValueError, match="count must be at least 2, got 1"):
        Moments.from_covariance(1, np.zeros(2), np.eye(2))
