"""Planted defects: what a decoder or a denoiser may leave in a picture, by a given strength.

Pictures are (n, 3, s, s) float in [0, 1]; ``strength`` (n,) in [0, 1], where 0 is the identity; ``chance`` (n, 3, s, s)
standard normal, from which each picture's defect takes its place, its direction and its sign. Results may leave [0, 1].
Unlike distortions (``training.distortions``), which say how far two pictures are apart, a defect is a fault whatever
the picture was meant to be.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from atelier.data.checks import square_side
from atelier.seeds import torch_generator
from atelier.training.distortions import blurred

FIELD = 4  # smooth fields are drawn on a 4x4 grid
RINGING = (0.1, 0.25)  # cycles per px: the band whose amplification rings beside edges
SPECKLED = 0.06  # share of a picture's pixels at strength 1
LOST = 0.55  # side of the lost part at strength 1, of the picture's


def checkerboard(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    """A pattern of two px in rows, columns or both, stronger in some parts, as strided upsampling leaves it."""
    side = square_side(pictures, "pictures")
    sign = 1.0 - 2.0 * (torch.arange(side) % 2)
    patterns = torch.stack([sign[:, None].expand(side, side), sign.expand(side, side), sign[:, None] * sign])
    weights = chance.mean((2, 3)).abs()
    mixed = torch.einsum("nk,kij->nij", weights / weights.norm(dim=1, keepdim=True), patterns)
    return pictures + 0.16 * _wide(strength) * (mixed * (0.5 + _smooth(chance).sigmoid()))[:, None]


def blur(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    """A Gaussian blur of up to 2.5 px."""
    return blurred(pictures, 2.5 * strength)


def ringing(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    """Amplify a sharply cut band of frequencies: bright and dark lines beside edges."""
    side = square_side(pictures, "pictures")
    rows, columns = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)
    radius = (rows.square() + columns.square()).sqrt()
    band = ((radius > RINGING[0]) & (radius <= RINGING[1])).float()
    halo = torch.fft.irfft2(torch.fft.rfft2(pictures) * band, s=(side, side))
    return pictures + 1.8 * _wide(strength) * halo


def speckle(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    """Single px of white or black; their number is continuous in strength, the last one fades in."""
    n, side = len(pictures), square_side(pictures, "pictures")
    order = chance[:, 0].flatten(1).argsort(1).argsort(1).view(n, 1, side, side)
    hit = (_wide(strength) * SPECKLED * side**2 - order).clamp(0, 1)
    return torch.lerp(pictures, (chance[:, 1:2] > 0).float().expand_as(pictures), hit)


def cast(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    """A cast of one hue, without a change of brightness."""
    direction = chance.mean((2, 3), keepdim=True)
    hue = direction - direction.mean(1, keepdim=True)
    return pictures + 0.25 * _wide(strength) * hue / hue.norm(dim=1, keepdim=True)


def lost(pictures: Tensor, strength: Tensor, chance: Tensor) -> Tensor:
    """A square anywhere that has melted into its surroundings; its area grows with strength."""
    n, side = len(pictures), square_side(pictures, "pictures")
    half = LOST * side * strength.sqrt() / 2
    centre = (side - 1) * torch.special.ndtr(chance[:, :2].mean((2, 3)) * side)  # uniform
    distance = (torch.arange(side) - centre[..., None]).abs()  # (n, 2, s)
    inside = (half[:, None, None] - distance).clamp(0, 1)
    hole = inside[:, 0, :, None] * inside[:, 1, None, :]
    return torch.lerp(pictures, blurred(pictures, torch.full((n,), side / 8)), hole[:, None])


Defect = Callable[[Tensor, Tensor, Tensor], Tensor]
DEFECTS: dict[str, Defect] = {
    "checkerboard": checkerboard,
    "blur": blur,
    "ringing": ringing,
    "speckle": speckle,
    "cast": cast,
    "lost": lost,
}
NAMES = tuple(DEFECTS)


def planted(pictures: Tensor, strengths: Tensor, chance: Tensor, names: Sequence[str] = NAMES) -> Tensor:
    """Plant each of ``names`` by its column of ``strengths`` (n, len(names)); clipped to [0, 1].

    Each defect has separate random numbers, ``chance`` with signs changed at random, so that neither its place nor
    its direction depends on which other defects there are.
    """
    if strengths.shape != (len(pictures), len(names)):
        raise ValueError(f"strengths: expected ({len(pictures)}, {len(names)}), got {tuple(strengths.shape)}")
    for column, name in enumerate(names):
        rows = strengths[:, column] > 0
        if rows.any():
            signed = chance[rows] * _signs(name, chance.shape[1:])
            changed = DEFECTS[name](pictures[rows], strengths[rows, column], signed)
            pictures = pictures.index_put((rows,), changed)
    return pictures.clamp(0, 1)


@cache
def _signs(name: str, shape: torch.Size) -> Tensor:
    return 1.0 - 2.0 * torch.randint(2, shape, generator=torch_generator("signs", name))


def _smooth(chance: Tensor) -> Tensor:
    """A smooth field (n, s, s), about standard normal."""
    side = chance.shape[-1]
    drawn = adaptive_avg_pool2d(chance[:, 2:], FIELD) * (side / FIELD)
    return interpolate(drawn, (side, side), mode="bicubic")[:, 0]


def _wide(amount: Tensor) -> Tensor:
    return amount[:, None, None, None]
