"""Whether a defect judge may judge: the pairs of planted defects that it puts in the right order.

And what it says of two models: which of two pictures of a prompt and a noise has more, where its own noise is a tie.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from atelier.data.checks import FloatArray, check_number, check_whole, number_row
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


# ------------------------------------------------------------------------------------------------ two models' pictures

SURE = 0.95  # share of repeated scores whose difference is a tie
OUTCOMES = ("win", "tie", "lose")


def repeatability(scores: Sequence[float] | FloatArray, again: Sequence[float] | FloatArray) -> float:
    """What two scores of one picture differ by at most, in 95 % of pictures: the 95 % quantile of their difference.

    ``again``: of the same pictures in another way that should not matter, mirrored. Raises ValueError for other shapes,
    and for what is not finite.
    """
    first, second = _pairs(scores, again, ("scores", "again"))
    return float(np.quantile(np.abs(first - second), SURE))


def outcomes(first: Sequence[float] | FloatArray, second: Sequence[float] | FloatArray, width: float) -> FloatArray:
    """1 where the first of a pair has the higher score, -1 where the second has, 0 where they differ by <= ``width``.

    Scores of defects are negated by the caller: more of them is worse.
    """
    a, b = _pairs(first, second, ("first", "second"))
    gap = a - b
    return np.where(np.abs(gap) > check_number(width, "width", least=0), np.sign(gap), 0.0)


def shares(each: Sequence[float] | FloatArray) -> dict[str, float]:
    """Shares of ``outcomes``: win, tie, lose, which sum to 1, and net, wins less losses."""
    of = number_row(each, "each")
    if not len(of) or not np.isin(of, (-1, 0, 1)).all():
        raise ValueError("each: expected outcomes -1, 0 and 1, at least one")
    win, lose = float((of > 0).mean()), float((of < 0).mean())
    return {"win": win, "tie": float((of == 0).mean()), "lose": lose, "net": win - lose}


def net_error(win: float, lose: float, n: int) -> float:
    """Standard error of wins less losses, as shares of ``n`` independent pairs: sqrt((W + L - (W - L)^2) / n)."""
    win, lose = check_number(win, "win", least=0, most=1), check_number(lose, "lose", least=0, most=1)
    if win + lose > 1 + 1e-9:
        raise ValueError(f"win, lose: expected shares of the same pairs, got {win:g} and {lose:g}")
    return float(np.sqrt(max(0.0, win + lose - (win - lose) ** 2) / check_whole(n, "n")))


def _pairs(
    first: Sequence[float] | FloatArray, second: Sequence[float] | FloatArray, names: tuple[str, str]
) -> tuple[FloatArray, FloatArray]:
    a, b = number_row(first, names[0]), number_row(second, names[1])
    if a.shape != b.shape or not len(a):
        raise ValueError(f"{', '.join(names)}: expected as many scores, at least one, got {len(a)} and {len(b)}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"{', '.join(names)}: not all finite")
    return a, b
