"""How far floats may lie from an oracle, by their type: one table for all tests.

Equal bits are asked for with ``torch.equal``; a test whose numbers are sums of many widens one bound and says why.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Tolerance(NamedTuple):
    """``|actual - expected| <= absolute + relative |expected|``, element by element."""

    relative: float
    absolute: float


BY_TYPE = {
    torch.bfloat16: Tolerance(5e-2, 1e-2),
    torch.float32: Tolerance(1e-4, 1e-6),
    torch.float64: Tolerance(1e-12, 1e-14),
}


def coarser(*types: torch.dtype) -> Tolerance:
    """The bounds of the least precise type."""
    return max((BY_TYPE[each] for each in types), key=lambda tolerance: tolerance.relative)


def assert_close(actual: Any, expected: Any, relative: float | None = None, absolute: float | None = None) -> None:
    """Tensors or arrays of equal shape that agree within the table's bounds, or within those given in their place."""
    one, two = (each if isinstance(each, Tensor) else torch.from_numpy(np.asarray(each)) for each in (actual, expected))
    bounds = coarser(one.dtype, two.dtype)
    torch.testing.assert_close(
        one.double(),
        two.double(),
        rtol=bounds.relative if relative is None else relative,
        atol=bounds.absolute if absolute is None else absolute,
    )
