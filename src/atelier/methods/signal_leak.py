"""Exploiting the signal leak (Everaert et al. 2024): sampling starts from white noise, which training never reaches.

The signal that is left at the last training step is modelled from a few pictures and added to the first latent. Nothing
is trained and the sampler is unchanged: it works with any diffusers pipeline that takes ``latents``.
"""

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.fft import dctn, idctn
from torch import Generator, Tensor

from atelier.models.headers import FLOATS, cut, read_header

FloatArray = npt.NDArray[np.float64]
METADATA = "signal_leak"
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
        return cls(0, np.zeros(width), np.zeros((width, width) if joint else width))

    def updated(self, x: FloatArray) -> Self:
        """Add a batch (n, d) by Chan, Golub and LeVeque 1983, eq. 2.1, which is accurate for large means."""
        n, shift = self.n + len(x), x.mean(axis=0) - self.mean
        centred = x - x.mean(axis=0)
        joint = self.products.ndim == 2
        products = centred.T @ centred if joint else (centred**2).sum(axis=0)
        between = np.outer(shift, shift) if joint else shift**2
        weight = self.n * len(x) / n
        return type(self)(n, self.mean + shift * len(x) / n, self.products + products + weight * between)

    @property
    def covariance(self) -> FloatArray:
        """Unbiased, (d,) or (d, d)."""
        return self.products / (self.n - 1)


def lowest_frequencies(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """The ``count`` lowest frequencies (u, v) of a DCT, by (u / height)^2 + (v / width)^2; at least 0, at most all.

    Equal frequencies are taken together, so that no direction is favoured: if ``count`` ends among equal ones, all of
    them are included, giving more than ``count``. On a square 2 becomes 3, and 10 becomes 11.
    """
    if not 0 <= count <= height * width:
        raise ValueError(f"frequencies must be from 0 to {height * width}, got {count}")
    radius = {(u, v): (u * width) ** 2 + (v * height) ** 2 for u in range(height) for v in range(width)}
    ordered = sorted(radius, key=lambda pair: (radius[pair], pair))
    return [pair for pair in ordered if count and radius[pair] <= radius[ordered[count - 1]]]


def low_components(z: FloatArray, frequencies: Sequence[tuple[int, int]]) -> FloatArray:
    """DCT coefficients (n, N, c) of latents (n, c, h, w) at ``frequencies``; orthonormal DCT-II of each channel."""
    coefficients = dctn(z, axes=(-2, -1), norm="ortho")
    return (
        np.stack([coefficients[:, :, u, v] for u, v in frequencies], axis=1)
        if frequencies
        else np.zeros((len(z), 0, 1))
    )


def from_low_components(low: FloatArray, frequencies: Sequence[tuple[int, int]], shape: tuple[int, int]) -> FloatArray:
    """Latents (n, c, h, w) float64 with coefficients ``low`` (n, N, c) at ``frequencies`` and 0 at all others."""
    spectrum = np.zeros((len(low), low.shape[2], *shape))
    for index, (u, v) in enumerate(frequencies):
        spectrum[:, :, u, v] = low[:, index]
    return idctn(spectrum, axes=(-2, -1), norm="ortho")


class PixelLeak(NamedTuple):
    """Independent Gaussian latent elements (section 3.2): mean and std (c, h, w), fitted to ``n`` pictures."""

    mean: FloatArray
    std: FloatArray
    n: int

    @classmethod
    def fit(cls, batches: Iterable[Tensor]) -> Self:
        """Fit to batches of latents (b, c, h, w), read once. Raises ValueError for fewer than two pictures."""
        return cls(*FrequencyLeak.fit(batches, frequencies=0).rest)

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Draw latents (n, c, h, w) float32."""
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
        for batch in batches:
            z = batch.detach().cpu().double().numpy()
            if z.ndim != 4 or not np.isfinite(z).all():
                raise ValueError(f"latents must be finite and shaped (n, c, h, w), got {tuple(z.shape)}")
            fits = fits or [_Fit.empty(z.shape[1:], number) for number in frequencies]
            if z.shape[1:] != fits[0].shape:
                raise ValueError(f"latents of several shapes: {fits[0].shape} and {z.shape[1:]}")
            if len(z):
                fits = [fit.updated(z) for fit in fits]
        if not fits or fits[0].rest.n < 2:
            raise ValueError(f"a leak is fitted to at least two pictures, got {fits[0].rest.n if fits else 0}")
        return [cls(fit.frequencies, fit.low.mean, fit.low.covariance, fit.pixels) for fit in fits]

    def sample(self, n: int, generator: Generator, low: Tensor | None = None) -> Tensor:
        """Draw latents (n, c, h, w) float32; ``low`` (n, N, c): coefficients to use instead of drawn ones.

        The rest is drawn first, so that it does not depend on ``low``. Being independent per element (as in the paper),
        it contains low frequencies too, so a coefficient varies more than ``low_covariance``.
        """
        made = self.rest.sample(n, generator).double().numpy()
        if not self.frequencies:
            return torch.from_numpy(made).float()
        shape = (n, len(self.frequencies), len(self.rest.mean))
        if low is None:
            noise = _normal((n, len(self.low_mean)), generator)
            components = (self.low_mean + noise @ _square_root(self.low_covariance)).reshape(shape)
        elif tuple(low.shape) != shape:
            raise ValueError(f"low: expected shape {shape}, got {tuple(low.shape)}")
        else:
            components = low.double().numpy()
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


def _normal(shape: Sequence[int], generator: Generator) -> FloatArray:
    drawn = torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=torch.float64)
    array: FloatArray = drawn.cpu().numpy()
    return array


def _square_root(covariance: FloatArray) -> FloatArray:
    """The symmetric square root, which is unique and exists for singular covariances too."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def frequency_snr(mean_square: FloatArray, alpha: float, s: float) -> FloatArray:
    """``alpha^2 / s^2 E[X^2]`` (section 3.1), from the mean squares of DCT coefficients; white noise has E = 1."""
    if s <= 0:
        raise ValueError(f"the noise of a step must be positive, got {s}")
    return (alpha / s) ** 2 * mean_square


def mean_of_posterior(covariance: FloatArray, alpha: float, s: float) -> FloatArray:
    """``alpha S (alpha^2 S + s^2 I)^-1``, (d, d): maps ``x_T = alpha x_0 + s eps`` to the posterior mean of x_0.

    For Gaussian coefficients with covariance S (d, d) and mean 0: linear least squares (Wiener), the prediction of a
    perfect denoiser without further information at the first step.
    """
    return alpha * covariance @ np.linalg.inv(_noised(covariance, alpha, s))


def covariance_from_white_noise(covariance: FloatArray, alpha: float, s: float) -> FloatArray:
    """``S (alpha^2 S + s^2 I)^-1``, (d, d): the samples' covariance if sampling starts from N(0, I).

    The probability-flow ODE (Song et al. 2021, eq. 13) of Gaussian coefficients maps x_T of covariance
    ``alpha^2 S + s^2 I`` to x_0 of covariance S, along their common eigenvectors.
    """
    result: FloatArray = covariance @ np.linalg.inv(_noised(covariance, alpha, s))
    return result


def _noised(covariance: FloatArray, alpha: float, s: float) -> FloatArray:
    return alpha**2 * covariance + s**2 * np.eye(len(covariance))


# ------------------------------------------------------------------------------------------------ first latents


def initial_latents(
    leak: Leak, scheduler: SchedulerMixin, n: int, generator: Generator | Sequence[Generator], steps: int
) -> Tensor:
    """First latents (n, c, h, w) float32 with a leak, for a pipeline's ``latents`` argument with ``steps`` steps.

    ``generator``: one, or one per picture. The noise is drawn first, so that it is the same as without a leak.
    On the CPU; the pipeline moves them to its device, but in half precision they need ``.to(pipeline.dtype)``.
    """
    generators = [generator] if isinstance(generator, Generator) else list(generator)
    if len(generators) not in {1, n}:
        raise ValueError(f"expected one generator or {n}, got {len(generators)}")
    each = n // len(generators)
    shape = (each, *(leak.mean if isinstance(leak, PixelLeak) else leak.rest.mean).shape)
    drawn = [(torch.randn(shape, generator=one, device=one.device).cpu(), leak.sample(each, one)) for one in generators]
    noise, leaks = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return add_leak(leaks, noise, scheduler, steps)


def add_leak(leak: Tensor, noise: Tensor, scheduler: SchedulerMixin, steps: int) -> Tensor:
    """``alpha leak + s noise`` (eq. 3), alpha and s of the scheduler's first step, in the scheduler's units.

    Shapes (n, c, h, w) that broadcast; ``noise`` is white. A pipeline multiplies its ``latents`` by the scheduler's
    ``init_noise_sigma``; schedulers in units of noise over signal (Euler, LMS, Heun) add noise in those units too, so
    the same division works for all. If the first step has no signal, as for flows and zero terminal SNR, this returns
    the noise and warns. Raises ValueError for a scheduler that cannot add noise.
    """
    started = _with_timesteps(scheduler, steps)
    if _first_step(started).alpha <= NOTHING:
        said = f"{type(started).__name__}: the first of {steps} steps holds no signal, so that a leak changes nothing"
        warnings.warn(said, stacklevel=2)
    made = _mixed(started, leak.expand_as(noise).to(noise.dtype), noise)
    return made / getattr(started, "init_noise_sigma", 1.0)  # a flow's pipeline does not multiply


class FirstStep(NamedTuple):
    """A sampler's first step: the denoiser's time, and alpha and s of its input alpha z0 + s noise."""

    time: Tensor  # ()
    alpha: float
    s: float


def first_step(scheduler: SchedulerMixin, steps: int) -> FirstStep:
    """The scheduler's first step when sampling with ``steps`` steps."""
    return _first_step(_with_timesteps(scheduler, steps))


def _with_timesteps(scheduler: SchedulerMixin, steps: int) -> SchedulerMixin:
    """A copy with its timesteps set, because ``set_timesteps`` changes a scheduler."""
    copy = type(scheduler).from_config(scheduler.config)
    if not (hasattr(copy, "scale_noise") or hasattr(copy, "add_noise")):
        raise ValueError(f"{type(copy).__name__}: a scheduler that cannot add noise says nothing of its first step")
    # a flow's resolution-dependent shift does not change its first step
    shift = {"mu": 1.0} if copy.config.get("use_dynamic_shifting") else {}
    copy.set_timesteps(steps, **shift)
    return copy


def _first_step(scheduler: SchedulerMixin) -> FirstStep:
    one, none = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    time, parts = scheduler.timesteps[0], (_mixed(scheduler, one, none), _mixed(scheduler, none, one))
    alpha, s = (
        float(scheduler.scale_model_input(x, time) if hasattr(scheduler, "scale_model_input") else x) for x in parts
    )
    return FirstStep(time, alpha, s)


def _mixed(scheduler: SchedulerMixin, signal: Tensor, noise: Tensor) -> Tensor:
    """Signal and noise at the first step, in the scheduler's units."""
    if hasattr(scheduler, "scale_noise"):  # a flow's
        return scheduler.scale_noise(signal, scheduler.timesteps[:1], noise)
    return scheduler.add_noise(signal, noise, scheduler.timesteps[:1].repeat(len(noise)))


# ------------------------------------------------------------------------------------------------ files


def save(leak: Leak, path: Path, provenance: Mapping[str, str]) -> None:
    """Write one safetensors file, with the pictures' provenance in its header."""
    rest = leak if isinstance(leak, PixelLeak) else leak.rest
    tensors = {"mean": rest.mean, "std": rest.std}
    if isinstance(leak, FrequencyLeak):
        frequencies = np.array(leak.frequencies, dtype=np.float64).reshape(-1, 2)
        tensors |= {"frequencies": frequencies, "low_mean": leak.low_mean, "low_covariance": leak.low_covariance}
    note = json.dumps({"n": rest.n, "provenance": dict(provenance)}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in tensors.items()}, path, {METADATA: note})


def _names(path: Path) -> set[str]:
    """The tensors of a leak: those of a frequency leak if the file has any of them. All must be float64."""
    header = read_header(path)
    for name, one in header.items():
        if one.kind not in ("F64", *FLOATS):
            raise ValueError(f"tensor {cut(name)}: expected floating-point numbers, got {one.kind}")
    low = {"frequencies", "low_mean", "low_covariance"}
    return {"mean", "std"} | (low if low & header.keys() else set())


def _count(note: Mapping[str, Any]) -> int:
    """The number of pictures that a leak was fitted to."""
    if type(note["n"]) is not int or note["n"] < 1:  # True is an int
        raise ValueError(f"n: expected the number of pictures, got {cut(note['n'])}")
    return int(note["n"])


def load(path: Path) -> tuple[Leak, dict[str, str]]:
    """Read a leak and its provenance. Raises ValueError for a file that holds none."""
    try:
        if odd := sorted(read_header(path).keys() ^ _names(path)):
            raise ValueError(f"tensor {cut(odd[0])} is unknown or missing")
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
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a readable signal leak: {' '.join(str(error).split())}") from None
