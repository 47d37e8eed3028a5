"""Spectra: slopes of exact power laws, closed forms of residuals, streaming, refusals."""

import numpy as np
import pytest

from atelier.metrics import (
    log_power_error,
    mean_power_spectrum,
    mean_residual_spectrum,
    power_spectrum_mean,
    power_spectrum_slope,
    power_spectrum_slope_distance,
    power_spectrum_slopes,
    radial_power,
    residual_spectrum_distance,
    residual_spectrum_label,
    residual_spectrum_mean,
    spectrum_slope,
)
from atelier.metrics.features import haar_inverse
from atelier.metrics.spectra import median_denoise, wavelet_denoise


def power_law(exponent: float, n: int = 100, height: int = 64, width: int = 64, seed: int = 0) -> np.ndarray:
    """(n, 1, h, w) in [0, 1]: white noise filtered to power f^-exponent, one scale for the set, no mean but 0.5."""
    generator = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) * min(height, width)
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(generator.standard_normal((n, height, width)))
    fields = np.fft.irfft2(noise * frequency ** (-exponent / 2), s=(height, width))
    return 0.5 + 0.5 * fields[:, None] / np.abs(fields).max()


# ------------------------------------------------------------------------------------------------ power spectra


@pytest.mark.parametrize("exponent", [0.0, 1.5, 2.0, 2.5])
@pytest.mark.parametrize("low", [2, 3, 10])
def test_slope_of_a_power_law(exponent, low):
    # One 64 px picture has sd 0.11 for [10, 32], so a set of 100 has 0.011: 0.05 is more than 4 of them.
    assert power_spectrum_slope(power_law(exponent), low) == pytest.approx(-exponent, abs=0.05)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 63), (128, 128)])
def test_slope_on_other_grids(height, width):
    images = power_law(2.0, 60, height, width)
    assert power_spectrum_slope(images, 3) == pytest.approx(-2, abs=0.05)
    assert power_spectrum_slope(images, 10, 25) == pytest.approx(-2, abs=0.09)  # 1.3 octaves: sd 0.02 at 60 pictures


def test_no_bias_from_rings():
    """The exact spectrum f^-p, nothing sampled: what the fit itself gets wrong."""
    radius = np.hypot(*np.meshgrid(*2 * [np.arange(-32, 32)]))
    radius[32, 32] = 1
    for exponent in (0.0, 1.5, 2.0, 2.5):
        for low, error in ((2, 0.01), (10, 0.002)):  # a ring's mean power is not its power at the mean frequency
            assert spectrum_slope(radius**-exponent, low) == pytest.approx(-exponent, abs=error)


def test_slope_reads_its_rings_and_no_others():
    ring = np.rint(np.hypot(*np.meshgrid(*2 * [np.arange(-32, 32)])))
    changed = [spectrum_slope(1.0 + (ring == raised), 5, 20) != 0 for raised in (4, 5, 20, 21)]
    assert changed == [False, True, True, False]
    assert spectrum_slope(1.0 + (ring == 32)) > 0  # the default reaches N/2


def test_slope_distance():
    steep, shallow = power_law(2.5), power_law(1.5, seed=1)
    assert power_spectrum_slope_distance(steep, steep) == 0
    distance = power_spectrum_slope_distance(shallow, steep, low=3)
    assert distance == pytest.approx(1.0, abs=0.05)
    assert power_spectrum_slope_distance(steep, shallow, low=3) == distance
    faded = 0.2 + 0.3 * steep  # gain and offset are not slope
    assert power_spectrum_slope_distance(steep, faded) == pytest.approx(0, abs=1e-10)


def test_shallow_pictures_dominate_the_set_slope():
    """Half f^-1.5, half f^-2.5 of equal drive: the slope of the mean is far from the mean of the slopes."""
    generator_scale = 0.02  # equal drive, and within [0, 1]
    halves = []
    for exponent in (1.5, 2.5):
        images = power_law(exponent, 60) - 0.5
        power = mean_power_spectrum(images + 0.5)
        halves.append(0.5 + generator_scale * images / np.sqrt(power[32, 33]))  # 1 cycle a picture: f = 1 in both
    mixture = np.concatenate(halves)
    assert power_spectrum_slopes(mixture).shape == (120,)
    assert power_spectrum_slopes(mixture).mean() == pytest.approx(-2, abs=0.06)  # sd 0.11 / sqrt 120, plus log bias
    assert power_spectrum_slope(mixture) > -1.7


def test_power_spectrum_is_energy_in_place():
    y, x = np.mgrid[:32, :48]
    wave = 0.5 + 0.25 * np.cos(2 * np.pi * (3 * y / 32 + 6 * x / 48))  # radius 32 * hypot(3/32, 6/48) = 5
    images = np.stack([wave, wave, wave])[None]
    spectrum = mean_power_spectrum(images)
    assert spectrum.sum() == pytest.approx((wave**2).sum(), rel=1e-12)
    assert spectrum[16, 24] == pytest.approx(0.25 * wave.size, rel=1e-12)  # the mean, in the middle
    frequency, power = radial_power(spectrum)
    assert np.flatnonzero(power > 1e-20).tolist() == [0, 5]
    assert len(frequency) == 17
    assert np.all(np.abs(frequency - np.arange(17)) < 0.3)
    red = images.copy()
    red[:, 1:] = 0
    np.testing.assert_allclose(mean_power_spectrum(red), spectrum / 9, atol=1e-12)  # grey is the mean over channels


def test_hann_window():
    constant = np.full((1, 1, 32, 32), 0.5)
    _, power = radial_power(mean_power_spectrum(constant, "hann"))
    assert power[2:].max() < 1e-25  # a mean leaks into the next bin and no further
    assert power[1] > 1e-3
    noise = power_law(0.0, 200)
    for window in ("none", "hann"):
        inner = radial_power(mean_power_spectrum(noise, window))[1][3:].mean()
        assert inner == pytest.approx(noise.var(), rel=0.02)  # 200 * 4096 squared Gaussians: sd 0.3 %


@pytest.mark.parametrize("mean", [power_spectrum_mean, residual_spectrum_mean])
def test_streaming_equals_one_shot(mean):
    images = np.random.default_rng(5).uniform(size=(75, 3, 16, 20))  # three batches of 32, the last one short
    stream = mean()
    for start in range(0, 75, 7):
        stream.update(images[start : start + 7])
    assert stream.count == 75
    assert stream.total.shape == (16, 20)
    np.testing.assert_allclose(stream.mean, mean().update(images).mean, rtol=1e-12)
    alone = np.mean([mean().update(image[None]).mean for image in images], axis=0)
    np.testing.assert_allclose(stream.mean, alone, rtol=1e-12)


# --------------------------------------------------------------------------------------------- residual spectra


def spike(levels: float, side: int = 16) -> np.ndarray:
    """(1, 1, side, side): 0.25 but for one pixel, so many 8-bit levels brighter, which a median removes."""
    images = np.full((1, 1, side, side), 0.25)
    images[..., 7, 5] += levels / 255
    return images


def test_median_against_its_definition():
    field = np.random.default_rng(6).uniform(size=(7, 9))
    padded = np.pad(field, 1, mode="symmetric")
    expected = [[np.median(padded[i : i + 3, j : j + 3]) for j in range(9)] for i in range(7)]
    np.testing.assert_array_equal(median_denoise(field[None])[0], expected)


def test_residual_of_a_spike_is_flat():
    spectrum = mean_residual_spectrum(spike(32))
    np.testing.assert_allclose(spectrum, 32**2 / 16**2, rtol=1e-12)
    assert mean_residual_spectrum(np.full((2, 3, 16, 16), 0.3)).max() == 0


def test_residual_distance_closed_forms():
    weak, strong = spike(32), spike(64)  # flat spectra of 4 and 16 on 256 bins
    assert residual_spectrum_distance(weak, weak) == 0
    assert residual_spectrum_distance(weak, strong) == pytest.approx(12 * 16, rel=1e-12)
    assert residual_spectrum_distance(weak, strong, normalisation="energy") == pytest.approx(0, abs=1e-12)
    ratio = np.log((16 + 1 / 12) / (4 + 1 / 12))
    assert residual_spectrum_distance(weak, strong, normalisation="log") == pytest.approx(16 * ratio, rel=1e-12)
    texture = np.random.default_rng(7).uniform(size=(5, 3, 16, 16))
    assert residual_spectrum_distance(texture, 0.5 * texture, normalisation="energy") == pytest.approx(0, abs=1e-10)
    assert residual_spectrum_distance(texture, texture[:, ::-1]) == pytest.approx(0, abs=1e-9)  # grey only


def test_wavelet_thresholds_are_bayes_shrink():
    """Bands of constant size: diagonal 2 * 0.6745 (noise sd 2), along x 4, along y 1. Along x the signal sd is sqrt 12
    and the threshold 4 / sqrt 12; the other two hold no signal and vanish."""
    signs = np.sign(np.random.default_rng(8).standard_normal((1, 3, 8, 8)))
    details = signs * np.array([4.0, 1.0, 2 * 0.6745])[:, None, None]
    approximation = np.random.default_rng(9).standard_normal((1, 8, 8))
    kept = signs * np.array([4 - 4 / np.sqrt(12), 0, 0])[:, None, None]
    denoised = wavelet_denoise(haar_inverse(approximation, details))
    np.testing.assert_allclose(denoised, haar_inverse(approximation, kept), atol=1e-12)


@pytest.mark.parametrize("shape", [(63, 65), (64, 66)])
def test_wavelet_removes_noise(shape):
    noise = np.random.default_rng(10).standard_normal((40, *shape))
    assert wavelet_denoise(noise).shape == noise.shape
    assert wavelet_denoise(noise).var() < 0.3  # the approximation's quarter: 0.249, 0.266 with repeated border lines
    rows = np.repeat(np.arange(shape[0]), shape[1]).reshape(shape) // 2
    steps = np.broadcast_to(rows, (3, *shape)).astype(float)  # constant on 2x2 blocks, whole ones at an odd border too
    np.testing.assert_allclose(wavelet_denoise(steps), steps, atol=1e-13)


def test_wavelet_residual_spectrum_has_a_logarithm():
    spectrum = mean_residual_spectrum(power_law(2.0, 10), "wavelet", "log")
    assert spectrum[32, 32] == pytest.approx(np.log(1 / 12), abs=1e-9)  # a residual of details has no mean


def test_label():
    assert residual_spectrum_label(64, 48, "wavelet", "log") == (
        "wavelet residual of grey in 8-bit levels, log spectrum, 64x48 px"
    )


# ------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda x: power_spectrum_slope(np.full_like(x, 0.3)), r"no power in rings 10..32 \(constant pictures\?\)"),
        (lambda x: power_spectrum_slope(x, 10, 11), "at least 3 rings, low=10..high=11 has 2"),
        (lambda x: power_spectrum_slope(x, 12, 10), "at least 3 rings, low=12..high=10 has 0"),
        (lambda x: power_spectrum_slope(x, 0), r"rings 0..32 are not within 1..32 of 64x64 pictures"),
        (lambda x: power_spectrum_slope(x, 10, 33), r"rings 10..33 are not within 1..32 of 64x64"),
        (lambda x: power_spectrum_slope_distance(x, x[..., :48]), "differ in size: 64x64 and 64x48"),
        (lambda x: mean_power_spectrum(x, "han"), "unknown window 'han', nearest is 'hann'"),
        (lambda x: residual_spectrum_distance(x, x[..., :48]), "differ in size: 64x64 and 64x48"),
        (
            lambda x: mean_residual_spectrum(x, "meadian"),
            "unknown denoiser 'meadian', nearest is 'median' of median, wav",
        ),
        (lambda x: mean_residual_spectrum(x, normalisation="lgo"), "unknown normalisation 'lgo', nearest is 'log'"),
        (lambda x: residual_spectrum_label(8, 8, "bilateral"), "unknown denoiser 'bilateral'"),
        (lambda x: mean_residual_spectrum(np.full_like(x, 0.3), normalisation="energy"), "residuals are all zero"),
        (lambda x: power_spectrum_mean().update(x).update(x[..., :48]), "differ in size: 64x64 and 64x48"),
        (lambda x: power_spectrum_mean().mean, "no pictures yet"),
    ],
)
def test_refusals(call, line):
    with pytest.raises(ValueError, match=line):
        call(power_law(2.0, 2))


def test_log_power_error_is_the_mean_factor_above_a_frequency() -> None:
    """A spectrum ten times as strong in some rings is off by one there; rings below count for nothing."""
    real = mean_power_spectrum(power_law(2.0))
    axis = np.fft.fftshift(np.fft.fftfreq(64)) * 64
    ring = np.round(np.hypot(*np.meshgrid(axis, axis)))
    above = 16
    assert log_power_error(real, real, above) == 0.0
    assert log_power_error(real, np.where(ring > 16, 10 * real, real), above) == pytest.approx(1.0)
    assert log_power_error(real, np.where(ring > 16, real / 10, real), above) == pytest.approx(1.0)
    assert log_power_error(real, np.where(ring <= 16, 10 * real, real), above) == pytest.approx(0.0)
    assert log_power_error(real, np.where(ring > 24, 100 * real, real), above) == pytest.approx(2 * 8 / 16)
    with pytest.raises(ValueError, match="no power above 33 cycles"):
        log_power_error(real, real, 33)
    with pytest.raises(ValueError, match="no power above 16 cycles"):
        log_power_error(real, np.where(ring == 20, 0.0, real), 16)
    with pytest.raises(ValueError, match="64"):
        log_power_error(real, real[:32, :32], 8)
