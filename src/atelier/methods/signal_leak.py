"""Exploiting the signal leak (Everaert et al. 2024): sampling begins from white noise, which training never reaches.

What is left of a picture at the last step of training is modelled from a few pictures and put into the first latent.
Nothing is trained and the sampler is called as ever: with any pipeline of diffusers that takes ``latents``.
"""

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.fft import dctn, idctn
from torch import Generator, Tensor

FloatArray = npt.NDArray[np.float64]
METADATA = "signal_leak"
NOTHING = (
    5e-3  # alpha of a first step without signal: a flow's 0.001, zero terminal SNR's 0 to 0.0002; at 50 steps 0.076
)


# ------------------------------------------------------------------------------------------------ statistics


class Moments(NamedTuple):
    """Of ``n`` samples so far: mean (d,), and sums of products of deviations, (d,) or (d, d) where they are joint."""

    n: int
    mean: FloatArray
    products: FloatArray

    @classmethod
    def none(cls, width: int, joint: bool) -> Self:
        return cls(0, np.zeros(width), np.zeros((width, width) if joint else width))

    def and_those_of(self, x: FloatArray) -> Self:
        """With a further batch (n, d): Chan, Golub and LeVeque 1983, eq. 2.1, which loses no digits to large means."""
        n, shift = self.n + len(x), x.mean(axis=0) - self.mean
        own = x - x.mean(axis=0)
        joint = self.products.ndim == 2
        products = own.T @ own if joint else (own**2).sum(axis=0)
        between = np.outer(shift, shift) if joint else shift**2
        weight = self.n * len(x) / n
        return type(self)(n, self.mean + shift * len(x) / n, self.products + products + weight * between)

    @property
    def covariance(self) -> FloatArray:
        """Unbiased, (d,) or (d, d)."""
        return self.products / (self.n - 1)


def lowest_frequencies(height: int, width: int, count: int) -> list[tuple[int, int]]:
    """The ``count`` lowest frequencies (u, v) of a DCT, by (u / height)^2 + (v / width)^2; at least 0, at most all.

    Equal ones are taken together or not at all, so that no direction is favoured: where ``count`` ends among equals
    all of them belong, and there are more than ``count``. On a square 2 become 3, and 10 become 11.
    """
    if not 0 <= count <= height * width:
        raise ValueError(f"frequencies must be from 0 to {height * width}, got {count}")
    radius = {(u, v): (u * width) ** 2 + (v * height) ** 2 for u in range(height) for v in range(width)}
    ordered = sorted(radius, key=lambda at: (radius[at], at))
    return [at for at in ordered if count and radius[at] <= radius[ordered[count - 1]]]


def low_components(z: FloatArray, frequencies: Sequence[tuple[int, int]]) -> FloatArray:
    """Coefficients (n, N, c) of latents (n, c, h, w) at ``frequencies``, by the orthonormal DCT-II of each channel."""
    found = dctn(z, axes=(-2, -1), norm="ortho")
    return np.stack([found[:, :, u, v] for u, v in frequencies], axis=1) if frequencies else np.zeros((len(z), 0, 1))


def from_low_components(low: FloatArray, frequencies: Sequence[tuple[int, int]], shape: tuple[int, int]) -> FloatArray:
    """Latents (n, c, h, w) float64 that have the coefficients ``low`` (n, N, c) at ``frequencies`` and no others."""
    spectrum = np.zeros((len(low), low.shape[2], *shape))
    for at, (u, v) in enumerate(frequencies):
        spectrum[:, :, u, v] = low[:, at]
    return idctn(spectrum, axes=(-2, -1), norm="ortho")


class PixelLeak(NamedTuple):
    """Latents whose elements are Gaussian and independent (section 3.2): mean and std (c, h, w), of ``n`` pictures."""

    mean: FloatArray
    std: FloatArray
    n: int

    @classmethod
    def fit(cls, batches: Iterable[Tensor]) -> Self:
        """From batches of latents (b, c, h, w), read once. Raises ValueError for fewer than two pictures."""
        return cls(*FrequencyLeak.fit(batches, frequencies=0).rest)

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Latents (n, c, h, w) float32."""
        return torch.from_numpy(self.mean + self.std * _normal((n, *self.mean.shape), generator)).float()


class FrequencyLeak(NamedTuple):
    """Low frequencies Gaussian over all of them and all channels together, elements of the rest as a ``PixelLeak``.

    Section 3.2: N = len(frequencies); ``low_mean`` (N c,) and ``low_covariance`` (N c, N c), frequency by frequency.
    With fewer pictures than N c + 1 the covariance is singular: samples vary in the directions that the pictures do.
    """

    frequencies: list[tuple[int, int]]
    low_mean: FloatArray
    low_covariance: FloatArray
    rest: PixelLeak

    @property
    def n(self) -> int:
        """How many pictures it was fitted to."""
        return self.rest.n

    @classmethod
    def fit(cls, batches: Iterable[Tensor], frequencies: int) -> Self:
        """From batches of latents (b, c, h, w), read once, with the ``frequencies`` lowest (``lowest_frequencies``).

        Float64; memory does not grow with the pictures. Raises ValueError for fewer than two, for batches of several
        shapes, and for values that are not finite.
        """
        return cls.fit_several(batches, [frequencies])[0]

    @classmethod
    def fit_several(cls, batches: Iterable[Tensor], frequencies: Sequence[int]) -> list[Self]:
        """As ``fit``, a leak for each number of frequencies: the batches, which cost an encoding, are read once."""
        found: list[_Fit] = []
        for batch in batches:
            z = batch.detach().cpu().double().numpy()
            if z.ndim != 4 or not np.isfinite(z).all():
                raise ValueError(f"latents must be finite and shaped (n, c, h, w), got {tuple(z.shape)}")
            found = found or [_Fit.none(z.shape[1:], number) for number in frequencies]
            if z.shape[1:] != found[0].shape:
                raise ValueError(f"latents of several shapes: {found[0].shape} and {z.shape[1:]}")
            if len(z):
                found = [one.and_those_of(z) for one in found]
        if not found or found[0].rest.n < 2:
            raise ValueError(f"a leak is fitted to at least two pictures, got {found[0].rest.n if found else 0}")
        return [cls(one.frequencies, one.low.mean, one.low.covariance, one.pixels) for one in found]

    def sample(self, n: int, generator: Generator, low: Tensor | None = None) -> Tensor:
        """Latents (n, c, h, w) float32; ``low`` (n, N, c): coefficients to have instead of drawn ones.

        The rest is drawn first, so that it is the same whatever ``low`` says. It holds low frequencies, too: elements
        drawn one by one have some of each (as in the paper); so a coefficient varies more than ``low_covariance``.
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
    """A leak of latents of one shape (c, h, w), so far."""

    shape: tuple[int, int, int]
    frequencies: list[tuple[int, int]]
    low: Moments
    rest: Moments

    @classmethod
    def none(cls, shape: tuple[int, int, int], frequencies: int) -> Self:
        chosen = lowest_frequencies(shape[1], shape[2], frequencies)
        low, rest = Moments.none(len(chosen) * shape[0], joint=True), Moments.none(math.prod(shape), joint=False)
        return cls(shape, chosen, low, rest)

    def and_those_of(self, z: FloatArray) -> Self:
        components = low_components(z, self.frequencies)
        low = from_low_components(components, self.frequencies, self.shape[1:]) if self.frequencies else 0.0
        low_moments = self.low.and_those_of(components.reshape(len(z), -1))
        return self._replace(low=low_moments, rest=self.rest.and_those_of((z - low).reshape(len(z), -1)))

    @property
    def pixels(self) -> PixelLeak:
        return PixelLeak(
            self.rest.mean.reshape(self.shape), np.sqrt(self.rest.covariance).reshape(self.shape), self.rest.n
        )


Leak = PixelLeak | FrequencyLeak


def _normal(shape: Sequence[int], generator: Generator) -> FloatArray:
    drawn = torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=torch.float64)
    found: FloatArray = drawn.cpu().numpy()
    return found


def _square_root(covariance: FloatArray) -> FloatArray:
    """The symmetric one: it exists for singular covariances, too, and there is but one."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def frequency_snr(mean_square: FloatArray, alpha: float, s: float) -> FloatArray:
    """``alpha^2 / s^2 E[X^2]`` (section 3.1), of the mean squares of DCT coefficients; white noise has E = 1."""
    if s <= 0:
        raise ValueError(f"the noise of a step must be positive, got {s}")
    return (alpha / s) ** 2 * mean_square


def mean_of_posterior(covariance: FloatArray, alpha: float, s: float) -> FloatArray:
    """``alpha S (alpha^2 S + s^2 I)^-1``, (d, d): the map from ``x_T = alpha x_0 + s eps`` to the best guess of x_0.

    Of Gaussian coefficients with covariance S (d, d) and mean 0: linear least squares (Wiener). A perfect denoiser that
    is told nothing else says this at the first step.
    """
    return alpha * covariance @ np.linalg.inv(_noised(covariance, alpha, s))


def covariance_from_white_noise(covariance: FloatArray, alpha: float, s: float) -> FloatArray:
    """``S (alpha^2 S + s^2 I)^-1``, (d, d): what is left of S where sampling begins with N(0, I).

    The probability-flow ODE (Song et al. 2021, eq. 13) of Gaussian coefficients carries x_T of covariance
    ``alpha^2 S + s^2 I`` to x_0 of covariance S, along the eigenvectors that both share.
    """
    found: FloatArray = covariance @ np.linalg.inv(_noised(covariance, alpha, s))
    return found


def _noised(covariance: FloatArray, alpha: float, s: float) -> FloatArray:
    return alpha**2 * covariance + s**2 * np.eye(len(covariance))


# ------------------------------------------------------------------------------------------------ first latents


def initial_latents(
    leak: Leak, scheduler: SchedulerMixin, n: int, generator: Generator | Sequence[Generator], steps: int
) -> Tensor:
    """First latents (n, c, h, w) float32 with a leak, to be a pipeline's ``latents``; ``steps`` as it will be called.

    ``generator``: one, or one a picture. The noise is drawn first: it is what the generator gives without a leak.
    On the CPU; a pipeline moves them to its device, and one in half precision wants ``.to(pipeline.dtype)``.
    """
    generators = [generator] if isinstance(generator, Generator) else list(generator)
    if len(generators) not in {1, n}:
        raise ValueError(f"expected one generator or {n}, got {len(generators)}")
    each = n // len(generators)
    shape = (each, *(leak.mean if isinstance(leak, PixelLeak) else leak.rest.mean).shape)
    drawn = [(torch.randn(shape, generator=one, device=one.device).cpu(), leak.sample(each, one)) for one in generators]
    noise, leaks = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return carrying(leaks, noise, scheduler, steps)


def carrying(leak: Tensor, noise: Tensor, scheduler: SchedulerMixin, steps: int) -> Tensor:
    """``alpha leak + s noise`` (eq. 3), alpha and s of the first step that the scheduler takes, in its own units.

    Shapes (n, c, h, w) that broadcast; ``noise`` is white. A pipeline multiplies what it is given by the scheduler's
    ``init_noise_sigma``; schedulers that count in noise over signal (Euler, LMS, Heun) add noise in that unit, too, so
    that one quotient is right for all. Where the first step holds no signal, as in flows and with zero terminal SNR,
    what comes back is the noise, and a warning says so. A scheduler that cannot add noise: ValueError.
    """
    own = _begun(scheduler, steps)
    if _first_step(own).alpha <= NOTHING:
        said = f"{type(own).__name__}: the first of {steps} steps holds no signal, so that a leak changes nothing"
        warnings.warn(said, stacklevel=2)
    made = _mixed(own, leak.expand_as(noise).to(noise.dtype), noise)
    return made / getattr(own, "init_noise_sigma", 1.0)  # a flow's pipeline multiplies by nothing


class FirstStep(NamedTuple):
    """The first of a sampler's steps: the time that the denoiser is told, and what it sees, alpha z0 + s noise."""

    time: Tensor  # ()
    alpha: float
    s: float


def first_step(scheduler: SchedulerMixin, steps: int) -> FirstStep:
    """What the scheduler begins with when it is asked for ``steps``."""
    return _first_step(_begun(scheduler, steps))


def _begun(scheduler: SchedulerMixin, steps: int) -> SchedulerMixin:
    """A copy at its beginning: asked for steps, a scheduler is another one."""
    own = type(scheduler).from_config(scheduler.config)
    if not (hasattr(own, "scale_noise") or hasattr(own, "add_noise")):
        raise ValueError(f"{type(own).__name__}: a scheduler that cannot add noise says nothing of its first step")
    # a flow's shift by resolution leaves its first step where it is
    shift = {"mu": 1.0} if own.config.get("use_dynamic_shifting") else {}
    own.set_timesteps(steps, **shift)
    return own


def _first_step(own: SchedulerMixin) -> FirstStep:
    one, none = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    time, parts = own.timesteps[0], (_mixed(own, one, none), _mixed(own, none, one))
    alpha, s = (float(own.scale_model_input(x, time) if hasattr(own, "scale_model_input") else x) for x in parts)
    return FirstStep(time, alpha, s)


def _mixed(own: SchedulerMixin, signal: Tensor, noise: Tensor) -> Tensor:
    """Signal and noise at the first step, in the scheduler's units."""
    if hasattr(own, "scale_noise"):  # a flow's
        return own.scale_noise(signal, own.timesteps[:1], noise)
    return own.add_noise(signal, noise, own.timesteps[:1].repeat(len(noise)))


# ------------------------------------------------------------------------------------------------ files


def save(leak: Leak, path: Path, provenance: Mapping[str, str]) -> None:
    """One safetensors file, and in its header where the pictures came from."""
    rest = leak if isinstance(leak, PixelLeak) else leak.rest
    tensors = {"mean": rest.mean, "std": rest.std}
    if isinstance(leak, FrequencyLeak):
        frequencies = np.array(leak.frequencies, dtype=np.float64).reshape(-1, 2)
        tensors |= {"frequencies": frequencies, "low_mean": leak.low_mean, "low_covariance": leak.low_covariance}
    note = json.dumps({"n": rest.n, "provenance": dict(provenance)}, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in tensors.items()}, path, {METADATA: note})


def load(path: Path) -> tuple[Leak, dict[str, str]]:
    """A leak and its provenance. Raises ValueError, one line, for a file that holds none."""
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {}).get(METADATA, "null"))
            found = {name: file.get_tensor(name).double().numpy() for name in file.keys()}  # noqa: SIM118
        if not isinstance(note, dict) or not all(np.isfinite(x).all() for x in found.values()):
            raise ValueError("no note of a leak, or values that are not finite")
        rest = PixelLeak(found["mean"], found["std"], int(note["n"]))
        provenance = {str(key): str(value) for key, value in dict(note["provenance"]).items()}
        if rest.mean.ndim != 3 or rest.mean.shape != rest.std.shape or (rest.std < 0).any():
            raise ValueError("mean and std are no pair")
        if "frequencies" not in found:
            return rest, provenance
        frequencies = [(int(u), int(v)) for u, v in found["frequencies"]]
        channels, *shape = rest.mean.shape
        width = len(frequencies) * channels
        if found["low_mean"].shape != (width,) or found["low_covariance"].shape != (width, width):
            raise ValueError("low frequencies of another number")
        if not all(0 <= u < shape[0] and 0 <= v < shape[1] for u, v in frequencies):
            raise ValueError("a frequency that the latents do not have")
        return FrequencyLeak(frequencies, found["low_mean"], found["low_covariance"], rest), provenance
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a readable signal leak: {' '.join(str(error).split())}") from None
