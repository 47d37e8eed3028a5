"""Distortions of pictures by a given strength, in batches: each picture has its own strength and random numbers.

Pictures are (n, 3, s, s) float, s a multiple of 8, in [0, 1]; results may leave that range.
Oblong ones are refused by a ValueError.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, grid_sample, interpolate

from atelier.data.checks import square_side

BLOCK = 8  # px, of the linear code
SHARP = 0.05  # px: a Gaussian this narrow selects a single pixel
FIELD = 4  # a warp's field is drawn on a 4x4 grid


def sampled(pictures: Tensor, rows: Tensor, columns: Tensor, blur: Tensor) -> Tensor:
    """Sample pictures at ``rows`` and ``columns`` (n, s), in px, with a Gaussian of ``blur`` (n,) px: shift, flip and
    blur in one formula. Positions outside read the edge; a blur of 0 reads one pixel."""
    return _both_ways(_gaussian(rows, blur), _gaussian(columns, blur), pictures)


def _gaussian(positions: Tensor, blur: Tensor) -> Tensor:
    """Weight of each pixel at each position; (n, s) px, (n,) px -> (n, s, s), rows sum to 1."""
    distance = positions.clamp(0, positions.shape[1] - 1)[:, :, None] - torch.arange(positions.shape[1])
    return (-0.5 * (distance / blur.clamp_min(SHARP)[:, None, None]).square()).softmax(-1)


def _both_ways(vertical: Tensor, horizontal: Tensor, pictures: Tensor) -> Tensor:
    """V x H^T for each picture and channel; operators (n, s, s)."""
    channels = pictures.shape[1]  # stacked, so that operators are not copied per channel
    across = (pictures.flatten(1, 2) @ horizontal.mT).unflatten(1, (channels, -1))
    return (across.mT.flatten(1, 2) @ vertical.mT).unflatten(1, (channels, -1)).mT


def blurred(pictures: Tensor, blur: Tensor) -> Tensor:
    """A Gaussian blur of ``blur`` (n,) px."""
    positions = torch.arange(square_side(pictures, "pictures")).expand(len(pictures), -1)
    return sampled(pictures, positions, positions, blur)


def coded(pictures: Tensor, kept: Tensor) -> Tensor:
    """Keep the lowest ``kept`` (n,) of eight cosines per axis of each 8x8 patch, as a linear code does.

    With a fractional number the next cosine is attenuated. Raises ValueError for a side that 8 does not divide.
    """
    side = square_side(pictures, "pictures")
    if side % BLOCK:
        raise ValueError(f"pictures: patches of {BLOCK} pixels do not fill {side}x{side}")
    frequency, pixel = torch.arange(BLOCK)[:, None], torch.arange(BLOCK)
    basis = (math.pi / BLOCK * frequency * (pixel + 0.5)).cos()
    basis = basis / basis.norm(dim=1, keepdim=True)
    gain = (kept[:, None] - torch.arange(BLOCK)).clamp(0, 1)
    patch = basis.T @ (gain[:, :, None] * basis)  # (n, 8, 8)
    blocks = side // BLOCK
    operator = torch.einsum("pq,nij->npiqj", torch.eye(blocks), patch).reshape(len(pictures), *pictures.shape[-2:])
    return _both_ways(operator, operator, pictures)


# Families of distortions: pictures, strength (n,) in [0, 1], chance (n, 3, s, s) standard normal -> pictures.
# Strength 0 is the identity, 1 a strong distortion.


def noise(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    return pictures + 0.3 * _wide(strength) * chance


def blur(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    return blurred(pictures, 3 * strength)


def code(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    return coded(pictures, 8 - 7 * strength)


def tint(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    """Add a colour in the direction of ``chance``'s mean."""
    direction = chance.mean((2, 3), keepdim=True)
    return pictures + 0.4 * _wide(strength) * direction / direction.norm(dim=1, keepdim=True)


def fade(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    """Blend with the picture's mean colour."""
    return torch.lerp(pictures, pictures.mean((2, 3), keepdim=True), 0.9 * _wide(strength))


def posterise(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    """Round to steps of at most 0.5."""
    step = (0.5 * _wide(strength)).clamp_min(1 / 255)
    return (pictures / step).round() * step


def warp(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    """Displace by a smooth field of up to about four px."""
    n, side = len(pictures), square_side(pictures, "pictures")
    drawn = adaptive_avg_pool2d(chance[:, :2], FIELD) * (side / FIELD)  # standard normal again
    field = interpolate(drawn, (side, side), mode="bicubic").permute(0, 2, 3, 1)
    still = torch.eye(2, 3).expand(n, 2, 3)
    grid = torch.nn.functional.affine_grid(still, [n, 3, side, side], align_corners=False)
    warped = grid + field * (4 * strength * 2 / side)[:, None, None, None]
    return grid_sample(pictures, warped, padding_mode="border", align_corners=False)


FAMILIES = {
    "noise": noise, "blur": blur, "code": code, "tint": tint, "fade": fade, "posterise": posterise, "warp": warp,
}  # fmt: skip


def distorted(pictures: Tensor, families: list[str], strength: Tensor, chance: Tensor) -> Tensor:
    """Distort each picture by its family; results are clipped to [0, 1]."""
    out = pictures.clone()
    for name in sorted(set(families)):
        rows = [row for row, family in enumerate(families) if family == name]
        out[rows] = FAMILIES[name](pictures[rows], strength[rows], chance[rows])
    return out.clamp(0, 1)


def _wide(amount: Tensor) -> Tensor:
    return amount[:, None, None, None]
