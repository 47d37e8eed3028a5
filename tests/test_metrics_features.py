"""Checks at the door of every metric, and the Haar feature space."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from atelier.metrics import features, frechet_distance, haar_statistics, power_spectrum_slope


def pictures(n: int = 6, channels: int = 3, side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(n, channels, side, side))


def test_import_is_light():
    heavy = "{'diffusers', 'transformers', 'pandas', 'matplotlib'}"
    code = f"import sys, atelier.metrics; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (np.zeros((2, 3, 8, 8), dtype=np.uint8), r"floats in \[0, 1\], got uint8"),
        (torch.zeros((2, 3, 8, 8), dtype=torch.uint8), r"floats in \[0, 1\], got uint8"),
        (np.full((2, 3, 8, 8), 255.0), "got values from 255 to 255"),
        (np.linspace(-1, 1, 128).reshape(2, 1, 8, 8), "got values from -1 to 1"),
        (np.zeros((3, 8, 8)), r"\(n, c, h, w\), got shape \(3, 8, 8\)"),
        (np.zeros((0, 3, 8, 8)), "non-empty"),
        (np.full((1, 1, 8, 8), np.nan), "not all finite"),
    ],
)
@pytest.mark.parametrize("metric", [haar_statistics, power_spectrum_slope])
def test_pictures_are_checked(images, line, metric):
    with pytest.raises(ValueError, match=line):
        metric(images)


def test_torch_and_numpy_agree():
    images = pictures().astype(np.float32)
    np.testing.assert_array_equal(haar_statistics(torch.tensor(images)), haar_statistics(images))


@pytest.mark.parametrize(
    ("channels", "side", "d"), [(3, 64, 51), (1, 64, 17), (3, 128, 51), (3, 32, 42), (3, 48, 42), (3, 4, 15)]
)
def test_dimensions(channels, side, d):
    assert haar_statistics(pictures(40, channels, side)).shape == (40, d)  # 40: more than a batch of 32


def test_haar_is_orthonormal_and_inverts():
    images = pictures(2, 3, 16)
    approximation, details = features.haar_step(images)
    assert (approximation**2).sum() + (details**2).sum() == pytest.approx((images**2).sum(), rel=1e-13)
    np.testing.assert_allclose(features.haar_inverse(approximation, details), images, atol=1e-15)
    colours = features.opponent_colours(images)
    np.testing.assert_allclose((colours**2).sum(axis=1), (images**2).sum(axis=1), rtol=1e-13)


def test_statistics_account_for_all_energy():
    """From the 51 numbers alone: squared means and band energies add up to the picture's mean square."""
    images = pictures()
    rows = haar_statistics(images).reshape(len(images), 3, 17)
    energies = np.exp(2 * rows[..., 1:]) - features.LEVEL_RMS**2
    shares = np.array([4.0**-level for level in range(1, 6) for _ in range(3)] + [4.0**-5])  # coefficients a pixel
    total = (rows[..., 0] ** 2 + energies @ shares).sum(axis=1)
    np.testing.assert_allclose(total, (images**2).sum(axis=1).mean(axis=(1, 2)), rtol=1e-12)


def test_statistics_by_hand():
    floor = np.log(features.LEVEL_RMS)
    y, x = np.mgrid[:64, :64]
    stripes = 0.5 + 0.25 * (-1.0) ** x  # changes along x at the finest scale: coefficients +-0.5
    blocks = 0.5 + 0.25 * (-1.0) ** (x // 4 + y // 4)  # 4x4 squares: diagonal at level 3, coefficients 8 * 0.25
    rows = haar_statistics(np.stack([stripes, blocks])[:, None])
    expected = np.full((2, 17), floor)
    expected[:, 0] = 0.5
    expected[0, 1] = np.log(0.5)
    expected[1, 1 + 2 * 3 + 2] = np.log(2.0)
    np.testing.assert_allclose(rows, expected, atol=1e-5)  # the floor adds q^2 / 0.5 = 5e-6 to the logarithms
    red = np.zeros((1, 3, 64, 64))
    red[:, 0] = 0.6
    means = haar_statistics(red).reshape(3, 17)[:, 0]
    np.testing.assert_allclose(means, 0.6 / np.sqrt([3, 2, 6]), rtol=1e-12)


def test_space_tells_noise_and_tint_from_equal_laws():
    first, second = pictures(200, seed=1), pictures(200, seed=2)
    floor = frechet_distance(haar_statistics(first), haar_statistics(second))
    smooth = (second + np.roll(second, 1, axis=-1)) / 2
    tinted = second * np.array([1.0, 0.8, 0.6])[:, None, None]
    for changed in (smooth, tinted):
        assert frechet_distance(haar_statistics(first), haar_statistics(changed)) > 2 * floor


def test_haar_refusals():
    with pytest.raises(ValueError, match="1 or 3 channels, got 4"):
        haar_statistics(pictures(2, 4))
    with pytest.raises(ValueError, match="no Haar level fits 63x63"):
        haar_statistics(pictures(2, 3, 63))
