"""Boosting Latent Diffusion with Perceptual Objectives (Berrada Ifriqi et al. 2024, arXiv:2411.04873).

A clean latent and its one-step estimate are compared by a frozen decoder's features: ``stages``, the outputs of its
middle block and of its upsampling blocks, (n, c_l, h_l, w_l) each. `atelier.studies.latent_perceptual.loss` selects
samples by the threshold and weights the loss against squared error. Where the paper's text and formulas differ,
``docs/decisions.md`` says which is the default.

Maps are floats (n, c, h, w), half precision is computed in float32. Shapes and types are checked, values are not, so
that nothing waits for a device: NaN in a map gives NaN in the loss. Every function raises ValueError for integers, for
other shapes and unknown names of options, and TypeError for what is no tensor.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from atelier.data.checks import (
    check_choice,
    check_number,
    check_tensor,
    check_whole,
    in_full_precision,
    shape_of,
    square_side,
)
from atelier.params import DepthWeights, Mask, Norm

MAPS = "(n, c, h, w)"
Total = Literal["mean", "sum"]

PAPER_SIDE = 64  # latent side for which the paper gives its thresholds
QUANTILE, OPENING, CLOSING = 0.02, 5, 3  # algorithm 1
MASKED_FROM = 2  # stages of at least 1/2 of the picture's side are masked; the paper reports outliers there
FLAT = 1e-5  # maps with a smaller deviation are divided by 1; shorter vectors by this length


class Options(NamedTuple):
    """How two stages are compared; the defaults are the paper's, as ``docs/decisions.md`` interprets it.

    ``norm``: standardise both by means and deviations of the ``predicted`` features, or of the ``target`` features, or
    each by its own (``separate``); or divide both by the length of the target's feature vector at each position
    (``unit``), or each by the length of its own (``lpips``).
    ``depth_weights``: of the stages, see the function of that name. ``mask``: whose outliers are masked; ``both``: what
    is an outlier in either. ``places``, ``stages``: sum or mean over a map's positions and over stages; eq. 2 as
    printed sums both.

    diffusers' research script is ``Options("lpips", "equal", "none", stages="mean")`` by default, and ``Options("unit",
    "equal", "target", stages="mean")`` with its options for a shared norm and masks; its thresholds differ.
    """

    norm: Norm = "predicted"
    depth_weights: DepthWeights = "inverse"
    mask: Mask = "predicted"
    places: Total = "mean"
    stages: Total = "sum"


PAPER = Options()


def threshold(tau: float, latent_side: int) -> float:
    """Noise-to-signal ratio up to which a sample counts; ``tau`` is its value for latents of side 64.

    Section 4 scales it with the latent's side: so does the noise level up to which a given structure stays visible.
    Latents are square. Raises ValueError for a tau below 0 and a side below 1.
    """
    tau, latent_side = check_number(tau, "tau", least=0), check_whole(latent_side, "latent_side")
    return tau * latent_side / PAPER_SIDE


def depth_weights(sides: Sequence[int], kind: DepthWeights = "inverse") -> list[float]:
    """omega_l of stages whose maps have these sides, first stage first.

    ``inverse``: ``r_1 / r_l``, as the text of section 3.2; ``printed``: its formula ``2^(-r_l / r_1)``; ``equal``: 1.
    Raises ValueError for no sides, and sides below 1.
    """
    check_choice(kind, "kind", get_args(DepthWeights))
    if len(sides) == 0:
        raise ValueError("sides: expected one per stage, got none")
    sides = [check_whole(side, f"sides[{stage}]") for stage, side in enumerate(sides)]
    ratios = [side / sides[0] for side in sides]
    return {
        "inverse": [1 / ratio for ratio in ratios],
        "printed": [2.0**-ratio for ratio in ratios],
        "equal": [1.0] * len(ratios),
    }[kind]


@torch.no_grad()
def outlier_mask(features: Tensor, down: float = 1.0) -> Tensor:
    """Algorithm 1: a bool mask of the same shape as the maps (n, c, h, w), False at patches of outliers.

    ``down``: the picture's side over the map's, by which the kernels shrink. Outliers lie two standard deviations
    beyond the nearest-rank quantiles at 2 and 98 %; single pixels are removed, remaining patches dilated. A patch of
    more than 2 % of its map is not detected. One sort gives both quantiles. In a map that holds NaN nothing is masked.
    """
    check_tensor(features, "features", MAPS)
    down = check_number(down, "down", least=0, open_ends=True)
    features = in_full_precision(features)
    flat = features.detach().flatten(2).contiguous()
    n = flat.shape[-1]
    # equal results; on the CPU only numpy sorts with vector instructions
    ordered = torch.from_numpy(np.sort(flat.numpy())) if flat.device.type == "cpu" else flat.sort(dim=-1).values
    low, high = (ordered[..., max(1, int(n * q)) - 1, None, None] for q in (QUANTILE, 1 - QUANTILE))
    margin = 2 * flat.std(dim=-1)[..., None, None]
    # the paper's strict comparison would mask a flat map entirely; compared as differences, because the margin of a
    # map that is flat up to rounding is too small to be added to its values; NaN, of a map of one position or of one
    # that holds NaN, masks nothing: masked, the loss of a diverged estimate would be 0
    valid = ((features - low > -margin) & (features - high < margin)) | ~(margin > 0)
    opening, closing = (math.ceil(size / down) for size in (OPENING, CLOSING))
    # kernels must be odd: as in the paper, an even opening is rounded up, a closing of 2 down to 1
    opening += 1 - opening % 2
    closing = 1 if closing == 2 else closing + 1 - closing % 2
    grown = max_pool2d(valid.to(features.dtype), closing, 1, closing // 2)
    return -max_pool2d(-grown, opening, 1, opening // 2) > 0


def statistics(features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each map over its valid positions, (n, c, 1, 1) each, detached.

    Otherwise the loss could be reduced by increasing the features' variance (section 3.2).
    """
    features = _checked(features, "features", valid)
    x = features.detach()
    count = valid.sum((2, 3), keepdim=True).clamp(min=1)
    mean = torch.where(valid, x, 0).sum((2, 3), keepdim=True) / count
    variance = torch.where(valid, (x - mean).square(), 0).sum((2, 3), keepdim=True) / count
    return mean, torch.where(variance > FLAT**2, variance.sqrt(), 1)


def standardised(target: Tensor, predicted: Tensor, valid: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """phi' and phihat' of eq. 2, of maps (n, c, h, w); ``valid``: bool, the same shape."""
    check_choice(norm, "norm", get_args(Norm))
    target, predicted = _checked(target, "target", valid), _checked(predicted, "predicted", valid)
    if norm in ("unit", "lpips"):
        length = vector_length(target, valid)
        return target / length, predicted / (length if norm == "unit" else vector_length(predicted, valid))
    mean, deviation = statistics(target if norm in ("target", "separate") else predicted, valid)
    mean_hat, deviation_hat = statistics(predicted, valid) if norm == "separate" else (mean, deviation)
    return (target - mean) / deviation, (predicted - mean_hat) / deviation_hat


def vector_length(features: Tensor, valid: Tensor) -> Tensor:
    """Length of the feature vector at each position, (n, 1, h, w), over valid channels; differentiable, as in LPIPS."""
    features = _checked(features, "features", valid)
    length: Tensor = torch.linalg.vector_norm(torch.where(valid, features, 0), dim=1, keepdim=True)
    return length.clamp(min=FLAT)


def stage_distance(
    target: Tensor,
    predicted: Tensor,
    valid: Tensor,
    norm: Norm = "predicted",
    places: Total = "mean",
) -> Tensor:
    """``1/C_l sum_c`` of the mean squared difference over valid positions, for one stage (n, c, h, w) -> (n,).

    Eq. 2 has a sum over positions; only with a mean do the layers' weights grow as the paper says.
    """
    check_choice(places, "places", get_args(Total))
    phi, phi_hat = standardised(target, predicted, valid, norm)
    squared = torch.where(valid, phi - phi_hat, 0).square().sum((2, 3))
    return (squared if places == "sum" else squared / valid.sum((2, 3)).clamp(min=1)).mean(1)


def valid_positions(target: Tensor, predicted: Tensor, picture_side: int, mask: Mask = "predicted") -> Tensor:
    """rho of eq. 2, bool (n, c, h, w); outliers are masked in stages of at least half the picture's side.

    Maps are square, since pictures have one side here; ValueError for oblong ones.
    """
    check_choice(mask, "mask", get_args(Mask))
    for name, maps in (("target", target), ("predicted", predicted)):
        check_tensor(maps, name, MAPS)
    if target.shape != predicted.shape:
        raise ValueError(f"predicted: expected the target's shape {shape_of(target)}, got {shape_of(predicted)}")
    down = check_whole(picture_side, "picture_side") / square_side(predicted, "predicted")
    if mask == "none" or down > MASKED_FROM:
        return torch.ones_like(predicted, dtype=torch.bool)
    checked = {"predicted": [predicted], "target": [target], "both": [predicted, target]}[mask]
    return torch.stack([outlier_mask(features, down) for features in checked]).all(0)


def stage_losses(
    targets: Sequence[Tensor], predictions: Sequence[Tensor], picture_side: int, options: Options = PAPER
) -> list[Tensor]:
    """Each stage's unweighted distance, (n,) each.

    Raises ValueError for stages of different shapes, and for oblong maps.
    """
    check_choice(options.mask, "mask", get_args(Mask))
    shapes, others = _shapes(targets, "targets"), _shapes(predictions, "predictions")
    if shapes != others or not shapes:
        raise ValueError(f"targets, predictions: stages do not match: {shapes} and {others}")
    losses = []
    for target, predicted in zip(targets, predictions, strict=True):
        # half precision has too few digits for a standard deviation of four thousand values
        target, predicted = in_full_precision(target), in_full_precision(predicted)
        valid = valid_positions(target.detach(), predicted.detach(), picture_side, options.mask)
        losses.append(stage_distance(target.detach(), predicted, valid, options.norm, options.places))
    return losses


def latent_perceptual_loss(
    targets: Sequence[Tensor], predictions: Sequence[Tensor], picture_side: int, options: Options = PAPER
) -> Tensor:
    """Eq. 2 without its threshold: ``sum_l omega_l / C_l sum_c ||rho (phi' - phihat')||^2``, (n,).

    ``targets``: features of clean latents, detached; ``predictions``: features of their estimates. ``picture_side``: of
    the square picture that the decoder makes of them, px. Raises ValueError as ``stage_losses``.
    """
    check_choice(options.stages, "stages", get_args(Total))
    losses = stage_losses(targets, predictions, picture_side, options)
    weights = depth_weights([stage.shape[-1] for stage in predictions], options.depth_weights)
    # not torch.stack: summing a list keeps the order of additions independent of the batch
    total = sum((weight * loss for weight, loss in zip(weights, losses, strict=True)), torch.zeros_like(losses[0]))
    return total / len(losses) if options.stages == "mean" else total


def _shapes(stages: Sequence[Tensor], name: str) -> list[tuple[int, ...]]:
    """Shapes of stages of maps, each checked under its name."""
    for number, stage in enumerate(stages):
        check_tensor(stage, f"{name}[{number}]", MAPS)
    return [shape_of(stage) for stage in stages]


def _checked(maps: Tensor, name: str, valid: Any) -> Tensor:
    """Maps in full precision, whose mask has their shape."""
    check_tensor(maps, name, MAPS)
    check_tensor(valid, "valid", MAPS, ("bool",))
    if maps.shape != valid.shape:
        raise ValueError(f"valid: expected the shape {shape_of(maps)} of {name}, got {shape_of(valid)}")
    return in_full_precision(maps)
