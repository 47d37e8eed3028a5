"""Exploiting the signal leak (Everaert et al. 2024): sampling starts from white noise, which training never reaches.

The signal that is left at the last training step is modelled from a few pictures and added to the first latent. Nothing
is trained and the sampler is unchanged: it works with any diffusers pipeline that takes ``latents`` and whose scheduler
says what its first step is (``first_step``). Every function raises ValueError for integers, for other shapes and for
values that are not finite, TypeError for what is no number and no array.
"""

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.fft import dctn, idctn
from torch import Generator, Tensor

from atelier.data.checks import (
    FloatArray,
    array_of,
    came,
    check_finite,
    check_finite_tensor,
    check_number,
    check_tensor,
    check_whole,
    feature_matrix,
    real_array,
    shape_of,
)
from atelier.files import reading, shown, writing
from atelier.models.headers import FLOATS, Header, read_header
from atelier.models.schedulers import FirstStep, first_step, first_step_of, mixed, started

__all__ = [
    "FirstStep",
    "FrequencyLeak",
    "Leak",
    "Moments",
    "PixelLeak",
    "add_leak",
    "covariance_from_white_noise",
    "first_step",
    "frequency_snr",
    "from_low_components",
    "initial_latents",
    "load",
    "low_components",
    "lowest_frequencies",
    "mean_of_posterior",
    "save",
]
METADATA = "signal_leak"
REFUSAL = "not a readable signal leak"
NOTHING = (
    5e-3  # alpha of a first step without signal: a flow's 0.001, zero terminal SNR's 0 to 0.0002; at 50 steps 0.076
)


# ------------------------------------------------------------------------------------------------ statistics


class Moments(NamedTuple):
    """Running moments of ``n`` samples: mean (d,), and sums of products of deviations, (d,) or, if joint, (d, d)."""

    n: int
    mean: FloatArray
    products: FloatArray

    @classmethod
    def empty(cls, width: int, joint: bool) -> Self:
        width = check_whole(width, "width", least=0)
        return cls(0, np.zeros(width), np.zeros((width, width) if joint else width))

    def updated(self, x: FloatArray) -> Self:
        """Add a batch (n, d) by Chan, Golub and LeVeque 1983, eq. 2.1, which is accurate for large means."""
        width = len(self.mean)
        if width:
            x = feature_matrix(x, "x")
        if x.ndim != 2 or x.shape[1] != width or not len(x):
            raise ValueError(f"x: expected a batch (n, {width}), got shape {x.shape}")
        n, shift = self.n + len(x), x.mean(axis=0) - self.mean
        centred = x - x.mean(axis=0)
        joint = self.products.ndim == 2
        products = centred.T @ centred if joint else (centred**2).sum(axis=0)
        between = np.outer(shift, shift) if joint else shift**2
        weight = self.n * len(x) / n
        return type(self)(n, self.mean + shift * len(x) / n, self.products + products + weight * between)

    @property
    def covariance(self) -> FloatArray:
        """Unbiased, (d,) or (d, d); ValueError below two samples."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.n}")
        return self.products / (self.n - 1)


def lowest_frequencies(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """The ``count`` lowest frequencies (u, v) of a DCT, by (u / height)^2 + (v / width)^2; at least 0, at most all.

    Equal frequencies are taken together, so that no direction is favoured: if ``count`` ends among equal ones, all of
    them are included, giving more than ``count``. On a square 2 becomes 3, and 10 becomes 11.
    """
    height, width = check_whole(height, "height"), check_whole(width, "width")
    count = check_whole(count, "count", least=-1)
    if not 0 <= count <= height * width:
        raise ValueError(f"count: frequencies must be from 0 to {height * width}, got {count}")
    radius = {(u, v): (u * width) ** 2 + (v * height) ** 2 for u in range(height) for v in range(width)}
    ordered = sorted(radius, key=lambda pair: (radius[pair], pair))
    return [pair for pair in ordered if count and radius[pair] <= radius[ordered[count - 1]]]


def low_components(z: FloatArray, frequencies: Sequence[tuple[int, int]]) -> FloatArray:
    """DCT coefficients (n, N, c) of latents (n, c, h, w) at ``frequencies``; orthonormal DCT-II of each channel."""
    z = real_array(z, "z", "(n, c, h, w)")
    _check_frequencies(frequencies, z.shape[2:])
    coefficients = dctn(z, axes=(-2, -1), norm="ortho")
    return (
        np.stack([coefficients[:, :, u, v] for u, v in frequencies], axis=1)
        if frequencies
        else np.zeros((len(z), 0, 1))
    )


def from_low_components(low: FloatArray, frequencies: Sequence[tuple[int, int]], shape: tuple[int, int]) -> FloatArray:
    """Latents (n, c, h, w) float64 with coefficients ``low`` (n, N, c) at ``frequencies`` and 0 at all others."""
    low = array_of(low, "low")
    if low.ndim != 3 or low.dtype.kind != "f" or low.shape[1] != len(frequencies):
        raise ValueError(f"low: expected floats (n, {len(frequencies)}, c), got {came(low)}")
    if low.size:
        check_finite(low, "low")
    shape = check_whole(shape[0], "shape[0]"), check_whole(shape[1], "shape[1]")
    _check_frequencies(frequencies, shape)
    spectrum = np.zeros((len(low), low.shape[2], *shape))
    for index, (u, v) in enumerate(frequencies):
        spectrum[:, :, u, v] = low[:, index]
    return idctn(spectrum, axes=(-2, -1), norm="ortho")


def _check_frequencies(frequencies: Sequence[tuple[int, int]], shape: Sequence[int]) -> None:
    """Refuse pairs (u, v) that are no frequencies of latents (..., h, w) of this shape; -1 would be the highest."""
    for pair in frequencies:
        u, v = (check_whole(number, "frequencies", least=0) for number in pair)
        if u >= shape[0] or v >= shape[1]:
            raise ValueError(f"frequencies: {shape[0]}x{shape[1]} latents have no frequency ({u}, {v})")


class PixelLeak(NamedTuple):
    """Independent Gaussian latent elements (section 3.2): mean and std (c, h, w), fitted to ``n`` pictures."""

    mean: FloatArray
    std: FloatArray
    n: int

    @classmethod
    def fit(cls, batches: Iterable[Tensor]) -> Self:
        """Fit to batches of latents (b, c, h, w), read once. Raises ValueError as ``FrequencyLeak.fit``."""
        return cls(*FrequencyLeak.fit(batches, frequencies=0).rest)

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Draw latents (n, c, h, w) float32, n >= 1."""
        n, generator = check_whole(n, "n"), _checked_generator(generator)
        return torch.from_numpy(self.mean + self.std * _normal((n, *self.mean.shape), generator)).float()


class FrequencyLeak(NamedTuple):
    """Low frequencies jointly Gaussian over frequencies and channels; the rest as a ``PixelLeak``.

    Section 3.2: N = len(frequencies); ``low_mean`` (N c,) and ``low_covariance`` (N c, N c), ordered by frequency.
    With fewer than N c + 1 pictures the covariance is singular: samples vary only in the span of the pictures.
    """

    frequencies: list[tuple[int, int]]
    low_mean: FloatArray
    low_covariance: FloatArray
    rest: PixelLeak

    @property
    def n(self) -> int:
        """The number of pictures that it was fitted to."""
        return self.rest.n

    @classmethod
    def fit(cls, batches: Iterable[Tensor], frequencies: int) -> Self:
        """Fit to batches of latents (b, c, h, w), read once; ``frequencies``: how many (``lowest_frequencies``).

        Float64; memory does not grow with the number of pictures. Raises ValueError for fewer than two pictures, for
        different shapes, and for values that are not finite.
        """
        return cls.fit_several(batches, [frequencies])[0]

    @classmethod
    def fit_several(cls, batches: Iterable[Tensor], frequencies: Sequence[int]) -> list[Self]:
        """As ``fit``, one leak per number of frequencies; the batches, which are costly to encode, are read once."""
        fits: list[_Fit] = []
        frequencies = [check_whole(number, "frequencies", least=0) for number in frequencies]
        if not frequencies:
            raise ValueError("frequencies: expected at least one number of frequencies, got none")
        for batch in batches:
            z = _checked_latents(batch, "batches")
            fits = fits or [_Fit.empty(z.shape[1:], number) for number in frequencies]
            if z.shape[1:] != fits[0].shape:
                raise ValueError(f"batches: latents of several shapes: {fits[0].shape} and {z.shape[1:]}")
            if len(z):
                fits = [fit.updated(z) for fit in fits]
        if not fits or fits[0].rest.n < 2:
            raise ValueError(f"batches: a leak is fitted to at least two pictures, got {fits[0].rest.n if fits else 0}")
        return [cls(fit.frequencies, fit.low.mean, fit.low.covariance, fit.pixels) for fit in fits]

    def sample(self, n: int, generator: Generator, low: Tensor | None = None) -> Tensor:
        """Draw latents (n, c, h, w) float32; ``low`` (n, N, c): coefficients to use instead of drawn ones.

        The rest is drawn first, so that it does not depend on ``low``. Being independent per element (as in the paper),
        it contains low frequencies too, so a coefficient varies more than ``low_covariance``.
        """
        n, generator = check_whole(n, "n"), _checked_generator(generator)
        made = self.rest.sample(n, generator).double().numpy()
        if not self.frequencies:
            return torch.from_numpy(made).float()
        shape = (n, len(self.frequencies), len(self.rest.mean))
        if low is None:
            noise = _normal((n, len(self.low_mean)), generator)
            components = (self.low_mean + noise @ _square_root(self.low_covariance)).reshape(shape)
        else:
            components = array_of(low, "low")
            if components.shape != shape or components.dtype.kind != "f":
                raise ValueError(f"low: expected shape {shape} of floats, got {came(components)}")
            components = components.astype(np.float64)
        return torch.from_numpy(made + from_low_components(components, self.frequencies, made.shape[2:])).float()


class _Fit(NamedTuple):
    """The running fit of a leak to latents of one shape (c, h, w)."""

    shape: tuple[int, int, int]
    frequencies: list[tuple[int, int]]
    low: Moments
    rest: Moments

    @classmethod
    def empty(cls, shape: tuple[int, int, int], frequencies: int) -> Self:
        chosen = lowest_frequencies(shape[1], shape[2], frequencies)
        low, rest = Moments.empty(len(chosen) * shape[0], joint=True), Moments.empty(math.prod(shape), joint=False)
        return cls(shape, chosen, low, rest)

    def updated(self, z: FloatArray) -> Self:
        components = low_components(z, self.frequencies)
        low = from_low_components(components, self.frequencies, self.shape[1:]) if self.frequencies else 0.0
        low_moments = self.low.updated(components.reshape(len(z), -1))
        return self._replace(low=low_moments, rest=self.rest.updated((z - low).reshape(len(z), -1)))

    @property
    def pixels(self) -> PixelLeak:
        return PixelLeak(
            self.rest.mean.reshape(self.shape), np.sqrt(self.rest.covariance).reshape(self.shape), self.rest.n
        )


Leak = PixelLeak | FrequencyLeak


def _checked_latents(batch: Tensor, name: str) -> FloatArray:
    """A batch of latents (n, c, h, w) as finite float64; it may be empty, as the rest of a split may."""
    z = array_of(batch, name)
    if z.ndim != 4 or z.dtype.kind != "f" or 0 in z.shape[1:]:
        raise ValueError(f"{name}: latents must be finite floats and shaped (n, c, h, w), got {came(z)}")
    if z.size:
        check_finite(z, name)
    return z.astype(np.float64)


def _checked_generator(generator: object) -> Generator:
    if not isinstance(generator, Generator):
        raise TypeError(f"generator: expected a torch.Generator, got {came(generator)}")
    return generator


def _check_leak(leak: object) -> None:
    if not isinstance(leak, PixelLeak | FrequencyLeak):
        raise TypeError(f"leak: expected a PixelLeak or a FrequencyLeak, got {came(leak)}")


def _checked_generators(generator: Generator | Iterable[Generator], n: int) -> list[Generator]:
    """One generator for all of n pictures, or one for each."""
    listed = generator if isinstance(generator, Iterable) else [generator]
    generators = [_checked_generator(each) for each in listed]
    if len(generators) not in {1, n}:
        raise ValueError(f"generator: expected one generator or {n}, got {len(generators)}")
    return generators


def _normal(shape: Sequence[int], generator: Generator) -> FloatArray:
    drawn = torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=torch.float64)
    array: FloatArray = drawn.cpu().numpy()
    return array


def _square_root(covariance: FloatArray) -> FloatArray:
    """The symmetric square root, which is unique and exists for singular covariances too."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def frequency_snr(mean_square: FloatArray, alpha: float, s: float) -> FloatArray:
    """``alpha^2 / s^2 E[X^2]`` (section 3.1), from the mean squares of DCT coefficients; white noise has E = 1.

    ``mean_square``: floats of any shape, at least 0; ``alpha`` at least 0, ``s`` above 0.
    """
    alpha, s = check_number(alpha, "alpha", least=0), check_number(s, "s")
    if s <= 0:
        raise ValueError(f"s: the noise of a step must be positive, got {s}")
    squares = real_array(mean_square, "mean_square", "(...)")
    if squares.min() < 0:
        raise ValueError(f"mean_square: expected squares, at least 0, got {squares.min():.3g}")
    return (alpha / s) ** 2 * squares


def mean_of_posterior(covariance: FloatArray, alpha: float, s: float) -> FloatArray:
    """``alpha S (alpha^2 S + s^2 I)^-1``, (d, d): maps ``x_T = alpha x_0 + s eps`` to the posterior mean of x_0.

    For Gaussian coefficients with covariance S (d, d) and mean 0: linear least squares (Wiener), the prediction of a
    perfect denoiser without further information at the first step. Raises ValueError for a covariance that is not
    symmetric, alpha or s below 0, and where x_T does not vary in every direction.
    """
    covariance, of_noised = _with_noised(covariance, alpha, s)
    return alpha * covariance @ of_noised


def covariance_from_white_noise(covariance: FloatArray, alpha: float, s: float) -> FloatArray:
    """``S (alpha^2 S + s^2 I)^-1``, (d, d): the samples' covariance if sampling starts from N(0, I).

    The probability-flow ODE (Song et al. 2021, eq. 13) of Gaussian coefficients maps x_T of covariance
    ``alpha^2 S + s^2 I`` to x_0 of covariance S, along their common eigenvectors.
    Raises ValueError as ``mean_of_posterior``.
    """
    covariance, of_noised = _with_noised(covariance, alpha, s)
    result: FloatArray = covariance @ of_noised
    return result


def _with_noised(covariance: FloatArray, alpha: float, s: float) -> tuple[FloatArray, FloatArray]:
    """S as checked, and the inverse of ``alpha^2 S + s^2 I``."""
    covariance = feature_matrix(covariance, "covariance")
    alpha, s = check_number(alpha, "alpha", least=0), check_number(s, "s", least=0)
    if covariance.shape[0] != covariance.shape[1] or not np.allclose(covariance, covariance.T):
        raise ValueError(f"covariance: expected a symmetric matrix (d, d), got shape {covariance.shape}")
    try:
        inverse = np.asarray(np.linalg.inv(alpha**2 * covariance + s**2 * np.eye(len(covariance))), dtype=np.float64)
        return covariance, inverse
    except np.linalg.LinAlgError:
        raise ValueError(f"covariance: alpha^2 S + s^2 I has no inverse for alpha = {alpha:g}, s = {s:g}") from None


# ------------------------------------------------------------------------------------------------ first latents


def initial_latents(
    leak: Leak, scheduler: SchedulerMixin, n: int, generator: Generator | Sequence[Generator], steps: int
) -> Tensor:
    """First latents (n, c, h, w) float32 with a leak, for a pipeline's ``latents`` argument with ``steps`` steps.

    ``generator``: one, or one per picture. The noise is drawn first, so that it is the same as without a leak.
    On the CPU; the pipeline moves them to its device, but in half precision they need ``.to(pipeline.dtype)``.
    Raises ValueError for n or steps below 1, another number of generators, and a scheduler as ``add_leak``.
    """
    n = check_whole(n, "n")
    generators = _checked_generators(generator, n)
    _check_leak(leak)
    started(scheduler, steps)  # before anything is drawn: a generator of a refused call is as it was
    each = n // len(generators)
    shape = (each, *(leak.mean if isinstance(leak, PixelLeak) else leak.rest.mean).shape)
    drawn = [(torch.randn(shape, generator=one, device=one.device).cpu(), leak.sample(each, one)) for one in generators]
    noise, leaks = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return add_leak(leaks, noise, scheduler, steps)


def add_leak(leak: Tensor, noise: Tensor, scheduler: SchedulerMixin, steps: int) -> Tensor:
    """``alpha leak + s noise`` (eq. 3), alpha and s of the scheduler's first step, in the scheduler's units.

    Floats (n, c, h, w); ``leak`` may broadcast to ``noise``, which is white. A pipeline multiplies its ``latents`` by
    the scheduler's ``init_noise_sigma``; schedulers in units of noise over signal (Euler, LMS, Heun) add noise in the
    same units, so the same division works for all. If the first step has no signal, as for flows and zero terminal SNR,
    this returns the noise and warns. Raises ValueError for steps below 1, and for a scheduler whose first step cannot
    be read (`atelier.models.schedulers`).
    """
    for name, x, axes in (("noise", noise, "(n, c, h, w)"), ("leak", leak, "(...)")):
        check_tensor(x, name, axes)
        check_finite_tensor(x, name)
    sides = zip(reversed(leak.shape), reversed(noise.shape), strict=False)
    if leak.ndim > 4 or any(side not in (1, whole) for side, whole in sides):
        raise ValueError(f"leak: expected {shape_of(noise)} as noise, or what broadcasts to it, got {shape_of(leak)}")
    copy = started(scheduler, steps)
    if first_step_of(copy).alpha <= NOTHING:
        said = f"{type(copy).__name__}: the first of {steps} steps holds no signal, so that a leak changes nothing"
        warnings.warn(said, stacklevel=2)
    made = mixed(copy, leak.expand_as(noise).to(noise.dtype), noise, copy.timesteps[:1])
    return made / getattr(copy, "init_noise_sigma", 1.0)  # a flow's pipeline does not multiply


# ------------------------------------------------------------------------------------------------ files


def save(leak: Leak, path: Path, provenance: Mapping[str, str]) -> None:
    """Write one safetensors file, with the pictures' provenance in its header."""
    _check_leak(leak)
    rest = leak if isinstance(leak, PixelLeak) else leak.rest
    tensors = {"mean": rest.mean, "std": rest.std}
    if isinstance(leak, FrequencyLeak):
        frequencies = np.array(leak.frequencies, dtype=np.float64).reshape(-1, 2)
        tensors |= {"frequencies": frequencies, "low_mean": leak.low_mean, "low_covariance": leak.low_covariance}
    note = json.dumps({"n": rest.n, "provenance": dict(provenance)}, sort_keys=True)
    arrays = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in tensors.items()}
    with writing(path) as part:
        save_file(arrays, part, {METADATA: note})


def _names(header: Mapping[str, Header]) -> set[str]:
    """The tensors of a leak: of a frequency leak if the file has any of its tensors. All must be float64."""
    for name, one in header.items():
        if one.kind not in ("F64", *FLOATS):
            raise ValueError(f"tensor {shown(name)}: expected floating-point numbers, got {one.kind}")
    low = {"frequencies", "low_mean", "low_covariance"}
    return {"mean", "std"} | (low if low & header.keys() else set())


def _count(note: Mapping[str, Any]) -> int:
    """The number of pictures that a leak was fitted to."""
    if type(note["n"]) is not int or note["n"] < 1:  # True is an int
        raise ValueError(f"n: expected the number of pictures, got {shown(note['n'])}")
    return int(note["n"])


def load(path: Path) -> tuple[Leak, dict[str, str]]:
    """Read a leak and its provenance. Raises ValueError for a file that holds none."""
    with reading(path, REFUSAL):
        header = read_header(path, REFUSAL)
        if odd := sorted(header.keys() ^ _names(header)):
            raise ValueError(f"tensor {shown(odd[0])} is unknown or missing")
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {}).get(METADATA, "null"))
            arrays = {name: file.get_tensor(name).double().numpy() for name in file.keys()}  # noqa: SIM118
        if not isinstance(note, dict) or not all(np.isfinite(x).all() for x in arrays.values()):
            raise ValueError("no note of a leak, or values that are not finite")
        rest = PixelLeak(arrays["mean"], arrays["std"], _count(note))
        provenance = {str(key): str(value) for key, value in dict(note["provenance"]).items()}
        if rest.mean.ndim != 3 or rest.mean.shape != rest.std.shape or (rest.std < 0).any():
            raise ValueError("mean and std are no pair")
        if "frequencies" not in arrays:
            return rest, provenance
        frequencies = [(int(u), int(v)) for u, v in arrays["frequencies"]]
        channels, *shape = rest.mean.shape
        width = len(frequencies) * channels
        if arrays["low_mean"].shape != (width,) or arrays["low_covariance"].shape != (width, width):
            raise ValueError("low frequencies of another number")
        if not all(0 <= u < shape[0] and 0 <= v < shape[1] for u, v in frequencies):
            raise ValueError("a frequency that the latents do not have")
        return FrequencyLeak(frequencies, arrays["low_mean"], arrays["low_covariance"], rest), provenance
