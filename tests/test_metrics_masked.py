"""Power above a frequency in parts of pictures: an oracle by direct sums, and textures that are known."""

import numpy as np
import pytest

from atelier.metrics.masked import apart, gain, high_passed, high_power

SIDE, ABOVE = 64, 0.25


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def discs(n: int, radius: float = 16.0) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2 + 0.5
    return np.repeat((np.hypot(x, y) < radius)[None], n, 0)


def textured(rng: np.random.Generator, n: int, inside: float, outside: float, masks: np.ndarray) -> np.ndarray:
    """Grey pictures of white noise of two strengths on a step of brightness."""
    noise = rng.uniform(-1, 1, (n, SIDE, SIDE)) * 3**0.5
    fields = 0.5 + noise * np.where(masks, inside, outside)
    return np.repeat(np.clip(fields, 0, 1)[:, None], 3, 1)


def test_the_high_pass_is_that_of_the_mirrored_picture_in_the_fourier_domain(rng: np.random.Generator) -> None:
    field = rng.normal(size=(2, 8, 12))
    mirrored = np.concatenate([field, field[:, ::-1]], 1)
    mirrored = np.concatenate([mirrored, mirrored[:, :, ::-1]], 2)
    rows, columns = np.fft.fftfreq(16)[:, None], np.fft.fftfreq(24)
    radius = np.hypot(rows, columns)
    gains = np.where(radius < 0.8 * ABOVE, 0, np.where(radius > 1.2 * ABOVE, 1, np.nan))
    between = np.isnan(gains)
    gains[between] = (1 - np.cos(np.pi * (radius[between] - 0.8 * ABOVE) / (0.4 * ABOVE))) / 2
    expected = np.fft.ifft2(np.fft.fft2(mirrored) * gains).real[:, :8, :12]
    np.testing.assert_allclose(high_passed(field, ABOVE), expected, rtol=0, atol=1e-12)


def test_the_mean_over_a_mask_is_the_direct_sum(rng: np.random.Generator) -> None:
    """Cosines, each by itself, times their gains: float64, without any transform."""
    pictures, masks = rng.uniform(size=(3, 3, 8, 8)), rng.random((3, 8, 8)) < 0.4
    basis = np.array([np.cos(np.pi * k * (2 * np.arange(8) + 1) / 16) for k in range(8)])
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    total = 0.0
    for picture, mask in zip(pictures, masks, strict=True):
        field = picture.mean(0)
        passed = np.zeros((8, 8))
        for j in range(8):
            for i in range(8):
                wave = np.outer(basis[j], basis[i])
                passed += gain(8, 8, ABOVE)[j, i] * (wave * field).sum() * wave
        total += (passed[mask] ** 2).sum()
    assert high_power(pictures, masks, ABOVE) == pytest.approx(total / masks.sum(), rel=1e-12)


def test_a_wave_passes_above_the_frequency_alone() -> None:
    x = np.arange(SIDE)
    for cycles, passed in ((0.05, 0.0), (0.19, 0.0), (0.31, 1.0), (0.45, 1.0)):
        k = round(cycles * 2 * SIDE)
        wave = 0.5 + 0.25 * np.cos(np.pi * k * (2 * x + 1) / (2 * SIDE))
        picture = np.broadcast_to(wave, (1, 3, SIDE, SIDE))
        power = high_power(picture, np.ones((1, SIDE, SIDE), bool), ABOVE)
        assert power == pytest.approx(passed * 0.25**2 / 2, abs=1e-12)


@pytest.mark.parametrize(("inside", "outside"), [(0.02, 0.02), (0.1, 0.02), (0.02, 0.1), (0.12, 0.01)])
def test_the_texture_of_each_part_is_measured_in_that_part(
    rng: np.random.Generator, inside: float, outside: float
) -> None:
    """White noise has the same power at every frequency, so that the share above is that of the squared gains."""
    masks = discs(40)
    pictures, share = textured(rng, 40, inside, outside, masks), (gain(SIDE, SIDE, ABOVE) ** 2).mean()
    for chosen, sigma in zip(apart(masks, 2), (inside, outside), strict=True):
        assert high_power(pictures, chosen, ABOVE) == pytest.approx(share * sigma**2, rel=0.1)


def test_blurring_the_background_leaves_the_subject_alone(rng: np.random.Generator) -> None:
    masks = discs(20)
    pictures = textured(rng, 20, 0.1, 0.1, masks)
    flat = np.where(masks[:, None], pictures, 0.7)
    near, far = (chosen for chosen in apart(masks, 2))
    assert high_power(flat, near, ABOVE) == pytest.approx(high_power(pictures, near, ABOVE), rel=0.05)
    assert high_power(flat, far, ABOVE) < 0.02 * high_power(pictures, far, ABOVE)


def test_what_is_near_a_border_is_in_neither_part() -> None:
    masks = discs(1)
    near, far = apart(masks, 2)
    assert not (near & ~masks).any()
    assert not (far & masks).any()
    whole, none = apart(masks, 0)
    np.testing.assert_array_equal(whole, masks)
    np.testing.assert_array_equal(none, ~masks)
    left = ~(near | far)[0]
    y, x = np.nonzero(left)
    radius = np.hypot(x - SIDE / 2 + 0.5, y - SIDE / 2 + 0.5)
    assert radius.min() > 13
    assert radius.max() < 19
    full = np.ones((1, SIDE, SIDE), bool)
    np.testing.assert_array_equal(apart(full, 2)[0], full)  # a picture's border is none of its subject's
    assert not apart(full, 2)[1].any()


def test_what_does_not_fit_is_refused(rng: np.random.Generator) -> None:
    pictures, masks = rng.uniform(size=(2, 3, 8, 8)), np.ones((2, 8, 8), bool)
    assert np.isnan(high_power(pictures, ~masks, ABOVE))
    with pytest.raises(ValueError, match=r"masks: expected one for each picture, \(8, 8\)"):
        high_power(pictures, masks[:1], ABOVE)
    with pytest.raises(ValueError, match="masks: expected one for each of 2 pictures, got 3"):
        high_power(pictures, np.ones((3, 8, 8), bool), ABOVE)
    with pytest.raises(ValueError, match="masks: expected bool"):
        high_power(pictures, masks.astype(float), ABOVE)
    with pytest.raises(ValueError, match="above"):
        high_power(pictures, masks, 0.5)
