"""Checks of arguments: tensors, arrays, sets of pictures, features, numbers, names. A refusal is one line.

It names the argument, what was expected and what came: a ValueError, or a TypeError for what is no tensor, no number or
no text at all. Checks of tensors read type and shape only, so that a loss on a GPU does not wait for them; NaN in a
loss gives NaN. Checks of arrays also read the values, because metrics are computed on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from atelier.files import reason

if TYPE_CHECKING:
    import torch  # not imported here, so that metrics of arrays start without it

FloatArray: TypeAlias = npt.NDArray[np.float64]
Samples: TypeAlias = "npt.NDArray[Any] | torch.Tensor"

FLOATS = ("float16", "bfloat16", "float32", "float64")
HALVES = ("float16", "bfloat16")
BATCH = 32  # pictures in float64 at a time
RANGE_SLACK = 1e-6  # allows only for the float32 rounding of a clamp
PICTURE_CHANNELS = (1, 3)  # grey or RGB; alpha would count as a colour
NOT_FINITE = "not all finite, got NaN or infinity"
DIVIDED = "are divided by 255 first"
SHOWN = 60  # characters of a value that a refusal repeats


def came(value: object) -> str:
    """What came instead, in a few words: type and shape of an array or tensor, else the value itself."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{dtype_of(value)} {shape_of(value)}"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= SHOWN else text[:SHOWN] + '...'}"


def dtype_of(x: Any) -> str:
    """The name of an array's or tensor's type, such as ``float32``."""
    return str(x.dtype).removeprefix("torch.")


def shape_of(x: Any) -> tuple[int, ...]:
    return tuple(x.shape)


def is_tensor(x: object) -> bool:
    return hasattr(x, "detach")


# ------------------------------------------------------------------------------------------------ tensors


def check_tensor(x: object, name: str, axes: str, dtypes: Collection[str] = FLOATS) -> None:
    """Refuse anything but a tensor of one of these types, with these axes, such as ``(n, c, h, w)``, none empty."""
    wanted = "floats" if dtypes is FLOATS else " or ".join(dtypes)
    if not is_tensor(x):
        raise TypeError(f"{name}: expected a tensor {axes} of {wanted}, got {came(x)}")
    if dtype_of(x) not in dtypes:
        hint = f"; 8-bit pictures {DIVIDED}" if dtype_of(x) == "uint8" else ""
        raise ValueError(f"{name}: expected {wanted} {axes}, got {dtype_of(x)}{hint}")
    _check_axes(x, name, axes)


def check_alike(axes: str, **named: Any) -> None:
    """Refuse anything but floats with these axes, such as ``(n, c, h, w)``, of the first one's shape; by name."""
    first, *others = named
    for name, x in named.items():
        check_tensor(x, name, axes)
    for name in others:
        if shape_of(named[name]) != shape_of(named[first]):
            shapes = f"{shape_of(named[first])}, got {shape_of(named[name])}"
            raise ValueError(f"{name}: expected the shape of {first}, {shapes}")


def check_picture_tensor(
    x: object, name: str, dtypes: Collection[str] = FLOATS, channels: Collection[int] = (3,)
) -> None:
    """Refuse anything but pictures (n, c, h, w) with one of these numbers of channels: RGBA, or channels last."""
    check_tensor(x, name, "(n, c, h, w)", dtypes)
    check_channels(x, name, channels)


def check_finite_tensor(x: torch.Tensor, name: str) -> None:
    """Refuse a tensor that holds NaN or an infinity. Waits for the device: not for a training step."""
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name}: {NOT_FINITE}")


def square_side(x: Any, name: str) -> int:
    """The side of square pictures, latents or maps (..., h, w); ValueError for oblong ones."""
    height, width = shape_of(x)[-2:]
    if height != width:
        raise ValueError(f"{name}: expected square ones, h = w, got {height}x{width} (shape {shape_of(x)})")
    return int(width)


def in_full_precision(x: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, in which all losses are computed; other types as they are."""
    return x.float() if dtype_of(x) in HALVES else x


def _check_axes(x: Any, name: str, axes: str) -> None:
    names = axes.strip("()").replace(",", " ").split()
    least = len(names) - (names[0] == "...")
    fits = x.ndim >= least if names[0] == "..." else x.ndim == least
    if not fits or 0 in shape_of(x):
        raise ValueError(f"{name}: expected a non-empty {axes}, got shape {shape_of(x)}")


def check_channels(x: Any, name: str, channels: Collection[int] = PICTURE_CHANNELS) -> None:
    """Refuse pictures (n, c, h, w) with other numbers of channels: RGBA, or channels last."""
    count = shape_of(x)[1]
    if count not in channels:
        wanted = " or ".join(str(each) for each in channels)
        last = "; channels last?" if shape_of(x)[3] in PICTURE_CHANNELS else ""
        raise ValueError(
            f"{name}: expected (n, c, h, w) with {wanted} channels, got {count}, shape {shape_of(x)}{last}"
        )


# ------------------------------------------------------------------------------------------------ arrays


def array_of(samples: Any, name: str) -> npt.NDArray[Any]:
    """A numpy view or copy of an array, a tensor on any device, or a list; bfloat16, unknown to numpy, as float32."""
    try:
        if not is_tensor(samples):
            return np.asarray(samples)
        tensor = samples.float() if dtype_of(samples) == "bfloat16" else samples
        return np.asarray(tensor.numpy(force=True))
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists; tensors of types that numpy does not have
        raise ValueError(f"{name}: expected an array or a tensor of numbers: {reason(error)}") from None


def real_array(samples: Any, name: str, axes: str) -> npt.NDArray[Any]:
    """Finite floats with these axes, none of them empty, as they came, but half precision as float32.

    Raises ValueError otherwise.
    """
    array = array_of(samples, name)
    if array.dtype.kind != "f":
        raise ValueError(f"{name}: expected floats {axes}, got {array.dtype}")
    _check_axes(array, name, axes)
    check_finite(array, name)
    return _without_halves(array)


def number_row(values: Any, name: str) -> FloatArray:
    """Numbers (n,) as float64, from a list or an array, finite or not; ValueError for anything else."""
    array = array_of(values, name)
    if array.ndim != 1 or (array.dtype.kind not in "fiu" and array.size):
        raise ValueError(f"{name}: expected numbers (n,), got {array.dtype} {array.shape}")
    return array.astype(np.float64)


def feature_matrix(features: Any, name: str = "features") -> FloatArray:
    """Features as a float64 matrix (n, d), n, d >= 1.

    Raises ValueError for another number of axes, an empty matrix, numbers that are not real, or not finite.
    """
    array = array_of(features, name)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name}: expected real numbers, got {array.dtype}")
    _check_axes(array, name, "(n, d)")
    check_finite(array, name)
    return array.astype(np.float64, copy=False)


def feature_pair(
    first: Any, second: Any, at_least: int, names: tuple[str, str] = ("real", "generated")
) -> tuple[FloatArray, FloatArray]:
    """Two feature matrices (n, d) and (m, d) of one feature space, n, m >= ``at_least``; ValueError otherwise."""
    pair = feature_matrix(first, names[0]), feature_matrix(second, names[1])
    widths = [matrix.shape[1] for matrix in pair]
    if widths[0] != widths[1]:
        raise ValueError(f"{names[0]} features have d={widths[0]}, {names[1]} d={widths[1]}: not one space")
    for name, matrix in zip(names, pair, strict=True):
        if len(matrix) < at_least:
            raise ValueError(f"need at least {at_least} {name} samples, got {len(matrix)}")
    return pair


def _without_halves(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sums of half precision would lose digits, and scipy's filters and transforms do not take it."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def check_finite(array: npt.NDArray[Any], name: str) -> None:
    """Refuse an array, not empty, that holds NaN or an infinity: either would be among its extremes."""
    if array.dtype.kind == "f" and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        raise ValueError(f"{name}: {NOT_FINITE}")


# ------------------------------------------------------------------------------------------------ pictures


def picture_array(
    images: Any, name: str = "pictures", channels: Collection[int] = PICTURE_CHANNELS, overshoot: float = 0.0
) -> npt.NDArray[Any]:
    """Pictures (n, c, h, w) in [0, 1] as an array of floats as they came, but half precision as float32.

    Raises ValueError for integers (8-bit pictures divide by 255 first), another number of axes or of channels (RGBA,
    channels last), an empty batch, values that are not finite, and values further than ``overshoot`` outside [0, 1].
    """
    array = array_of(images, name)
    if array.dtype.kind != "f":
        raise ValueError(
            f"{name}: expected floats in [0, 1], got {array.dtype}; 8-bit pictures are divided by 255 first"
        )
    _check_axes(array, name, "(n, c, h, w)")
    check_channels(array, name, channels)
    check_finite(array, name)
    low, high, slack = array.min(), array.max(), overshoot + RANGE_SLACK
    if low < -slack or high > 1 + slack:
        raise ValueError(f"{name}: expected floats in [0, 1], got values from {low:.4g} to {high:.4g}")
    return _without_halves(array)


def picture_tensor(images: Any, name: str, overshoot: float = 0.0) -> torch.Tensor:
    """``picture_array`` as a float64 tensor on the CPU."""
    import torch

    array = picture_array(images, name, overshoot=overshoot)
    # torch reads neither negative strides nor, without a warning, arrays that must not be written to
    shared = array.flags.writeable and min(array.strides) >= 0
    return torch.from_numpy(array if shared else array.copy()).double()


def image_batch(images: Any, name: str = "pictures") -> FloatArray:
    """Pictures as float64 (n, c, h, w), values in [0, 1]; ValueError as ``picture_array``."""
    return picture_array(images, name).astype(np.float64, copy=False)


def image_batches(images: Any, name: str = "pictures") -> Iterator[FloatArray]:
    """``image_batch`` of 32 pictures at a time, so that no second copy of a set is held.

    The whole set is checked before the first batch: ValueError as ``picture_array``.
    """
    array = picture_array(images, name)
    for start in range(0, len(array), BATCH):
        yield array[start : start + BATCH].astype(np.float64, copy=False)


# ------------------------------------------------------------------------------------------------ numbers, names


def check_whole(value: Any, name: str, least: int | None = 1, most: int | None = None) -> int:
    """A whole number from ``least`` to ``most`` as an int: TypeError for anything that is none, as 2.0 and True are."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = index(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a whole number, got {came(value)}") from None
    if (least is not None and number < least) or (most is not None and number > most):
        limit = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be {limit}, got {number}")
    return number


def check_number(
    value: Any, name: str, least: float = -math.inf, most: float = math.inf, open_ends: bool = False
) -> float:
    """A finite number from ``least`` to ``most`` (between them: ``open_ends``); TypeError for what is no number."""
    try:
        if isinstance(value, str | bytes | bool | np.bool_):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a number, got {came(value)}") from None
    within = least < number < most if open_ends else least <= number <= most
    if not within or not math.isfinite(number):
        ends = "above {:g} and below {:g}" if open_ends else "from {:g} to {:g}"
        raise ValueError(f"{name} must be finite and {ends.format(least, most)}, got {number:g}")
    return number


def check_choice(value: object, name: str, known: Collection[str]) -> None:
    """Refuse a name that is none of ``known``, with the nearest of them."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {', '.join(known)}, got {came(value)}")
    if value not in known:
        nearest = get_close_matches(value, known, n=1, cutoff=0)[0]
        raise ValueError(f"unknown {name} {value[:SHOWN]!r}, nearest is {nearest!r} of {', '.join(known)}")


def check_texts(texts: Sequence[str], name: str) -> None:
    """Refuse anything but a non-empty sequence of texts; a single text would be read letter by letter."""
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{name}: expected a sequence of texts, got {came(texts)}")
    if not texts:
        raise ValueError(f"{name}: expected at least one text, got none")
