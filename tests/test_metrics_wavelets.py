"""Wavelet packets against products with a Hadamard matrix, and the distance's own laws."""

import numpy as np
import pytest
from scipy.linalg import hadamard
from scipy.ndimage import gaussian_filter

from atelier.metrics import frechet_distance, frechet_wavelet_distance
from atelier.metrics.wavelets import haar_packets


def pictures(n: int, seed: int, side: int = 16) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(n, 3, side, side))
    return np.clip(0.5 + 0.4 * gaussian_filter(noise, (0, 0, 1.0, 1.0), mode="wrap"), 0, 1)


def test_packets_are_blockwise_hadamard_transforms() -> None:
    """A full Haar packet transform of L levels is the 2-D Hadamard transform of each 2^L x 2^L block."""
    x, level = pictures(3, 0), 3
    side = 2**level
    matrix = hadamard(side) / side**0.5
    blocks = x.reshape(3, 3, 16 // side, side, 16 // side, side)
    transformed = np.einsum("ua,ncxayb,vb->uvncxy", matrix, blocks, matrix).reshape(side * side, 3, -1)
    ours = haar_packets(x, level)
    assert ours.shape == (64, 3, 12)
    # in another order, and each up to no sign: every packet of one is a packet of the other
    gaps = np.abs(ours[:, None] - transformed[None]).max(axis=(2, 3))
    assert sorted(gaps.argmin(1)) == list(range(64))
    assert gaps.min(1).max() < 1e-12


def test_packets_keep_the_energy() -> None:
    x = pictures(4, 1)
    np.testing.assert_allclose((haar_packets(x, 4) ** 2).sum(axis=(0, 2)), (x**2).sum(axis=(1, 2, 3)), rtol=1e-12)


def test_distance_is_the_mean_of_the_packets_distances() -> None:
    x, y = pictures(40, 2), pictures(40, 3)
    bands = [frechet_distance(a, b) for a, b in zip(haar_packets(x, 2), haar_packets(y, 2), strict=True)]
    assert frechet_wavelet_distance(x, y, 2) == pytest.approx(np.mean(bands), rel=1e-12)


def test_a_set_is_at_no_distance_from_itself() -> None:
    x = pictures(40, 4)
    assert abs(frechet_wavelet_distance(x, x, 3)) < 1e-12


def test_distance_grows_with_blur_and_with_noise() -> None:
    x, y = pictures(150, 5), pictures(150, 6)
    blurred = [gaussian_filter(y, (0, 0, sigma, sigma), mode="wrap") for sigma in (0.0, 0.6, 1.2)]
    noise = np.random.default_rng(7).normal(size=y.shape)
    noisy = [np.clip(y + sigma * noise, 0, 1) for sigma in (0.0, 0.1, 0.2)]
    for row in (blurred, noisy):
        distances = [frechet_wavelet_distance(x, each, 3) for each in row]
        assert distances == sorted(distances)
        assert distances[2] > 2 * distances[0]


@pytest.mark.parametrize(
    ("side", "level", "said"), [(16, 5, "that 32 divides"), (16, 0, "at least 1"), (12, 3, "12x12")]
)
def test_a_level_that_does_not_fit_is_refused(side: int, level: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        frechet_wavelet_distance(pictures(3, 0, side), pictures(3, 1, side), level)


def test_sets_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="not one space"):
        frechet_wavelet_distance(pictures(3, 0, 16), pictures(3, 1, 32), 2)
