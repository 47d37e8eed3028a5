"""Spectra of picture sets: slope of the power spectrum (PSD) and distance of residual power spectra (PR).

Both use grey = mean over channels, at the original resolution, and average over the set first. A spectrum here is
|FFT|^2 of the orthonormal 2-D transform, zero frequency in the middle (``fftshift``), shape (h, w), float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Self, TypeVar

import numpy as np
from scipy.ndimage import median_filter

from .features import FloatArray, Samples, haar_inverse, haar_step, image_batches

T = TypeVar("T")

LEVELS = 255  # residuals are in 8-bit levels, as those of Corvi et al.: pixels / 256, in units of sigma = 1 / 256
ZERO_POWER = 1e-24  # of the strongest bin's power: far above FFT rounding (1e-31), far below 8-bit rounding (1e-10)


# ------------------------------------------------------------------------------------------------ power spectra


def grey(images: FloatArray) -> FloatArray:
    """(n, c, h, w) -> (n, h, w), the mean over channels."""
    return images.mean(axis=1)


def hann_window(height: int, width: int) -> FloatArray:
    """Periodic 2-D Hann window (h, w) of unit mean square: keeps white noise's power; a mean leaks by one bin only."""
    rows, columns = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(side) / side) for side in (height, width))
    window = np.outer(rows, columns)
    return window / np.sqrt((window**2).mean())


WINDOWS: dict[str, Callable[[int, int], FloatArray]] = {"none": lambda h, w: np.ones((h, w)), "hann": hann_window}


def power_spectra(fields: FloatArray) -> FloatArray:
    """(n, h, w) -> (n, h, w): |FFT2|^2, orthonormal (the sum is the fields' energy), fftshift'ed."""
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

        Raises ValueError as ``image_batch`` does, or for another size than before.
        """
        for batch in image_batches(images):
            if self.count and batch.shape[-2:] != self.total.shape:
                raise ValueError(f"pictures differ in size: {_size(self.total)} and {_size(batch)}")
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
    shape = _choice("window", window, WINDOWS)
    return SpectrumMean(lambda images: power_spectra(grey(images) * shape(*images.shape[-2:])))


def mean_power_spectrum(images: Samples, window: str = "none") -> FloatArray:
    """Mean grey power spectrum (h, w) of pictures (n, c, h, w) in [0, 1]; ValueError as ``SpectrumMean.update``."""
    return power_spectrum_mean(window).update(images).mean


def radial_power(spectrum: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ring means of a spectrum (h, w): (frequency, power), each (N//2 + 1,), N the shorter side; ring 0 is the mean.

    A bin's ring is its radius in cycles per picture (cycles per pixel times N), rounded. ``frequency`` is the geometric
    mean radius of a ring's bins, not the ring's number, which keeps a power law's slope unbiased at low rings.
    """
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
    frequency, power = radial_power(spectrum)
    last = len(power) - 1
    top = min(256, last) if high is None else high
    if low < 1 or top > last:
        raise ValueError(f"rings {low}..{top} are not within 1..{last} of {_size(spectrum)} pictures")
    if top - low < 2:
        raise ValueError(f"a slope needs at least 3 rings, low={low}..high={top} has {max(top - low + 1, 0)}")
    rings = slice(low, top + 1)
    if power[rings].min() <= ZERO_POWER * spectrum.max():
        raise ValueError(f"no power in rings {low}..{top} (constant pictures?), no slope")
    return log_log_slope(frequency[rings], power[rings])


def log_power_error(real: FloatArray, made: FloatArray, above: float, up_to: float = math.inf) -> float:
    """Mean |log10 P(made) - log10 P(real)| of two power spectra (h, w) over the rings of a band, in cycles per picture.

    Raises ValueError for different sizes, no ring in the band, and a ring without power.
    """
    return float(np.abs(log_power_ratios(real, made, above, up_to)).mean())


def log_power_ratios(real: FloatArray, made: FloatArray, above: float, up_to: float = math.inf) -> FloatArray:
    """log10 P(made) - log10 P(real) of the rings of a band, above < f <= up_to. ValueError as ``log_power_error``."""
    real_power, made_power = (radial_power(spectrum)[1] for spectrum in _same_size(real, made))
    rings = np.arange(len(real_power))  # rings are indexed by their rounded radius
    chosen = (rings > above) & (rings <= up_to)
    if not chosen.any() or min(real_power[chosen].min(), made_power[chosen].min()) <= ZERO_POWER * max(
        real.max(), made.max()
    ):
        raise ValueError(f"no power above {above:g} cycles a picture, or no such frequency")
    ratios: FloatArray = np.log10(made_power[chosen]) - np.log10(real_power[chosen])
    return ratios


def log_log_slope(x: FloatArray, y: FloatArray) -> float:
    """Least-squares slope of log10 y against log10 x, both (r,) and positive."""
    u = np.log10(x) - np.log10(x).mean()
    return float(u @ np.log10(y) / (u @ u))


def power_spectrum_slope(images: Samples, low: int = 10, high: int | None = None) -> float:
    """Slope of the set's mean power spectrum; pictures (n, c, h, w) in [0, 1]. ValueError as ``spectrum_slope``.

    Not the mean of the pictures' slopes (``power_spectrum_slopes``): pictures of high contrast dominate.
    """
    return spectrum_slope(mean_power_spectrum(images), low, high)


def power_spectrum_slopes(images: Samples, low: int = 10, high: int | None = None) -> FloatArray:
    """Each picture's slope, (n,). ValueError as ``spectrum_slope``, also for a single constant picture."""
    spectra = (spectrum for batch in image_batches(images) for spectrum in power_spectra(grey(batch)))
    return np.array([spectrum_slope(spectrum, low, high) for spectrum in spectra])


def power_spectrum_slope_distance(real: Samples, generated: Samples, low: int = 10, high: int | None = None) -> float:
    """PSD = |slope(real) - slope(generated)| of the sets' mean power spectra (Sickert et al. 2025).

    Raises ValueError as ``spectrum_slope``, and for sets of different picture sizes, since resizing changes the slope.
    """
    spectra = _same_size(mean_power_spectrum(real), mean_power_spectrum(generated))
    return abs(spectrum_slope(spectra[0], low, high) - spectrum_slope(spectra[1], low, high))


# --------------------------------------------------------------------------------------------- residual spectra


def median_denoise(fields: FloatArray) -> FloatArray:
    """3x3 median of (n, h, w); borders reflect about the outermost pixels' edge."""
    return median_filter(fields, size=(1, 3, 3), mode="reflect")


def wavelet_denoise(fields: FloatArray) -> FloatArray:
    """One Haar level, soft BayesShrink thresholds per picture and band (Chang, Yu, Vetterli 2000); (n, h, w).

    Noise sd = median |diagonal band| / 0.6745; threshold = variance / signal sd, a band without signal goes to 0.
    Odd sides are extended by one repeated line for the transform.
    """
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
    """
    fields = grey(images) * LEVELS
    return fields - denoise(fields)


def residual_spectrum_mean(denoiser: str = "median") -> SpectrumMean:
    """An empty running mean of residual power spectra; ``denoiser``: median or wavelet."""
    denoise = _choice("denoiser", denoiser, DENOISERS)
    return SpectrumMean(lambda images: power_spectra(residuals(images, denoise)))


def energy_normalised(spectrum: FloatArray) -> FloatArray:
    """A spectrum divided by its mean over bins."""
    energy = spectrum.mean()
    if energy <= 0:
        raise ValueError("residuals are all zero, no spectrum to divide by its energy")
    return spectrum / energy


def log_normalised(spectrum: FloatArray) -> FloatArray:
    """log(spectrum + 1/12), natural: every bin's relative change counts alike.

    1/12 is the power of 8-bit rounding in squared levels; changes below it mean nothing, and the wavelet residual's
    zero frequency, which is 0 by construction, would be the logarithm of rounding errors.
    """
    return np.log(spectrum + 1 / 12)


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
    normalise = _choice("normalisation", normalisation, NORMALISATIONS)
    return normalise(residual_spectrum_mean(denoiser).update(images).mean)


def residual_spectrum_distance(
    real: Samples, generated: Samples, denoiser: str = "median", normalisation: str = "raw"
) -> float:
    """PR = ||mean spectrum(real) - mean spectrum(generated)||_F of residuals (Sickert et al. 2025).

    Compare values of one denoiser, size and normalisation only (``residual_spectrum_label``).
    Raises ValueError as ``mean_residual_spectrum``, and for sets of different sizes.
    """
    spectrum = partial(mean_residual_spectrum, denoiser=denoiser, normalisation=normalisation)
    return spectrum_distance(spectrum(real), spectrum(generated))


def spectrum_distance(spectrum1: FloatArray, spectrum2: FloatArray) -> float:
    """Frobenius norm of the difference of two (h, w) spectra; ValueError for different sizes."""
    first, second = _same_size(spectrum1, spectrum2)
    return float(np.linalg.norm(first - second))


def residual_spectrum_label(height: int, width: int, denoiser: str = "median", normalisation: str = "raw") -> str:
    """Label of a PR column: denoiser, normalisation and size; ValueError for unknown names."""
    _choice("denoiser", denoiser, DENOISERS)
    _choice("normalisation", normalisation, NORMALISATIONS)
    return f"{denoiser} residual of grey in 8-bit levels, {normalisation} spectrum, {height}x{width} px"


# ------------------------------------------------------------------------------------------------------ refusals


def _choice(kind: str, name: str, table: dict[str, T]) -> T:
    if name in table:
        return table[name]
    nearest = get_close_matches(name, table, n=1, cutoff=0)[0]
    raise ValueError(f"unknown {kind} {name!r}, nearest is {nearest!r} of {', '.join(table)}")


def _same_size(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
    if first.shape != second.shape:
        raise ValueError(f"the sets' pictures differ in size: {_size(first)} and {_size(second)}")
    return first, second


def _size(array: FloatArray) -> str:
    return f"{array.shape[-2]}x{array.shape[-1]}"
