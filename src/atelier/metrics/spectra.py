"""Spectra of picture sets: slope of the power spectrum (PSD) and distance of residual power spectra (PR).

Both use grey = mean over channels, at the original resolution, and average over the set first. A spectrum here is
|FFT|^2 of the orthonormal 2-D transform, zero frequency in the middle (``fftshift``), shape (h, w), float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Self

import numpy as np
from scipy.ndimage import median_filter

from atelier.data.checks import (
    FloatArray,
    Samples,
    check_channels,
    check_choice,
    check_number,
    check_whole,
    image_batches,
    picture_array,
    real_array,
)

from .features import haar_inverse, haar_step

LEVELS = 255  # residuals are in 8-bit levels, as in Corvi et al.: pixels / 256, in units of sigma = 1 / 256
ZERO_POWER = 1e-24  # of the strongest bin's power: far above FFT rounding (1e-31), far below 8-bit rounding (1e-10)


# ------------------------------------------------------------------------------------------------ power spectra


def grey(images: FloatArray) -> FloatArray:
    """Finite floats (n, 1 or 3, h, w) -> (n, h, w), the mean over channels; ValueError for RGBA and channels last."""
    array = real_array(images, "images", "(n, c, h, w)")
    check_channels(array, "images")
    mean: FloatArray = array.mean(axis=1)
    return mean


def hann_window(height: int, width: int) -> FloatArray:
    """Periodic 2-D Hann window (h, w) of unit mean square: keeps white noise's power; a mean leaks by one bin only.

    Raises ValueError for a side below 2, on which it is 0 everywhere.
    """
    height, width = check_whole(height, "height", least=2), check_whole(width, "width", least=2)
    rows, columns = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(side) / side) for side in (height, width))
    window = np.outer(rows, columns)
    return window / np.sqrt((window**2).mean())


WINDOWS: dict[str, Callable[[int, int], FloatArray]] = {"none": lambda h, w: np.ones((h, w)), "hann": hann_window}


def power_spectra(fields: FloatArray) -> FloatArray:
    """(n, h, w) -> (n, h, w): |FFT2|^2, orthonormal (the sum is the fields' energy), fftshift'ed.

    Raises ValueError for other shapes and values that are not finite.
    """
    fields = real_array(fields, "fields", "(n, h, w)")
    return np.fft.fftshift(np.abs(np.fft.fft2(fields, norm="ortho")) ** 2, axes=(-2, -1))


class SpectrumMean:
    """Running mean of pictures' spectra; memory is one (h, w) array and a batch, whatever n.

    ``transform`` maps a batch (n, c, h, w) to its spectra (n, h, w).
    """

    def __init__(self, transform: Callable[[FloatArray], FloatArray]) -> None:
        self.transform = transform
        self.count = 0
        self.total: FloatArray = np.zeros((0, 0))

    def update(self, images: Samples) -> Self:
        """Add pictures (n, c, h, w) in [0, 1]; returns self.

        Raises ValueError as ``picture_array`` does, or for another size than before.
        """
        for batch in image_batches(images, "images"):
            if self.count and batch.shape[-2:] != self.total.shape:
                raise ValueError(f"images: pictures differ in size: {_size(self.total)} and {_size(batch)}")
            spectrum = self.transform(batch).sum(axis=0)
            self.total = self.total + spectrum if self.count else spectrum
            self.count += len(batch)
        return self

    @property
    def mean(self) -> FloatArray:
        """The set's mean spectrum (h, w); ValueError before the first picture."""
        if not self.count:
            raise ValueError("no pictures yet, no mean spectrum")
        return self.total / self.count


def power_spectrum_mean(window: str = "none") -> SpectrumMean:
    """An empty running mean of grey power spectra; ``window``: none (default, as in the reference) or hann."""
    check_choice(window, "window", WINDOWS)
    shape = WINDOWS[window]
    return SpectrumMean(lambda images: power_spectra(grey(images) * shape(*images.shape[-2:])))


def mean_power_spectrum(images: Samples, window: str = "none") -> FloatArray:
    """Mean grey power spectrum (h, w) of pictures (n, c, h, w) in [0, 1]; ValueError as ``SpectrumMean.update``."""
    return power_spectrum_mean(window).update(images).mean


def radial_power(spectrum: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ring means of a spectrum (h, w): (frequency, power), each (N//2 + 1,), N the shorter side; ring 0 is the mean.

    A bin's ring is its radius in cycles per picture (cycles per pixel times N), rounded. ``frequency`` is the geometric
    mean radius of a ring's bins, not the ring's number, which keeps a power law's slope unbiased at low rings.
    Raises ValueError for another number of axes, and values below 0 or not finite.
    """
    spectrum = _spectrum(spectrum, "spectrum")
    height, width = spectrum.shape
    side = min(height, width)
    rows, columns = (np.fft.fftshift(np.fft.fftfreq(length)) for length in (height, width))
    radius = np.hypot(rows[:, None], columns) * side
    ring = np.rint(radius).astype(np.int64).ravel()
    log_radius = np.log(np.where(radius > 0, radius, 1)).ravel()
    kept = side // 2 + 1  # complete rings only; the corners beyond N/2 are incomplete
    bins, logs, powers = (np.bincount(ring, weights)[:kept] for weights in (None, log_radius, spectrum.ravel()))
    frequency = np.exp(logs / bins)
    frequency[0] = 0
    return frequency, powers / bins


def spectrum_slope(spectrum: FloatArray, low: int = 10, high: int | None = None) -> float:
    """Least-squares slope of log10 power against log10 frequency of a (h, w) power spectrum, rings low..high inclusive.

    ``high`` None: min(256, N/2), N the shorter side. This is the slope of **power** (twice that of amplitude), about
    -2 for paintings. As Redies et al. 2007, without their 1024 px resize, padding and log bins, which cost accuracy.
    Raises ValueError for fewer than 3 rings, rings outside 1..N/2, and rings without power (constant pictures).
    """
    spectrum = _spectrum(spectrum, "spectrum")
    frequency, power = radial_power(spectrum)
    last = len(power) - 1
    low = check_whole(low, "low", least=0)
    top = min(256, last) if high is None else check_whole(high, "high", least=0)
    if low < 1 or top > last:
        raise ValueError(f"low, high: rings {low}..{top} are not within 1..{last} of {_size(spectrum)} pictures")
    if top - low < 2:
        raise ValueError(
            f"low, high: a slope needs at least 3 rings, low={low}..high={top} has {max(top - low + 1, 0)}"
        )
    rings = slice(low, top + 1)
    if power[rings].min() <= ZERO_POWER * spectrum.max():
        raise ValueError(f"spectrum: no power in rings {low}..{top} (constant pictures?), no slope")
    return log_log_slope(frequency[rings], power[rings])


def log_power_error(real: FloatArray, made: FloatArray, above: float, up_to: float = math.inf) -> float:
    """Mean |log10 P(made) - log10 P(real)| of two power spectra (h, w) over the rings of a band, in cycles per picture.

    Raises ValueError for different sizes, no ring in the band, and a ring without power.
    """
    return float(np.abs(log_power_ratios(real, made, above, up_to)).mean())


def log_power_ratios(real: FloatArray, made: FloatArray, above: float, up_to: float = math.inf) -> FloatArray:
    """log10 P(made) - log10 P(real) of the rings of a band, above < f <= up_to. ValueError as ``log_power_error``."""
    real, made = _same_size(_spectrum(real, "real"), _spectrum(made, "made"))
    above = check_number(above, "above")
    real_power, made_power = (radial_power(spectrum)[1] for spectrum in (real, made))
    rings = np.arange(len(real_power))  # rings are indexed by their rounded radius
    chosen = (rings > above) & (rings <= up_to)
    if not chosen.any() or min(real_power[chosen].min(), made_power[chosen].min()) <= ZERO_POWER * max(
        real.max(), made.max()
    ):
        raise ValueError(f"real, made: no power above {above:g} cycles a picture, or no such frequency")
    ratios: FloatArray = np.log10(made_power[chosen]) - np.log10(real_power[chosen])
    return ratios


def log_log_slope(x: FloatArray, y: FloatArray) -> float:
    """Least-squares slope of log10 y against log10 x, both (r,) and positive, r >= 2; ValueError otherwise."""
    x, y = real_array(x, "x", "(r,)"), real_array(y, "y", "(r,)")
    if x.shape != y.shape or len(x) < 2 or min(x.min(), y.min()) <= 0 or x.min() == x.max():
        raise ValueError(
            f"x, y: expected as many positive numbers, two different x at least, got {len(x)} and {len(y)}"
        )
    u = np.log10(x) - np.log10(x).mean()
    return float(u @ np.log10(y) / (u @ u))


def power_spectrum_slope(images: Samples, low: int = 10, high: int | None = None) -> float:
    """Slope of the set's mean power spectrum; pictures (n, c, h, w) in [0, 1]. ValueError as ``spectrum_slope``.

    Not the mean of the pictures' slopes (``power_spectrum_slopes``): pictures of high contrast dominate.
    """
    return spectrum_slope(mean_power_spectrum(images), low, high)


def power_spectrum_slopes(images: Samples, low: int = 10, high: int | None = None) -> FloatArray:
    """Each picture's slope, (n,). ValueError as ``spectrum_slope``, also for a single constant picture."""
    spectra = (spectrum for batch in image_batches(images, "images") for spectrum in power_spectra(grey(batch)))
    return np.array([spectrum_slope(spectrum, low, high) for spectrum in spectra])


def power_spectrum_slope_distance(real: Samples, generated: Samples, low: int = 10, high: int | None = None) -> float:
    """PSD = |slope(real) - slope(generated)| of the sets' mean power spectra (Sickert et al. 2025).

    Raises ValueError as ``spectrum_slope``, and for sets of different picture sizes, since resizing changes the slope.
    """
    spectra = [mean_power_spectrum(images) for images in _sets_of_one_size(real, generated)]
    return abs(spectrum_slope(spectra[0], low, high) - spectrum_slope(spectra[1], low, high))


# --------------------------------------------------------------------------------------------- residual spectra


def median_denoise(fields: FloatArray) -> FloatArray:
    """3x3 median of finite floats (n, h, w); borders reflect about the outermost pixels' edge."""
    return median_filter(real_array(fields, "fields", "(n, h, w)"), size=(1, 3, 3), mode="reflect")


def wavelet_denoise(fields: FloatArray) -> FloatArray:
    """One Haar level, soft BayesShrink thresholds per picture and band (Chang, Yu, Vetterli 2000); (n, h, w).

    Noise sd = median |diagonal band| / 0.6745; threshold = variance / signal sd, a band without signal goes to 0.
    Odd sides are extended by one repeated line for the transform. Raises ValueError for other shapes.
    """
    fields = real_array(fields, "fields", "(n, h, w)")
    height, width = fields.shape[-2:]
    even = np.pad(fields, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    approximation, details = haar_step(even)  # details (n, 3, h/2, w/2), the diagonal band last
    variance = (np.median(np.abs(details[:, 2]), axis=(-2, -1)) / 0.6745)[:, None] ** 2
    signal = np.sqrt(np.maximum((details**2).mean(axis=(-2, -1)) - variance, 0))
    threshold = np.divide(variance, signal, out=np.full_like(signal, np.inf), where=signal > 0)[..., None, None]
    shrunk = np.sign(details) * np.maximum(np.abs(details) - threshold, 0)
    return haar_inverse(approximation, shrunk)[:, :height, :width]


DENOISERS: dict[str, Callable[[FloatArray], FloatArray]] = {"median": median_denoise, "wavelet": wavelet_denoise}


def residuals(images: FloatArray, denoise: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """(n, c, h, w) in [0, 1] -> (n, h, w): grey minus denoised grey, in 8-bit levels.

    Denoised after conversion to grey, so there is one residual per picture, from the same grey as the slope.
    Raises ValueError as ``picture_array`` does.
    """
    images = picture_array(images, "images")
    fields = grey(images) * LEVELS
    return fields - denoise(fields)


def residual_spectrum_mean(denoiser: str = "median") -> SpectrumMean:
    """An empty running mean of residual power spectra; ``denoiser``: median or wavelet."""
    check_choice(denoiser, "denoiser", DENOISERS)
    denoise = DENOISERS[denoiser]
    return SpectrumMean(lambda images: power_spectra(residuals(images, denoise)))


def energy_normalised(spectrum: FloatArray) -> FloatArray:
    """A spectrum (h, w) divided by its mean over bins; ValueError for one of no energy."""
    spectrum = _spectrum(spectrum, "spectrum")
    energy = spectrum.mean()
    if energy <= 0:
        raise ValueError("spectrum: residuals are all zero, no spectrum to divide by its energy")
    return spectrum / energy


def log_normalised(spectrum: FloatArray) -> FloatArray:
    """log(spectrum + 1/12), natural: every bin's relative change counts alike.

    1/12 is the power of 8-bit rounding in squared levels; changes below it mean nothing, and the wavelet residual's
    zero frequency, which is 0 by construction, would be the logarithm of rounding errors.
    Raises ValueError for values below 0.
    """
    return np.log(_spectrum(spectrum, "spectrum") + 1 / 12)


NORMALISATIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "raw": lambda spectrum: spectrum,
    "energy": energy_normalised,
    "log": log_normalised,
}


def mean_residual_spectrum(images: Samples, denoiser: str = "median", normalisation: str = "raw") -> FloatArray:
    """Mean residual power spectrum (h, w) of pictures (n, c, h, w) in [0, 1] (Corvi et al. 2023).

    Residual: ``residuals``; ``denoiser``: median (3x3) or wavelet (one Haar level, BayesShrink).
    ``normalisation`` of the mean: raw (squared 8-bit levels), energy (over its mean), log (``log_normalised``).
    Raises ValueError for unknown names, as ``SpectrumMean.update``, and for zero energy to divide by.
    """
    check_choice(normalisation, "normalisation", NORMALISATIONS)
    return NORMALISATIONS[normalisation](residual_spectrum_mean(denoiser).update(images).mean)


def residual_spectrum_distance(
    real: Samples, generated: Samples, denoiser: str = "median", normalisation: str = "raw"
) -> float:
    """PR = ||mean spectrum(real) - mean spectrum(generated)||_F of residuals (Sickert et al. 2025).

    Compare values of one denoiser, size and normalisation only (``residual_spectrum_label``).
    Raises ValueError as ``mean_residual_spectrum``, and for sets of different sizes.
    """
    spectrum = partial(mean_residual_spectrum, denoiser=denoiser, normalisation=normalisation)
    return spectrum_distance(*(spectrum(images) for images in _sets_of_one_size(real, generated)))


def spectrum_distance(spectrum1: FloatArray, spectrum2: FloatArray) -> float:
    """Frobenius norm of the difference of two (h, w) spectra, of finite floats; ValueError for different sizes."""
    one, other = real_array(spectrum1, "spectrum1", "(h, w)"), real_array(spectrum2, "spectrum2", "(h, w)")
    first, second = _same_size(one, other, ("spectrum1", "spectrum2"))
    return float(np.linalg.norm(first - second))


def residual_spectrum_label(height: int, width: int, denoiser: str = "median", normalisation: str = "raw") -> str:
    """Label of a PR column: denoiser, normalisation and size; ValueError for unknown names."""
    height, width = check_whole(height, "height"), check_whole(width, "width")
    check_choice(denoiser, "denoiser", DENOISERS)
    check_choice(normalisation, "normalisation", NORMALISATIONS)
    return f"{denoiser} residual of grey in 8-bit levels, {normalisation} spectrum, {height}x{width} px"


# ------------------------------------------------------------------------------------------------------ refusals


def _spectrum(values: Samples, name: str) -> FloatArray:
    """A power spectrum: finite floats (h, w), none below 0."""
    spectrum = real_array(values, name, "(h, w)")
    if spectrum.min() < 0:
        raise ValueError(f"{name}: expected power, at least 0, got {spectrum.min():.3g}")
    return spectrum


def _sets_of_one_size(real: Samples, generated: Samples) -> tuple[FloatArray, FloatArray]:
    """Two sets of pictures (n, c, h, w) in [0, 1], checked under their names before either is transformed."""
    return _same_size(picture_array(real, "real"), picture_array(generated, "generated"), ("real", "generated"))


def _same_size(
    first: FloatArray, second: FloatArray, names: tuple[str, str] = ("real", "made")
) -> tuple[FloatArray, FloatArray]:
    if first.shape[-2:] != second.shape[-2:]:
        raise ValueError(f"{', '.join(names)}: the sets' pictures differ in size: {_size(first)} and {_size(second)}")
    return first, second


def _size(array: FloatArray) -> str:
    return f"{array.shape[-2]}x{array.shape[-1]}"
