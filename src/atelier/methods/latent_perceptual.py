"""Berrada Ifriqi et al. 2024, "Boosting Latent Diffusion with Perceptual Objectives": a loss on decoder features.

A clean latent and its one-step estimate are compared by what a frozen decoder makes of them on its way to a picture:
``stages``, the features behind its middle block and its upsampling blocks, (n, c_l, h_l, w_l) each. Where the paper's
words and formulas differ, ``docs/decisions.md`` says which is the default.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from atelier.params import DepthWeights, Mask, Norm

PAPER_SIDE = 64  # of the latent that the paper's thresholds are for
QUANTILE, OPENING, CLOSING = 0.02, 5, 3  # algorithm 1
MASKED_FROM = 2  # stages of at least 1/2 of the picture's side are masked: isolated patches are reported of deep ones
FLAT = 1e-5  # a map that varies less is not divided by how it varies


class Form(NamedTuple):
    """How two stages are compared; the defaults are the paper's, in the reading of ``docs/decisions.md``.

    ``norm``: standardise both by means and deviations of the ``predicted`` features, or of the ``target``'s, or each by
    its own (``separate``); or divide both by the length of the target's feature vector at each place (``unit``), or
    each by its own's (``lpips``).
    ``mask``: whose outliers are left out. ``places``, ``stages``: whether they are summed or averaged; eq. 2 as it is
    printed sums both.

    diffusers' research script is ``Form("lpips", "equal", "none", stages="mean")`` by default, and ``Form("unit",
    "equal", "target", stages="mean")`` where it shares its norm and masks, each with a threshold of its own.
    """

    norm: Norm = "predicted"
    depth_weights: DepthWeights = "inverse"
    mask: Mask = "predicted"
    places: Literal["mean", "sum"] = "mean"
    stages: Literal["sum", "mean"] = "sum"


PAPER = Form()


def threshold(tau: float, side: int) -> float:
    """Noise-to-signal ratio up to which a sample counts, for a latent of ``side``: ``tau`` is the paper's, at 64.

    Section 4 scales it with the latent's side, as the noise that a given structure survives does.
    """
    return tau * side / PAPER_SIDE


def depth_weights(sides: Sequence[int], form: DepthWeights = "inverse") -> list[float]:
    """omega_l of stages by their sides, the first one's first.

    ``inverse``: ``r_1 / r_l``, what section 3.2 says in words; ``printed``: its formula ``2^(-r_l / r_1)``; ``equal``.
    """
    ratios = [side / sides[0] for side in sides]
    return {
        "inverse": [1 / ratio for ratio in ratios],
        "printed": [2.0**-ratio for ratio in ratios],
        "equal": [1.0] * len(ratios),
    }[form]


@torch.no_grad()
def outlier_mask(features: Tensor, down: float = 1.0) -> Tensor:
    """Algorithm 1: False where a map (n, c, h, w) has a patch far outside its own values; bool, the same shape.

    ``down``: the picture's side over the map's, by which the kernels shrink. Values count as outliers two standard
    deviations beyond the nearest-rank quantiles at 2 and 98 %; specks are dropped, what is left grows by a pixel. A
    patch of more than 2 % of its map is not found. One sort gives both quantiles.
    """
    flat = features.detach().flatten(2).contiguous()
    n = flat.shape[-1]
    # the same values either way; numpy sorts with vector instructions, torch does on other devices alone
    ordered = torch.from_numpy(np.sort(flat.numpy())) if flat.device.type == "cpu" else flat.sort(dim=-1).values
    low, high = (ordered[..., max(1, int(n * q)) - 1, None, None] for q in (QUANTILE, 1 - QUANTILE))
    room = 2 * flat.std(dim=-1)[..., None, None]
    # the paper's comparison is strict, and would leave nothing of a flat map; as differences, because what rounding
    # makes of one has too small a room to be added
    valid = ((features - low > -room) & (features - high < room)) | (room == 0)
    opening, closing = (math.ceil(size / down) for size in (OPENING, CLOSING))
    opening += 1 - opening % 2  # kernels are odd; the paper takes 3 for 2 here ...
    closing = 1 if closing == 2 else closing + 1 - closing % 2  # ... and 1 for 2 here
    grown = max_pool2d(valid.to(features.dtype), closing, 1, closing // 2)
    return -max_pool2d(-grown, opening, 1, opening // 2) > 0


def statistics(features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each map over its valid places, (n, c, 1, 1) each, detached.

    Detached, or else a loss could be made small by making the features vary more (section 3.2).
    """
    x = features.detach()
    count = valid.sum((2, 3), keepdim=True).clamp(min=1)
    mean = torch.where(valid, x, 0).sum((2, 3), keepdim=True) / count
    variance = torch.where(valid, (x - mean).square(), 0).sum((2, 3), keepdim=True) / count
    return mean, torch.where(variance > FLAT**2, variance.sqrt(), 1)


def standardised(target: Tensor, predicted: Tensor, valid: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """phi' and phihat' of eq. 2."""
    if norm in ("unit", "lpips"):
        length = vector_length(target, valid)
        return target / length, predicted / (length if norm == "unit" else vector_length(predicted, valid))
    mean, deviation = statistics(target if norm in ("target", "separate") else predicted, valid)
    own_mean, own_deviation = statistics(predicted, valid) if norm == "separate" else (mean, deviation)
    return (target - mean) / deviation, (predicted - own_mean) / own_deviation


def vector_length(features: Tensor, valid: Tensor) -> Tensor:
    """Length of the feature vector at each place, (n, 1, h, w), of its valid channels; with a gradient, as in LPIPS."""
    length: Tensor = torch.linalg.vector_norm(torch.where(valid, features, 0), dim=1, keepdim=True)
    return length.clamp(min=FLAT)


def stage_distance(
    target: Tensor,
    predicted: Tensor,
    valid: Tensor,
    norm: Norm = "predicted",
    places: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """``1/C_l sum_c`` of the mean squared difference over valid places, of one stage (n, c, h, w) -> (n,).

    Eq. 2 has a sum over places; a mean is what makes its layers grow as the paper says they do.
    """
    one, other = standardised(target, predicted, valid, norm)
    squared = torch.where(valid, one - other, 0).square().sum((2, 3))
    return (squared if places == "sum" else squared / valid.sum((2, 3)).clamp(min=1)).mean(1)


def valid_places(target: Tensor, predicted: Tensor, side: int, mask: Mask = "predicted") -> Tensor:
    """rho of eq. 2, bool (n, c, h, w): all of a shallow stage, of a deep one but outliers; ``side``: a picture's."""
    down = side / predicted.shape[-1]
    if mask == "none" or down > MASKED_FROM:
        return torch.ones_like(predicted, dtype=torch.bool)
    seen = {"predicted": [predicted], "target": [target], "both": [predicted, target]}[mask]
    return torch.stack([outlier_mask(features, down) for features in seen]).all(0)


def stage_losses(
    targets: Sequence[Tensor], predictions: Sequence[Tensor], side: int, form: Form = PAPER
) -> list[Tensor]:
    """Each stage's distance, without its weight: (n,) each. ``side``: of the picture that the decoder ends with.

    Raises ValueError where stages do not match.
    """
    shapes, others = ([tuple(stage.shape) for stage in stages] for stages in (targets, predictions))
    if shapes != others or not shapes:
        raise ValueError(f"stages do not match: {shapes} and {others}")
    found = []
    for target, predicted in zip(targets, predictions, strict=True):
        # half precision has too few digits for a standard deviation of four thousand values
        target, predicted = (
            x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in (target, predicted)
        )
        valid = valid_places(target.detach(), predicted.detach(), side, form.mask)
        found.append(stage_distance(target.detach(), predicted, valid, form.norm, form.places))
    return found


def latent_perceptual_loss(
    targets: Sequence[Tensor], predictions: Sequence[Tensor], side: int, form: Form = PAPER
) -> Tensor:
    """Eq. 2 without its threshold: ``sum_l omega_l / C_l sum_c ||rho (phi' - phihat')||^2``, (n,).

    ``targets``: features of clean latents, without a graph; ``predictions``: of their estimates.
    """
    losses = stage_losses(targets, predictions, side, form)
    weights = depth_weights([stage.shape[-1] for stage in predictions], form.depth_weights)
    # not torch.stack: the sum of a list keeps one order of additions whatever the batch
    total = sum((weight * loss for weight, loss in zip(weights, losses, strict=True)), torch.zeros_like(losses[0]))
    return total / len(losses) if form.stages == "mean" else total
