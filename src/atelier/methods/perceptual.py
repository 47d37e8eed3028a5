"""Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (LPIPS)."""

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-10  # added to a norm, as LPIPS does: where all channels are 0 the direction is 0 too


def directions(features: Tensor) -> Tensor:
    """Feature vectors at unit length over channels, (n, c, h, w) -> the same shape.

    A zero vector stays zero and passes a zero gradient on; the root of a sum of squares would pass NaN.
    """
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + EPS)


def perceptual_distance(features: Sequence[Tensor], others: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Eq. 1: weighted squared distance of unit feature vectors, mean over places, summed over stages; -> (n,).

    ``features``, ``others``: a stage's activations (n, c_l, h_l, w_l) each; ``weights``: (c_l,) each, non-negative for
    a distance. Same float dtype throughout. Raises ValueError where the stages do not match.
    """
    if not len(features) == len(others) == len(weights) > 0:
        raise ValueError(f"stages do not match: {len(features)}, {len(others)}, and {len(weights)} of weights")
    stages = []
    for stage, (one, other, weight) in enumerate(zip(features, others, weights, strict=True)):
        if one.shape != other.shape or one.ndim != 4 or weight.shape != one.shape[1:2]:
            shapes = ", ".join(str(tuple(part.shape)) for part in (one, other, weight))
            raise ValueError(f"stage {stage}: expected (n, c, h, w) twice and weights (c,), got {shapes}")
        squared = (directions(one) - directions(other)).square()
        stages.append(squared.mean((2, 3)) @ weight)
    return torch.stack(stages).sum(0)
