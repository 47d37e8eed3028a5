"""Whether a defect judge may judge: the pairs of planted defects that it puts in the right order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from atelier.data.checks import FloatArray
from atelier.models.defect_judge import DefectJudge
from atelier.seeds import torch_generator
from atelier.training.defects import planted

LEAST = 0.8  # share of pairs, for each defect, below which a judge judges nothing
STRONG = 0.25  # the weakest of the stronger defects
RATIO = 0.5  # the weaker of a pair has at most this share of the other's strength, and may have none


def planted_pairs(pictures: Tensor, names: Sequence[str], defect: str, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures (n, 3, s, s) in [0, 1] with more and with less of a defect, at the same place and of the same kind.

    ``pictures``: (n, 3, s, s) uint8, each with a name that its random numbers depend on.
    """
    draws = [torch_generator(seed, "pair", defect, name) for name in names]
    amounts = torch.stack([torch.rand(2, generator=draw) for draw in draws])
    chance = torch.stack([torch.randn(pictures.shape[1:], generator=draw) for draw in draws])
    strong = STRONG + (1 - STRONG) * amounts[:, :1]
    clean = pictures / 255
    return planted(clean, strong, chance, [defect]), planted(clean, RATIO * amounts[:, 1:] * strong, chance, [defect])


def in_order(judge: DefectJudge, pictures: Tensor, names: Sequence[str], seed: int) -> dict[str, FloatArray]:
    """For each defect 1 for each picture whose stronger defect scores higher, 0 for others; a tie counts one half."""
    right = {}
    for defect in judge.defects:
        more, less = (judge.score(each) for each in planted_pairs(pictures, names, defect, seed))
        right[defect] = ((more > less).double() + 0.5 * (more == less).double()).numpy()
    return right
